// The engine's settings, named as vLLM names them.
#pragma once
#include <cstdint>
#include <vector>

#include "base/result.h"
#include "engine/model_runner.h"
#include "engine/scheduler.h"

namespace millrace {

struct EngineConfig {
  int32_t block_size = 16;             // tokens in a KV block
  int32_t max_num_seqs = 256;          // that run at a time
  int64_t max_num_batched_tokens = 0;  // in a step; 0: 2048, or more where max_num_seqs or whole prompts need it
  int64_t max_model_len = 0;           // prompt and output; 0: what the model promises
  bool enable_chunked_prefill = true;
  bool enable_prefix_caching = true;
  int64_t long_prefill_token_threshold = 0;  // most tokens of one sequence in a step; 0: no limit of its own
  SchedulingPolicy scheduling_policy = SchedulingPolicy::kFcfs;
  int32_t num_scheduler_steps = 1;
  bool multi_step_stream_outputs = true;  // false: one output for each group of steps
  int64_t seed = 0;                       // of the seeds of requests that bring none
  int max_logprobs = 20;
  bool processed_logprobs = false;           // of what was sampled from; false: of the model's logits as they are
  bool skip_tokenizer_init = false;          // token ids in and out only
  int64_t logits_bytes = int64_t{64} << 20;  // most memory for logits at a time
  std::vector<int32_t> eos_token_ids;
};

// Defaults filled in and everything checked against the model.
Result<EngineConfig> resolve(EngineConfig config, const ModelRunner::Info& model);
SchedulerConfig scheduler_config(const EngineConfig& config, const ModelRunner::Info& model);

}  // namespace millrace
