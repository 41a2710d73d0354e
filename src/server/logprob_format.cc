#include "server/logprob_format.h"

#include <algorithm>

#include "base/utf8.h"

namespace millrace {
namespace {

constexpr float kLeast = -9999.0f;
float printable(float logprob) { return logprob > kLeast ? logprob : kLeast; }  // NaN and -inf too

std::span<const TokenLogprob> best(const PositionLogprobs& position, int top) {
  return std::span(position.top).first(std::min(position.top.size(), static_cast<size_t>(std::max(top, 0))));
}

bool contains(std::span<const TokenLogprob> list, int32_t token) {
  return std::any_of(list.begin(), list.end(), [&](const TokenLogprob& entry) { return entry.token == token; });
}

void put(std::vector<std::pair<std::string, float>>& map, std::string name, float value) {
  const auto found = std::find_if(map.begin(), map.end(), [&](const auto& entry) { return entry.first == name; });
  if (found == map.end()) {
    map.emplace_back(std::move(name), value);
  } else {
    found->second = value;
  }
}

void write_chat_token(const TokenLogprob& entry, const TokenNames& names, JsonWriter& json) {
  json.field("token", names.name(entry.token)).field("logprob", printable(entry.logprob)).key("bytes").begin_array();
  for (const char c : names.bytes(entry.token)) json.value(static_cast<int>(static_cast<unsigned char>(c)));
  json.end_array();
}

void write_prompt_token(const TokenLogprob& entry, const TokenNames& names, JsonWriter& json) {
  json.key(std::to_string(entry.token)).begin_object();
  json.field("logprob", printable(entry.logprob)).field("rank", entry.rank);
  if (const TextCodec* codec = names.codec()) {
    json.field("decoded_token", codec->token_bytes(entry.token));
  } else {
    json.null_field("decoded_token");
  }
  json.end_object();
}

}  // namespace

void CompletionLogprobs::add_entry(Entry entry) {
  entry.offset = offset_;
  offset_ += static_cast<int64_t>(utf8_length(entry.token));
  entries_.push_back(std::move(entry));
}

void CompletionLogprobs::add(int32_t token) { add_entry({.token = names_.name(token)}); }

void CompletionLogprobs::add(const PositionLogprobs& position) {
  Entry entry{.token = names_.name(position.chosen.token), .logprob = printable(position.chosen.logprob)};
  for (const TokenLogprob& alternative : best(position, top_))
    put(entry.top, names_.name(alternative.token), printable(alternative.logprob));
  put(entry.top, entry.token, *entry.logprob);
  add_entry(std::move(entry));
}

void CompletionLogprobs::write(JsonWriter& json) const {
  json.begin_object().key("text_offset").begin_array();
  for (const Entry& entry : entries_) json.value(entry.offset);
  json.end_array().key("token_logprobs").begin_array();
  for (const Entry& entry : entries_) entry.logprob ? json.value(*entry.logprob) : json.null();
  json.end_array().key("tokens").begin_array();
  for (const Entry& entry : entries_) json.value(entry.token);
  json.end_array().key("top_logprobs").begin_array();
  for (const Entry& entry : entries_) {
    if (!entry.logprob) {
      json.null();
      continue;
    }
    json.begin_object();
    for (const auto& [name, logprob] : entry.top) json.field(name, logprob);
    json.end_object();
  }
  json.end_array().end_object();
}

void write_chat_logprobs(std::span<const PositionLogprobs> positions, int top, const TokenNames& names,
                         JsonWriter& json) {
  json.begin_object().key("content").begin_array();
  for (const PositionLogprobs& position : positions) {
    json.begin_object();
    write_chat_token(position.chosen, names, json);
    json.key("top_logprobs").begin_array();
    for (const TokenLogprob& alternative : best(position, top)) {
      json.begin_object();
      write_chat_token(alternative, names, json);
      json.end_object();
    }
    json.end_array().end_object();
  }
  json.end_array().end_object();
}

void write_prompt_logprobs(std::span<const std::optional<PositionLogprobs>> positions, int top, const TokenNames& names,
                           JsonWriter& json) {
  json.begin_array();
  for (const auto& position : positions) {
    if (!position) {
      json.null();
      continue;
    }
    const auto shown = best(*position, top);
    json.begin_object();
    for (const TokenLogprob& alternative : shown) write_prompt_token(alternative, names, json);
    if (!contains(shown, position->chosen.token)) write_prompt_token(position->chosen, names, json);
    json.end_object();
  }
  json.end_array();
}

}  // namespace millrace
