// Answers of /v1/chat/completions: "chat.completion" objects, or "chat.completion.chunk"s with a role chunk before
// everything else. In chunks, keys that say nothing are left out.
#pragma once
#include <vector>

#include "server/chat_request.h"
#include "server/prompt.h"
#include "server/response_format.h"
#include "server/response_parts.h"
#include "server/token_names.h"

namespace millrace {

class ChatFormat : public ResponseFormat {
 public:
  ChatFormat(ResponseHead head, const ChatRequest& request, std::vector<int32_t> prompt_ids, TokenNames names,
             std::string response_role, bool prompt_tokens_details);
  void append_events(size_t prompt, const RequestOutput& output, const Usage& usage, std::string& events) override;
  void append_usage_event(const Usage& usage, std::string& events) override;
  std::string body(const std::vector<Choice>& choices, const std::vector<PromptLogprobs>& prompt_logprobs,
                   const Usage& usage) override;

 private:
  void end_chunk(JsonWriter& json, const Usage& usage, std::string& events) const;
  void append_role_chunks(const Usage& usage, std::string& events);
  void append_delta_chunk(int index, std::string_view content, const Usage& usage, std::string& events) const;
  void append_chunk(const SequenceOutput& news, const Usage& usage, std::string& events) const;
  void write_logprobs(JsonWriter& json, std::span<const PositionLogprobs> positions) const;
  void write_choice(JsonWriter& json, size_t index, const Choice& choice) const;

  const ResponseHead head_;
  const std::string chunk_start_;
  const bool return_token_ids_, prompt_tokens_details_;
  const std::optional<int> logprobs_, prompt_logprobs_;
  const ChunkUsage chunk_usage_;
  const int n_;
  const std::vector<int32_t> prompt_ids_;
  const TokenNames names_;
  const std::string role_;
  const std::string lead_;  // the part of the last message that answers begin with
  bool started_ = false;
};

}  // namespace millrace
