// One server under load, point after point: asks it once whether it answers, warms up, waits until it is idle, sends a
// point's load, and judges what came. One thread.
#pragma once
#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "bench/load.h"
#include "bench/measures.h"
#include "bench/validity.h"

namespace millrace::bench {

struct SessionConfig {
  LoadTarget target;
  int loops = 0;
  std::vector<Limit> limits;
  int64_t warmups = 1;                // requests before each point, of other random tokens
  int64_t idle_patience_ms = 60'000;  // before each point the server is polled until it is idle, so long at most;
  int64_t pause_ms = 1000;            // or, if it does not say, so long a pause after the point before
  bool reset_prefix_cache = false;    // before each point
  bool quiet = false;                 // no live page on stderr
  RunRecord labels;                   // copied into each run: command, backend, model, dataset, metadata, ...
};

struct Point {
  RunRecord run;
  Measures measures;
  std::vector<Check> checks;
};

class Session {
 public:
  // Sends `first` alone; its failure is the caller's one line. `stop` must outlive the session.
  static Result<std::unique_ptr<Session>> open(SessionConfig config, const LoadRequest& first,
                                               const std::atomic<bool>& stop);
  // `labels` replaces the session's for this point.
  Point run(const LoadPlan& plan, const RunRecord& labels, const std::vector<LoadRequest>& warmups);
  const RequestRecord& first_answer() const { return first_answer_; }
  const SessionConfig& config() const { return config_; }
  bool stopped() const { return stop_; }

 private:
  Session(SessionConfig config, const std::atomic<bool>& stop);
  void settle(const LoadTarget& target, std::string& note);
  RunRecord shown_run(const LoadPlan& plan, const std::string& title);
  SessionConfig config_;
  const std::atomic<bool>& stop_;
  LoadGenerator load_;
  RequestRecord first_answer_;
  int64_t points_ = 0;
};

// The largest rate that meets the limits. `meets(rate)` runs a point; bracket by doubling or halving from `start`, then
// bisect to `tolerance` (relative). Near the edge a rate is decided by the majority of three runs, and so are both ends
// of what is left; an end that does not hold moves the bracket.
struct RateSearch {
  double start = 1, lowest = 1e-3, highest = 1e4, tolerance = 0.05;
};
struct RateFound {
  double rate = 0;      // 0: even `lowest` misses
  bool bounded = true;  // false: `highest` still meets
  std::vector<std::pair<double, bool>> tried;
};
Result<RateFound> find_max_rate(const RateSearch& search, const std::function<Result<bool>(double rate)>& meets);

}  // namespace millrace::bench
