// How one endpoint words its answers. One object per HTTP request; calls come one at a time.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engine/client.h"

namespace millrace {

struct Usage {
  int64_t prompt_tokens = 0, completion_tokens = 0, cached_tokens = 0;  // over all prompts and choices
};

// All that became of one choice.
struct Choice {
  std::string text;
  std::vector<int32_t> token_ids;
  std::vector<PositionLogprobs> logprobs;
  FinishReason finish_reason = FinishReason::kNone;
  std::optional<std::string> stop_string;
  std::optional<int32_t> stop_token_id;
};

using PromptLogprobs = std::vector<std::optional<PositionLogprobs>>;

class ResponseFormat {
 public:
  virtual ~ResponseFormat() = default;
  // Appends the SSE events that tell the news of prompt number `prompt`.
  virtual void append_events(size_t prompt, const RequestOutput& output, const Usage& usage, std::string& events) = 0;
  // Appends the last chunk before [DONE], where usage was asked for.
  virtual void append_usage_event(const Usage& usage, std::string& events) = 0;
  // The whole answer: choices[p * n + i] is choice i of prompt p; prompt_logprobs[p] is empty where not asked for.
  virtual std::string body(const std::vector<Choice>& choices, const std::vector<PromptLogprobs>& prompt_logprobs,
                           const Usage& usage) = 0;
};

}  // namespace millrace
