// The implementations of gemm_w8a8, for the list in kernels/gemm_w8a8.cc, and what they share.
#pragma once
#include <algorithm>
#include <bit>
#include <limits>

#include "kernels/gemm_w8a8.h"

namespace millrace {

// How many threads a product is worth: small ones stay on the caller.
inline int gemm_w8a8_threads(const GemmW8A8Args& a) { return a.M * a.N * a.K <= (1 << 19) ? 1 : INT32_MAX; }

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
  // `largest_bits`: the largest of the row's |x| as the bits of a float, which orders NaN last.
  static RowScale of(const GemmW8A8Args& a, uint32_t largest_bits) {
    if (a.x_scale > 0) return {1 / a.x_scale, a.x_scale};
    if (largest_bits >= 0x7f800000) return {0, std::numeric_limits<float>::quiet_NaN()};
    const float largest = std::max(std::bit_cast<float>(largest_bits), 1e-30f);
    return {127 / largest, largest / 127};
  }
  float factor, scale;
};

// The best product into scratch, then the unit on it: what gemm_gated_w8a8 means.
void gemm_w8a8_then_glu(const GatedGemmW8A8Args&);

namespace portable {
void gemm_w8a8(const GemmW8A8Args&);
// Row `row` as integers, zero from K to padded_k; returns its scale.
float quantize_row(const GemmW8A8Args&, int64_t row, int8_t* to);
}  // namespace portable
namespace avx2 {
void gemm_w8a8(const GemmW8A8Args&);
}
namespace avx512 {
void gemm_w8a8(const GemmW8A8Args&);
}
namespace amx {
void gemm_w8a8(const GemmW8A8Args&);
void gemm_gated_w8a8(const GatedGemmW8A8Args&);
int64_t gemm_w8a8_scratch_bytes(int64_t max_rows, int64_t K);
}  // namespace amx

}  // namespace millrace
