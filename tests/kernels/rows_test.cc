#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/cast_rows.h"
#include "kernels/gemm_w8a8.h"
#include "kernels/glu.h"
#include "kernels/norm.h"
#include "kernels/rope.h"
#include "tests/kernels/testing.h"

namespace millrace {
namespace {

struct RowCase {
  int64_t T, C, padding;  // rows, elements, elements between rows
};
constexpr RowCase kRowCases[] = {{1, 1, 0}, {3, 37, 0}, {2, 16, 3}, {5, 64, 1}, {4, 80, 0}, {2, 2048, 0}, {1, 4099, 7}};

class Norms : public testing::TestWithParam<RowCase> {};
INSTANTIATE_TEST_SUITE_P(Shapes, Norms, testing::ValuesIn(kRowCases));

struct NormRun {
  std::vector<float> x;
  std::vector<uint8_t> y;
};

NormRun run_norm(NormFn* run, const RowCase& c, DType dtype, bool residual, bool layer) {
  Random random(7);
  const int64_t stride = c.C + c.padding;
  NormRun result{random_floats(random, c.T * stride), std::vector<uint8_t>(c.T * stride * dtype_bytes(dtype), 0xee)};
  const auto added = random_floats(random, c.T * c.C), w = random_floats(random, c.C), b = random_floats(random, c.C);
  run({.x = result.x.data(),
       .residual = residual ? added.data() : nullptr,
       .residual_scale = 0.5f,
       .w = w.data(),
       .b = layer ? b.data() : nullptr,
       .y = result.y.data(),
       .T = c.T,
       .C = c.C,
       .x_stride = stride,
       .y_stride = stride,
       .eps = 1e-5f,
       .y_dtype = dtype});
  return result;
}

void expect_norms_agree(std::span<const Impl<NormFn>> impls, const RowCase& c, bool layer) {
  for (const auto& impl : impls) {
    if (!cpu_has(impl.needs)) continue;
    for (const DType dtype : {DType::kF32, DType::kBf16})
      for (const bool residual : {false, true}) {
        SCOPED_TRACE(testing::Message() << impl.name << ' ' << dtype_name(dtype) << (residual ? " residual" : ""));
        const NormRun want = run_norm(impls.back().run, c, dtype, residual, layer);
        const NormRun got = run_norm(impl.run, c, dtype, residual, layer);
        for (size_t i = 0; i < want.x.size(); ++i) ASSERT_NEAR(got.x[i], want.x[i], 4e-7f) << i;
        for (size_t i = 0; i < want.x.size(); ++i) {
          const float expected = value_at(want.y, dtype, i);
          // Rounding of sums and factors, plus what rounding x adds for the tiny differences of a layer norm.
          const float bound = 2e-5f + 20 * step_of(expected, DType::kF32) + step_of(expected, dtype);
          ASSERT_NEAR(value_at(got.y, dtype, i), expected, bound) << i;
        }
      }
  }
}

TEST_P(Norms, EveryRmsNormAgreesWithPortable) { expect_norms_agree(rms_norm_impls(), GetParam(), false); }
TEST_P(Norms, EveryLayerNormAgreesWithPortable) { expect_norms_agree(layer_norm_impls(), GetParam(), true); }

// Row by row: the integers and the scale of float32 y, as kernels/gemm_w8a8.h has them.
void expect_integers_of(const std::vector<float>& y, float y_scale, int64_t C, const int8_t* got, int64_t row) {
  float largest = 0;
  bool finite = true;
  for (int64_t c = 0; c < C; ++c) {
    largest = std::max(largest, std::abs(y[row * C + c]));
    finite = finite && std::isfinite(y[row * C + c]);
  }
  const float scale = y_scale > 0 ? y_scale : std::max(largest, 1e-30f) / 127;
  const float factor = y_scale > 0 ? 1 / y_scale : 127 / std::max(largest, 1e-30f);
  float got_scale;
  std::memcpy(&got_scale, got + w8a8_padded_k(C), sizeof(got_scale));
  if (y_scale == 0 && !finite) {
    EXPECT_TRUE(std::isnan(got_scale)) << "row " << row;
    return;
  }
  ASSERT_EQ(got_scale, scale) << "row " << row;
  for (int64_t c = 0; c < w8a8_padded_k(C); ++c)
    ASSERT_EQ(got[c], c < C ? std::clamp<long>(std::lrint(y[row * C + c] * factor), -128, 127) : 0)
        << "row " << row << " column " << c;
}

TEST(Norms, IntegersAreThoseOfTheirFloats) {
  Random random(5);
  constexpr int64_t T = 4;
  for (const int64_t C : {1, 16, 37, 64, 896, 4099}) {
    auto x = random_floats(random, T * C);
    x[2 * C + C / 2] = std::numeric_limits<float>::quiet_NaN();
    std::fill(x.begin() + C, x.begin() + 2 * C, 0.0f);
    const auto added = random_floats(random, T * C), w = random_floats(random, C), b = random_floats(random, C);
    for (const bool layer : {false, true})
      for (const auto& impl : layer ? layer_norm_impls() : rms_norm_impls()) {
        if (!cpu_has(impl.needs)) continue;
        for (const float y_scale : {0.0f, 0.02f}) {
          SCOPED_TRACE(testing::Message() << impl.name << (layer ? " layer " : " rms ") << C << " scale " << y_scale);
          const int64_t stride = w8a8_row_bytes(C);
          std::vector<float> floats(T * C), for_floats = x, for_integers = x;
          std::vector<int8_t> integers(T * stride, 99);
          NormArgs args{.x = for_floats.data(),
                        .residual = C % 2 ? added.data() : nullptr,
                        .w = w.data(),
                        .b = layer ? b.data() : nullptr,
                        .y = floats.data(),
                        .T = T,
                        .C = C,
                        .x_stride = C,
                        .y_stride = C,
                        .eps = 1e-5f};
          impl.run(args);
          args.x = for_integers.data(), args.y = integers.data(), args.y_stride = stride;
          args.y_dtype = DType::kI8, args.y_scale = y_scale;
          impl.run(args);
          for (int64_t t = 0; t < T; ++t)
            if (y_scale == 0 || t != 2) expect_integers_of(floats, y_scale, C, integers.data() + t * stride, t);
        }
      }
  }
}

TEST(Norms, ARowDoesNotDependOnTheRowsBesideIt) {
  Random random(3);
  constexpr int64_t kRows = 64, C = 1000;
  const auto x = random_floats(random, kRows * C), w = random_floats(random, C);
  std::vector<float> together(kRows * C), alone(C), input = x;
  NormArgs args{.x = input.data(),
                .w = w.data(),
                .y = together.data(),
                .T = kRows,
                .C = C,
                .x_stride = C,
                .y_stride = C,
                .eps = 1e-6f};
  rms_norm(args);
  for (const int64_t t : {0, 1, 31, 63}) {
    args.x = input.data() + t * C, args.y = alone.data(), args.T = 1;
    rms_norm(args);
    EXPECT_EQ(0, std::memcmp(alone.data(), together.data() + t * C, C * sizeof(float))) << t;
  }
}

struct RopeCase {
  int64_t T, heads, D, dims;
  bool interleaved;
};
constexpr RopeCase kRopeCases[] = {{1, 1, 2, 2, false},   {3, 5, 12, 12, false},   {2, 6, 64, 64, false},
                                   {2, 3, 20, 10, false}, {4, 2, 128, 128, false}, {1, 1, 2, 2, true},
                                   {3, 5, 12, 12, true},  {2, 2, 64, 32, true},    {2, 3, 80, 74, true}};

TEST(Rope, EveryImplementationAgreesWithPortable) {
  for (const RopeCase& c : kRopeCases) {
    Random random(5);
    const int64_t stride = c.heads * c.D + 9;
    const auto x = random_floats(random, c.T * stride), cos = random_floats(random, c.T * c.dims / 2),
               sin = random_floats(random, c.T * c.dims / 2);
    const auto run = [&](RopeFn* rope) {
      std::vector<float> turned = x;
      rope({.x = turned.data(),
            .cos = cos.data(),
            .sin = sin.data(),
            .T = c.T,
            .heads = c.heads,
            .head_dim = c.D,
            .dims = c.dims,
            .token_stride = stride,
            .interleaved = c.interleaved});
      return turned;
    };
    const auto want = run(rope_impls().back().run);
    for (const auto& impl : rope_impls()) {
      if (!cpu_has(impl.needs)) continue;
      SCOPED_TRACE(testing::Message() << impl.name << " D " << c.D << " dims " << c.dims << ' ' << c.interleaved);
      const auto got = run(impl.run);
      for (size_t i = 0; i < want.size(); ++i) ASSERT_NEAR(got[i], want[i], 1e-5f) << i;
    }
  }
}

TEST(Rope, AQuarterTurnSwapsThePairs) {
  for (const bool interleaved : {false, true}) {
    std::vector<float> x = {1, 2, 3, 4, 5, 6};
    const float cos[] = {0, 0}, sin[] = {1, 1};
    rope({.x = x.data(),
          .cos = cos,
          .sin = sin,
          .T = 1,
          .heads = 1,
          .head_dim = 6,
          .dims = 4,
          .token_stride = 6,
          .interleaved = interleaved});
    EXPECT_EQ(x, interleaved ? (std::vector<float>{-2, 1, -4, 3, 5, 6}) : (std::vector<float>{-3, -4, 1, 2, 5, 6}));
  }
}

class Glus : public testing::TestWithParam<RowCase> {};
INSTANTIATE_TEST_SUITE_P(Shapes, Glus, testing::ValuesIn(kRowCases));

TEST_P(Glus, EveryImplementationAgreesWithPortable) {
  const RowCase c = GetParam();
  Random random(11);
  const int64_t stride = 2 * c.C + c.padding;
  const auto x = random_floats(random, c.T * stride, 4);
  for (const auto activation :
       {GluActivation::kSilu, GluActivation::kGelu, GluActivation::kGeluTanh, GluActivation::kRelu})
    for (const auto& [dtype, gated] : {std::pair(DType::kF32, true), {DType::kBf16, true}, {DType::kF32, false}}) {
      const auto run = [&, dtype = dtype, gated = gated](GluFn* glu) {
        std::vector<uint8_t> y(c.T * c.C * dtype_bytes(dtype));
        glu({.gate = x.data(),
             .up = gated ? x.data() + c.C : nullptr,
             .y = y.data(),
             .T = c.T,
             .F = c.C,
             .x_stride = stride,
             .y_stride = c.C,
             .activation = activation,
             .y_dtype = dtype});
        return y;
      };
      const auto want = run(glu_impls().back().run);
      for (const auto& impl : glu_impls()) {
        if (!cpu_has(impl.needs)) continue;
        SCOPED_TRACE(testing::Message() << impl.name << ' ' << static_cast<int>(activation));
        const auto got = run(impl.run);
        for (int64_t i = 0; i < c.T * c.C; ++i) {
          const float expected = value_at(want, dtype, i);
          ASSERT_NEAR(value_at(got, dtype, i), expected,
                      1.2e-5f + 2e-6f * std::abs(expected) + step_of(expected, dtype));
        }
      }
    }
}

TEST(Glus, ExtremeGatesGiveTheLimits) {
  for (const auto& impl : glu_impls()) {
    if (!cpu_has(impl.needs)) continue;
    for (const auto activation : {GluActivation::kSilu, GluActivation::kGelu, GluActivation::kGeluTanh}) {
      SCOPED_TRACE(testing::Message() << impl.name << ' ' << static_cast<int>(activation));
      const float gate[] = {-1000, 1000, 0, -90, 90}, up[] = {2, 2, 2, 2, 2};
      for (const DType dtype : {DType::kF32, DType::kBf16}) {
        std::vector<uint8_t> y(5 * dtype_bytes(dtype));
        impl.run({.gate = gate,
                  .up = up,
                  .y = y.data(),
                  .T = 1,
                  .F = 5,
                  .x_stride = 5,
                  .y_stride = 5,
                  .activation = activation,
                  .y_dtype = dtype});
        EXPECT_NEAR(value_at(y, dtype, 0), 0, 1e-6);
        EXPECT_EQ(value_at(y, dtype, 1), 2000);
        EXPECT_EQ(value_at(y, dtype, 2), 0);
        EXPECT_NEAR(value_at(y, dtype, 3), 0, 1e-6);
        EXPECT_EQ(value_at(y, dtype, 4), 180);
      }
    }
  }
}

// silu(x) = x / (1 + e^-x) of double, from where it is smaller than any normal float to where it is x.
TEST(Glus, SiluOfBf16OutputsStaysCloseBeforeItIsRounded) {
  std::vector<float> gate;
  for (int i = -9000; i <= 9000; ++i) gate.push_back(0.01f * static_cast<float>(i) + 0.003f);
  std::vector<bf16> y(gate.size());
  for (const auto& impl : glu_impls()) {
    if (!cpu_has(impl.needs)) continue;
    const auto n = static_cast<int64_t>(gate.size());
    impl.run({.gate = gate.data(),
              .up = nullptr,
              .y = y.data(),
              .T = 1,
              .F = n,
              .x_stride = n,
              .y_stride = n,
              .activation = GluActivation::kSilu,
              .y_dtype = DType::kBf16});
    for (size_t i = 0; i < gate.size(); ++i) {
      const double exact = gate[i] / (1 + std::exp(-static_cast<double>(gate[i])));
      if (gate[i] < -80)
        ASSERT_NEAR(to_float(y[i]), 0, 1e-32) << impl.name << ' ' << gate[i];
      else
        ASSERT_TRUE(rounds_nearly(to_float(y[i]), static_cast<float>(exact), 1.5e-4f)) << impl.name << ' ' << gate[i];
    }
  }
}

TEST(CastRows, EveryImplementationRoundsPadsAndPlacesAsPortable) {
  Random random(4);
  for (const DType dtype : {DType::kF32, DType::kBf16, DType::kF16})
    for (const auto& [width, padded] : {std::pair<int64_t, int64_t>{1, 0}, {16, 0}, {37, 64}, {200, 200}, {5, 32}})
      for (const bool scattered : {false, true}) {
        constexpr int64_t n = 6;
        const int64_t stride = std::max(width, padded) + 3;
        auto from = random_floats(random, n * (width + 2), 100);
        from[0] = std::nanf(""), from[1] = 1e30f, from[2] = -0.0f;
        const int64_t slots[n] = {7, 2, 0, 9, 4, 1};
        const auto run = [&](CastRowsFn* cast) {
          std::vector<uint8_t> to(10 * stride * dtype_bytes(dtype), 0x77);
          cast({.from = from.data(),
                .to = to.data(),
                .slots = scattered ? slots : nullptr,
                .n = n,
                .width = width,
                .from_stride = width + 2,
                .to_stride = stride,
                .padded = padded,
                .to_dtype = dtype});
          return to;
        };
        const auto want = run(cast_rows_impls().back().run);
        for (const auto& impl : cast_rows_impls()) {
          if (!cpu_has(impl.needs)) continue;
          const auto got = run(impl.run);
          for (int64_t i = 0; i < 10 * stride; ++i) {
            const float expected = value_at(want, dtype, i), found = value_at(got, dtype, i);
            if (std::isnan(expected))
              ASSERT_TRUE(std::isnan(found)) << impl.name << ' ' << i;
            else
              ASSERT_EQ(found, expected) << impl.name << ' ' << i;
          }
        }
      }
}

}  // namespace
}  // namespace millrace
