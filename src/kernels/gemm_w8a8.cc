#include "kernels/gemm_w8a8.h"

#include <cstring>

#include "base/check.h"
#include "kernels/cpu/gemm_impls.h"
#include "kernels/cpu/gemm_w8a8_impls.h"
#include "kernels/cpu/pack_impls.h"
#include "kernels/parallel.h"

namespace millrace {
namespace {

constexpr Impl<GemmW8A8Fn> kImpls[] = {{"amx", Isa::kAmx, amx::gemm_w8a8},
                                       {"avx512_vnni", Isa::kAvx512, avx512::gemm_w8a8},
                                       {"avx2", Isa::kAvx2, avx2::gemm_w8a8},
                                       {"portable", Isa::kPortable, portable::gemm_w8a8}};

constexpr Impl<GatedGemmW8A8Fn> kGated[] = {{"amx", Isa::kAmx, amx::gemm_gated_w8a8},
                                            {"avx512_vnni", Isa::kAvx512, avx512::gemm_gated_w8a8},
                                            {"composed", Isa::kPortable, gemm_w8a8_then_glu}};

constexpr int64_t round_up_64(int64_t n) { return (n + 63) / 64 * 64; }

int32_t* sums_of(const W8A8PackArgs& a, const W8A8Layout& layout) {
  return reinterpret_cast<int32_t*>(a.packed + layout.panels * layout.panel_bytes);
}

// k from k_begin on; `sum` is that of those before.
void pack_row(const W8A8PackArgs& a, const W8A8Layout& layout, int64_t n, int64_t k_begin, int32_t sum) {
  const int8_t* values = a.values + (n - a.row_begin) * a.K;
  for (int64_t k = k_begin; k < a.K; k += 4) {
    int8_t four[4] = {};
    std::memcpy(four, values + k, static_cast<size_t>(std::min<int64_t>(4, a.K - k)));
    sum += four[0] + four[1] + four[2] + four[3];
    std::memcpy(a.packed + layout.at(n, k), four, 4);
  }
  sums_of(a, layout)[n] = sum;
}

// Rows [begin, end) of one panel.
void pack_panel(const W8A8PackArgs& a, const W8A8Layout& layout, int64_t begin, int64_t end) {
  int32_t sums[16] = {};
  int64_t k = 0;
  if (end - begin == 16 && cpu_has(Isa::kAvx512))
    k = avx512::pack_w8a8_panel(a.values + (begin - a.row_begin) * a.K, a.K, a.packed + begin / 16 * layout.panel_bytes,
                                sums);
  for (int64_t n = begin; n < end; ++n) pack_row(a, layout, n, k, sums[n % 16]);
}

}  // namespace

std::span<const Impl<GemmW8A8Fn>> gemm_w8a8_impls() { return kImpls; }

void check_w8a8(const GemmW8A8Args& a) {
  MR_CHECK(a.x_digits == 1 || (a.x_digits == 2 && a.x_scale == 0 && a.x_dtype != DType::kI8),
           "activations of {} digits, scale {}, {}", a.x_digits, a.x_scale, dtype_name(a.x_dtype));
}

bool gemm_w8a8_adds() { return cpu_has(Isa::kAmx); }

void gemm_w8a8(const GemmW8A8Args& args) {
  static GemmW8A8Fn* const best = best_impl(gemm_w8a8_impls());
  check_w8a8(args);
  MR_CHECK(args.add_scale == 0 || gemm_w8a8_adds(), "these products are not added");
  MR_CHECK(!args.packed_x || gemm_gated_w8a8_packs(args.M, 2 * args.K), "x [{}, {}] that is packed", args.M, args.K);
  check_heads(args);
  if (args.M > 0 && args.N > 0) best(args);
}

int64_t gemm_w8a8_scratch_bytes(int64_t max_rows, int64_t K, int64_t x_digits) {
  const int64_t digits = max_rows * x_digits;
  const int64_t rows = digits * (2 * w8a8_padded_k(K) + 64);  // at most int16, and a scale
  return cpu_has(Isa::kAmx) ? std::max(rows, amx::gemm_w8a8_scratch_bytes(digits, K)) : rows;
}

std::span<const Impl<GatedGemmW8A8Fn>> gemm_gated_w8a8_impls() { return kGated; }

void gemm_gated_w8a8(const GatedGemmW8A8Args& args) {
  static GatedGemmW8A8Fn* const best = best_impl(gemm_gated_w8a8_impls());
  check_w8a8(args.product);
  MR_CHECK(!args.packed_y || (gemm_gated_w8a8_packs(args.product.M, args.product.N) && args.y_dtype == DType::kBf16),
           "packed y of {} rows and {} columns", args.product.M, args.product.N);
  if (args.product.M > 0 && args.product.N > 0) best(args);
}

int64_t gemm_gated_w8a8_scratch_bytes(int64_t max_rows, int64_t N, int64_t K, int64_t x_digits) {
  return round_up_64(gemm_w8a8_scratch_bytes(max_rows, K, x_digits)) + max_rows * N * 4;
}

bool gemm_gated_w8a8_packs(int64_t M, int64_t N) { return cpu_has(Isa::kAmx) && amx::gemm_gated_w8a8_packs(M, N); }

int64_t gemm_w8a8_packed_x_bytes(int64_t M, int64_t K) { return amx::gemm_w8a8_packed_x_bytes(M, K); }

void gemm_w8a8_then_glu(const GatedGemmW8A8Args& args) {
  const GemmW8A8Args& a = args.product;
  GemmW8A8Args product = a;
  product.y = reinterpret_cast<float*>(a.scratch + round_up_64(gemm_w8a8_scratch_bytes(a.M, a.K, a.x_digits)));
  product.y_stride = a.N;
  gemm_w8a8(product);
  glu(unit_of(args, product));
}

void gemm_w8a8_pack(const W8A8PackArgs& args) {
  MR_CHECK(args.K <= kMostW8A8K, "sums over {} products of bytes; at most {} fit", args.K, kMostW8A8K);
  const W8A8Layout layout(GemmW8A8Args{.N = args.N, .K = args.K});
  const int64_t first = args.row_begin / 16, last = (args.row_end + 15) / 16;
  parallel_ranges(last - first, 1, [&](int64_t begin, int64_t end) {
    for (int64_t panel = first + begin; panel < first + end; ++panel)
      pack_panel(args, layout, std::max(args.row_begin, panel * 16), std::min(args.row_end, (panel + 1) * 16));
  });
}

void gemm_w8a8_unpack_row(const GemmW8A8Args& weights, int64_t n, float factor, float* to) {
  const W8A8Layout layout(weights);
  const float scale = factor * weights.scales[n];
  const auto* four = reinterpret_cast<const int8_t*>(weights.w + layout.at(n, 0));
  int64_t k = 0;
  for (; k + 4 <= weights.K; k += 4, four += 64)
    for (int64_t i = 0; i < 4; ++i) to[k + i] = scale * static_cast<float>(four[i]);
  for (int64_t i = 0; k + i < weights.K; ++i) to[k + i] = scale * static_cast<float>(four[i]);
}

}  // namespace millrace
