// The longest sequence that really serves on this machine: engines of growing max_model_len, each under a static load
// of fixed prompts and fixed outputs.
#pragma once
#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/result.h"
#include "engine/client.h"
#include "engine/local/apart.h"
#include "engine/local/engine_args.h"

namespace millrace {

struct StaticLoad {
  int64_t sequences = 1;
  int64_t prompt_tokens = 0, output_tokens = 0;  // of each
};
struct LoadTimes {
  double prompt_seconds = 0;  // until the last sequence has its first token
  double output_seconds = 0;  // from there until all are done
};
// Submits all sequences at once, different ones, and waits. Shows progress on stderr. Requires an engine without other
// requests.
Result<LoadTimes> run_static_load(EngineClient& engine, const StaticLoad& load);

struct LengthServed {
  int64_t max_model_len = 0;
  int64_t kv_cache_bytes = 0, resident_bytes = 0;
  double start_seconds = 0;
  LoadTimes times;
};
struct LengthOptions {
  int64_t sequences = 1, output_tokens = 16;
};
// Starts an engine whose KV cache holds `sequences` of `length` tokens, fills them and ends it. kResourceExhausted,
// before anything is loaded, if that much memory is not there now. No tokenizer is needed.
Result<LengthServed> serve_length(EngineArgs args, int64_t length, const LengthOptions& options);
// The same in a process of its own.
Result<LengthServed> serve_length_apart(const EngineArgs& args, int64_t length, const LengthOptions& options,
                                        const ApartOptions& apart);

// 4096, 8192, ... below `last`, and `last`.
std::vector<int64_t> lengths_to_try(int64_t last);

struct LongestLength {
  std::vector<LengthServed> served;  // in rising order
  int64_t failed_length = 0;         // 0: all of them served
  Status reason;                     // why it did not
};
using LengthProbe = std::function<Result<LengthServed>(int64_t length)>;
// Tries them in turn, up to the first that does not serve.
LongestLength find_longest_length(const std::vector<int64_t>& lengths, const LengthProbe& probe);

}  // namespace millrace
