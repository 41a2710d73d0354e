// One or several systems against the request rate: the panels of `millrace bench plot` and of reports with several
// rates. Points come from a measurement or from a result file (result_files.h). Pure functions, any thread.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "bench/session.h"
#include "report/sweep.h"

namespace millrace::bench {

// A completed request. NaN where a figure is not defined: no token (TTFT), one token only (TPOT).
struct SweepAnswer {
  double ttft_ms = 0, tpot_ms = 0, e2el_ms = 0;
  double output_tokens = 0;
};

// What was measured at one rate. Figures that nobody stated are NaN.
struct SweepPoint {
  double rate = 0;      // requests/s, finite and above 0
  int64_t planned = 0;  // requests that the run was to send
  int64_t issued = 0;   // requests sent, without those that were interrupted: what attainment is a share of
  int64_t completed = 0;
  std::optional<std::vector<SweepAnswer>> answers;  // absent where a file holds figures only
  double ttft_p90_ms = 0, tpot_p90_ms = 0, e2el_p90_ms = 0;
  double e2el_mean_ms = 0, e2el_median_ms = 0;
  double output_throughput = 0;  // tokens/s over `duration_s`
  double duration_s = 0;
  bool judged = false;  // somebody checked whether the figures count: our own runs
  std::string problem;  // why they do not; "" when they do or nobody checked
};
struct SweepSystem {
  std::string name;
  std::vector<SweepPoint> points;
};
struct SweepLimits {
  double ttft_ms = 0, tpot_ms = 0;  // 0: none
};

// P90, mean and median from the answers, which must be there.
void fill_from_answers(SweepPoint& point);
// Requires a rate that is finite and above 0.
SweepPoint sweep_point(const Point& point);
// The points that have a rate, one system for each model and data set.
std::vector<SweepSystem> sweep_systems(const std::vector<Point>& points);
SweepLimits sweep_limits(const std::vector<Limit>& limits);

// Points in rising rate; those of the same rate become one, for which both must have their answers.
Status merge_equal_rates(SweepSystem& system);

// P90 TTFT and P90 TPOT with bootstrap bands and their limits; the share of requests within the limits (both: solid;
// TTFT alone and TPOT alone: dashed and dotted) with Wilson's interval; output throughput, and that of requests within
// the limits. Panels of which nothing is known are left out. Requires merged systems.
report::Sweep rate_sweep(std::string title, const std::vector<SweepSystem>& systems, const SweepLimits& limits);
// One row per system and rate.
report::Table sweep_table(const std::vector<SweepSystem>& systems, const SweepLimits& limits);
// "A keeps the limits up to 1.720 requests/s (P90 ...), B ... : 1.506 times A's."; "" without limits.
std::string sustained_text(const report::Sweep& sweep);

}  // namespace millrace::bench
