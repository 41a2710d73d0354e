// sentencepiece's own normalizer: character map, white-space rules and the escaping of spaces.
#pragma once
#include <string>
#include <vector>

#include "tokenizer/text/charsmap.h"
#include "tokenizer/text/normalizer.h"
#include "tokenizer/text/trie.h"

namespace millrace {

struct SentencePieceNormalizerOptions {
  bool add_dummy_prefix = true;
  bool remove_extra_whitespaces = true;
  bool escape_whitespaces = true;
  bool whitespace_as_suffix = false;      // the dummy goes to the end
  bool prefix_only_at_start = false;      // no dummy for a text that follows a special token
  std::vector<std::string> user_defined;  // copied as they are
};
NormalizerPtr sentencepiece_normalizer(CharsMap map, SentencePieceNormalizerOptions options);

}  // namespace millrace
