#include "bench/server_state.h"

#include <algorithm>
#include <cmath>
#include <thread>

#include "base/text.h"

namespace millrace::bench {
namespace {

constexpr auto kPageTimeout = std::chrono::seconds(5);
constexpr size_t kMostPositions = 256;

// The labels and the value of a line of `name`; nothing for other lines.
struct Line {
  std::string_view labels;
  double value;
};
std::optional<Line> line_of(std::string_view line, std::string_view name) {
  if (!line.starts_with(name)) return std::nullopt;
  const std::string_view rest = line.substr(name.size());
  if (rest.empty() || (rest[0] != ' ' && rest[0] != '{')) return std::nullopt;
  const size_t close = rest.rfind('}');
  const std::string_view labels = rest[0] == '{' && close != rest.npos ? rest.substr(0, close + 1) : "";
  const std::string text(trim(rest.substr(labels.size())));  // a value, and perhaps a time
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  if (end == text.c_str() || !std::isfinite(value)) return std::nullopt;
  return Line{labels, value};
}

template <class Take>
void for_each_line(std::string_view page, std::string_view name, const Take& take) {
  while (!page.empty()) {
    const size_t end = std::min(page.find('\n'), page.size());
    if (const auto line = line_of(page.substr(0, end), name)) take(*line);
    page.remove_prefix(std::min(end + 1, page.size()));
  }
}

// Counters are exposed with or without the suffix.
std::optional<double> counter(std::string_view page, const std::string& name) {
  const auto value = metric_value(page, name + "_total");
  return value ? value : metric_value(page, name);
}

std::optional<size_t> position_of(std::string_view labels) {
  constexpr std::string_view kKey = "position=\"";
  const size_t at = labels.find(kKey);
  if (at == labels.npos) return std::nullopt;
  const std::string text(labels.substr(at + kKey.size(), 6));
  char* end = nullptr;
  const unsigned long position = std::strtoul(text.c_str(), &end, 10);
  if (end == text.c_str() || *end != '"' || position >= kMostPositions) return std::nullopt;
  return position;
}

}  // namespace

std::optional<double> metric_value(std::string_view page, std::string_view name) {
  std::optional<double> sum;
  for_each_line(page, name, [&](const Line& line) { sum = sum.value_or(0) + line.value; });
  return sum;
}

std::vector<double> metric_by_position(std::string_view page, std::string_view name) {
  std::vector<double> values;
  for_each_line(page, name, [&](const Line& line) {
    const auto position = position_of(line.labels);
    if (!position) return;
    values.resize(std::max(values.size(), *position + 1));
    values[*position] += line.value;
  });
  return values;
}

SpeculationCounters speculation_counters(std::string_view page) {
  const std::string prefix = "vllm:spec_decode_num_";
  const auto drafted = counter(page, prefix + "draft_tokens"), accepted = counter(page, prefix + "accepted_tokens");
  const auto drafts = counter(page, prefix + "drafts"), emitted = counter(page, prefix + "emitted_tokens");
  SpeculationCounters counters;
  if (!drafted || !accepted || (!drafts && !emitted)) return counters;
  counters.known = true;
  counters.draft_tokens = *drafted, counters.accepted_tokens = *accepted;
  counters.drafts = drafts ? *drafts : std::max(0.0, *emitted - *accepted);
  counters.accepted_per_position = metric_by_position(page, prefix + "accepted_tokens_per_pos_total");
  if (counters.accepted_per_position.empty())
    counters.accepted_per_position = metric_by_position(page, prefix + "accepted_tokens_per_pos");
  return counters;
}

PrefixCacheCounters prefix_cache_counters(std::string_view page) {
  const auto queries = counter(page, "vllm:prefix_cache_queries"), hits = counter(page, "vllm:prefix_cache_hits");
  if (!queries || !hits) return {};
  return {.known = true, .query_tokens = *queries, .hit_tokens = *hits};
}

std::optional<double> requests_under_way(std::string_view page) {
  constexpr const char* kNames[][2] = {{"vllm:num_requests_running", "vllm:num_requests_waiting"},
                                       {"sglang:num_running_reqs", "sglang:num_queue_reqs"},
                                       {"tgi_batch_current_size", "tgi_queue_size"},
                                       {"llamacpp:requests_processing", "llamacpp:requests_deferred"}};
  for (const auto& [running_name, waiting_name] : kNames)
    if (const auto running = metric_value(page, running_name))
      return *running + metric_value(page, waiting_name).value_or(0);
  return std::nullopt;
}

std::string metrics_page(const LoadTarget& target) {
  HttpClient client;
  const auto page = client.fetch(target.call("GET", "/metrics", kPageTimeout));
  return page.ok() && page->status == 200 ? page->body : "";
}

bool wait_until_idle(const LoadTarget& target, std::chrono::milliseconds patience, const std::atomic<bool>& stop) {
  const auto end = std::chrono::steady_clock::now() + patience;
  while (!stop) {
    const auto under_way = requests_under_way(metrics_page(target));
    if (!under_way) return false;
    if (*under_way == 0) return true;
    if (std::chrono::steady_clock::now() >= end) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
  return false;
}

Status reset_prefix_cache(const LoadTarget& target) {
  HttpClient client;
  const auto answer = client.fetch(target.call("POST", "/reset_prefix_cache", std::chrono::seconds(30)));
  if (!answer.ok()) return answer.status();
  if (answer->status == 200) return {};
  return unimplemented("POST {}:{}/reset_prefix_cache answers {} ({})", target.host, target.port, answer->status,
                       http_reason(answer->status));
}

}  // namespace millrace::bench
