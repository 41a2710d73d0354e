// What a run has done so far, and the page in the terminal that shows it. Event loops count without locks or
// read-modify-write instructions, each in its own LoopCounts; the page is drawn by a thread of its own from numbers
// that may be a moment old.
#pragma once
#include <atomic>
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "bench/record.h"
#include "report/live_page.h"

namespace millrace::bench {

// Values above 0 in cells 3 % wide. One thread adds, any thread reads.
class LiveHistogram {
 public:
  void add(double value);
  // Adds this one's cells to `cells`, which grows as needed.
  void sum_into(std::vector<int64_t>& cells) const;
  // Of summed cells, 0 to 100; the middle of the cell. 0 without values.
  static double percentile(const std::vector<int64_t>& cells, double percent);

 private:
  static constexpr size_t kCellsPerOctave = 32, kOctaves = 36;  // from 1/1024
  std::atomic<int64_t> cells_[kCellsPerOctave * kOctaves] = {};
};

// A number that one thread changes and any thread reads.
template <class T>
class LiveNumber {
 public:
  void add(T by) { value_.store(get() + by, std::memory_order_relaxed); }
  void set(T value) { value_.store(value, std::memory_order_relaxed); }
  T get() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<T> value_{};
};

// Of one event loop, changed on its thread alone.
struct LoopCounts {
  LiveNumber<int64_t> ended, failed, short_outputs;
  LiveNumber<double> tokens;  // generated, as far as they are stated
  LiveNumber<double> cpu_s;   // of the loop's thread, since the run began
  LiveHistogram ttft_ms, tpot_ms, itl_ms, late_ms, lag_ms;
};

struct LiveFigures {
  int64_t planned = 0, issued = 0, ended = 0, failed = 0, short_outputs = 0;
  double tokens = 0, elapsed_s = 0, last_due_s = 0;
  double cpu_share = 0;  // of the busiest loop
  bool open_loop = false;
  struct Spread {
    int64_t count = 0;
    double p50 = 0, p90 = 0, p99 = 0;
  };
  Spread ttft_ms, tpot_ms, itl_ms, late_ms, lag_ms;
};

class LiveRun {
 public:
  // Before the first request; `last_due_s` is the schedule's end, 0 without one.
  void begin(size_t loops, int64_t planned, double last_due_s);
  // Requires: begun.
  LoopCounts& loop(size_t i) { return *loops_[i]; }
  LiveNumber<int64_t> issued;  // changed by the pacing thread alone
  LiveFigures read() const;    // all zeros before begin(); any thread

 private:
  std::vector<std::unique_ptr<LoopCounts>> loops_;
  int64_t planned_ = 0;
  double last_due_s_ = 0;
  std::chrono::steady_clock::time_point start_;
  std::atomic<bool> begun_{false};
};

// `tokens_per_s`: of the last seconds.
report::LiveView live_view(const std::string& title, const LiveFigures& figures, double tokens_per_s);

// Shows `run` until destroyed; a page on a terminal is then taken away.
class LiveDisplay {
 public:
  LiveDisplay(std::string title, const LiveRun& run, report::LivePage::Options options = {});
  ~LiveDisplay();
  LiveDisplay(const LiveDisplay&) = delete;
  LiveDisplay& operator=(const LiveDisplay&) = delete;

 private:
  void draw_until_stopped();
  report::LiveView view();
  const std::string title_;
  const LiveRun& run_;
  report::LivePage page_;
  std::deque<std::pair<double, double>> recent_;  // (elapsed, tokens)
  std::mutex mutex_;
  std::condition_variable changed_;
  bool stop_ = false;  // under mutex_
  std::thread thread_;
};

}  // namespace millrace::bench
