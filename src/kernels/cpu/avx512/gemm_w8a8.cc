// gemm_w8a8 with vpdpbusd, whose first operand is unsigned: activations are offset by 128, which the columns' sums take
// back.
#include <immintrin.h>

#include <array>
#include <utility>

#include "kernels/cpu/avx512/quantize.h"
#include "kernels/cpu/avx512/vec.h"
#include "kernels/cpu/gemm_grouped_impls.h"
#include "kernels/parallel.h"

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")
namespace millrace::avx512 {
namespace {

#include "kernels/cpu/simd/math.inl"

constexpr int kRows = 12, kPanels = 2;

struct Work {
  explicit Work(const GemmW8A8Args& args)
      : a(args),
        layout(args),
        p(reinterpret_cast<uint8_t*>(args.scratch)),
        scales(reinterpret_cast<float*>(args.scratch + args.M * args.x_digits * layout.padded_k)) {}
  const GemmW8A8Args& a;
  const W8A8Layout layout;
  uint8_t* const p;  // [M][x_digits][padded_k]
  float* const scales;
};

// Sums of a row's kDigits digits.
template <int kDigits>
inline void store_sums(const Work& work, int64_t row, int64_t panel, const __m512i* sums) {
  const GemmW8A8Args& a = work.a;
  const int64_t column = panel * 16, n = lanes_left(column, a.N);
  const __m512i offset = _mm512_slli_epi32(_mm512_loadu_si512(work.layout.sums(a) + column), 7);
  Vec y{_mm512_cvtepi32_ps(_mm512_sub_epi32(sums[0], offset))};
  if constexpr (kDigits == 2) y = y * Vec::set(256) + Vec{_mm512_cvtepi32_ps(_mm512_sub_epi32(sums[1], offset))};
  y = y * Vec::load_n(a.scales + column, n) * Vec::set(work.scales[row]);
  if (a.bias) y = y + Vec::load_n(a.bias + column, n);
  y.store_n(a.y + row * a.y_stride + column, n);
}

// Rows are digits of rows of x.
template <int kTileRows, int kTilePanels, int kDigits>
void run_tile(const Work& work, int64_t row, int64_t panel) {
  __m512i sums[kTileRows][kTilePanels] = {};
  const uint8_t* p = work.p + row * work.layout.padded_k;
  const std::byte* w = work.layout.panel(work.a, panel);
  for (int64_t k = 0; k < work.layout.padded_k; k += 4) {
    __m512i columns[kTilePanels];
    for (int i = 0; i < kTilePanels; ++i) {
      const std::byte* at = w + i * work.layout.panel_bytes + k * 16;
      _mm_prefetch(reinterpret_cast<const char*>(at + 4096), _MM_HINT_T0);
      columns[i] = _mm512_loadu_si512(at);
    }
#pragma GCC unroll 16
    for (int r = 0; r < kTileRows; ++r) {
      int four;
      __builtin_memcpy(&four, p + r * work.layout.padded_k + k, 4);
      const __m512i x = _mm512_set1_epi32(four);
#pragma GCC unroll 4
      for (int i = 0; i < kTilePanels; ++i) sums[r][i] = _mm512_dpbusd_epi32(sums[r][i], x, columns[i]);
    }
  }
  // A copy, which is in memory: the sums themselves stay in registers while they grow.
  __m512i done[kTilePanels][kTileRows];
#pragma GCC unroll 16
  for (int r = 0; r < kTileRows; ++r)
#pragma GCC unroll 4
    for (int i = 0; i < kTilePanels; ++i) done[i][r] = sums[r][i];
  for (int i = 0; i < kTilePanels; ++i)
    for (int r = 0; r < kTileRows; r += kDigits) store_sums<kDigits>(work, (row + r) / kDigits, panel + i, done[i] + r);
}

template <int kTilePanels, int kDigits>
void run_panels(const Work& work, int64_t panel) {
  using Run = void (*)(const Work&, int64_t, int64_t);
  static constexpr auto kRuns = []<size_t... kIndex>(std::index_sequence<kIndex...>) {
    return std::array<Run, sizeof...(kIndex)>{
        run_tile<kDigits*(static_cast<int>(kIndex) + 1), kTilePanels, kDigits>...};
  }
  (std::make_index_sequence<kRows / kDigits>());
  for (int64_t row = 0; row < work.a.M; row += kRows / kDigits)
    kRuns[std::min<int64_t>(kRows / kDigits, work.a.M - row) - 1](work, row * kDigits, panel);
}

// ---- a product in steps: rows become bytes, then pairs of panels are multiplied ----

void quantize(const GemmW8A8Args& a, int64_t row) {
  const Work work(a);
  const int64_t padded_k = work.layout.padded_k;
  uint8_t* to = work.p + row * a.x_digits * padded_k;
  const auto store = [to](int64_t k, __m512i bytes) {
    _mm512_storeu_si512(to + k, _mm512_xor_si512(bytes, _mm512_set1_epi8(-128)));
  };
  if (a.x_digits == 1)
    work.scales[row] = quantize_row(a, row, padded_k, store);
  else
    work.scales[row] = quantize_row_to_digits(a, row, padded_k, [&](int64_t k, __m512i high, __m512i low) {
      store(k, high);
      store(padded_k + k, low);
    });
}

int64_t items_of(const GemmW8A8Args& a) { return (W8A8Layout(a).panels + kPanels - 1) / kPanels; }

template <int kTilePanels>
void run_panels(const Work& work, int64_t panel) {
  work.a.x_digits == 1 ? run_panels<kTilePanels, 1>(work, panel) : run_panels<kTilePanels, 2>(work, panel);
}

void run_item(const GemmW8A8Args& a, int64_t item, std::byte*) {
  const Work work(a);
  const int64_t panel = item * kPanels;
  if (panel + kPanels <= work.layout.panels)
    run_panels<kPanels>(work, panel);
  else
    run_panels<1>(work, panel);
}

constexpr GemmSteps<GemmW8A8Args> kSteps{.preparations = [](const GemmW8A8Args& a) { return a.M; },
                                         .prepare = quantize,
                                         .items = items_of,
                                         .run = run_item,
                                         .own_bytes = 0};

}  // namespace

void gemm_w8a8(const GemmW8A8Args& a) { run_alone(a, kSteps, gemm_w8a8_threads(a)); }

void gemm_w8a8_grouped(const GroupedW8A8Args& a) { run_grouped(a.products, a.scratch, kSteps); }

}  // namespace millrace::avx512
#pragma GCC pop_options
