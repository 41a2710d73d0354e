// Hand-written scanners for the split patterns of the well-known byte-level tokenizers. Each gives exactly the matches
// of its pattern; the pattern's own text selects it.
#pragma once
#include <optional>
#include <string_view>
#include <vector>

#include "tokenizer/text/pieces.h"

namespace millrace {

// The patterns, as tokenizer files spell them.
inline constexpr std::string_view kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
inline constexpr std::string_view kLlama3Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
inline constexpr std::string_view kQwen2Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
inline constexpr std::string_view kTrailingSpacePattern = R"(\s+$)";

class SplitScanner {
 public:
  // The scanner for `pattern`, if there is one.
  static std::optional<SplitScanner> for_pattern(std::string_view pattern);

  // Whether matches follow each other without gaps, whatever the text.
  bool covers_everything() const { return kind_ != Kind::kTrailingSpace; }
  // Appends all matches within text[begin, end) in order; `text` is valid UTF-8.
  void scan(std::string_view text, Piece range, std::vector<Piece>& matches) const;

 private:
  enum class Kind { kGpt2, kLlama3, kTrailingSpace };
  SplitScanner(Kind kind, uint32_t max_digits) : kind_(kind), max_digits_(max_digits) {}
  Kind kind_;
  uint32_t max_digits_;  // that one piece may hold, kLlama3
};

}  // namespace millrace
