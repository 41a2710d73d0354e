#include "kernels/gemm.h"

#include <gtest/gtest.h>

#include <cstring>

#include "kernels/parallel.h"
#include "tests/kernels/packed_outputs.h"
#include "tests/kernels/rotated_heads.h"
#include "tests/kernels/testing.h"

namespace millrace {
namespace {

constexpr DType kWeights[] = {DType::kF32, DType::kBf16, DType::kF16};

// A product with its operands.
struct Product {
  Product(int64_t M, int64_t N, int64_t K, DType weight, DType x_dtype, bool with_bias, uint64_t seed = 1)
      : M(M),
        N(N),
        K(K),
        weight(weight),
        x_dtype(x_dtype),
        x_stride(K + 3),
        packed(gemm_packed_bytes(N, K, weight)),
        scratch(gemm_scratch_bytes(M, N, K, weight)) {
    Random random(seed);
    x = as_dtype(random_floats(random, M * x_stride), x_dtype);
    const auto values = as_dtype(random_floats(random, N * K), weight);
    if (with_bias) bias = random_floats(random, N);
    for (int64_t i = 0; i < N * K; ++i) w.push_back(value_at(values, weight, i));
    gemm_pack({.w = values.data(),
               .packed = packed.data,
               .row_begin = 0,
               .row_end = N,
               .K = K,
               .w_stride = K,
               .from = weight,
               .to = weight});
  }
  // Rows [first, first + rows) of y.
  std::vector<float> run(GemmFn* gemm, int64_t first, int64_t rows) const {
    std::vector<float> y(rows * (N + 1), 7.0f);
    gemm({.x = x.data() + first * x_stride * dtype_bytes(x_dtype),
          .w = packed.data,
          .bias = bias.empty() ? nullptr : bias.data(),
          .y = y.data(),
          .scratch = scratch.data,
          .M = rows,
          .N = N,
          .K = K,
          .x_stride = x_stride,
          .y_stride = N + 1,
          .x_dtype = x_dtype,
          .w_dtype = weight});
    return y;
  }
  double activation(int64_t m, int64_t k) const {
    const float value = value_at(x, x_dtype, m * x_stride + k);
    const float high = to_float(to_bf16(value));
    if (weight == DType::kF16) return high + to_float(to_bf16(value - high));
    return weight == DType::kBf16 ? high : value;
  }
  const int64_t M, N, K;
  const DType weight, x_dtype;
  const int64_t x_stride;
  std::vector<uint8_t> x;
  std::vector<float> w, bias;
  Aligned packed, scratch;
};

void expect_right(const Product& p, const std::vector<float>& y) {
  for (int64_t m = 0; m < p.M; ++m) {
    for (int64_t n = 0; n < p.N; ++n) {
      double sum = p.bias.empty() ? 0 : p.bias[n], magnitude = std::abs(sum);
      for (int64_t k = 0; k < p.K; ++k) {
        const double term = p.activation(m, k) * p.w[n * p.K + k];
        sum += term;
        magnitude += std::abs(term);
      }
      // Each of K + 1 additions rounds a partial sum; their errors point either way.
      const double bound = 1e-6 + magnitude * 0x1p-24 * (4 + std::sqrt(static_cast<double>(p.K)));
      ASSERT_NEAR(y[m * (p.N + 1) + n], sum, bound) << "m " << m << " n " << n;
    }
    ASSERT_EQ(y[m * (p.N + 1) + p.N], 7.0f) << "written beyond row " << m;
  }
}

struct GemmCase {
  int64_t M, N, K;
};
constexpr GemmCase kCases[] = {{1, 1, 1},       {1, 16, 32},    {2, 17, 33},   {1, 331, 80},  {7, 100, 172},
                               {12, 48, 64},    {13, 40, 31},   {16, 64, 256}, {17, 33, 100}, {33, 130, 513},
                               {70, 96, 1100},  {130, 33, 40},  {3, 1, 700},   {257, 16, 2},  {40, 544, 96},
                               {200, 80, 2750}, {390, 17, 2000}};

TEST(Gemm, EveryImplementationAgreesWithDoubleSums) {
  for (const DType weight : kWeights)
    for (const auto& impl : gemm_impls(weight)) {
      if (!cpu_has(impl.needs)) continue;
      for (const GemmCase& c : kCases)
        for (const DType x_dtype : {DType::kF32, DType::kBf16}) {
          SCOPED_TRACE(testing::Message() << dtype_name(weight) << ' ' << impl.name << ' ' << c.M << 'x' << c.N << 'x'
                                          << c.K << ' ' << dtype_name(x_dtype));
          const Product product(c.M, c.N, c.K, weight, x_dtype, /*with_bias=*/c.N % 2 == 0);
          expect_right(product, product.run(impl.run, 0, c.M));
          if (HasFatalFailure()) return;
        }
    }
}

TEST(Gemm, AnyFewRowsAreTheBitsOfMany) {
  for (const DType weight : kWeights)
    for (const auto& impl : gemm_impls(weight)) {
      if (!cpu_has(impl.needs) || impl.needs == Isa::kPortable) continue;
      SCOPED_TRACE(testing::Message() << dtype_name(weight) << ' ' << impl.name);
      expect_few_rows_as_of_many(Product(50, 81, 1100, weight, DType::kF32, true), impl.run);
    }
}

TEST(Gemm, ARowIsBitIdenticalInEveryBatchAndOnEveryNumberOfThreads) {
  const int all = compute_threads();
  for (const DType weight : kWeights)
    for (const auto& impl : gemm_impls(weight)) {
      if (!cpu_has(impl.needs) || impl.needs == Isa::kPortable) continue;
      SCOPED_TRACE(testing::Message() << dtype_name(weight) << ' ' << impl.name);
      for (const GemmCase& c : {GemmCase{300, 272, 1500}, GemmCase{300, 96, 4000}}) {
        const Product product(c.M, c.N, c.K, weight, DType::kF32, true);
        const auto whole = product.run(impl.run, 0, product.M);
        const int64_t width = product.N + 1;
        for (const int threads : {1, all}) {
          set_compute_threads(threads);
          for (const int64_t rows : {1, 2, 7, 16, 33, 128, 272, 300})
            for (int64_t first = 0; first + rows <= product.M; first += 86) {
              const auto part = product.run(impl.run, first, rows);
              ASSERT_EQ(0, std::memcmp(part.data(), whole.data() + first * width, part.size() * sizeof(float)))
                  << c.K << " of k, " << rows << " rows from " << first << " on " << threads << " threads";
            }
        }
        set_compute_threads(all);
      }
    }
}

std::vector<uint8_t> run_gated(const Product& p, GatedGemmFn* gemm, int64_t rows, GluActivation activation,
                               DType y_dtype) {
  const Aligned scratch(gemm_gated_scratch_bytes(rows, p.N, p.K, p.weight));
  std::vector<uint8_t> y(rows * p.N / 2 * dtype_bytes(y_dtype));
  gemm({.product = {.x = p.x.data(),
                    .w = p.packed.data,
                    .bias = p.bias.empty() ? nullptr : p.bias.data(),
                    .y = nullptr,
                    .scratch = scratch.data,
                    .M = rows,
                    .N = p.N,
                    .K = p.K,
                    .x_stride = p.x_stride,
                    .y_stride = 0,
                    .x_dtype = p.x_dtype,
                    .w_dtype = p.weight},
        .activation = activation,
        .y = y.data(),
        .y_stride = p.N / 2,
        .y_dtype = y_dtype});
  return y;
}

TEST(Gemm, EveryGatedProductAgreesWithProductThenUnit) {
  constexpr GemmCase kGatedCases[] = {{1, 32, 40},   {12, 64, 96},  {24, 64, 96}, {25, 64, 96}, {5, 96, 64},
                                      {31, 64, 300}, {50, 544, 96}, {9, 30, 50},  {64, 320, 33}};
  for (const DType weight : kWeights)
    for (const auto& impl : gemm_gated_impls(weight)) {
      if (!cpu_has(impl.needs)) continue;
      for (const GemmCase& c : kGatedCases)
        for (const auto activation :
             {GluActivation::kSilu, GluActivation::kGelu, GluActivation::kGeluTanh, GluActivation::kRelu}) {
          SCOPED_TRACE(testing::Message() << dtype_name(weight) << ' ' << impl.name << ' ' << c.M << 'x' << c.N << 'x'
                                          << c.K << " activation " << static_cast<int>(activation));
          const Product product(c.M, c.N, c.K, weight, DType::kF32, /*with_bias=*/c.K % 2 == 0);
          const auto want = run_gated(product, gemm_gated_impls(weight).back().run, c.M, activation, DType::kF32);
          const auto got = run_gated(product, impl.run, c.M, activation, DType::kF32);
          const auto rounded = run_gated(product, impl.run, c.M, activation, DType::kBf16);
          const auto alone = run_gated(product, impl.run, 1, activation, DType::kF32);
          for (int64_t i = 0; i < c.M * c.N / 2; ++i) {
            const float expected = value_at(want, DType::kF32, i), found = value_at(got, DType::kF32, i);
            ASSERT_NEAR(found, expected, 1e-4f + 1e-5f * std::abs(expected)) << i;
            const float nearly = activation == GluActivation::kSilu ? 1.5e-4f : 0.0f;
            ASSERT_TRUE(rounds_nearly(value_at(rounded, DType::kBf16, i), found, nearly)) << i;
          }
          ASSERT_EQ(0, std::memcmp(alone.data(), got.data(), alone.size()));
        }
    }
}

// The product of `first`'s gated outputs and `second`, bf16, through rows of y or packed ones; memory is what it
// happens to be.
std::vector<float> product_of_gated(const Product& first, const Product& second, GluActivation activation,
                                    bool packed) {
  const int64_t M = first.M, F = second.K, N = second.N;
  const Aligned scratch(gemm_gated_scratch_bytes(M, 2 * F, first.K, DType::kBf16)), rows(gemm_packed_x_bytes(M, F));
  const Aligned own(gemm_scratch_bytes(M, N, F, DType::kBf16));
  for (const Aligned* memory : {&scratch, &rows, &own}) std::memset(memory->data, 0xff, memory->size);
  std::vector<bf16> hidden(M * F);
  gemm_gated({.product = {.x = first.x.data(),
                          .w = first.packed.data,
                          .bias = first.bias.empty() ? nullptr : first.bias.data(),
                          .y = nullptr,
                          .scratch = scratch.data,
                          .M = M,
                          .N = 2 * F,
                          .K = first.K,
                          .x_stride = first.x_stride,
                          .y_stride = 0,
                          .x_dtype = first.x_dtype,
                          .w_dtype = DType::kBf16},
              .activation = activation,
              .y = packed ? nullptr : hidden.data(),
              .y_stride = F,
              .y_dtype = DType::kBf16,
              .packed_y = packed ? rows.data : nullptr});
  std::vector<float> y(M * N, 7.0f);
  gemm({.x = packed ? nullptr : hidden.data(),
        .w = second.packed.data,
        .bias = second.bias.empty() ? nullptr : second.bias.data(),
        .y = y.data(),
        .scratch = own.data,
        .M = M,
        .N = N,
        .K = F,
        .x_stride = F,
        .y_stride = N,
        .x_dtype = DType::kBf16,
        .w_dtype = DType::kBf16,
        .packed_x = packed ? rows.data : nullptr});
  return y;
}

TEST(Gemm, OutputsThatStayPackedGiveTheNextProductTheBitsOfRows) {
  EXPECT_FALSE(gemm_gated_packs(32, 64, DType::kBf16));  // few rows
  EXPECT_FALSE(gemm_gated_packs(64, 48, DType::kBf16));  // gates and ups share a panel
  EXPECT_FALSE(gemm_gated_packs(64, 64, DType::kF32));
  EXPECT_EQ(gemm_gated_packs(33, 32, DType::kBf16), cpu_has(Isa::kAmx));
  if (!gemm_gated_packs(33, 32, DType::kBf16)) return;
  expect_packed_as_rows(700, 1200, [](const PackedDraw& d, const auto& compare) {
    const Product first(d.M, 2 * d.F, d.K, DType::kBf16, DType::kF32, /*with_bias=*/d.i % 2 == 0, d.i);
    const Product second(d.M, d.N, d.F, DType::kBf16, DType::kBf16, /*with_bias=*/d.i % 3 == 0, 100 + d.i);
    compare([&](bool packed) { return product_of_gated(first, second, d.activation, packed); });
  });
}

TEST(Gemm, HeadsAreTheBitsOfRowsThatAreRotated) {
  EXPECT_FALSE(gemm_rotates(32, 64));  // few rows
  EXPECT_FALSE(gemm_rotates(64, 48));  // halves of a head share a panel
  EXPECT_EQ(gemm_rotates(33, 32), cpu_has(Isa::kAmx));
  expect_heads_as_rows([](const HeadsDraw& d, const auto& compare) {
    const Product p(d.M, d.columns(), d.K, DType::kBf16, DType::kF32, /*with_bias=*/d.i % 2 == 0, d.i);
    compare([&](const RotatedHeads* heads, float* y) {
      gemm({.x = p.x.data(),
            .w = p.packed.data,
            .bias = p.bias.empty() ? nullptr : p.bias.data(),
            .y = y,
            .scratch = p.scratch.data,
            .M = p.M,
            .N = p.N,
            .K = p.K,
            .x_stride = p.x_stride,
            .y_stride = p.N + 1,
            .x_dtype = p.x_dtype,
            .w_dtype = p.weight,
            .heads = heads});
    });
  });
}

// [37, 45] packed in ranges of rows that end at `cuts`, unpacked again.
void check_packing(DType from, DType to, std::initializer_list<int64_t> cuts) {
  constexpr int64_t N = 37, K = 45;
  Random random(9);
  const auto bytes = as_dtype(random_floats(random, N * K), from);
  Aligned packed(gemm_packed_bytes(N, K, to));
  int64_t begin = 0;
  for (const int64_t end : cuts) {
    gemm_pack({.w = bytes.data() + begin * K * dtype_bytes(from),
               .packed = packed.data,
               .row_begin = begin,
               .row_end = end,
               .K = K,
               .w_stride = K,
               .from = from,
               .to = to});
    begin = end;
  }
  std::vector<float> row(K);
  for (int64_t n = 0; n < N; ++n) {
    gemm_unpack_row(packed.data, to, K, n, 2.0f, row.data());
    for (int64_t k = 0; k < K; ++k) {
      const float value = value_at(bytes, from, n * K + k);
      const float kept = to == DType::kF32    ? value
                         : to == DType::kBf16 ? to_float(to_bf16(value))
                                              : to_float(to_f16(value));
      ASSERT_EQ(row[k], 2 * kept) << dtype_name(from) << " to " << dtype_name(to) << " row " << n << " k " << k;
    }
  }
}

TEST(Gemm, PackingConvertsStacksAndUnpacks) {
  for (const DType from : kWeights)
    for (const DType to : kWeights) {
      check_packing(from, to, {5, 30, 37});
      check_packing(from, to, {37});
    }
}

}  // namespace
}  // namespace millrace
