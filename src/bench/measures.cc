#include "bench/measures.h"

#include <algorithm>
#include <cmath>

#include "base/text.h"

namespace millrace::bench {
namespace {

using Values = std::vector<double>;

bool completed(const RequestRecord& record) { return record.outcome == Outcome::kCompleted; }

std::optional<double> span_ms(double from_s, double to_s) {
  if (from_s == kNever || to_s == kNever) return std::nullopt;
  return (to_s - from_s) * 1e3;
}

void add(Values& values, std::optional<double> value) {
  if (value) values.push_back(*value);
}

// Events of one read came at one moment: for ITL they are one event.
void add_gaps(const RequestRecord& record, Values& itl, Values& gaps) {
  const std::vector<Chunk>& chunks = record.chunks;
  for (size_t i = 1; i < chunks.size(); ++i) gaps.push_back((chunks[i].at_s - chunks[i - 1].at_s) * 1e3);
  double token_time = record.first_token_s;
  for (size_t i = 0, next = 0; i < chunks.size(); i = next) {
    double tokens = 0;
    for (next = i; next < chunks.size() && chunks[next].at_s == chunks[i].at_s; ++next) tokens += chunks[next].tokens;
    if (chunks[i].at_s == record.first_token_s || tokens <= 0) continue;
    // A spread total gives every event the same share, so each event stands for one value.
    const auto values = record.chunk_tokens_estimated ? next - i : static_cast<size_t>(tokens);
    const double divisor = record.chunk_tokens_estimated ? tokens : static_cast<double>(values);
    itl.insert(itl.end(), values, (chunks[i].at_s - token_time) * 1e3 / divisor);
    token_time = chunks[i].at_s;
  }
}

void fill_samples(const RunRecord& run, Measures& m) {
  Values values[static_cast<size_t>(Metric::kCount)], late;
  const auto of = [&](Metric metric) -> Values& { return values[static_cast<size_t>(metric)]; };
  for (const RequestRecord& record : run.requests) {
    add(late, span_ms(record.scheduled_s, record.sent_s));
    if (!completed(record)) continue;
    add(of(Metric::kTtft), ttft_ms(record));
    add(of(Metric::kTpot), tpot_ms(record));
    add(of(Metric::kE2el), e2el_ms(record));
    add(of(Metric::kTtftSched), span_ms(record.scheduled_s, record.first_token_s));
    add(of(Metric::kE2elSched), span_ms(record.scheduled_s, record.last_token_s));
    add_gaps(record, of(Metric::kItl), of(Metric::kChunkGap));
    m.itl_estimated = m.itl_estimated || record.chunk_tokens_estimated;
  }
  for (size_t i = 0; i < static_cast<size_t>(Metric::kCount); ++i) m.samples[i] = report::Sample(std::move(values[i]));
  m.late_ms = report::Sample(std::move(late));
}

void count_completed(const RequestRecord& record, Measures& m) {
  ++m.completed;
  if (record.output_tokens == kUnknown) ++m.uncounted;
  if (record.output_tokens != kUnknown && record.output_tokens < record.requested_output_tokens) ++m.short_outputs;
  m.input_tokens += std::max<int64_t>(record.prompt_tokens, 0);
  m.output_tokens += std::max<int64_t>(record.output_tokens, 0);
  m.events += static_cast<int64_t>(record.chunks.size());
  m.coalesced_events += record.coalesced_events;
  if (record.cached_tokens == kUnknown) return;
  m.cached_tokens = std::max<int64_t>(m.cached_tokens, 0) + record.cached_tokens;
  m.cached_base_tokens += std::max<int64_t>(record.prompt_tokens, 0);
}

void count(const RunRecord& run, Measures& m) {
  m.issued = static_cast<int64_t>(run.requests.size());
  double first = std::numeric_limits<double>::infinity(), last = 0;
  for (const RequestRecord& record : run.requests) {
    ++m.failures[static_cast<size_t>(record.outcome)];
    if (!completed(record)) continue;
    count_completed(record, m);
    first = std::min(first, record.sent_s);
    last = std::max(last, record.done_s);
  }
  m.failures[static_cast<size_t>(Outcome::kCompleted)] = 0;
  m.interrupted = m.failures[static_cast<size_t>(Outcome::kInterrupted)];
  m.failed = m.issued - m.completed - m.interrupted;
  m.duration_s = m.completed > 0 ? last - first : 0;
}

double per_second(double amount, double seconds) { return seconds > 0 ? amount / seconds : 0; }

void fill_throughput(const RunRecord& run, Measures& m) {
  m.request_throughput = per_second(static_cast<double>(m.completed), m.duration_s);
  m.output_throughput = per_second(static_cast<double>(m.output_tokens), m.duration_s);
  m.total_throughput = per_second(static_cast<double>(m.input_tokens + m.output_tokens), m.duration_s);
  Values per_s(static_cast<size_t>(std::max(0.0, run.wall_s)) + 2, 0.0);
  for (const RequestRecord& record : run.requests)
    for (const Chunk& chunk : record.chunks)
      if (const auto second = static_cast<size_t>(chunk.at_s); second < per_s.size()) per_s[second] += chunk.tokens;
  m.peak_output_throughput = std::max(*std::max_element(per_s.begin(), per_s.end()), m.output_throughput);
}

// The number of requests under way that half of the issuing time was at or above.
int64_t median_concurrency(const std::vector<std::pair<double, int64_t>>& steps, double end_s) {
  std::vector<std::pair<int64_t, double>> spans;  // (number, seconds)
  double total = 0;
  for (size_t i = 0; i < steps.size() && steps[i].first < end_s; ++i) {
    const double until = std::min(end_s, i + 1 < steps.size() ? steps[i + 1].first : end_s);
    spans.emplace_back(steps[i].second, until - steps[i].first);
    total += spans.back().second;
  }
  std::sort(spans.rbegin(), spans.rend());
  double seen = 0;
  for (const auto& [number, seconds] : spans)
    if ((seen += seconds) >= total / 2) return number;
  return 0;
}

void fill_steady(const RunRecord& run, Measures& m) {
  const auto steps = concurrency_steps(run);
  for (const auto& [moment, number] : steps) m.peak_concurrency = std::max(m.peak_concurrency, number);
  if (steps.empty() || run.request_rate == INFINITY) return;
  Measures::Steady steady{.end_s = run.last_issue_s};
  const bool open = run.request_rate > 0;
  steady.concurrency = open ? median_concurrency(steps, run.last_issue_s) : m.peak_concurrency;
  const auto reached =
      std::find_if(steps.begin(), steps.end(), [&](const auto& s) { return s.second >= steady.concurrency; });
  if (steady.concurrency == 0 || reached == steps.end() || reached->first >= steady.end_s) return;
  steady.begin_s = reached->first;
  double tokens = 0, ended = 0;
  const auto within = [&](double t) { return t >= steady.begin_s && t < steady.end_s; };
  for (const RequestRecord& record : run.requests) {
    for (const Chunk& chunk : record.chunks) tokens += within(chunk.at_s) ? chunk.tokens : 0;
    ended += completed(record) && within(record.done_s);
  }
  steady.output_throughput = per_second(tokens, steady.end_s - steady.begin_s);
  steady.request_throughput = per_second(ended, steady.end_s - steady.begin_s);
  m.steady = steady;
}

void fill_goodput(const RunRecord& run, Measures& m) {
  m.good = std::count_if(run.requests.begin(), run.requests.end(), [&](const auto& r) { return meets(r, m.limits); });
  m.goodput = per_second(static_cast<double>(m.good), m.duration_s);
  const int64_t judged = m.issued - m.interrupted;
  m.attainment = judged > 0 ? static_cast<double>(m.good) / static_cast<double>(judged) : 0;
}

}  // namespace

Result<Metric> find_metric(std::string_view name) {
  std::vector<std::string> names(std::begin(kMetricNames), std::end(kMetricNames));
  for (size_t i = 0; i < names.size(); ++i)
    if (name == names[i]) return static_cast<Metric>(i);
  return invalid_argument("'{}' is no metric{}; there are ttft, tpot, itl, chunk_gap, e2el, ttft_sched and e2el_sched",
                          name, did_you_mean(name, names));
}

std::optional<double> ttft_ms(const RequestRecord& record) { return span_ms(record.sent_s, record.first_token_s); }
std::optional<double> e2el_ms(const RequestRecord& record) { return span_ms(record.sent_s, record.last_token_s); }
std::optional<double> tpot_ms(const RequestRecord& record) {
  if (record.output_tokens <= 1 || record.first_token_s == kNever) return std::nullopt;
  return (record.last_token_s - record.first_token_s) * 1e3 / static_cast<double>(record.output_tokens - 1);
}

Result<Limit> parse_limit(std::string_view text) {
  const std::vector<std::string> parts = split(text, ':');
  char* end = nullptr;
  const double ms = parts.size() == 2 ? std::strtod(parts[1].c_str(), &end) : 0;
  if (parts.size() != 2 || end == parts[1].c_str() || *end != '\0' || !(ms > 0))
    return invalid_argument("'{}' is no limit; NAME:MS is wanted, such as ttft:2000", text);
  MR_ASSIGN_OR_RETURN(const Metric metric, find_metric(parts[0]));
  if (metric != Metric::kTtft && metric != Metric::kTpot && metric != Metric::kE2el)
    return invalid_argument("a limit on {} of a request is not defined; ttft, tpot and e2el are", parts[0]);
  return Limit{metric, ms};
}

bool meets(const RequestRecord& record, const std::vector<Limit>& limits) {
  if (!completed(record)) return false;
  return std::all_of(limits.begin(), limits.end(), [&](const Limit& limit) {
    if (limit.metric == Metric::kTpot) return tpot_ms(record).value_or(0) <= limit.ms;
    const auto value = limit.metric == Metric::kTtft ? ttft_ms(record) : e2el_ms(record);
    return value && *value <= limit.ms;
  });
}

std::vector<std::pair<double, int64_t>> concurrency_steps(const RunRecord& run) {
  std::vector<std::pair<double, int64_t>> changes;
  for (const RequestRecord& record : run.requests) {
    if (record.sent_s == kNever || record.done_s == kNever) continue;
    changes.emplace_back(record.sent_s, 1);
    changes.emplace_back(record.done_s, -1);
  }
  std::sort(changes.begin(), changes.end());
  int64_t now = 0;
  for (auto& [moment, number] : changes) number = now += number;
  return changes;
}

Measures measure(const RunRecord& run, const std::vector<Limit>& limits) {
  Measures m;
  m.limits = limits;
  fill_samples(run, m);
  count(run, m);
  fill_throughput(run, m);
  fill_steady(run, m);
  fill_goodput(run, m);
  return m;
}

namespace {

// From the events: fills all but per_position. False where no request tells anything.
bool estimate(const RunRecord& run, double m, Acceptance& a) {
  Values rates, with_own;
  double tokens = 0, steps = 0;
  for (const RequestRecord& record : run.requests) {
    const auto n = static_cast<double>(record.output_tokens), s = static_cast<double>(record.chunks.size());
    if (!completed(record) || s < 2 || n < s) continue;
    rates.push_back((n - s) / ((s - 1) * m));
    with_own.push_back((n - 1) / ((s - 1) * (m + 1)));
    tokens += n - 1, steps += s - 1;
  }
  if (rates.empty()) return false;
  a.estimated = true;
  a.length = tokens / steps;
  a.rate = (tokens - steps) / (steps * m);
  a.per_request = report::Sample(std::move(rates));
  a.per_request_with_own = report::Sample(std::move(with_own));
  return true;
}

}  // namespace

std::optional<Acceptance> acceptance(const RunRecord& run, int64_t num_speculative_tokens) {
  Acceptance a;
  const bool told = num_speculative_tokens > 0 && estimate(run, static_cast<double>(num_speculative_tokens), a);
  const SpeculationCounters& counters = run.speculation;
  if (!counters.known || counters.draft_tokens <= 0 || counters.drafts <= 0)
    return told ? std::optional(std::move(a)) : std::nullopt;
  a.estimated = false;
  a.rate = counters.accepted_tokens / counters.draft_tokens;
  a.length = 1 + counters.accepted_tokens / counters.drafts;
  for (const double accepted : counters.accepted_per_position) a.per_position.push_back(accepted / counters.drafts);
  return a;
}

}  // namespace millrace::bench
