// Matrix products of four-bit weights and activations of sixteen bits (W4A16). x is rounded to bf16, sums are float32:
//   y[m,n] = sum over k of x[m,k] * bf16((q[n,k] - z[n,g]) * s[n,g])  + bias[n],  g = k / group
// q - z is exact, and so is its product with s: a scale keeps 16 significant bits, and a float16 or bfloat16 has fewer.
// Without tiles (AVX2, AVX-512) x becomes integers of sixteen bits in place of bf16, p and s[m] as two digits of
// kernels/gemm_w8a8.h, and weights are not rounded:
//   y[m,n] = s[m] * sum over g of s[n,g] * (sum over k of g of p[m,k] * (q[n,k] - z[n,g]))  + bias[n]
// Inner sums (of at most 128 k) are exact, a row with an infinity or NaN gives NaN.
//
// Packed weights are panels of sixteen output columns, streamed front to back, a chunk of 128 k at a time:
//   [N/16][Kp/128][record]  record: scales u32[128/group or 1][16], then nibbles u16[16][32]; nibble i (bits
//   4i..4i+3) of word j is k = 32i + j of the chunk. A scale is the bits of a float32 whose low byte is z.
// Kp is K rounded up to a chunk. Columns beyond N and rows beyond K are zero.
//
// A row of y depends on its row of x alone: neither M nor the number of threads changes a bit within one
// implementation.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

#include "base/dtype.h"
#include "kernels/glu.h"
#include "kernels/impl.h"
#include "kernels/rotated_heads.h"

namespace millrace {

// Whether kernels take one scale for `group` of k: 32, 64, a multiple of 128, or anything from K up (one for all).
constexpr bool is_int4_group(int64_t group, int64_t K) {
  return group >= K || group == 32 || group == 64 || (group > 0 && group % 128 == 0);
}
constexpr int64_t kA16ChunkK = 128;
constexpr int64_t a16_padded_k(int64_t K) { return (K + kA16ChunkK - 1) / kA16ChunkK * kA16ChunkK; }
// How many scales a column has in a chunk.
constexpr int64_t a16_chunk_scales(int64_t group, int64_t K) {
  return group == 32 && group < K ? 4 : group == 64 && group < K ? 2 : 1;
}
constexpr int64_t a16_chunk_bytes(int64_t group, int64_t K) { return 1024 + 64 * a16_chunk_scales(group, K); }
// A line more than the panels: kernels may look beyond the last.
constexpr int64_t gemm_a16_packed_bytes(int64_t N, int64_t K, int64_t group) {
  return (N + 15) / 16 * (a16_padded_k(K) / kA16ChunkK) * a16_chunk_bytes(group, K) + 64;
}

struct GemmA16Args {
  const void* x;       // [M, K], rows x_stride apart, x_dtype
  const std::byte* w;  // packed, 64-byte aligned
  const float* bias;   // [N] or null
  float* y;            // [M, N], rows y_stride apart
  std::byte* scratch;  // gemm_a16_scratch_bytes, 64-byte aligned
  int64_t M, N, K, x_stride, y_stride;
  int64_t group = 0;             // as packed
  DType x_dtype = DType::kBf16;  // kF32 or kBf16
  float add_scale = 0;           // where it is not 0: y += add_scale * product. Requires gemm_a16_adds
  // x as a gated product left it, 64-byte aligned, or null. Requires gemm_gated_a16_packs; x is then unused.
  const std::byte* packed_x = nullptr;
  // Where not null, outputs go there, rotated, and not to y. Requires gemm_rotates, columns as it has them, x that is
  // not packed and an add_scale of 0.
  const RotatedHeads* heads = nullptr;
};
using GemmA16Fn = void(const GemmA16Args&);

void gemm_a16(const GemmA16Args& args);
// gemm_adds of kernels/gemm.h for these products.
bool gemm_a16_adds();
std::span<const Impl<GemmA16Fn>> gemm_a16_impls();
// Enough for every implementation and any M up to max_rows.
int64_t gemm_a16_scratch_bytes(int64_t max_rows, int64_t K);

// A product and the gated linear unit on it (GatedGemmArgs of kernels/gemm.h): y is [M, N/2].
struct GatedGemmA16Args {
  GemmA16Args product;  // y and y_stride unused; scratch: gemm_gated_a16_scratch_bytes; N even
  GluActivation activation = GluActivation::kSilu;
  void* y;  // [M, N/2], rows y_stride apart, y_dtype
  int64_t y_stride;
  DType y_dtype = DType::kBf16;  // kF32 or kBf16
  // Where not null, y is left here, 64-byte aligned, as gemm_a16 of K = N/2 packs it: gemm_a16_packed_x_bytes.
  // Requires gemm_gated_a16_packs; y is then unused, y_dtype is kBf16.
  std::byte* packed_y = nullptr;
};
using GatedGemmA16Fn = void(const GatedGemmA16Args&);

void gemm_gated_a16(const GatedGemmA16Args& args);
std::span<const Impl<GatedGemmA16Fn>> gemm_gated_a16_impls();
int64_t gemm_gated_a16_scratch_bytes(int64_t max_rows, int64_t N, int64_t K);
// Whether a gated product of M rows and N columns can leave its y packed for the gemm_a16 that follows, which then need
// not: bits are the same either way.
bool gemm_gated_a16_packs(int64_t M, int64_t N);
// Of packed x [M, K].
int64_t gemm_a16_packed_x_bytes(int64_t M, int64_t K);

// to[m,k] = bf16(x[m, order[k]]): x as act-order weights meet it. `to` [M, K] contiguous.
struct OrderColumnsArgs {
  const void* x;         // [M, K], rows x_stride apart, kF32 or kBf16
  const int32_t* order;  // [K]
  bf16* to;
  int64_t M, K, x_stride;
  DType x_dtype;
};
void order_columns(const OrderColumnsArgs& args);

// Packs rows [row_begin, row_end) of the matrix; what is not packed must be zero (fresh memory is).
// Threads: as many as the pool has; two calls must not share a panel at once.
struct A16PackArgs {
  const uint8_t* values;  // [rows, K], rows K apart, a byte per value, 0 to 15
  const float* scales;    // [rows, ceil(K / group)]
  const uint8_t* zeros;   // as the scales, 0 to 16; null: all 8
  std::byte* packed;
  int64_t row_begin, row_end, K;
  int64_t group = 0;
};
void gemm_a16_pack(const A16PackArgs& args);
// to[k] = factor * w[n,k], what the product takes for row n.
void gemm_a16_unpack_row(const GemmA16Args& weights, int64_t n, float factor, float* to);

}  // namespace millrace
