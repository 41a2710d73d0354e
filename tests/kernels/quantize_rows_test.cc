#include "kernels/quantize_rows.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "base/random.h"

namespace millrace {
namespace {

template <class W>
W stored(float x) {
  if constexpr (std::is_same_v<W, bf16>) return to_bf16(x);
  if constexpr (std::is_same_v<W, f16>) return to_f16(x);
  if constexpr (std::is_same_v<W, float>) return x;
}

template <class W>
void expect_formula(DType dtype) {
  Random random(11);
  for (const int64_t K : {1, 15, 16, 17, 64, 75, 300}) {
    SCOPED_TRACE(K);
    constexpr int64_t kRows = 37;
    const int64_t stride = K + 3;
    std::vector<W> w(static_cast<size_t>(kRows * stride));
    for (W& x : w) x = stored<W>((uniform_open(random()) - 0.5f) * 0.1f);
    for (int64_t k = 0; k < K; ++k) w[static_cast<size_t>(5 * stride + k)] = stored<W>(0);
    // Halves of a step go to the even neighbour.
    for (int64_t k = 0; k < K; ++k)
      w[static_cast<size_t>(6 * stride + k)] = stored<W>(k == 0 ? 127.0f : static_cast<float>(k % 99) - 49.5f);
    std::vector<int8_t> values(static_cast<size_t>(kRows * K));
    std::vector<float> scales(kRows);
    const QuantizeRowsArgs args{w.data(), values.data(), scales.data(), kRows, K, stride, dtype};
    ASSERT_EQ(quantize_rows(args), -1);
    for (int64_t n = 0; n < kRows; ++n) {
      const W* row = w.data() + n * stride;
      float largest = 0;
      for (int64_t k = 0; k < K; ++k) largest = std::max(largest, std::abs(to_float(row[k])));
      ASSERT_EQ(scales[static_cast<size_t>(n)], largest / 127) << n;
      const float factor = largest > 0 ? 127 / largest : 0;
      for (int64_t k = 0; k < K; ++k)
        ASSERT_EQ(values[static_cast<size_t>(n * K + k)], std::nearbyint(to_float(row[k]) * factor)) << n << ' ' << k;
    }
    for (const float bad : {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
      w[static_cast<size_t>(9 * stride + K - 1)] = stored<W>(bad);
      EXPECT_EQ(quantize_rows(args), 9);
    }
  }
}

TEST(QuantizeRows, GivesTheBitsOfItsFormula) {
  expect_formula<float>(DType::kF32);
  expect_formula<bf16>(DType::kBf16);
  expect_formula<f16>(DType::kF16);
}

}  // namespace
}  // namespace millrace
