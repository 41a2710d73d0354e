#include "kernels/gemm_w8a8.h"

#include <gtest/gtest.h>

#include <cstring>
#include <limits>

#include "kernels/parallel.h"
#include "tests/kernels/packed_outputs.h"
#include "tests/kernels/rotated_heads.h"
#include "tests/kernels/testing.h"

namespace millrace {
namespace {

// A product with its operands.
struct Product {
  Product(int64_t M, int64_t N, int64_t K, DType x_dtype, float x_scale, bool with_bias = true, int64_t x_digits = 1)
      : M(M),
        N(N),
        K(K),
        x_dtype(x_dtype),
        x_scale(x_scale),
        x_digits(x_digits),
        x_stride(K + 5),
        packed(gemm_w8a8_packed_bytes(N, K)),
        scratch(gemm_w8a8_scratch_bytes(M, K, x_digits)) {
    Random random(1);
    x = as_dtype(random_floats(random, M * x_stride), x_dtype);
    if (with_bias) bias = random_floats(random, N);
    for (int64_t n = 0; n < N; ++n) scales.push_back(0.001f + 0.01f * random.uniform());
    for (int64_t i = 0; i < N * K; ++i) w.push_back(static_cast<int8_t>(random() % 256 - 128));
    const int64_t cut = N / 3;  // pieces meet inside a panel
    for (const auto& [begin, end] : {std::pair<int64_t, int64_t>{0, cut}, {cut, N}})
      gemm_w8a8_pack(
          {.values = w.data() + begin * K, .packed = packed.data, .row_begin = begin, .row_end = end, .N = N, .K = K});
  }
  GemmW8A8Args args() const {
    return {.w = packed.data,
            .scales = scales.data(),
            .bias = bias.empty() ? nullptr : bias.data(),
            .scratch = scratch.data,
            .N = N,
            .K = K,
            .x_stride = x_stride,
            .y_stride = N + 1,
            .x_scale = x_scale,
            .x_dtype = x_dtype,
            .x_digits = x_digits};
  }
  // Rows [first, first + rows) of y.
  std::vector<float> run(GemmW8A8Fn* gemm, int64_t first, int64_t rows) const {
    std::vector<float> y(rows * (N + 1), 7.0f);
    GemmW8A8Args a = args();
    a.x = x.data() + first * x_stride * dtype_bytes(x_dtype);
    a.y = y.data();
    a.M = rows;
    gemm(a);
    return y;
  }
  float activation(int64_t m, int64_t k) const { return value_at(x, x_dtype, m * x_stride + k); }
  const int64_t M, N, K;
  const DType x_dtype;
  const float x_scale;
  const int64_t x_digits, x_stride;
  std::vector<uint8_t> x;
  std::vector<int8_t> w;
  std::vector<float> scales, bias;
  Aligned packed, scratch;
};

// The integers of a row, and their scale.
std::pair<std::vector<int64_t>, float> quantized(const Product& p, int64_t m) {
  float largest = 0;
  for (int64_t k = 0; k < p.K; ++k) largest = std::max(largest, std::abs(p.activation(m, k)));
  const float most = p.x_digits == 1 ? 127 : 32639;
  const float scale = p.x_scale > 0 ? p.x_scale : largest / most;
  const float factor = p.x_scale > 0 ? 1 / p.x_scale : most / largest;
  std::vector<int64_t> row;
  for (int64_t k = 0; k < p.K; ++k)
    row.push_back(std::clamp<int64_t>(std::lrint(p.activation(m, k) * factor), -most - 1, most));
  return {row, scale};
}

// The exact sum of a row of integers with column n, as the definition rounds it.
float sum_of(const Product& p, const std::vector<int64_t>& row, int64_t n) {
  int64_t all = 0, high = 0;
  for (int64_t k = 0; k < p.K; ++k) {
    all += row[k] * p.w[n * p.K + k];
    high += static_cast<int64_t>(std::floor(static_cast<double>(row[k] + 128) / 256)) * p.w[n * p.K + k];
  }
  if (p.x_digits == 1) return static_cast<float>(all);
  return 256 * static_cast<float>(high) + static_cast<float>(all - 256 * high);
}

void expect_right(const Product& p, const std::vector<float>& y) {
  for (int64_t m = 0; m < p.M; ++m) {
    const auto [row, scale] = quantized(p, m);
    for (int64_t n = 0; n < p.N; ++n) {
      const float product = sum_of(p, row, n) * p.scales[n] * scale;
      ASSERT_EQ(y[m * (p.N + 1) + n], p.bias.empty() ? product : product + p.bias[n]) << "m " << m << " n " << n;
    }
    ASSERT_EQ(y[m * (p.N + 1) + p.N], 7.0f) << "written beyond row " << m;
  }
}

// How x becomes integers.
struct Treatment {
  float x_scale;
  int64_t x_digits;
};
constexpr Treatment kTreatments[] = {{0, 1}, {0.011f, 1}, {0, 2}};

constexpr std::tuple<int64_t, int64_t, int64_t> kShapes[] = {
    {1, 1, 1},      {1, 16, 128},   {2, 17, 33},    {1, 331, 96},   {7, 100, 192}, {12, 48, 64}, {16, 64, 256},
    {17, 33, 100},  {33, 130, 545}, {70, 96, 1152}, {130, 33, 40},  {3, 1, 700},   {257, 16, 2}, {40, 544, 96},
    {31, 40, 2080}, {5, 48, 1024},  {64, 80, 640},  {560, 20, 160}, {8, 50, 192},  {9, 33, 64},  {24, 70, 320},
    {32, 48, 2048}, {48, 40, 100},  {49, 64, 1100}, {290, 17, 4100}};

TEST(GemmW8A8, EveryImplementationGivesTheBitsOfTheDefinition) {
  for (const auto& impl : gemm_w8a8_impls()) {
    if (!cpu_has(impl.needs)) continue;
    for (const auto& [M, N, K] : kShapes)
      for (const DType x_dtype : {DType::kBf16, DType::kF32})
        for (const Treatment& t : kTreatments) {
          SCOPED_TRACE(testing::Message() << impl.name << ' ' << M << 'x' << N << 'x' << K << ' ' << dtype_name(x_dtype)
                                          << " scale " << t.x_scale << " digits " << t.x_digits);
          const Product product(M, N, K, x_dtype, t.x_scale, /*with_bias=*/N % 2 == 0, t.x_digits);
          expect_right(product, product.run(impl.run, 0, M));
          if (HasFatalFailure()) return;
        }
  }
}

TEST(GemmW8A8, AnyFewRowsAreTheBitsOfMany) {
  for (const auto& impl : gemm_w8a8_impls())
    for (const int64_t digits : {1, 2}) {
      if (!cpu_has(impl.needs) || impl.needs == Isa::kPortable) continue;
      SCOPED_TRACE(testing::Message() << impl.name << ", digits " << digits);
      expect_few_rows_as_of_many(Product(50, 81, 1100, DType::kBf16, 0, true, digits), impl.run);
    }
}

TEST(GemmW8A8, ARowIsBitIdenticalInEveryBatchAndOnEveryNumberOfThreads) {
  const int all = compute_threads();
  for (const auto& impl : gemm_w8a8_impls()) {
    if (!cpu_has(impl.needs) || impl.needs == Isa::kPortable) continue;
    for (const int64_t digits : {1, 2}) {
      const Product product(300, 272, 1500, DType::kBf16, 0, true, digits);
      const auto whole = product.run(impl.run, 0, product.M);
      const int64_t width = product.N + 1;
      for (const int threads : {1, all}) {
        set_compute_threads(threads);
        for (const int64_t rows : {1, 2, 7, 16, 32, 33, 128, 272, 300})
          for (int64_t first = 0; first + rows <= product.M; first += 86) {
            const auto part = product.run(impl.run, first, rows);
            ASSERT_EQ(0, std::memcmp(part.data(), whole.data() + first * width, part.size() * sizeof(float)))
                << impl.name << ' ' << rows << " rows from " << first << " on " << threads << " threads";
          }
      }
      set_compute_threads(all);
    }
  }
}

// More threads than cores: some wait for a core in the middle of a block, whose pairs others take.
TEST(GemmW8A8, ThreadsThatHelpEachOtherGiveTheSameBits) {
  const int all = compute_threads();
  set_compute_threads(12);
  for (const int64_t K : {900, 4864}) {
    const Product product(512, 900, K, DType::kBf16, 0);
    set_compute_threads(1);
    const auto want = product.run(best_impl(gemm_w8a8_impls()), 0, product.M);
    set_compute_threads(12);
    for (int i = 0; i < 30; ++i) ASSERT_EQ(product.run(best_impl(gemm_w8a8_impls()), 0, product.M), want) << K;
  }
  set_compute_threads(all);
}

TEST(GemmW8A8, LongSumsOfTheLargestProductsAreExact) {
  for (const auto& impl : gemm_w8a8_impls()) {
    if (!cpu_has(impl.needs)) continue;
    Product p(2, 16, 65536, DType::kF32, 1.0f, false);
    std::fill(p.w.begin(), p.w.end(), static_cast<int8_t>(-128));
    std::fill(p.scales.begin(), p.scales.end(), 1.0f);
    for (int64_t i = 0; i < p.M * p.x_stride; ++i)
      reinterpret_cast<float*>(p.x.data())[i] = i < p.x_stride ? 127 : -128;
    gemm_w8a8_pack({.values = p.w.data(), .packed = p.packed.data, .row_begin = 0, .row_end = 16, .N = 16, .K = p.K});
    const auto y = p.run(impl.run, 0, 2);
    EXPECT_EQ(y[0], -127.0f * 128 * 65536) << impl.name;
    EXPECT_EQ(y[17], 128.0f * 128 * 65536) << impl.name;
  }
}

TEST(GemmW8A8, LongSumsOfBothDigitsAreExact) {
  for (const auto& impl : gemm_w8a8_impls()) {
    if (!cpu_has(impl.needs)) continue;
    Product p(2, 16, kMostW8A8K, DType::kF32, 0, false, 2);
    std::fill(p.w.begin(), p.w.end(), static_cast<int8_t>(-128));
    std::fill(p.scales.begin(), p.scales.end(), 1.0f);
    auto* const x = reinterpret_cast<float*>(p.x.data());
    std::fill(x, x + p.x_stride, 32639.0f);                             // digits 127 and 127
    std::fill(x + p.x_stride, x + 2 * p.x_stride, 127 * 256 - 128.0f);  // 127 and -128
    x[p.x_stride] = 32639;
    gemm_w8a8_pack({.values = p.w.data(), .packed = p.packed.data, .row_begin = 0, .row_end = 16, .N = 16, .K = p.K});
    expect_right(p, p.run(impl.run, 0, 2));
  }
}

// Terms of a row of y, against which its error is held.
struct Terms {
  double sum = 0, weights = 0;  // weights: sum of |w|
};
Terms terms_of(const Product& p, int64_t m, int64_t n) {
  Terms t;
  for (int64_t k = 0; k < p.K; ++k) {
    const double w = static_cast<double>(p.scales[n]) * p.w[n * p.K + k];
    t.sum += w * p.activation(m, k);
    t.weights += std::abs(w);
  }
  return t;
}

TEST(GemmW8A8, TwoDigitsKeepEveryTermWithinHalfAStepOfTheLargest) {
  for (const auto& impl : gemm_w8a8_impls()) {
    if (!cpu_has(impl.needs)) continue;
    for (const float outlier : {1.0f, 1000.0f}) {
      Product p(21, 40, 700, DType::kF32, 0, false, 2);
      auto* const x = reinterpret_cast<float*>(p.x.data());
      for (int64_t m = 0; m < p.M; ++m) x[m * p.x_stride + 31 * m] *= outlier;
      const auto y = p.run(impl.run, 0, p.M);
      for (int64_t m = 0; m < p.M; ++m) {
        float largest = 0;
        for (int64_t k = 0; k < p.K; ++k) largest = std::max(largest, std::abs(p.activation(m, k)));
        for (int64_t n = 0; n < p.N; ++n) {
          const Terms t = terms_of(p, m, n);
          // Half a step for every term; then the sums, their combination and two products round.
          const double bound = t.weights * largest * (1 / 65278.0 * 1.001 + 5 * 0x1p-24);
          ASSERT_NEAR(y[m * (p.N + 1) + n], t.sum, bound) << impl.name << " m " << m << " n " << n;
        }
      }
    }
  }
}

TEST(GemmW8A8, ZeroRowsAreZeroAndRowsThatAreNotFiniteAreNaN) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity(), kNaN = std::numeric_limits<float>::quiet_NaN();
  for (const auto& impl : gemm_w8a8_impls()) {
    if (!cpu_has(impl.needs)) continue;
    for (const int64_t digits : {1, 2}) {
      Product p(4, 20, 70, DType::kF32, 0, false, digits);
      auto* x = reinterpret_cast<float*>(p.x.data());
      std::fill(x, x + p.x_stride, 0.0f);
      x[p.x_stride + 69] = kInfinity;
      x[2 * p.x_stride + 3] = kNaN;
      const auto y = p.run(impl.run, 0, 4), alone = p.run(impl.run, 3, 1);
      for (int64_t n = 0; n < 20; ++n) {
        EXPECT_EQ(y[n], 0.0f) << impl.name;
        EXPECT_TRUE(std::isnan(y[21 + n]) && std::isnan(y[42 + n])) << impl.name;
        EXPECT_EQ(y[63 + n], alone[n]) << impl.name;
      }
    }
  }
}

TEST(GemmW8A8, RowsThatWereMadeIntegersBeforeGiveTheSameBits) {
  for (const auto& impl : gemm_w8a8_impls()) {
    if (!cpu_has(impl.needs)) continue;
    for (const auto& [M, N, K] : kShapes) {
      SCOPED_TRACE(testing::Message() << impl.name << ' ' << M << 'x' << N << 'x' << K);
      const Product product(M, N, K, DType::kF32, 0);
      const auto want = product.run(impl.run, 0, M);
      const int64_t stride = w8a8_row_bytes(K) + 64;
      std::vector<int8_t> rows(M * stride, 0);
      for (int64_t m = 0; m < M; ++m) {
        const auto [row, scale] = quantized(product, m);
        std::copy(row.begin(), row.end(), rows.begin() + m * stride);
        std::memcpy(rows.data() + m * stride + w8a8_padded_k(K), &scale, sizeof(scale));
      }
      std::vector<float> y(want.size(), 7.0f);
      GemmW8A8Args a = product.args();
      a.x = rows.data(), a.x_stride = stride, a.x_dtype = DType::kI8;
      a.y = y.data(), a.M = M;
      impl.run(a);
      ASSERT_EQ(0, std::memcmp(y.data(), want.data(), want.size() * sizeof(float)));
    }
  }
}

// A gated product's outputs, rows 3 elements further apart than they are long.
template <class Run>
std::vector<uint8_t> gated_outputs(const Product& p, GluActivation activation, DType y_dtype, const Run& run) {
  const int64_t width = p.N / 2 + 3;
  const Aligned scratch(gemm_gated_w8a8_scratch_bytes(p.M, p.N, p.K, p.x_digits));
  std::vector<uint8_t> y(p.M * width * dtype_bytes(y_dtype), 5);
  GatedGemmW8A8Args a{
      .product = p.args(), .activation = activation, .y = y.data(), .y_stride = width, .y_dtype = y_dtype};
  a.product.x = p.x.data(), a.product.M = p.M, a.product.scratch = scratch.data;
  run(a);
  return y;
}

TEST(GemmW8A8, EveryGatedProductIsProductThenUnit) {
  constexpr std::tuple<int64_t, int64_t, int64_t> kGatedShapes[] = {
      {1, 32, 40},  {12, 64, 96},  {24, 64, 96},     {25, 64, 96}, {5, 96, 64},   {18, 64, 300},
      {33, 34, 70}, {90, 160, 33}, {300, 480, 1100}, {30, 96, 96}, {530, 96, 900}};
  using enum GluActivation;
  for (const auto& impl : gemm_gated_w8a8_impls()) {
    if (!cpu_has(impl.needs)) continue;
    for (const auto& [M, N, K] : kGatedShapes)
      for (const GluActivation activation : {kSilu, kGelu, kGeluTanh, kRelu})
        for (const DType y_dtype : {DType::kF32, DType::kBf16}) {
          const int64_t digits = activation == kRelu || y_dtype == DType::kF32 ? 1 : 2;
          SCOPED_TRACE(testing::Message() << impl.name << ' ' << M << 'x' << N << 'x' << K << ' '
                                          << static_cast<int>(activation) << ' ' << dtype_name(y_dtype));
          const Product product(M, N, K, DType::kBf16, activation == kRelu ? 0.02f : 0, activation == kSilu, digits);
          const auto want = gated_outputs(product, activation, y_dtype, [&](const GatedGemmW8A8Args& a) {
            const auto both = product.run(best_impl(gemm_w8a8_impls()), 0, M);
            glu({.gate = both.data(),
                 .up = both.data() + N / 2,
                 .y = a.y,
                 .T = M,
                 .F = N / 2,
                 .x_stride = N + 1,
                 .y_stride = a.y_stride,
                 .activation = activation,
                 .y_dtype = y_dtype});
          });
          ASSERT_EQ(gated_outputs(product, activation, y_dtype, impl.run), want);
        }
  }
}

// The product of `first`'s gated outputs and `second`, through rows of y or packed ones; memory is what it happens to
// be.
std::vector<float> product_of_gated(const Product& first, const Product& second, GluActivation activation,
                                    bool packed) {
  const int64_t M = first.M, F = second.K, N = second.N;
  const Aligned scratch(gemm_gated_w8a8_scratch_bytes(M, 2 * F, first.K, first.x_digits));
  const Aligned rows(gemm_w8a8_packed_x_bytes(M, F)), own(gemm_w8a8_scratch_bytes(M, F, second.x_digits));
  for (const Aligned* memory : {&scratch, &rows, &own}) std::memset(memory->data, 0xff, memory->size);
  std::vector<bf16> hidden(M * F);
  GatedGemmW8A8Args a{.product = first.args(), .activation = activation, .y = hidden.data(), .y_stride = F};
  a.product.x = first.x.data(), a.product.M = M, a.product.scratch = scratch.data;
  if (packed) a.packed_y = rows.data, a.y = nullptr;
  gemm_gated_w8a8(a);
  std::vector<float> y(M * (N + 1), 7.0f);
  GemmW8A8Args b = second.args();
  b.x = hidden.data(), b.x_stride = F, b.x_dtype = DType::kBf16, b.y = y.data(), b.M = M, b.scratch = own.data;
  if (packed) b.packed_x = rows.data, b.x = nullptr;
  gemm_w8a8(b);
  return y;
}

TEST(GemmW8A8, OutputsThatStayPackedGiveTheNextProductTheBitsOfRows) {
  EXPECT_FALSE(gemm_gated_w8a8_packs(32, 64));  // few rows
  EXPECT_FALSE(gemm_gated_w8a8_packs(64, 48));  // gates and ups share a panel
  EXPECT_EQ(gemm_gated_w8a8_packs(33, 32), cpu_has(Isa::kAmx));
  if (!gemm_gated_w8a8_packs(33, 32)) return;
  expect_packed_as_rows(700, 2500, [](const PackedDraw& d, const auto& compare) {
    const auto [x_scale, x_digits] = kTreatments[d.i % 3];
    Product first(d.M, 2 * d.F, d.K, DType::kBf16, 0, /*with_bias=*/d.i % 2 == 0, d.i % 5 ? x_digits : 3 - x_digits);
    if (d.i == 7) first.scales[3] = std::numeric_limits<float>::infinity();  // rows that are not finite
    const Product second(d.M, d.N, d.F, DType::kBf16, x_scale, /*with_bias=*/d.i % 3 == 0, x_digits);
    compare([&](bool packed) { return product_of_gated(first, second, d.activation, packed); });
  });
}

TEST(GemmW8A8, HeadsAreTheBitsOfRowsThatAreRotated) {
  expect_heads_as_rows([](const HeadsDraw& d, const auto& compare) {
    const auto [x_scale, x_digits] = kTreatments[d.i % 3];
    const Product p(d.M, d.columns(), d.K, DType::kBf16, x_scale, /*with_bias=*/d.i % 2 == 0, x_digits);
    compare([&](const RotatedHeads* heads, float* y) {
      GemmW8A8Args a = p.args();
      a.x = p.x.data(), a.M = p.M, a.y = y, a.heads = heads;
      gemm_w8a8(a);
    });
  });
}

TEST(GemmW8A8, UnpacksTheWeightsItMultiplies) {
  const Product p(1, 37, 75, DType::kF32, 0);
  std::vector<float> row(p.K);
  for (int64_t n = 0; n < p.N; ++n) {
    gemm_w8a8_unpack_row(p.args(), n, 2.0f, row.data());
    for (int64_t k = 0; k < p.K; ++k) ASSERT_EQ(row[k], 2.0f * p.scales[n] * p.w[n * p.K + k]) << n << ' ' << k;
  }
}

}  // namespace
}  // namespace millrace
