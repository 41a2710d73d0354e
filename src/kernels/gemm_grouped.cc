#include "kernels/gemm_grouped.h"

#include "kernels/cpu/gemm_grouped_impls.h"

namespace millrace {
namespace {

constexpr Impl<GroupedGemmFn> kF32[] = {{"avx512", Isa::kAvx512, avx512::gemm_grouped_f32},
                                        {"avx2", Isa::kAvx2, avx2::gemm_grouped_f32},
                                        {"portable", Isa::kPortable, portable::gemm_grouped}};
constexpr Impl<GroupedGemmFn> kF16[] = {{"avx512", Isa::kAvx512, avx512::gemm_grouped_f16},
                                        {"avx2", Isa::kAvx2, avx2::gemm_grouped_f16},
                                        {"portable", Isa::kPortable, portable::gemm_grouped}};
constexpr Impl<GroupedGemmFn> kBf16[] = {{"amx", Isa::kAmx, amx::gemm_grouped_bf16},
                                         {"avx512_bf16", Isa::kAvx512Bf16, avx512::gemm_grouped_bf16_pairs},
                                         {"avx512", Isa::kAvx512, avx512::gemm_grouped_bf16},
                                         {"avx2", Isa::kAvx2, avx2::gemm_grouped_bf16},
                                         {"portable", Isa::kPortable, portable::gemm_grouped}};

constexpr Impl<GroupedGatedGemmFn> kGated[] = {{"composed", Isa::kPortable, gemm_then_glu_grouped}};
constexpr Impl<GroupedGatedGemmFn> kGatedBf16[] = {{"amx", Isa::kAmx, amx::gemm_gated_grouped_bf16},
                                                   {"composed", Isa::kPortable, gemm_then_glu_grouped}};

// What the products of a group share, and the copies of theirs that a composed gated group makes.
int64_t shared_bytes(int64_t products, bool bf16) {
  return 2 * starts_bytes(products) + (bf16 ? compute_threads() * amx::gemm_own_bytes() : 0);
}
int64_t copies_bytes(int64_t products) { return round_up_to_64(products * static_cast<int64_t>(sizeof(GemmArgs))); }

GluArgs unit_of(const GatedGemmArgs& gated, const GemmArgs& product) {
  return {.gate = product.y,
          .up = product.y + product.N / 2,
          .y = gated.y,
          .T = product.M,
          .F = product.N / 2,
          .x_stride = product.N,
          .y_stride = gated.y_stride,
          .activation = gated.activation,
          .y_dtype = gated.y_dtype};
}

}  // namespace

std::span<const Impl<GroupedGemmFn>> gemm_grouped_impls(DType weight) {
  if (weight == DType::kF32) return kF32;
  if (weight == DType::kF16) return kF16;
  MR_CHECK(weight == DType::kBf16, "weights of type {}", dtype_name(weight));
  return kBf16;
}

void gemm_grouped(const GroupedGemmArgs& args) {
  static GroupedGemmFn* const f32 = best_impl(gemm_grouped_impls(DType::kF32));
  static GroupedGemmFn* const f16 = best_impl(gemm_grouped_impls(DType::kF16));
  static GroupedGemmFn* const bf16 = best_impl(gemm_grouped_impls(DType::kBf16));
  if (args.products.empty()) return;
  const DType weight = args.products[0].w_dtype;
  for (const GemmArgs& a : args.products)
    MR_CHECK(a.w_dtype == weight, "{} among {} weights", dtype_name(a.w_dtype), dtype_name(weight));
  (weight == DType::kF32 ? f32 : weight == DType::kF16 ? f16 : bf16)(args);
}

int64_t gemm_grouped_scratch_bytes(std::span<const GemmArgs> products) {
  const bool bf16 = !products.empty() && products[0].w_dtype == DType::kBf16;
  int64_t bytes = shared_bytes(static_cast<int64_t>(products.size()), bf16);
  for (const GemmArgs& a : products) bytes += prepared_bytes(a.M, a.K, a.w_dtype);
  return bytes;
}

int64_t gemm_grouped_scratch_bytes(int64_t max_products, int64_t max_rows, int64_t K, DType weight) {
  return shared_bytes(max_products, weight == DType::kBf16) + prepared_bytes(max_rows, K, weight) +
         max_products * prepared_bytes(0, K, weight);
}

std::span<const Impl<GroupedGatedGemmFn>> gemm_gated_grouped_impls(DType weight) {
  if (weight == DType::kBf16) return kGatedBf16;
  return kGated;
}

void gemm_gated_grouped(const GroupedGatedGemmArgs& args) {
  static GroupedGatedGemmFn* const bf16 = best_impl(gemm_gated_grouped_impls(DType::kBf16));
  if (args.products.empty()) return;
  if (args.products[0].product.w_dtype == DType::kBf16) return bf16(args);
  gemm_then_glu_grouped(args);
}

int64_t gemm_gated_grouped_scratch_bytes(std::span<const GatedGemmArgs> products) {
  const auto n = static_cast<int64_t>(products.size());
  const bool bf16 = n > 0 && products[0].product.w_dtype == DType::kBf16;
  int64_t bytes = shared_bytes(n, bf16) + copies_bytes(n), outputs = 0;
  for (const GatedGemmArgs& gated : products) {
    const GemmArgs& a = gated.product;
    bytes += prepared_bytes(a.M, a.K, a.w_dtype);
    outputs += a.M * a.N * 4;
  }
  return bytes + round_up_to_64(outputs);
}

int64_t gemm_gated_grouped_scratch_bytes(int64_t max_products, int64_t max_rows, int64_t N, int64_t K, DType weight) {
  return gemm_grouped_scratch_bytes(max_products, max_rows, K, weight) + copies_bytes(max_products) +
         round_up_to_64(max_rows * N * 4);
}

void gemm_then_glu_grouped(const GroupedGatedGemmArgs& args) {
  const auto n = static_cast<int64_t>(args.products.size());
  auto* products = reinterpret_cast<GemmArgs*>(args.scratch);
  std::byte* at = args.scratch + copies_bytes(n);
  for (int64_t i = 0; i < n; ++i) {
    products[i] = args.products[i].product;
    products[i].y = reinterpret_cast<float*>(at);
    products[i].y_stride = products[i].N;
    at += products[i].M * products[i].N * 4;
  }
  at = args.scratch + round_up_to_64(at - args.scratch);
  gemm_grouped({{products, static_cast<size_t>(n)}, at});
  // Many units side by side, or few one after another, each on all threads.
  const auto unit = [&](int64_t i) { glu(unit_of(args.products[i], products[i])); };
  if (n >= 4 * compute_threads()) return parallel_items(n, unit);
  for (int64_t i = 0; i < n; ++i) unit(i);
}

}  // namespace millrace
