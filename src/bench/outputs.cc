#include "bench/outputs.h"

#include <algorithm>
#include <cmath>

#include "bench/csv.h"
#include "report/comparison.h"

namespace millrace::bench {
namespace {

std::string padded(const std::string& label, const std::string& value) {
  return fmt::format("{:<40} {:<10}\n", label, value);
}
std::string padded(const std::string& label, int64_t value) { return padded(label, std::to_string(value)); }
std::string padded(const std::string& label, double value) { return padded(label, fmt::format("{:.2f}", value)); }
std::string centred(const std::string& text, char rule) {
  const size_t left = (50 - std::min<size_t>(50, text.size())) / 2;
  return std::string(left, rule) + text + std::string(50 - std::min<size_t>(50, text.size() + left), rule) + "\n";
}

// "99" for 99, "99.9" for 99.9.
std::string percent_name(double percent) { return fmt::format("{:g}", percent); }

std::string latency_rows(const report::Sample& sample, Metric metric, const std::vector<double>& percentiles) {
  std::string name = kMetricNames[static_cast<size_t>(metric)];
  for (char& c : name) c = c >= 'a' && c <= 'z' ? static_cast<char>(c - 32) : c;
  std::string out = centred(kMetricTitles[static_cast<size_t>(metric)], '-');
  out += padded(fmt::format("Mean {} (ms):", name), sample.mean());
  out += padded(fmt::format("Median {} (ms):", name), sample.percentile(50));
  for (const double percent : percentiles)
    out += padded(fmt::format("P{} {} (ms):", percent_name(percent), name), sample.percentile(percent));
  return out;
}

std::string acceptance_rows(const RunRecord& run) {
  const auto found = acceptance(run, run.num_speculative_tokens);
  if (!found) return "";
  std::string out = centred("Speculative Decoding", '-');
  if (found->estimated) out += padded("Acceptance rate, estimated (%):", found->rate * 100);
  if (found->estimated) return out + padded("Acceptance length, estimated:", found->length);
  out += padded("Acceptance rate (%):", found->rate * 100);
  out += padded("Acceptance length:", found->length);
  out += padded("Drafts:", static_cast<int64_t>(run.speculation.drafts));
  out += padded("Draft tokens:", static_cast<int64_t>(run.speculation.draft_tokens));
  out += padded("Accepted tokens:", static_cast<int64_t>(run.speculation.accepted_tokens));
  if (!found->per_position.empty()) out += "Per-position acceptance (%):\n";
  for (size_t i = 0; i < found->per_position.size(); ++i)
    out += padded(fmt::format("  Position {}:", i), found->per_position[i] * 100);
  return out;
}

std::string our_rows(const Point& p) {
  const Measures& m = p.measures;
  std::string out = centred("From the Schedule", '-');
  for (const Metric metric : {Metric::kTtftSched, Metric::kE2elSched}) {
    const char* name = metric == Metric::kTtftSched ? "TTFT" : "E2EL";
    out += padded(fmt::format("Mean {} from schedule (ms):", name), m.sample(metric).mean());
    out += padded(fmt::format("P99 {} from schedule (ms):", name), m.sample(metric).percentile(99));
  }
  out += padded("P99 send after schedule (ms):", m.late_ms.percentile(99));
  if (m.steady) {
    out += centred("Steady Window", '-');
    out += padded("Window (s):", fmt::format("{:.2f} to {:.2f}", m.steady->begin_s, m.steady->end_s));
    out += padded("Requests under way:", m.steady->concurrency);
    out += padded("Output token throughput (tok/s):", m.steady->output_throughput);
  }
  if (!m.limits.empty()) out += padded("SLO attainment (%):", m.attainment * 100);
  if (m.cached_tokens != kUnknown && m.cached_base_tokens > 0)
    out += padded("Cached prompt tokens (%):",
                  100 * static_cast<double>(m.cached_tokens) / static_cast<double>(m.cached_base_tokens));
  if (m.short_outputs > 0) out += padded("Short outputs:", m.short_outputs);
  if (m.interrupted > 0) out += padded("Interrupted requests:", m.interrupted);
  return out;
}

std::string number(double value, int digits = 2) {
  return std::isfinite(value) ? fmt::format("{:.{}f}", value, digits) : std::string("-");
}
std::string with_interval(double value, const std::optional<report::Interval>& interval) {
  if (!interval) return number(value);
  return fmt::format("{} [{}, {}]", number(value), number(interval->low), number(interval->high));
}

}  // namespace

std::string point_name(const RunRecord& run) {
  std::string name;
  if (run.command == "all" && run.request_rate >= 0) name = run.dataset + ", ";  // the only command with several
  if (run.input_tokens != kUnknown) name += fmt::format("{} in, ", run.input_tokens);
  if (run.output_tokens != kUnknown) name += fmt::format("{} out, ", run.output_tokens);
  if (run.request_rate >= 0) {
    name += std::isinf(run.request_rate) ? "all at once" : fmt::format("{:g} requests/s", run.request_rate);
    if (run.max_concurrency > 0) name += fmt::format(", at most {} at once", run.max_concurrency);
  } else {
    name += fmt::format("{} at once", run.max_concurrency);
  }
  return name;
}

report::Validity validity_of(const Point& point) {
  report::Validity validity;
  for (const Check& check : point.checks)
    validity.add({.name = check.name,
                  .found = (check.level == Level::kDoubtful ? "doubtful: " : "") + check.found,
                  .wanted = check.wanted.empty() ? "-" : check.wanted,
                  .mark = check.level == Level::kInvalid ? report::Mark::kBad
                          : check.known                  ? report::Mark::kGood
                                                         : report::Mark::kUnknown});
  return validity;
}

std::string vllm_text(const Point& p, const ShownMetrics& shown) {
  const Measures& m = p.measures;
  std::string out = centred(" Serving Benchmark Result ", '=');
  out += padded("Successful requests:", m.completed);
  out += padded("Failed requests:", m.failed);
  if (p.run.max_concurrency > 0) out += padded("Maximum request concurrency:", p.run.max_concurrency);
  if (p.run.request_rate > 0 && !std::isinf(p.run.request_rate))
    out += padded("Request rate configured (RPS):", p.run.request_rate);
  out += padded("Benchmark duration (s):", m.duration_s);
  out += padded("Total input tokens:", m.input_tokens);
  out += padded("Total generated tokens:", m.output_tokens);
  out += padded("Request throughput (req/s):", m.request_throughput);
  if (!m.limits.empty()) out += padded("Request goodput (req/s):", m.goodput);
  out += padded("Output token throughput (tok/s):", m.output_throughput);
  out += padded("Peak output token throughput (tok/s):", m.peak_output_throughput);
  out += padded("Peak concurrent requests:", static_cast<double>(m.peak_concurrency));
  out += padded("Total token throughput (tok/s):", m.total_throughput);
  for (const Metric metric : shown.metrics) out += latency_rows(m.sample(metric), metric, shown.percentiles);
  out += acceptance_rows(p.run) + our_rows(p);
  out += std::string(50, '=') + "\n";
  const Level level = worst(p.checks);
  if (level == Level::kInvalid) out += "THE FIGURES ABOVE ARE INVALID:\n";
  for (const Check& check : p.checks)
    if (check.level != Level::kGood || level != Level::kGood)
      out += fmt::format("  {:<9} {}: {}{}\n", check.known ? kLevelNames[static_cast<size_t>(check.level)] : "unknown",
                         check.name, check.found,
                         check.wanted.empty() || check.level == Level::kGood ? "" : ", wanted: " + check.wanted);
  return out;
}

report::Table summary_table(const std::vector<Point>& points) {
  report::Table table({{"point", report::Align::kLeft, ""},
                       {"ok", report::Align::kRight, "completed requests"},
                       {"failed", report::Align::kRight, ""},
                       {"req/s", report::Align::kRight, "completed / D"},
                       {"out tok/s", report::Align::kRight, "sum of n_out / D"},
                       {"steady", report::Align::kRight, "output tokens/s in the steady window"},
                       {"TTFT p50", report::Align::kRight, "t_1 - t_send, ms"},
                       {"TTFT p90", report::Align::kRight, "t_1 - t_send, ms"},
                       {"TPOT p50", report::Align::kRight, "(t_n - t_1) / (n_out - 1), ms"},
                       {"TPOT p90", report::Align::kRight, "(t_n - t_1) / (n_out - 1), ms"},
                       {"E2EL p90", report::Align::kRight, "t_n - t_send, ms"},
                       {"SLO %", report::Align::kRight, "requests within all limits / requests issued"},
                       {"validity", report::Align::kLeft, ""}});
  for (const Point& p : points) {
    const Measures& m = p.measures;
    const auto at = [&](Metric metric, double percent) { return number(m.sample(metric).percentile(percent)); };
    table.add_row(
        {point_name(p.run), std::to_string(m.completed), std::to_string(m.failed), number(m.request_throughput, 3),
         number(m.output_throughput, 1), m.steady ? number(m.steady->output_throughput, 1) : "-", at(Metric::kTtft, 50),
         at(Metric::kTtft, 90), at(Metric::kTpot, 50), at(Metric::kTpot, 90), at(Metric::kE2el, 90),
         m.limits.empty() ? "-" : number(m.attainment * 100, 1), kLevelNames[static_cast<size_t>(worst(p.checks))]});
  }
  return table;
}

report::Table metrics_table(const Point& p) {
  std::vector<report::Column> columns = {{"ms", report::Align::kLeft, ""}, {"mean [95 %]"}, {"min"}, {"max"}};
  for (const double percent : report::kUsualPercents) columns.push_back({"P" + percent_name(percent) + " [95 %]"});
  report::Table table(columns);
  for (size_t i = 0; i < static_cast<size_t>(Metric::kCount); ++i) {
    const report::Summary s = report::summarize(p.measures.samples[i]);
    std::string name = kMetricTitles[i];
    if (static_cast<Metric>(i) == Metric::kItl && p.measures.itl_estimated) name += " (estimated)";
    std::vector<std::string> row = {name, with_interval(s.mean, s.mean_interval), number(s.min), number(s.max)};
    for (const report::Percentile& q : s.percentiles) row.push_back(with_interval(q.value, q.interval));
    table.add_row(std::move(row));
  }
  if (const std::string reason = validity_of(p).reason(); !reason.empty()) table.mark_invalid(reason);
  return table;
}

namespace {

Json or_null(double value) { return std::isfinite(value) ? Json(value) : Json(); }

// A list with one entry for each request.
template <class Value>
OrderedJson per_request(const RunRecord& run, const Value& value) {
  OrderedJson list = OrderedJson::array();
  for (const RequestRecord& r : run.requests) list.push_back(value(r, r.outcome == Outcome::kCompleted));
  return list;
}

OrderedJson gaps_of(const RequestRecord& r, bool good) {
  OrderedJson gaps = OrderedJson::array();
  for (size_t i = 1; good && i < r.chunks.size(); ++i) gaps.push_back(r.chunks[i].at_s - r.chunks[i - 1].at_s);
  return gaps;
}

// Seconds that the request waited in the client.
double queued_s(const RequestRecord& r, bool) {
  return r.sent_s == kNever ? 0 : std::max(0.0, r.sent_s - r.scheduled_s);
}

// vLLM's per-request lists, in its order; failed requests are in them with zeros. Latencies and waiting times are
// always kept.
void add_details(const RunRecord& run, bool detailed, OrderedJson& json) {
  const auto add = [&](const char* key, bool always, const auto& value) {
    if (always || detailed) json[key] = per_request(run, value);
  };
  add("input_lens", false, [](const RequestRecord& r, bool) { return std::max<int64_t>(r.prompt_tokens, 0); });
  add("output_lens", false,
      [](const RequestRecord& r, bool good) { return good ? std::max<int64_t>(r.output_tokens, 0) : 0; });
  add("ttfts", false, [](const RequestRecord& r, bool good) { return good ? ttft_ms(r).value_or(0) * 1e-3 : 0.0; });
  add("itls", false, gaps_of);
  add("latencies", true, [](const RequestRecord& r, bool good) { return good ? e2el_ms(r).value_or(0) * 1e-3 : 0.0; });
  add("start_times", false, [](const RequestRecord& r, bool) { return r.sent_s; });
  add("queue_times", true, queued_s);
  add("generated_texts", false, [](const RequestRecord& r, bool) { return r.text; });
  add("errors", false, [](const RequestRecord& r, bool) { return r.error; });
}

// vLLM takes its ITL from events, which is our chunk gap.
const report::Sample& vllm_sample(const Measures& m, Metric metric) {
  return m.sample(metric == Metric::kItl ? Metric::kChunkGap : metric);
}

// vLLM's keys, where the server counted.
void add_speculation(const RunRecord& run, OrderedJson& json) {
  const auto found = acceptance(run, 0);
  if (!found) return;
  json["spec_decode_acceptance_rate"] = found->rate * 100;
  json["spec_decode_acceptance_length"] = found->length;
  json["spec_decode_num_drafts"] = static_cast<int64_t>(run.speculation.drafts);
  json["spec_decode_draft_tokens"] = static_cast<int64_t>(run.speculation.draft_tokens);
  json["spec_decode_accepted_tokens"] = static_cast<int64_t>(run.speculation.accepted_tokens);
  json["spec_decode_per_position_acceptance_rates"] = found->per_position;
}

OrderedJson rate_value(double rate) { return rate < 0 || std::isinf(rate) ? OrderedJson("inf") : OrderedJson(rate); }

}  // namespace

OrderedJson vllm_result(const Point& p, const VllmResultOptions& options) {
  const Measures& m = p.measures;
  OrderedJson json;
  json["date"] = p.run.started_at;
  json["endpoint_type"] = p.run.backend;
  json["backend"] = p.run.backend;
  json["label"] = options.label.empty() ? OrderedJson() : OrderedJson(options.label);
  json["model_id"] = p.run.model;
  json["tokenizer_id"] = p.run.tokenizer.empty() ? p.run.model : p.run.tokenizer;
  json["num_prompts"] = p.run.planned_requests;
  for (const auto& [key, value] : p.run.metadata) json[key] = value;
  json["request_rate"] = rate_value(p.run.request_rate);
  json["burstiness"] = p.run.burstiness;
  json["max_concurrency"] = p.run.max_concurrency > 0 ? OrderedJson(p.run.max_concurrency) : OrderedJson();
  json["duration"] = m.duration_s;
  json["completed"] = m.completed;
  json["failed"] = m.failed;
  json["total_input_tokens"] = m.input_tokens;
  json["total_output_tokens"] = m.output_tokens;
  json["request_throughput"] = m.request_throughput;
  json["request_goodput"] = m.limits.empty() ? OrderedJson() : OrderedJson(m.goodput);
  json["output_throughput"] = m.output_throughput;
  json["total_token_throughput"] = m.total_throughput;
  add_details(p.run, options.detailed, json);
  json["max_output_tokens_per_s"] = m.peak_output_throughput;
  json["max_concurrent_requests"] = m.peak_concurrency;
  json["rtfx"] = 0.0;
  add_speculation(p.run, json);
  for (const Metric metric : options.shown.metrics) {
    const report::Sample& sample = vllm_sample(m, metric);
    const std::string name = fmt::format("{}_ms", kMetricNames[static_cast<size_t>(metric)]);
    json["mean_" + name] = or_null(sample.mean());
    json["median_" + name] = or_null(sample.percentile(50));
    json["std_" + name] = or_null(sample.population_stddev());
    for (const double percent : options.shown.percentiles)
      json[fmt::format("p{}_{}", percent_name(percent), name)] = or_null(sample.percentile(percent));
  }
  // What follows is not vLLM's.
  if (worst(p.checks) == Level::kInvalid) json["invalid_because"] = invalid_because(p.checks);
  if (p.run.interrupted) json["interrupted"] = true;
  return json;
}

std::string vllm_result_name(const Point& p, const std::string& label) {
  const size_t slash = p.run.model.find_last_of('/');
  const std::string model = slash == std::string::npos ? p.run.model : p.run.model.substr(slash + 1);
  const std::string rate =
      p.run.request_rate < 0 || std::isinf(p.run.request_rate) ? "inf" : python_float(p.run.request_rate);
  const std::string cap = p.run.max_concurrency > 0 ? fmt::format("-concurrency{}", p.run.max_concurrency) : "";
  return fmt::format("{}-{}qps{}-{}-{}.json", label.empty() ? p.run.backend : label, rate, cap, model,
                     p.run.started_at);
}

namespace {

double micro(double seconds) { return std::round(seconds * 1e6) / 1e6; }
Json moment(double seconds) { return seconds == kNever ? Json() : Json(micro(seconds)); }
Json count(int64_t value) { return value == kUnknown ? Json() : Json(value); }

Json request_json(const RequestRecord& r) {
  Json chunks = Json::array();
  for (const Chunk& chunk : r.chunks) chunks.push_back({micro(chunk.at_s), chunk.tokens});
  Json json = {{"index", r.index},
               {"outcome", kOutcomeNames[static_cast<size_t>(r.outcome)]},
               {"scheduled_s", moment(r.scheduled_s)},
               {"sent_s", moment(r.sent_s)},
               {"head_s", moment(r.head_s)},
               {"first_token_s", moment(r.first_token_s)},
               {"last_token_s", moment(r.last_token_s)},
               {"done_s", moment(r.done_s)},
               {"prompt_tokens", count(r.prompt_tokens)},
               {"output_tokens", count(r.output_tokens)},
               {"requested_output_tokens", count(r.requested_output_tokens)},
               {"cached_tokens", count(r.cached_tokens)},
               {"output_tokens_from", kCountSourceNames[static_cast<size_t>(r.output_source)]},
               {"chunk_tokens_estimated", r.chunk_tokens_estimated},
               {"coalesced_events", r.coalesced_events},
               {"http_status", r.http_status},
               {"chunks", std::move(chunks)}};
  if (!r.error.empty()) json["error"] = r.error;
  if (!r.text.empty()) json["text"] = r.text;
  return json;
}

Json config_json(const RunRecord& run) {
  Json metadata = Json::object();
  for (const auto& [key, value] : run.metadata) metadata[key] = value;
  return {{"command", run.command},
          {"backend", run.backend},
          {"endpoint", run.endpoint},
          {"model", run.model},
          {"tokenizer", run.tokenizer},
          {"dataset", run.dataset},
          {"arrival", run.arrival},
          {"request_rate", std::isinf(run.request_rate) ? Json("inf")
                           : run.request_rate < 0       ? Json()
                                                        : Json(run.request_rate)},
          {"burstiness", run.burstiness},
          {"max_concurrency", run.max_concurrency},
          {"input_tokens", count(run.input_tokens)},
          {"output_tokens", count(run.output_tokens)},
          {"epochs", run.epochs},
          {"seed", run.seed},
          {"started_at", run.started_at},
          {"metadata", metadata},
          {"interrupted", run.interrupted},
          {"planned_requests", run.planned_requests},
          {"image_shape", run.image_shape.empty() ? Json() : Json(run.image_shape)},
          {"num_speculative_tokens", run.num_speculative_tokens}};
}

Json figures_json(const Point& p) {
  const Measures& m = p.measures;
  Json json = {{"issued", m.issued},
               {"completed", m.completed},
               {"failed", m.failed},
               {"interrupted", m.interrupted},
               {"short_outputs", m.short_outputs},
               {"input_tokens", m.input_tokens},
               {"output_tokens", m.output_tokens},
               {"cached_tokens", count(m.cached_tokens)},
               {"duration_s", m.duration_s},
               {"request_throughput", m.request_throughput},
               {"output_throughput", m.output_throughput},
               {"total_token_throughput", m.total_throughput},
               {"peak_output_throughput", m.peak_output_throughput},
               {"peak_concurrency", m.peak_concurrency},
               {"late_ms", report::to_json(report::summarize(m.late_ms))},
               {"itl_estimated", m.itl_estimated}};
  if (m.steady)
    json["steady"] = {{"begin_s", m.steady->begin_s},
                      {"end_s", m.steady->end_s},
                      {"concurrency", m.steady->concurrency},
                      {"output_throughput", m.steady->output_throughput},
                      {"request_throughput", m.steady->request_throughput}};
  if (m.cached_base_tokens > 0)
    json["cached_token_ratio"] = static_cast<double>(m.cached_tokens) / static_cast<double>(m.cached_base_tokens);
  if (const auto found = acceptance(p.run, p.run.num_speculative_tokens))
    json["acceptance"] = {{"rate", found->rate},
                          {"length", found->length},
                          {"per_position", found->per_position},
                          {"estimated", found->estimated}};
  if (!m.limits.empty()) json["goodput"] = m.goodput, json["slo_attainment"] = m.attainment;
  for (const Limit& limit : m.limits) json["slo"][kMetricNames[static_cast<size_t>(limit.metric)]] = limit.ms;
  for (size_t i = 0; i < static_cast<size_t>(Metric::kCount); ++i)
    json[fmt::format("{}_ms", kMetricNames[i])] = report::to_json(report::summarize(m.samples[i]));
  return json;
}

}  // namespace

Json summary_result(const std::vector<Point>& points) {
  Json list = Json::array();
  for (const Point& p : points)
    list.push_back({{"name", point_name(p.run)},
                    {"config", config_json(p.run)},
                    {"validity", report::to_json(validity_of(p))},
                    {"figures", figures_json(p)}});
  return {{"format", "millrace-bench"}, {"version", 1}, {"points", std::move(list)}};
}

Json full_result(const std::vector<Point>& points) {
  Json result = summary_result(points);
  for (size_t i = 0; i < points.size(); ++i) {
    Json& requests = result["points"][i]["requests"] = Json::array();
    for (const RequestRecord& r : points[i].run.requests) requests.push_back(request_json(r));
  }
  return result;
}

namespace {

constexpr Metric kCompared[] = {Metric::kTtft, Metric::kTpot, Metric::kE2el};
constexpr double kComparedPercents[] = {50, 90};

Result<report::Sample> sample_at(const Json& point, const std::string& key) {
  const auto found = point.find(key);
  if (found == point.end() || !found->is_array()) return invalid_argument("the baseline has no list \"{}\"", key);
  std::vector<double> values;
  for (const Json& value : *found) {
    if (!value.is_number() || value.get<double>() < 0)
      return invalid_argument("\"{}\" of the baseline holds {}", key, json_excerpt(value));
    values.push_back(value.get<double>());
  }
  return report::Sample(std::move(values));
}

const Json* find_point(const Json& baseline, const std::string& name) {
  for (const Json& point : baseline["points"])
    if (point.is_object() && point.value("name", Json()) == name) return &point;
  return nullptr;
}

// Why nothing follows from a comparison; "" when both sides hold.
std::string doubts(const Json& before, const Point& p) {
  const auto found = before.find("invalid_because");
  const std::string old = found != before.end() && found->is_string() ? found->get<std::string>() : "";
  const std::string now = invalid_because(p.checks);
  std::string reasons;
  if (!old.empty()) reasons = fmt::format("{}, baseline: {}", point_name(p.run), old);
  if (!now.empty()) reasons += fmt::format("{}{}, now: {}", reasons.empty() ? "" : "; ", point_name(p.run), now);
  return reasons;
}

Status add_comparisons(const Json& before, const Point& p, Against& against) {
  const std::string reasons = doubts(before, p);
  if (!reasons.empty()) against.invalid_because += (against.invalid_because.empty() ? "" : "; ") + reasons;
  for (const Metric metric : kCompared) {
    const std::string name = kMetricNames[static_cast<size_t>(metric)];
    MR_ASSIGN_OR_RETURN(const report::Sample old, sample_at(before, name + "_ms"));
    for (const double percent : kComparedPercents) {
      const report::Comparison found = report::compare(old, p.measures.sample(metric), {.percent = percent});
      const std::string verdict =
          (reasons.empty() ? "" : "INVALID: ") + std::string(report::judgement(found.verdict, report::Better::kLower));
      against.worse = against.worse || found.verdict == report::Verdict::kHigher;
      against.table.add_row({point_name(p.run), fmt::format("{} P{} (ms)", name, percent_name(percent)),
                             number(old.percentile(percent)), number(p.measures.sample(metric).percentile(percent)),
                             with_interval(found.ratio, found.ratio_interval), verdict});
    }
  }
  return {};
}

}  // namespace

Json baseline_of(const std::vector<Point>& points) {
  Json list = Json::array();
  for (const Point& p : points) {
    Json point = {{"name", point_name(p.run)},
                  {"output_throughput", p.measures.output_throughput},
                  {"invalid_because", invalid_because(p.checks)}};
    for (const Metric metric : kCompared) {
      const auto values = p.measures.sample(metric).sorted();
      point[fmt::format("{}_ms", kMetricNames[static_cast<size_t>(metric)])] =
          std::vector<double>(values.begin(), values.end());
    }
    list.push_back(std::move(point));
  }
  return {{"format", "millrace-bench-baseline"}, {"version", 1}, {"points", std::move(list)}};
}

Result<Against> compare_with(const Json& baseline, const std::vector<Point>& points) {
  if (!baseline.is_object() || baseline.value("format", Json()) != "millrace-bench-baseline" ||
      baseline.value("version", Json()) != 1 || !baseline.contains("points") || !baseline["points"].is_array())
    return invalid_argument("the file is no baseline; --save-baseline writes one");
  Against against{report::Table({{"point", report::Align::kLeft},
                                 {"figure", report::Align::kLeft},
                                 {"baseline"},
                                 {"now"},
                                 {"ratio [95 %]"},
                                 {"verdict", report::Align::kLeft}})};
  for (const Point& p : points)
    if (const Json* before = find_point(baseline, point_name(p.run)))
      MR_RETURN_IF_ERROR(add_comparisons(*before, p, against));
  if (against.table.rows().empty()) return invalid_argument("the baseline has none of the points of this run");
  if (!against.invalid_because.empty()) against.table.mark_invalid(against.invalid_because);
  return against;
}

}  // namespace millrace::bench
