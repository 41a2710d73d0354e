// What a user is shown and what is kept: the tables on the terminal, vLLM's result file, ours with every request, and a
// baseline to compare with. Pure functions, any thread.
#pragma once
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "base/json.h"
#include "bench/session.h"
#include "report/table.h"
#include "report/validity.h"

namespace millrace::bench {

struct ShownMetrics {
  std::vector<Metric> metrics = {Metric::kTtft, Metric::kTpot, Metric::kItl};
  std::vector<double> percentiles = {99};
};

// "128 in, 16 out, 4 at once" or "2 requests/s": what tells the points of a command apart.
std::string point_name(const RunRecord& run);
report::Validity validity_of(const Point& point);

// vLLM's `vllm bench serve` table, 50 wide, and below it what vLLM does not show: times from the schedule, the steady
// window, failures by kind and the validity box.
std::string vllm_text(const Point& point, const ShownMetrics& shown);
// One row per point.
report::Table summary_table(const std::vector<Point>& points);
// All metrics of one point: mean with its interval, min, max, percentiles with theirs.
report::Table metrics_table(const Point& point);

struct VllmResultOptions {
  ShownMetrics shown;
  bool detailed = false;  // per-request lists
  std::string label;
};
// The keys of `vllm bench serve --save-result`, in its order. ITL is per event there, as vLLM has it.
OrderedJson vllm_result(const Point& point, const VllmResultOptions& options);
std::string vllm_result_name(const Point& point, const std::string& label);

// {"format": "millrace-bench", "version": 1, "points": [{"config", "validity", "figures", "requests": [...]}]}
Json full_result(const std::vector<Point>& points);
Json summary_result(const std::vector<Point>& points);  // the same without "requests"

// Baselines: the values that a later run is compared with.
Json baseline_of(const std::vector<Point>& points);
struct Against {
  report::Table table;
  bool worse = false;           // some figure is worse, beyond chance
  std::string invalid_because;  // figures of either side that mean nothing; "" when all do
};
// Points are matched by name. kInvalidArgument when the file is no baseline or has none of the points.
Result<Against> compare_with(const Json& baseline, const std::vector<Point>& points);

}  // namespace millrace::bench
