#include "tokenizer/jinja/text_ops.h"

#include <unicode/locid.h>
#include <unicode/uchar.h>
#include <unicode/unistr.h>

#include <algorithm>
#include <charconv>
#include <cstring>

#include "base/utf8.h"

namespace millrace::jinja {
namespace {

bool all_ascii(std::string_view text) {
  return std::none_of(text.begin(), text.end(), [](char c) { return static_cast<uint8_t>(c) >= 0x80; });
}
char ascii_upper(char c) { return c >= 'a' && c <= 'z' ? static_cast<char>(c - 32) : c; }
char ascii_lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; }

// Calls visit(character) until it returns false.
template <class Visit>
void each_char(std::string_view text, const Visit& visit) {
  for (size_t at = 0; at < text.size();) {
    const Utf8Char c = utf8_at(text, at);
    if (!visit(c.code)) return;
    at += static_cast<size_t>(c.bytes);
  }
}

std::string to_utf8(const icu::UnicodeString& text) {
  std::string out;
  text.toUTF8String(out);
  return out;
}
icu::UnicodeString to_utf16(std::string_view text) {
  return icu::UnicodeString::fromUTF8({text.data(), static_cast<int32_t>(text.size())});
}

size_t last_char_start(std::string_view text) {
  size_t at = text.size() - 1;
  while (at > 0 && (static_cast<uint8_t>(text[at]) & 0xc0) == 0x80) --at;
  return at;
}

template <class Drop>
std::string_view strip_if(std::string_view text, Side side, const Drop& drop) {
  while (side != Side::kRight && !text.empty()) {
    const Utf8Char c = utf8_at(text, 0);
    if (!drop(text.substr(0, static_cast<size_t>(c.bytes)), c.code)) break;
    text.remove_prefix(static_cast<size_t>(c.bytes));
  }
  while (side != Side::kLeft && !text.empty()) {
    const size_t start = last_char_start(text);
    if (!drop(text.substr(start), utf8_at(text, start).code)) break;
    text.remove_suffix(text.size() - start);
  }
  return text;
}

bool is_line_end(char32_t c) {
  return (c >= 0x0a && c <= 0x0d) || (c >= 0x1c && c <= 0x1e) || c == 0x85 || c == 0x2028 || c == 0x2029;
}

size_t space_free_prefix(std::string_view text) {
  size_t at = 0;
  while (at < text.size()) {
    const Utf8Char c = utf8_at(text, at);
    if (is_space(c.code)) break;
    at += static_cast<size_t>(c.bytes);
  }
  return at;
}

size_t space_free_suffix(std::string_view text) {
  size_t length = text.size();
  while (length > 0) {
    const size_t start = last_char_start(text.substr(0, length));
    if (is_space(utf8_at(text, start).code)) break;
    length = start;
  }
  return text.size() - length;
}

std::vector<std::string_view> split_space_from_right(std::string_view text, int64_t max_splits) {
  std::vector<std::string_view> pieces;
  text = strip_space(text, Side::kRight);
  while (!text.empty() && max_splits-- != 0) {
    const size_t size = space_free_suffix(text);
    pieces.push_back(text.substr(text.size() - size));
    text = strip_space(text.substr(0, text.size() - size), Side::kRight);
  }
  if (!text.empty()) pieces.push_back(text);
  std::reverse(pieces.begin(), pieces.end());
  return pieces;
}

std::vector<std::string_view> split_at_from_right(std::string_view text, std::string_view separator,
                                                  int64_t max_splits) {
  std::vector<std::string_view> pieces;
  while (max_splits-- != 0) {
    const size_t at = find_last_text(text, separator);
    if (at == std::string_view::npos) break;
    pieces.push_back(text.substr(at + separator.size()));
    text = text.substr(0, at);
  }
  pieces.push_back(text);
  std::reverse(pieces.begin(), pieces.end());
  return pieces;
}

void append_title_case(std::string& out, char32_t c) {
  if (c < 0x80) {
    out += ascii_upper(static_cast<char>(c));
  } else {
    icu::UnicodeString(static_cast<UChar32>(c)).toTitle(nullptr, icu::Locale::getRoot()).toUTF8String(out);
  }
}

bool is_cased(char32_t c) { return u_hasBinaryProperty(static_cast<UChar32>(c), UCHAR_CASED); }

bool passes(char32_t c, CharTest test) {
  const auto code = static_cast<UChar32>(c);
  const auto numeric = u_getIntPropertyValue(code, UCHAR_NUMERIC_TYPE);
  switch (test) {
    case CharTest::kAlpha:
      return (U_GET_GC_MASK(code) & U_GC_L_MASK) != 0;
    case CharTest::kAlnum:
      return (U_GET_GC_MASK(code) & U_GC_L_MASK) != 0 || numeric != U_NT_NONE;
    case CharTest::kDecimal:
      return numeric == U_NT_DECIMAL;
    case CharTest::kDigit:
      return numeric == U_NT_DECIMAL || numeric == U_NT_DIGIT;
    case CharTest::kNumeric:
      return numeric != U_NT_NONE;
    case CharTest::kSpace:
      return is_space(c);
    case CharTest::kPrintable:
      return is_printable(c);
  }
  return false;
}

// Digits with single underscores between them removed; false if an underscore stands elsewhere.
bool drop_underscores(std::string_view text, std::string& out) {
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '_') {
      out.push_back(text[i]);
    } else if (i == 0 || i + 1 == text.size() || !std::isalnum(static_cast<unsigned char>(text[i - 1])) ||
               !std::isalnum(static_cast<unsigned char>(text[i + 1]))) {
      return false;
    }
  }
  return true;
}

// Decimal digits of every script become ASCII digits, as int() and float() read them.
std::string ascii_digits(std::string_view text) {
  if (all_ascii(text)) return std::string(text);
  std::string out;
  each_char(text, [&](char32_t c) {
    const int digit = u_charDigitValue(static_cast<UChar32>(c));
    append_utf8(out, digit >= 0 ? static_cast<char32_t>('0' + digit) : c);
    return true;
  });
  return out;
}

// Takes "0x", "0o" or "0b" off where the base allows it; base 0 learns its base from it. False: malformed.
bool take_base_prefix(std::string_view& digits, int& base) {
  const char letter = digits.size() > 1 && digits[0] == '0' ? ascii_lower(digits[1]) : '\0';
  const int named = letter == 'x' ? 16 : letter == 'o' ? 8 : letter == 'b' ? 2 : 0;
  if (named != 0 && (base == 0 || base == named)) {
    base = named;
    digits.remove_prefix(2);
    if (!digits.empty() && digits[0] == '_') digits.remove_prefix(1);
  } else if (base == 0) {
    base = 10;
    const bool zero = digits.find_first_not_of("0_") == std::string_view::npos;
    if (!digits.empty() && digits[0] == '0' && !zero) return false;
  }
  return true;
}

}  // namespace

bool is_space(char32_t c) {
  if (c < 0x80) return c == ' ' || (c >= 0x09 && c <= 0x0d) || (c >= 0x1c && c <= 0x1f);
  return c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 ||
         c == 0x202f || c == 0x205f || c == 0x3000;
}

bool is_identifier_start(char32_t c) {
  if (c < 0x80) return c == '_' || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
  return u_hasBinaryProperty(static_cast<UChar32>(c), UCHAR_XID_START);
}
bool is_identifier_part(char32_t c) {
  if (c < 0x80) return is_identifier_start(c) || (c >= '0' && c <= '9');
  return u_hasBinaryProperty(static_cast<UChar32>(c), UCHAR_XID_CONTINUE);
}

bool is_printable(char32_t c) {
  if (c < 0x7f) return c >= 0x20;
  const uint32_t hidden = U_GC_C_MASK | U_GC_Z_MASK;
  return (U_GET_GC_MASK(static_cast<UChar32>(c)) & hidden) == 0;
}

bool is_word_char(char32_t c) { return c == '_' || passes(c, CharTest::kAlnum); }

size_t byte_offset(std::string_view text, size_t index) {
  size_t at = 0;
  while (index-- > 0) at += static_cast<size_t>(utf8_at(text, at).bytes);
  return at;
}

std::vector<std::string_view> split_chars(std::string_view text) {
  std::vector<std::string_view> chars;
  for (size_t at = 0; at < text.size(); at += chars.back().size())
    chars.push_back(text.substr(at, static_cast<size_t>(utf8_at(text, at).bytes)));
  return chars;
}

std::string_view strip_space(std::string_view text, Side side) {
  return strip_if(text, side, [](std::string_view, char32_t c) { return is_space(c); });
}

std::string_view strip_chars(std::string_view text, std::string_view chars, Side side) {
  return strip_if(text, side, [&](std::string_view c, char32_t) { return chars.find(c) != std::string_view::npos; });
}

std::vector<std::string_view> split_space(std::string_view text, int64_t max_splits, bool from_right) {
  if (from_right) return split_space_from_right(text, max_splits);
  std::vector<std::string_view> pieces;
  text = strip_space(text, Side::kLeft);
  while (!text.empty() && max_splits-- != 0) {
    const size_t size = space_free_prefix(text);
    pieces.push_back(text.substr(0, size));
    text = strip_space(text.substr(size), Side::kLeft);
  }
  if (!text.empty()) pieces.push_back(text);
  return pieces;
}

std::vector<std::string_view> split_at(std::string_view text, std::string_view separator, int64_t max_splits,
                                       bool from_right) {
  if (from_right) return split_at_from_right(text, separator, max_splits);
  std::vector<std::string_view> pieces;
  while (max_splits-- != 0) {
    const size_t at = find_text(text, separator);
    if (at == std::string_view::npos) break;
    pieces.push_back(text.substr(0, at));
    text = text.substr(at + separator.size());
  }
  pieces.push_back(text);
  return pieces;
}

std::vector<std::string_view> split_lines(std::string_view text, bool keep_ends) {
  std::vector<std::string_view> lines;
  size_t start = 0;
  for (size_t at = 0; at < text.size();) {
    const Utf8Char c = utf8_at(text, at);
    size_t end = at + static_cast<size_t>(c.bytes);
    if (is_line_end(c.code)) {
      if (c.code == '\r' && end < text.size() && text[end] == '\n') ++end;
      lines.push_back(text.substr(start, (keep_ends ? end : at) - start));
      start = end;
    }
    at = end;
  }
  if (start < text.size()) lines.push_back(text.substr(start));
  return lines;
}

size_t find_text(std::string_view text, std::string_view needle) {
  if (needle.empty()) return 0;
  const void* found = memmem(text.data(), text.size(), needle.data(), needle.size());
  return found ? static_cast<size_t>(static_cast<const char*>(found) - text.data()) : std::string_view::npos;
}

size_t find_last_text(std::string_view text, std::string_view needle) {
  if (needle.empty()) return text.size();
  const std::string backwards(needle.rbegin(), needle.rend());
  // Windows that double in size, from the end: the work stays linear in how far from the end the needle is.
  for (size_t window = std::max<size_t>(256, needle.size() * 2);; window *= 2) {
    const std::string_view tail = text.substr(text.size() - std::min(window, text.size()));
    const size_t found = find_text(std::string(tail.rbegin(), tail.rend()), backwards);
    if (found != std::string_view::npos) return text.size() - found - needle.size();
    if (tail.size() == text.size()) return std::string_view::npos;
  }
}

size_t count_text(std::string_view text, std::string_view needle) {
  size_t count = 0;
  for (size_t at; (at = find_text(text, needle)) != std::string_view::npos; text.remove_prefix(at + needle.size()))
    ++count;
  return count;
}

std::string upper(std::string_view text) {
  std::string out(text);
  if (!all_ascii(text)) return to_utf8(to_utf16(text).toUpper(icu::Locale::getRoot()));
  std::transform(out.begin(), out.end(), out.begin(), ascii_upper);
  return out;
}

std::string lower(std::string_view text) {
  std::string out(text);
  if (!all_ascii(text)) return to_utf8(to_utf16(text).toLower(icu::Locale::getRoot()));
  std::transform(out.begin(), out.end(), out.begin(), ascii_lower);
  return out;
}

std::string casefold(std::string_view text) { return to_utf8(to_utf16(text).foldCase()); }

std::string title(std::string_view text) {
  std::string out;
  bool after_cased = false;
  each_char(text, [&](char32_t c) {
    if (after_cased) {
      append_utf8(out, static_cast<char32_t>(u_tolower(static_cast<UChar32>(c))));
    } else {
      append_title_case(out, c);
    }
    after_cased = is_cased(c);
    return true;
  });
  return out;
}

std::string capitalize(std::string_view text) {
  if (text.empty()) return {};
  const Utf8Char first = utf8_at(text, 0);
  std::string out;
  append_title_case(out, first.code);
  return out + lower(text.substr(static_cast<size_t>(first.bytes)));
}

std::string swap_case(std::string_view text) {
  std::string out;
  for (const std::string_view c : split_chars(text)) {
    const auto code = static_cast<UChar32>(utf8_at(c, 0).code);
    out += u_isUUppercase(code) ? lower(c) : u_isULowercase(code) ? upper(c) : std::string(c);
  }
  return out;
}

bool all_chars(std::string_view text, CharTest test) {
  bool all = !text.empty() || test == CharTest::kPrintable;
  each_char(text, [&](char32_t c) { return all = all && passes(c, test); });
  return all;
}

bool is_lower(std::string_view text) {
  bool any = false, all = true;
  each_char(text, [&](char32_t c) {
    const auto code = static_cast<UChar32>(c);
    all = all && !u_isUUppercase(code) && !u_istitle(code);
    any = any || u_isULowercase(code);
    return all;
  });
  return any && all;
}

bool is_upper(std::string_view text) {
  bool any = false, all = true;
  each_char(text, [&](char32_t c) {
    const auto code = static_cast<UChar32>(c);
    all = all && !u_isULowercase(code) && !u_istitle(code);
    any = any || u_isUUppercase(code);
    return all;
  });
  return any && all;
}

bool is_title(std::string_view text) {
  bool any = false, good = true, after_cased = false;
  each_char(text, [&](char32_t c) {
    const auto code = static_cast<UChar32>(c);
    const bool capital = u_isUUppercase(code) || u_istitle(code), small = u_isULowercase(code);
    good = (!capital || !after_cased) && (!small || after_cased);
    after_cased = capital || small;
    any = any || after_cased;
    return good;
  });
  return any && good;
}

bool is_identifier(std::string_view text) {
  if (text.empty() || !is_identifier_start(utf8_at(text, 0).code)) return false;
  bool all = true;
  each_char(text, [&](char32_t c) { return all = is_identifier_part(c); });
  return all;
}

std::optional<int64_t> parse_int(std::string_view text, int base, bool* overflow) {
  *overflow = false;
  const std::string plain = ascii_digits(strip_space(text));
  std::string_view digits = plain;
  const bool negative = !digits.empty() && digits[0] == '-';
  if (negative || (!digits.empty() && digits[0] == '+')) digits.remove_prefix(1);
  if (!take_base_prefix(digits, base)) return std::nullopt;
  std::string clean = negative ? "-" : "";
  if (digits.empty() || !std::isalnum(static_cast<unsigned char>(digits[0])) || !drop_underscores(digits, clean))
    return std::nullopt;
  int64_t value = 0;
  const auto [end, error] = std::from_chars(clean.data(), clean.data() + clean.size(), value, base);
  if (end != clean.data() + clean.size()) return std::nullopt;
  *overflow = error == std::errc::result_out_of_range;
  return value;
}

std::optional<double> parse_float(std::string_view text) {
  std::string clean;
  if (!drop_underscores(ascii_digits(strip_space(text)), clean)) return std::nullopt;
  std::string_view digits = clean;
  if (!digits.empty() && digits[0] == '+') digits.remove_prefix(1);
  if (digits.empty() || digits.find_first_of("()") != std::string_view::npos) return std::nullopt;
  if (digits.size() < clean.size() && digits[0] == '-') return std::nullopt;
  double value = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (end != digits.data() + digits.size()) return std::nullopt;
  if (error == std::errc::result_out_of_range) return std::strtod(std::string(digits).c_str(), nullptr);
  return error == std::errc() ? std::optional(value) : std::nullopt;
}

std::string escape_html(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&#34;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

}  // namespace millrace::jinja
