#include "engine/config.h"

#include <algorithm>

namespace millrace {
namespace {

constexpr int64_t kDefaultBatchedTokens = 2048;

Status check_model(const EngineConfig& config, const ModelRunner::Info& model) {
  if (model.num_blocks < 1) {
    return resource_exhausted("the KV cache has {} blocks; one at least is needed", model.num_blocks);
  }
  if (config.block_size != model.block_tokens) {
    return invalid_argument("block_size is {}, but the model's KV cache has {} tokens in a block", config.block_size,
                            model.block_tokens);
  }
  if (config.max_model_len > model.max_positions) {
    return invalid_argument("max_model_len is {}; the model computes at most {} positions", config.max_model_len,
                            model.max_positions);
  }
  return {};
}

Status check_scheduling(const EngineConfig& config) {
  if (config.max_num_seqs < 1) {
    return invalid_argument("max_num_seqs is {}; it must be at least 1", config.max_num_seqs);
  }
  if (config.max_num_batched_tokens < config.max_num_seqs) {
    return invalid_argument("max_num_batched_tokens ({}) must be greater than or equal to max_num_seqs ({})",
                            config.max_num_batched_tokens, config.max_num_seqs);
  }
  if (!config.enable_chunked_prefill && config.max_num_batched_tokens < config.max_model_len) {
    return invalid_argument(
        "max_num_batched_tokens ({}) must be at least max_model_len ({}) while chunked prefill is off: a prompt is "
        "computed whole",
        config.max_num_batched_tokens, config.max_model_len);
  }
  if (config.num_scheduler_steps < 1) {
    return invalid_argument("num_scheduler_steps is {}; it must be at least 1", config.num_scheduler_steps);
  }
  if (config.long_prefill_token_threshold < 0) {
    return invalid_argument("long_prefill_token_threshold is {}; it must be 0 (off) or more",
                            config.long_prefill_token_threshold);
  }
  if (config.max_logprobs < 0) {
    return invalid_argument("max_logprobs is {}; it must be 0 or more", config.max_logprobs);
  }
  return {};
}

}  // namespace

Result<EngineConfig> resolve(EngineConfig config, const ModelRunner::Info& model) {
  if (config.max_model_len == 0) config.max_model_len = model.max_positions;
  if (config.max_model_len < 1) {
    return invalid_argument("max_model_len is {}; it must be at least 1", config.max_model_len);
  }
  if (config.max_num_batched_tokens == 0) {
    const int64_t whole_prompt = config.enable_chunked_prefill ? 0 : config.max_model_len;
    config.max_num_batched_tokens = std::max({kDefaultBatchedTokens, int64_t{config.max_num_seqs}, whole_prompt});
  }
  MR_RETURN_IF_ERROR(check_model(config, model));
  MR_RETURN_IF_ERROR(check_scheduling(config));
  return config;
}

SchedulerConfig scheduler_config(const EngineConfig& config, const ModelRunner::Info& model) {
  return {.max_num_seqs = config.max_num_seqs,
          .max_num_batched_tokens = config.max_num_batched_tokens,
          .long_prefill_token_threshold = config.long_prefill_token_threshold,
          .chunked_prefill = config.enable_chunked_prefill,
          .prefix_caching = config.enable_prefix_caching,
          .policy = config.scheduling_policy,
          .num_steps = config.num_scheduler_steps,
          .rotation = model.rotation};
}

}  // namespace millrace
