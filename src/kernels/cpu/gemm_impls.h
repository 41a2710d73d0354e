// The implementations of gemm, for the list in kernels/gemm.cc.
#pragma once
#include <cmath>

#include "kernels/gemm.h"

namespace millrace {

// Multiply-adds that take about as long as waking the pool.
constexpr int64_t kSmallGemm = 1 << 18;
// How many threads a product is worth: small ones stay on the caller.
inline int gemm_threads(const GemmArgs& a) { return a.M * a.N * a.K <= kSmallGemm ? 1 : INT32_MAX; }

// What float16 weights meet: the sum of two bf16 nearest to x, or x where that is not finite.
inline float sum_of_two_bf16(float x) {
  const float high = to_float(to_bf16(x));
  return std::isfinite(high) ? high + to_float(to_bf16(x - high)) : high;
}
// What a float32 activation is for weights of `weight`.
inline float rounded_activation(float x, DType weight) {
  return weight == DType::kBf16 ? to_float(to_bf16(x)) : weight == DType::kF16 ? sum_of_two_bf16(x) : x;
}

// The unit of a gated product on `product`, whose y holds gates and ups.
template <class Gated, class Product>
GluArgs unit_of(const Gated& gated, const Product& product) {
  return {.gate = product.y,
          .up = product.y + product.N / 2,
          .y = gated.y,
          .T = product.M,
          .F = product.N / 2,
          .x_stride = product.y_stride,
          .y_stride = gated.y_stride,
          .activation = gated.activation,
          .y_dtype = gated.y_dtype};
}

// The best product into scratch, then the unit on it: what gemm_gated means. And with a product that is not the best.
void gemm_then_glu(const GatedGemmArgs&);
void gemm_with_then_glu(GemmFn* product, const GatedGemmArgs&);

// Stops where a product is asked for heads that it cannot write.
template <class Args>
void check_heads(const Args& a) {
  if (!a.heads) return;
  const RotatedHeads& heads = *a.heads;
  MR_CHECK(gemm_rotates(a.M, heads.head_dim) && a.N == (heads.q_heads + 2 * heads.kv_heads) * heads.head_dim,
           "{} columns of {} rows as {} + 2 x {} heads of {}", a.N, a.M, heads.q_heads, heads.kv_heads, heads.head_dim);
  MR_CHECK(!a.packed_x && a.add_scale == 0, "heads of packed rows, or added to what is there");
}

namespace portable {
void gemm(const GemmArgs&);
}
namespace avx2 {
void gemm_f32(const GemmArgs&);
void gemm_f16(const GemmArgs&);
void gemm_bf16(const GemmArgs&);
}  // namespace avx2
namespace avx512 {
void gemm_f32(const GemmArgs&);
void gemm_f16(const GemmArgs&);
void gemm_bf16(const GemmArgs&);
void gemm_bf16_pairs(const GemmArgs&);  // vdpbf16ps
void gemm_gated_bf16_pairs(const GatedGemmArgs&);
// Packs k in [0, result) of a panel all of whose rows are among the arguments'.
int64_t pack_whole_panel(const PackArgs&, int64_t panel);
}  // namespace avx512
namespace amx {
void gemm_bf16(const GemmArgs&);
void gemm_gated_bf16(const GatedGemmArgs&);
int64_t gemm_bf16_scratch_bytes(int64_t max_rows, int64_t K);
void gemm_f16(const GemmArgs&);
int64_t gemm_f16_scratch_bytes(int64_t max_rows, int64_t K);
bool gemm_gated_packs(int64_t M, int64_t N);
bool gemm_rotates(int64_t M, int64_t head_dim);
int64_t gemm_packed_x_bytes(int64_t M, int64_t K);
}  // namespace amx

}  // namespace millrace
