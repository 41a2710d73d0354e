#include "report/sweep.h"

#include <algorithm>

#include "report/svg.h"
#include "report/text.h"

namespace millrace::report {
namespace {

// The position of `name` in `names`, appended if it is new.
int number_of(std::vector<std::string>& names, const std::string& name) {
  const auto found = std::find(names.begin(), names.end(), name);
  if (found != names.end()) return static_cast<int>(found - names.begin());
  names.push_back(name);
  return static_cast<int>(names.size()) - 1;
}

std::vector<std::string> systems_of(const Sweep& sweep) {
  std::vector<std::string> systems;
  for (const SweepPanel& panel : sweep.panels)
    for (const SweepLine& line : panel.lines) number_of(systems, line.system);
  return systems;
}

Crossing crossing_of(const SweepPanel& panel, const SweepLine& line, const Limit& limit) {
  std::vector<double> y = line.y;
  if (panel.at_least)
    for (double& value : y) value = -value;
  const double level = panel.at_least ? -limit.value : limit.value;
  Crossing crossing{panel.title, limit.name, line.system, first_crossing(line.x, y, level)};
  crossing.before_first = crossing.x && !line.y.empty() && y[0] > level;
  return crossing;
}

// For each system of the panel its first line, against every limit.
std::vector<Crossing> panel_crossings(const SweepPanel& panel) {
  std::vector<Crossing> found;
  for (const Limit& limit : panel.limits) {
    std::vector<std::string> seen;
    for (const SweepLine& line : panel.lines) {
      const size_t before = seen.size();
      number_of(seen, line.system);
      if (seen.size() > before) found.push_back(crossing_of(panel, line, limit));
    }
  }
  return found;
}

std::string crossing_text(const Crossing& crossing) {
  if (!crossing.x) return "not reached";
  return (crossing.before_first ? "at or below " : "") + format_number(*crossing.x);
}

LineChart chart_of(const Sweep& sweep, const SweepPanel& panel, std::vector<std::string>& systems) {
  LineChart chart{panel.title, sweep.x, panel.y, {}, panel.limits};
  std::vector<std::string> measures;
  for (const SweepLine& line : panel.lines)
    chart.series.push_back({.name = line.measure.empty() ? line.system : line.system + ", " + line.measure,
                            .x = line.x,
                            .y = line.y,
                            .low = line.low,
                            .high = line.high,
                            .colour = number_of(systems, line.system),
                            .stroke = static_cast<Stroke>(std::min(number_of(measures, line.measure), 2)),
                            .markers = true});
  for (const Crossing& crossing : panel_crossings(panel)) {
    if (crossing.x) chart.limits.push_back({"", *crossing.x, /*vertical=*/true});
    chart.note += fmt::format("{}{}: {} {}", chart.note.empty() ? "" : "; ", crossing.system, crossing.limit,
                              crossing_text(crossing));
  }
  chart.invalid_reason = sweep.invalid_reason;
  return chart;
}

}  // namespace

std::vector<Crossing> crossings(const Sweep& sweep) {
  std::vector<Crossing> all;
  for (const SweepPanel& panel : sweep.panels)
    for (Crossing& crossing : panel_crossings(panel)) all.push_back(std::move(crossing));
  return all;
}

Table crossing_table(const Sweep& sweep) {
  const std::vector<std::string> systems = systems_of(sweep);
  std::vector<Column> columns = {
      {"panel", Align::kLeft}, {"limit", Align::kLeft}, {"system", Align::kLeft}, {sweep.x.label}};
  if (systems.size() > 1) columns.push_back({"/ " + systems[0], Align::kRight, "the crossing over the first system's"});
  Table table(columns, "Where limits are crossed");
  double first = 0;  // of the current panel and limit; 0: unknown
  for (const Crossing& crossing : crossings(sweep)) {
    const bool exact = crossing.x && !crossing.before_first;
    if (crossing.system == systems[0]) first = exact ? *crossing.x : 0;
    std::vector<std::string> cells = {crossing.panel, crossing.limit, crossing.system, crossing_text(crossing)};
    if (systems.size() > 1) cells.push_back(exact && first > 0 ? format_number(*crossing.x / first) : "n/a");
    table.add_row(std::move(cells));
  }
  if (!sweep.invalid_reason.empty()) table.mark_invalid(sweep.invalid_reason);
  return table;
}

std::vector<LineChart> sweep_charts(const Sweep& sweep) {
  std::vector<std::string> systems = systems_of(sweep);
  std::vector<LineChart> charts;
  for (const SweepPanel& panel : sweep.panels) charts.push_back(chart_of(sweep, panel, systems));
  return charts;
}

std::string sweep_file(const Sweep& sweep) {
  std::vector<std::string> charts;
  for (const LineChart& chart : sweep_charts(sweep)) charts.push_back(to_svg(chart));
  return standalone_svg(svg_grid(sweep.title, charts, 2));
}

void add_sweep(HtmlReport& report, const Sweep& sweep) {
  report.begin_panel(sweep.title);
  for (const LineChart& chart : sweep_charts(sweep)) report.add_chart(to_svg(chart));
  report.add_table(crossing_table(sweep));
}

}  // namespace millrace::report
