// tokenizer.model of sentencepiece: a protobuf message with pieces, scores and a normalizer.
#pragma once
#include <string_view>

#include "base/result.h"
#include "tokenizer/format/parts.h"

namespace millrace {

// Whether the bytes start like such a message.
bool looks_like_sentencepiece(std::string_view bytes);

// `prefix_only_at_start`: a text that follows a special token gets no space in front ("legacy": false in
// tokenizer_config.json). The parts' template is plain; the names of special pieces are in parts.names.
Result<TokenizerParts> read_sentencepiece(std::string_view bytes, bool prefix_only_at_start);

}  // namespace millrace
