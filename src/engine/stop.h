// When a sequence ends. Order, as in vLLM: nothing before min_tokens but the length limits; EOS; stop_token_ids; stop
// strings; max_model_len; max_tokens. What needs only ids is decided on the engine's thread, stop strings where the
// text is made.
#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "engine/client.h"

namespace millrace {

struct StopVerdict {
  FinishReason reason = FinishReason::kNone;
  std::optional<int32_t> stop_token_id;
};
// After `token`, the `generated`-th generated one, which makes `length` tokens in all.
StopVerdict check_stop(const SamplingParams& params, std::span<const int32_t> eos_token_ids, int64_t max_model_len,
                       int32_t token, int64_t generated, int64_t length);

// The text of one sequence on its way to the client. Text that may turn out to begin a stop string is held back.
// One thread.
class StopStrings {
 public:
  // `stops` must outlive this; none of them is empty.
  StopStrings(std::span<const std::string> stops, bool include_in_output)
      : stops_(stops), include_in_output_(include_in_output) {}

  // Adds new text. Where it completes a stop string (of several the one that is complete first, of those the longest)
  // the text ends: before it, or after it with include_in_output. Returns that string. Does not look when !may_stop.
  std::optional<std::string> append(std::string_view text, bool may_stop);
  // The text that can be sent now and was not before.
  std::string take();
  // All of it: nothing follows.
  std::string take_rest();

 private:
  size_t held_back() const;
  std::span<const std::string> stops_;
  bool include_in_output_;
  bool stopped_ = false;
  std::string pending_;  // not sent yet
};

}  // namespace millrace
