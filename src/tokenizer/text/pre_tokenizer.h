// Pre-tokenizers: steps that cut a text into the pieces the model sees one by one. Meanings are those of the
// Hugging Face tokenizers library. Immutable; any thread.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "tokenizer/text/pattern.h"
#include "tokenizer/text/pieces.h"

namespace millrace {

class PreTokenizer {
 public:
  virtual ~PreTokenizer() = default;
  // Cuts every piece of `list` further. The text may be rewritten.
  virtual Status run(PieceList& list) const = 0;
};
using PreTokenizerPtr = std::unique_ptr<const PreTokenizer>;

PreTokenizerPtr split_at(Pattern pattern, SplitBehavior behavior, bool invert);
// Cuts at characters for which `is_match` holds.
PreTokenizerPtr split_at_chars(bool (*is_match)(char32_t), SplitBehavior behavior);
// Pieces of `chars` characters each; chars > 0.
PreTokenizerPtr split_every(uint32_t chars);
// Where the script changes, as sentencepiece's trainer sees scripts: Hiragana and Katakana count as Han.
PreTokenizerPtr split_at_scripts();

enum class PrependScheme { kFirst, kNever, kAlways };
// ' ' becomes `replacement`, which is put in front as the scheme says; with `split` every replacement starts a piece.
PreTokenizerPtr metaspace(char32_t replacement, PrependScheme scheme, bool split);
// Puts a space in front of pieces that do not start with one.
PreTokenizerPtr add_prefix_space();
// Writes the bytes of every piece in the byte-level alphabet.
PreTokenizerPtr map_to_alphabet();

}  // namespace millrace
