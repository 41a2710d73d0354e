// Matrix products with weights that were packed once:  y[m,n] = sum over k of x[m,k] * w[n,k]  + bias[n]
//
// Packed weights are panels of sixteen output columns, streamed front to back:
//   kF32, kF16: [N/16][K][16]             (oneDNN's BA16a16b where K is a multiple of 16)
//   kBf16:      [N/16][Kp/2][16][2]       Kp is K rounded up to 32; 32 of K are one AMX tile of 1 KiB
// Columns beyond N and rows beyond K are zero.
//
// Precision: kF32 weights meet float32 activations, kBf16 weights activations rounded to bf16, kF16 weights activations
// rounded to the sum of two bf16, which has 16 significant bits or more (a float16 has 11); float16 weights must be
// finite. Sums are float32, over k from 0 up. A row of y depends on its row of x alone: neither M nor the number of
// threads changes a bit within one implementation.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

#include "base/dtype.h"
#include "kernels/glu.h"
#include "kernels/impl.h"
#include "kernels/rotated_heads.h"

namespace millrace {

constexpr int64_t kPanelColumns = 16;
constexpr int64_t gemm_padded_k(int64_t K, DType weight) { return weight == DType::kBf16 ? (K + 31) / 32 * 32 : K; }
// Bytes of one panel and of all panels of an [N, K] matrix.
constexpr int64_t gemm_panel_bytes(int64_t K, DType weight) {
  return gemm_padded_k(K, weight) * kPanelColumns * dtype_bytes(weight);
}
constexpr int64_t gemm_packed_bytes(int64_t N, int64_t K, DType weight) {
  return (N + kPanelColumns - 1) / kPanelColumns * gemm_panel_bytes(K, weight);
}

struct GemmArgs {
  const void* x;       // [M, K], rows x_stride apart, x_dtype
  const void* w;       // packed, 64-byte aligned
  const float* bias;   // [N] or null
  float* y;            // [M, N], rows y_stride apart
  std::byte* scratch;  // gemm_scratch_bytes, 64-byte aligned
  int64_t M, N, K, x_stride, y_stride;
  DType x_dtype = DType::kF32;  // kF32 or kBf16
  DType w_dtype = DType::kF32;  // kF32, kBf16 or kF16
  float add_scale = 0;          // where it is not 0: y += add_scale * product. Requires gemm_adds
  // x as a gated product left it, 64-byte aligned, or null. Requires gemm_gated_packs; x and x_dtype are then unused.
  const std::byte* packed_x = nullptr;
  // Where not null, outputs go there, rotated, and not to y. Requires gemm_rotates, columns as it has them, x that is
  // not packed and an add_scale of 0.
  const RotatedHeads* heads = nullptr;
};
using GemmFn = void(const GemmArgs&);

void gemm(const GemmArgs& args);
// Whether products with weights of `weight` can be added to y as they are finished: with the bits of writing them and
// adding them afterwards, multiplied and added with one rounding.
bool gemm_adds(DType weight);
// Implementations that take weights of `weight`.
std::span<const Impl<GemmFn>> gemm_impls(DType weight);
// Enough for every implementation and any M up to max_rows.
int64_t gemm_scratch_bytes(int64_t max_rows, int64_t N, int64_t K, DType weight);

// A product and the gated linear unit on it: the product's columns [0, N/2) are gates, the others ups, and
// y[m,f] = act(product[m,f]) * product[m,N/2+f]. Where fused, the product itself is never written.
struct GatedGemmArgs {
  GemmArgs product;  // y and y_stride unused; scratch: gemm_gated_scratch_bytes; N even
  GluActivation activation = GluActivation::kSilu;
  void* y;  // [M, N/2], rows y_stride apart, y_dtype
  int64_t y_stride;
  DType y_dtype = DType::kF32;  // kF32 or kBf16
  // Where not null, y is left here, 64-byte aligned, as gemm of K = N/2 packs it: gemm_packed_x_bytes. Requires
  // gemm_gated_packs; y is then unused, y_dtype is kBf16.
  std::byte* packed_y = nullptr;
};
using GatedGemmFn = void(const GatedGemmArgs&);

void gemm_gated(const GatedGemmArgs& args);
std::span<const Impl<GatedGemmFn>> gemm_gated_impls(DType weight);
int64_t gemm_gated_scratch_bytes(int64_t max_rows, int64_t N, int64_t K, DType weight);
// Whether a gated product of M rows and N columns can leave its y packed for the gemm that follows, both with weights
// of `weight`, which then need not: bits are the same either way.
bool gemm_gated_packs(int64_t M, int64_t N, DType weight);
// Of packed x [M, K].
int64_t gemm_packed_x_bytes(int64_t M, int64_t K);

// Packs rows [row_begin, row_end) of the matrix that `packed` holds from w [row_end - row_begin, K], rows w_stride
// elements apart, any of kF32, kBf16, kF16. Rows beyond the last packed one must be zeroed by the caller beforehand
// (fresh memory is). Threads: as many as the pool has.
struct PackArgs {
  const void* w;
  void* packed;
  int64_t row_begin, row_end, K, w_stride;
  DType from, to;
};
void gemm_pack(const PackArgs& args);
// to[c] = scale * row n of the packed [N, K] matrix.
void gemm_unpack_row(const void* packed, DType weight, int64_t K, int64_t n, float scale, float* to);

}  // namespace millrace
