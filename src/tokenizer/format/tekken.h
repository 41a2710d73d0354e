// tekken.json, as Mistral models have it since Nemo: ranked byte-level tokens, a split pattern and special tokens,
// which take the first ids.
#pragma once
#include <string_view>

#include "base/result.h"
#include "tokenizer/format/parts.h"

namespace millrace {

Result<TokenizerParts> read_tekken(std::string_view json_text);

}  // namespace millrace
