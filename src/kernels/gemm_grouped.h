// Many matrix products as one parallel region: threads take pieces of any of them as they become free, so that a few
// rows against each of many matrices (the experts of a mixture) read memory as fast as one large matrix would be read.
// Every product means what gemm and gemm_gated say of it, to the bit: a row of y depends on its row of x alone.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels/gemm.h"

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

}  // namespace millrace
