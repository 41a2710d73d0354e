#include "server/generation_options.h"

#include <charconv>

namespace millrace {
namespace {

constexpr size_t kMaxStopStringBytes = 4096, kMaxLogitBias = 4096, kMaxIdBytes = 128;

void apply_defaults(const SamplingDefaults& defaults, SamplingParams& params) {
  if (defaults.temperature) params.temperature = *defaults.temperature;
  if (defaults.top_p) params.top_p = *defaults.top_p;
  if (defaults.top_k) params.top_k = *defaults.top_k;
  if (defaults.min_p) params.min_p = *defaults.min_p;
  if (defaults.repetition_penalty) params.repetition_penalty = *defaults.repetition_penalty;
}

// {"50256": -100, ...}
void read_logit_bias(Fields& fields, SamplingParams& params) {
  const Json* found = fields.find("logit_bias");
  if (!found) return;
  if (!found->is_object()) return fields.fail(wrong_value("logit_bias", *found, "an object of token id: number"));
  if (found->size() > kMaxLogitBias)
    return fields.fail(
        invalid_argument("logit_bias has {} entries; at most {} are allowed", found->size(), kMaxLogitBias));
  for (const auto& [key, bias] : found->items()) {
    int32_t id = -1;
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), id);
    if (error != std::errc() || end != key.data() + key.size() || id < 0)
      return fields.fail(invalid_argument("logit_bias has the key '{}'; it must be a token id", key.substr(0, 40)));
    if (!bias.is_number()) return fields.fail(wrong_value("logit_bias." + key, bias, "a number"));
    params.logit_bias.emplace_back(id, static_cast<float>(bias.get<double>()));
  }
}

void read_stop(Fields& fields, const ServerConfig& config, SamplingParams& params) {
  fields.read_strings("stop", params.stop, static_cast<size_t>(config.max_stop_strings));
  for (const std::string& stop : params.stop) {
    if (stop.empty()) fields.fail(invalid_argument("stop has an empty string; it must not"));
    if (stop.size() > kMaxStopStringBytes)
      fields.fail(
          invalid_argument("stop has a string of {} bytes; at most {} are allowed", stop.size(), kMaxStopStringBytes));
  }
}

void read_sampling(Fields& fields, const ServerConfig& config, const EngineLimits& limits, SamplingParams& params) {
  apply_defaults(config.default_sampling_params, params);
  fields.read("n", params.n);
  fields.read("temperature", params.temperature);
  fields.read("top_p", params.top_p);
  fields.read("top_k", params.top_k);
  fields.read("min_p", params.min_p);
  fields.read("repetition_penalty", params.repetition_penalty);
  fields.read("frequency_penalty", params.frequency_penalty);
  fields.read("presence_penalty", params.presence_penalty);
  fields.read("seed", params.seed);
  fields.read("include_stop_str_in_output", params.include_stop_str_in_output);
  fields.read("ignore_eos", params.ignore_eos);
  fields.read("min_tokens", params.min_tokens);
  fields.read("skip_special_tokens", params.skip_special_tokens);
  fields.read("spaces_between_special_tokens", params.spaces_between_special_tokens);
  fields.read_ids("stop_token_ids", params.stop_token_ids, 4096);
  fields.read_ids("allowed_token_ids", params.allowed_token_ids, static_cast<size_t>(limits.vocab_size));
  read_stop(fields, config, params);
  read_logit_bias(fields, params);
  if (params.seed == -1) params.seed.reset();
  // Temperatures this small overflow the logits they divide; below 1e-5 decoding is greedy and divides nothing.
  if (params.temperature >= 1e-5 && params.temperature < 0.01) params.temperature = 0.01;
}

void read_stream(Fields& fields, const ServerConfig& config, GenerationOptions& out) {
  fields.read("stream", out.stream);
  const Json* options = fields.find("stream_options");
  out.include_usage = out.stream && config.enable_force_include_usage;
  if (!options) return;
  if (!out.stream) return fields.fail(invalid_argument("Stream options can only be defined when `stream=True`."));
  Fields inner(*options, "stream_options");
  out.include_usage = true;
  inner.read("include_usage", out.include_usage);
  inner.read("continuous_usage_stats", out.continuous_usage_stats);
  out.include_usage |= config.enable_force_include_usage;
  out.continuous_usage_stats &= out.include_usage;
  fields.fail(inner.finish());
}

void read_truncation(Fields& fields, const EngineLimits& limits, GenerationOptions& out) {
  fields.read("truncate_prompt_tokens", out.truncate_prompt_tokens);
  if (const auto keep = out.truncate_prompt_tokens; keep && (*keep < -1 || *keep == 0 || *keep > limits.max_model_len))
    fields.fail(
        invalid_argument("truncate_prompt_tokens is {}; it must be between 1 and the context length {}, or -1 for that",
                         *keep, limits.max_model_len));
  std::string side = "left";
  fields.read("truncation_side", side);
  if (side != "left" && side != "right")
    fields.fail(invalid_argument("truncation_side is '{}'; it must be 'left' or 'right'", side.substr(0, 40)));
  out.truncation_side = side == "right" ? Side::kRight : Side::kLeft;
}

void read_priority(Fields& fields, const EngineLimits& limits, GenerationOptions& out) {
  fields.read("priority", out.priority);
  if (out.priority != 0 && !limits.priority_policy)
    fields.fail(invalid_argument(
        "priority is {}; the server runs without --scheduling-policy priority, so it must be 0", out.priority));
}

void read_short_string(Fields& fields, const char* name, std::string& out) {
  fields.read(name, out);
  if (out.size() > kMaxIdBytes)
    fields.fail(invalid_argument("{} has {} bytes; at most {} are allowed", name, out.size(), kMaxIdBytes));
}

void refuse_unbuilt(Fields& fields) {
  fields.unsupported("use_beam_search", "sampling and greedy decoding are", {"false"});
  fields.unsupported("length_penalty", "it belongs to beam search", {"1", "1.0"});
  fields.unsupported("response_format", "only {\"type\": \"text\"} is", {R"({"type":"text"})"});
  for (const char* name : {"guided_json", "guided_regex", "guided_choice", "guided_grammar", "guided_decoding_backend",
                           "guided_whitespace_pattern", "structured_outputs"})
    fields.unsupported(name, "output cannot be constrained to a grammar");
  fields.unsupported("bad_words", "use logit_bias to forbid single tokens", {"[]"});
  fields.unsupported("logits_processors", "use logit_bias or allowed_token_ids", {"[]"});
  fields.unsupported("logprob_token_ids", "use logprobs for the most likely tokens", {"[]"});
  fields.unsupported("stream_interval", "every step is streamed", {"1"});
  fields.unsupported("thinking_token_budget", "use max_tokens");
  fields.unsupported("repetition_detection", "use repetition_penalty");
  fields.unsupported("kv_transfer_params", "this server computes its own KV cache");
  fields.unsupported("vllm_xargs", "", {"{}"});
  fields.unsupported("lora", "adapters are not");
  fields.unsupported("prompt_embeds", "prompts are text or token ids");
  fields.unsupported("service_tier", "", {R"("auto")", R"("default")"});
  fields.unsupported("store", "", {"false"});
  fields.unsupported("metadata", "", {"{}"});
}

}  // namespace

void read_generation_options(Fields& fields, const ServerConfig& config, const EngineLimits& limits,
                             GenerationOptions& out) {
  out.return_tokens_as_token_ids = config.return_tokens_as_token_ids;
  fields.read("model", out.model);
  read_sampling(fields, config, limits, out.params);
  read_stream(fields, config, out);
  read_truncation(fields, limits, out);
  read_priority(fields, limits, out);
  fields.read("echo", out.echo);
  fields.read("add_special_tokens", out.add_special_tokens);
  fields.read("return_token_ids", out.return_token_ids);
  fields.read("return_tokens_as_token_ids", out.return_tokens_as_token_ids);
  fields.read("prompt_logprobs", out.params.prompt_logprobs);
  if (out.stream && out.params.prompt_logprobs.value_or(0) != 0)
    fields.fail(invalid_argument("`prompt_logprobs` are not available when `stream=True`."));
  read_short_string(fields, "cache_salt", out.cache_salt);
  read_short_string(fields, "request_id", out.request_id);
  std::string user;
  fields.read("user", user);  // accepted without effect
  if (const Json* best_of = fields.find("best_of"); best_of && json_integer(*best_of) != out.params.n)
    fields.fail(wrong_value("best_of", *best_of,
                            fmt::format("n ({}) or absent: choosing among more is not supported", out.params.n)));
  refuse_unbuilt(fields);
}

}  // namespace millrace
