#include "engine/sampling_params.h"

#include <algorithm>
#include <cmath>

#include "engine/sequence.h"

namespace millrace {
namespace {

// Every new piece of text is searched for all stop strings.
constexpr size_t kMaxStopBytes = size_t{1} << 16;

// Comparisons are written so that a NaN fails them.
Status check_shape_of_distribution(const SamplingParams& p) {
  if (!(p.presence_penalty >= -2 && p.presence_penalty <= 2)) {
    return invalid_argument("presence_penalty must be in [-2, 2], got {}.", p.presence_penalty);
  }
  if (!(p.frequency_penalty >= -2 && p.frequency_penalty <= 2)) {
    return invalid_argument("frequency_penalty must be in [-2, 2], got {}.", p.frequency_penalty);
  }
  if (!(p.repetition_penalty > 0) || std::isinf(p.repetition_penalty)) {
    return invalid_argument("repetition_penalty must be greater than zero, got {}.", p.repetition_penalty);
  }
  if (!(p.temperature >= 0) || std::isinf(p.temperature)) {
    return invalid_argument("temperature must be non-negative, got {}.", p.temperature);
  }
  if (!(p.top_p > 0 && p.top_p <= 1)) return invalid_argument("top_p must be in (0, 1], got {}.", p.top_p);
  if (p.top_k < -1) return invalid_argument("top_k must be -1 or 0 (disable), or at least 1, got {}.", p.top_k);
  if (!(p.min_p >= 0 && p.min_p <= 1)) return invalid_argument("min_p must be in [0, 1], got {}.", p.min_p);
  return {};
}

Status check_lengths(const SamplingParams& p) {
  const int64_t least = p.prompt_logprobs.has_value() ? 0 : 1;
  if (p.max_tokens < least) return invalid_argument("max_tokens must be at least {}, got {}.", least, p.max_tokens);
  if (p.min_tokens < 0) {
    return invalid_argument("min_tokens must be greater than or equal to 0, got {}.", p.min_tokens);
  }
  if (p.min_tokens > p.max_tokens) {
    return invalid_argument("min_tokens must be less than or equal to max_tokens={}, got {}.", p.max_tokens,
                            p.min_tokens);
  }
  return {};
}

Status check_logprobs(const char* what, const std::optional<int>& wanted, int max_logprobs) {
  if (!wanted.has_value()) return {};
  if (*wanted < 0) return invalid_argument("{} must be non-negative, got {}.", what, *wanted);
  if (*wanted > max_logprobs) {
    return invalid_argument("Requested {} of {}, which is greater than max allowed: {}.", what, *wanted, max_logprobs);
  }
  return {};
}

Status check_ids(const SamplingParams& p, int64_t vocab_size) {
  const auto known = [&](int32_t id) { return id >= 0 && id < vocab_size; };
  for (const auto& [id, bias] : p.logit_bias) {
    if (!known(id)) return invalid_argument("logit_bias: token id {} is not in the vocabulary of {}.", id, vocab_size);
    if (std::isnan(bias)) return invalid_argument("logit_bias of token id {} must be a number, got {}.", id, bias);
  }
  const auto unknown = std::ranges::find_if_not(p.allowed_token_ids, known);
  if (unknown != p.allowed_token_ids.end()) {
    return invalid_argument("allowed_token_ids: token id {} is not in the vocabulary of {}.", *unknown, vocab_size);
  }
  return {};
}

Status check_stop_strings(const SamplingParams& p) {
  if (std::ranges::any_of(p.stop, [](const std::string& stop) { return stop.empty(); })) {
    return invalid_argument("stop cannot contain an empty string.");
  }
  size_t bytes = 0;
  for (const std::string& stop : p.stop) bytes += stop.size();
  if (bytes > kMaxStopBytes) {
    return invalid_argument("stop strings have {} bytes in all; at most {} are searched for.", bytes, kMaxStopBytes);
  }
  if (!p.stop.empty() && !p.detokenize) {
    return invalid_argument("stop strings are only supported when detokenize is true.");
  }
  return {};
}

}  // namespace

Status validate(const SamplingParams& params, int64_t vocab_size, int max_logprobs) {
  if (params.n < 1) return invalid_argument("n must be at least 1, got {}.", params.n);
  if (params.n > kMaxSequencesPerGroup) {
    return invalid_argument("n must be at most {}, got {}.", kMaxSequencesPerGroup, params.n);
  }
  MR_RETURN_IF_ERROR(check_shape_of_distribution(params));
  if (params.greedy() && params.n > 1) {
    return invalid_argument("n must be 1 when using greedy sampling, got {}.", params.n);
  }
  MR_RETURN_IF_ERROR(check_lengths(params));
  MR_RETURN_IF_ERROR(check_logprobs("logprobs", params.logprobs, max_logprobs));
  MR_RETURN_IF_ERROR(check_logprobs("prompt_logprobs", params.prompt_logprobs, max_logprobs));
  MR_RETURN_IF_ERROR(check_ids(params, vocab_size));
  return check_stop_strings(params);
}

}  // namespace millrace
