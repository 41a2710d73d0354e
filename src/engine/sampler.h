// Chooses the tokens of one sequence. A choice is a pure function of the request, the sequence's tokens and the row of
// logits; what runs beside it, chunking, preemption and caching cannot shift it.
// Order of operations, as in vLLM's V1 engine: allowed_token_ids, logit_bias, min_tokens, repetition, frequency and
// presence penalties, (greedy: argmax), temperature, min_p, top_k, top_p, sample.
#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <unordered_map>
#include <vector>

#include "engine/client.h"
#include "ops/sampling.h"

namespace millrace {

// Memory of one thread that samples, kept from step to step.
struct SamplerScratch {
  SampleScratch ops;
  std::vector<float> values, raw;
  std::vector<RankedToken> top;
};

// log_softmax(logits) at `chosen` and at the `top` best. The same token has the same float wherever it appears.
PositionLogprobs position_logprobs(std::span<const float> logits, int32_t chosen, int top, SamplerScratch& scratch);

class TokenSampler {
 public:
  // `eos_token_ids` must outlive this. `seed` is the request's; sequences of one request differ by `index`.
  TokenSampler(std::shared_ptr<const GenerationRequest> request, int index, uint64_t seed,
               std::span<const int32_t> eos_token_ids, bool processed_logprobs);

  struct Choice {
    int32_t token = 0;
    std::optional<PositionLogprobs> logprobs;  // where the request asks for them
  };
  // The token at `position` (the number of tokens before it), the first of which `generated` were generated.
  // Uses `logits` [V] up.
  Choice choose(std::span<float> logits, int64_t position, int64_t generated, SamplerScratch& scratch);
  // `token` was generated: penalties count it from now on.
  void accept(int32_t token);

 private:
  const SamplingParams& params() const { return request_->params; }
  bool penalizes() const;
  TokenUse& use(int32_t token);
  bool changes_logits(int64_t generated) const;
  void process(std::span<float> logits, int64_t generated, SamplerScratch& scratch);
  void ban_ends(std::span<float> logits) const;
  void penalize(std::span<float> logits);

  std::shared_ptr<const GenerationRequest> request_;
  uint64_t key_;
  bool processed_logprobs_;
  std::span<const int32_t> eos_token_ids_;
  std::vector<TokenUse> uses_;  // of prompt and output, from the first choice on; only where something is penalised
  std::unordered_map<int32_t, size_t> place_of_use_;
};

}  // namespace millrace
