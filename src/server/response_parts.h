// JSON pieces that both endpoints' answers are made of.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "server/json_writer.h"
#include "server/response_format.h"

namespace millrace {

// What all chunks and answers of a request begin with.
struct ResponseHead {
  std::string id;       // "cmpl-..."
  std::string model;    // the first served name
  int64_t created = 0;  // seconds since 1970
};

// How `usage` appears in the chunks of a stream before the last.
enum class ChunkUsage : uint8_t { kAbsent, kNull, kRunning };

void write_head(JsonWriter& json, const ResponseHead& head, std::string_view object);
// `data: {"id":...,"choices":[`, which every chunk of a stream starts with. The writer that goes on from there closes
// the list and the object.
std::string chunk_start(const ResponseHead& head, std::string_view object);
// {"prompt_tokens","total_tokens","completion_tokens"[,"prompt_tokens_details":{"cached_tokens"}]}
void write_usage(JsonWriter& json, const Usage& usage, bool details);
void write_chunk_usage(JsonWriter& json, ChunkUsage how, const Usage& usage, bool details);
// Appends the chunk without choices that tells the usage. `start` is a chunk_start.
void append_usage_chunk(std::string_view start, const Usage& usage, bool details, std::string& events);
// "finish_reason": "stop", "length", "abort" or null
void write_finish_reason(JsonWriter& json, FinishReason reason);
// "stop_reason": the string or token id that ended the choice, else null
void write_stop_reason(JsonWriter& json, const std::optional<std::string>& stop_string,
                       const std::optional<int32_t>& stop_token_id);

}  // namespace millrace
