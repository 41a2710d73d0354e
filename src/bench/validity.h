// Whether a run's figures may be believed: one line per thing that spoils load measurements.
#pragma once
#include <string>
#include <vector>

#include "bench/measures.h"

namespace millrace::bench {

enum class Level { kGood, kDoubtful, kInvalid };
inline constexpr const char* kLevelNames[] = {"ok", "doubtful", "INVALID"};

inline constexpr double kMaxCpuShare = 0.8, kDoubtfulCpuShare = 0.5;    // of the busiest loop
inline constexpr double kMaxFailedShare = 0.05, kMaxShortShare = 0.05;  // any is doubtful
inline constexpr double kDoubtfulLateMs = 10;                           // P99, in an open loop
double lag_limit_ms(double median_ttft_ms);  // P99 of the event-loop lag: 1 ms or 2 % of the median TTFT

struct Check {
  std::string name;  // "event-loop lag"
  Level level = Level::kGood;
  std::string found;   // "p99 0.12 ms"
  std::string wanted;  // "at most 1.00 ms (1 ms and 2 % of the median TTFT)"; "" where nothing in particular is
  bool known = true;   // false: the run does not tell; `level` is kGood
};
// In a fixed order, every item each time.
std::vector<Check> check_validity(const RunRecord& run, const Measures& measures);
Level worst(const std::vector<Check>& checks);
// "event-loop lag p99 3.10 ms (wanted: at most ...); ..." for every invalid item; "" when there is none.
std::string invalid_because(const std::vector<Check>& checks);

}  // namespace millrace::bench
