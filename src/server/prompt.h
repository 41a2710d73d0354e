// From prompts as requests have them to the token ids that the engine gets.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "engine/client.h"
#include "server/completion_request.h"
#include "server/text_codec.h"

namespace millrace {

struct PreparedPrompt {
  std::vector<int32_t> ids;
  std::string text;  // for echo: as it was given, or decoded from ids; "" without a tokenizer
};

// Encodes, truncates and checks the length. `codec` may be null: then only token ids are taken.
Result<PreparedPrompt> prepare_prompt(const PromptInput& input, const GenerationOptions& options,
                                      const TextCodec* codec, const EngineLimits& limits);

// The sampling parameters for one prompt: max_tokens filled in or cut to what the context leaves.
SamplingParams params_for_prompt(const GenerationOptions& options, const SamplingDefaults& defaults,
                                 const EngineLimits& limits, int64_t prompt_tokens);

}  // namespace millrace
