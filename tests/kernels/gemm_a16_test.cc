#include "kernels/gemm_a16.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/parallel.h"
#include "tests/kernels/packed_outputs.h"
#include "tests/kernels/rotated_heads.h"
#include "tests/kernels/testing.h"

namespace millrace {
namespace {

struct Case {
  int64_t M, N, K, group;
};

// A product with its operands; the weights also as what they stand for.
struct Product {
  explicit Product(const Case& c, DType x_dtype = DType::kBf16, bool with_bias = true, uint64_t seed = 1)
      : c(c),
        x_dtype(x_dtype),
        x_stride(c.K + 5),
        packed(gemm_a16_packed_bytes(c.N, c.K, c.group)),
        scratch(gemm_a16_scratch_bytes(c.M, c.K)) {
    Random random(seed);
    x = as_dtype(random_floats(random, c.M * x_stride), x_dtype);
    if (with_bias) bias = random_floats(random, c.N);
    make_weights(random);
  }
  void make_weights(Random& random) {
    const int64_t groups = (c.K + c.group - 1) / c.group;
    std::vector<uint8_t> values(c.N * c.K), zeros(c.N * groups);
    std::vector<float> group_scales;
    for (auto& q : values) q = static_cast<uint8_t>(random() % 16);
    for (auto& z : zeros) z = static_cast<uint8_t>(random() % 17);
    for (size_t i = 0; i < zeros.size(); ++i)
      group_scales.push_back(to_float(i % 2 ? to_f16(0.02f * random.normal()) : f16{to_f16(0.1f * random.uniform())}));
    for (int64_t n = 0; n < c.N; ++n)
      for (int64_t k = 0; k < c.K; ++k) {
        const int64_t g = n * groups + k / c.group;
        exact_w.push_back(static_cast<float>(values[n * c.K + k] - zeros[g]) * group_scales[g]);
        w.push_back(to_float(to_bf16(exact_w.back())));
      }
    pack(values.data(), group_scales.data(), zeros.data());
  }
  // In three pieces, which meet inside a panel.
  void pack(const uint8_t* values, const float* group_scales, const uint8_t* zeros) {
    const int64_t groups = (c.K + c.group - 1) / c.group, cut = c.N / 3;
    for (const auto& [begin, end] : {std::pair<int64_t, int64_t>{0, cut}, {cut, 2 * cut}, {2 * cut, c.N}})
      gemm_a16_pack({.values = values + begin * c.K,
                     .scales = group_scales + begin * groups,
                     .zeros = zeros + begin * groups,
                     .packed = packed.data,
                     .row_begin = begin,
                     .row_end = end,
                     .K = c.K,
                     .group = c.group});
  }
  GemmA16Args args() const {
    return {.w = packed.data,
            .bias = bias.empty() ? nullptr : bias.data(),
            .scratch = scratch.data,
            .N = c.N,
            .K = c.K,
            .x_stride = x_stride,
            .y_stride = c.N + 1,
            .group = c.group,
            .x_dtype = x_dtype};
  }
  // Rows [first, first + rows) of y.
  std::vector<float> run(GemmA16Fn* gemm, int64_t first, int64_t rows) const {
    std::vector<float> y(rows * (c.N + 1), 7.0f);
    GemmA16Args a = args();
    a.x = x.data() + first * x_stride * dtype_bytes(x_dtype);
    a.y = y.data();
    a.M = rows;
    gemm(a);
    return y;
  }
  // What products see of x, [M, K], and of w: bf16 or, of x, integers of sixteen bits.
  std::vector<double> seen_x(bool integers) const {
    std::vector<double> seen(c.M * c.K);
    for (int64_t m = 0; m < c.M; ++m) {
      float largest = 1e-30f;
      for (int64_t k = 0; k < c.K; ++k) largest = std::max(largest, std::abs(value_at(x, x_dtype, m * x_stride + k)));
      for (int64_t k = 0; k < c.K; ++k) {
        const float value = value_at(x, x_dtype, m * x_stride + k);
        seen[m * c.K + k] = integers ? std::nearbyint(value * (32639 / largest)) * static_cast<double>(largest / 32639)
                                     : to_float(to_bf16(value));
      }
    }
    return seen;
  }
  const std::vector<float>& seen_w(bool integers) const { return integers ? exact_w : w; }
  const Case c;
  const DType x_dtype;
  const int64_t x_stride;
  std::vector<uint8_t> x;
  std::vector<float> w, exact_w, bias;
  Aligned packed, scratch;
};

void expect_right(const Product& p, bool integers, const std::vector<float>& y) {
  const int64_t N = p.c.N, K = p.c.K;
  const std::vector<double> x = p.seen_x(integers);
  const std::vector<float>& w = p.seen_w(integers);
  for (int64_t m = 0; m < p.c.M; ++m) {
    for (int64_t n = 0; n < N; ++n) {
      double sum = 0, magnitude = 0;
      for (int64_t k = 0; k < K; ++k) {
        const double term = x[m * K + k] * w[n * K + k];
        sum += term;
        magnitude += std::abs(term);
      }
      const double bias = p.bias.empty() ? 0 : p.bias[n];
      // Each of K + 2 operations rounds; their errors point either way.
      const double bound = 1e-7 + (magnitude + std::abs(bias)) * 0x1p-24 * (4 + std::sqrt(static_cast<double>(K)));
      ASSERT_NEAR(y[m * (N + 1) + n], sum + bias, bound) << "m " << m << " n " << n;
    }
    ASSERT_EQ(y[m * (N + 1) + N], 7.0f) << "written beyond row " << m;
  }
}

constexpr std::tuple<int64_t, int64_t, int64_t> kShapes[] = {
    {1, 1, 1},      {1, 16, 128},   {2, 17, 33},    {1, 331, 96},  {7, 100, 192}, {12, 48, 64},   {16, 64, 256},
    {17, 33, 100},  {33, 130, 545}, {70, 96, 1152}, {130, 33, 40}, {3, 1, 700},   {257, 16, 2},   {40, 544, 96},
    {31, 40, 2080}, {13, 20, 2080}, {14, 17, 1100}, {5, 48, 1024}, {64, 80, 640}, {560, 20, 160}, {50, 48, 1024}};

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const auto& [M, N, K] : kShapes) {
    for (const int64_t group : {int64_t{32}, int64_t{64}, int64_t{128}, int64_t{256}, K})
      if (is_int4_group(group, K)) all.push_back({M, N, K, group});
  }
  return all;
}

std::string describe(const Case& c) { return fmt::format("{}x{}x{} group {}", c.M, c.N, c.K, c.group); }

bool multiplies_integers(const Impl<GemmA16Fn>& impl) { return impl.needs == Isa::kAvx2 || impl.needs == Isa::kAvx512; }

TEST(GemmA16, EveryImplementationAgreesWithDoubleSums) {
  for (const auto& impl : gemm_a16_impls()) {
    if (!cpu_has(impl.needs)) continue;
    for (const Case& c : cases())
      for (const DType x_dtype : {DType::kBf16, DType::kF32}) {
        SCOPED_TRACE(testing::Message() << impl.name << ' ' << describe(c) << ' ' << dtype_name(x_dtype));
        const Product product(c, x_dtype, /*with_bias=*/c.N % 2 == 0);
        expect_right(product, multiplies_integers(impl), product.run(impl.run, 0, c.M));
        if (HasFatalFailure()) return;
      }
  }
}

TEST(GemmA16, AnyFewRowsAreTheBitsOfMany) {
  for (const auto& impl : gemm_a16_impls())
    for (const int64_t group : {32, 64, 128}) {
      if (!cpu_has(impl.needs) || impl.needs == Isa::kPortable) continue;
      SCOPED_TRACE(testing::Message() << impl.name << ", group " << group);
      expect_few_rows_as_of_many(Product({50, 81, 2300, group}), impl.run);
    }
}

TEST(GemmA16, ARowIsBitIdenticalInEveryBatchAndOnEveryNumberOfThreads) {
  const int all = compute_threads();
  for (const auto& impl : gemm_a16_impls()) {
    if (!cpu_has(impl.needs) || impl.needs == Isa::kPortable) continue;
    for (const Case& c :
         {Case{300, 272, 1500, 64}, Case{300, 331, 96, 32}, Case{300, 130, 900, 128}, Case{300, 17, 40, 40}}) {
      const Product product(c, DType::kF32);
      SCOPED_TRACE(testing::Message() << impl.name << ' ' << describe(product.c));
      const auto whole = product.run(impl.run, 0, product.c.M);
      const int64_t width = product.c.N + 1;
      for (const int threads : {1, all}) {
        set_compute_threads(threads);
        for (const int64_t rows : {1, 2, 7, 16, 32, 33, 128, 300})
          for (int64_t first = 0; first + rows <= product.c.M; first += 86) {
            const auto part = product.run(impl.run, first, rows);
            ASSERT_EQ(0, std::memcmp(part.data(), whole.data() + first * width, part.size() * sizeof(float)))
                << rows << " rows from " << first << " on " << threads << " threads";
          }
      }
      set_compute_threads(all);
    }
  }
}

TEST(GemmA16, WhatIsNotFiniteStaysInItsRow) {
  const auto infinity = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  for (const auto& impl : gemm_a16_impls())
    for (const int64_t M : {1, 5, 20}) {
      if (!cpu_has(impl.needs)) continue;
      SCOPED_TRACE(testing::Message() << impl.name << ", " << M << " rows");
      Product p({M, 40, 300, 64}, DType::kF32);
      const auto before = p.run(impl.run, 0, M);
      auto* const x = reinterpret_cast<float*>(p.x.data());
      x[M / 2 * p.x_stride + 17] = nan, x[(M - 1) * p.x_stride + 299] = infinity;
      const auto after = p.run(impl.run, 0, M);
      for (int64_t i = 0; i < M * 41; ++i) {
        const bool finite = std::isfinite(after[i]), hit = i / 41 == M / 2 || i / 41 == M - 1;
        ASSERT_EQ(finite, !hit || i % 41 == 40) << i;
        if (!finite) continue;
        ASSERT_EQ(after[i], before[i]) << i;
      }
    }
}

// A gated product's outputs, rows 3 elements further apart than they are long.
template <class Run>
std::vector<uint8_t> gated_outputs(const Product& p, GluActivation activation, DType y_dtype, const Run& run) {
  const int64_t width = p.c.N / 2 + 3;
  const Aligned scratch(gemm_gated_a16_scratch_bytes(p.c.M, p.c.N, p.c.K));
  std::vector<uint8_t> y(p.c.M * width * dtype_bytes(y_dtype), 5);
  GatedGemmA16Args a{
      .product = p.args(), .activation = activation, .y = y.data(), .y_stride = width, .y_dtype = y_dtype};
  a.product.x = p.x.data(), a.product.M = p.c.M, a.product.scratch = scratch.data;
  run(a);
  return y;
}

TEST(GemmA16, EveryGatedProductIsProductThenUnit) {
  constexpr Case kGated[] = {{1, 32, 40, 40},   {5, 96, 64, 64},    {40, 64, 300, 64},    {33, 34, 70, 32},
                             {90, 160, 33, 33}, {90, 160, 290, 32}, {300, 480, 1100, 128}};
  using enum GluActivation;
  for (const auto& impl : gemm_gated_a16_impls()) {
    if (!cpu_has(impl.needs)) continue;
    for (const Case& c : kGated)
      for (const GluActivation activation : {kSilu, kGelu, kGeluTanh, kRelu})
        for (const DType y_dtype : {DType::kF32, DType::kBf16}) {
          SCOPED_TRACE(testing::Message() << impl.name << ' ' << describe(c) << ' ' << static_cast<int>(activation)
                                          << ' ' << dtype_name(y_dtype));
          const Product product(c, DType::kBf16, /*with_bias=*/activation == kSilu);
          const auto want = gated_outputs(product, activation, y_dtype, [&](const GatedGemmA16Args& a) {
            const auto both = product.run(best_impl(gemm_a16_impls()), 0, c.M);
            glu({.gate = both.data(),
                 .up = both.data() + c.N / 2,
                 .y = a.y,
                 .T = c.M,
                 .F = c.N / 2,
                 .x_stride = c.N + 1,
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
  const auto& [M, N, K, group] = second.c;
  const Aligned scratch(gemm_gated_a16_scratch_bytes(M, first.c.N, first.c.K)), rows(gemm_a16_packed_x_bytes(M, K));
  std::memset(rows.data, 0xff, rows.size);
  std::vector<bf16> hidden(M * K);
  GatedGemmA16Args a{.product = first.args(), .activation = activation, .y = hidden.data(), .y_stride = K};
  a.product.x = first.x.data(), a.product.M = M, a.product.scratch = scratch.data;
  if (packed) a.packed_y = rows.data, a.y = nullptr;
  gemm_gated_a16(a);
  std::vector<float> y(M * N, 7.0f);
  GemmA16Args b = second.args();
  b.x = hidden.data(), b.x_stride = K, b.x_dtype = DType::kBf16, b.y = y.data(), b.y_stride = N, b.M = M;
  if (packed) b.packed_x = rows.data, b.x = nullptr;
  gemm_a16(b);
  return y;
}

TEST(GemmA16, OutputsThatStayPackedGiveTheNextProductTheBitsOfRows) {
  EXPECT_FALSE(gemm_gated_a16_packs(32, 64));  // few rows
  EXPECT_FALSE(gemm_gated_a16_packs(64, 48));  // gates and ups share a panel
  EXPECT_EQ(gemm_gated_a16_packs(33, 32), cpu_has(Isa::kAmx));
  if (!gemm_gated_a16_packs(33, 32)) return;
  expect_packed_as_rows(900, 1100, [](const PackedDraw& d, const auto& compare) {
    const Product first({d.M, 2 * d.F, d.K, d.K}, DType::kBf16, /*with_bias=*/d.i % 2 == 0, d.i);
    const Product second({d.M, d.N, d.F, d.i % 5 ? d.F : 32}, DType::kBf16, /*with_bias=*/d.i % 3 == 0, 100 + d.i);
    compare([&](bool packed) { return product_of_gated(first, second, d.activation, packed); });
  });
}

TEST(GemmA16, HeadsAreTheBitsOfRowsThatAreRotated) {
  expect_heads_as_rows([](const HeadsDraw& d, const auto& compare) {
    const Product p({d.M, d.columns(), d.K, d.i % 3 ? d.K : 32}, DType::kBf16, /*with_bias=*/d.i % 2 == 0, d.i);
    compare([&](const RotatedHeads* heads, float* y) {
      GemmA16Args a = p.args();
      a.x = p.x.data(), a.M = p.c.M, a.y = y, a.heads = heads;
      gemm_a16(a);
    });
  });
}

TEST(GemmA16, UnpacksTheWeightsItMultiplies) {
  for (const Case& c : cases()) {
    const Product p(c);
    std::vector<float> row(c.K);
    for (int64_t n = 0; n < c.N; n += 7) {
      gemm_a16_unpack_row(p.args(), n, 2.0f, row.data());
      for (int64_t k = 0; k < c.K; ++k)
        ASSERT_EQ(row[k], 2.0f * p.w[n * c.K + k]) << describe(c) << " row " << n << " k " << k;
    }
  }
}

TEST(GemmA16, AScaleKeepsSixteenBits) {
  const float scale = 1.23456789f;
  const uint8_t values[32] = {9}, zero = 8;
  const Aligned packed(gemm_a16_packed_bytes(1, 32, 32));
  gemm_a16_pack({.values = values,
                 .scales = &scale,
                 .zeros = &zero,
                 .packed = packed.data,
                 .row_begin = 0,
                 .row_end = 1,
                 .K = 32,
                 .group = 32});
  float row[32];
  gemm_a16_unpack_row({.w = packed.data, .N = 1, .K = 32, .group = 32}, 0, 1, row);
  EXPECT_EQ(row[0], to_float(to_bf16(scale)));
  EXPECT_EQ(row[1], to_float(to_bf16(-8 * scale)));
}

}  // namespace
}  // namespace millrace
