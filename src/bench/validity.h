// Whether a run's figures may be believed: one line per thing that spoils load measurements.
#pragma once
#include <string>
#include <vector>

#include "bench/measures.h"

namespace millrace::bench {

enum class Level { kGood, kDoubtful, kInvalid };
inline constexpr const char* kLevelNames[] = {"ok", "doubtful", "INVALID"};

struct Check {
  std::string name;  // "event-loop lag"
  Level level = Level::kGood;
  std::string found;  // "p99 0.12 ms (limit 1 ms and 2 % of the median TTFT)"
};
// In a fixed order, every item each time.
std::vector<Check> check_validity(const RunRecord& run, const Measures& measures);
Level worst(const std::vector<Check>& checks);

}  // namespace millrace::bench
