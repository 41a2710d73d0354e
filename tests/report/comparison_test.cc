#include "report/comparison.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "base/random.h"

namespace millrace::report {
namespace {

Sample lognormal(uint64_t seed, int count, double scale) {
  Random random(seed);
  std::vector<double> values(static_cast<size_t>(count));
  for (double& value : values) value = scale * std::exp(0.4 * static_cast<double>(random.normal()));
  return Sample(std::move(values));
}

// Two-sided p-value by trying every way to deal the ranks.
double brute_p_value(const std::vector<double>& base, const std::vector<double>& candidate) {
  const auto u_of = [](const std::vector<double>& a, const std::vector<double>& b) {
    double u = 0;
    for (double x : a)
      for (double y : b) u += y > x ? 1 : y == x ? 0.5 : 0;
    return u;
  };
  std::vector<double> all = base;
  all.insert(all.end(), candidate.begin(), candidate.end());
  const double middle = static_cast<double>(base.size() * candidate.size()) / 2;
  const double found = std::abs(u_of(base, candidate) - middle);
  std::vector<int> is_candidate(all.size(), 0);
  std::fill(is_candidate.end() - static_cast<long>(candidate.size()), is_candidate.end(), 1);
  int as_extreme = 0, deals = 0;
  do {
    std::vector<double> a, b;
    for (size_t i = 0; i < all.size(); ++i) (is_candidate[i] ? b : a).push_back(all[i]);
    as_extreme += std::abs(u_of(a, b) - middle) >= found - 1e-9;
    ++deals;
  } while (std::next_permutation(is_candidate.begin(), is_candidate.end()));
  return static_cast<double>(as_extreme) / deals;
}

TEST(Comparison, TheExactRankTestIsTheShareOfDeals) {
  for (uint64_t seed = 0; seed < 12; ++seed) {
    Random random(seed);
    std::vector<double> a(3 + random.below(4)), b(3 + random.below(4));
    for (double& x : a) x = random.normal();
    for (double& x : b) x = random.normal() + 0.8f;
    const RankTest test = rank_test(Sample(a), Sample(b));
    EXPECT_TRUE(test.exact);
    EXPECT_NEAR(test.p_value, brute_p_value(a, b), 1e-12) << seed;
  }
}

TEST(Comparison, TheNormalApproximationIsCloseToTheShareOfDeals) {
  const std::vector<double> a = {1, 2, 2, 3, 5, 5, 6, 8}, b = {2, 4, 5, 7, 8, 9, 9, 10};
  const RankTest test = rank_test(Sample(a), Sample(b));
  EXPECT_FALSE(test.exact);
  EXPECT_NEAR(test.p_value, brute_p_value(a, b), 0.01);
  EXPECT_DOUBLE_EQ(test.u, 49.5);
  EXPECT_DOUBLE_EQ(test.superiority, 49.5 / 64);
}

TEST(Comparison, WelchsTestOnAPublishedExample) {
  const Sample a({27.5, 21.0, 19.0, 23.6, 17.0, 17.9, 16.9, 20.1, 21.9, 22.6, 23.1, 19.6, 19.0, 21.7, 21.4});
  const Sample b({27.1, 22.0, 20.8, 23.4, 23.4, 23.5, 25.8, 22.0, 24.8, 20.2, 21.9, 22.1, 22.9, 20.5, 24.4});
  const MeanTest test = mean_test(a, b);
  EXPECT_NEAR(test.t, 2.46, 0.005);
  EXPECT_NEAR(test.degrees_of_freedom, 24.99, 0.005);
  EXPECT_NEAR(test.p_value, 0.021, 0.0005);
  EXPECT_GT(test.interval->low, 0);
  EXPECT_EQ(mean_test(Sample({2, 2}), Sample({2, 2})).p_value, 1);
  EXPECT_TRUE(std::isnan(mean_test(Sample({2}), Sample({2, 3})).p_value));
}

TEST(Comparison, AClearChangeIsFoundAndNamed) {
  const Sample before = lognormal(1, 300, 100), slower = lognormal(2, 300, 125);
  const Comparison found = compare(before, slower);
  EXPECT_EQ(found.verdict, Verdict::kHigher);
  EXPECT_TRUE(found.ratio_interval->contains(1.25)) << found.ratio_interval->low << ' ' << found.ratio_interval->high;
  EXPECT_EQ(compare(slower, before).verdict, Verdict::kLower);
  EXPECT_EQ(compare(before, slower, {.percent = 90}).verdict, Verdict::kHigher);
  EXPECT_EQ(judgement(found.verdict, Better::kLower), "worse");
  EXPECT_EQ(judgement(found.verdict, Better::kHigher), "better");
}

TEST(Comparison, TheSameDistributionIsSeldomCalledDifferent) {
  int different = 0;
  for (uint64_t trial = 0; trial < 400; ++trial) {
    const Verdict verdict = compare(lognormal(2 * trial, 80, 50), lognormal(2 * trial + 1, 80, 50)).verdict;
    different += verdict == Verdict::kHigher || verdict == Verdict::kLower;
  }
  EXPECT_LE(different, 36);  // 5 % of 400 and 4 standard errors
}

TEST(Comparison, ManyEqualRunsAreEquivalent) {
  EXPECT_EQ(compare(lognormal(3, 20000, 50), lognormal(4, 20000, 50)).verdict, Verdict::kEquivalent);
  EXPECT_EQ(compare(lognormal(3, 20, 50), lognormal(4, 20, 50)).verdict, Verdict::kUndecided);
}

TEST(Comparison, TooFewValuesDecideNothing) {
  EXPECT_EQ(compare(Sample({1, 2, 3}), Sample({10, 11, 12})).verdict, Verdict::kTooFew);               // p >= 0.1
  EXPECT_EQ(compare(Sample({1, 1.1, 1.2, 1.3}), Sample({10, 11, 12, 13})).verdict, Verdict::kHigher);  // p = 2/70
  EXPECT_EQ(compare(lognormal(1, 100, 1), lognormal(2, 100, 5), {.percent = 99}).verdict, Verdict::kTooFew);
  EXPECT_EQ(compare(Sample(), Sample({1, 2})).verdict, Verdict::kTooFew);
}

TEST(Comparison, AMarginHidesChangesOfNoInterest) {
  const Sample before = lognormal(5, 20000, 100), after = lognormal(6, 20000, 105);
  EXPECT_EQ(compare(before, after, {.margin = 0.01}).verdict, Verdict::kHigher);
  EXPECT_EQ(compare(before, after, {.margin = 0.10}).verdict, Verdict::kEquivalent);
}

TEST(Comparison, McNemarCountsTheChangedPairs) {
  EXPECT_NEAR(mcnemar_p_value(1, 5), 0.21875, 1e-12);  // 2 (1 + 6) / 64
  EXPECT_NEAR(mcnemar_p_value(0, 10), 2.0 / 1024, 1e-12);
  EXPECT_EQ(mcnemar_p_value(0, 0), 1);
  EXPECT_EQ(mcnemar_p_value(4, 4), 1);
}

}  // namespace
}  // namespace millrace::report
