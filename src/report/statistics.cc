#include "report/statistics.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <numeric>

#include "base/check.h"
#include "base/random.h"
#include "report/distributions.h"

namespace millrace::report {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

double sum_of_squares(std::span<const double> values, double mean) {
  double sum = 0;
  for (double value : values) sum += (value - mean) * (value - mean);
  return sum;
}

// The smallest k in [0, n] with P(B <= k) >= wanted.
int64_t binomial_quantile(double wanted, int64_t n, double p) {
  int64_t low = 0, high = n;
  while (low < high) {
    const int64_t middle = low + (high - low) / 2;
    if (binomial_cdf(middle, n, p) >= wanted)
      high = middle;
    else
      low = middle + 1;
  }
  return low;
}

// Double-precision draws on top of the counter-based generator.
class Draws {
 public:
  explicit Draws(uint64_t seed) : random_(seed) {}
  double uniform() {  // in (0, 1)
    const uint64_t high = random_(), low = random_();
    return (static_cast<double>((high << 21) ^ (low >> 11)) + 0.5) * 0x1p-53;
  }
  size_t index(size_t size) { return std::min(size - 1, static_cast<size_t>(uniform() * static_cast<double>(size))); }
  double beta(double a, double b) {
    const double x = gamma(a), y = gamma(b);
    return x / (x + y);
  }

 private:
  double normal() { return std::sqrt(-2 * std::log(uniform())) * std::cos(2 * std::numbers::pi * uniform()); }
  // Gamma(shape, 1) for shape >= 1: Marsaglia and Tsang, 2000.
  double gamma(double shape) {
    const double d = shape - 1.0 / 3, c = 1 / std::sqrt(9 * d);
    while (true) {
      const double z = normal(), v = std::pow(1 + c * z, 3);
      if (v > 0 && std::log(uniform()) < 0.5 * z * z + d - d * v + d * std::log(v)) return d * v;
    }
  }
  Random random_;
};

Interval middle_of(std::vector<double> replicates, double confidence) {
  std::sort(replicates.begin(), replicates.end());
  const double tail = 50 * (1 - confidence);
  return {percentile_of_sorted(replicates, tail), percentile_of_sorted(replicates, 100 - tail)};
}

Json interval_json(const std::optional<Interval>& interval) {
  return interval ? Json{interval->low, interval->high} : Json(nullptr);
}

}  // namespace

double percentile_of_sorted(std::span<const double> sorted, double percent) {
  MR_CHECK(percent >= 0 && percent <= 100, "percentile {}", percent);
  if (sorted.empty()) return kNan;
  const double h = static_cast<double>(sorted.size() - 1) * percent / 100;
  const size_t below = static_cast<size_t>(h), above = std::min(below + 1, sorted.size() - 1);
  return sorted[below] + (h - static_cast<double>(below)) * (sorted[above] - sorted[below]);
}

Sample::Sample(std::vector<double> values) : sorted_(std::move(values)) {
  left_out_ = static_cast<int64_t>(std::erase_if(sorted_, [](double value) { return !std::isfinite(value); }));
  std::sort(sorted_.begin(), sorted_.end());
}

double Sample::mean() const {
  return empty() ? kNan : std::accumulate(sorted_.begin(), sorted_.end(), 0.0) / static_cast<double>(size());
}
double Sample::stddev() const {
  return size() < 2 ? kNan : std::sqrt(sum_of_squares(sorted_, mean()) / static_cast<double>(size() - 1));
}
double Sample::population_stddev() const {
  return empty() ? kNan : std::sqrt(sum_of_squares(sorted_, mean()) / static_cast<double>(size()));
}
double Sample::min() const { return empty() ? kNan : sorted_.front(); }
double Sample::max() const { return empty() ? kNan : sorted_.back(); }
double Sample::percentile(double percent) const { return percentile_of_sorted(sorted_, percent); }

std::optional<Interval> Sample::mean_interval(double confidence) const {
  if (size() < 2) return std::nullopt;
  const auto n = static_cast<double>(size());
  const double half = student_t_quantile(0.5 + confidence / 2, n - 1) * stddev() / std::sqrt(n);
  return Interval{mean() - half, mean() + half};
}

// With B values at or below the true percentile, x_(l) <= percentile <= x_(u) exactly when l <= B < u (ranks from 1).
std::optional<Interval> Sample::percentile_interval(double percent, double confidence) const {
  const double share = percent / 100, tail = (1 - confidence) / 2;
  if (empty() || share <= 0 || share >= 1) return std::nullopt;
  const int64_t low = binomial_quantile(tail, size(), share);           // P(B < low) < tail
  const int64_t high = binomial_quantile(1 - tail, size(), share) + 1;  // P(B >= high) <= tail
  if (low < 1 || high > size()) return std::nullopt;
  return Interval{sorted_[static_cast<size_t>(low - 1)], sorted_[static_cast<size_t>(high - 1)]};
}

double Summary::percentile(double percent) const {
  for (const Percentile& each : percentiles)
    if (each.percent == percent) return each.value;
  return kNan;
}

Summary summarize(const Sample& sample, std::span<const double> percents, double confidence) {
  Summary summary{.count = sample.size(),
                  .mean = sample.mean(),
                  .stddev = sample.stddev(),
                  .population_stddev = sample.population_stddev(),
                  .min = sample.min(),
                  .max = sample.max(),
                  .mean_interval = sample.mean_interval(confidence),
                  .confidence = confidence};
  for (double percent : percents)
    summary.percentiles.push_back(
        {percent, sample.percentile(percent), sample.percentile_interval(percent, confidence)});
  return summary;
}

Json to_json(const Summary& summary) {
  Json json = {
      {"count", summary.count},          {"mean", summary.mean}, {"mean_ci", interval_json(summary.mean_interval)},
      {"std", summary.stddev},           {"min", summary.min},   {"max", summary.max},
      {"confidence", summary.confidence}};
  for (const Percentile& each : summary.percentiles) {
    const std::string name = fmt::format("p{:g}", each.percent);
    json[name] = each.value;
    json[name + "_ci"] = interval_json(each.interval);
  }
  return json;
}

std::optional<Interval> proportion_interval(int64_t successes, int64_t trials, double confidence) {
  MR_CHECK(successes >= 0 && successes <= trials, "{} successes of {}", successes, trials);
  if (trials == 0) return std::nullopt;
  const auto n = static_cast<double>(trials);
  const double p = static_cast<double>(successes) / n, z = normal_quantile(0.5 + confidence / 2), zz = z * z / n;
  const double centre = (p + zz / 2) / (1 + zz);
  const double half = z * std::sqrt(p * (1 - p) / n + zz / (4 * n)) / (1 + zz);
  return Interval{std::max(0.0, centre - half), std::min(1.0, centre + half)};
}

std::optional<Interval> bootstrap_interval(std::span<const double> values,
                                           const std::function<double(std::span<const double>)>& figure,
                                           const BootstrapOptions& options) {
  if (values.empty()) return std::nullopt;
  Draws draws(options.seed);
  std::vector<double> resample(values.size()), replicates(static_cast<size_t>(options.resamples));
  for (double& replicate : replicates) {
    for (double& value : resample) value = values[draws.index(values.size())];
    replicate = figure(resample);
  }
  return middle_of(std::move(replicates), options.confidence);
}

std::vector<double> bootstrap_percentiles(const Sample& sample, double percent, const BootstrapOptions& options) {
  if (sample.empty()) return {};
  const std::span<const double> x = sample.sorted();
  const auto n = static_cast<double>(x.size());
  const double h = (n - 1) * percent / 100, rank = std::floor(h) + 1, part = h - std::floor(h);
  const auto value_at = [&](double u) { return x[std::min(x.size() - 1, static_cast<size_t>(u * n))]; };
  Draws draws(options.seed);
  std::vector<double> replicates(static_cast<size_t>(options.resamples));
  for (double& replicate : replicates) {
    const double u = draws.beta(rank, n - rank + 1);  // the rank-th smallest of n uniform numbers
    replicate = value_at(u);
    if (part == 0) continue;
    const double next = u + (1 - u) * (1 - std::pow(draws.uniform(), 1 / (n - rank)));  // the one above it
    replicate += part * (value_at(next) - replicate);
  }
  return replicates;
}

Trend linear_trend(std::span<const double> x, std::span<const double> y, double confidence) {
  MR_CHECK(x.size() == y.size(), "{} x and {} y", x.size(), y.size());
  Trend trend{.slope = kNan, .intercept = kNan};
  const auto used = [&](size_t i) { return std::isfinite(x[i]) && std::isfinite(y[i]); };
  double sum_x = 0, sum_y = 0, sxx = 0, sxy = 0, residual = 0;
  for (size_t i = 0; i < x.size(); ++i)
    if (used(i)) sum_x += x[i], sum_y += y[i], ++trend.count;
  const auto n = static_cast<double>(trend.count);
  const double mean_x = sum_x / n, mean_y = sum_y / n;
  for (size_t i = 0; i < x.size(); ++i)
    if (used(i)) sxx += (x[i] - mean_x) * (x[i] - mean_x), sxy += (x[i] - mean_x) * (y[i] - mean_y);
  if (trend.count < 2 || sxx == 0) return trend;
  trend.slope = sxy / sxx;
  trend.intercept = mean_y - trend.slope * mean_x;
  if (trend.count < 3) return trend;
  for (size_t i = 0; i < x.size(); ++i)
    if (used(i)) residual += std::pow(y[i] - trend.intercept - trend.slope * x[i], 2);
  const double half = student_t_quantile(0.5 + confidence / 2, n - 2) * std::sqrt(residual / (n - 2) / sxx);
  trend.slope_interval = Interval{trend.slope - half, trend.slope + half};
  return trend;
}

Histogram histogram(const Sample& sample, int bins) {
  if (sample.empty()) return {};
  const double low = sample.min(), high = sample.max();
  if (low == high) return {{low, high}, {sample.size()}};
  if (bins <= 0) {
    const double width =
        2 * (sample.percentile(75) - sample.percentile(25)) / std::cbrt(static_cast<double>(sample.size()));
    bins = width > 0 ? static_cast<int>(std::clamp(std::ceil((high - low) / width), 1.0, 200.0)) : 50;
  }
  Histogram result{std::vector<double>(static_cast<size_t>(bins) + 1), std::vector<int64_t>(static_cast<size_t>(bins))};
  for (int i = 0; i <= bins; ++i) result.edges[static_cast<size_t>(i)] = low + (high - low) * i / bins;
  result.edges.back() = high;
  for (double value : sample.sorted()) {
    const auto above = std::upper_bound(result.edges.begin(), result.edges.end(), value);
    const auto bin = std::min<int64_t>(above - result.edges.begin() - 1, bins - 1);
    ++result.counts[static_cast<size_t>(bin)];
  }
  return result;
}

Distribution empirical_distribution(const Sample& sample, int max_points) {
  Distribution result;
  const std::span<const double> x = sample.sorted();
  const size_t points = std::min(x.size(), static_cast<size_t>(std::max(max_points, 2)));
  for (size_t i = 0; i < points; ++i) {
    const size_t at = points == 1 ? 0 : i * (x.size() - 1) / (points - 1);
    const auto end = std::upper_bound(x.begin(), x.end(), x[at]);
    if (!result.values.empty() && result.values.back() == x[at]) continue;
    result.values.push_back(x[at]);
    result.shares.push_back(static_cast<double>(end - x.begin()) / static_cast<double>(x.size()));
  }
  return result;
}

}  // namespace millrace::report
