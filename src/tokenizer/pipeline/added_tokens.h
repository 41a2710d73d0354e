// Tokens that are found in the text itself, before any model sees it. Some are looked for in the text as given, the
// others ("normalized") in the normalized text. Of overlapping candidates the leftmost counts, then the longest.
// Immutable after build; any thread.
#pragma once
#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "tokenizer/text/normalizer.h"
#include "tokenizer/text/pieces.h"
#include "tokenizer/text/trie.h"

namespace millrace {

struct AddedToken {
  std::string content;
  int32_t id = -1;
  bool single_word = false;  // not inside a word
  bool lstrip = false;       // takes the white space before it
  bool rstrip = false;       // takes the white space after it
  bool normalized = false;
  bool special = false;  // skipped when decoding, if asked to
  // Found in a text only directly behind the token of this id; -1: anywhere. For names that are words of a language.
  int32_t only_behind = -1;
};

class AddedTokens {
 public:
  AddedTokens() = default;
  // `normalizer` may be null. Tokens without content are left out.
  static Result<AddedTokens> build(std::vector<AddedToken> tokens, const Normalizer* normalizer);

  const std::vector<AddedToken>& tokens() const { return tokens_; }

  struct Section {
    Piece range;
    int32_t id;  // -1: text for the model
  };
  // Cuts text as given at the tokens that are not normalized, and normalized text at those that are. Without
  // `parse_special` special tokens are text like any other. Sections are in order; what they leave out is nothing.
  void cut_given(std::string_view text, bool parse_special, std::vector<Section>& sections) const {
    cut(given_, text, parse_special, sections);
  }
  void cut_normalized(std::string_view text, bool parse_special, std::vector<Section>& sections) const {
    cut(normalized_, text, parse_special, sections);
  }

 private:
  struct Matcher {
    Trie trie;                            // values are indexes of tokens_
    std::array<bool, 256> first_bytes{};  // of any token
  };
  static Matcher matcher_of(const std::vector<std::pair<std::string, int32_t>>& keys);
  void cut(const Matcher& matcher, std::string_view text, bool parse_special, std::vector<Section>& sections) const;

  std::vector<AddedToken> tokens_;
  Matcher given_, normalized_;
};

}  // namespace millrace
