#include "bench/html.h"

#include <algorithm>
#include <cmath>

#include "bench/outputs.h"
#include "report/chart.h"

namespace millrace::bench {
namespace {

constexpr double kPanelPercent = 90;

// Every check of every point, so that one bad point marks the report.
report::Validity all_checks(const std::vector<Point>& points) {
  report::Validity all;
  for (const Point& p : points) {
    const report::Validity own = validity_of(p);
    for (report::ValidityItem item : own.items()) {
      if (points.size() > 1) item.name = point_name(p.run) + ": " + item.name;
      all.add(std::move(item));
    }
  }
  return all;
}

bool has_rate(const Point& p) { return p.run.request_rate > 0 && !std::isinf(p.run.request_rate); }

// Tokens that came in each second, and requests under way at its end.
report::LineChart timeline(const Point& p, const std::string& invalid) {
  const auto seconds = static_cast<size_t>(std::max(0.0, p.run.wall_s)) + 1;
  report::Series tokens{
      .name = "output tokens/s", .x = std::vector<double>(seconds), .y = std::vector<double>(seconds)};
  for (size_t s = 0; s < seconds; ++s) tokens.x[s] = static_cast<double>(s);
  for (const RequestRecord& r : p.run.requests)
    for (const Chunk& chunk : r.chunks)
      if (const auto s = static_cast<size_t>(chunk.at_s); s < seconds) tokens.y[s] += chunk.tokens;
  tokens.steps = true;
  return {.title = "Output tokens in each second",
          .x = {.label = "s since the start"},
          .y = {.label = "tokens/s", .min = 0},
          .series = {std::move(tokens)},
          .invalid_reason = invalid};
}

report::LineChart under_way(const Point& p, const std::string& invalid) {
  report::Series series{.name = "requests under way", .steps = true};
  for (const auto& [moment, number] : concurrency_steps(p.run)) {
    series.x.push_back(moment);
    series.y.push_back(static_cast<double>(number));
  }
  return {.title = "Requests under way",
          .x = {.label = "s since the start"},
          .y = {.label = "requests", .min = 0},
          .series = {std::move(series)},
          .invalid_reason = invalid};
}

report::WaterfallChart waterfall(const Point& p, const std::string& invalid) {
  report::WaterfallChart chart{.title = "Requests",
                               .x = {.label = "s since the start"},
                               .phases = {"waiting in the client", "to the first token", "to the last token"},
                               .invalid_reason = invalid};
  for (const RequestRecord& r : p.run.requests) {
    report::WaterfallRow row{.start = r.scheduled_s, .failed = r.outcome != Outcome::kCompleted};
    for (const double end : {r.sent_s, r.first_token_s, r.last_token_s})
      if (end != kNever) row.ends.push_back(end);
    if (row.failed && row.ends.empty()) row.ends.push_back(std::max(r.done_s, r.scheduled_s));
    chart.rows.push_back(std::move(row));
  }
  return chart;
}

report::LineChart distribution(const Point& p, std::string title, const std::vector<Metric>& metrics,
                               const std::string& invalid) {
  std::vector<report::NamedSample> samples;
  for (const Metric metric : metrics)
    samples.push_back({kMetricTitles[static_cast<size_t>(metric)], &p.measures.sample(metric)});
  report::LineChart chart = report::distribution_chart(std::move(title), {.label = "ms"}, samples);
  for (const Limit& limit : p.measures.limits)
    if (std::find(metrics.begin(), metrics.end(), limit.metric) != metrics.end())
      chart.limits.push_back({fmt::format("limit {:g} ms", limit.ms), limit.ms, true});
  chart.invalid_reason = invalid;
  return chart;
}

void add_point(report::HtmlReport& html, const Point& p) {
  const std::string invalid = validity_of(p).reason();
  html.begin_panel(point_name(p.run), fmt::format("{} of {} requests completed in {:.2f} s.", p.measures.completed,
                                                  p.measures.issued, p.measures.duration_s));
  html.add_table(metrics_table(p));
  html.add_chart(to_svg(distribution(p, "Time to first token", {Metric::kTtft, Metric::kTtftSched}, invalid)));
  html.add_chart(to_svg(distribution(p, "Between tokens", {Metric::kTpot, Metric::kItl, Metric::kChunkGap}, invalid)));
  html.add_chart(to_svg(distribution(p, "End to end", {Metric::kE2el, Metric::kE2elSched}, invalid)));
  html.add_chart(to_svg(timeline(p, invalid)));
  html.add_chart(to_svg(under_way(p, invalid)));
  html.add_chart(to_svg(waterfall(p, invalid)));
}

// One column per moment and count of the requests.
Json request_columns(const RunRecord& run) {
  std::vector<double> scheduled, sent, first, last, done, prompt, output, outcome;
  for (const RequestRecord& r : run.requests) {
    const auto add = [](std::vector<double>& column, double value) { column.push_back(value == kNever ? NAN : value); };
    add(scheduled, r.scheduled_s), add(sent, r.sent_s), add(first, r.first_token_s), add(last, r.last_token_s);
    add(done, r.done_s), add(prompt, static_cast<double>(r.prompt_tokens)),
        add(output, static_cast<double>(r.output_tokens));
    outcome.push_back(static_cast<double>(r.outcome));
  }
  return {{"scheduled_s", report::number_column(scheduled)}, {"sent_s", report::number_column(sent)},
          {"first_token_s", report::number_column(first)},   {"last_token_s", report::number_column(last)},
          {"done_s", report::number_column(done)},           {"prompt_tokens", report::number_column(prompt)},
          {"output_tokens", report::number_column(output)},  {"outcome", report::number_column(outcome)}};
}

Json data_of(const std::vector<Point>& points) {
  Json list = summary_result(points)["points"];
  for (size_t i = 0; i < points.size(); ++i) list[i]["requests"] = request_columns(points[i].run);
  return {{"outcomes", kOutcomeNames}, {"points", std::move(list)}};
}

double limit_of(const std::vector<Point>& points, Metric metric) {
  for (const Limit& limit : points.front().measures.limits)
    if (limit.metric == metric) return limit.ms;
  return 0;
}

}  // namespace

report::HtmlReport html_report(const std::string& title, const std::vector<Point>& points) {
  report::HtmlReport html(title, all_checks(points));
  const RunRecord& run = points.front().run;
  html.add_fact("server", run.endpoint);
  html.add_fact("model", run.model);
  html.add_fact("back end", run.backend);
  html.add_fact("data", run.dataset);
  html.add_fact("started", run.started_at);
  html.begin_panel("Points");
  html.add_table(summary_table(points));
  if (std::count_if(points.begin(), points.end(), has_rate) > 1) {
    SystemPoints system{.name = run.model.empty() ? "server" : run.model};
    for (const Point& p : points) system.points.push_back(&p);
    html.begin_panel("Against the request rate");
    html.add_chart(rate_panels({system}, limit_of(points, Metric::kTtft), limit_of(points, Metric::kTpot)));
  }
  for (const Point& p : points) add_point(html, p);
  html.set_data(data_of(points));
  return html;
}

namespace {

struct Curve {
  double rate;
  const Point* point;
};

std::vector<Curve> by_rate(const SystemPoints& system) {
  std::vector<Curve> curve;
  for (const Point* p : system.points)
    if (has_rate(*p)) curve.push_back({p->run.request_rate, p});
  std::sort(curve.begin(), curve.end(), [](const Curve& a, const Curve& b) { return a.rate < b.rate; });
  return curve;
}

template <class Value>
report::Series series_of(const SystemPoints& system, std::string name, int colour, report::Stroke stroke,
                         const Value& value) {
  report::Series series{.name = std::move(name), .colour = colour, .stroke = stroke, .markers = true};
  for (const Curve& c : by_rate(system)) {
    series.x.push_back(c.rate);
    series.y.push_back(value(*c.point));
  }
  return series;
}

// P90 with the 95 % band of its bootstrap replicates.
report::Series percentile_series(const SystemPoints& system, Metric metric, int colour) {
  report::Series series = series_of(system, system.name, colour, report::Stroke::kSolid, [&](const Point& p) {
    return p.measures.sample(metric).percentile(kPanelPercent);
  });
  for (const Curve& c : by_rate(system)) {
    const report::Sample replicates(report::bootstrap_percentiles(c.point->measures.sample(metric), kPanelPercent));
    series.low.push_back(replicates.percentile(2.5));
    series.high.push_back(replicates.percentile(97.5));
  }
  return series;
}

double attained(const Point& p, double ttft_ms, double tpot_ms) {
  std::vector<Limit> limits;
  if (ttft_ms > 0) limits.push_back({Metric::kTtft, ttft_ms});
  if (tpot_ms > 0) limits.push_back({Metric::kTpot, tpot_ms});
  return measure(p.run, limits).attainment * 100;
}

report::LineChart percentile_panel(const std::vector<SystemPoints>& systems, Metric metric, double limit_ms) {
  report::LineChart chart{.title = fmt::format("P90 {}", kMetricTitles[static_cast<size_t>(metric)]),
                          .x = {.label = "requests/s"},
                          .y = {.label = "ms", .min = 0}};
  for (size_t i = 0; i < systems.size(); ++i)
    chart.series.push_back(percentile_series(systems[i], metric, static_cast<int>(i)));
  if (limit_ms > 0) chart.limits.push_back({fmt::format("limit {:g} ms", limit_ms), limit_ms});
  return chart;
}

report::LineChart attainment_panel(const std::vector<SystemPoints>& systems, double ttft_ms, double tpot_ms) {
  report::LineChart chart{
      .title = "Requests within the limits", .x = {.label = "requests/s"}, .y = {.label = "%", .min = 0, .max = 110}};
  for (size_t i = 0; i < systems.size(); ++i) {
    const auto add = [&](const char* what, report::Stroke stroke, double ttft, double tpot) {
      chart.series.push_back(series_of(systems[i], systems[i].name + what, static_cast<int>(i), stroke,
                                       [&](const Point& p) { return attained(p, ttft, tpot); }));
    };
    add("", report::Stroke::kSolid, ttft_ms, tpot_ms);
    if (ttft_ms > 0 && tpot_ms > 0) {
      add(", TTFT alone", report::Stroke::kDotted, ttft_ms, 0);
      add(", TPOT alone", report::Stroke::kDashed, 0, tpot_ms);
    }
  }
  chart.limits.push_back({"90 %", 90});
  return chart;
}

report::LineChart throughput_panel(const std::vector<SystemPoints>& systems, double ttft_ms, double tpot_ms) {
  report::LineChart chart{.title = "Output throughput, and that of requests within the limits",
                          .x = {.label = "requests/s"},
                          .y = {.label = "tokens/s", .min = 0}};
  for (size_t i = 0; i < systems.size(); ++i) {
    const int colour = static_cast<int>(i);
    chart.series.push_back(series_of(systems[i], systems[i].name, colour, report::Stroke::kSolid,
                                     [](const Point& p) { return p.measures.output_throughput; }));
    chart.series.push_back(
        series_of(systems[i], systems[i].name + ", within", colour, report::Stroke::kDashed,
                  [&](const Point& p) { return p.measures.output_throughput * attained(p, ttft_ms, tpot_ms) / 100; }));
  }
  return chart;
}

}  // namespace

std::string rate_panels(const std::vector<SystemPoints>& systems, double ttft_limit_ms, double tpot_limit_ms) {
  return report::svg_grid("Against the request rate",
                          {to_svg(percentile_panel(systems, Metric::kTtft, ttft_limit_ms)),
                           to_svg(percentile_panel(systems, Metric::kTpot, tpot_limit_ms)),
                           to_svg(attainment_panel(systems, ttft_limit_ms, tpot_limit_ms)),
                           to_svg(throughput_panel(systems, ttft_limit_ms, tpot_limit_ms))},
                          2);
}

}  // namespace millrace::bench
