#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "report/chart.h"
#include "report/chart_frame.h"
#include "report/text.h"

namespace millrace::report {
namespace {

constexpr double kCellPx = 2;  // of the raster that groups are drawn on, both ways

using Rows = std::vector<const WaterfallRow*>;

bool drawable(const WaterfallRow& row) {
  return std::isfinite(row.start) &&
         std::all_of(row.ends.begin(), row.ends.end(), [](double end) { return std::isfinite(end); });
}

Rows in_order(const WaterfallChart& chart, ChartFrame& frame) {
  Rows rows;
  for (const WaterfallRow& row : chart.rows) {
    if (drawable(row))
      rows.push_back(&row);
    else
      frame.count_left_out(1);
  }
  std::stable_sort(rows.begin(), rows.end(), [](const auto* a, const auto* b) { return a->start < b->start; });
  return rows;
}

// Calls visit(phase, from_px, to_px) for every part of a row; a failed row has one part, in the phase after the last.
template <class Visit>
void parts_of(const WaterfallRow& row, size_t phases, const Axis& x, const Visit& visit) {
  double from = row.start;
  if (row.failed) return visit(phases, x.pixel(from), x.pixel(row.ends.empty() ? from : row.ends.back()));
  for (size_t p = 0; p < row.ends.size(); ++p) {
    visit(p, x.pixel(from), x.pixel(row.ends[p]));
    from = row.ends[p];
  }
}

// One band per row; a part is at least half a pixel wide.
void draw_rows(const ChartFrame& frame, const Rows& rows, std::vector<std::string>& paths) {
  const double height = (frame.bottom() - frame.top()) / static_cast<double>(rows.size());
  for (size_t r = 0; r < rows.size(); ++r) {
    const std::string y = px(frame.top() + (static_cast<double>(r) + 0.5) * height);
    parts_of(*rows[r], paths.size() - 1, frame.x(), [&](size_t phase, double from, double to) {
      paths[phase] += "M" + px(from) + " " + y + "h" + px(std::max(0.5, to - from));
    });
  }
}

// The phase of every cell of one band, -1 where nothing is under way.
std::vector<int> band_cells(const ChartFrame& frame, std::span<const WaterfallRow* const> rows, size_t cells,
                            size_t phases) {
  std::vector<std::vector<int>> changes(phases + 1, std::vector<int>(cells + 1, 0));
  const auto cell_of = [&](double at) {
    return static_cast<size_t>(std::clamp((at - frame.left()) / kCellPx, 0.0, static_cast<double>(cells - 1)));
  };
  for (const WaterfallRow* row : rows)
    parts_of(*row, phases, frame.x(), [&](size_t phase, double from, double to) {
      ++changes[phase][cell_of(from)];
      --changes[phase][std::max(cell_of(from) + 1, cell_of(to))];
    });
  std::vector<int> winner(cells, -1), running(phases + 1, 0);
  for (size_t c = 0; c < cells; ++c) {
    int best = 0;
    for (size_t p = 0; p <= phases; ++p) {
      running[p] += changes[p][c];
      if (running[p] > best || (p == phases && running[p] > 0)) best = running[p], winner[c] = static_cast<int>(p);
    }
  }
  return winner;
}

void draw_groups(const ChartFrame& frame, const Rows& rows, size_t bands, std::vector<std::string>& paths) {
  const auto cells = static_cast<size_t>((frame.right() - frame.left()) / kCellPx);
  for (size_t b = 0; b < bands; ++b) {
    const size_t first = b * rows.size() / bands, last = (b + 1) * rows.size() / bands;
    const auto winner = band_cells(frame, std::span(rows).subspan(first, last - first), cells, paths.size() - 1);
    const std::string y = px(frame.top() + (static_cast<double>(b) + 0.5) * kCellPx);
    for (size_t from = 0, to = 0; from < cells; from = to) {
      for (to = from; to < cells && winner[to] == winner[from]; ++to) {
      }
      if (winner[from] < 0) continue;
      paths[static_cast<size_t>(winner[from])] += "M" + px(frame.left() + static_cast<double>(from) * kCellPx) + " " +
                                                  y + "h" + px(static_cast<double>(to - from) * kCellPx);
    }
  }
}

void add_hover(ChartFrame& frame, const Rows& rows, size_t bands, double band_px) {
  Json p = Json::array(), names = Json::array(), texts = Json::array();
  for (size_t b = 0; b < bands; ++b) {
    const size_t first = b * rows.size() / bands, last = (b + 1) * rows.size() / bands;
    const auto failed = std::count_if(rows.begin() + static_cast<long>(first), rows.begin() + static_cast<long>(last),
                                      [](const auto* row) { return row->failed; });
    p.push_back(rounded(frame.top() + (static_cast<double>(b) + 0.5) * band_px, 4));
    names.push_back(last - first == 1 ? fmt::format("row {}", first + 1)
                                      : fmt::format("rows {} to {}", first + 1, last));
    texts.push_back(fmt::format("start {}{}", format_number(rows[first]->start),
                                failed > 0 ? fmt::format(", {} failed", failed) : ""));
  }
  frame.hover_by_y();
  frame.add_hover("", std::move(p), std::move(names), std::move(texts));
}

void add_paths(ChartFrame& frame, const std::vector<std::string>& paths, double band_px) {
  for (size_t p = 0; p < paths.size(); ++p) {
    if (paths[p].empty()) continue;
    const std::string css = p + 1 == paths.size() ? "cbad" : colour_class('c', static_cast<int>(p));
    frame.body() += fmt::format("<path class=\"{}\" fill=\"none\" stroke-width=\"{}\" d=\"{}\"/>", css,
                                px(band_px > 4 ? band_px * 0.8 : band_px), paths[p]);
  }
}

// Row by row where there is room, else in groups. The last path is that of failed rows.
void draw(ChartFrame& frame, const Rows& rows, size_t phases) {
  if (rows.empty()) return frame.set_empty();
  const double height = frame.bottom() - frame.top();
  const size_t bands = std::min(rows.size(), static_cast<size_t>(height / kCellPx));
  const bool grouped = rows.size() > bands;
  const double band_px = grouped ? kCellPx : height / static_cast<double>(rows.size());
  std::vector<std::string> paths(phases + 1);
  if (grouped)
    draw_groups(frame, rows, bands, paths);
  else
    draw_rows(frame, rows, paths);
  add_paths(frame, paths, band_px);
  add_hover(frame, rows, bands, band_px);
}

}  // namespace

std::string to_svg(const WaterfallChart& chart, const ChartSize& size) {
  Extent x(chart.x);
  FrameText text{chart.title, chart.x.label, "", chart.note, chart.invalid_reason, {}};
  for (size_t p = 0; p < chart.phases.size(); ++p)
    text.legend.push_back({chart.phases[p], colour_class('f', static_cast<int>(p)), true});
  bool any_failed = false;
  for (const WaterfallRow& row : chart.rows) {
    MR_CHECK(row.ends.size() <= chart.phases.size(), "{} ends for {} phases", row.ends.size(), chart.phases.size());
    any_failed |= row.failed;
    x.add(row.start);
    for (double end : row.ends) x.add(end);
  }
  if (any_failed) text.legend.push_back({"failed", "fbad", true});
  text.y_label = fmt::format("{} rows in order of start", chart.rows.size());
  ChartFrame frame(size, std::move(text), Axis(chart.x, x.interval(), false, size.width / 90),
                   Axis({.min = 0, .max = 1}, {0, 1}, false, 1), true, /*y_ticks=*/false);
  draw(frame, in_order(chart, frame), chart.phases.size());
  return frame.close();
}

}  // namespace millrace::report
