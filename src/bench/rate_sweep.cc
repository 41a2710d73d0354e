#include "bench/rate_sweep.h"

#include <algorithm>
#include <cmath>

#include "report/text.h"

namespace millrace::bench {
namespace {

constexpr double kPanelPercent = 90;
constexpr double kWantedShare = 90;

report::Sample sample_of(const SweepPoint& point, double SweepAnswer::*figure) {
  std::vector<double> values;
  if (point.answers)
    for (const SweepAnswer& answer : *point.answers) values.push_back(answer.*figure);
  return report::Sample(std::move(values));
}

double tokens_of(const SweepPoint& point) { return point.output_throughput * point.duration_s; }

bool within(const SweepAnswer& answer, double ttft_ms, double tpot_ms) {
  if (ttft_ms > 0 && !(answer.ttft_ms <= ttft_ms)) return false;
  return tpot_ms <= 0 || !(answer.tpot_ms > tpot_ms);  // an undefined TPOT counts as 0
}

struct Share {
  int64_t good = 0;
  double tokens = 0;
};
std::optional<Share> share_within(const SweepPoint& point, double ttft_ms, double tpot_ms) {
  if (!point.answers || (ttft_ms <= 0 && tpot_ms <= 0)) return std::nullopt;
  Share share;
  for (const SweepAnswer& answer : *point.answers)
    if (within(answer, ttft_ms, tpot_ms)) ++share.good, share.tokens += answer.output_tokens;
  return share;
}

double attainment(const SweepPoint& point, double ttft_ms, double tpot_ms) {
  const auto share = share_within(point, ttft_ms, tpot_ms);
  if (!share || point.issued <= 0) return NAN;
  return 100 * static_cast<double>(share->good) / static_cast<double>(point.issued);
}

double goodput(const SweepPoint& point, const SweepLimits& limits) {
  const auto share = share_within(point, limits.ttft_ms, limits.tpot_ms);
  return share && point.duration_s > 0 ? static_cast<double>(share->good) / point.duration_s : NAN;
}

double good_throughput(const SweepPoint& point, const SweepLimits& limits) {
  const auto share = share_within(point, limits.ttft_ms, limits.tpot_ms);
  return share && point.duration_s > 0 ? share->tokens / point.duration_s : NAN;
}

SweepPoint joined(const SweepPoint& a, const SweepPoint& b) {
  SweepPoint both = a;
  both.answers->insert(both.answers->end(), b.answers->begin(), b.answers->end());
  both.planned += b.planned, both.issued += b.issued, both.completed += b.completed;
  both.duration_s += b.duration_s;
  both.output_throughput = both.duration_s > 0 ? (tokens_of(a) + tokens_of(b)) / both.duration_s : 0;
  both.judged = a.judged && b.judged;
  if (both.problem.empty()) both.problem = b.problem;
  fill_from_answers(both);
  return both;
}

// Lines of all systems for one figure; points of which it is not known are left out, and so are lines without points.
template <class Value>
void add_lines(report::SweepPanel& panel, const std::vector<SweepSystem>& systems, const std::string& measure,
               const Value& value) {
  for (const SweepSystem& system : systems) {
    report::SweepLine line{.system = system.name, .measure = measure, .x = {}, .y = {}};
    for (const SweepPoint& point : system.points)
      if (const double y = value(point); std::isfinite(y)) line.x.push_back(point.rate), line.y.push_back(y);
    if (!line.x.empty()) panel.lines.push_back(std::move(line));
  }
}

// A band for a line whose points all have one.
template <class Band>
void add_band(report::SweepLine& line, const SweepSystem& system, const Band& band) {
  std::vector<double> low, high;
  for (const SweepPoint& point : system.points)
    if (std::find(line.x.begin(), line.x.end(), point.rate) != line.x.end())
      if (const std::optional<report::Interval> i = band(point)) low.push_back(i->low), high.push_back(i->high);
  if (low.size() == line.x.size()) line.low = std::move(low), line.high = std::move(high);
}

template <class Band>
void add_bands(report::SweepPanel& panel, const std::vector<SweepSystem>& systems, const Band& band) {
  for (report::SweepLine& line : panel.lines)
    for (const SweepSystem& system : systems)
      if (system.name == line.system) add_band(line, system, band);
}

report::SweepPanel latency_panel(const std::vector<SweepSystem>& systems, const char* title, double SweepPoint::*p90,
                                 double SweepAnswer::*figure, double limit_ms) {
  report::SweepPanel panel{title, {.label = "ms", .min = 0}, {}};
  add_lines(panel, systems, "", [&](const SweepPoint& point) { return point.*p90; });
  add_bands(panel, systems, [&](const SweepPoint& point) -> std::optional<report::Interval> {
    const report::Sample replicates(report::bootstrap_percentiles(sample_of(point, figure), kPanelPercent));
    if (replicates.empty()) return std::nullopt;
    return report::Interval{replicates.percentile(2.5), replicates.percentile(97.5)};
  });
  if (limit_ms > 0) panel.limits.push_back({fmt::format("{:g} ms", limit_ms), limit_ms});
  return panel;
}

report::SweepPanel attainment_panel(const std::vector<SweepSystem>& systems, const SweepLimits& limits) {
  report::SweepPanel panel{"Requests within the limits", {.label = "%", .min = 0, .max = 110}, {}};
  panel.at_least = true;
  const auto share = [](double ttft_ms, double tpot_ms) {
    return [=](const SweepPoint& point) { return attainment(point, ttft_ms, tpot_ms); };
  };
  add_lines(panel, systems, "", share(limits.ttft_ms, limits.tpot_ms));
  add_bands(panel, systems, [&](const SweepPoint& point) {
    const auto good = share_within(point, limits.ttft_ms, limits.tpot_ms);
    auto interval = report::proportion_interval(good ? good->good : 0, point.issued);
    if (interval) interval->low *= 100, interval->high *= 100;
    return interval;
  });
  if (limits.ttft_ms > 0 && limits.tpot_ms > 0) {
    add_lines(panel, systems, "TPOT alone", share(0, limits.tpot_ms));
    add_lines(panel, systems, "TTFT alone", share(limits.ttft_ms, 0));
  }
  if (!panel.lines.empty()) panel.limits.push_back({"90 %", kWantedShare});
  return panel;
}

report::SweepPanel throughput_panel(const std::vector<SweepSystem>& systems, const SweepLimits& limits) {
  report::SweepPanel panel{"Output throughput and goodput", {.label = "tokens/s", .min = 0}, {}};
  add_lines(panel, systems, "", [](const SweepPoint& point) { return point.output_throughput; });
  add_lines(panel, systems, "within the limits",
            [&](const SweepPoint& point) { return good_throughput(point, limits); });
  return panel;
}

std::string problems_of(const std::vector<SweepSystem>& systems) {
  std::string all;
  for (const SweepSystem& system : systems)
    for (const SweepPoint& point : system.points)
      if (!point.problem.empty() && all.size() < 300)
        all +=
            fmt::format("{}{} at {:g} requests/s: {}", all.empty() ? "" : "; ", system.name, point.rate, point.problem);
  return all;
}

bool has_rate(const RunRecord& run) { return run.request_rate > 0 && std::isfinite(run.request_rate); }

std::string number(double value) { return std::isfinite(value) ? report::format_number(value) : "-"; }

}  // namespace

void fill_from_answers(SweepPoint& point) {
  const report::Sample e2el = sample_of(point, &SweepAnswer::e2el_ms);
  point.ttft_p90_ms = sample_of(point, &SweepAnswer::ttft_ms).percentile(kPanelPercent);
  point.tpot_p90_ms = sample_of(point, &SweepAnswer::tpot_ms).percentile(kPanelPercent);
  point.e2el_p90_ms = e2el.percentile(kPanelPercent);
  point.e2el_mean_ms = e2el.mean();
  point.e2el_median_ms = e2el.percentile(50);
}

SweepPoint sweep_point(const Point& p) {
  const Measures& m = p.measures;
  SweepPoint point{.rate = p.run.request_rate,
                   .planned = p.run.planned_requests,
                   .issued = m.issued - m.interrupted,
                   .completed = m.completed,
                   .answers = std::vector<SweepAnswer>(),
                   .output_throughput = m.output_throughput,
                   .duration_s = m.duration_s};
  for (const RequestRecord& r : p.run.requests)
    if (r.outcome == Outcome::kCompleted)
      point.answers->push_back({ttft_ms(r).value_or(NAN), tpot_ms(r).value_or(NAN), e2el_ms(r).value_or(NAN),
                                static_cast<double>(std::max<int64_t>(r.output_tokens, 0))});
  fill_from_answers(point);
  point.judged = true;
  for (const Check& check : p.checks)
    if (check.level == Level::kInvalid && point.problem.empty()) point.problem = check.name + " " + check.found;
  return point;
}

std::vector<SweepSystem> sweep_systems(const std::vector<Point>& points) {
  std::vector<SweepSystem> systems;
  bool several = false;
  for (const Point& p : points) several = several || p.run.dataset != points.front().run.dataset;
  for (const Point& p : points) {
    if (!has_rate(p.run)) continue;
    std::string name = p.run.model.empty() ? "server" : p.run.model;
    if (several) name += ", " + p.run.dataset;
    auto found = std::find_if(systems.begin(), systems.end(), [&](const SweepSystem& s) { return s.name == name; });
    if (found == systems.end()) found = systems.insert(systems.end(), {name, {}});
    found->points.push_back(sweep_point(p));
  }
  return systems;
}

SweepLimits sweep_limits(const std::vector<Limit>& limits) {
  SweepLimits found;
  for (const Limit& limit : limits) {
    if (limit.metric == Metric::kTtft) found.ttft_ms = limit.ms;
    if (limit.metric == Metric::kTpot) found.tpot_ms = limit.ms;
  }
  return found;
}

Status merge_equal_rates(SweepSystem& system) {
  std::stable_sort(system.points.begin(), system.points.end(),
                   [](const SweepPoint& a, const SweepPoint& b) { return a.rate < b.rate; });
  std::vector<SweepPoint> merged;
  for (SweepPoint& point : system.points) {
    if (merged.empty() || merged.back().rate != point.rate) {
      merged.push_back(std::move(point));
      continue;
    }
    if (!merged.back().answers || !point.answers)
      return invalid_argument(
          "{}: two results at {:g} requests/s, and not both list their requests, so they cannot be joined; remove one",
          system.name, point.rate);
    merged.back() = joined(merged.back(), point);
  }
  system.points = std::move(merged);
  return {};
}

report::Sweep rate_sweep(std::string title, const std::vector<SweepSystem>& systems, const SweepLimits& limits) {
  report::Sweep sweep{std::move(title), {.label = "request rate (1/s)"}, {}};
  for (report::SweepPanel& panel :
       std::vector{latency_panel(systems, "P90 Time to First Token", &SweepPoint::ttft_p90_ms, &SweepAnswer::ttft_ms,
                                 limits.ttft_ms),
                   latency_panel(systems, "P90 Time per Output Token", &SweepPoint::tpot_p90_ms, &SweepAnswer::tpot_ms,
                                 limits.tpot_ms),
                   attainment_panel(systems, limits), throughput_panel(systems, limits)})
    if (!panel.lines.empty()) sweep.panels.push_back(std::move(panel));
  sweep.invalid_reason = problems_of(systems);
  return sweep;
}

report::Table sweep_table(const std::vector<SweepSystem>& systems, const SweepLimits& limits) {
  report::Table table({{"system", report::Align::kLeft},
                       {"req/s", report::Align::kRight, "the rate that was asked for"},
                       {"requests", report::Align::kRight, "sent"},
                       {"ok", report::Align::kRight, "completed"},
                       {"TTFT p90", report::Align::kRight, "ms"},
                       {"TPOT p90", report::Align::kRight, "ms"},
                       {"E2EL mean", report::Align::kRight, "ms"},
                       {"E2EL p50", report::Align::kRight, "ms"},
                       {"E2EL p90", report::Align::kRight, "ms"},
                       {"out tok/s", report::Align::kRight, "output tokens / D"},
                       {"SLO %", report::Align::kRight, "requests within the limits / requests sent"},
                       {"goodput", report::Align::kRight, "requests/s within the limits"},
                       {"valid", report::Align::kLeft}});
  for (const SweepSystem& system : systems)
    for (const SweepPoint& p : system.points)
      table.add_row({system.name, fmt::format("{:g}", p.rate), std::to_string(p.issued), std::to_string(p.completed),
                     number(p.ttft_p90_ms), number(p.tpot_p90_ms), number(p.e2el_mean_ms), number(p.e2el_median_ms),
                     number(p.e2el_p90_ms), number(p.output_throughput),
                     number(attainment(p, limits.ttft_ms, limits.tpot_ms)), number(goodput(p, limits)),
                     !p.problem.empty() ? "INVALID"
                     : p.judged         ? "ok"
                                        : "unknown"});
  return table;
}

namespace {

// The lowest rate at which a P90 latency of a system breaks its limit.
struct Edge {
  std::string system;
  std::optional<report::Crossing> crossing;
};

std::vector<Edge> edges_of(const report::Sweep& sweep) {
  std::vector<Edge> edges;
  for (const report::Crossing& c : report::crossings(sweep)) {
    if (!c.panel.starts_with("P90 ")) continue;
    auto found = std::find_if(edges.begin(), edges.end(), [&](const Edge& e) { return e.system == c.system; });
    if (found == edges.end()) found = edges.insert(edges.end(), {c.system, {}});
    if (c.x && (!found->crossing || *c.x < *found->crossing->x)) found->crossing = c;
  }
  return edges;
}

std::string edge_text(const Edge& edge) {
  if (!edge.crossing) return fmt::format("{} keeps the limits at every rate that was measured", edge.system);
  if (edge.crossing->before_first)
    return fmt::format("{} breaks a limit at its lowest rate, {:g} requests/s ({})", edge.system, *edge.crossing->x,
                       edge.crossing->panel);
  return fmt::format("{} keeps the limits up to {} requests/s ({})", edge.system,
                     report::format_number(*edge.crossing->x), edge.crossing->panel);
}

bool exact(const Edge& edge) { return edge.crossing && !edge.crossing->before_first; }

}  // namespace

std::string sustained_text(const report::Sweep& sweep) {
  const std::vector<Edge> edges = edges_of(sweep);
  std::string text;
  for (const Edge& edge : edges) {
    text += (text.empty() ? "" : "; ") + edge_text(edge);
    if (&edge != &edges.front() && exact(edge) && exact(edges.front()))
      text += fmt::format(", {} times that of {}",
                          report::format_number(*edge.crossing->x / *edges.front().crossing->x), edges.front().system);
  }
  return text.empty() ? text : text + ".";
}

}  // namespace millrace::bench
