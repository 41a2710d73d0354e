// gemm_w8a8 with vpdpbusd, whose first operand is unsigned: activations are offset by 128, which the columns' sums take
// back.
#include <immintrin.h>

#include <algorithm>
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

#include "kernels/cpu/simd/activations.inl"

#include "kernels/cpu/avx512/dword_tiles.inl"

struct Fours {
  using Sum = __m512i;
  static constexpr int64_t kAhead = 4096;
  static Sum step(Sum sum, __m512i x, __m512i w) { return _mm512_dpbusd_epi32(sum, x, w); }
};

// Rows of blocks are digits of rows of x.
struct Work {
  explicit Work(const GemmW8A8Args& args)
      : a(args),
        layout(args),
        blocks(blocks_of(args.M * args.x_digits)),
        fours(layout.padded_k / 4),
        x(reinterpret_cast<uint32_t*>(args.scratch)),
        scales(reinterpret_cast<float*>(x + blocks.rows * fours)) {}
  const GemmW8A8Args& a;
  const W8A8Layout layout;
  const RowBlocks blocks;
  const int64_t fours;
  uint32_t* const x;
  float* const scales;  // of the M rows
};

// Panels `apart` of them from each other. Of the outputs' rows, kDigits are one.
template <int kRows, int kPanels, int kDigits>
void run_tile(const Work& work, int64_t row, int64_t panel, int64_t apart, TileOutput to) {
  const GemmW8A8Args& a = work.a;
  __m512i sums[kRows][kPanels];
#pragma GCC unroll 32
  for (int i = 0; i < kRows * kPanels; ++i) sums[i / kPanels][i % kPanels] = _mm512_setzero_si512();
  multiply<Fours, kRows, kPanels>(work.x + row * work.fours, work.layout.panel(a, panel), work.fours,
                                  apart * work.layout.panel_bytes, sums);
#pragma GCC unroll 2
  for (int p = 0; p < kPanels; ++p) {
    const int64_t column = (panel + p * apart) * 16, n = lanes_left(column, a.N);
    const __m512i offset = _mm512_slli_epi32(_mm512_loadu_si512(work.layout.sums(a) + column), 7);
    const Vec scales = Vec::load_n(a.scales + column, n), bias = a.bias ? Vec::load_n(a.bias + column, n) : Vec::zero();
#pragma GCC unroll 32
    for (int r = 0; r < kRows; r += kDigits) {
      Vec y{_mm512_cvtepi32_ps(_mm512_sub_epi32(sums[r][p], offset))};
      if constexpr (kDigits == 2)
        y = y * Vec::set(256) + Vec{_mm512_cvtepi32_ps(_mm512_sub_epi32(sums[r + 1][p], offset))};
      y = y * scales * Vec::set(work.scales[(row + r) / kDigits]);
      (a.bias ? y + bias : y).store_n(to.at + r / kDigits * to.stride + 16 * p, n);
    }
  }
}

// ---- a product in steps: rows become bytes, then pairs of panels are multiplied ----

// 64 bytes as vpdpbusd takes them.
inline __m512i offset_bytes(__m512i bytes) { return _mm512_xor_si512(bytes, _mm512_set1_epi8(-128)); }

// How row `row` becomes integers; what they stand for goes to the scales.
inline float factor_of(const Work& work, int64_t row) {
  const GemmW8A8Args& a = work.a;
  if (a.x_dtype == DType::kI8) {
    work.scales[row] = made_scale(static_cast<const int8_t*>(a.x) + row * a.x_stride, a.K);
    return 1;
  }
  const RowScale scale = row_scale(a, row);
  work.scales[row] = scale.scale;
  return scale.factor;
}

inline __m512i bytes_of(const GemmW8A8Args& a, int64_t row, int64_t i, float factor) {
  if (a.x_dtype == DType::kI8) return _mm512_loadu_si512(static_cast<const int8_t*>(a.x) + row * a.x_stride + 64 * i);
  return quantized(elements(a, row, 64 * i), factor);
}

void prepare(const GemmW8A8Args& a, int64_t group) {
  const Work work(a);
  const int64_t first = group * 4 / a.x_digits, end = std::min(a.M, first + 4 / a.x_digits);
  float factors[4];
  for (int64_t row = first; row < end; ++row) factors[row - first] = factor_of(work, row);
  if (a.x_digits == 1) {
    interleave_group(work.blocks, group, work.fours, work.x,
                     [&](int64_t row, int64_t i) { return offset_bytes(bytes_of(a, row, i, factors[row - first])); });
    return;
  }
  TwoDigits digits;  // the high one of a row is asked for first
  interleave_group(work.blocks, group, work.fours, work.x, [&](int64_t digit, int64_t i) {
    const int64_t row = digit / 2;
    if (digit % 2) return offset_bytes(digits.low);
    digits = two_digits(elements(a, row, 64 * i), factors[row - first]);
    return offset_bytes(digits.high);
  });
}

int64_t items_of(const GemmW8A8Args& a) { return (W8A8Layout(a).panels + kTilePanels - 1) / kTilePanels; }

template <int kDigits>
void run_item_of(const Work& work, int64_t item) {
  const GemmW8A8Args& a = work.a;
  run_tiles<kDigits>(work.blocks, item * kTilePanels, work.layout.panels,
                     [&]<int kRows, int kPanels>(int64_t row, int64_t panel) {
                       run_tile<kRows, kPanels, kDigits>(work, row, panel, 1,
                                                         {a.y + row / kDigits * a.y_stride + panel * 16, a.y_stride});
                     });
}

void run_item(const GemmW8A8Args& a, int64_t item, std::byte*) {
  const Work work(a);
  a.x_digits == 1 ? run_item_of<1>(work, item) : run_item_of<2>(work, item);
}

constexpr GemmSteps<GemmW8A8Args> kSteps{
    .preparations = [](const GemmW8A8Args& a) { return groups_of_four(a.M * a.x_digits); },
    .prepare = prepare,
    .items = items_of,
    .run = run_item,
    .own_bytes = 0};

template <int kDigits>
void run_gated_item_of(const GatedGemmW8A8Args& gated, int64_t panel) {
  const Work work(gated.product);
  run_gated_tiles<GatedGemmW8A8Args, kDigits>(gated, work.blocks, panel, [&]<int kRows>(int64_t row, TileOutput to) {
    run_tile<kRows, 2, kDigits>(work, row, panel, work.layout.panels / 2, to);
  });
}

constexpr GemmSteps<GatedGemmW8A8Args> kGatedSteps{
    .preparations = [](const GatedGemmW8A8Args& a) { return kSteps.preparations(a.product); },
    .prepare = [](const GatedGemmW8A8Args& a, int64_t group) { prepare(a.product, group); },
    .items = [](const GatedGemmW8A8Args& a) { return a.product.N / 32; },
    .run =
        [](const GatedGemmW8A8Args& a, int64_t panel, std::byte*) {
          a.product.x_digits == 1 ? run_gated_item_of<1>(a, panel) : run_gated_item_of<2>(a, panel);
        },
    .own_bytes = 0};

}  // namespace

void gemm_gated_w8a8(const GatedGemmW8A8Args& a) {
  meets_in_tiles(a.product) ? run_alone(a, kGatedSteps, gemm_w8a8_threads(a.product)) : gemm_w8a8_then_glu(a);
}

void gemm_w8a8(const GemmW8A8Args& a) { run_alone(a, kSteps, gemm_w8a8_threads(a)); }

void gemm_w8a8_grouped(const GroupedW8A8Args& a) { run_grouped(a.products, a.scratch, kSteps); }

}  // namespace millrace::avx512
#pragma GCC pop_options
