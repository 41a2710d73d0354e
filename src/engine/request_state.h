// What the engine's thread knows of a request beyond the scheduler's bookkeeping.
#pragma once
#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>

#include "engine/client.h"
#include "engine/output_processor.h"
#include "engine/sampler.h"

namespace millrace {

struct RequestState {
  struct SequenceState {
    TokenSampler sampler;
    int64_t generated = 0;
  };
  std::shared_ptr<const GenerationRequest> request;
  std::vector<SequenceState> sequences;
  int unfinished = 0;
  PromptLogprobs prompt_logprobs;    // one per prompt token, filled as the prompt is computed; empty: not wanted
  int64_t prompt_logprobs_done = 1;  // entries filled; the first token has none

  bool wants_prompt_logprobs() const { return !prompt_logprobs.empty(); }
};
// By key, which is also the id of the request's SequenceGroup.
using RequestStates = std::unordered_map<EngineClient::RequestKey, RequestState>;

}  // namespace millrace
