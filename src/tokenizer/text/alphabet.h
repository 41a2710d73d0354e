// The byte-level alphabet of GPT-2: each byte is written as one printable character, so that vocabulary files hold
// text. Bytes that are printable in Latin-1 stand for themselves; the others follow from U+0100 on in byte order.
#pragma once
#include <optional>
#include <string>
#include <string_view>

namespace millrace {

char32_t byte_to_alphabet(uint8_t byte);
// The UTF-8 spelling of one byte.
std::string_view byte_spelling(uint8_t byte);
std::string to_alphabet(std::string_view bytes);
// The bytes that `text` (valid UTF-8) spells; nothing if a character is not of the alphabet.
std::optional<std::string> from_alphabet(std::string_view text);

}  // namespace millrace
