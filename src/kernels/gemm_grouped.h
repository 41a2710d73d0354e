// Many matrix products as one parallel region: threads take pieces of any of them as they become free, so that a few
// rows against each of many matrices (the experts of a mixture) read memory as fast as one large matrix would be read.
// Every product means what gemm, gemm_w8a8, gemm_a16 and their gated forms say of it, to the bit: a row of y depends on
// its row of x alone.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels/gemm.h"
#include "kernels/gemm_a16.h"
#include "kernels/gemm_w8a8.h"

namespace millrace {

struct GroupedGemmArgs {
  std::span<GemmArgs> products;  // of one w_dtype, writing apart; `scratch` of each is set by the call
  std::byte* scratch;            // gemm_grouped_scratch_bytes(products), 64-byte aligned
};
using GroupedGemmFn = void(const GroupedGemmArgs&);

void gemm_grouped(const GroupedGemmArgs& args);
std::span<const Impl<GroupedGemmFn>> gemm_grouped_impls(DType weight);  // names are those of gemm_impls
int64_t gemm_grouped_scratch_bytes(std::span<const GemmArgs> products);
// Enough for up to max_products products with max_rows rows in all. Where products of several sizes go together, the
// sum over the sizes is enough.
int64_t gemm_grouped_scratch_bytes(int64_t max_products, int64_t max_rows, int64_t K, DType weight);

struct GroupedGatedGemmArgs {
  std::span<GatedGemmArgs> products;  // as above; product.scratch of each is set by the call
  std::byte* scratch;                 // gemm_gated_grouped_scratch_bytes(products), 64-byte aligned
};
using GroupedGatedGemmFn = void(const GroupedGatedGemmArgs&);

void gemm_gated_grouped(const GroupedGatedGemmArgs& args);
std::span<const Impl<GroupedGatedGemmFn>> gemm_gated_grouped_impls(DType weight);  // names of gemm_gated_impls
int64_t gemm_gated_grouped_scratch_bytes(std::span<const GatedGemmArgs> products);
// As above; N of the products themselves, gates and ups.
int64_t gemm_gated_grouped_scratch_bytes(int64_t max_products, int64_t max_rows, int64_t N, int64_t K, DType weight);

// Products of integers: as above.
struct GroupedW8A8Args {
  std::span<GemmW8A8Args> products;  // of one x_digits
  std::byte* scratch;                // gemm_w8a8_grouped_scratch_bytes
};
using GroupedW8A8Fn = void(const GroupedW8A8Args&);

void gemm_w8a8_grouped(const GroupedW8A8Args& args);
std::span<const Impl<GroupedW8A8Fn>> gemm_w8a8_grouped_impls();  // names are those of gemm_w8a8_impls
int64_t gemm_w8a8_grouped_scratch_bytes(std::span<const GemmW8A8Args> products);
int64_t gemm_w8a8_grouped_scratch_bytes(int64_t max_products, int64_t max_rows, int64_t K, int64_t x_digits);

struct GroupedGatedW8A8Args {
  std::span<GatedGemmW8A8Args> products;
  std::byte* scratch;  // gemm_gated_w8a8_grouped_scratch_bytes
};
using GroupedGatedW8A8Fn = void(const GroupedGatedW8A8Args&);

void gemm_gated_w8a8_grouped(const GroupedGatedW8A8Args& args);
std::span<const Impl<GroupedGatedW8A8Fn>> gemm_gated_w8a8_grouped_impls();
int64_t gemm_gated_w8a8_grouped_scratch_bytes(std::span<const GatedGemmW8A8Args> products);
int64_t gemm_gated_w8a8_grouped_scratch_bytes(int64_t max_products, int64_t max_rows, int64_t N, int64_t K,
                                              int64_t x_digits);

// Products of four-bit weights: as above.
struct GroupedA16Args {
  std::span<GemmA16Args> products;  // of as many scales in a chunk (a16_chunk_scales)
  std::byte* scratch;               // gemm_a16_grouped_scratch_bytes
};
using GroupedA16Fn = void(const GroupedA16Args&);

void gemm_a16_grouped(const GroupedA16Args& args);
std::span<const Impl<GroupedA16Fn>> gemm_a16_grouped_impls();  // names are those of gemm_a16_impls
int64_t gemm_a16_grouped_scratch_bytes(std::span<const GemmA16Args> products);
int64_t gemm_a16_grouped_scratch_bytes(int64_t max_products, int64_t max_rows, int64_t K);

struct GroupedGatedA16Args {
  std::span<GatedGemmA16Args> products;
  std::byte* scratch;  // gemm_gated_a16_grouped_scratch_bytes
};
using GroupedGatedA16Fn = void(const GroupedGatedA16Args&);

void gemm_gated_a16_grouped(const GroupedGatedA16Args& args);
std::span<const Impl<GroupedGatedA16Fn>> gemm_gated_a16_grouped_impls();
int64_t gemm_gated_a16_grouped_scratch_bytes(std::span<const GatedGemmA16Args> products);
int64_t gemm_gated_a16_grouped_scratch_bytes(int64_t max_products, int64_t max_rows, int64_t N, int64_t K);

}  // namespace millrace
