#include "report/comparison.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "report/distributions.h"

namespace millrace::report {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

struct Ranks {
  double u = 0;         // of the candidate
  double tie_term = 0;  // sum over groups of equal values of t^3 - t
};

// Walks both sorted lists at once, one group of equal values at a time.
Ranks count_ranks(std::span<const double> base, std::span<const double> candidate) {
  Ranks ranks;
  size_t i = 0, j = 0;
  while (i < base.size() || j < candidate.size()) {
    const double value = i == base.size()        ? candidate[j]
                         : j == candidate.size() ? base[i]
                                                 : std::min(base[i], candidate[j]);
    const size_t base_from = i, candidate_from = j;
    while (i < base.size() && base[i] == value) ++i;
    while (j < candidate.size() && candidate[j] == value) ++j;
    const auto in_base = static_cast<double>(i - base_from), in_candidate = static_cast<double>(j - candidate_from);
    ranks.u += in_candidate * (static_cast<double>(base_from) + in_base / 2);
    const double tied = in_base + in_candidate;
    ranks.tie_term += tied * tied * tied - tied;
  }
  return ranks;
}

// Number of arrangements of n1 and n2 values for every U from 0 to n1 n2: the Gaussian binomial coefficient, built as
// a product of (1 - q^(n2+i)) / (1 - q^i). Doubles hold it exactly enough for n1 n2 <= 400.
std::vector<double> arrangements(int64_t n1, int64_t n2) {
  const int64_t top = n1 * n2;
  std::vector<double> ways(static_cast<size_t>(top) + 1, 0);
  ways[0] = 1;
  for (int64_t i = 1; i <= n1; ++i) {
    for (int64_t u = top; u >= n2 + i; --u) ways[static_cast<size_t>(u)] -= ways[static_cast<size_t>(u - n2 - i)];
    for (int64_t u = i; u <= top; ++u) ways[static_cast<size_t>(u)] += ways[static_cast<size_t>(u - i)];
  }
  return ways;
}

double exact_p_value(double u, int64_t n1, int64_t n2) {
  const std::vector<double> ways = arrangements(n1, n2);
  const auto low = static_cast<size_t>(std::min(u, static_cast<double>(n1 * n2) - u));
  double tail = 0, all = 0;
  for (size_t i = 0; i < ways.size(); ++i) {
    all += ways[i];
    if (i <= low) tail += ways[i];
  }
  return std::min(1.0, 2 * tail / all);
}

double normal_p_value(const Ranks& ranks, double n1, double n2) {
  const double n = n1 + n2;
  const double variance = n1 * n2 / 12 * (n + 1 - ranks.tie_term / (n * (n - 1)));
  if (!(variance > 0)) return 1;  // all values are equal
  const double distance = std::max(0.0, std::abs(ranks.u - n1 * n2 / 2) - 0.5);
  return 2 * normal_cdf(-distance / std::sqrt(variance));
}

// The most extreme order of the two samples has the p-value 2 / orders; above 1 - confidence nothing can be shown. A
// percentile in the tail needs an interval in both.
bool too_few(const Sample& a, const Sample& b, const CompareOptions& options) {
  const double n1 = static_cast<double>(a.size()), n2 = static_cast<double>(b.size());
  const double log_orders = std::lgamma(n1 + n2 + 1) - std::lgamma(n1 + 1) - std::lgamma(n2 + 1);
  if (a.empty() || b.empty() || 2 * std::exp(-log_orders) > 1 - options.confidence) return true;
  return options.percent != 50 && (!a.percentile_interval(options.percent, options.confidence) ||
                                   !b.percentile_interval(options.percent, options.confidence));
}

std::optional<Interval> ratio_interval(const Sample& baseline, const Sample& candidate, const CompareOptions& options) {
  BootstrapOptions bootstrap{.confidence = options.confidence, .seed = options.seed};
  const std::vector<double> below = bootstrap_percentiles(baseline, options.percent, bootstrap);
  bootstrap.seed = ~options.seed;  // a stream of its own
  std::vector<double> ratios = bootstrap_percentiles(candidate, options.percent, bootstrap);
  for (size_t i = 0; i < std::min(ratios.size(), below.size()); ++i) ratios[i] /= below[i];
  const Sample replicates(std::move(ratios));
  if (replicates.empty() || replicates.left_out() > 0) return std::nullopt;
  const double tail = 50 * (1 - options.confidence);
  return Interval{replicates.percentile(tail), replicates.percentile(100 - tail)};
}

Verdict judge(const Comparison& found, const CompareOptions& options) {
  if (!found.ratio_interval) return Verdict::kUndecided;
  const Interval& interval = *found.ratio_interval;
  if (interval.low >= 1 - options.margin && interval.high <= 1 + options.margin) return Verdict::kEquivalent;
  const bool ranks_agree = options.percent != 50 || found.ranks.p_value < 1 - options.confidence;
  if (ranks_agree && interval.low > 1 && found.ratio >= 1 + options.margin) return Verdict::kHigher;
  if (ranks_agree && interval.high < 1 && found.ratio <= 1 - options.margin) return Verdict::kLower;
  return Verdict::kUndecided;
}

}  // namespace

RankTest rank_test(const Sample& baseline, const Sample& candidate) {
  RankTest test;
  const auto n1 = static_cast<double>(baseline.size()), n2 = static_cast<double>(candidate.size());
  if (baseline.empty() || candidate.empty()) return {.u = kNan, .p_value = kNan, .superiority = kNan};
  const Ranks ranks = count_ranks(baseline.sorted(), candidate.sorted());
  test.u = ranks.u;
  test.superiority = ranks.u / (n1 * n2);
  test.exact = ranks.tie_term == 0 && n1 * n2 <= 400;
  test.p_value = test.exact ? exact_p_value(ranks.u, baseline.size(), candidate.size()) : normal_p_value(ranks, n1, n2);
  return test;
}

MeanTest mean_test(const Sample& baseline, const Sample& candidate, double confidence) {
  MeanTest test{.difference = candidate.mean() - baseline.mean(), .t = kNan, .p_value = kNan};
  if (baseline.size() < 2 || candidate.size() < 2) return test;
  const auto n1 = static_cast<double>(baseline.size()), n2 = static_cast<double>(candidate.size());
  const double v1 = std::pow(baseline.stddev(), 2) / n1, v2 = std::pow(candidate.stddev(), 2) / n2;
  const double error = std::sqrt(v1 + v2);
  if (error == 0) {  // both constant: equal or certainly different
    test.p_value = test.difference == 0 ? 1 : 0;
    test.interval = Interval{test.difference, test.difference};
    return test;
  }
  test.t = test.difference / error;
  test.degrees_of_freedom = std::pow(v1 + v2, 2) / (v1 * v1 / (n1 - 1) + v2 * v2 / (n2 - 1));
  test.p_value = 2 * student_t_cdf(-std::abs(test.t), test.degrees_of_freedom);
  const double half = student_t_quantile(0.5 + confidence / 2, test.degrees_of_freedom) * error;
  test.interval = Interval{test.difference - half, test.difference + half};
  return test;
}

Comparison compare(const Sample& baseline, const Sample& candidate, const CompareOptions& options) {
  Comparison found{.ranks = rank_test(baseline, candidate), .ratio = kNan};
  const double below = baseline.percentile(options.percent);
  if (below > 0) found.ratio = candidate.percentile(options.percent) / below;
  if (too_few(baseline, candidate, options)) return found;
  found.ratio_interval = ratio_interval(baseline, candidate, options);
  found.verdict = judge(found, options);
  return found;
}

const char* verdict_name(Verdict verdict) {
  switch (verdict) {
    case Verdict::kHigher:
      return "higher";
    case Verdict::kLower:
      return "lower";
    case Verdict::kEquivalent:
      return "equivalent";
    case Verdict::kUndecided:
      return "undecided";
    case Verdict::kTooFew:
      return "too few values";
  }
  return "";
}

std::string judgement(Verdict verdict, Better better) {
  if (verdict != Verdict::kHigher && verdict != Verdict::kLower) return verdict_name(verdict);
  return (verdict == Verdict::kHigher) == (better == Better::kHigher) ? "better" : "worse";
}

double mcnemar_p_value(int64_t gained, int64_t lost) {
  const int64_t changed = gained + lost;
  return changed == 0 ? 1 : std::min(1.0, 2 * binomial_cdf(std::min(gained, lost), changed, 0.5));
}

}  // namespace millrace::report
