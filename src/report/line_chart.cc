#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/check.h"
#include "report/chart.h"
#include "report/chart_frame.h"
#include "report/svg.h"

namespace millrace::report {
namespace {

int colour_of(const Series& series, size_t number) {
  return series.colour >= 0 ? series.colour : static_cast<int>(number);
}

std::string line_class(const Series& series, int colour) {
  std::string css = "line " + colour_class('c', colour);
  if (series.stroke == Stroke::kDashed) css += " dashed";
  if (series.stroke == Stroke::kDotted) css += " dotted";
  return css;
}

struct Point {
  size_t index;  // in the series
  double x, y;   // pixels
};

std::vector<size_t> order_of(const std::vector<double>& x) {
  std::vector<size_t> order(x.size());
  std::iota(order.begin(), order.end(), size_t{0});
  if (!std::is_sorted(x.begin(), x.end()))
    std::stable_sort(order.begin(), order.end(),
                     [&](size_t a, size_t b) { return x[a] < x[b] || (std::isnan(x[b]) && !std::isnan(x[a])); });
  return order;
}

// Runs of points without a gap between them, in pixels, in rising x.
std::vector<std::vector<Point>> runs_of(const Series& series, ChartFrame& frame) {
  std::vector<std::vector<Point>> runs(1);
  for (size_t i : order_of(series.x)) {
    if (frame.x().can_show(series.x[i]) && frame.y().can_show(series.y[i])) {
      runs.back().push_back({i, frame.x().pixel(series.x[i]), frame.y().pixel(series.y[i])});
      continue;
    }
    if (!std::isnan(series.y[i])) frame.count_left_out(1);  // NaN is a gap that was asked for
    if (!runs.back().empty()) runs.emplace_back();
  }
  return runs;
}

// Neighbours that share a column of pixels are replaced by the first, lowest, highest and last of them.
std::vector<Point> thinned(const std::vector<Point>& points) {
  std::vector<Point> kept;
  for (size_t from = 0, to = 0; from < points.size(); from = to) {
    const double column = std::floor(points[from].x);
    size_t low = from, high = from;
    for (to = from; to < points.size() && std::floor(points[to].x) == column; ++to) {
      if (points[to].y > points[low].y) low = to;
      if (points[to].y < points[high].y) high = to;
    }
    size_t order[] = {from, std::min(low, high), std::max(low, high), to - 1};
    for (size_t i = 0; i < 4; ++i)
      if (i == 0 || order[i] > order[i - 1]) kept.push_back(points[order[i]]);
  }
  return kept;
}

std::string path_of(const std::vector<Point>& points, bool steps) {
  std::string path;
  for (size_t i = 0; i < points.size(); ++i) {
    if (i == 0)
      path += "M" + px(points[i].x) + " " + px(points[i].y);
    else if (steps)
      path += "H" + px(points[i].x) + "V" + px(points[i].y);
    else
      path += "L" + px(points[i].x) + " " + px(points[i].y);
  }
  return path;
}

void draw_band(ChartFrame& frame, const Series& series, const std::vector<Point>& points, int colour) {
  std::string forth, back;
  for (const Point& point : points) {
    const double low = series.low[point.index], high = series.high[point.index];
    if (!frame.y().can_show(low) || !frame.y().can_show(high)) continue;
    forth += (forth.empty() ? "M" : "L") + px(point.x) + " " + px(frame.y().pixel(high));
    back = "L" + px(point.x) + " " + px(frame.y().pixel(low)) + back;
  }
  if (!forth.empty())
    frame.body() += fmt::format("<path class=\"band {}\" d=\"{}{}Z\"/>", colour_class('f', colour), forth, back);
}

void draw_markers(ChartFrame& frame, const std::vector<Point>& points, int colour) {
  for (const Point& point : points)
    frame.body() += fmt::format("<circle class=\"{}\" cx=\"{}\" cy=\"{}\" r=\"3\"/>", colour_class('f', colour),
                                px(point.x), px(point.y));
}

void draw_series(ChartFrame& frame, const Series& series, int colour) {
  Json p = Json::array(), x = Json::array(), y = Json::array();
  for (const std::vector<Point>& run : runs_of(series, frame)) {
    const std::vector<Point> points = thinned(run);
    if (points.empty()) continue;
    if (!series.low.empty()) draw_band(frame, series, points, colour);
    frame.body() +=
        fmt::format("<path class=\"{}\" d=\"{}\"/>", line_class(series, colour), path_of(points, series.steps));
    if (series.markers || points.size() == 1) draw_markers(frame, points, colour);
    for (const Point& point : points) {
      p.push_back(rounded(point.x, 4));
      x.push_back(rounded(series.x[point.index]));
      y.push_back(rounded(series.y[point.index]));
    }
  }
  frame.add_hover(series.name, std::move(p), std::move(x), std::move(y));
}

void check_shape(const Series& s) {
  MR_CHECK(s.x.size() == s.y.size() && s.low.size() == s.high.size() && (s.low.empty() || s.low.size() == s.y.size()),
           "series '{}': {} x, {} y, {} low, {} high", s.name, s.x.size(), s.y.size(), s.low.size(), s.high.size());
}

}  // namespace

std::string to_svg(const LineChart& chart, const ChartSize& size) {
  Extent x(chart.x), y(chart.y);
  FrameText text{chart.title, chart.x.label, chart.y.label, chart.note, chart.invalid_reason, {}};
  for (size_t s = 0; s < chart.series.size(); ++s) {
    const Series& series = chart.series[s];
    check_shape(series);
    for (const auto* values : {&series.y, &series.low, &series.high})
      for (double value : *values) y.add(value);
    for (double value : series.x) x.add(value);
    text.legend.push_back({series.name, line_class(series, colour_of(series, s))});
  }
  const bool empty = x.empty() || y.empty();
  for (const Limit& limit : chart.limits) (limit.vertical ? x : y).add(limit.value);
  ChartFrame frame(size, std::move(text), Axis(chart.x, x.interval(), false, size.width / 90),
                   Axis(chart.y, y.interval(), true, size.height / 60));
  for (size_t s = 0; s < chart.series.size(); ++s) draw_series(frame, chart.series[s], colour_of(chart.series[s], s));
  frame.add_limits(chart.limits);
  if (empty) frame.set_empty();
  return frame.close();
}

LineChart distribution_chart(std::string title, AxisSpec x, const std::vector<NamedSample>& samples) {
  LineChart chart{std::move(title), std::move(x), {"share of values at or below (%)", Scale::kLinear, 0, 100}, {}};
  for (const NamedSample& named : samples) {
    Distribution found = empirical_distribution(*named.sample);
    for (double& share : found.shares) share *= 100;
    chart.series.push_back(
        {.name = named.name, .x = std::move(found.values), .y = std::move(found.shares), .steps = true});
  }
  return chart;
}

std::string svg_grid(const std::string& title, const std::vector<std::string>& charts, int columns,
                     const ChartSize& size) {
  const int rows = (static_cast<int>(charts.size()) + columns - 1) / columns, head = title.empty() ? 0 : 34;
  std::string out = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"chart\" viewBox=\"0 0 {0} {1}\" width=\"{0}\" height=\"{1}\" "
      "role=\"img\" aria-label=\"{2}\">",
      columns * size.width, rows * size.height + head, escape_markup(title));
  if (head > 0) out += "<text class=\"title\" x=\"16\" y=\"24\">" + escape_markup(title) + "</text>";
  for (size_t i = 0; i < charts.size(); ++i) {
    const int at = static_cast<int>(i);
    out += fmt::format("<svg x=\"{}\" y=\"{}\"", at % columns * size.width, at / columns * size.height + head);
    out += charts[i].substr(std::string_view("<svg").size());
  }
  return out + "</svg>";
}

std::optional<double> first_crossing(std::span<const double> x, std::span<const double> y, double level) {
  MR_CHECK(x.size() == y.size(), "{} x and {} y", x.size(), y.size());
  for (size_t i = 0; i < x.size(); ++i) {
    if (!(y[i] >= level)) continue;
    if (i == 0 || !(y[i - 1] < level)) return x[i];
    return x[i - 1] + (level - y[i - 1]) / (y[i] - y[i - 1]) * (x[i] - x[i - 1]);
  }
  return std::nullopt;
}

}  // namespace millrace::report
