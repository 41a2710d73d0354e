#include "kernels/logits.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "tests/kernels/testing.h"

namespace millrace {
namespace {

TEST(Logits, EveryImplementationAgreesWithPortable) {
  const LogitKernels& portable = logit_impls().back().kernels;
  for (const auto& impl : logit_impls()) {
    if (!cpu_has(impl.needs)) continue;
    for (const int64_t n : {1, 15, 16, 17, 100, 4096, 5000, 128256}) {
      SCOPED_TRACE(testing::Message() << impl.name << ' ' << n);
      Random random(n);
      auto x = random_floats(random, n, 3);
      for (int64_t i = 0; i < n; i += 37) x[i] = i % 2 ? NAN : -std::numeric_limits<float>::infinity();
      const float top = portable.largest(x.data(), n);
      ASSERT_EQ(impl.kernels.largest(x.data(), n), top);
      ASSERT_EQ(impl.kernels.find(x.data(), n, top), portable.find(x.data(), n, top));
      ASSERT_EQ(impl.kernels.find(x.data(), n, 1e9f), n);
      if (std::isfinite(top)) {
        const double want = portable.sum_exp(x.data(), n, top);
        ASSERT_NEAR(impl.kernels.sum_exp(x.data(), n, top), want, want * 1e-6);
      }
      for (const float bound : {-1.0f, 0.0f, top}) {
        ASSERT_EQ(impl.kernels.count_larger(x.data(), n, bound), portable.count_larger(x.data(), n, bound));
        for (const int64_t most : {1, 20, 300}) {
          std::vector<int32_t> want, got;
          for (auto [kernels, out] : {std::pair{&portable, &want}, {&impl.kernels, &got}}) {
            std::vector<int32_t> part(most);
            for (int64_t from = 0; from < n;) {
              part.resize(most);
              part.resize(kernels->collect(x.data(), n, bound, from, part.data(), most, &from));
              out->insert(out->end(), part.begin(), part.end());
            }
          }
          ASSERT_EQ(got, want) << "bound " << bound << " most " << most;
        }
      }
    }
  }
}

TEST(Logits, EveryImplementationScalesBansAndSumsAlike) {
  const LogitKernels& portable = logit_impls().back().kernels;
  for (const auto& impl : logit_impls()) {
    if (!cpu_has(impl.needs)) continue;
    for (const int64_t n : {1, 15, 16, 17, 100, 4096, 5000}) {
      SCOPED_TRACE(testing::Message() << impl.name << ' ' << n);
      Random random(n);
      auto x = random_floats(random, n, 3), terms = random_floats(random, n, 1);
      for (int64_t i = 0; i < n; ++i) terms[i] = std::abs(terms[i]);
      for (int64_t i = 0; i < n; i += 5) x[i] = i % 2 ? NAN : -std::numeric_limits<float>::infinity();
      for (const float bound : {-2.0f, 0.0f, 1.5f, 1e9f}) {
        const double want = portable.sum_from(x.data(), terms.data(), n, bound);
        ASSERT_NEAR(impl.kernels.sum_from(x.data(), terms.data(), n, bound), want, want * 1e-6);
        auto banned = x, expected = x;
        impl.kernels.ban_below(banned.data(), n, bound);
        portable.ban_below(expected.data(), n, bound);
        ASSERT_EQ(banned, expected);
      }
      auto scaled = terms, expected = terms;
      impl.kernels.scale(scaled.data(), n, 0.37f);
      portable.scale(expected.data(), n, 0.37f);
      ASSERT_EQ(scaled, expected);
    }
  }
}

TEST(Logits, EveryImplementationGivesTheExponentials) {
  const float inf = std::numeric_limits<float>::infinity();
  std::vector<float> x = {-inf, -200, -104, -90, -87.5f, -87, -1, -1e-8f, 0, 1e-8f, 1, 20, 88, 88.7f, 90, inf, NAN};
  Random random(3);
  for (int i = 0; i < 1000; ++i) x.push_back(60 * (random.uniform() - 0.5f));
  for (const auto& impl : logit_impls()) {
    if (!cpu_has(impl.needs)) continue;
    SCOPED_TRACE(impl.name);
    std::vector<float> y(x.size());
    impl.kernels.exps(x.data(), static_cast<int64_t>(x.size()), 0, y.data());
    for (size_t i = 0; i < x.size(); ++i) {
      const double want = std::exp(static_cast<double>(x[i]));
      if (std::isnan(x[i]))
        EXPECT_TRUE(std::isnan(y[i]));
      else if (want > 3.4028236e38)
        EXPECT_EQ(y[i], inf) << x[i];
      else
        EXPECT_NEAR(y[i], want, 3e-7 * want + 1.2e-38) << x[i];  // below the normal numbers: zero
    }
  }
}

TEST(Logits, EveryImplementationGivesPhiloxNoise) {
  for (const auto& impl : logit_impls()) {
    if (!cpu_has(impl.needs)) continue;
    std::vector<uint32_t> bits(192);
    impl.kernels.noise(0x123456789abcdefull, 0xfedcba987654321ull, 128, 192, bits.data());
    for (int64_t i = 0; i < 192; ++i)
      ASSERT_EQ(bits[i], philox(0x123456789abcdefull, (128 + i) / 4, 0xfedcba987654321ull)[i % 4]) << impl.name << i;
  }
}

}  // namespace
}  // namespace millrace
