#include "kernels/gemm_grouped.h"

#include <algorithm>

#include "kernels/cpu/gemm_grouped_impls.h"

namespace millrace {
namespace {

constexpr Impl<GroupedGemmFn> kF32[] = {{"avx512", Isa::kAvx512, avx512::gemm_grouped_f32},
                                        {"avx2", Isa::kAvx2, avx2::gemm_grouped_f32},
                                        {"portable", Isa::kPortable, portable::gemm_grouped}};
constexpr Impl<GroupedGemmFn> kF16[] = {{"amx", Isa::kAmx, amx::gemm_grouped_f16},
                                        {"avx512", Isa::kAvx512, avx512::gemm_grouped_f16},
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

constexpr Impl<GroupedW8A8Fn> kW8A8[] = {{"amx", Isa::kAmx, amx::gemm_w8a8_grouped},
                                         {"avx512_vnni", Isa::kAvx512, avx512::gemm_w8a8_grouped},
                                         {"avx2", Isa::kAvx2, avx2::gemm_w8a8_grouped},
                                         {"portable", Isa::kPortable, portable::gemm_w8a8_grouped}};
constexpr Impl<GroupedGatedW8A8Fn> kGatedW8A8[] = {{"amx", Isa::kAmx, amx::gemm_gated_w8a8_grouped},
                                                   {"composed", Isa::kPortable, gemm_w8a8_then_glu_grouped}};

constexpr Impl<GroupedA16Fn> kA16[] = {{"amx", Isa::kAmx, amx::gemm_a16_grouped},
                                       {"avx512", Isa::kAvx512, avx512::gemm_a16_grouped},
                                       {"avx2", Isa::kAvx2, avx2::gemm_a16_grouped},
                                       {"portable", Isa::kPortable, portable::gemm_a16_grouped}};
constexpr Impl<GroupedGatedA16Fn> kGatedA16[] = {{"amx", Isa::kAmx, amx::gemm_gated_a16_grouped},
                                                 {"composed", Isa::kPortable, gemm_a16_then_glu_grouped}};

// What the products of a group share, and the copies of theirs that a composed gated group makes.
int64_t shared_bytes(int64_t products, int64_t own_bytes) {
  return 2 * starts_bytes(products) + compute_threads() * own_bytes;
}
// Of a thread's own.
int64_t own_bytes(DType weight) {
  if (weight == DType::kF32 || !cpu_has(Isa::kAmx)) return 0;
  return weight == DType::kF16 ? amx::gemm_f16_own_bytes() : amx::gemm_own_bytes();
}
int64_t copies_bytes(int64_t products) { return round_up_to_64(products * static_cast<int64_t>(sizeof(GemmArgs))); }
int64_t w8a8_copies_bytes(int64_t products) {
  return round_up_to_64(products * static_cast<int64_t>(sizeof(GemmW8A8Args)));
}

int64_t a16_shared_bytes(int64_t products) {
  const int64_t own = std::max(cpu_has(Isa::kAmx) ? amx::gemm_a16_own_bytes() : 0, kA16OwnBytes);
  return 2 * starts_bytes(products) + compute_threads() * own;
}
int64_t a16_copies_bytes(int64_t products) {
  return round_up_to_64(products * static_cast<int64_t>(sizeof(GemmA16Args)));
}

void check_scales(const GemmA16Args& a, const GemmA16Args& first) {
  const int64_t scales = a16_chunk_scales(a.group, a.K), others = a16_chunk_scales(first.group, first.K);
  MR_CHECK(scales == others, "chunks of {} and of {} scales", scales, others);
}

void check_digits(const GemmW8A8Args& a, const GemmW8A8Args& first) {
  check_w8a8(a);
  MR_CHECK(a.x_digits == first.x_digits, "activations of {} and of {} digits", a.x_digits, first.x_digits);
}

// `grouped(products, scratch)` into scratch, then the units on it.
template <class Product, class Gated, class Grouped>
void then_units(std::span<Gated> gated, std::byte* scratch, const Grouped& grouped) {
  const auto n = static_cast<int64_t>(gated.size());
  auto* products = reinterpret_cast<Product*>(scratch);
  std::byte* at = scratch + round_up_to_64(n * static_cast<int64_t>(sizeof(Product)));
  for (int64_t i = 0; i < n; ++i) {
    products[i] = gated[i].product;
    products[i].y = reinterpret_cast<float*>(at);
    products[i].y_stride = products[i].N;
    at += products[i].M * products[i].N * 4;
  }
  grouped(std::span(products, static_cast<size_t>(n)), scratch + round_up_to_64(at - scratch));
  // Many units side by side, or few one after another, each on all threads.
  const auto unit = [&](int64_t i) { glu(unit_of(gated[i], products[i])); };
  if (n >= 4 * compute_threads()) return parallel_items(n, unit);
  for (int64_t i = 0; i < n; ++i) unit(i);
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
  int64_t bytes = shared_bytes(static_cast<int64_t>(products.size()),
                               own_bytes(products.empty() ? DType::kF32 : products[0].w_dtype));
  for (const GemmArgs& a : products) bytes += prepared_bytes(a);
  return bytes;
}

int64_t gemm_grouped_scratch_bytes(int64_t max_products, int64_t max_rows, int64_t K, DType weight) {
  return shared_bytes(max_products, own_bytes(weight)) + prepared_bytes(max_rows, K) +
         max_products * prepared_bytes(0, K);
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
  const DType weight = n > 0 ? products[0].product.w_dtype : DType::kF32;
  int64_t bytes = shared_bytes(n, own_bytes(weight)) + copies_bytes(n), outputs = 0;
  for (const GatedGemmArgs& gated : products) {
    const GemmArgs& a = gated.product;
    bytes += prepared_bytes(a);
    outputs += a.M * a.N * 4;
  }
  return bytes + round_up_to_64(outputs);
}

int64_t gemm_gated_grouped_scratch_bytes(int64_t max_products, int64_t max_rows, int64_t N, int64_t K, DType weight) {
  return gemm_grouped_scratch_bytes(max_products, max_rows, K, weight) + copies_bytes(max_products) +
         round_up_to_64(max_rows * N * 4);
}

void gemm_then_glu_grouped(const GroupedGatedGemmArgs& args) {
  then_units<GemmArgs>(args.products, args.scratch, [](std::span<GemmArgs> products, std::byte* scratch) {
    gemm_grouped({products, scratch});
  });
}

std::span<const Impl<GroupedW8A8Fn>> gemm_w8a8_grouped_impls() { return kW8A8; }
std::span<const Impl<GroupedGatedW8A8Fn>> gemm_gated_w8a8_grouped_impls() { return kGatedW8A8; }

void gemm_w8a8_grouped(const GroupedW8A8Args& args) {
  static GroupedW8A8Fn* const best = best_impl(gemm_w8a8_grouped_impls());
  if (args.products.empty()) return;
  for (const GemmW8A8Args& a : args.products) check_digits(a, args.products[0]);
  best(args);
}

void gemm_gated_w8a8_grouped(const GroupedGatedW8A8Args& args) {
  static GroupedGatedW8A8Fn* const best = best_impl(gemm_gated_w8a8_grouped_impls());
  if (args.products.empty()) return;
  for (const GatedGemmW8A8Args& a : args.products) check_digits(a.product, args.products[0].product);
  best(args);
}

int64_t gemm_w8a8_grouped_scratch_bytes(std::span<const GemmW8A8Args> products) {
  int64_t bytes = shared_bytes(static_cast<int64_t>(products.size()), amx::gemm_own_bytes());
  for (const GemmW8A8Args& a : products) bytes += prepared_bytes(a);
  return bytes;
}

int64_t gemm_w8a8_grouped_scratch_bytes(int64_t max_products, int64_t max_rows, int64_t K, int64_t x_digits) {
  return shared_bytes(max_products, amx::gemm_own_bytes()) + w8a8_prepared_bytes(max_rows * x_digits, K) +
         max_products * w8a8_prepared_bytes(0, K);
}

int64_t gemm_gated_w8a8_grouped_scratch_bytes(std::span<const GatedGemmW8A8Args> products) {
  const auto n = static_cast<int64_t>(products.size());
  int64_t bytes = shared_bytes(n, amx::gemm_own_bytes()) + w8a8_copies_bytes(n), outputs = 0;
  for (const GatedGemmW8A8Args& gated : products) {
    bytes += prepared_bytes(gated.product);
    outputs += gated.product.M * gated.product.N * 4;
  }
  return bytes + round_up_to_64(outputs);
}

int64_t gemm_gated_w8a8_grouped_scratch_bytes(int64_t max_products, int64_t max_rows, int64_t N, int64_t K,
                                              int64_t x_digits) {
  return gemm_w8a8_grouped_scratch_bytes(max_products, max_rows, K, x_digits) + w8a8_copies_bytes(max_products) +
         round_up_to_64(max_rows * N * 4);
}

void gemm_w8a8_then_glu_grouped(const GroupedGatedW8A8Args& args) {
  then_units<GemmW8A8Args>(args.products, args.scratch, [](std::span<GemmW8A8Args> products, std::byte* scratch) {
    gemm_w8a8_grouped({products, scratch});
  });
}

std::span<const Impl<GroupedA16Fn>> gemm_a16_grouped_impls() { return kA16; }
std::span<const Impl<GroupedGatedA16Fn>> gemm_gated_a16_grouped_impls() { return kGatedA16; }

void gemm_a16_grouped(const GroupedA16Args& args) {
  static GroupedA16Fn* const best = best_impl(gemm_a16_grouped_impls());
  if (args.products.empty()) return;
  for (const GemmA16Args& a : args.products) check_scales(a, args.products[0]);
  best(args);
}

void gemm_gated_a16_grouped(const GroupedGatedA16Args& args) {
  static GroupedGatedA16Fn* const best = best_impl(gemm_gated_a16_grouped_impls());
  if (args.products.empty()) return;
  for (const GatedGemmA16Args& a : args.products) check_scales(a.product, args.products[0].product);
  best(args);
}

int64_t gemm_a16_grouped_scratch_bytes(std::span<const GemmA16Args> products) {
  int64_t bytes = a16_shared_bytes(static_cast<int64_t>(products.size()));
  for (const GemmA16Args& a : products) bytes += prepared_bytes(a);
  return bytes;
}

int64_t gemm_a16_grouped_scratch_bytes(int64_t max_products, int64_t max_rows, int64_t K) {
  return a16_shared_bytes(max_products) + a16_prepared_bytes(max_rows, K) + max_products * a16_prepared_bytes(0, K);
}

int64_t gemm_gated_a16_grouped_scratch_bytes(std::span<const GatedGemmA16Args> products) {
  const auto n = static_cast<int64_t>(products.size());
  int64_t bytes = a16_shared_bytes(n) + a16_copies_bytes(n), outputs = 0;
  for (const GatedGemmA16Args& gated : products) {
    bytes += prepared_bytes(gated.product);
    outputs += gated.product.M * gated.product.N * 4;
  }
  return bytes + round_up_to_64(outputs);
}

int64_t gemm_gated_a16_grouped_scratch_bytes(int64_t max_products, int64_t max_rows, int64_t N, int64_t K) {
  return gemm_a16_grouped_scratch_bytes(max_products, max_rows, K) + a16_copies_bytes(max_products) +
         round_up_to_64(max_rows * N * 4);
}

void gemm_a16_then_glu_grouped(const GroupedGatedA16Args& args) {
  then_units<GemmA16Args>(args.products, args.scratch, [](std::span<GemmA16Args> products, std::byte* scratch) {
    gemm_a16_grouped({products, scratch});
  });
}

}  // namespace millrace
