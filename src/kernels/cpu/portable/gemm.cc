// What gemm means. Plain on purpose.
#include "kernels/cpu/gemm_grouped_impls.h"
#include "kernels/parallel.h"

namespace millrace::portable {
namespace {

float activation(const GemmArgs& a, int64_t row, int64_t k) {
  const int64_t at = row * a.x_stride + k;
  if (a.x_dtype == DType::kBf16) return to_float(static_cast<const bf16*>(a.x)[at]);
  return rounded_activation(static_cast<const float*>(a.x)[at], a.w_dtype);
}

float weight(const GemmArgs& a, int64_t n, int64_t k) {
  const int64_t panel = n / kPanelColumns * kPanelColumns * gemm_padded_k(a.K, a.w_dtype), column = n % kPanelColumns;
  switch (a.w_dtype) {
    case DType::kBf16:
      return to_float(static_cast<const bf16*>(a.w)[panel + k / 2 * 2 * kPanelColumns + column * 2 + k % 2]);
    case DType::kF16:
      return to_float(static_cast<const f16*>(a.w)[panel + k * kPanelColumns + column]);
    default:
      return static_cast<const float*>(a.w)[panel + k * kPanelColumns + column];
  }
}

void run_column(const GemmArgs& a, int64_t n) {
  for (int64_t m = 0; m < a.M; ++m) {
    float sum = 0;
    for (int64_t k = 0; k < a.K; ++k) sum += activation(a, m, k) * weight(a, n, k);
    a.y[m * a.y_stride + n] = a.bias ? sum + a.bias[n] : sum;
  }
}

}  // namespace

void gemm(const GemmArgs& a) {
  parallel_ranges(a.N, gemm_threads(a) == 1 ? a.N : 1, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) run_column(a, n);
  });
}

void gemm_grouped(const GroupedGemmArgs& grouped) {
  static constexpr GemmSteps<GemmArgs> kSteps{
      .preparations = [](const GemmArgs&) { return int64_t{0}; },
      .prepare = [](const GemmArgs&, int64_t) {},
      .items = [](const GemmArgs& a) { return a.N; },
      .run = [](const GemmArgs& a, int64_t item, std::byte*) { run_column(a, item); },
      .own_bytes = 0};
  run_grouped(grouped.products, grouped.scratch, kSteps);
}

}  // namespace millrace::portable
