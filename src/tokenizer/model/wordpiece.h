// WordPiece: a word is cut greedily into the longest tokens that fit; and WordLevel: a word is a token or unknown.
#pragma once
#include <memory>
#include <string>

#include "tokenizer/model/model.h"

namespace millrace {

struct WordPieceOptions {
  int32_t unk_id = -1;  // -1: an unknown word is an error
  std::string continuing_subword_prefix = "##";
  size_t max_input_chars_per_word = 100;  // longer words are unknown
};
std::unique_ptr<const Model> make_wordpiece(Vocabulary vocabulary, const WordPieceOptions& options);

// `unk_id` as above.
std::unique_ptr<const Model> make_wordlevel(Vocabulary vocabulary, int32_t unk_id);

}  // namespace millrace
