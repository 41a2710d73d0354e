// The fields that /v1/completions and /v1/chat/completions share.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engine/client.h"
#include "engine/sampling_params.h"
#include "server/config.h"
#include "server/fields.h"

namespace millrace {

enum class Side : uint8_t { kLeft, kRight };

struct GenerationOptions {
  std::string model;  // "": the one that is served
  SamplingParams params;
  // As the request has it; none: what the prompt leaves of the context.
  std::optional<int64_t> max_tokens;
  bool stream = false, include_usage = false, continuous_usage_stats = false;
  bool echo = false;
  bool add_special_tokens = false;
  bool return_token_ids = false, return_tokens_as_token_ids = false;
  std::optional<int64_t> truncate_prompt_tokens;  // -1: the context length
  Side truncation_side = Side::kLeft;             // the end that is cut off
  int priority = 0;
  std::string cache_salt, request_id;
};

// Reads them, checks what needs no engine. `max_tokens` is left to the endpoints, whose defaults differ.
void read_generation_options(Fields& fields, const ServerConfig& config, const EngineLimits& limits,
                             GenerationOptions& out);

}  // namespace millrace
