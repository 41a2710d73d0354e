#include "tokenizer/text/alphabet.h"

#include <array>

#include "base/utf8.h"
#include "tokenizer/text/unicode.h"

namespace millrace {
namespace {

constexpr bool stands_for_itself(int b) { return (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xff && b != 0xad); }

constexpr int kAlphabetEnd = 0x144;

struct Tables {
  std::array<char32_t, 256> to{};
  std::array<int16_t, kAlphabetEnd> from{};
  std::array<std::string, 256> spelling;

  Tables() {
    from.fill(-1);
    char32_t next = 0x100;
    for (int b = 0; b < 256; ++b) {
      to[b] = stands_for_itself(b) ? static_cast<char32_t>(b) : next++;
      from[to[b]] = static_cast<int16_t>(b);
      append_utf8(spelling[b], to[b]);
    }
  }
};

const Tables& tables() {
  static const Tables t;
  return t;
}

}  // namespace

char32_t byte_to_alphabet(uint8_t byte) { return tables().to[byte]; }
std::string_view byte_spelling(uint8_t byte) { return tables().spelling[byte]; }

std::string to_alphabet(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size() + bytes.size() / 4);
  for (const char b : bytes) out += tables().spelling[static_cast<uint8_t>(b)];
  return out;
}

std::optional<std::string> from_alphabet(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size();) {
    const DecodedChar c = decode_valid(text.data() + i);
    if (c.code >= kAlphabetEnd || tables().from[c.code] < 0) return std::nullopt;
    out += static_cast<char>(tables().from[c.code]);
    i += c.bytes;
  }
  return out;
}

}  // namespace millrace
