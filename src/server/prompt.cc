#include "server/prompt.h"

#include <algorithm>

namespace millrace {
namespace {

void truncate(std::vector<int32_t>& ids, const GenerationOptions& options, const EngineLimits& limits) {
  if (!options.truncate_prompt_tokens) return;
  const int64_t wanted = *options.truncate_prompt_tokens;
  const auto keep = static_cast<size_t>(wanted == -1 ? limits.max_model_len : wanted);
  if (ids.size() <= keep) return;
  const auto surplus = static_cast<ptrdiff_t>(ids.size() - keep);
  if (options.truncation_side == Side::kLeft)
    ids.erase(ids.begin(), ids.begin() + surplus);
  else
    ids.resize(keep);
}

Status check_length(size_t tokens, const GenerationOptions& options, const EngineLimits& limits) {
  if (tokens == 0) return invalid_argument("the prompt has no tokens; it must have at least one");
  const bool nothing_generated = options.max_tokens == 0;
  const int64_t most = limits.max_model_len - (nothing_generated ? 0 : 1);
  if (static_cast<int64_t>(tokens) <= most) return {};
  return invalid_argument(
      "This model's maximum context length is {} tokens. However, you requested {} tokens in the prompt. Please reduce "
      "the length of the prompt or use truncate_prompt_tokens.",
      limits.max_model_len, tokens);
}

}  // namespace

Result<PreparedPrompt> prepare_prompt(const PromptInput& input, const GenerationOptions& options,
                                      const TextCodec* codec, const EngineLimits& limits) {
  PreparedPrompt prompt;
  if (const auto* text = std::get_if<std::string>(&input)) {
    if (!codec)
      return invalid_argument(
          "the prompt is text, but the server runs with --skip-tokenizer-init; it must be a list of token ids");
    MR_ASSIGN_OR_RETURN(prompt.ids, codec->encode(*text, options.add_special_tokens));
    if (options.echo) prompt.text = *text;
  } else {
    prompt.ids = std::get<std::vector<int32_t>>(input);
  }
  const size_t before = prompt.ids.size();
  truncate(prompt.ids, options, limits);
  const bool text_is_the_prompt = std::holds_alternative<std::string>(input) && prompt.ids.size() == before;
  if (options.echo && codec && !text_is_the_prompt)
    prompt.text = codec->decode(prompt.ids, /*skip_special_tokens=*/false);
  MR_RETURN_IF_ERROR(check_length(prompt.ids.size(), options, limits));
  return prompt;
}

SamplingParams params_for_prompt(const GenerationOptions& options, const SamplingDefaults& defaults,
                                 const EngineLimits& limits, int64_t prompt_tokens) {
  SamplingParams params = options.params;
  params.max_tokens = limits.max_model_len - prompt_tokens;
  if (options.max_tokens) params.max_tokens = std::min(params.max_tokens, *options.max_tokens);
  if (defaults.max_tokens) params.max_tokens = std::min(params.max_tokens, *defaults.max_tokens);
  params.min_tokens = std::min(params.min_tokens, params.max_tokens);
  return params;
}

}  // namespace millrace
