// What a request wants from the sampler and when it ends. Names and meanings are vLLM's SamplingParams.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"

namespace millrace {

struct SamplingParams {
  int n = 1;
  double temperature = 1.0;  // below 1e-5: greedy
  double top_p = 1.0;
  int top_k = 0;  // 0 and -1: off
  double min_p = 0.0;
  double repetition_penalty = 1.0, frequency_penalty = 0.0, presence_penalty = 0.0;
  std::vector<std::pair<int32_t, float>> logit_bias;  // token id, added to its logit
  std::vector<int32_t> allowed_token_ids;             // empty: all
  std::optional<int64_t> seed;                        // none: a random one is drawn
  std::vector<std::string> stop;                      // strings; need a tokenizer
  std::vector<int32_t> stop_token_ids;
  bool include_stop_str_in_output = false;
  bool ignore_eos = false;
  int64_t max_tokens = 16;  // 0 only with prompt_logprobs: nothing is generated
  int64_t min_tokens = 0;
  std::optional<int> logprobs;         // alternatives per generated token; 0: the chosen one only
  std::optional<int> prompt_logprobs;  // the same for the prompt
  bool detokenize = true;
  bool skip_special_tokens = true;
  bool spaces_between_special_tokens = true;

  bool greedy() const { return temperature < 1e-5; }
};

// Ranges as vLLM has them; the message names the field, what was found and what is wanted.
Status validate(const SamplingParams& params, int64_t vocab_size, int max_logprobs);

}  // namespace millrace
