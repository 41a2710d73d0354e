// The implementations of gemm_w8a8, for the list in kernels/gemm_w8a8.cc, and what they share.
#pragma once
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/gemm_w8a8.h"

namespace millrace {

// How many threads a product is worth: small ones stay on the caller.
inline int gemm_w8a8_threads(const GemmW8A8Args& a) {
  return a.M * a.x_digits * a.N * a.K <= (1 << 19) ? 1 : INT32_MAX;
}

struct W8A8Layout {
  explicit W8A8Layout(const GemmW8A8Args& a)
      : padded_k(w8a8_padded_k(a.K)), panel_bytes(padded_k * 16), panels((a.N + 15) / 16) {}
  const std::byte* panel(const GemmW8A8Args& a, int64_t p) const { return a.w + p * panel_bytes; }
  const int32_t* sums(const GemmW8A8Args& a) const {
    return reinterpret_cast<const int32_t*>(a.w + panels * panel_bytes);
  }
  // Where q[n, k] lies.
  int64_t at(int64_t n, int64_t k) const { return n / 16 * panel_bytes + k / 4 * 64 + n % 16 * 4 + k % 4; }
  const int64_t padded_k, panel_bytes, panels;
};

// How a row of x becomes integers: p = round(x * factor), and what they stand for.
struct RowScale {
  // `tensor_scale`: as GemmW8A8Args::x_scale. `largest_bits`: the largest of the row's |x| as the bits of a float,
  // which orders NaN last.
  static RowScale of(float tensor_scale, uint32_t largest_bits, int64_t x_digits = 1) {
    if (tensor_scale > 0) return {1 / tensor_scale, tensor_scale};
    if (largest_bits >= 0x7f800000) return {0, std::numeric_limits<float>::quiet_NaN()};
    const float largest = std::max(std::bit_cast<float>(largest_bits), 1e-30f);
    const float most = x_digits == 1 ? 127 : 32639;  // the largest p whose digits are both at most 127
    return {most / largest, largest / most};
  }
  float factor, scale;
};

// Digits of p in [-32639, 32639]: p = 256 * high + low, both in [-128, 127].
constexpr int8_t low_digit(int p) { return static_cast<int8_t>(p & 0xff); }
constexpr int8_t high_digit(int p) { return static_cast<int8_t>((p + 128) >> 8); }

// Of a row that was made before, and of one that is being made.
inline float made_scale(const int8_t* row, int64_t K) {
  float scale;
  std::memcpy(&scale, row + w8a8_padded_k(K), sizeof(scale));
  return scale;
}
inline void set_made_scale(int8_t* row, int64_t K, float scale) {
  std::memcpy(row + w8a8_padded_k(K), &scale, sizeof(scale));
}

// Stops on digits, scales and types of x that do not go together.
void check_w8a8(const GemmW8A8Args&);

// The best product into scratch, then the unit on it: what gemm_gated_w8a8 means.
void gemm_w8a8_then_glu(const GatedGemmW8A8Args&);

namespace portable {
void gemm_w8a8(const GemmW8A8Args&);

// A NaN becomes the largest integer, as the vector instructions have it.
inline int8_t quantized(float x, float factor) {
  float value = x * factor;
  value = value < 127 ? value : 127;
  value = value > -128 ? value : -128;
  return static_cast<int8_t>(std::nearbyint(value));
}

// value(k) of a row as integers, zero from K to padded_k; returns the row's scale.
template <class Value>
float quantize_row(float tensor_scale, int64_t K, const Value& value, int8_t* to) {
  uint32_t largest = 0;
  for (int64_t k = 0; k < K; ++k) largest = std::max(largest, std::bit_cast<uint32_t>(value(k)) & 0x7fffffff);
  const RowScale scale = RowScale::of(tensor_scale, largest);
  for (int64_t k = 0; k < w8a8_padded_k(K); ++k)
    to[k] = k >= K || scale.factor == 0 ? 0 : quantized(value(k), scale.factor);
  return scale.scale;
}
}  // namespace portable
namespace avx2 {
void gemm_w8a8(const GemmW8A8Args&);
}
namespace avx512 {
void gemm_w8a8(const GemmW8A8Args&);
void gemm_gated_w8a8(const GatedGemmW8A8Args&);
}  // namespace avx512
namespace amx {
void gemm_w8a8(const GemmW8A8Args&);
void gemm_gated_w8a8(const GatedGemmW8A8Args&);
int64_t gemm_w8a8_scratch_bytes(int64_t max_rows, int64_t K);
bool gemm_gated_w8a8_packs(int64_t M, int64_t N);
int64_t gemm_w8a8_packed_x_bytes(int64_t M, int64_t K);
}  // namespace amx

}  // namespace millrace
