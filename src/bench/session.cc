#include "bench/session.h"

#include <algorithm>
#include <cmath>
#include <map>
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

constexpr double kNearEdge = 1.2;  // ends of the bracket closer than this: a rate is decided by two equal verdicts
constexpr double kStepBack = 1.25;
constexpr int kMaxRestarts = 8;

struct Searcher {
  const RateSearch& search;
  const std::function<Result<bool>(double)>& meets;
  RateFound found;
  double low = 0, high = 0;  // meets, misses; 0: not known
  struct Verdicts {
    int good = 0, bad = 0;
  };
  std::map<double, Verdicts> verdicts;

  Result<bool> once(double rate) {
    MR_ASSIGN_OR_RETURN(const bool good, meets(rate));
    found.tried.emplace_back(rate, good);
    ++(good ? verdicts[rate].good : verdicts[rate].bad);
    return good;
  }
  // Two equal verdicts of at most three.
  Result<bool> majority(double rate) {
    while (verdicts[rate].good < 2 && verdicts[rate].bad < 2) MR_RETURN_IF_ERROR(once(rate).status());
    return verdicts[rate].good >= 2;
  }
  // From `rate` by `factor` until the verdict is `wanted`. False: out of range first.
  Result<bool> walk(double rate, double factor, bool wanted) {
    while (rate >= search.lowest && rate <= search.highest) {
      MR_ASSIGN_OR_RETURN(const bool good, once(rate));
      (good ? low : high) = rate;
      if (good == wanted) return true;
      rate *= factor;
    }
    return false;
  }
  Status bisect() {
    while (high / low > 1 + search.tolerance) {
      const double middle = std::sqrt(low * high);
      MR_ASSIGN_OR_RETURN(const bool good, high / low < kNearEdge ? majority(middle) : once(middle));
      (good ? low : high) = middle;
    }
    return {};
  }
  // Bisects, and makes sure that neither end of what is left rests on a single run that was a fluke.
  Status narrow() {
    for (int i = 0; i < kMaxRestarts; ++i) {
      MR_RETURN_IF_ERROR(bisect());
      MR_ASSIGN_OR_RETURN(const bool low_good, majority(low));
      if (!low_good) {
        high = std::exchange(low, 0);
        MR_ASSIGN_OR_RETURN(const bool any, walk(high / kStepBack, 1 / kStepBack, true));
        if (!any) return {};
        continue;
      }
      MR_ASSIGN_OR_RETURN(const bool high_good, majority(high));
      if (!high_good) return {};
      low = std::exchange(high, 0);
      MR_ASSIGN_OR_RETURN(const bool any, walk(low * kStepBack, kStepBack, false));
      if (!any) return {};
    }
    return {};
  }
  Status run() {
    MR_ASSIGN_OR_RETURN(const bool rising, once(search.start));
    (rising ? low : high) = search.start;
    MR_ASSIGN_OR_RETURN(const bool bracketed, walk(search.start * (rising ? 2 : 0.5), rising ? 2 : 0.5, !rising));
    return bracketed ? narrow() : Status();
  }
};

}  // namespace

Result<RateFound> find_max_rate(const RateSearch& search, const std::function<Result<bool>(double)>& meets) {
  Searcher s{.search = search, .meets = meets};
  MR_RETURN_IF_ERROR(s.run());
  s.found.rate = s.low;
  s.found.bounded = s.high > 0;
  return std::move(s.found);
}

}  // namespace millrace::bench
