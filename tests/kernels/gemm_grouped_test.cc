#include "kernels/gemm_grouped.h"

#include <gtest/gtest.h>

#include <cstring>
#include <list>

#include "kernels/parallel.h"
#include "tests/kernels/testing.h"

namespace millrace {
namespace {

constexpr DType kWeights[] = {DType::kF32, DType::kBf16, DType::kF16};

struct Operands {
  Operands(Random& random, int64_t M, int64_t N, int64_t K, DType weight, DType x_dtype)
      : M(M), N(N), K(K), packed(gemm_packed_bytes(N, K, weight)), bias(random_floats(random, N)) {
    x = as_dtype(random_floats(random, M * K), x_dtype);
    const auto values = as_dtype(random_floats(random, N * K, 0.1f), weight);
    gemm_pack({.w = values.data(),
               .packed = packed.data,
               .row_begin = 0,
               .row_end = N,
               .K = K,
               .w_stride = K,
               .from = weight,
               .to = weight});
  }
  const int64_t M, N, K;
  Aligned packed;
  std::vector<uint8_t> x;
  std::vector<float> bias;
};

// One vector of outputs for each product.
template <class Args>
std::vector<std::vector<float>> outputs_of(const std::vector<Args>& products, int64_t width_divisor) {
  std::vector<std::vector<float>> y;
  for (const Args& p : products) y.emplace_back(p.M * p.N / width_divisor, 7.0f);
  return y;
}

// Products of random sizes: empty ones, single rows, some that fill tiles, and a thick one.
struct Group {
  Group(DType weight, DType x_dtype, int64_t columns_of) {
    Random random(3);
    for (const int64_t M : {1, 0, 5, 1, 17, 40, 1, 33, 300, 12, 13}) {
      const int64_t N = (1 + static_cast<int64_t>(random.uniform() * 9)) * columns_of;
      const int64_t K = 20 + static_cast<int64_t>(random.uniform() * 700);
      operands.emplace_back(random, M, N, K, weight, x_dtype);
      rows += M, most_columns = std::max(most_columns, N), most_k = std::max(most_k, K);
      products.push_back({.x = operands.back().x.data(),
                          .w = operands.back().packed.data,
                          .bias = products.size() % 2 ? operands.back().bias.data() : nullptr,
                          .y = nullptr,
                          .scratch = nullptr,
                          .M = M,
                          .N = N,
                          .K = K,
                          .x_stride = K,
                          .y_stride = N,
                          .x_dtype = x_dtype,
                          .w_dtype = weight});
    }
  }
  // What `run` writes for the product with `width` columns, one output after another.
  template <class Run>
  std::vector<float> outputs(int64_t width_divisor, const Run& run) {
    auto y = outputs_of(products, width_divisor);
    run(y);
    std::vector<float> all;
    for (const auto& part : y) all.insert(all.end(), part.begin(), part.end());
    return all;
  }
  std::list<Operands> operands;
  std::vector<GemmArgs> products;
  int64_t rows = 0, most_columns = 0, most_k = 0;
};

template <class Fn>
Fn* named(std::span<const Impl<Fn>> impls, std::string_view name) {
  for (const auto& impl : impls)
    if (impl.name == name) return impl.run;
  ADD_FAILURE() << "no implementation " << name;
  return nullptr;
}

TEST(GroupedGemm, EveryProductIsBitIdenticalToTheProductAlone) {
  const int all = compute_threads();
  for (const DType weight : kWeights)
    for (const auto& impl : gemm_grouped_impls(weight)) {
      if (!cpu_has(impl.needs)) continue;
      GemmFn* const alone = named(gemm_impls(weight), impl.name);
      for (const DType x_dtype : {DType::kF32, DType::kBf16})
        for (const int64_t columns_of : {7, 16}) {
          SCOPED_TRACE(testing::Message() << dtype_name(weight) << ' ' << impl.name << ' ' << dtype_name(x_dtype));
          Group group(weight, x_dtype, columns_of);
          const auto want = group.outputs(1, [&](auto& y) {
            for (size_t i = 0; i < y.size(); ++i) {
              GemmArgs p = group.products[i];
              const Aligned scratch(gemm_scratch_bytes(p.M, p.N, p.K, weight));
              p.y = y[i].data(), p.scratch = scratch.data;
              if (p.M > 0) alone(p);
            }
          });
          for (const int threads : {1, all}) {
            set_compute_threads(threads);
            const Aligned scratch(gemm_grouped_scratch_bytes(static_cast<int64_t>(group.products.size()), group.rows,
                                                             group.most_k, weight));
            const auto got = group.outputs(1, [&](auto& y) {
              for (size_t i = 0; i < y.size(); ++i) group.products[i].y = y[i].data();
              impl.run({group.products, scratch.data});
            });
            ASSERT_EQ(0, std::memcmp(got.data(), want.data(), want.size() * sizeof(float))) << threads << " threads";
          }
          set_compute_threads(all);
        }
    }
}

TEST(GroupedGemm, EveryGatedProductIsBitIdenticalToTheProductAlone) {
  for (const DType weight : kWeights)
    for (const auto& impl : gemm_gated_grouped_impls(weight)) {
      if (!cpu_has(impl.needs)) continue;
      GatedGemmFn* const alone = named(gemm_gated_impls(weight), impl.name);
      for (const int64_t columns_of : {10, 32}) {
        SCOPED_TRACE(testing::Message() << dtype_name(weight) << ' ' << impl.name << ' ' << columns_of);
        Group group(weight, DType::kF32, columns_of);
        const auto want = group.outputs(2, [&](auto& y) {
          for (size_t i = 0; i < y.size(); ++i) {
            GemmArgs p = group.products[i];
            const Aligned scratch(gemm_gated_scratch_bytes(p.M, p.N, p.K, weight));
            p.scratch = scratch.data;
            if (p.M > 0) alone({.product = p, .y = y[i].data(), .y_stride = p.N / 2});
          }
        });
        const Aligned scratch(gemm_gated_grouped_scratch_bytes(static_cast<int64_t>(group.products.size()), group.rows,
                                                               group.most_columns, group.most_k, weight));
        const auto got = group.outputs(2, [&](auto& y) {
          std::vector<GatedGemmArgs> products;
          for (size_t i = 0; i < y.size(); ++i)
            products.push_back({.product = group.products[i], .y = y[i].data(), .y_stride = group.products[i].N / 2});
          impl.run({products, scratch.data});
        });
        ASSERT_EQ(0, std::memcmp(got.data(), want.data(), want.size() * sizeof(float)));
      }
    }
}

// Integer products of the same sizes, every other one with a bias; x per token.
struct W8A8Group {
  W8A8Group(int64_t columns_of, int64_t x_digits) : x_digits(x_digits) {
    Random random(4);
    for (const int64_t M : {1, 0, 5, 1, 17, 40, 1, 33, 300, 12, 13}) {
      const int64_t N = (1 + static_cast<int64_t>(random.uniform() * 9)) * columns_of;
      const int64_t K = 20 + static_cast<int64_t>(random.uniform() * 700);
      std::vector<int8_t> values(N * K);
      for (int8_t& q : values) q = static_cast<int8_t>(random() % 256 - 128);
      packed.emplace_back(gemm_w8a8_packed_bytes(N, K));
      gemm_w8a8_pack(
          {.values = values.data(), .packed = packed.back().data, .row_begin = 0, .row_end = N, .N = N, .K = K});
      x.push_back(as_dtype(random_floats(random, M * K), DType::kBf16));
      floats.push_back(random_floats(random, 2 * N));
      for (float& scale : std::span(floats.back()).first(N)) scale = 0.001f + 0.01f * std::abs(scale);
      rows += M, most_columns = std::max(most_columns, N), most_k = std::max(most_k, K);
      products.push_back({.x = x.back().data(),
                          .w = packed.back().data,
                          .scales = floats.back().data(),
                          .bias = products.size() % 2 ? floats.back().data() + N : nullptr,
                          .y = nullptr,
                          .scratch = nullptr,
                          .M = M,
                          .N = N,
                          .K = K,
                          .x_stride = K,
                          .y_stride = N,
                          .x_digits = x_digits});
    }
  }
  std::vector<std::vector<float>> outputs(int64_t width_divisor) const { return outputs_of(products, width_divisor); }
  const int64_t x_digits;
  std::list<Aligned> packed;
  std::list<std::vector<uint8_t>> x;
  std::list<std::vector<float>> floats;  // scales, then biases
  std::vector<GemmW8A8Args> products;
  int64_t rows = 0, most_columns = 0, most_k = 0;
};

TEST(GroupedGemm, EveryIntegerProductIsBitIdenticalToTheProductAlone) {
  const int all = compute_threads();
  for (const auto& impl : gemm_w8a8_grouped_impls()) {
    if (!cpu_has(impl.needs)) continue;
    GemmW8A8Fn* const alone = named(gemm_w8a8_impls(), impl.name);
    for (const auto& [columns_of, digits] : {std::pair{7, 1}, {16, 1}, {7, 2}, {16, 2}}) {
      SCOPED_TRACE(testing::Message() << impl.name << ' ' << columns_of << " digits " << digits);
      W8A8Group group(columns_of, digits);
      auto want = group.outputs(1), got = want;
      for (size_t i = 0; i < want.size(); ++i) {
        GemmW8A8Args p = group.products[i];
        const Aligned scratch(gemm_w8a8_scratch_bytes(p.M, p.K, digits));
        p.y = want[i].data(), p.scratch = scratch.data;
        if (p.M > 0) alone(p);
      }
      for (const int threads : {1, all}) {
        set_compute_threads(threads);
        const Aligned scratch(gemm_w8a8_grouped_scratch_bytes(static_cast<int64_t>(group.products.size()), group.rows,
                                                              group.most_k, digits));
        got = group.outputs(1);
        for (size_t i = 0; i < got.size(); ++i) group.products[i].y = got[i].data();
        impl.run({group.products, scratch.data});
        ASSERT_EQ(got, want) << threads << " threads";
      }
      set_compute_threads(all);
    }
  }
}

TEST(GroupedGemm, EveryGatedIntegerProductIsBitIdenticalToTheProductAlone) {
  for (const auto& impl : gemm_gated_w8a8_grouped_impls()) {
    if (!cpu_has(impl.needs)) continue;
    GatedGemmW8A8Fn* const alone = named(gemm_gated_w8a8_impls(), impl.name);
    for (const auto& [columns_of, digits] : {std::pair{10, 1}, {32, 1}, {10, 2}, {32, 2}}) {
      SCOPED_TRACE(testing::Message() << impl.name << ' ' << columns_of << " digits " << digits);
      const W8A8Group group(columns_of, digits);
      auto want = group.outputs(2), got = want;
      std::vector<GatedGemmW8A8Args> products;
      for (size_t i = 0; i < want.size(); ++i) {
        GatedGemmW8A8Args p{.product = group.products[i],
                            .y = want[i].data(),
                            .y_stride = group.products[i].N / 2,
                            .y_dtype = DType::kF32};
        const Aligned scratch(gemm_gated_w8a8_scratch_bytes(p.product.M, p.product.N, p.product.K, digits));
        p.product.scratch = scratch.data;
        if (p.product.M > 0) alone(p);
        p.y = got[i].data();
        products.push_back(p);
      }
      const Aligned scratch(gemm_gated_w8a8_grouped_scratch_bytes(static_cast<int64_t>(products.size()), group.rows,
                                                                  group.most_columns, group.most_k, digits));
      impl.run({products, scratch.data});
      ASSERT_EQ(got, want);
    }
  }
}

// Products of four-bit weights, every other one with a bias: of few rows and of many, of one panel and of an odd number
// of panels, some so short that they are less than what a kernel looks ahead.
struct A16Group {
  A16Group(int64_t columns_of, int64_t group, int64_t least_k = 20) {
    Random random(6);
    for (const int64_t M : {1, 0, 5, 17, 40, 1, 33, 12, 530, 1, 32, 2, 16, 1}) {
      const int64_t N = (1 + static_cast<int64_t>(random.uniform() * 9)) * columns_of;
      const int64_t K = least_k + static_cast<int64_t>(random.uniform() * 300), groups = (K + group - 1) / group;
      std::vector<uint8_t> values(N * K), zeros(N * groups);
      for (uint8_t& q : values) q = static_cast<uint8_t>(random() % 16);
      for (uint8_t& z : zeros) z = static_cast<uint8_t>(random() % 17);
      std::vector<float> scales = random_floats(random, N * groups, 0.02f);
      packed.emplace_back(gemm_a16_packed_bytes(N, K, group));
      gemm_a16_pack({.values = values.data(),
                     .scales = scales.data(),
                     .zeros = zeros.data(),
                     .packed = packed.back().data,
                     .row_begin = 0,
                     .row_end = N,
                     .K = K,
                     .group = group});
      x.push_back(as_dtype(random_floats(random, M * K), DType::kBf16));
      biases.push_back(random_floats(random, N));
      rows += M, most_columns = std::max(most_columns, N), most_k = std::max(most_k, K);
      products.push_back({.x = x.back().data(),
                          .w = packed.back().data,
                          .bias = products.size() % 2 ? biases.back().data() : nullptr,
                          .y = nullptr,
                          .scratch = nullptr,
                          .M = M,
                          .N = N,
                          .K = K,
                          .x_stride = K,
                          .y_stride = N,
                          .group = group});
    }
  }
  std::vector<std::vector<float>> outputs(int64_t width_divisor) const { return outputs_of(products, width_divisor); }
  int64_t size() const { return static_cast<int64_t>(products.size()); }
  std::list<Aligned> packed;
  std::list<std::vector<uint8_t>> x;
  std::list<std::vector<float>> biases;
  std::vector<GemmA16Args> products;
  int64_t rows = 0, most_columns = 0, most_k = 0;
};

// Columns, group, least K; where all K are at most the group there is one scale.
constexpr std::tuple<int64_t, int64_t, int64_t> kA16Groups[] = {
    {7, 128, 129}, {16, 32, 33}, {33, 64, 65}, {48, 1000, 20}, {80, 128, 300}};

TEST(GroupedGemm, EveryFourBitProductIsBitIdenticalToTheProductAlone) {
  const int all = compute_threads();
  for (const auto& impl : gemm_a16_grouped_impls()) {
    if (!cpu_has(impl.needs)) continue;
    GemmA16Fn* const alone = named(gemm_a16_impls(), impl.name);
    for (const auto& [columns_of, size, least_k] : kA16Groups) {
      SCOPED_TRACE(testing::Message() << impl.name << ' ' << columns_of << " group " << size);
      A16Group group(columns_of, size, least_k);
      const auto untouched = group.outputs(1);
      auto want = untouched;
      for (size_t i = 0; i < want.size(); ++i) {
        GemmA16Args p = group.products[i];
        const Aligned scratch(gemm_a16_scratch_bytes(p.M, p.K));
        p.y = want[i].data(), p.scratch = scratch.data;
        if (p.M > 0) alone(p);
      }
      for (const int threads : {1, all}) {
        set_compute_threads(threads);
        const Aligned scratch(gemm_a16_grouped_scratch_bytes(group.size(), group.rows, group.most_k));
        auto got = untouched;
        for (size_t i = 0; i < got.size(); ++i) group.products[i].y = got[i].data();
        impl.run({group.products, scratch.data});
        for (size_t i = 0; i < got.size(); ++i) ASSERT_EQ(got[i], want[i]) << i << " on " << threads << " threads";
      }
      set_compute_threads(all);
    }
  }
}

TEST(GroupedGemm, EveryGatedFourBitProductIsBitIdenticalToTheProductAlone) {
  using enum GluActivation;
  for (const auto& impl : gemm_gated_a16_grouped_impls()) {
    if (!cpu_has(impl.needs)) continue;
    GatedGemmA16Fn* const alone = named(gemm_gated_a16_impls(), impl.name);
    for (const auto& [columns_of, size, activation] : {std::tuple{10, 128, kSilu}, {32, 128, kGelu}, {96, 32, kSilu}}) {
      SCOPED_TRACE(testing::Message() << impl.name << ' ' << columns_of << " group " << size);
      const A16Group group(columns_of, size, 150);
      auto want = group.outputs(2), got = want;
      std::vector<GatedGemmA16Args> products;
      for (size_t i = 0; i < want.size(); ++i) {
        GatedGemmA16Args p{.product = group.products[i],
                           .activation = activation,
                           .y = want[i].data(),
                           .y_stride = group.products[i].N / 2,
                           .y_dtype = DType::kF32};
        const Aligned scratch(gemm_gated_a16_scratch_bytes(p.product.M, p.product.N, p.product.K));
        p.product.scratch = scratch.data;
        if (p.product.M > 0) alone(p);
        p.y = got[i].data();
        products.push_back(p);
      }
      const Aligned scratch(
          gemm_gated_a16_grouped_scratch_bytes(group.size(), group.rows, group.most_columns, group.most_k));
      impl.run({products, scratch.data});
      for (size_t i = 0; i < got.size(); ++i) ASSERT_EQ(got[i], want[i]) << i;
    }
  }
}

TEST(GroupedGemm, ARowBeyondTheProductIsNotWritten) {
  Group group(DType::kF32, DType::kF32, 16);
  const Aligned scratch(
      gemm_grouped_scratch_bytes(static_cast<int64_t>(group.products.size()), group.rows, group.most_k, DType::kF32));
  std::vector<float> y(3 * 200, 7.0f);
  group.products = {group.products[2]};
  group.products[0].M = 2, group.products[0].y = y.data(), group.products[0].y_stride = 200;
  gemm_grouped({group.products, scratch.data});
  for (int64_t n = group.products[0].N; n < 200; ++n) ASSERT_EQ(y[n], 7.0f);
  for (int64_t n = 0; n < 200; ++n) ASSERT_EQ(y[400 + n], 7.0f);
}

}  // namespace
}  // namespace millrace
