#include "server/chat_format.h"

#include "server/logprob_format.h"

namespace millrace {
namespace {

ChunkUsage chunk_usage(const GenerationOptions& options) {
  if (options.continuous_usage_stats) return ChunkUsage::kRunning;
  return options.include_usage ? ChunkUsage::kNull : ChunkUsage::kAbsent;
}

std::string answer_role(const ChatRequest& request, std::string response_role) {
  return request.prompt.add_generation_prompt ? std::move(response_role) : request.last_role;
}

// With echo or continue_final_message an answer begins with the last message, if that was the answerer's.
std::string answer_lead(const ChatRequest& request, const std::string& role) {
  const bool wanted = request.options.echo || request.continue_final_message;
  return wanted && request.last_role == role ? request.last_content : "";
}

}  // namespace

ChatFormat::ChatFormat(ResponseHead head, const ChatRequest& request, std::vector<int32_t> prompt_ids, TokenNames names,
                       std::string response_role, bool prompt_tokens_details)
    : head_(std::move(head)),
      chunk_start_(chunk_start(head_, "chat.completion.chunk")),
      return_token_ids_(request.options.return_token_ids),
      prompt_tokens_details_(prompt_tokens_details),
      logprobs_(request.options.params.logprobs),
      prompt_logprobs_(request.options.params.prompt_logprobs),
      chunk_usage_(chunk_usage(request.options)),
      n_(request.options.params.n),
      prompt_ids_(std::move(prompt_ids)),
      names_(std::move(names)),
      role_(answer_role(request, std::move(response_role))),
      lead_(answer_lead(request, role_)) {}

void ChatFormat::end_chunk(JsonWriter& json, const Usage& usage, std::string& events) const {
  write_chunk_usage(json, chunk_usage_, usage, prompt_tokens_details_);
  json.end_object();
  events += "\n\n";
}

void ChatFormat::append_role_chunks(const Usage& usage, std::string& events) {
  for (int i = 0; i < n_; ++i) {
    events += chunk_start_;
    JsonWriter json(events);
    json.begin_object().field("index", i);
    json.key("delta").begin_object().field("role", role_).field("content", "").end_object();
    json.null_field("logprobs").null_field("finish_reason").end_object().end_array();
    if (return_token_ids_ && i == 0) json.key("prompt_token_ids").ids(prompt_ids_);
    end_chunk(json, {.prompt_tokens = usage.prompt_tokens, .cached_tokens = usage.cached_tokens}, events);
  }
  for (int i = 0; i < n_ && !lead_.empty(); ++i) append_delta_chunk(i, lead_, usage, events);
}

void ChatFormat::append_delta_chunk(int index, std::string_view content, const Usage& usage,
                                    std::string& events) const {
  events += chunk_start_;
  JsonWriter json(events);
  json.begin_object().field("index", index);
  json.key("delta").begin_object().field("content", content).end_object();
  json.null_field("logprobs").null_field("finish_reason").end_object().end_array();
  end_chunk(json, {.prompt_tokens = usage.prompt_tokens, .cached_tokens = usage.cached_tokens}, events);
}

void ChatFormat::write_logprobs(JsonWriter& json, std::span<const PositionLogprobs> positions) const {
  json.key("logprobs");
  if (logprobs_)
    write_chat_logprobs(positions, *logprobs_, names_, json);
  else
    json.null();
}

void ChatFormat::append_chunk(const SequenceOutput& news, const Usage& usage, std::string& events) const {
  events += chunk_start_;
  JsonWriter json(events);
  json.begin_object().field("index", news.index);
  json.key("delta").begin_object().field("content", news.text).end_object();
  write_logprobs(json, news.logprobs);
  write_finish_reason(json, news.finish_reason);
  if (news.finish_reason != FinishReason::kNone) write_stop_reason(json, news.stop_string, news.stop_token_id);
  if (return_token_ids_) json.key("token_ids").ids(news.token_ids);
  json.end_object().end_array();
  end_chunk(json, usage, events);
}

void ChatFormat::append_events(size_t, const RequestOutput& output, const Usage& usage, std::string& events) {
  for (const SequenceOutput& news : output.sequences) {
    if (news.token_ids.empty() && news.text.empty() && news.finish_reason == FinishReason::kNone) continue;
    if (!started_) append_role_chunks(usage, events);
    started_ = true;
    append_chunk(news, usage, events);
  }
}

void ChatFormat::append_usage_event(const Usage& usage, std::string& events) {
  append_usage_chunk(chunk_start_, usage, prompt_tokens_details_, events);
}

void ChatFormat::write_choice(JsonWriter& json, size_t index, const Choice& choice) const {
  json.begin_object().field("index", static_cast<int64_t>(index));
  json.key("message").begin_object().field("role", role_).field("content", lead_ + choice.text);
  json.key("tool_calls").begin_array().end_array().end_object();
  write_logprobs(json, choice.logprobs);
  write_finish_reason(json, choice.finish_reason);
  write_stop_reason(json, choice.stop_string, choice.stop_token_id);
  if (return_token_ids_) json.key("token_ids").ids(choice.token_ids);
  json.end_object();
}

std::string ChatFormat::body(const std::vector<Choice>& choices, const std::vector<PromptLogprobs>& prompt_logprobs,
                             const Usage& usage) {
  std::string out;
  JsonWriter json(out);
  json.begin_object();
  write_head(json, head_, "chat.completion");
  json.key("choices").begin_array();
  for (size_t i = 0; i < choices.size(); ++i) write_choice(json, i, choices[i]);
  json.end_array().key("usage");
  write_usage(json, usage, prompt_tokens_details_);
  json.key("prompt_logprobs");
  if (prompt_logprobs_)
    write_prompt_logprobs(prompt_logprobs[0], *prompt_logprobs_, names_, json);
  else
    json.null();
  if (return_token_ids_) json.key("prompt_token_ids").ids(prompt_ids_);
  json.end_object();
  return out;
}

}  // namespace millrace
