#include "server/response_parts.h"

namespace millrace {

void write_head(JsonWriter& json, const ResponseHead& head, std::string_view object) {
  json.field("id", head.id).field("object", object).field("created", head.created).field("model", head.model);
}

std::string chunk_start(const ResponseHead& head, std::string_view object) {
  std::string out = "data: ";
  JsonWriter json(out);
  json.begin_object();
  write_head(json, head, object);
  json.key("choices").begin_array();
  return out;
}

void write_usage(JsonWriter& json, const Usage& usage, bool details) {
  json.begin_object().field("prompt_tokens", usage.prompt_tokens);
  json.field("total_tokens", usage.prompt_tokens + usage.completion_tokens);
  json.field("completion_tokens", usage.completion_tokens);
  if (details)
    json.key("prompt_tokens_details").begin_object().field("cached_tokens", usage.cached_tokens).end_object();
  json.end_object();
}

void write_chunk_usage(JsonWriter& json, ChunkUsage how, const Usage& usage, bool details) {
  if (how == ChunkUsage::kAbsent) return;
  json.key("usage");
  if (how == ChunkUsage::kNull)
    json.null();
  else
    write_usage(json, usage, details);
}

void append_usage_chunk(std::string_view start, const Usage& usage, bool details, std::string& events) {
  events += start;
  JsonWriter json(events);
  json.end_array().key("usage");
  write_usage(json, usage, details);
  json.end_object();
  events += "\n\n";
}

void write_finish_reason(JsonWriter& json, FinishReason reason) {
  json.key("finish_reason");
  switch (reason) {
    case FinishReason::kNone:
      json.null();
      return;
    case FinishReason::kStop:
      json.value("stop");
      return;
    case FinishReason::kLength:
      json.value("length");
      return;
    case FinishReason::kAbort:
      json.value("abort");
      return;
  }
}

void write_stop_reason(JsonWriter& json, const std::optional<std::string>& stop_string,
                       const std::optional<int32_t>& stop_token_id) {
  json.key("stop_reason");
  if (stop_string)
    json.value(*stop_string);
  else if (stop_token_id)
    json.value(static_cast<int64_t>(*stop_token_id));
  else
    json.null();
}

}  // namespace millrace
