#include "server/completion_request.h"

namespace millrace {
namespace {

constexpr const char* kWantedPrompt = "a string, a list of strings, a list of token ids or a list of such lists";

Result<std::vector<int32_t>> parse_ids(const Json& list, const std::string& name, const EngineLimits& limits) {
  std::vector<int32_t> ids;
  ids.reserve(list.size());
  for (size_t i = 0; i < list.size(); ++i) {
    const auto id = json_integer(list[i]);
    if (!id || *id < 0 || *id >= limits.vocab_size)
      return wrong_value(fmt::format("{}[{}]", name, i), list[i],
                         fmt::format("a token id between 0 and {}", limits.vocab_size - 1));
    ids.push_back(static_cast<int32_t>(*id));
  }
  if (ids.empty()) return invalid_argument("{} has no tokens; it must have at least one", name);
  return ids;
}

Result<std::vector<PromptInput>> parse_prompts(const Json& prompt, const EngineLimits& limits) {
  if (prompt.is_string()) return std::vector<PromptInput>{prompt.get<std::string>()};
  if (!prompt.is_array()) return wrong_value("prompt", prompt, kWantedPrompt);
  if (prompt.empty()) return invalid_argument("prompt is an empty list; it must be {}", kWantedPrompt);
  std::vector<PromptInput> prompts;
  if (prompt[0].is_number()) {
    MR_ASSIGN_OR_RETURN(auto ids, parse_ids(prompt, "prompt", limits));
    prompts.emplace_back(std::move(ids));
    return prompts;
  }
  const bool lists = prompt[0].is_array();
  for (size_t i = 0; i < prompt.size(); ++i) {
    const std::string name = fmt::format("prompt[{}]", i);
    if (lists && prompt[i].is_array()) {
      MR_ASSIGN_OR_RETURN(auto ids, parse_ids(prompt[i], name, limits));
      prompts.emplace_back(std::move(ids));
    } else if (!lists && prompt[i].is_string()) {
      prompts.emplace_back(prompt[i].get<std::string>());
    } else {
      return wrong_value(name, prompt[i], lists ? "a list of token ids like prompt[0]" : "a string");
    }
  }
  return prompts;
}

// 16 where the field is absent; null asks for what the prompt leaves.
void read_max_tokens(Fields& fields, GenerationOptions& options) {
  if (!fields.is_null("max_tokens")) options.max_tokens = SamplingParams().max_tokens;
  fields.read("max_tokens", options.max_tokens);
  const int64_t least = options.echo ? 0 : 1;
  if (options.max_tokens && *options.max_tokens < least)
    fields.fail(
        invalid_argument("max_tokens is {}; it must be at least 1, or 0 together with echo", *options.max_tokens));
}

}  // namespace

Result<CompletionRequest> parse_completion_request(const Json& body, const ServerConfig& config,
                                                   const EngineLimits& limits) {
  CompletionRequest request;
  GenerationOptions& options = request.options;
  options.add_special_tokens = true;
  Fields fields(body);
  const Json* prompt = fields.find("prompt");
  read_generation_options(fields, config, limits, options);
  read_max_tokens(fields, options);
  fields.read("logprobs", options.params.logprobs);
  fields.unsupported("suffix", "prompts are continued at their end", {R"("")"});
  MR_RETURN_IF_ERROR(fields.finish());
  if (!prompt) return invalid_argument("prompt is missing; it must be {}", kWantedPrompt);
  MR_ASSIGN_OR_RETURN(request.prompts, parse_prompts(*prompt, limits));
  return request;
}

}  // namespace millrace
