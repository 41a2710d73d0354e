// Matrix products of int8 weights and integer activations of one or two int8 digits (W8A8, W8A16):
//   y[m,n] = s[m] * t[n] * sum over k of p[m,k] * q[n,k]  + bias[n]
// q and t are given: one scale for an output column. p is made from x, symmetric, rounded to nearest even:
//   per token:   s[m] = max over k of |x[m,k]| / 127      p = round(x * (127 / max))
//   per tensor:  s given                                  p = clamp(round(x * (1 / s)), -128, 127)
//   made before: p and s given, made in one of these ways elsewhere (kernels/norm.h)
//   two digits:  s[m] = max over k of |x[m,k]| / 32639    p = round(x * (32639 / max)) = 256 * high + low
// Two digits meet the weights one by one: the sum is float(256 * sum of high * q) + float(sum of low * q). Their error,
// at most max / 65278, is below that of x as bfloat16 where x is large, and below that of q in any sum.
// A row with an infinity or NaN gives NaN (per token); maxima below 1e-30 count as 1e-30. Sums of digits are exact
// int32: every implementation gives the same bits, for any number of rows and threads. K is at most 131071.
//
// Rows of x made before: p [K], zeros up to a multiple of 64, then s as a float32; w8a8_row_bytes apart or more.
//
// Packed weights are panels of sixteen output columns: [N/16][Kp/64][16][16 columns][4], four of k beside each other,
// Kp is K rounded up to 64; then the sum over k of every column, int32 [N/16][16]. Columns beyond N and rows beyond K
// are zero.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

#include "base/dtype.h"
#include "kernels/glu.h"
#include "kernels/impl.h"
#include "kernels/rotated_heads.h"

namespace millrace {

constexpr int64_t kMostW8A8K = 131071;
constexpr int64_t w8a8_padded_k(int64_t K) { return (K + 63) / 64 * 64; }
constexpr int64_t w8a8_row_bytes(int64_t K) { return w8a8_padded_k(K) + 64; }
constexpr int64_t gemm_w8a8_packed_bytes(int64_t N, int64_t K) {
  return (N + 15) / 16 * (w8a8_padded_k(K) * 16 + 16 * static_cast<int64_t>(sizeof(int32_t)));
}

struct GemmW8A8Args {
  const void* x;        // [M, K], rows x_stride apart, x_dtype; where that is kI8: made before
  const std::byte* w;   // packed, 64-byte aligned
  const float* scales;  // t: [N]
  const float* bias;    // [N] or null
  float* y;             // [M, N], rows y_stride apart
  std::byte* scratch;   // gemm_w8a8_scratch_bytes, 64-byte aligned
  int64_t M, N, K, x_stride, y_stride;
  float x_scale = 0;             // s of the tensor; 0: per token
  DType x_dtype = DType::kBf16;  // kF32, kBf16 or kI8
  int64_t x_digits = 1;          // 1, or 2: per token of kF32 or kBf16
  float add_scale = 0;           // where it is not 0: y += add_scale * product. Requires gemm_w8a8_adds
  // x as a gated product left it, 64-byte aligned, or null. Requires gemm_gated_w8a8_packs; x and x_dtype are then
  // unused.
  const std::byte* packed_x = nullptr;
  // Where not null, outputs go there, rotated, and not to y. Requires gemm_rotates, columns as it has them, x that is
  // not packed and an add_scale of 0.
  const RotatedHeads* heads = nullptr;
};
using GemmW8A8Fn = void(const GemmW8A8Args&);

void gemm_w8a8(const GemmW8A8Args& args);
// gemm_adds of kernels/gemm.h for these products.
bool gemm_w8a8_adds();
std::span<const Impl<GemmW8A8Fn>> gemm_w8a8_impls();
// Enough for every implementation and any M up to max_rows.
int64_t gemm_w8a8_scratch_bytes(int64_t max_rows, int64_t K, int64_t x_digits);

// A product and the gated linear unit on it (GatedGemmArgs of kernels/gemm.h): y is [M, N/2].
struct GatedGemmW8A8Args {
  GemmW8A8Args product;  // y and y_stride unused; scratch: gemm_gated_w8a8_scratch_bytes; N even
  GluActivation activation = GluActivation::kSilu;
  void* y;  // [M, N/2], rows y_stride apart, y_dtype
  int64_t y_stride;
  DType y_dtype = DType::kBf16;  // kF32 or kBf16
  // Where not null, y is left here, 64-byte aligned, as gemm_w8a8 of K = N/2 takes packed_x: gemm_w8a8_packed_x_bytes.
  // Requires gemm_gated_w8a8_packs; y is then unused, y_dtype is kBf16.
  std::byte* packed_y = nullptr;
};
using GatedGemmW8A8Fn = void(const GatedGemmW8A8Args&);

void gemm_gated_w8a8(const GatedGemmW8A8Args& args);
std::span<const Impl<GatedGemmW8A8Fn>> gemm_gated_w8a8_impls();
int64_t gemm_gated_w8a8_scratch_bytes(int64_t max_rows, int64_t N, int64_t K, int64_t x_digits);
// Whether a gated product of M rows and N columns can leave its y packed for the gemm_w8a8 that follows: as bf16 in
// blocks of sixteen rows and columns, [N/32][M/16][16][16] and 64 bytes after those of each sixteen columns, for what
// becomes an integer depends on the whole row. Bits are the same either way.
bool gemm_gated_w8a8_packs(int64_t M, int64_t N);
// Of packed x [M, K].
int64_t gemm_w8a8_packed_x_bytes(int64_t M, int64_t K);

// Packs rows [row_begin, row_end) of an [N, K] matrix from values [rows, K]; what is not packed must be zero (fresh
// memory is). Threads: as many as the pool has; two calls must not share a panel at once.
struct W8A8PackArgs {
  const int8_t* values;
  std::byte* packed;
  int64_t row_begin, row_end, N, K;
};
void gemm_w8a8_pack(const W8A8PackArgs& args);
// to[k] = factor * t[n] * q[n,k].
void gemm_w8a8_unpack_row(const GemmW8A8Args& weights, int64_t n, float factor, float* to);

}  // namespace millrace
