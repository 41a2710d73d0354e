#include "kernels/gemm.h"

#include "kernels/cpu/gemm_impls.h"
#include "kernels/parallel.h"

namespace millrace {
namespace {

constexpr Impl<GemmFn> kF32[] = {{"avx512", Isa::kAvx512, avx512::gemm_f32},
                                 {"avx2", Isa::kAvx2, avx2::gemm_f32},
                                 {"portable", Isa::kPortable, portable::gemm}};
constexpr Impl<GemmFn> kF16[] = {{"amx", Isa::kAmx, amx::gemm_f16},
                                 {"avx512", Isa::kAvx512, avx512::gemm_f16},
                                 {"avx2", Isa::kAvx2, avx2::gemm_f16},
                                 {"portable", Isa::kPortable, portable::gemm}};
constexpr Impl<GemmFn> kBf16[] = {{"amx", Isa::kAmx, amx::gemm_bf16},
                                  {"avx512_bf16", Isa::kAvx512Bf16, avx512::gemm_bf16_pairs},
                                  {"avx512", Isa::kAvx512, avx512::gemm_bf16},
                                  {"avx2", Isa::kAvx2, avx2::gemm_bf16},
                                  {"portable", Isa::kPortable, portable::gemm}};

constexpr Impl<GatedGemmFn> kGated[] = {{"composed", Isa::kPortable, gemm_then_glu}};
constexpr Impl<GatedGemmFn> kGatedBf16[] = {{"amx", Isa::kAmx, amx::gemm_gated_bf16},
                                            {"avx512_bf16", Isa::kAvx512Bf16, avx512::gemm_gated_bf16_pairs},
                                            {"composed", Isa::kPortable, gemm_then_glu}};

constexpr int64_t kMostTileRows = 12;  // blocks of rows are packed whole
constexpr int64_t round_up_64(int64_t n) { return (n + 63) / 64 * 64; }

}  // namespace

std::span<const Impl<GemmFn>> gemm_impls(DType weight) {
  if (weight == DType::kF32) return kF32;
  if (weight == DType::kF16) return kF16;
  MR_CHECK(weight == DType::kBf16, "weights of type {}", dtype_name(weight));
  return kBf16;
}

bool gemm_adds(DType weight) { return weight != DType::kF32 && cpu_has(Isa::kAmx); }

void gemm(const GemmArgs& args) {
  static GemmFn* const f32 = best_impl(gemm_impls(DType::kF32));
  static GemmFn* const f16 = best_impl(gemm_impls(DType::kF16));
  static GemmFn* const bf16 = best_impl(gemm_impls(DType::kBf16));
  MR_CHECK(args.add_scale == 0 || gemm_adds(args.w_dtype), "products with weights of type {} are not added",
           dtype_name(args.w_dtype));
  MR_CHECK(!args.packed_x || gemm_gated_packs(args.M, 2 * args.K, args.w_dtype), "x [{}, {}] that is packed", args.M,
           args.K);
  MR_CHECK(!args.heads || args.w_dtype == DType::kBf16, "heads of {} weights", dtype_name(args.w_dtype));
  check_heads(args);
  if (args.M <= 0 || args.N <= 0) return;
  (args.w_dtype == DType::kF32 ? f32 : args.w_dtype == DType::kF16 ? f16 : bf16)(args);
}

int64_t gemm_scratch_bytes(int64_t max_rows, int64_t, int64_t K, DType weight) {
  const int64_t widened = (max_rows + kMostTileRows) * gemm_padded_k(K, weight) * 4;
  if (weight == DType::kF32 || !cpu_has(Isa::kAmx)) return widened;
  const int64_t tiles =
      weight == DType::kF16 ? amx::gemm_f16_scratch_bytes(max_rows, K) : amx::gemm_bf16_scratch_bytes(max_rows, K);
  return std::max(widened, tiles);
}

std::span<const Impl<GatedGemmFn>> gemm_gated_impls(DType weight) {
  if (weight == DType::kBf16) return kGatedBf16;
  return kGated;
}

void gemm_gated(const GatedGemmArgs& args) {
  static GatedGemmFn* const bf16 = best_impl(gemm_gated_impls(DType::kBf16));
  const GemmArgs& a = args.product;
  MR_CHECK(!args.packed_y || (gemm_gated_packs(a.M, a.N, a.w_dtype) && args.y_dtype == DType::kBf16),
           "packed y of {} rows and {} columns", a.M, a.N);
  if (a.M <= 0 || a.N <= 0) return;
  if (a.w_dtype == DType::kBf16) return bf16(args);
  gemm_then_glu(args);
}

int64_t gemm_gated_scratch_bytes(int64_t max_rows, int64_t N, int64_t K, DType weight) {
  return round_up_64(gemm_scratch_bytes(max_rows, N, K, weight)) + max_rows * N * 4;
}

bool gemm_rotates(int64_t M, int64_t head_dim) { return cpu_has(Isa::kAmx) && amx::gemm_rotates(M, head_dim); }

bool gemm_gated_packs(int64_t M, int64_t N, DType weight) {
  return weight == DType::kBf16 && cpu_has(Isa::kAmx) && amx::gemm_gated_packs(M, N);
}

int64_t gemm_packed_x_bytes(int64_t M, int64_t K) { return amx::gemm_packed_x_bytes(M, K); }

void gemm_then_glu(const GatedGemmArgs& args) { gemm_with_then_glu(gemm, args); }

void gemm_with_then_glu(GemmFn* run, const GatedGemmArgs& args) {
  const GemmArgs& a = args.product;
  GemmArgs product = a;
  product.y = reinterpret_cast<float*>(a.scratch + round_up_64(gemm_scratch_bytes(a.M, a.N, a.K, a.w_dtype)));
  product.y_stride = a.N;
  run(product);
  glu(unit_of(args, product));
}

}  // namespace millrace
