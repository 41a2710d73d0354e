// Character properties that tokenizers ask for, and a decoder for text already known to be valid UTF-8.
// Properties are those of the ICU library installed. Any thread.
#pragma once
#include <array>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

namespace millrace {

enum CharClass : uint8_t {
  kLetterClass = 1,  // general category L*
  kNumberClass = 2,  // general category N*
  kSpaceClass = 4,   // property White_Space
};

// The CharClass bits of every code point; two lookups, no branch.
class CharClasses {
 public:
  static const CharClasses& get();
  uint8_t operator[](char32_t c) const { return pages_[(size_t{index_[c >> 8]} << 8) | (c & 0xff)]; }

 private:
  CharClasses();
  std::array<uint16_t, 0x1100> index_{};
  std::vector<uint8_t> pages_;
};

struct DecodedChar {
  char32_t code;
  uint32_t bytes;
};
// The character at `p`, which starts one in valid UTF-8.
inline DecodedChar decode_valid(const char* p) {
  const auto* b = reinterpret_cast<const uint8_t*>(p);
  if (b[0] < 0x80) return {b[0], 1};
  if (b[0] < 0xe0) return {static_cast<char32_t>((b[0] & 0x1f) << 6 | (b[1] & 0x3f)), 2};
  if (b[0] < 0xf0) return {static_cast<char32_t>((b[0] & 0x0f) << 12 | (b[1] & 0x3f) << 6 | (b[2] & 0x3f)), 3};
  return {static_cast<char32_t>((b[0] & 0x07) << 18 | (b[1] & 0x3f) << 12 | (b[2] & 0x3f) << 6 | (b[3] & 0x3f)), 4};
}

bool is_white_space(char32_t c);  // property White_Space
bool is_numeric(char32_t c);      // N*
bool is_word(char32_t c);         // Alphabetic, M*, Nd, Pc or Join_Control

// As the tokenizers library has them, whose tables are of older Unicode versions: a character that came later counts
// as none of these.
bool is_punctuation(char32_t c);      // P* (Unicode 8), and the ASCII symbols $+<=>^`|~
bool is_nonspacing_mark(char32_t c);  // Mn (Unicode 8)
bool is_combining_mark(char32_t c);   // M* (Unicode 9)
bool is_other(char32_t c);            // Cc, Cf, Co

// Length of the prefix that is pure ASCII.
size_t ascii_prefix(std::string_view text);
inline bool is_ascii(std::string_view text) { return ascii_prefix(text) == text.size(); }
// is_valid_utf8 that skips ASCII eight bytes at a time.
bool is_valid_utf8_fast(std::string_view text);
// Start of the character before `at`; 0 < at <= text.size(), valid UTF-8.
inline size_t previous_char(std::string_view text, size_t at) {
  do --at;
  while (at > 0 && (static_cast<uint8_t>(text[at]) & 0xc0) == 0x80);
  return at;
}

}  // namespace millrace
