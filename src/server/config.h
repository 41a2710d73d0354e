// What the HTTP front end is told at start-up. Names are vLLM's flags.
#pragma once
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"

namespace millrace {

// Defaults of fields that a request leaves out, from the model's generation_config.json where it has them.
struct SamplingDefaults {
  std::optional<double> temperature, top_p, min_p, repetition_penalty;
  std::optional<int> top_k;
  std::optional<int64_t> max_tokens;  // max_new_tokens there: also the most that a request may have
};

struct ServerConfig {
  std::string host = "0.0.0.0";
  int port = 8000;                             // 0: any free one
  std::vector<std::string> served_model_name;  // at least one; answers carry the first
  std::string model_path;                      // `root` in /v1/models
  std::string version = "0";                   // for /version

  std::vector<std::string> api_key;  // none: open to all
  std::vector<std::string> allowed_origins = {"*"}, allowed_methods = {"*"}, allowed_headers = {"*"};
  bool allow_credentials = false;
  bool enable_request_id_headers = false;

  std::string response_role = "assistant";
  OrderedJson default_chat_template_kwargs = OrderedJson::object();
  bool trust_request_chat_template = false;  // off: a request that brings a template is refused
  bool return_tokens_as_token_ids = false;
  bool enable_prompt_tokens_details = false;
  bool enable_force_include_usage = false;
  SamplingDefaults default_sampling_params;

  bool disable_log_requests = true;
  int max_log_len = -1;   // characters of the prompt in the log; below 0: all
  int64_t max_queue = 0;  // requests that may wait in the engine before new ones get 503; 0: any number

  int64_t max_sequences_per_request = 4096;  // n x prompts
  int max_stop_strings = 64;
  int request_threads = 2;  // that parse, tokenise and serialise
  int max_connections = 4096;
  size_t max_body_bytes = size_t{8} << 20;
};

}  // namespace millrace
