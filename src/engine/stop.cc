#include "engine/stop.h"

#include <algorithm>
#include <utility>

namespace millrace {

StopVerdict check_stop(const SamplingParams& params, std::span<const int32_t> eos_token_ids, int64_t max_model_len,
                       int32_t token, int64_t generated, int64_t length) {
  if (generated >= params.min_tokens) {
    if (!params.ignore_eos && std::ranges::find(eos_token_ids, token) != eos_token_ids.end()) {
      return {FinishReason::kStop, std::nullopt};
    }
    if (std::ranges::find(params.stop_token_ids, token) != params.stop_token_ids.end()) {
      return {FinishReason::kStop, token};
    }
  }
  if (length >= max_model_len || generated >= params.max_tokens) return {FinishReason::kLength, std::nullopt};
  return {};
}

std::optional<std::string> StopStrings::append(std::string_view text, bool may_stop) {
  const size_t old_size = pending_.size();
  pending_ += text;
  if (!may_stop) return std::nullopt;
  size_t first_end = std::string::npos;
  const std::string* found = nullptr;
  for (const std::string& stop : stops_) {
    const size_t from = old_size + 1 > stop.size() ? old_size + 1 - stop.size() : 0;  // it must end in the new text
    const size_t at = pending_.find(stop, from);
    if (at == std::string::npos) continue;
    const size_t end = at + stop.size();
    if (end < first_end || (end == first_end && stop.size() > found->size())) {
      first_end = end;
      found = &stop;
    }
  }
  if (found == nullptr) return std::nullopt;
  pending_.resize(include_in_output_ ? first_end : first_end - found->size());
  stopped_ = true;
  return *found;
}

// Bytes at the end of the text that begin a stop string.
size_t StopStrings::held_back() const {
  size_t most = 0;
  for (const std::string& stop : stops_) {
    for (size_t size = std::min(stop.size() - 1, pending_.size()); size > most; --size) {
      if (pending_.ends_with(std::string_view(stop).substr(0, size))) most = size;
    }
  }
  return most;
}

std::string StopStrings::take() {
  if (stopped_) return take_rest();
  std::string rest = pending_.substr(pending_.size() - held_back());
  pending_.resize(pending_.size() - rest.size());
  return std::exchange(pending_, std::move(rest));
}

std::string StopStrings::take_rest() { return std::exchange(pending_, {}); }

}  // namespace millrace
