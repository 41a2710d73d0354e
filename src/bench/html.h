// The HTML report of a bench command: validity, the points beside each other, and for each point its distributions, its
// seconds and its requests. Pure function, any thread.
#pragma once
#include <string>
#include <vector>

#include "bench/session.h"
#include "report/html_report.h"

namespace millrace::bench {

// `points` must not be empty. Limits come from the points' measures.
report::HtmlReport html_report(const std::string& title, const std::vector<Point>& points);

// Four panels against the request rate: P90 TTFT and P90 TPOT with their limits, attainment (both limits, TTFT alone,
// TPOT alone), output throughput and goodput. One colour per system; points without a rate are left out.
struct SystemPoints {
  std::string name;
  std::vector<const Point*> points;  // borrowed
};
std::string rate_panels(const std::vector<SystemPoints>& systems, double ttft_limit_ms, double tpot_limit_ms);

}  // namespace millrace::bench
