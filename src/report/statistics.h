// What a list of measurements says: mean, spread, percentiles, each with how far it can be trusted.
// Percentile (numpy's default, linear between order statistics): with N sorted values x and h = (N-1) p/100,
// x[floor h] + (h - floor h) (x[ceil h] - x[floor h]).
// Everything here is a pure function of its input (resampling draws from a fixed seed), for any thread. Values keep
// the unit they came in. A figure that does not exist is NaN, an interval that does not exist is absent.
#pragma once
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "base/json.h"

namespace millrace::report {

struct Interval {
  double low = 0, high = 0;
  bool contains(double value) const { return low <= value && value <= high; }
};

// Finite values in rising order. Others (NaN, infinite) are left out and counted.
class Sample {
 public:
  Sample() = default;
  explicit Sample(std::vector<double> values);
  std::span<const double> sorted() const { return sorted_; }
  int64_t size() const { return static_cast<int64_t>(sorted_.size()); }
  bool empty() const { return sorted_.empty(); }
  int64_t left_out() const { return left_out_; }

  double mean() const;
  double stddev() const;             // of the sample: divided by N-1; NaN for fewer than two values
  double population_stddev() const;  // divided by N, as numpy's std
  double min() const;
  double max() const;
  double percentile(double percent) const;  // 0 <= percent <= 100

  // Student's t interval of the mean; absent for fewer than two values.
  std::optional<Interval> mean_interval(double confidence = 0.95) const;
  // The narrowest pair of order statistics, tails kept apart, that holds the true percentile with at least this
  // confidence whatever the distribution: ranks come from Binomial(N, percent/100). Absent when N is too small for it
  // (P99 at 95 % needs 368 values).
  std::optional<Interval> percentile_interval(double percent, double confidence = 0.95) const;

 private:
  std::vector<double> sorted_;
  int64_t left_out_ = 0;
};

// Percentile of values that are already sorted and finite; NaN for none.
double percentile_of_sorted(std::span<const double> sorted, double percent);

struct Percentile {
  double percent = 0, value = 0;
  std::optional<Interval> interval;
};
struct Summary {
  int64_t count = 0;
  double mean = 0, stddev = 0, population_stddev = 0, min = 0, max = 0;
  std::optional<Interval> mean_interval;
  std::vector<Percentile> percentiles;
  double confidence = 0.95;
  // The value at `percent`; NaN when it was not asked for.
  double percentile(double percent) const;
};
inline constexpr double kUsualPercents[] = {50, 75, 90, 95, 99};
Summary summarize(const Sample& sample, std::span<const double> percents = kUsualPercents, double confidence = 0.95);
// {"count", "mean", "mean_ci": [low, high] or null, "std", "min", "max", "p50", "p50_ci", ...}; NaN becomes null.
Json to_json(const Summary& summary);

// Wilson's interval of the share of successes among `trials`; absent for no trials.
std::optional<Interval> proportion_interval(int64_t successes, int64_t trials, double confidence = 0.95);

struct BootstrapOptions {
  int resamples = 2000;
  double confidence = 0.95;
  uint64_t seed = 0;
};
// Percentile-method bootstrap interval of any figure of a list of values. Costs resamples * N; absent for no values.
std::optional<Interval> bootstrap_interval(std::span<const double> values,
                                           const std::function<double(std::span<const double>)>& figure,
                                           const BootstrapOptions& options = {});
// `resamples` bootstrap replicates of one percentile, in no order. The order statistics of a resample are those of
// uniform ranks, which are drawn directly (beta distributed), so the cost does not grow with N. Empty for no values.
std::vector<double> bootstrap_percentiles(const Sample& sample, double percent, const BootstrapOptions& options = {});

// Least squares y = intercept + slope x over pairs of finite values.
struct Trend {
  int64_t count = 0;
  double slope = 0, intercept = 0;         // NaN when all x are equal or there are fewer than two pairs
  std::optional<Interval> slope_interval;  // Student's t with count - 2 degrees of freedom
};
Trend linear_trend(std::span<const double> x, std::span<const double> y, double confidence = 0.95);

// Bins [edges[i], edges[i+1]), the last one closed; counts has one entry fewer than edges.
struct Histogram {
  std::vector<double> edges;
  std::vector<int64_t> counts;
};
// `bins` equal bins from the smallest to the largest value; 0 takes the width of Freedman and Diaconis,
// 2 (P75 - P25) / cbrt(N), and at most 200 bins. Empty for no values; equal values make one bin of width 0.
Histogram histogram(const Sample& sample, int bins = 0);

// Points (value, share of values <= it) of the empirical distribution, thinned to at most `max_points` (2 or more) that
// keep the first and the last.
struct Distribution {
  std::vector<double> values, shares;
};
Distribution empirical_distribution(const Sample& sample, int max_points = 400);

}  // namespace millrace::report
