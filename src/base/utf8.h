// UTF-8, strictly as RFC 3629 has it: no overlong forms, no surrogates, nothing above U+10FFFF.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace millrace {

struct Utf8Char {
  char32_t code = 0xFFFD;
  int bytes = 1;  // that it takes in the text; 1 for an invalid byte
  bool valid = false;
};
// The character at text[at]; at < text.size().
Utf8Char utf8_at(std::string_view text, size_t at);
bool is_valid_utf8(std::string_view text);
void append_utf8(std::string& out, char32_t code);
// Number of characters; each invalid byte counts as one.
size_t utf8_length(std::string_view text);
// Bytes at the end of `text` that begin a character whose rest is still missing (0 to 3). Bytes that can never become
// a valid character are not counted.
size_t utf8_incomplete_suffix(std::string_view text);
// Invalid sequences replaced by U+FFFD, one for each maximal invalid part (as Python's errors="replace").
std::string utf8_replace_invalid(std::string_view text);

}  // namespace millrace
