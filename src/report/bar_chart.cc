#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "report/chart.h"
#include "report/chart_frame.h"
#include "report/text.h"

namespace millrace::report {
namespace {

// A bar from the axis' foot (0, or its low end on a log scale) to `value`.
std::string bar(const ChartFrame& frame, double from_px, double to_px, double value) {
  const double foot = frame.y().pixel(frame.y().within(0) ? 0 : frame.y().low()), end = frame.y().pixel(value);
  return fmt::format("M{} {}H{}V{}H{}Z", px(from_px), px(foot), px(to_px), px(end), px(from_px));
}

void add_path(ChartFrame& frame, size_t series, const std::string& path, bool see_through) {
  if (path.empty()) return;
  frame.body() += fmt::format("<path class=\"{}\"{} d=\"{}\"/>", colour_class('f', static_cast<int>(series)),
                              see_through ? " opacity=\".6\"" : "", path);
}

std::vector<LegendEntry> legend_of(const auto& series) {
  std::vector<LegendEntry> legend;
  for (size_t s = 0; s < series.size(); ++s)
    legend.push_back({series[s].name, colour_class('f', static_cast<int>(s)), /*filled=*/true});
  return legend;
}

// The bars of series `s`, one in each of the categories' slots.
void draw_bars(ChartFrame& frame, const BarChart& chart, size_t s, double slot, double width) {
  Json p = Json::array(), x = Json::array(), values = Json::array();
  std::string path;
  for (size_t c = 0; c < chart.categories.size(); ++c) {
    const double value = chart.series[s].values[c];
    const double from = frame.left() + (static_cast<double>(c) + 0.1) * slot + static_cast<double>(s) * width;
    if (!frame.y().can_show(value)) {
      frame.count_left_out(1);
      continue;
    }
    path += bar(frame, from, from + width, value);
    p.push_back(rounded(from + width / 2, 4));
    x.push_back(chart.categories[c]);
    values.push_back(rounded(value));
  }
  add_path(frame, s, path, false);
  frame.add_hover(chart.series[s].name, std::move(p), std::move(x), std::move(values));
}

// The bins of series `s` that hold something: an empty one has no bar on any scale.
void draw_bins(ChartFrame& frame, const NamedHistogram& series, size_t s, bool see_through) {
  const Histogram& bins = series.histogram;
  Json p = Json::array(), range = Json::array(), counts = Json::array();
  std::string path;
  for (size_t b = 0; b < bins.counts.size(); ++b) {
    if (bins.counts[b] == 0) continue;
    if (!frame.x().can_show(bins.edges[b])) {
      frame.count_left_out(bins.counts[b]);
      continue;
    }
    const double from = frame.x().pixel(bins.edges[b]), to = std::max(from + 1, frame.x().pixel(bins.edges[b + 1]));
    path += bar(frame, from, to, static_cast<double>(bins.counts[b]));
    p.push_back(rounded((from + to) / 2, 4));
    counts.push_back(bins.counts[b]);
    range.push_back(format_number(bins.edges[b]) + " to " + format_number(bins.edges[b + 1]));
  }
  add_path(frame, s, path, see_through);
  frame.add_hover(series.name, std::move(p), std::move(range), std::move(counts));
}

// Names below the axis, thinned where they have less than 40 pixels each.
void name_categories(ChartFrame& frame, const std::vector<std::string>& categories, double slot) {
  const size_t every = static_cast<size_t>(std::ceil(40 / slot));
  for (size_t c = 0; c < categories.size(); c += every)
    frame.add_x_label(frame.left() + (static_cast<double>(c) + 0.5) * slot, categories[c],
                      slot * static_cast<double>(every));
}

}  // namespace

std::string to_svg(const BarChart& chart, const ChartSize& size) {
  Extent y(chart.y);
  for (const BarSeries& series : chart.series) {
    MR_CHECK(series.values.size() == chart.categories.size(), "bars '{}': {} values for {} categories", series.name,
             series.values.size(), chart.categories.size());
    for (double value : series.values) y.add(value);
  }
  const bool empty = y.empty();
  for (const Limit& limit : chart.limits)
    if (!limit.vertical) y.add(limit.value);
  const auto count = static_cast<double>(std::max<size_t>(1, chart.categories.size()));
  ChartFrame frame(
      size, {chart.title, chart.x_label, chart.y.label, chart.note, chart.invalid_reason, legend_of(chart.series)},
      Axis({.min = 0, .max = count}, {0, count}, false, 1), Axis(chart.y, y.interval(), true, size.height / 60),
      /*x_ticks=*/false);
  const double slot = (frame.right() - frame.left()) / count;
  const double width = 0.8 * slot / static_cast<double>(std::max<size_t>(1, chart.series.size()));
  name_categories(frame, chart.categories, slot);
  for (size_t s = 0; s < chart.series.size(); ++s) draw_bars(frame, chart, s, slot, width);
  frame.add_limits(chart.limits);
  if (empty) frame.set_empty();
  return frame.close();
}

std::string to_svg(const HistogramChart& chart, const ChartSize& size) {
  Extent x(chart.x), y(chart.y);
  for (const NamedHistogram& series : chart.series) {
    for (double edge : series.histogram.edges) x.add(edge);
    for (int64_t count : series.histogram.counts) y.add(static_cast<double>(count));
  }
  const bool empty = x.empty();
  for (const Limit& limit : chart.limits) (limit.vertical ? x : y).add(limit.value);
  ChartFrame frame(
      size, {chart.title, chart.x.label, chart.y.label, chart.note, chart.invalid_reason, legend_of(chart.series)},
      Axis(chart.x, x.interval(), false, size.width / 90), Axis(chart.y, y.interval(), true, size.height / 60));
  for (size_t s = 0; s < chart.series.size(); ++s) draw_bins(frame, chart.series[s], s, chart.series.size() > 1);
  frame.add_limits(chart.limits);
  if (empty) frame.set_empty();
  return frame.close();
}

}  // namespace millrace::report
