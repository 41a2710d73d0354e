#include "bench/session.h"

#include <algorithm>
#include <cmath>
#include <thread>

#include "bench/live.h"
#include "bench/outputs.h"

namespace millrace::bench {

Session::Session(SessionConfig config, const std::atomic<bool>& stop)
    : config_(std::move(config)), stop_(stop), load_(config_.target, config_.loops) {}

Result<std::unique_ptr<Session>> Session::open(SessionConfig config, const LoadRequest& first,
                                               const std::atomic<bool>& stop) {
  std::unique_ptr<Session> session(new Session(std::move(config), stop));
  MR_ASSIGN_OR_RETURN(session->first_answer_, session->load_.probe(first, stop));
  return session;
}

namespace {

void take_labels(const RunRecord& labels, RunRecord& run) {
  run.command = labels.command, run.backend = labels.backend, run.endpoint = labels.endpoint;
  run.model = labels.model, run.tokenizer = labels.tokenizer, run.dataset = labels.dataset;
  run.arrival = labels.arrival, run.request_rate = labels.request_rate, run.burstiness = labels.burstiness;
  run.max_concurrency = labels.max_concurrency, run.input_tokens = labels.input_tokens;
  run.output_tokens = labels.output_tokens, run.epochs = labels.epochs, run.seed = labels.seed;
  run.temperature = labels.temperature;
  run.metadata = labels.metadata, run.inexact_prompts = labels.inexact_prompts;
}

}  // namespace

void Session::wait_until_all_idle() {
  LoadTarget one = config_.target;
  for (size_t i = 0; i < config_.target.servers(); ++i) {
    std::tie(one.host, one.port) = std::pair(config_.target.server(i).host, config_.target.server(i).port);
    if (!wait_until_idle(one, std::chrono::milliseconds(config_.idle_patience_ms), stop_) && !stop_)
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
}

SpeculationCounters Session::read_counters() {
  HttpClient client;
  const LoadTarget& target = config_.target;
  if (target.servers() > 1) return {};  // one server's counters are not the run's
  const auto page = client.fetch({.host = target.host,
                                  .port = target.port,
                                  .target = "/metrics",
                                  .headers = target.headers,
                                  .timeout = std::chrono::milliseconds(5000)});
  SpeculationCounters counters;
  if (!page.ok() || page->status != 200) return counters;
  const auto drafts = metric_value(page->body, "vllm:spec_decode_num_drafts_total");
  if (!drafts) return counters;
  counters.known = true;
  counters.drafts = *drafts;
  counters.draft_tokens = metric_value(page->body, "vllm:spec_decode_num_draft_tokens_total").value_or(0);
  counters.accepted_tokens = metric_value(page->body, "vllm:spec_decode_num_accepted_tokens_total").value_or(0);
  return counters;
}

RunRecord Session::shown_run(const LoadPlan& plan, const std::string& title) {
  LiveRun live;
  std::optional<LiveDisplay> display;
  if (!config_.quiet) display.emplace(title, live);
  return load_.run(plan, stop_, &live);
}

Point Session::run(const LoadPlan& plan, const RunRecord& labels, const std::vector<LoadRequest>& warmups) {
  if (!warmups.empty()) load_.run({.requests = warmups}, stop_);
  wait_until_all_idle();
  const SpeculationCounters before = read_counters();
  Point point;
  point.run = shown_run(plan, fmt::format("{}: {}", labels.command, point_name(labels)));
  take_labels(labels, point.run);
  SpeculationCounters after = read_counters();
  after.known = after.known && before.known;
  after.drafts -= before.drafts;
  after.draft_tokens -= before.draft_tokens;
  after.accepted_tokens -= before.accepted_tokens;
  point.run.speculation = after;
  point.measures = measure(point.run, config_.limits);
  point.checks = check_validity(point.run, point.measures);
  return point;
}

std::string served_model(const LoadTarget& target) {
  HttpClient client;
  const auto answer = client.fetch({.host = target.host,
                                    .port = target.port,
                                    .target = "/v1/models",
                                    .headers = target.headers,
                                    .timeout = std::chrono::milliseconds(10'000)});
  if (!answer.ok() || answer->status != 200) return "";
  const Result<Json> json = parse_json(answer->body);
  if (!json.ok() || !json->is_object() || !json->contains("data")) return "";
  const Json& models = (*json)["data"];
  if (!models.is_array() || models.empty() || !models[0].is_object()) return "";
  return models[0].value("id", Json()).is_string() ? models[0]["id"].get<std::string>() : "";
}

namespace {

struct Searcher {
  const RateSearch& search;
  const std::function<Result<bool>(double)>& meets;
  RateFound found;

  Result<bool> once(double rate) {
    MR_ASSIGN_OR_RETURN(const bool good, meets(rate));
    found.tried.emplace_back(rate, good);
    return good;
  }
  // Two equal verdicts of at most three.
  Result<bool> majority(double rate) {
    int good = 0, bad = 0;
    while (good < 2 && bad < 2) {
      MR_ASSIGN_OR_RETURN(const bool verdict, once(rate));
      ++(verdict ? good : bad);
    }
    return good == 2;
  }
  Status bisect(double low, double high) {
    while (high / low > 1 + search.tolerance) {
      const double middle = std::sqrt(low * high);
      MR_ASSIGN_OR_RETURN(const bool good, high / low < 1.2 ? majority(middle) : once(middle));
      (good ? low : high) = middle;
    }
    found.rate = low;
    return {};
  }
};

}  // namespace

Result<RateFound> find_max_rate(const RateSearch& search, const std::function<Result<bool>(double)>& meets) {
  Searcher s{search, meets, {}};
  double rate = search.start;
  MR_ASSIGN_OR_RETURN(bool good, s.once(rate));
  const bool rising = good;
  while (true) {
    const double next = rising ? rate * 2 : rate / 2;
    if (next > search.highest || next < search.lowest) {
      s.found.rate = rising ? rate : 0;
      s.found.bounded = !rising;
      return std::move(s.found);
    }
    MR_ASSIGN_OR_RETURN(good, s.once(next));
    if (good != rising) {
      MR_RETURN_IF_ERROR(rising ? s.bisect(rate, next) : s.bisect(next, rate));
      return std::move(s.found);
    }
    rate = next;
  }
}

}  // namespace millrace::bench
