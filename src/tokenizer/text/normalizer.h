// Normalizers: rewrite a text before it is cut into pieces. Meanings are those of the Hugging Face tokenizers library;
// the Unicode forms are ICU's. Immutable; any thread.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "tokenizer/text/charsmap.h"
#include "tokenizer/text/pattern.h"

namespace millrace {

class Normalizer {
 public:
  virtual ~Normalizer() = default;
  // Rewrites `text`, which is valid UTF-8 and stays so. `at_start`: it begins where the whole input begins.
  virtual Status run(std::string& text, bool at_start) const = 0;
  // Whether run() surely leaves an ASCII text as it is.
  virtual bool keeps_ascii() const { return false; }
};
using NormalizerPtr = std::unique_ptr<const Normalizer>;

// kNfkc and kNfkd leave characters newer than Unicode 11 alone, as the library does.
enum class UnicodeForm { kNfc, kNfd, kNfkc, kNfkd };
NormalizerPtr unicode_form(UnicodeForm form);
NormalizerPtr lowercase();
// Drops combining marks (M*); expects decomposed text.
NormalizerPtr strip_accents();
NormalizerPtr strip_space(bool left, bool right);
NormalizerPtr replace_all(Pattern pattern, std::string content);
// Puts `text` in front of any text that is not empty.
NormalizerPtr prepend(std::string text);
struct BertNormalizerOptions {
  bool clean_text = true;
  bool handle_chinese_chars = true;
  bool strip_accents = true;
  bool lowercase = true;
};
NormalizerPtr bert_normalizer(const BertNormalizerOptions& options);
NormalizerPtr nmt_normalizer();
// sentencepiece's map as the tokenizers library applies it: by grapheme cluster where that is shorter than six bytes,
// else by character.
NormalizerPtr precompiled(CharsMap map);
// Writes the bytes in the byte-level alphabet.
NormalizerPtr to_alphabet_normalizer();
NormalizerPtr sequence_of(std::vector<NormalizerPtr> steps);

}  // namespace millrace
