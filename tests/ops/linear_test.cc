#include "ops/linear.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <iterator>

#include <cmath>
#include <cstring>

#include "base/cpu.h"
#include "ops/rows.h"
#include "tests/ops/testing.h"

namespace millrace {
namespace {

constexpr DType kWeights[] = {DType::kF32, DType::kBf16, DType::kF16};

struct Parts {
  explicit Parts(int64_t K, DType stored) {
    Random random(4);
    weights = {random_tensor(random, {20, K}, stored), random_tensor(random, {7, K}, stored),
               random_tensor(random, {7, K}, stored)};
    biases = {random_tensor(random, {20}, stored), Tensor(), random_tensor(random, {7}, stored)};
  }
  float weight(int64_t n, int64_t k) const {
    const int64_t part = n < 20 ? 0 : n < 27 ? 1 : 2, row = n - (part == 0 ? 0 : part == 1 ? 20 : 27);
    return element_as_float(weights[part], row * weights[part].size(1) + k);
  }
  float bias(int64_t n) const {
    if (n < 20) return element_as_float(biases[0], n);
    return n < 27 ? 0 : element_as_float(biases[2], n - 27);
  }
  std::vector<Tensor> weights, biases;
};

TEST(Linear, StacksPartsAndBiasesOfAnyStoredType) {
  constexpr int64_t K = 50, N = 34, T = 5;
  for (const DType stored : kWeights)
    for (const DType compute : kWeights) {
      SCOPED_TRACE(testing::Message() << dtype_name(stored) << " as " << dtype_name(compute));
      const Parts parts(K, stored);
      const Linear linear = Linear::pack(parts.weights, parts.biases, compute);
      EXPECT_EQ(linear.in_features(), K);
      EXPECT_EQ(linear.out_features(), N);
      Random random(5);
      const Tensor x = random_tensor(random, {T, K});
      Tensor y = Tensor::empty(DType::kF32, {T, N});
      Workspace workspace(linear.scratch_bytes(T));
      linear.forward(x, y, workspace);
      // Rounding x and w to `compute` moves each product by at most 2 steps; sums of K of them by sqrt(K) of that.
      const float step = compute == DType::kBf16 ? 0x1p-8f : compute == DType::kF16 ? 0x1p-11f : 0x1p-24f;
      for (int64_t t = 0; t < T; ++t)
        for (int64_t n = 0; n < N; ++n) {
          double sum = parts.bias(n), squares = 1;
          for (int64_t k = 0; k < K; ++k) {
            const double term = static_cast<double>(x.data<float>()[t * K + k]) * parts.weight(n, k);
            sum += term;
            squares += term * term;
          }
          ASSERT_NEAR(y.data<float>()[t * N + n], sum, 6 * step * std::sqrt(squares) + 1e-5) << t << ' ' << n;
        }
    }
}

Linear random_int4(Random& random, int64_t N, int64_t K, const Tensor& bias) {
  QuantizedMatrix m{.scheme = QuantizedMatrix::Scheme::kInt4, .rows = N, .columns = K};
  m.scales = random_tensor(random, {N, 1});
  std::vector<uint8_t> values(N * K);
  for (uint8_t& q : values) q = static_cast<uint8_t>(random() % 16);
  m.unpack = [values, K](int64_t begin, int64_t end, uint8_t* to) {
    std::copy(values.begin() + begin * K, values.begin() + end * K, to);
  };
  return Linear::pack({&m, 1}, {&bias, 1});
}

std::vector<Linear> linears_that_may_add(int64_t N, int64_t K) {
  Random random(6);
  const Tensor w[] = {random_tensor(random, {N, K})}, bias[] = {random_tensor(random, {N})};
  std::vector<Linear> all;
  for (const DType compute : kWeights) all.push_back(Linear::pack(w, bias, compute));
  for (const LinearFormat format : {LinearFormat::kW8A8, LinearFormat::kW8A16})
    all.push_back(*Linear::quantize(w, bias, format));
  all.push_back(random_int4(random, N, K, bias[0]));
  return all;
}

// Thin and thick products, several stretches and spans of K, pairs of panels that are not whole.
TEST(Linear, AProductThatIsAddedHasTheBitsOfAddingItAfterwards) {
  constexpr float kScale = 0.37f;
  for (const auto& [N, K] : {std::pair<int64_t, int64_t>{77, 96}, {45, 2500}})
    for (const Linear& linear : linears_that_may_add(N, K)) {
      const bool floats = linear.format() == LinearFormat::kDense && linear.weight_dtype() == DType::kF32;
      ASSERT_EQ(linear.adds(), cpu_has(Isa::kAmx) && !floats);
      for (const int64_t T : {1, 20, 33, 300}) {
        if (!linear.adds()) continue;
        SCOPED_TRACE(testing::Message() << dtype_name(linear.weight_dtype()) << ' ' << T << " rows of " << K);
        Random random(T);
        const Tensor x = random_tensor(random, {T, K});
        Tensor wide = random_tensor(random, {T, N + 3}), product = Tensor::empty(DType::kF32, {T, N});
        const std::vector<float> before(wide.data<float>(), wide.data<float>() + wide.numel());
        Tensor sum(wide.raw(), DType::kF32, {T, N}, {N + 3, 1}, wide.owner());
        Workspace workspace(linear.scratch_bytes(T));
        linear.forward(x, product, workspace);
        linear.forward(x, sum, workspace, kScale);
        for (int64_t i = 0; i < wide.numel(); ++i) {
          const int64_t t = i / (N + 3), n = i % (N + 3);
          const float wanted = n < N ? std::fma(kScale, product.data<float>()[t * N + n], before[i]) : before[i];
          ASSERT_EQ(wide.data<float>()[i], wanted) << t << ' ' << n;
        }
      }
    }
}

TEST(Linear, WritesRowsOfAStridedOutputOnly) {
  Random random(1);
  const Tensor w = random_tensor(random, {8, 16});
  const Linear linear = Linear::pack({&w, 1}, {}, DType::kF32);
  const Tensor x = random_tensor(random, {3, 16});
  Tensor wide = Tensor::zeros(DType::kF32, {3, 12}), narrow = Tensor::empty(DType::kF32, {3, 8});
  Tensor view(wide.raw(), DType::kF32, {3, 8}, {12, 1}, wide.owner());
  Workspace workspace(linear.scratch_bytes(3));
  linear.forward(x, view, workspace);
  linear.forward(x, narrow, workspace);
  for (int64_t t = 0; t < 3; ++t) {
    EXPECT_EQ(0, std::memcmp(wide.data<float>() + t * 12, narrow.data<float>() + t * 8, 8 * sizeof(float)));
    for (int64_t n = 8; n < 12; ++n) EXPECT_EQ(wide.data<float>()[t * 12 + n], 0);
  }
  EXPECT_EQ(workspace.used_bytes(), 0);
}

TEST(Linear, GathersWhatItPacked) {
  Random random(2);
  for (const DType dtype : kWeights) {
    const Tensor table = random_tensor(random, {40, 24}, dtype);
    const Linear linear = Linear::pack({&table, 1}, {}, dtype);
    const int32_t tokens[] = {39, 0, 17, 17};
    Tensor from_packed = Tensor::empty(DType::kF32, {4, 24}), from_table = Tensor::empty(DType::kF32, {4, 24});
    linear.gather(tokens, 3.0f, from_packed);
    embedding(tokens, table, 3.0f, from_table);
    EXPECT_EQ(0, std::memcmp(from_packed.raw(), from_table.raw(), from_table.bytes())) << dtype_name(dtype);
  }
}

TEST(Linear, TheGatedFormIsProductThenUnit) {
  Random random(3);
  for (const DType dtype : kWeights)
    for (const int64_t F : {48, 10}) {
      const Tensor gate = random_tensor(random, {F, 64}), up = random_tensor(random, {F, 64});
      const Tensor parts[] = {gate, up};
      const Linear linear = Linear::pack(parts, {}, dtype);
      const Tensor x = random_tensor(random, {21, 64}, linear.input_dtype());
      Tensor both = Tensor::empty(DType::kF32, {21, 2 * F}), want = Tensor::empty(DType::kF32, {21, F}),
             got = Tensor::empty(DType::kF32, {21, F});
      Workspace workspace(linear.gated_scratch_bytes(21));
      linear.forward(x, both, workspace);
      glu(both, GluActivation::kSilu, want);
      linear.forward_gated(x, GluActivation::kSilu, got, workspace);
      for (int64_t i = 0; i < got.numel(); ++i)
        ASSERT_NEAR(got.data<float>()[i], want.data<float>()[i], 1e-5f + 1e-5f * std::abs(want.data<float>()[i]));
    }
}

TEST(Workspace, GivesBackWhatAScopeTook) {
  Workspace workspace(1024);
  const std::byte* first = workspace.bytes(1);
  {
    const Workspace::Scope scope(workspace);
    Tensor inner = workspace.tensor(DType::kF32, {3, 5});
    EXPECT_EQ(reinterpret_cast<uintptr_t>(inner.raw()) % 64, 0u);
    EXPECT_EQ(workspace.used_bytes(), 128);
  }
  EXPECT_EQ(workspace.used_bytes(), 64);
  EXPECT_EQ(workspace.peak_bytes(), 128);
  EXPECT_EQ(workspace.bytes(1), first + 64);
}

TEST(PageZeros, AreZeroAndAligned) {
  const Tensor memory = page_zeros(DType::kF32, {1 << 20});
  EXPECT_EQ(reinterpret_cast<uintptr_t>(memory.raw()) % 4096, 0u);
  for (int64_t i = 0; i < memory.numel(); i += 999) ASSERT_EQ(memory.data<float>()[i], 0);
}

int64_t count_mappings() {
  std::ifstream maps("/proc/self/maps");
  return std::count(std::istreambuf_iterator<char>(maps), {}, '\n');
}

TEST(PageZeros, ATensorTakesOneMapping) {
  std::vector<Tensor> tensors;
  const int64_t before = count_mappings();
  for (int i = 0; i < 1000; ++i) tensors.push_back(page_zeros(DType::kU8, {(3 << 20) + 100 * i}));
  EXPECT_LE(count_mappings() - before, 1010);
  tensors[500].data<uint8_t>()[tensors[500].numel() - 1] = 1;
  EXPECT_EQ(reinterpret_cast<intptr_t>(tensors[500].raw()) % (2 << 20), 0);
  tensors.clear();
  EXPECT_LE(count_mappings() - before, 10);
}

}  // namespace
}  // namespace millrace
