#include "bench/html.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "bench/outputs.h"
#include "bench/rate_sweep.h"
#include "report/chart.h"

namespace millrace::bench {
namespace {

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

// The panels against the rate, where there are several.
void add_rates(report::HtmlReport& html, const std::vector<Point>& points) {
  std::vector<SweepSystem> systems = sweep_systems(points);
  for (SweepSystem& system : systems) MR_CHECK(merge_equal_rates(system).ok(), "measured points have their requests");
  std::erase_if(systems, [](const SweepSystem& system) { return system.points.size() < 2; });
  if (systems.empty()) return;
  const report::Sweep sweep =
      rate_sweep("Against the request rate", systems, sweep_limits(points.front().measures.limits));
  report::add_sweep(html, sweep);
  if (const std::string text = sustained_text(sweep); !text.empty()) html.add_text(text);
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
  add_rates(html, points);
  for (const Point& p : points) add_point(html, p);
  html.set_data(data_of(points));
  return html;
}

}  // namespace millrace::bench
