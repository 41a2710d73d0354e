// Log-probabilities as the two endpoints print them. A value is printed the same wherever it appears, so that clients
// may compare the chosen token's with the best one's; what is not a number above -9999 is printed as -9999.0.
#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "engine/client.h"
#include "server/json_writer.h"
#include "server/token_names.h"

namespace millrace {

// The `logprobs` object of a completion choice, for some tokens in a row: text_offset, token_logprobs, tokens,
// top_logprobs, one entry each per token. Prompt tokens come before generated ones.
class CompletionLogprobs {
 public:
  // `text_offset`: of the first token in the choice's text, in characters; moved on by every token added.
  CompletionLogprobs(const TokenNames& names, int top, int64_t& text_offset)
      : names_(names), top_(top), offset_(text_offset) {}
  // A token without a distribution (the first of a prompt): null values.
  void add(int32_t token);
  // The `top` best alternatives, and the chosen token where it is not among them. Tokens with equal names share an
  // entry: the later one's value counts, the chosen one's most.
  void add(const PositionLogprobs& position);
  void write(JsonWriter& json) const;

 private:
  struct Entry {
    std::string token;
    std::optional<float> logprob;
    std::vector<std::pair<std::string, float>> top;
    int64_t offset;
  };
  void add_entry(Entry entry);
  const TokenNames& names_;
  const int top_;
  int64_t& offset_;
  std::vector<Entry> entries_;
};

// {"content":[{"token","logprob","bytes","top_logprobs":[{"token","logprob","bytes"}]}]} with the `top` best.
void write_chat_logprobs(std::span<const PositionLogprobs> positions, int top, const TokenNames& names,
                         JsonWriter& json);

// A list with one entry per prompt token: null, then {"<id>":{"logprob","rank","decoded_token"}} with the `top` best
// and the prompt's own token. decoded_token is null without a tokenizer.
void write_prompt_logprobs(std::span<const std::optional<PositionLogprobs>> positions, int top, const TokenNames& names,
                           JsonWriter& json);

}  // namespace millrace
