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

std::vector<float> with_gaps(Random& random, int64_t n) {
  auto x = random_floats(random, n, 3);
  for (int64_t i = 0; i < n; i += 5) x[i] = i % 2 ? NAN : -std::numeric_limits<float>::infinity();
  return x;
}

TEST(Logits, EveryImplementationScalesAndBansAlike) {
  const LogitKernels& portable = logit_impls().back().kernels;
  for (const auto& impl : logit_impls()) {
    if (!cpu_has(impl.needs)) continue;
    for (const int64_t n : {1, 15, 16, 17, 100, 4096, 5000}) {
      SCOPED_TRACE(testing::Message() << impl.name << ' ' << n);
      Random random(n);
      const auto x = with_gaps(random, n);
      for (const float bound : {-2.0f, 0.0f, 1.5f, 1e9f}) {
        auto banned = x, expected = x;
        impl.kernels.ban_below(banned.data(), n, bound);
        portable.ban_below(expected.data(), n, bound);
        ASSERT_EQ(banned, expected);
      }
      auto scaled = x, expected = x;
      ASSERT_EQ(impl.kernels.scale(scaled.data(), n, 0.37f), portable.scale(expected.data(), n, 0.37f));
      for (int64_t i = 0; i < n; ++i)
        ASSERT_TRUE(scaled[i] == expected[i] || (std::isnan(x[i]) && std::isnan(scaled[i])));
      std::vector<float> below(n, -7.5f);  // zeros beyond the end are not seen
      ASSERT_EQ(impl.kernels.scale(below.data(), n, 2), -15);
    }
  }
}

TEST(Logits, EveryImplementationSumsMassesAlike) {
  const float bounds[kMassBounds] = {1e9f, 6, 2.5f, 2, 0, -1, -8, -1e9f};
  const LogitKernels& portable = logit_impls().back().kernels;
  for (const auto& impl : logit_impls()) {
    if (!cpu_has(impl.needs)) continue;
    for (const int64_t n : {1, 15, 16, 17, 100, 4096, 5000}) {
      Random random(n);
      const auto x = with_gaps(random, n);
      const float top = n == 1 ? 3 : portable.largest(x.data(), n);
      double want[kMassBounds], got[kMassBounds];
      portable.masses(x.data(), n, top, bounds, want);
      impl.kernels.masses(x.data(), n, top, bounds, got);
      for (int b = 0; b < kMassBounds; ++b) ASSERT_NEAR(got[b], want[b], want[b] * 1e-6) << impl.name << n << ' ' << b;
    }
  }
}

TEST(Logits, EveryImplementationNotesMassesAndSumsThemAlike) {
  const LogitKernels& portable = logit_impls().back().kernels;
  for (const auto& impl : logit_impls()) {
    if (!cpu_has(impl.needs)) continue;
    for (const int64_t n : {1, 15, 16, 17, 63, 64, 100, 1000, 4096}) {
      SCOPED_TRACE(testing::Message() << impl.name << ' ' << n);
      Random random(n);
      const auto x = with_gaps(random, n);
      const float top = n == 1 ? 3 : portable.largest(x.data(), n);
      std::vector<float> want(n), got(n);
      const float want_sum = portable.exponentials(x.data(), n, top, want.data());
      EXPECT_NEAR(impl.kernels.exponentials(x.data(), n, top, got.data()), want_sum, 2e-4f * want_sum);
      for (int64_t i = 0; i < n; ++i) ASSERT_NEAR(got[i], want[i], 2e-4f * want[i]) << x[i] - top;
      for (const float bound : {0.0f, want[0], 1e-3f, 0.5f, 2.0f}) {
        const float sum = portable.sum_at_least(want.data(), n, bound);
        EXPECT_NEAR(impl.kernels.sum_at_least(want.data(), n, bound), sum, 1e-6f * sum) << bound;
      }
    }
  }
}

TEST(Logits, EveryImplementationFindsWhatLiesBetween) {
  for (const auto& impl : logit_impls()) {
    if (!cpu_has(impl.needs)) continue;
    for (const int64_t n : {1, 15, 16, 17, 100, 5000}) {
      SCOPED_TRACE(testing::Message() << impl.name << ' ' << n);
      Random random(n);
      const auto x = with_gaps(random, n);
      for (const auto& [low, high] : {std::pair{-1.0f, 2.0f}, {-100.0f, 100.0f}, {50.0f, 51.0f}}) {
        std::vector<int32_t> want, ids(n, -1);
        for (int64_t i = 0; i < n; ++i)
          if (x[i] >= low && x[i] < high) want.push_back(static_cast<int32_t>(i));
        std::vector<float> values(n);
        const int64_t count = impl.kernels.between(x.data(), nullptr, n, low, high, values.data(), ids.data());
        ASSERT_EQ(std::vector<int32_t>(ids.begin(), ids.begin() + count), want);
        for (int64_t i = 0; i < count; ++i) ASSERT_EQ(values[i], x[ids[i]]);
        // Again, over what is read.
        std::erase_if(want, [&](int32_t id) { return x[id] >= 0.5f; });
        const int64_t fewer =
            impl.kernels.between(values.data(), ids.data(), count, low, 0.5f, values.data(), ids.data());
        ASSERT_EQ(std::vector<int32_t>(ids.begin(), ids.begin() + fewer), want);
        for (int64_t i = 0; i < fewer; ++i) ASSERT_EQ(values[i], x[ids[i]]);
      }
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
    for (size_t i = 0; i < x.size(); ++i) {
      const auto y = static_cast<float>(impl.kernels.sum_exp(&x[i], 1, 0));
      const double want = std::exp(static_cast<double>(x[i]));
      if (std::isnan(x[i]))
        EXPECT_EQ(y, 0);  // compares with nothing
      else if (want > 3.4028236e38)
        EXPECT_EQ(y, inf) << x[i];
      else
        EXPECT_NEAR(y, want, 3e-7 * want + 1.2e-38) << x[i];  // below the normal numbers: zero
    }
  }
}

TEST(Logits, TheBoundOfNoiseIsJustAboveIt) {
  Random random(5);
  for (int i = 0; i < 200000; ++i) {
    const uint32_t bits = i < 512 ? i : i < 100000 ? random() : ~(random() >> (i % 32));
    ASSERT_GE(gumbel_bound(bits), gumbel(bits)) << bits;
    ASSERT_LE(gumbel_bound(bits), kMostNoise) << bits;
    if (gumbel(bits) <= 3) continue;
    ASSERT_LE(gumbel_bound(bits), gumbel(bits) + 0.09f) << bits;
  }
}

// The indices that one implementation finds, in as many calls as `most` makes it.
std::vector<int32_t> all_contenders(const LogitKernels& kernels, const std::vector<float>& x, float best,
                                    const NoiseKey& key, int64_t most) {
  const auto n = static_cast<int64_t>(x.size());
  std::vector<int32_t> all, part(most);
  std::vector<uint32_t> bits(most);
  for (int64_t from = 0; from < n;) {
    const int64_t count = kernels.contenders(x.data(), n, best, key, from, part.data(), bits.data(), most, &from);
    for (int64_t i = 0; i < count; ++i)
      EXPECT_EQ(bits[i], philox(key.seed, static_cast<uint64_t>(part[i]) / 4, key.position)[part[i] % 4]);
    all.insert(all.end(), part.begin(), part.begin() + count);
  }
  return all;
}

TEST(Logits, EveryImplementationFindsAllWhoCouldWin) {
  const NoiseKey key{0x123456789abcdefull, 0xfedcba987654321ull};
  for (const auto& impl : logit_impls()) {
    if (!cpu_has(impl.needs)) continue;
    for (const int64_t n : {1, 3, 15, 64, 65, 100, 5000, 33333}) {
      Random random(n);
      const auto x = with_gaps(random, n);
      for (const float best : {-1e9f, 0.0f, 6.0f, 12.0f, 1e9f}) {
        SCOPED_TRACE(testing::Message() << impl.name << ' ' << n << ' ' << best);
        const auto found = all_contenders(impl.kernels, x, best, key, 128 + n % 7 * 100);
        ASSERT_TRUE(std::is_sorted(found.begin(), found.end()));
        ASSERT_EQ(std::adjacent_find(found.begin(), found.end()), found.end());
        const auto noise = [&](int64_t i) { return philox(key.seed, i / 4, key.position)[i % 4]; };
        for (int64_t i = 0; i < n; ++i) {
          const bool in = std::binary_search(found.begin(), found.end(), i);
          ASSERT_TRUE(in || !(x[i] + gumbel(noise(i)) >= best)) << i;
          ASSERT_TRUE(!in || x[i] + gumbel_bound(noise(i)) >= best - 1e-3f) << i;
        }
      }
    }
  }
}

}  // namespace
}  // namespace millrace
