// Is one run different from another? Two independent samples of the same quantity, compared with a verdict.
// Pure functions, any thread.
#pragma once
#include <optional>
#include <string>

#include "report/statistics.h"

namespace millrace::report {

// Mann and Whitney, 1947, two-sided. Exact when no value occurs twice and the samples are small (n1 * n2 <= 400), else
// the normal approximation with continuity and tie corrections.
struct RankTest {
  double u = 0;            // pairs in which the candidate is higher, ties counted half
  double p_value = 1;      // NaN when a sample is empty
  double superiority = 0;  // u / (n1 n2): the chance that a candidate value is above a baseline value; 0.5 = no effect
  bool exact = false;
};
RankTest rank_test(const Sample& baseline, const Sample& candidate);

// Welch's unequal-variances t test of the means, two-sided; for figures that come once per run (throughput).
struct MeanTest {
  double difference = 0;  // candidate mean - baseline mean
  double t = 0, degrees_of_freedom = 0;
  double p_value = 1;                // NaN when a sample has fewer than two values
  std::optional<Interval> interval;  // of the difference
};
MeanTest mean_test(const Sample& baseline, const Sample& candidate, double confidence = 0.95);

enum class Verdict {
  kHigher,      // the candidate's values are higher, beyond chance and beyond `margin`
  kLower,       // lower, likewise
  kEquivalent,  // the whole interval of the ratio lies within the margin
  kUndecided,   // neither is shown
  kTooFew,      // no outcome of these sample sizes could show a difference
};
const char* verdict_name(Verdict verdict);  // "higher", "lower", "equivalent", "undecided", "too few values"

struct CompareOptions {
  double percent = 50;  // which percentile the ratio is of
  double confidence = 0.95;
  double margin = 0.02;  // ratios within 1 +- margin are of no interest
  uint64_t seed = 0;
};
struct Comparison {
  Verdict verdict = Verdict::kTooFew;
  RankTest ranks;
  double ratio = 0;                        // candidate percentile / baseline percentile; NaN if the latter is 0
  std::optional<Interval> ratio_interval;  // bootstrap
};
// For the median the rank test must agree with the ratio's interval; another percentile (a tail) stands on its interval
// alone, because ranks say nothing about tails. kHigher also demands ratio >= 1 + margin, kLower ratio <= 1 - margin.
// Values must not be negative: a ratio compares amounts.
Comparison compare(const Sample& baseline, const Sample& candidate, const CompareOptions& options = {});

enum class Better { kLower, kHigher };
// The verdict for a quantity of which less (or more) is better: "better", "worse", "equivalent", "undecided", ...
std::string judgement(Verdict verdict, Better better);

// Exact two-sided McNemar test of paired yes/no outcomes: `gained` and `lost` are the pairs that changed.
double mcnemar_p_value(int64_t gained, int64_t lost);

}  // namespace millrace::report
