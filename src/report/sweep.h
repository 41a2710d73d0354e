// A figure of panels against one load axis (a request rate, say): several systems, a colour each, several measures per
// panel, a line style each, limits, and where each system crosses them. Plain data in, charts out; any thread.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "report/chart.h"
#include "report/html_report.h"

namespace millrace::report {

struct SweepLine {
  std::string system;        // its colour: systems are numbered in the order of their first appearance in the figure
  std::string measure;       // its line style within the panel: solid, dashed, dotted; may be ""
  std::vector<double> x, y;  // as many of each, in rising x
  std::vector<double> low = {}, high = {};  // a band around y, or none
};
struct SweepPanel {
  std::string title;
  AxisSpec y;
  std::vector<SweepLine> lines;
  std::vector<Limit> limits = {};  // horizontal
  bool at_least = false;           // a limit is kept while y >= it (a share); otherwise while y <= it (a latency)
};
struct Sweep {
  std::string title;
  AxisSpec x;
  std::vector<SweepPanel> panels;
  std::string invalid_reason = {};
};

// Where the first line of a system in a panel stops keeping a limit, straight between its points.
struct Crossing {
  std::string panel, limit, system;
  std::optional<double> x;    // absent: kept at every point
  bool before_first = false;  // broken at the first point already: the crossing is at or below x
};
std::vector<Crossing> crossings(const Sweep& sweep);
// The crossings as a table; with two systems or more a column with each one's x over the first system's.
Table crossing_table(const Sweep& sweep);

// One chart per panel, with a thin vertical line at each crossing.
std::vector<LineChart> sweep_charts(const Sweep& sweep);
// All panels, two to a row, as an SVG file.
std::string sweep_file(const Sweep& sweep);
// A panel of a report: the charts and the table of crossings.
void add_sweep(HtmlReport& report, const Sweep& sweep);

}  // namespace millrace::report
