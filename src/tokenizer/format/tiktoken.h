// tiktoken rank files: lines "base64(token bytes) rank". The file holds neither the split pattern nor the special
// tokens; both follow from which vocabulary it is, told by its number of tokens.
#pragma once
#include <string_view>

#include "base/result.h"
#include "tokenizer/format/parts.h"

namespace millrace {

bool looks_like_tiktoken(std::string_view text);
Result<TokenizerParts> read_tiktoken(std::string_view text);

}  // namespace millrace
