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

// Row `row` as integers of two digits, the high ones first; returns its scale.
float digits_of(const GemmW8A8Args& a, int64_t row, int8_t* to) {
  uint32_t largest = 0;
  for (int64_t k = 0; k < a.K; ++k)
    largest = std::max(largest, std::bit_cast<uint32_t>(std::abs(activation(a, row, k))));
  const RowScale scale = RowScale::of(0, largest, 2);
  for (int64_t k = 0; k < w8a8_padded_k(a.K); ++k) {
    const bool zero = k >= a.K || scale.factor == 0;
    const int p = zero ? 0 : static_cast<int>(std::nearbyint(activation(a, row, k) * scale.factor));
    to[k] = high_digit(p);
    to[w8a8_padded_k(a.K) + k] = low_digit(p);
  }
  return scale.scale;
}

// Row `row` as integers; returns its scale.
float integers_of(const GemmW8A8Args& a, int64_t row, int8_t* to) {
  if (a.x_digits == 2) return digits_of(a, row, to);
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
  const int64_t row_bytes = a.x_digits * layout.padded_k;
  auto* const p = reinterpret_cast<int8_t*>(a.scratch);
  auto* const scales = reinterpret_cast<float*>(a.scratch + a.M * row_bytes);
  for (int64_t m = 0; m < a.M; ++m) scales[m] = integers_of(a, m, p + m * row_bytes);
  const auto sum = [&](const int8_t* digits, int64_t n) {
    int32_t sum = 0;
    for (int64_t k = 0; k < a.K; ++k) sum += digits[k] * static_cast<int8_t>(a.w[layout.at(n, k)]);
    return static_cast<float>(sum);
  };
  const auto column = [&](int64_t n) {
    for (int64_t m = 0; m < a.M; ++m) {
      const int8_t* row = p + m * row_bytes;
      const float all = a.x_digits == 1 ? sum(row, n) : 256 * sum(row, n) + sum(row + layout.padded_k, n);
      const float y = all * a.scales[n] * scales[m];
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
