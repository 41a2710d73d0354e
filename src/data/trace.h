// Recorded traffic: when requests came and how long they were. Any thread.
//   Mooncake  JSONL of {"timestamp": ms, "input_length", "output_length", "hash_ids": [...]}
//   BurstGPT  CSV with a header; columns Timestamp (s), Model, Request tokens, Response tokens. Only rows of the model
//             GPT-4 with response tokens above 0 count, as vLLM reads it
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"

namespace millrace::data {

struct TraceRow {
  double at_s = 0;  // since the first row
  int64_t input_tokens = 0, output_tokens = 0;
  std::vector<int64_t> hash_ids;  // equal leading ids: equal prefix blocks
};
// Sorted by time. The format is told by the content: lines that begin with '{' are Mooncake's.
Result<std::vector<TraceRow>> read_trace(const std::string& path);

}  // namespace millrace::data
