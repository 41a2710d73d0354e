#include "kernels/gemm.h"

#include "kernels/cpu/gemm_impls.h"
#include "kernels/parallel.h"

namespace millrace {
namespace {

constexpr Impl<GemmFn> kF32[] = {{"avx512", Isa::kAvx512, avx512::gemm_f32},
                                 {"avx2", Isa::kAvx2, avx2::gemm_f32},
                                 {"portable", Isa::kPortable, portable::gemm}};
constexpr Impl<GemmFn> kF16[] = {{"avx512", Isa::kAvx512, avx512::gemm_f16},
                                 {"avx2", Isa::kAvx2, avx2::gemm_f16},
                                 {"portable", Isa::kPortable, portable::gemm}};
constexpr Impl<GemmFn> kBf16[] = {{"amx", Isa::kAmx, amx::gemm_bf16},
                                  {"avx512", Isa::kAvx512, avx512::gemm_bf16},
                                  {"avx2", Isa::kAvx2, avx2::gemm_bf16},
                                  {"portable", Isa::kPortable, portable::gemm}};

}  // namespace

std::span<const Impl<GemmFn>> gemm_impls(DType weight) {
  if (weight == DType::kF32) return kF32;
  if (weight == DType::kF16) return kF16;
  MR_CHECK(weight == DType::kBf16, "weights of type {}", dtype_name(weight));
  return kBf16;
}

void gemm(const GemmArgs& args) {
  static GemmFn* const f32 = best_impl(gemm_impls(DType::kF32));
  static GemmFn* const f16 = best_impl(gemm_impls(DType::kF16));
  static GemmFn* const bf16 = best_impl(gemm_impls(DType::kBf16));
  if (args.M <= 0 || args.N <= 0) return;
  (args.w_dtype == DType::kF32 ? f32 : args.w_dtype == DType::kF16 ? f16 : bf16)(args);
}

int64_t gemm_scratch_bytes(int64_t max_rows, int64_t, int64_t K, DType weight) {
  const int64_t widened = max_rows * gemm_padded_k(K, weight) * 4;
  if (weight != DType::kBf16 || !cpu_has(Isa::kAmx)) return widened;
  return std::max(widened, amx::gemm_bf16_scratch_bytes(max_rows, K));
}

}  // namespace millrace
