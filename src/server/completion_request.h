// The body of POST /v1/completions.
#pragma once
#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "server/generation_options.h"

namespace millrace {

using PromptInput = std::variant<std::string, std::vector<int32_t>>;

struct CompletionRequest {
  GenerationOptions options;
  std::vector<PromptInput> prompts;  // at least one
};

Result<CompletionRequest> parse_completion_request(const Json& body, const ServerConfig& config,
                                                   const EngineLimits& limits);

}  // namespace millrace
