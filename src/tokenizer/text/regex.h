// Regular expressions of tokenizer files. They are written for Oniguruma (Ruby syntax over Unicode) and run by PCRE2;
// where the two read the same text differently, oniguruma_to_pcre2 rewrites it. Immutable after compile; any thread.
#pragma once
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "tokenizer/text/pieces.h"

namespace millrace {

// The PCRE2 spelling of an Oniguruma pattern:
//   \s \S              property White_Space            \w \W   Alphabetic, M, Nd, Pc
//   [[:alpha:]] ...    the Unicode properties of that name     \p{Han}  the script, not its extensions
//   \b \B              between \w and \W               (?m:    dot matches newline
//   \h \H              hexadecimal digits
//   X{n,m}+            repetition of a repetition      X{,m}   from zero
//   [a&&[^b]]          class intersection              [a[bc]] class union
Result<std::string> oniguruma_to_pcre2(std::string_view pattern);

class Regex {
 public:
  static Result<Regex> compile(std::string_view oniguruma_pattern);

  // What matching needs besides the expression; one thread at a time, for any number of texts.
  class Scratch {
   public:
    explicit Scratch(const Regex& regex);
    ~Scratch();
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;

   private:
    friend class Regex;
    struct Data;
    std::unique_ptr<Data> data_;
  };

  // Appends all matches within the bytes `range` of `text`, from left to right, none overlapping; an empty match moves
  // on by one character. What lies outside the range is invisible to the expression. `text` is valid UTF-8.
  // kResourceExhausted when matching takes more steps or memory than allowed.
  Status find_all(std::string_view text, Piece range, Scratch& scratch, std::vector<Piece>& matches) const;
  const std::string& pattern() const { return pattern_; }

 private:
  struct Code;
  std::string pattern_;
  std::shared_ptr<const Code> code_;
};

}  // namespace millrace
