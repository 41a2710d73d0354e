// Charts as SVG text: lines, bars, histograms, distributions, waterfalls. Plain series in, one <svg> element out, whose
// size does not grow with the data beyond what its pixels can show. The element carries its drawn values in a
// data-hover attribute, which the script of the HTML report reads out under the pointer; svg.h makes a file of it.
// Values that an axis has no place for (not finite; not positive on a log axis) are left out, and the chart says how
// many. Pure functions, any thread. All text is escaped.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "report/statistics.h"

namespace millrace::report {

enum class Scale { kLinear, kLog };
struct AxisSpec {
  std::string label;  // with its unit
  Scale scale = Scale::kLinear;
  std::optional<double> min = {}, max = {};  // chosen from the data when absent
};
struct ChartSize {
  int width = 680, height = 320;  // user units; the page scales them
};

enum class Stroke { kSolid, kDashed, kDotted };
struct Series {
  std::string name;
  std::vector<double> x, y;                 // as many of each; a y that is NaN breaks the line
  std::vector<double> low = {}, high = {};  // a band around y, as many as y, or none
  int colour = -1;                          // of the theme's series colours; -1 takes the series' number
  Stroke stroke = Stroke::kSolid;
  bool steps = false;    // y holds until the next x
  bool markers = false;  // a dot on every point
};
// A limit drawn across the chart.
struct Limit {
  std::string name;
  double value = 0;
  bool vertical = false;  // at x = value instead of y = value
};

struct LineChart {
  std::string title;
  AxisSpec x, y;
  std::vector<Series> series;
  std::vector<Limit> limits = {};
  std::string note = {};            // a line under the chart
  std::string invalid_reason = {};  // not empty: the word INVALID across the chart
};
std::string to_svg(const LineChart& chart, const ChartSize& size = {});

struct BarSeries {
  std::string name;
  std::vector<double> values;  // one per category
};
struct BarChart {
  std::string title, x_label;
  AxisSpec y;
  std::vector<std::string> categories;
  std::vector<BarSeries> series;
  std::vector<Limit> limits = {};
  std::string note = {}, invalid_reason = {};
};
std::string to_svg(const BarChart& chart, const ChartSize& size = {});

struct NamedHistogram {
  std::string name;
  Histogram histogram;
};
struct HistogramChart {
  std::string title;
  AxisSpec x, y;
  std::vector<NamedHistogram> series;
  std::vector<Limit> limits = {};  // vertical ones: percentiles, limits
  std::string note = {}, invalid_reason = {};
};
std::string to_svg(const HistogramChart& chart, const ChartSize& size = {});

// The share of values (in %) at or below each value, one step line per sample.
struct NamedSample {
  std::string name;
  const Sample* sample;  // borrowed
};
LineChart distribution_chart(std::string title, AxisSpec x, const std::vector<NamedSample>& samples);

// One row per thing that happened: it starts, passes through phases, and ends. Rows are drawn in the order of their
// starts. More rows than the chart has lines for are drawn in groups: a pixel takes the phase that most of its group's
// rows are in, and a failed row wins over all others, so that no failure is hidden.
struct WaterfallRow {
  double start = 0;
  std::vector<double> ends;  // of the phases, rising, at most one per phase; a row that failed early has fewer
  bool failed = false;
};
struct WaterfallChart {
  std::string title;
  AxisSpec x;  // linear
  std::vector<std::string> phases;
  std::vector<WaterfallRow> rows;
  std::string note = {}, invalid_reason = {};
};
std::string to_svg(const WaterfallChart& chart, const ChartSize& size = {.width = 680, .height = 420});

// Several charts in one <svg>, `columns` to a row.
std::string svg_grid(const std::string& title, const std::vector<std::string>& charts, int columns,
                     const ChartSize& size = {});

// Where a curve through the points (x, y), in rising x and straight between them, first reaches `level`; absent when it
// stays below.
std::optional<double> first_crossing(std::span<const double> x, std::span<const double> y, double level);

}  // namespace millrace::report
