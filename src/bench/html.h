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

}  // namespace millrace::bench
