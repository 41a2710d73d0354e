#include "base/utf8.h"

#include <algorithm>
#include <cstring>

namespace millrace {
namespace {

// Bytes of the run of ASCII at text[at..], counted eight at a time; may stop up to seven bytes before its end.
size_t ascii_run(std::string_view text, size_t at) {
  size_t size = 0;
  for (uint64_t eight = 0; at + size + sizeof eight <= text.size(); size += sizeof eight) {
    std::memcpy(&eight, text.data() + at + size, sizeof eight);
    if (eight & 0x8080808080808080) break;
  }
  return size;
}

struct Lead {
  int bytes;          // of the whole character; 0: not a lead byte
  uint8_t low, high;  // allowed range of the second byte
};

// Table 3-7 of the Unicode standard, well-formed byte sequences.
Lead lead_of(uint8_t b) {
  if (b < 0x80) return {1, 0, 0};
  if (b >= 0xc2 && b <= 0xdf) return {2, 0x80, 0xbf};
  if (b == 0xe0) return {3, 0xa0, 0xbf};
  if (b == 0xed) return {3, 0x80, 0x9f};
  if (b >= 0xe1 && b <= 0xef) return {3, 0x80, 0xbf};
  if (b == 0xf0) return {4, 0x90, 0xbf};
  if (b >= 0xf1 && b <= 0xf3) return {4, 0x80, 0xbf};
  if (b == 0xf4) return {4, 0x80, 0x8f};
  return {0, 0, 0};
}

// Length of the longest prefix of text[at..] that some valid character starts with (0 if the byte is no lead byte).
int valid_prefix(std::string_view text, size_t at, const Lead& lead) {
  if (lead.bytes == 0) return 0;
  int n = 1;
  for (; n < lead.bytes && at + n < text.size(); ++n) {
    const auto b = static_cast<uint8_t>(text[at + n]);
    const uint8_t low = n == 1 ? lead.low : 0x80, high = n == 1 ? lead.high : 0xbf;
    if (b < low || b > high) break;
  }
  return n;
}

}  // namespace

Utf8Char utf8_at(std::string_view text, size_t at) {
  const auto first = static_cast<uint8_t>(text[at]);
  if (first < 0x80) return {first, 1, true};
  const Lead lead = lead_of(first);
  if (lead.bytes == 0 || valid_prefix(text, at, lead) < lead.bytes) return {};
  char32_t code = first & (0xff >> (lead.bytes + 1));
  for (int i = 1; i < lead.bytes; ++i) code = (code << 6) | (static_cast<uint8_t>(text[at + i]) & 0x3f);
  return {code, lead.bytes, true};
}

bool is_valid_utf8(std::string_view text) {
  for (size_t i = 0; i < text.size();) {
    if (static_cast<uint8_t>(text[i]) < 0x80) {
      i += std::max<size_t>(ascii_run(text, i), 1);
      continue;
    }
    const Utf8Char c = utf8_at(text, i);
    if (!c.valid) return false;
    i += c.bytes;
  }
  return true;
}

void append_utf8(std::string& out, char32_t c) {
  if (c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff)) c = 0xfffd;
  if (c < 0x80) {
    out += static_cast<char>(c);
  } else if (c < 0x800) {
    out += {static_cast<char>(0xc0 | (c >> 6)), static_cast<char>(0x80 | (c & 0x3f))};
  } else if (c < 0x10000) {
    out += {static_cast<char>(0xe0 | (c >> 12)), static_cast<char>(0x80 | ((c >> 6) & 0x3f)),
            static_cast<char>(0x80 | (c & 0x3f))};
  } else {
    out += {static_cast<char>(0xf0 | (c >> 18)), static_cast<char>(0x80 | ((c >> 12) & 0x3f)),
            static_cast<char>(0x80 | ((c >> 6) & 0x3f)), static_cast<char>(0x80 | (c & 0x3f))};
  }
}

size_t utf8_length(std::string_view text) {
  size_t count = 0;
  for (size_t i = 0; i < text.size(); ++count) i += static_cast<uint8_t>(text[i]) < 0x80 ? 1 : utf8_at(text, i).bytes;
  return count;
}

size_t utf8_incomplete_suffix(std::string_view text) {
  for (size_t n = 1; n <= std::min<size_t>(3, text.size()); ++n) {
    const size_t at = text.size() - n;
    const Lead lead = lead_of(static_cast<uint8_t>(text[at]));
    if (lead.bytes == 0) continue;  // a continuation byte: look further left
    return lead.bytes > static_cast<int>(n) && valid_prefix(text, at, lead) == static_cast<int>(n) ? n : 0;
  }
  return 0;
}

std::string utf8_replace_invalid(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size();) {
    const Utf8Char c = utf8_at(text, i);
    if (c.valid) {
      out.append(text, i, c.bytes);
      i += c.bytes;
    } else {
      out += "\xEF\xBF\xBD";
      i += std::max(1, valid_prefix(text, i, lead_of(static_cast<uint8_t>(text[i]))));
    }
  }
  return out;
}

}  // namespace millrace
