// Matrix product with vdpbf16ps for bf16 panels: pairs of k, float32 sums. Each output is one chain over the pairs,
// whichever tile it falls into.
#include <immintrin.h>

#include <algorithm>
#include <utility>

#include "kernels/cpu/avx512/vec.h"
#include "kernels/cpu/gemm_grouped_impls.h"
#include "kernels/parallel.h"

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx2,fma,f16c")
namespace millrace::avx512 {
namespace {

#include "kernels/cpu/simd/math.inl"

#include "kernels/cpu/simd/activations.inl"

#include "kernels/cpu/avx512/dword_tiles.inl"

// Sixteen pairs of row `row`, from k = 32 * i on, zero from K on.
inline __m512i pairs_of(const GemmArgs& a, int64_t row, int64_t i) {
  const int64_t left = std::clamp<int64_t>(a.K - 32 * i, 0, 32), at = row * a.x_stride + 32 * i;
  const auto mask = static_cast<__mmask32>((uint64_t{1} << left) - 1);
  if (a.x_dtype == DType::kBf16) return _mm512_maskz_loadu_epi16(mask, static_cast<const bf16*>(a.x) + at);
  const auto* x = static_cast<const float*>(a.x) + at;
  const __m512 low = _mm512_maskz_loadu_ps(static_cast<__mmask16>(mask), x),
               high = _mm512_maskz_loadu_ps(static_cast<__mmask16>(mask >> 16), x + 16);
  return reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high, low));
}

struct Pairs {
  using Sum = __m512;
  static constexpr int64_t kAhead = 2048;
  static Sum step(Sum sum, __m512i x, __m512i w) {
    return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(x), reinterpret_cast<__m512bh>(w));
  }
};

struct Work {
  explicit Work(const GemmArgs& args)
      : a(args),
        pairs(gemm_padded_k(args.K, DType::kBf16) / 2),
        panels((args.N + 15) / 16),
        blocks(blocks_of(args.M)),
        x(reinterpret_cast<uint32_t*>(args.scratch)) {}
  const GemmArgs& a;
  const int64_t pairs, panels;
  const RowBlocks blocks;
  uint32_t* const x;
};

// Panels `apart` of them from each other.
template <int kRows, int kPanels>
void run_tile(const Work& work, int64_t row, int64_t panel, int64_t apart, TileOutput to) {
  const GemmArgs& a = work.a;
  const int64_t panel_bytes = work.pairs * kStepBytes;
  __m512 sums[kRows][kPanels];
#pragma GCC unroll 32
  for (int i = 0; i < kRows * kPanels; ++i) sums[i / kPanels][i % kPanels] = _mm512_setzero_ps();
  multiply<Pairs, kRows, kPanels>(work.x + row * work.pairs, static_cast<const std::byte*>(a.w) + panel * panel_bytes,
                                  work.pairs, apart * panel_bytes, sums);
#pragma GCC unroll 2
  for (int p = 0; p < kPanels; ++p) {
    const int64_t column = (panel + p * apart) * 16, n = lanes_left(column, a.N);
    const Vec bias = a.bias ? Vec::load_n(a.bias + column, n) : Vec::zero();
#pragma GCC unroll 32
    for (int r = 0; r < kRows; ++r) {
      const Vec sum{sums[r][p]};
      (a.bias ? sum + bias : sum).store_n(to.at + r * to.stride + 16 * p, n);
    }
  }
}

void prepare(const GemmArgs& a, int64_t group) {
  const Work work(a);
  interleave_group(work.blocks, group, work.pairs, work.x, [&](int64_t row, int64_t i) { return pairs_of(a, row, i); });
}

int64_t items_of(const GemmArgs& a) { return (a.N + 16 * kTilePanels - 1) / (16 * kTilePanels); }

void run_item(const GemmArgs& a, int64_t item, std::byte*) {
  const Work work(a);
  run_tiles<1>(work.blocks, item * kTilePanels, work.panels, [&]<int kRows, int kPanels>(int64_t row, int64_t panel) {
    run_tile<kRows, kPanels>(work, row, panel, 1, {a.y + row * a.y_stride + panel * 16, a.y_stride});
  });
}

constexpr GemmSteps<GemmArgs> kSteps{.preparations = [](const GemmArgs& a) { return groups_of_four(a.M); },
                                     .prepare = prepare,
                                     .items = items_of,
                                     .run = run_item,
                                     .own_bytes = 0};

void run_gated_item(const GatedGemmArgs& gated, int64_t panel, std::byte*) {
  const Work work(gated.product);
  run_gated_tiles<GatedGemmArgs, 1>(gated, work.blocks, panel, [&]<int kRows>(int64_t row, TileOutput to) {
    run_tile<kRows, 2>(work, row, panel, work.panels / 2, to);
  });
}

constexpr GemmSteps<GatedGemmArgs> kGatedSteps{
    .preparations = [](const GatedGemmArgs& a) { return groups_of_four(a.product.M); },
    .prepare = [](const GatedGemmArgs& a, int64_t group) { prepare(a.product, group); },
    .items = [](const GatedGemmArgs& a) { return a.product.N / 32; },
    .run = run_gated_item,
    .own_bytes = 0};

}  // namespace

void gemm_gated_bf16_pairs(const GatedGemmArgs& a) {
  if (meets_in_tiles(a.product)) return run_alone(a, kGatedSteps, gemm_threads(a.product));
  gemm_with_then_glu(gemm_bf16_pairs, a);
}

void gemm_bf16_pairs(const GemmArgs& a) { run_alone(a, kSteps, gemm_threads(a)); }

void gemm_grouped_bf16_pairs(const GroupedGemmArgs& grouped) { run_grouped(grouped.products, grouped.scratch, kSteps); }

}  // namespace millrace::avx512
#pragma GCC pop_options
