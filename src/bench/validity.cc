#include "bench/validity.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace millrace::bench {
namespace {

constexpr double kMaxLagMs = 1, kMaxLagShare = 0.02;  // of the median TTFT
constexpr double kMinSlopeSeconds = 30;               // shorter runs have no trend worth a verdict

double percent(int64_t part, int64_t whole) {
  return whole > 0 ? 100.0 * static_cast<double>(part) / static_cast<double>(whole) : 0;
}

Check cpu_share(const RunRecord& run) {
  const double share = run.client.cpu_share;
  const Level level = share > kMaxCpuShare        ? Level::kInvalid
                      : share > kDoubtfulCpuShare ? Level::kDoubtful
                                                  : Level::kGood;
  return {"client CPU", level,
          fmt::format("busiest of {} loops {:.0f} %, all of them {:.0f} % of the machine", run.client.loops,
                      share * 100, run.client.process_cpu_share * 100),
          fmt::format("at most {:.0f} %", kMaxCpuShare * 100)};
}

Check loop_lag(const RunRecord& run, const Measures& m) {
  const report::Sample lag(run.client.loop_lag_ms);
  if (lag.size() < 10) return {"event-loop lag", Level::kGood, "the run was too short to tell", "", /*known=*/false};
  const double p99 = lag.percentile(99), limit = lag_limit_ms(m.sample(Metric::kTtft).percentile(50));
  return {"event-loop lag", p99 > limit ? Level::kInvalid : Level::kGood, fmt::format("p99 {:.2f} ms", p99),
          fmt::format("at most {:.2f} ms (1 ms and 2 % of the median TTFT)", limit)};
}

Check late_sends(const RunRecord& run, const Measures& m) {
  if (m.late_ms.empty()) return {"late sends", Level::kGood, "nothing was sent"};
  const double p99 = m.late_ms.percentile(99);
  const bool open = run.request_rate > 0 && !std::isinf(run.request_rate);
  const Level level = open && p99 > kDoubtfulLateMs ? Level::kDoubtful : Level::kGood;
  return {"late sends", level, fmt::format("p99 of send after schedule {:.2f} ms", p99), open ? "at most 10 ms" : ""};
}

Check short_outputs(const Measures& m) {
  const double share = percent(m.short_outputs, m.completed);
  return {"short outputs",
          share > 100 * kMaxShortShare ? Level::kInvalid
          : share > 0                  ? Level::kDoubtful
                                       : Level::kGood,
          fmt::format("{} of {} ended before the wanted length", m.short_outputs, m.completed), "none, at most 5 %"};
}

Check failures(const Measures& m) {
  std::string kinds;
  for (size_t i = 0; i < std::size(kOutcomeNames); ++i)
    if (m.failures[i] > 0)
      kinds += fmt::format("{}{} {}", kinds.empty() ? ": " : ", ", m.failures[i], kOutcomeNames[i]);
  const double share = percent(m.failed, m.issued);
  const Level level = m.completed == 0 || share > 100 * kMaxFailedShare ? Level::kInvalid
                      : m.failed + m.interrupted > 0                    ? Level::kDoubtful
                                                                        : Level::kGood;
  return {"failures", level, fmt::format("{} of {} failed{}", m.failed, m.issued, kinds), "none, at most 5 %"};
}

Check token_counts(const RunRecord& run, const Measures& m) {
  int64_t retokenised = 0;
  for (const RequestRecord& r : run.requests) retokenised += r.output_source == CountSource::kTokenizer;
  if (m.uncounted > 0)
    return {"token counts", Level::kInvalid,
            fmt::format("{} answers state no usage; give --tokenizer to count them", m.uncounted)};
  if (retokenised > 0)
    return {"token counts", Level::kDoubtful, fmt::format("{} answers counted by the client's tokenizer", retokenised)};
  if (run.inexact_prompts > 0)
    return {"token counts", Level::kDoubtful, fmt::format("{} prompts miss the wanted length", run.inexact_prompts)};
  if (!run.prompt_note.empty()) return {"token counts", Level::kDoubtful, run.prompt_note};
  return {"token counts", Level::kGood, "stated by the server"};
}

Check cached_tokens(const RunRecord& run, const Measures& m) {
  if (m.cached_tokens == kUnknown && run.prefix_cache.known && run.prefix_cache.query_tokens > 0) {
    const double share = 100 * run.prefix_cache.hit_tokens / run.prefix_cache.query_tokens;
    return {"cached prompt tokens", share > 10 ? Level::kDoubtful : Level::kGood,
            fmt::format("{:.1f} % of the prompt tokens came from the prefix cache, by the server's counters", share)};
  }
  if (m.cached_tokens == kUnknown)
    return {"cached prompt tokens", Level::kGood, "the server does not say", "", /*known=*/false};
  const double share = percent(m.cached_tokens, m.cached_base_tokens);
  return {"cached prompt tokens", share > 10 ? Level::kDoubtful : Level::kGood,
          fmt::format("{:.1f} % of the prompt tokens came from the prefix cache", share)};
}

Check token_times(const Measures& m) {
  const std::string coalesced =
      fmt::format("{:.1f} % of the events shared a read", percent(m.coalesced_events, m.events));
  if (m.itl_estimated)
    return {"token times", Level::kDoubtful, "the events state no token counts, so ITL is an estimate; " + coalesced};
  return {"token times", Level::kGood, coalesced};
}

Check sample_size(const Measures& m) {
  return {"sample size", m.completed < 100 ? Level::kDoubtful : Level::kGood,
          fmt::format("{} requests; P99 rests on {} of them", m.completed, m.completed / 100)};
}

// A run that was stopped has figures of what it did until then.
Check whole(const RunRecord& run) {
  return {"whole run", run.interrupted ? Level::kDoubtful : Level::kGood,
          run.interrupted
              ? fmt::format("interrupted after {} of {} requests", run.requests.size(), run.planned_requests)
              : "all requests were sent",
          "not interrupted"};
}

Check idle_server(const RunRecord& run) {
  const bool busy = run.idle_note.find("busy") != std::string::npos;
  return {"idle server", busy ? Level::kDoubtful : Level::kGood,
          run.idle_note.empty() ? "nothing was running or waiting before" : run.idle_note};
}

// An open loop beyond what the server can do: requests under way and TTFT grow for as long as it runs.
Check saturation(const RunRecord& run, const Measures& m) {
  const std::string name = "saturation";
  if (!(run.request_rate > 0) || std::isinf(run.request_rate)) return {name, Level::kGood, "not an open loop"};
  if (run.last_issue_s < kMinSlopeSeconds)
    return {name, Level::kGood, "shorter than 30 s: no trend can be told", "", /*known=*/false};
  std::vector<double> x, ttft, t, under_way;
  for (const RequestRecord& r : run.requests)
    if (const auto value = ttft_ms(r)) x.push_back(r.sent_s), ttft.push_back(*value);
  for (const auto& [moment, number] : concurrency_steps(run))
    if (moment <= run.last_issue_s) t.push_back(moment), under_way.push_back(static_cast<double>(number));
  const report::Trend a = report::linear_trend(x, ttft), b = report::linear_trend(t, under_way);
  const bool grows = a.slope_interval && b.slope_interval && a.slope_interval->low > 0 && b.slope_interval->low > 0;
  const bool heavy = !m.sample(Metric::kTtft).empty() && m.sample(Metric::kTtft).percentile(50) > 2500;
  return {name,
          grows && heavy ? Level::kInvalid
          : grows        ? Level::kDoubtful
                         : Level::kGood,
          grows
              ? fmt::format("TTFT grows by {:.1f} ms a second and the queue with it: percentiles depend on the length "
                            "of the run",
                            a.slope)
              : "neither TTFT nor the queue grows"};
}

}  // namespace

double lag_limit_ms(double median_ttft_ms) {
  return median_ttft_ms > 0 ? std::min(kMaxLagMs, kMaxLagShare * median_ttft_ms) : kMaxLagMs;
}

std::vector<Check> check_validity(const RunRecord& run, const Measures& m) {
  return {cpu_share(run),       loop_lag(run, m),      late_sends(run, m), short_outputs(m), failures(m),
          token_counts(run, m), cached_tokens(run, m), token_times(m),     sample_size(m),   saturation(run, m),
          whole(run),           idle_server(run)};
}

std::string invalid_because(const std::vector<Check>& checks) {
  std::string reasons;
  for (const Check& c : checks)
    if (c.level == Level::kInvalid)
      reasons += fmt::format("{}{}: {}{}", reasons.empty() ? "" : "; ", c.name, c.found,
                             c.wanted.empty() ? "" : " (wanted: " + c.wanted + ")");
  return reasons;
}

Level worst(const std::vector<Check>& checks) {
  Level level = Level::kGood;
  for (const Check& check : checks) level = std::max(level, check.level);
  return level;
}

}  // namespace millrace::bench
