// Regular expressions of tokenizer files. They are written for Oniguruma (Ruby syntax over Unicode) and run by PCRE2;
// where the two read the same text differently, oniguruma_to_pcre2 rewrites it. Immutable after compile; any thread.
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "base/result.h"

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
  // Matches exactly `text`.
  static Result<Regex> literal(std::string_view text);

  using MatchFn = std::function<void(size_t begin, size_t end)>;
  // Calls `fn` for all matches from left to right, none overlapping; an empty match moves on by one character. `text`
  // is valid UTF-8. kResourceExhausted when matching takes more steps or memory than allowed.
  Status for_each_match(std::string_view text, const MatchFn& fn) const;
  const std::string& pattern() const { return pattern_; }

 private:
  struct Code;
  std::string pattern_;
  std::shared_ptr<const Code> code_;
};

}  // namespace millrace
