#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "ops/grouped_linear.h"
#include "ops/linear.h"
#include "ops/norm.h"
#include "ops/rows.h"
#include "tests/ops/testing.h"

namespace millrace {
namespace {

constexpr int64_t K = 192;

// Integers with scales, and the floats they stand for in x's order of columns.
struct Matrix {
  QuantizedMatrix integers;
  std::vector<float> w;  // [N, K]
};

// Values from a tensor [N, K] of bytes.
QuantizedMatrix matrix_of(QuantizedMatrix::Scheme scheme, const Tensor& values) {
  QuantizedMatrix m{.scheme = scheme, .rows = values.size(0), .columns = K};
  m.unpack = [values](int64_t begin, int64_t end, uint8_t* to) {
    std::memcpy(to, values.data<uint8_t>() + begin * K, static_cast<size_t>((end - begin) * K));
  };
  return m;
}

Matrix random_int8(Random& random, int64_t N, bool int8_inputs) {
  const Tensor values = Tensor::empty(DType::kU8, {N, K});
  Matrix m{matrix_of(int8_inputs ? QuantizedMatrix::Scheme::kInt8Int8 : QuantizedMatrix::Scheme::kInt8, values), {}};
  m.integers.scales = Tensor::empty(DType::kF32, {N, 1});
  for (int64_t n = 0; n < N; ++n) {
    m.integers.scales.data<float>()[n] = 0.001f + 0.01f * random.uniform();
    for (int64_t k = 0; k < K; ++k) {
      const auto q = static_cast<int8_t>(random() % 256 - 128);
      const_cast<uint8_t*>(values.data<uint8_t>())[n * K + k] = static_cast<uint8_t>(q);
      m.w.push_back(m.integers.scales.data<float>()[n] * q);
    }
  }
  return m;
}

// With zeros, and with x's columns in the given order.
Matrix random_int4(Random& random, int64_t N, int64_t group, const Tensor& order) {
  const Tensor values = Tensor::empty(DType::kU8, {N, K});
  Matrix m{matrix_of(QuantizedMatrix::Scheme::kInt4, values), std::vector<float>(N * K)};
  m.integers.group = group;
  m.integers.order = order;
  const int64_t groups = m.integers.groups(), length = group == 0 ? K : group;
  m.integers.scales = Tensor::empty(DType::kF32, {N, groups});
  m.integers.zeros = Tensor::empty(DType::kU8, {N, groups});
  for (int64_t i = 0; i < N * groups; ++i) {
    m.integers.scales.data<float>()[i] = to_float(to_f16(0.01f + 0.02f * random.uniform()));
    m.integers.zeros.data<uint8_t>()[i] = static_cast<uint8_t>(random() % 16);
  }
  for (int64_t n = 0; n < N; ++n)
    for (int64_t k = 0; k < K; ++k) {
      const auto q = static_cast<uint8_t>(random() % 16);
      const int64_t g = n * groups + k / length, column = order.raw() ? order.data<int32_t>()[k] : k;
      const_cast<uint8_t*>(values.data<uint8_t>())[n * K + k] = q;
      m.w[n * K + column] = m.integers.scales.data<float>()[g] * (q - m.integers.zeros.data<uint8_t>()[g]);
    }
  return m;
}

Tensor random_order(Random& random) {
  Tensor order = Tensor::empty(DType::kI32, {K});
  for (int64_t k = 0; k < K; ++k) order.data<int32_t>()[k] = static_cast<int32_t>(k);
  std::shuffle(order.data<int32_t>(), order.data<int32_t>() + K, random);
  return order;
}

Tensor run(const Linear& linear, const Tensor& x) {
  Tensor y = Tensor::empty(DType::kF32, {x.size(0), linear.out_features()});
  Workspace workspace(linear.scratch_bytes(x.size(0)));
  linear.forward(x, y, workspace);
  return y;
}

// y against sums of the floats; `step`: how far rounding moves each term, as a fraction of it.
void expect_near(const Tensor& y, const Tensor& x, const std::vector<const Matrix*>& parts, const Tensor& bias,
                 double step) {
  int64_t column = 0;
  for (const Matrix* part : parts)
    for (int64_t n = 0; n < part->integers.rows; ++n, ++column)
      for (int64_t t = 0; t < x.size(0); ++t) {
        double sum = bias.raw() ? bias.data<float>()[column] : 0, squares = 1e-4;
        for (int64_t k = 0; k < K; ++k) {
          const double term = static_cast<double>(x.data<float>()[t * K + k]) * part->w[n * K + k];
          sum += term;
          squares += term * term;
        }
        ASSERT_NEAR(y.data<float>()[t * y.size(1) + column], sum, 6 * step * std::sqrt(squares) + 1e-5)
            << "row " << t << " column " << column;
      }
}

TEST(QuantizedLinear, StacksPartsOfEveryFormat) {
  Random random(1);
  const Tensor x = random_tensor(random, {5, K}), order = random_order(random);
  const Tensor bias = random_tensor(random, {47});
  const Tensor biases[] = {bias.rows(0, 20), bias.rows(20, 47)};
  for (const int kind : {0, 1, 2, 3}) {
    SCOPED_TRACE(kind);
    const auto make = [&](int64_t N) {
      if (kind == 0) return random_int8(random, N, false);
      return random_int4(random, N, kind == 3 ? 0 : 64, kind == 2 ? order : Tensor());
    };
    const Matrix a = make(20), b = make(27);
    const QuantizedMatrix parts[] = {a.integers, b.integers};
    const Linear linear = Linear::pack(parts, biases);
    EXPECT_EQ(linear.format(), kind == 0 ? LinearFormat::kW8A16 : LinearFormat::kW4A16);
    EXPECT_EQ(linear.in_features(), K);
    EXPECT_EQ(linear.out_features(), 47);
    EXPECT_EQ(linear.input_dtype(), DType::kBf16);
    expect_near(run(linear, x), x, {&a, &b}, bias, 0x1p-8);
  }
}

TEST(QuantizedLinear, Int8InputsPerTokenAndByAStaticScale) {
  Random random(2);
  const Tensor x = random_tensor(random, {5, K});
  for (const float input_scale : {0.0f, 0.03f}) {
    Matrix a = random_int8(random, 20, true), b = random_int8(random, 27, true);
    if (input_scale > 0) {
      a.integers.input_scale = Tensor::empty(DType::kF32, {1});
      b.integers.input_scale = Tensor::empty(DType::kF32, {1});
      a.integers.input_scale.data<float>()[0] = input_scale;
      b.integers.input_scale.data<float>()[0] = input_scale / 2;  // the larger one is taken
    }
    const QuantizedMatrix parts[] = {a.integers, b.integers};
    const Linear linear = Linear::pack(parts, {});
    EXPECT_EQ(linear.format(), LinearFormat::kW8A8);
    // |x| reaches 4, a step of the integers is 4 / 127: a term moves by half of that at most.
    expect_near(run(linear, x), x, {&a, &b}, Tensor(), 0.02);
  }
}

TEST(QuantizedLinear, ColumnsOfInt8InAnOrderOfTheirOwnMeetTheirInputs) {
  Random random(7);
  const Tensor x = random_tensor(random, {5, K});
  for (const bool int8_inputs : {false, true}) {
    Matrix m = random_int8(random, 20, int8_inputs);
    const Tensor plain = run(Linear::pack({&m.integers, 1}, {}), x);
    m.integers.order = random_order(random);
    const QuantizedMatrix in_x_order = m.integers;
    m.integers.unpack = [in_x_order](int64_t begin, int64_t end, uint8_t* to) {
      std::vector<uint8_t> values((end - begin) * K);
      in_x_order.unpack(begin, end, values.data());
      const auto* const order = in_x_order.order.data<int32_t>();
      for (int64_t n = 0; n < end - begin; ++n)
        for (int64_t k = 0; k < K; ++k) to[n * K + k] = values[n * K + order[k]];
    };
    const Linear linear = Linear::pack({&m.integers, 1}, {});
    const Tensor y = run(linear, x);
    EXPECT_EQ(0, std::memcmp(y.raw(), plain.raw(), static_cast<size_t>(y.bytes()))) << int8_inputs;
    EXPECT_EQ(linear.packed().order.raw(), nullptr);
  }
}

TEST(QuantizedLinear, ANormThatMakesIntegersGivesTheBitsOfItsFloats) {
  Random random(9);
  const Tensor h = random_tensor(random, {21, K}), weight = random_tensor(random, {K});
  const Norm norm(Norm::Kind::kRms, weight, Tensor(), 1e-5);
  for (const float input_scale : {0.0f, 0.03f}) {
    Matrix m = random_int8(random, 96, true);
    if (input_scale > 0) {
      m.integers.input_scale = Tensor::empty(DType::kF32, {1});
      m.integers.input_scale.data<float>()[0] = input_scale;
    }
    const Linear linear = Linear::pack({&m.integers, 1}, {});
    ASSERT_TRUE(linear.takes_integers());
    Tensor floats = Tensor::empty(DType::kF32, {21, K});
    const Tensor memory = Tensor::zeros(DType::kU8, {Linear::integer_rows_bytes(21, K)});
    Tensor integers = Linear::integer_rows(const_cast<std::byte*>(memory.data<std::byte>()), 21, K);
    norm(h, floats);
    norm(h, integers, linear.input_scale());
    const Tensor want = run(linear, floats), got = run(linear, integers);
    EXPECT_EQ(0, std::memcmp(got.raw(), want.raw(), static_cast<size_t>(got.bytes()))) << input_scale;
  }
}

TEST(QuantizedLinear, PartsThatDoNotFitAreNamed) {
  Random random(3);
  const Matrix w8 = random_int8(random, 16, false), a8 = random_int8(random, 16, true);
  const Matrix g64 = random_int4(random, 16, 64, Tensor()), g32 = random_int4(random, 16, 32, Tensor());
  const Matrix ordered = random_int4(random, 16, 64, random_order(random));
  const auto check = [](const Matrix& a, const Matrix& b) {
    const QuantizedMatrix parts[] = {a.integers, b.integers};
    return std::string(Linear::check_parts(parts).message());
  };
  EXPECT_EQ(check(g64, g64), "");
  EXPECT_NE(check(w8, a8).find("quantised differently"), std::string::npos);
  EXPECT_NE(check(g64, g32).find("quantised differently"), std::string::npos);
  EXPECT_NE(check(g64, ordered).find("g_idx"), std::string::npos);
  const Matrix odd = random_int4(random, 16, 48, Tensor());
  EXPECT_NE(check(odd, odd).find("48"), std::string::npos);
  Matrix grouped = w8;
  grouped.integers.group = 64;
  EXPECT_NE(check(grouped, grouped).find("64"), std::string::npos);
}

TEST(QuantizedLinear, QuantisingKeepsEveryWeightWithinHalfAStep) {
  Random random(4);
  for (const DType stored : {DType::kF32, DType::kBf16, DType::kF16})
    for (const LinearFormat format : {LinearFormat::kW8A8, LinearFormat::kW8A16}) {
      const Tensor parts[] = {random_tensor(random, {300, K}, stored), random_tensor(random, {21, K}, stored)};
      Tensor zero_row = parts[1].rows(3, 4);
      std::memset(zero_row.raw(), 0, static_cast<size_t>(zero_row.bytes()));
      const Linear linear = std::move(Linear::quantize(parts, {}, format)).value();
      EXPECT_EQ(linear.format(), format);
      std::vector<int32_t> tokens(321);
      for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<int32_t>(i);
      Tensor rows = Tensor::empty(DType::kF32, {321, K});
      linear.gather(tokens, 1, rows);
      for (int64_t n = 0; n < 321; ++n) {
        const Tensor& part = parts[n < 300 ? 0 : 1];
        const int64_t row = n < 300 ? n : n - 300;
        float largest = 0;
        for (int64_t k = 0; k < K; ++k) largest = std::max(largest, std::abs(element_as_float(part, row * K + k)));
        for (int64_t k = 0; k < K; ++k)
          ASSERT_NEAR(rows.data<float>()[n * K + k], element_as_float(part, row * K + k), largest / 127 * 0.5001f);
      }
    }
}

TEST(QuantizedLinear, WeightsThatAreNotFiniteAreRefused) {
  Random random(5);
  Tensor w = random_tensor(random, {300, K});
  w.data<float>()[290 * K + 7] = std::numeric_limits<float>::quiet_NaN();
  const auto linear = Linear::quantize({&w, 1}, {}, LinearFormat::kW8A16);
  ASSERT_FALSE(linear.ok());
  EXPECT_NE(std::string(linear.status().message()).find("row 290"), std::string::npos);
}

TEST(QuantizedLinear, TheFirstRowThatIsNotFiniteIsNamedWhoeverFindsOne) {
  Tensor w = Tensor::empty(DType::kF32, {2000, 64});
  std::fill_n(w.data<float>(), 2000 * 64, 1.0f);
  for (const int64_t row : {700, 701, 1500}) w.data<float>()[row * 64] = INFINITY;
  for (int i = 0; i < 20; ++i) {
    const std::string message(Linear::quantize({&w, 1}, {}, LinearFormat::kW8A16).status().message());
    EXPECT_NE(message.find("row 700 "), std::string::npos) << message;
  }
}

TEST(QuantizedLinear, TheGatedAndGroupedFormsAreTheirDefinitions) {
  Random random(6);
  const Tensor x = random_tensor(random, {21, K});
  const Matrix matrices[] = {random_int8(random, 96, false), random_int8(random, 96, true),
                             random_int4(random, 96, 64, random_order(random))};
  for (const Matrix& m : matrices) {
    const Linear linear = Linear::pack({&m.integers, 1}, {});
    Tensor want = Tensor::empty(DType::kF32, {21, 48}), got = Tensor::empty(DType::kF32, {21, 48});
    glu(run(linear, x), GluActivation::kSilu, want);
    Workspace workspace(gated_grouped_scratch_bytes(linear, 1, 21));
    linear.forward_gated(x, GluActivation::kSilu, got, workspace);
    EXPECT_EQ(0, std::memcmp(got.raw(), want.raw(), static_cast<size_t>(got.bytes())));
    Tensor grouped = Tensor::zeros(DType::kF32, {21, 48});
    LinearCall calls[] = {{&linear, x, grouped}};
    forward_gated_grouped(calls, GluActivation::kSilu, workspace);
    EXPECT_EQ(0, std::memcmp(grouped.raw(), want.raw(), static_cast<size_t>(got.bytes())));
    EXPECT_EQ(workspace.used_bytes(), 0);
  }
}

// 50 rows through `gate_up` and `down`, as rows and packed: the same bits.
void expect_feeds(const Linear& gate_up, const Linear& down) {
  ASSERT_EQ(gate_up.feeds(down, 50), cpu_has(Isa::kAmx));
  if (!gate_up.feeds(down, 50)) return;
  Random random(10);
  const Tensor x = random_tensor(random, {50, K});
  Tensor hidden = Tensor::empty(DType::kBf16, {50, down.in_features()});
  Tensor want = Tensor::empty(DType::kF32, {50, down.out_features()}), got = Tensor::empty(DType::kF32, want.shape());
  Workspace workspace(std::max(gate_up.gated_scratch_bytes(50), down.scratch_bytes(50)));
  gate_up.forward_gated(x, GluActivation::kSilu, hidden, workspace);
  down.forward(hidden, want, workspace);
  const Tensor memory = page_zeros(DType::kU8, {down.packed_rows_bytes(50)});
  const PackedRows rows{const_cast<std::byte*>(memory.data<std::byte>()), 50};
  gate_up.forward_gated(x, GluActivation::kSilu, down, rows, workspace);
  down.forward(rows, got, workspace);
  EXPECT_EQ(0, std::memcmp(got.raw(), want.raw(), static_cast<size_t>(got.bytes())));
  EXPECT_EQ(workspace.used_bytes(), 0);
}

TEST(QuantizedLinear, AGatedProductFeedsTheNextItsRowsPacked) {
  Random random(9);
  const auto packed = [](const Matrix& m) { return Linear::pack({&m.integers, 1}, {}); };
  const Linear gate_up = packed(random_int4(random, 2 * K, 64, random_order(random)));
  const Linear down = packed(random_int4(random, 40, 64, Tensor()));
  EXPECT_FALSE(gate_up.feeds(down, 20));  // few rows
  EXPECT_FALSE(gate_up.feeds(packed(random_int4(random, 40, 64, random_order(random))), 50));
  EXPECT_FALSE(gate_up.feeds(packed(random_int8(random, 40, false)), 50));
  EXPECT_FALSE(down.feeds(down, 50));  // other columns
  expect_feeds(gate_up, down);

  const Tensor wide = random_tensor(random, {2 * K, K}), narrow = random_tensor(random, {40, K});
  const auto dense = [](const Tensor& w, DType type) { return Linear::pack({&w, 1}, {}, type); };
  expect_feeds(dense(wide, DType::kBf16), dense(narrow, DType::kBf16));
  EXPECT_FALSE(dense(wide, DType::kF32).feeds(dense(narrow, DType::kF32), 50));
  EXPECT_FALSE(dense(wide, DType::kBf16).feeds(dense(narrow, DType::kF32), 50));
  for (const auto first : {LinearFormat::kW8A8, LinearFormat::kW8A16})
    for (const auto second : {LinearFormat::kW8A8, LinearFormat::kW8A16})
      expect_feeds(Linear::quantize({&wide, 1}, {}, first).value(), Linear::quantize({&narrow, 1}, {}, second).value());
}

TEST(QuantizedLinear, RowsInAGroupOfAllFormatsAreThoseOfEachLinearAlone) {
  Random random(8);
  const Matrix matrices[] = {random_int4(random, 96, 64, random_order(random)),
                             random_int8(random, 96, true),
                             random_int4(random, 96, 32, Tensor()),
                             random_int4(random, 96, 0, Tensor()),
                             random_int8(random, 96, false),
                             random_int4(random, 96, 64, Tensor()),
                             random_int4(random, 96, 32, random_order(random))};
  constexpr int64_t kRows[] = {1, 3, 40, 1, 2, 0, 17};
  std::vector<Linear> linears;
  for (const Matrix& m : matrices) linears.push_back(Linear::pack({&m.integers, 1}, {}));
  std::vector<LinearCall> plain, gated;
  int64_t scratch = 0;
  for (size_t i = 0; i < linears.size(); ++i) {
    const Tensor x = random_tensor(random, {kRows[i], K}, i % 2 ? DType::kBf16 : DType::kF32);
    plain.push_back({&linears[i], x, Tensor::empty(DType::kF32, {kRows[i], 96})});
    gated.push_back({&linears[i], x, Tensor::empty(DType::kBf16, {kRows[i], 48})});
    scratch += gated_grouped_scratch_bytes(linears[i], 1, kRows[i]);
  }
  Workspace workspace(scratch);
  forward_grouped(plain, workspace);
  forward_gated_grouped(gated, GluActivation::kSilu, workspace);
  for (size_t i = 0; i < linears.size(); ++i) {
    Tensor want = Tensor::empty(DType::kF32, plain[i].y.shape());
    Tensor want_gated = Tensor::empty(DType::kBf16, gated[i].y.shape());
    linears[i].forward(plain[i].x, want, workspace);
    linears[i].forward_gated(plain[i].x, GluActivation::kSilu, want_gated, workspace);
    EXPECT_EQ(0, std::memcmp(plain[i].y.raw(), want.raw(), static_cast<size_t>(want.bytes()))) << i;
    EXPECT_EQ(0, std::memcmp(gated[i].y.raw(), want_gated.raw(), static_cast<size_t>(want_gated.bytes()))) << i;
  }
}

}  // namespace
}  // namespace millrace
