// What a Split or Replace looks for: a literal string, a regular expression, or a pattern that has a scanner of its
// own. Immutable; any thread.
#pragma once
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "tokenizer/text/pieces.h"
#include "tokenizer/text/regex.h"
#include "tokenizer/text/split_scanner.h"

namespace millrace {

class Pattern {
 public:
  static Result<Pattern> regex(std::string_view pattern);
  static Pattern literal(std::string text);

  // Finds matches in one text after another. One thread at a time; the pattern must outlive it.
  class Finder {
   public:
    explicit Finder(const Pattern& pattern);
    // Appends all matches within the bytes `range` of `text`, in order. What lies outside is invisible to the pattern.
    Status find(std::string_view text, Piece range, std::vector<Piece>& matches);

   private:
    const Pattern& pattern_;
    std::optional<Regex::Scratch> scratch_;
  };
  // Whether the matches of any text are all of it, without gaps.
  bool covers_everything() const { return scanner_ && scanner_->covers_everything(); }
  // `text` with every match replaced by `content`.
  Result<std::string> replace(std::string_view text, std::string_view content) const;
  // The text looked for, if this is a literal.
  const std::string* literal_text() const { return regex_ || scanner_ ? nullptr : &literal_; }

 private:
  std::string literal_;
  std::optional<Regex> regex_;
  std::optional<SplitScanner> scanner_;
};

// What becomes of matches and of the text between them (HF's SplitDelimiterBehavior).
enum class SplitBehavior { kRemoved, kIsolated, kMergedWithPrevious, kMergedWithNext, kContiguous };

// Cuts `range` at `matches` (in order, inside it) and appends the pieces; with `invert` matches and gaps change roles.
void cut(Piece range, const std::vector<Piece>& matches, bool invert, SplitBehavior behavior, std::vector<Piece>& out);

}  // namespace millrace
