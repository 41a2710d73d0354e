#include "bench/session.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <thread>

#include "base/log.h"
#include "bench/live.h"
#include "bench/outputs.h"
#include "bench/server_state.h"

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
  run.temperature = labels.temperature, run.top_p = labels.top_p, run.top_k = labels.top_k;
  run.metadata = labels.metadata, run.inexact_prompts = labels.inexact_prompts;
  run.prompt_note = labels.prompt_note, run.image_shape = labels.image_shape;
  run.num_speculative_tokens = labels.num_speculative_tokens;
}

// Counters of a server that started anew count from zero; those of another page than before say nothing.
void subtract(const SpeculationCounters& before, SpeculationCounters& after) {
  after.known = after.known && before.known && after.draft_tokens >= before.draft_tokens;
  after.drafts -= before.drafts;
  after.draft_tokens -= before.draft_tokens;
  after.accepted_tokens -= before.accepted_tokens;
  for (size_t i = 0; i < std::min(before.accepted_per_position.size(), after.accepted_per_position.size()); ++i)
    after.accepted_per_position[i] -= before.accepted_per_position[i];
}

void subtract(const PrefixCacheCounters& before, PrefixCacheCounters& after) {
  after.known = after.known && before.known && after.query_tokens >= before.query_tokens;
  after.query_tokens -= before.query_tokens;
  after.hit_tokens -= before.hit_tokens;
}

}  // namespace

// `target`, one of several servers, idle and, if asked for, its prefix cache empty.
void Session::settle(const LoadTarget& target, std::string& note) {
  if (!wait_until_idle(target, std::chrono::milliseconds(config_.idle_patience_ms), stop_) && !stop_) {
    const bool says = requests_under_way(metrics_page(target)).has_value();
    note = says ? fmt::format("the server was still busy after {} s", config_.idle_patience_ms / 1000)
                : fmt::format("/metrics does not say; paused for {} ms", points_ > 0 ? config_.pause_ms : 0);
    const auto until = std::chrono::steady_clock::now() + std::chrono::milliseconds(config_.pause_ms);
    while (!says && points_ > 0 && !stop_ && std::chrono::steady_clock::now() < until)
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  if (!config_.reset_prefix_cache || stop_) return;
  if (const Status reset = reset_prefix_cache(target); !reset.ok())
    log_warning("the prefix cache was not emptied: {}", reset.message());
}

RunRecord Session::shown_run(const LoadPlan& plan, const std::string& title) {
  LiveRun live;
  std::optional<LiveDisplay> display;
  if (!config_.quiet) display.emplace(title, live);
  return load_.run(plan, stop_, &live);
}

Point Session::run(const LoadPlan& plan, const RunRecord& labels, const std::vector<LoadRequest>& warmups) {
  if (!warmups.empty()) load_.run({.requests = warmups}, stop_);
  const LoadTarget& target = load_.target();
  std::string idle_note;
  for (size_t i = 0; i < target.servers(); ++i) {
    LoadTarget one = target;
    std::tie(one.host, one.port) = std::pair(target.server(i).host, target.server(i).port);
    one.others.clear();
    settle(one, idle_note);
  }
  ++points_;
  const bool alone = target.servers() == 1;  // one server's counters are not the run's
  const std::string before = alone ? metrics_page(target) : "";
  Point point;
  point.run = shown_run(plan, fmt::format("{}: {}", labels.command, point_name(labels)));
  take_labels(labels, point.run);
  const std::string after = alone ? metrics_page(target) : "";
  point.run.speculation = speculation_counters(after);
  subtract(speculation_counters(before), point.run.speculation);
  point.run.prefix_cache = prefix_cache_counters(after);
  subtract(prefix_cache_counters(before), point.run.prefix_cache);
  point.run.idle_note = idle_note;
  point.measures = measure(point.run, config_.limits);
  point.checks = check_validity(point.run, point.measures);
  return point;
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
