// tiktoken rank files: lines "base64(token bytes) rank". The file holds neither the split pattern nor the special
// tokens; both follow from which vocabulary it is, told by the tokenizer's class or else by its number of tokens.
#pragma once
#include <string_view>

#include "base/result.h"
#include "tokenizer/format/parts.h"

namespace millrace {

inline constexpr size_t kMaxRankedTokenBytes = 1024;
// Byte-level BPE of `vocabulary` (in the byte-level alphabet), in which a lower id is merged first; split by `regex`.
Result<TokenizerParts> ranked_bpe(Vocabulary vocabulary, std::string_view regex);

bool looks_like_tiktoken(std::string_view text);
Result<TokenizerParts> read_tiktoken(std::string_view text, std::string_view tokenizer_class = "");

}  // namespace millrace
