// What gemm_a16 means. Plain on purpose.
#include <cstring>

#include "kernels/cpu/gemm_grouped_impls.h"
#include "kernels/parallel.h"

namespace millrace::portable {
namespace {

float activation(const GemmA16Args& a, int64_t row, int64_t k) {
  const int64_t at = row * a.x_stride + k;
  if (a.x_dtype == DType::kBf16) return to_float(static_cast<const bf16*>(a.x)[at]);
  return to_float(to_bf16(static_cast<const float*>(a.x)[at]));
}

float int4_at(const std::byte* chunk, int64_t scales, int64_t column, int64_t k) {
  uint32_t scale;
  std::memcpy(&scale, chunk + (k * scales / 128 * 16 + column) * 4, 4);
  uint16_t word;
  std::memcpy(&word, chunk + scales * 64 + column * 64 + k % 32 * 2, 2);
  const int q = word >> (k / 32 * 4) & 15;
  return to_float(to_bf16(static_cast<float>(q - int4_zero(scale)) * int4_scale(scale)));
}

}  // namespace

float a16_weight(const GemmA16Args& a, const A16Layout& layout, int64_t n, int64_t k) {
  const std::byte* panel = a.w + n / 16 * layout.panel_bytes;
  return int4_at(panel + k / 128 * layout.chunk_bytes, layout.chunk_scales, n % 16, k % 128);
}

void gemm_a16(const GemmA16Args& a) {
  const A16Layout layout(a);
  const auto column = [&](int64_t n) {
    for (int64_t m = 0; m < a.M; ++m) {
      float sum = 0;
      for (int64_t k = 0; k < a.K; ++k) sum += activation(a, m, k) * a16_weight(a, layout, n, k);
      a.y[m * a.y_stride + n] = a.bias ? sum + a.bias[n] : sum;
    }
  };
  parallel_ranges(a.N, gemm_a16_threads(a) == 1 ? a.N : 1, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) column(n);
  });
}

void gemm_a16_grouped(const GroupedA16Args& args) {
  for (const GemmA16Args& a : args.products)
    if (a.M > 0 && a.N > 0) portable::gemm_a16(a);
}

}  // namespace millrace::portable
