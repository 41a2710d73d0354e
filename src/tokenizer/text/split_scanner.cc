#include "tokenizer/text/split_scanner.h"

#include "tokenizer/text/unicode.h"

namespace millrace {
namespace {

constexpr uint8_t kLetterOrNumber = kLetterClass | kNumberClass;
constexpr uint8_t kAnyClass = kLetterOrNumber | kSpaceClass;

// Walks one range. "Other" characters are those that are neither letter, number nor white space.
class Walker {
 public:
  Walker(std::string_view text, Piece range, std::vector<Piece>& out)
      : classes_(CharClasses::get()), text_(text.data()), at_(range.begin), end_(range.end), out_(out) {}

  void gpt2() {
    while (at_ < end_) emit(gpt2_piece());
  }
  void llama3(uint32_t max_digits) {
    while (at_ < end_) emit(llama3_piece(max_digits));
  }

 private:
  struct Char {
    uint32_t bytes;
    uint8_t bits;
  };
  Char char_at(uint32_t i) const {
    const auto first = static_cast<uint8_t>(text_[i]);
    if (first < 0x80) return {1, classes_[first]};
    const DecodedChar c = decode_valid(text_ + i);
    return {c.bytes, classes_[c.code]};
  }
  void emit(uint32_t next) {
    out_.push_back({at_, next});
    at_ = next;
  }
  // End of the run of characters from `i` on that have one of `wanted` (all of the run's, if `has` is false: none).
  uint32_t run(uint32_t i, uint8_t bits, bool has = true) const {
    while (i < end_) {
      const Char c = char_at(i);
      if (((c.bits & bits) != 0) != has) break;
      i += c.bytes;
    }
    return i;
  }
  uint32_t newlines(uint32_t i) const {
    while (i < end_ && (text_[i] == '\n' || text_[i] == '\r')) ++i;
    return i;
  }
  uint32_t digits(uint32_t i, uint32_t most) const {
    for (; most > 0 && i < end_; --most) {
      const Char c = char_at(i);
      if (!(c.bits & kNumberClass)) break;
      i += c.bytes;
    }
    return i;
  }
  // White space that is not followed by other white space only: all of the run but its last character when something
  // else follows, as \s+(?!\S)|\s+ has it.
  uint32_t spaces() const {
    uint32_t i = at_, last = at_;
    while (i < end_) {
      const Char c = char_at(i);
      if (!(c.bits & kSpaceClass)) break;
      last = i;
      i += c.bytes;
    }
    return i < end_ && last > at_ ? last : i;
  }
  // 's 't 're 've 'm 'll 'd: its end, or 0. U+017F folds to s.
  template <bool kAnyCase>
  uint32_t contraction() const {
    const uint32_t left = end_ - at_;
    if (left < 2) return 0;
    const auto lower = [&](uint32_t i) { return static_cast<char>(kAnyCase ? text_[i] | 0x20 : text_[i]); };
    const char a = lower(at_ + 1);
    if (a == 's' || a == 't' || a == 'm' || a == 'd') return at_ + 2;
    if (left < 3) return 0;
    if (kAnyCase && text_[at_ + 1] == '\xc5' && text_[at_ + 2] == '\xbf') return at_ + 3;
    const char b = lower(at_ + 2);
    return (a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l') ? at_ + 3 : 0;
  }

  uint32_t gpt2_piece() const {
    if (text_[at_] == '\'')
      if (const uint32_t end = contraction<false>()) return end;
    const Char first = char_at(at_);
    Char body = first;
    uint32_t i = at_;
    if (text_[at_] == ' ' && at_ + 1 < end_) {
      i = at_ + 1;
      body = char_at(i);
    }
    if (body.bits & kLetterClass) return run(i + body.bytes, kLetterClass);
    if (body.bits & kNumberClass) return run(i + body.bytes, kNumberClass);
    if (!(body.bits & kAnyClass)) return run(i + body.bytes, kAnyClass, false);
    return spaces();
  }

  uint32_t llama3_piece(uint32_t max_digits) const {
    if (text_[at_] == '\'')
      if (const uint32_t end = contraction<true>()) return end;
    const Char first = char_at(at_);
    if (first.bits & kLetterClass) return run(at_ + first.bytes, kLetterClass);
    if (first.bits & kNumberClass) return digits(at_, max_digits);
    const bool newline = text_[at_] == '\n' || text_[at_] == '\r';
    const uint32_t i = at_ + first.bytes;
    const Char second = i < end_ ? char_at(i) : Char{0, kSpaceClass};
    if (!newline && (second.bits & kLetterClass)) return run(i + second.bytes, kLetterClass);
    if (!(first.bits & kSpaceClass)) return newlines(run(i, kAnyClass, false));
    if (text_[at_] == ' ' && !(second.bits & kAnyClass)) return newlines(run(i + second.bytes, kAnyClass, false));
    return newline_or_spaces();
  }

  // \s*[\r\n]+ up to the last newline of the white space here, else spaces().
  uint32_t newline_or_spaces() const {
    uint32_t after_newline = 0;
    for (uint32_t i = at_; i < end_;) {
      const Char c = char_at(i);
      if (!(c.bits & kSpaceClass)) break;
      const bool newline = text_[i] == '\n' || text_[i] == '\r';
      i += c.bytes;
      if (newline) after_newline = i;
    }
    return after_newline ? after_newline : spaces();
  }

  const CharClasses& classes_;
  const char* text_;
  uint32_t at_, end_;
  std::vector<Piece>& out_;
};

// \s+$ where $ is the end of any line: of each white-space run, the part up to the last place that is followed by a
// newline or by nothing.
void scan_trailing_space(std::string_view text, Piece range, std::vector<Piece>& matches) {
  const CharClasses& classes = CharClasses::get();
  for (uint32_t i = range.begin; i < range.end;) {
    const uint32_t begin = i;
    uint32_t end = begin;
    while (i < range.end) {
      const DecodedChar c = decode_valid(text.data() + i);
      if (!(classes[c.code] & kSpaceClass)) break;
      if (c.code == '\n' && i > begin) end = i;
      i += c.bytes;
    }
    if (i == range.end) end = i;
    if (end > begin) matches.push_back({begin, end});
    if (i == begin) i += decode_valid(text.data() + i).bytes;
  }
}

}  // namespace

std::optional<SplitScanner> SplitScanner::for_pattern(std::string_view pattern) {
  if (pattern == kGpt2Pattern) return SplitScanner(Kind::kGpt2, 0);
  if (pattern == kLlama3Pattern) return SplitScanner(Kind::kLlama3, 3);
  if (pattern == kQwen2Pattern) return SplitScanner(Kind::kLlama3, 1);
  if (pattern == kTrailingSpacePattern) return SplitScanner(Kind::kTrailingSpace, 0);
  return std::nullopt;
}

void SplitScanner::scan(std::string_view text, Piece range, std::vector<Piece>& matches) const {
  switch (kind_) {
    case Kind::kGpt2:
      return Walker(text, range, matches).gpt2();
    case Kind::kLlama3:
      return Walker(text, range, matches).llama3(max_digits_);
    case Kind::kTrailingSpace:
      return scan_trailing_space(text, range, matches);
  }
}

}  // namespace millrace
