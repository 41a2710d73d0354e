// Matrix product with vdpbf16ps for bf16 panels: pairs of k, float32 sums. Each output is one chain over the pairs,
// whichever tile it falls into.
#include <immintrin.h>

#include <array>
#include <utility>

#include "kernels/cpu/avx512/vec.h"
#include "kernels/cpu/gemm_grouped_impls.h"
#include "kernels/parallel.h"

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx2,fma,f16c")
namespace millrace::avx512 {
namespace {

#include "kernels/cpu/simd/math.inl"

constexpr int kRows = 12, kPanels = 2;  // of a tile: 24 sums, 2 weights and a value of x in 32 registers
constexpr int64_t kPairBytes = 64;      // of a panel, per pair of k

struct Tile {
  const uint32_t* x;  // pairs of the first row
  int64_t x_pairs;    // from row to row
  const std::byte* w;
  int64_t panel_bytes, pairs;
  float* y;
  int64_t y_stride, columns;  // how many of the tile's columns exist
  bool starts, ends;          // whether these are the first and the last pairs of k
  const float* bias;          // at the first column, or null
};

inline __m512bh weights_at(const std::byte* at) {
  _mm_prefetch(reinterpret_cast<const char*>(at + 2048), _MM_HINT_T0);
  return reinterpret_cast<__m512bh>(_mm512_loadu_si512(at));
}

template <int kTileRows, int kTilePanels>
void run_tile(const Tile& t) {
  __m512 sums[kTileRows][kTilePanels];
  for (int r = 0; r < kTileRows; ++r)
    for (int p = 0; p < kTilePanels; ++p)
      sums[r][p] =
          t.starts ? _mm512_setzero_ps() : Vec::load_n(t.y + r * t.y_stride + 16 * p, lanes_left(16 * p, t.columns)).v;
  for (int64_t k = 0; k < t.pairs; ++k) {
    __m512bh w[kTilePanels];
    for (int p = 0; p < kTilePanels; ++p) w[p] = weights_at(t.w + p * t.panel_bytes + k * kPairBytes);
#pragma GCC unroll 16
    for (int r = 0; r < kTileRows; ++r) {
      const auto x = reinterpret_cast<__m512bh>(_mm512_set1_epi32(static_cast<int>(t.x[r * t.x_pairs + k])));
#pragma GCC unroll 4
      for (int p = 0; p < kTilePanels; ++p) sums[r][p] = _mm512_dpbf16_ps(sums[r][p], x, w[p]);
    }
  }
  for (int p = 0; p < kTilePanels; ++p) {
    const int64_t n = lanes_left(16 * p, t.columns);
    for (int r = 0; r < kTileRows; ++r) {
      Vec sum{sums[r][p]};
      if (t.ends && t.bias) sum = sum + Vec::load_n(t.bias + 16 * p, n);
      sum.store_n(t.y + r * t.y_stride + 16 * p, n);
    }
  }
}

template <int kTilePanels>
void run_rows(const Tile& tile, int64_t rows) {
  using Run = void (*)(const Tile&);
  static constexpr auto kRuns = []<size_t... kIndex>(std::index_sequence<kIndex...>) {
    return std::array<Run, sizeof...(kIndex)>{run_tile<static_cast<int>(kIndex) + 1, kTilePanels>...};
  }
  (std::make_index_sequence<kRows>());
  kRuns[rows - 1](tile);
}

// All rows against the panels [panel, panel + kTilePanels); their stretch of k stays in the first-level cache.
template <int kTilePanels>
void run_panels(const GemmArgs& a, const uint32_t* x, int64_t pairs, int64_t panel) {
  constexpr int64_t kStretch = 256;
  const int64_t step = a.M <= kRows ? pairs : kStretch, column = panel * kPanelColumns;
  for (int64_t k = 0; k < pairs; k += step)
    for (int64_t row = 0; row < a.M; row += kRows)
      run_rows<kTilePanels>({.x = x + row * pairs + k,
                             .x_pairs = pairs,
                             .w = static_cast<const std::byte*>(a.w) + (panel * pairs + k) * kPairBytes,
                             .panel_bytes = pairs * kPairBytes,
                             .pairs = std::min(step, pairs - k),
                             .y = a.y + row * a.y_stride + column,
                             .y_stride = a.y_stride,
                             .columns = a.N - column,
                             .starts = k == 0,
                             .ends = k + step >= pairs,
                             .bias = a.bias ? a.bias + column : nullptr},
                            std::min<int64_t>(kRows, a.M - row));
}

// A row of x in bf16, zero from K to Kp.
void prepare_row(const GemmArgs& a, int64_t row, int64_t padded, bf16* to) {
  for (int64_t k = 0; k < padded; k += 16) {
    const int64_t n = std::max<int64_t>(0, lanes_left(k, a.K)), at = row * a.x_stride + k;
    if (a.x_dtype == DType::kF32)
      Vec::load_n(static_cast<const float*>(a.x) + at, n).store(to + k);
    else
      _mm256_storeu_si256(
          reinterpret_cast<__m256i*>(to + k),
          _mm256_maskz_loadu_epi16(static_cast<__mmask16>((1u << n) - 1), static_cast<const bf16*>(a.x) + at));
  }
}

void prepare(const GemmArgs& a, int64_t row) {
  const int64_t padded = gemm_padded_k(a.K, DType::kBf16);
  prepare_row(a, row, padded, reinterpret_cast<bf16*>(a.scratch) + row * padded);
}

int64_t items_of(const GemmArgs& a) { return (a.N + 16 * kPanels - 1) / (16 * kPanels); }

// All rows against panels [item * kPanels, ...), as many as a tile has or are left.
void run_item(const GemmArgs& a, int64_t item) {
  const int64_t pairs = gemm_padded_k(a.K, DType::kBf16) / 2, panels = (a.N + 15) / 16, panel = item * kPanels;
  const auto* x = reinterpret_cast<const uint32_t*>(a.scratch);
  if (panel + kPanels <= panels)
    run_panels<kPanels>(a, x, pairs, panel);
  else
    run_panels<1>(a, x, pairs, panel);
}

}  // namespace

void gemm_bf16_pairs(const GemmArgs& a) {
  RunQueue queue(items_of(a));
  const auto work = [&](const TeamMember& me) {
    for (int64_t row = me.index; row < a.M; row += me.size) prepare(a, row);
    me.barrier();
    queue.each(me, [&](int64_t item) { run_item(a, item); });
  };
  parallel_team(work, gemm_threads(a));
}

void gemm_grouped_bf16_pairs(const GroupedGemmArgs& grouped) {
  static constexpr GemmSteps<GemmArgs> kSteps{
      .preparations = [](const GemmArgs& a) { return a.M; },
      .prepare = prepare,
      .items = items_of,
      .run = [](const GemmArgs& a, int64_t item, std::byte*) { run_item(a, item); },
      .own_bytes = 0};
  run_grouped(grouped.products, grouped.scratch, kSteps);
}

}  // namespace millrace::avx512
#pragma GCC pop_options
