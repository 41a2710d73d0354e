#include "report/statistics.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "base/random.h"
#include "report/distributions.h"

namespace millrace::report {
namespace {

std::vector<double> exponentials(uint64_t seed, int count) {
  Random random(seed);
  std::vector<double> values(static_cast<size_t>(count));
  for (double& value : values) value = -std::log(static_cast<double>(random.uniform()));
  return values;
}

// P(B <= k) as the sum it is.
double binomial_sum(int64_t k, int64_t n, double p) {
  double sum = 0;
  for (int64_t i = 0; i <= k; ++i)
    sum += std::exp(std::lgamma(n + 1.0) - std::lgamma(i + 1.0) - std::lgamma(n - i + 1.0) + i * std::log(p) +
                    (n - i) * std::log1p(-p));
  return sum;
}

TEST(Distributions, QuantilesAreThoseOfPrintedTables) {
  EXPECT_NEAR(normal_quantile(0.975), 1.959963984540054, 1e-12);
  EXPECT_NEAR(normal_quantile(0.005), -2.5758293035489, 1e-11);
  EXPECT_NEAR(student_t_quantile(0.975, 1), 12.7062047361747, 1e-9);
  EXPECT_NEAR(student_t_quantile(0.975, 10), 2.22813885198627, 1e-11);
  EXPECT_NEAR(student_t_quantile(0.95, 30), 1.69726088659396, 1e-11);
  EXPECT_NEAR(student_t_quantile(0.025, 1e7), -1.95996, 1e-5);
}

TEST(Distributions, TheBinomialIsTheSumOfItsTerms) {
  for (int64_t n : {1, 7, 60, 500})
    for (double p : {0.01, 0.5, 0.9})
      for (int64_t k = 0; k < n; k += 1 + n / 9)
        EXPECT_NEAR(binomial_cdf(k, n, p), binomial_sum(k, n, p), 1e-10) << k << " of " << n << ", " << p;
}

TEST(Distributions, TheBinomialOfManyTrialsIsNearlyNormal) {
  const int64_t n = 10'000'000;
  const double sd = std::sqrt(n * 0.25);
  EXPECT_NEAR(binomial_cdf(n / 2 + static_cast<int64_t>(2 * sd), n, 0.5), normal_cdf(2), 1e-4);
}

TEST(Statistics, PercentilesInterpolateLinearly) {
  const Sample sample({4, 1, 3, 2});
  EXPECT_DOUBLE_EQ(sample.percentile(0), 1);
  EXPECT_DOUBLE_EQ(sample.percentile(25), 1.75);
  EXPECT_DOUBLE_EQ(sample.percentile(50), 2.5);
  EXPECT_DOUBLE_EQ(sample.percentile(90), 3.7);
  EXPECT_DOUBLE_EQ(sample.percentile(100), 4);
  EXPECT_DOUBLE_EQ(Sample({7}).percentile(99), 7);
}

TEST(Statistics, MomentsOfAKnownList) {
  const Sample sample({2, 4, 4, 4, 5, 5, 7, 9});
  EXPECT_DOUBLE_EQ(sample.mean(), 5);
  EXPECT_DOUBLE_EQ(sample.population_stddev(), 2);
  EXPECT_NEAR(sample.stddev(), 2.13808993529940, 1e-13);
  EXPECT_DOUBLE_EQ(sample.min(), 2);
  EXPECT_DOUBLE_EQ(sample.max(), 9);
  // 5 +- t(0.975; 7) * 2.138... / sqrt(8), t = 2.364624
  EXPECT_NEAR(sample.mean_interval()->high, 5 + 2.36462425159278 * 2.13808993529940 / std::sqrt(8), 1e-9);
}

TEST(Statistics, NothingAndNotNumbersHaveNoFigures) {
  const Sample sample({std::nan(""), std::numeric_limits<double>::infinity()});
  EXPECT_EQ(sample.left_out(), 2);
  EXPECT_TRUE(std::isnan(sample.mean()) && std::isnan(sample.percentile(50)) && std::isnan(sample.stddev()));
  EXPECT_FALSE(sample.mean_interval() || sample.percentile_interval(50));
  EXPECT_TRUE(to_json(summarize(sample))["p99"].is_number_float());
  EXPECT_EQ(Json::parse(dump_json(to_json(summarize(sample))))["p99"], nullptr);
  EXPECT_FALSE(proportion_interval(0, 0));
  EXPECT_TRUE(histogram(sample).counts.empty() && empirical_distribution(sample).values.empty());
}

TEST(Statistics, MedianRanksAreThoseOfPrintedTables) {
  struct {
    int n, low, high;
  } const rows[] = {{6, 1, 6}, {10, 2, 9}, {20, 6, 15}, {100, 40, 61}};
  for (const auto& row : rows) {
    std::vector<double> ranks(static_cast<size_t>(row.n));
    std::iota(ranks.begin(), ranks.end(), 1);
    const auto interval = Sample(ranks).percentile_interval(50);
    ASSERT_TRUE(interval) << row.n;
    EXPECT_EQ(interval->low, row.low) << row.n;
    EXPECT_EQ(interval->high, row.high) << row.n;
  }
  EXPECT_FALSE(Sample({1, 2, 3, 4, 5}).percentile_interval(50));
}

TEST(Statistics, AHighPercentileNeedsEnoughValues) {
  EXPECT_FALSE(Sample(exponentials(1, 367)).percentile_interval(99));  // 0.99^367 > 0.025
  EXPECT_TRUE(Sample(exponentials(1, 368)).percentile_interval(99));
}

TEST(Statistics, PercentileIntervalsHoldTheTruthAsOftenAsTheySay) {
  const double truth = -std::log(1 - 0.9);
  int held = 0;
  for (uint64_t trial = 0; trial < 2000; ++trial)
    held += Sample(exponentials(trial, 200)).percentile_interval(90)->contains(truth);
  EXPECT_GE(held, 1880);  // 95 % or more by construction; 1880 is 4 standard errors below 1900 + 20
  EXPECT_LT(held, 1990);
}

TEST(Statistics, MeanIntervalsHoldTheTruthAsOftenAsTheySay) {
  int held = 0;
  for (uint64_t trial = 0; trial < 2000; ++trial) {
    Random random(trial);
    std::vector<double> values(12);
    for (double& value : values) value = 3 + 2 * random.normal();
    held += Sample(values).mean_interval()->contains(3);
  }
  EXPECT_NEAR(held, 1900, 40);  // 4 standard errors of 2000 trials at 95 %
}

TEST(Statistics, WilsonIntervalsAreThePublishedOnes) {
  const auto some = proportion_interval(81, 263), none = proportion_interval(0, 20);  // Newcombe, 1998, method 3
  EXPECT_NEAR(some->low, 0.2553, 5e-5);
  EXPECT_NEAR(some->high, 0.3662, 5e-5);
  EXPECT_NEAR(none->low, 0, 1e-15);
  EXPECT_NEAR(none->high, 0.1611, 5e-5);
}

// Drawing ranks must give what resampling the values gives.
TEST(Statistics, PercentileReplicatesAreThoseOfResampling) {
  const std::vector<double> values = exponentials(3, 101);
  const Sample sample(values);
  for (double percent : {50.0, 90.0, 97.3}) {
    const Sample drawn(bootstrap_percentiles(sample, percent, {.resamples = 20000}));
    std::vector<double> brute;
    Random random(9);
    for (int i = 0; i < 20000; ++i) {
      std::vector<double> resample(values.size());
      for (double& value : resample) value = values[random.below(101)];
      brute.push_back(Sample(resample).percentile(percent));
    }
    const Sample resampled(brute);
    const double error = resampled.stddev() / std::sqrt(20000.0);
    EXPECT_NEAR(drawn.mean(), resampled.mean(), 6 * error) << percent;
    EXPECT_NEAR(drawn.stddev() / resampled.stddev(), 1, 0.05) << percent;
    double distance = 0;  // Kolmogorov and Smirnov's; 0.0195 is exceeded once in 1000 times
    for (double value : values) {
      const auto share = [&](const Sample& x) {
        return static_cast<double>(std::ranges::upper_bound(x.sorted(), value) - x.sorted().begin()) / 20000;
      };
      distance = std::max(distance, std::abs(share(drawn) - share(resampled)));
    }
    EXPECT_LE(distance, 0.0195) << percent;
  }
}

TEST(Statistics, BootstrapOfTheMeanAgreesWithStudent) {
  const std::vector<double> values = exponentials(5, 400);
  const auto mean = [](std::span<const double> x) { return std::accumulate(x.begin(), x.end(), 0.0) / x.size(); };
  const auto bootstrap = bootstrap_interval(values, mean), student = Sample(values).mean_interval();
  const double width = student->high - student->low;
  EXPECT_NEAR(bootstrap->low, student->low, 0.08 * width);
  EXPECT_NEAR(bootstrap->high, student->high, 0.08 * width);
  EXPECT_EQ(bootstrap->low, bootstrap_interval(values, mean)->low);
}

TEST(Statistics, TrendOfAnscombesFirstSet) {
  const std::vector<double> x = {10, 8, 13, 9, 11, 14, 6, 4, 12, 7, 5};
  const std::vector<double> y = {8.04, 6.95, 7.58, 8.81, 8.33, 9.96, 7.24, 4.26, 10.84, 4.82, 5.68};
  const Trend trend = linear_trend(x, y);
  EXPECT_NEAR(trend.slope, 0.50009, 1e-5);
  EXPECT_NEAR(trend.intercept, 3.00009, 1e-5);
  EXPECT_NEAR(trend.slope_interval->high - trend.slope, 2.262157 * 0.117906, 1e-5);
  EXPECT_TRUE(std::isnan(linear_trend(std::vector<double>{1, 1}, std::vector<double>{1, 2}).slope));
}

TEST(Statistics, HistogramsCountEveryValueOnce) {
  const Histogram plain = histogram(Sample({0, 1, 2, 3, 4, 4}), 4);
  EXPECT_EQ(plain.counts, (std::vector<int64_t>{1, 1, 1, 3}));
  EXPECT_EQ(plain.edges, (std::vector<double>{0, 1, 2, 3, 4}));
  for (int count : {1, 2, 50, 3000}) {
    const Histogram chosen = histogram(Sample(exponentials(8, count)));
    EXPECT_EQ(std::accumulate(chosen.counts.begin(), chosen.counts.end(), int64_t{0}), count);
    EXPECT_EQ(chosen.edges.size(), chosen.counts.size() + 1);
    EXPECT_LE(chosen.counts.size(), 200u);
  }
}

TEST(Statistics, DistributionsRiseToOne) {
  const Distribution all = empirical_distribution(Sample({3, 1, 1, 2}));
  EXPECT_EQ(all.values, (std::vector<double>{1, 2, 3}));
  EXPECT_EQ(all.shares, (std::vector<double>{0.5, 0.75, 1}));
  const Distribution thin = empirical_distribution(Sample(exponentials(2, 10000)), 100);
  EXPECT_LE(thin.values.size(), 100u);
  EXPECT_EQ(thin.shares.back(), 1);
  EXPECT_TRUE(std::is_sorted(thin.shares.begin(), thin.shares.end()));
}

TEST(Statistics, ASummaryBecomesJson) {
  const Json json = to_json(summarize(Sample(exponentials(4, 1000))));
  EXPECT_EQ(json["count"], 1000);
  EXPECT_LE(json["p99_ci"][0], json["p99"]);
  EXPECT_GE(json["p99_ci"][1], json["p99"]);
  EXPECT_EQ(summarize(Sample({1, 2})).percentile(50), 1.5);
}

}  // namespace
}  // namespace millrace::report
