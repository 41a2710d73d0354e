// Vocabularies as plain files: vocab.json with merges.txt (GPT-2 and its kin), and vocab.txt (BERT). How they split
// text follows from the tokenizer class that tokenizer_config.json names; GPT-2's way where it names none.
#pragma once
#include <string_view>

#include "base/result.h"
#include "tokenizer/format/config.h"
#include "tokenizer/format/parts.h"

namespace millrace {

Result<TokenizerParts> read_vocab_and_merges(std::string_view vocab_json, std::string_view merges_text,
                                             const TokenizerConfig& config);
Result<TokenizerParts> read_bert_vocab(std::string_view vocab_text, const TokenizerConfig& config);

}  // namespace millrace
