#include "kernels/gemm_a16.h"

#include <algorithm>

#include "kernels/cpu/gemm_a16_impls.h"
#include "kernels/cpu/gemm_impls.h"
#include "kernels/parallel.h"

namespace millrace {
namespace {

constexpr Impl<GemmA16Fn> kImpls[] = {{"amx", Isa::kAmx, amx::gemm_a16},
                                      {"avx512", Isa::kAvx512, avx512::gemm_a16},
                                      {"avx2", Isa::kAvx2, avx2::gemm_a16},
                                      {"portable", Isa::kPortable, portable::gemm_a16}};

constexpr Impl<GatedGemmA16Fn> kGated[] = {{"amx", Isa::kAmx, amx::gemm_gated_a16},
                                           {"composed", Isa::kPortable, gemm_a16_then_glu}};

constexpr int64_t round_up_64(int64_t n) { return (n + 63) / 64 * 64; }

int64_t vector_scratch_bytes(int64_t max_rows, int64_t K) {
  return a16_words_bytes(max_rows, K) + compute_threads() * kA16OwnBytes;
}

}  // namespace

std::span<const Impl<GemmA16Fn>> gemm_a16_impls() { return kImpls; }

bool gemm_a16_adds() { return cpu_has(Isa::kAmx); }

void gemm_a16(const GemmA16Args& args) {
  static GemmA16Fn* const best = best_impl(gemm_a16_impls());
  MR_CHECK(args.add_scale == 0 || gemm_a16_adds(), "these products are not added");
  MR_CHECK(!args.packed_x || gemm_gated_a16_packs(args.M, 2 * args.K), "x [{}, {}] that is packed", args.M, args.K);
  check_heads(args);
  if (args.M > 0 && args.N > 0) best(args);
}

int64_t gemm_a16_scratch_bytes(int64_t max_rows, int64_t K) {
  const int64_t vectors = vector_scratch_bytes(max_rows, K);
  return cpu_has(Isa::kAmx) ? std::max(vectors, amx::gemm_a16_scratch_bytes(max_rows, K)) : vectors;
}

std::span<const Impl<GatedGemmA16Fn>> gemm_gated_a16_impls() { return kGated; }

void gemm_gated_a16(const GatedGemmA16Args& args) {
  static GatedGemmA16Fn* const best = best_impl(gemm_gated_a16_impls());
  MR_CHECK(!args.packed_y || (gemm_gated_a16_packs(args.product.M, args.product.N) && args.y_dtype == DType::kBf16),
           "packed y of {} rows and {} columns", args.product.M, args.product.N);
  if (args.product.M > 0 && args.product.N > 0) best(args);
}

int64_t gemm_gated_a16_scratch_bytes(int64_t max_rows, int64_t N, int64_t K) {
  return round_up_64(gemm_a16_scratch_bytes(max_rows, K)) + max_rows * N * 4;
}

bool gemm_gated_a16_packs(int64_t M, int64_t N) { return cpu_has(Isa::kAmx) && amx::gemm_gated_a16_packs(M, N); }

int64_t gemm_a16_packed_x_bytes(int64_t M, int64_t K) { return amx::gemm_a16_packed_x_bytes(M, K); }

void gemm_a16_then_glu(const GatedGemmA16Args& args) {
  const GemmA16Args& a = args.product;
  GemmA16Args product = a;
  product.y = reinterpret_cast<float*>(a.scratch + round_up_64(gemm_a16_scratch_bytes(a.M, a.K)));
  product.y_stride = a.N;
  gemm_a16(product);
  glu(unit_of(args, product));
}

void order_columns(const OrderColumnsArgs& a) {
  parallel_ranges(a.M, 4, [&](int64_t begin, int64_t end) {
    for (int64_t m = begin; m < end; ++m) {
      bf16* to = a.to + m * a.K;
      if (a.x_dtype == DType::kBf16) {
        const bf16* x = static_cast<const bf16*>(a.x) + m * a.x_stride;
        for (int64_t k = 0; k < a.K; ++k) to[k] = x[a.order[k]];
      } else {
        const float* x = static_cast<const float*>(a.x) + m * a.x_stride;
        for (int64_t k = 0; k < a.K; ++k) to[k] = to_bf16(x[a.order[k]]);
      }
    }
  });
}

}  // namespace millrace
