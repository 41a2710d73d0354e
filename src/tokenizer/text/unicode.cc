#include "tokenizer/text/unicode.h"

#include <unicode/uchar.h>

#include <map>

#include "base/utf8.h"

namespace millrace {
namespace {

constexpr char32_t kCodePoints = 0x110000;

UBool note_range(const void* context, UChar32 start, UChar32 limit, UCharCategory category) {
  uint8_t bits = 0;
  if (U_MASK(category) & U_GC_L_MASK) bits = kLetterClass;
  if (U_MASK(category) & U_GC_N_MASK) bits = kNumberClass;
  auto& classes = *static_cast<std::vector<uint8_t>*>(const_cast<void*>(context));
  std::fill(classes.begin() + start, classes.begin() + limit, bits);
  return true;
}

std::vector<uint8_t> classes_of_all() {
  std::vector<uint8_t> classes(kCodePoints);
  u_enumCharTypes(note_range, &classes);
  for (char32_t c = 0; c <= 0x3000; ++c)
    if (is_white_space(c)) classes[c] |= kSpaceClass;
  return classes;
}

uint32_t category_mask(char32_t c) { return U_MASK(u_charType(static_cast<UChar32>(c))); }

// Whether Unicode had the character by that major version.
bool is_in_version(char32_t c, uint8_t major) {
  UVersionInfo age;
  u_charAge(static_cast<UChar32>(c), age);
  return age[0] <= major;
}

}  // namespace

CharClasses::CharClasses() {
  const std::vector<uint8_t> classes = classes_of_all();
  std::map<std::string_view, uint16_t> seen;
  for (size_t page = 0; page < index_.size(); ++page) {
    const std::string_view bytes(reinterpret_cast<const char*>(classes.data()) + page * 256, 256);
    const auto [it, is_new] = seen.try_emplace(bytes, static_cast<uint16_t>(seen.size()));
    if (is_new) pages_.insert(pages_.end(), bytes.begin(), bytes.end());
    index_[page] = it->second;
  }
}

const CharClasses& CharClasses::get() {
  static const CharClasses classes;
  return classes;
}

bool is_white_space(char32_t c) { return u_isUWhiteSpace(static_cast<UChar32>(c)); }
bool is_numeric(char32_t c) { return category_mask(c) & U_GC_N_MASK; }
bool is_nonspacing_mark(char32_t c) { return (category_mask(c) & U_GC_MN_MASK) && is_in_version(c, 8); }
bool is_combining_mark(char32_t c) { return (category_mask(c) & U_GC_M_MASK) && is_in_version(c, 9); }
bool is_other(char32_t c) { return category_mask(c) & (U_GC_CC_MASK | U_GC_CF_MASK | U_GC_CO_MASK); }

bool is_punctuation(char32_t c) {
  if (c < 0x80) return c > 0x20 && c < 0x7f && !u_isalnum(static_cast<UChar32>(c));
  return (category_mask(c) & U_GC_P_MASK) && is_in_version(c, 8);
}

bool is_word(char32_t c) {
  return (category_mask(c) & (U_GC_M_MASK | U_GC_ND_MASK | U_GC_PC_MASK)) || u_isUAlphabetic(static_cast<UChar32>(c)) ||
         c == 0x200c || c == 0x200d;
}

size_t ascii_prefix(std::string_view text) {
  size_t i = 0;
  for (; i + 8 <= text.size(); i += 8) {
    uint64_t word;
    std::memcpy(&word, text.data() + i, 8);
    if (word & 0x8080808080808080u) break;
  }
  while (i < text.size() && static_cast<uint8_t>(text[i]) < 0x80) ++i;
  return i;
}

bool is_valid_utf8_fast(std::string_view text) {
  for (size_t i = ascii_prefix(text); i < text.size();) {
    const Utf8Char c = utf8_at(text, i);
    if (!c.valid) return false;
    i += c.bytes;
    if (c.bytes == 1) i += ascii_prefix(text.substr(i));
  }
  return true;
}

}  // namespace millrace
