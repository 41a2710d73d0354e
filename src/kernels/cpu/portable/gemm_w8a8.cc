// What gemm_w8a8 means. Plain on purpose.
#include "kernels/cpu/gemm_grouped_impls.h"
#include "kernels/parallel.h"

namespace millrace::portable {
namespace {

float activation(const GemmW8A8Args& a, int64_t row, int64_t k) {
  const int64_t at = row * a.x_stride + k;
  if (a.x_dtype == DType::kBf16) return to_float(static_cast<const bf16*>(a.x)[at]);
  return static_cast<const float*>(a.x)[at];
}

// Row `row` as integers; returns its scale.
float integers_of(const GemmW8A8Args& a, int64_t row, int8_t* to) {
  if (a.x_dtype != DType::kI8)
    return quantize_row(
        a.x_scale, a.K, [&](int64_t k) { return activation(a, row, k); }, to);
  const auto* x = static_cast<const int8_t*>(a.x) + row * a.x_stride;
  std::memcpy(to, x, static_cast<size_t>(w8a8_padded_k(a.K)));
  return made_scale(x, a.K);
}

}  // namespace

void gemm_w8a8(const GemmW8A8Args& a) {
  const W8A8Layout layout(a);
  auto* const p = reinterpret_cast<int8_t*>(a.scratch);
  auto* const scales = reinterpret_cast<float*>(a.scratch + a.M * layout.padded_k);
  for (int64_t m = 0; m < a.M; ++m) scales[m] = integers_of(a, m, p + m * layout.padded_k);
  const auto column = [&](int64_t n) {
    for (int64_t m = 0; m < a.M; ++m) {
      int32_t sum = 0;
      for (int64_t k = 0; k < a.K; ++k) sum += p[m * layout.padded_k + k] * static_cast<int8_t>(a.w[layout.at(n, k)]);
      const float y = static_cast<float>(sum) * a.scales[n] * scales[m];
      a.y[m * a.y_stride + n] = a.bias ? y + a.bias[n] : y;
    }
  };
  parallel_ranges(a.N, gemm_w8a8_threads(a) == 1 ? a.N : 1, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) column(n);
  });
}

void gemm_w8a8_grouped(const GroupedW8A8Args& args) {
  for (GemmW8A8Args& a : args.products) {
    a.scratch = args.scratch;
    if (a.M > 0 && a.N > 0) portable::gemm_w8a8(a);
  }
}

}  // namespace millrace::portable
