#include "tokenizer/text/normalizer.h"

#include <unicode/bytestream.h>
#include <unicode/normalizer2.h>
#include <unicode/uchar.h>
#include <unicode/uniset.h>
#include <unicode/unistr.h>

#include <algorithm>
#include <array>

#include "base/utf8.h"
#include "tokenizer/text/alphabet.h"
#include "tokenizer/text/grapheme.h"
#include "tokenizer/text/unicode.h"

namespace millrace {
namespace {

// Rewrites `text` character by character: fn(character, out) appends what replaces it.
template <class Fn>
std::string map_chars(std::string_view text, Fn fn) {
  std::string out;
  out.reserve(text.size() + text.size() / 8);
  for (size_t i = 0; i < text.size();) {
    const DecodedChar c = decode_valid(text.data() + i);
    fn(c.code, out);
    i += c.bytes;
  }
  return out;
}

Status icu_failure(const char* what, UErrorCode error) {
  return internal_error("{} failed in ICU: {}", what, u_errorName(error));
}

// The compatibility forms, kept to the characters of Unicode 11.
const icu::Normalizer2* compatibility(const icu::Normalizer2* full, UErrorCode& error) {
  static const icu::UnicodeSet* const kOldCharacters = [] {
    UErrorCode set_error = U_ZERO_ERROR;
    auto* set = new icu::UnicodeSet(u"[:Age=11.0:]", set_error);
    set->freeze();
    return set;
  }();
  if (U_FAILURE(error)) return nullptr;
  return new icu::FilteredNormalizer2(*full, *kOldCharacters);
}

// ICU's instances live as long as the process, and so do the two made here.
const icu::Normalizer2* icu_normalizer(UnicodeForm form, UErrorCode& error) {
  switch (form) {
    case UnicodeForm::kNfc:
      return icu::Normalizer2::getNFCInstance(error);
    case UnicodeForm::kNfd:
      return icu::Normalizer2::getNFDInstance(error);
    case UnicodeForm::kNfkc: {
      static const icu::Normalizer2* const kNfkc = compatibility(icu::Normalizer2::getNFKCInstance(error), error);
      return kNfkc;
    }
    case UnicodeForm::kNfkd: {
      static const icu::Normalizer2* const kNfkd = compatibility(icu::Normalizer2::getNFKDInstance(error), error);
      return kNfkd;
    }
  }
  return nullptr;
}

Status normalize_form(UnicodeForm form, std::string& text) {
  const size_t ascii = ascii_prefix(text);
  if (ascii == text.size()) return {};
  UErrorCode error = U_ZERO_ERROR;
  const icu::Normalizer2* normalizer = icu_normalizer(form, error);
  if (U_FAILURE(error) || !normalizer) return icu_failure("Unicode normalization", error);
  const icu::StringPiece source(text.data(), static_cast<int32_t>(text.size()));
  if (normalizer->isNormalizedUTF8(source, error) && U_SUCCESS(error)) return {};
  std::string out;
  out.reserve(text.size() + text.size() / 8);
  icu::StringByteSink<std::string> sink(&out);
  normalizer->normalizeUTF8(0, source, sink, nullptr, error);
  if (U_FAILURE(error)) return icu_failure("Unicode normalization", error);
  text = std::move(out);
  return {};
}

class UnicodeFormNormalizer final : public Normalizer {
 public:
  explicit UnicodeFormNormalizer(UnicodeForm form) : form_(form) {}
  Status run(std::string& text, bool) const override { return normalize_form(form_, text); }
  bool keeps_ascii() const override { return true; }

 private:
  UnicodeForm form_;
};

// Each character by its own full mapping; no context, so a final sigma stays an ordinary one.
void append_lowercase(char32_t c, std::string& out) {
  if (c < 0x80) {
    out += static_cast<char>(c >= 'A' && c <= 'Z' ? c + 32 : c);
  } else if (c == 0x130) {
    out += "i\xcc\x87";  // the only character whose lower case has two
  } else {
    append_utf8(out, static_cast<char32_t>(u_tolower(static_cast<UChar32>(c))));
  }
}

class Lowercase final : public Normalizer {
 public:
  Status run(std::string& text, bool) const override {
    text = map_chars(text, append_lowercase);
    return {};
  }
};

class StripAccents final : public Normalizer {
 public:
  Status run(std::string& text, bool) const override {
    if (is_ascii(text)) return {};
    text = map_chars(text, [](char32_t c, std::string& out) {
      if (!is_combining_mark(c)) append_utf8(out, c);
    });
    return {};
  }
  bool keeps_ascii() const override { return true; }
};

class StripSpace final : public Normalizer {
 public:
  StripSpace(bool left, bool right) : left_(left), right_(right) {}
  Status run(std::string& text, bool) const override {
    size_t begin = 0, end = text.size();
    while (left_ && begin < end) {
      const DecodedChar c = decode_valid(text.data() + begin);
      if (!is_white_space(c.code)) break;
      begin += c.bytes;
    }
    while (right_ && end > begin) {
      const size_t at = previous_char(text, end);
      if (!is_white_space(decode_valid(text.data() + at).code)) break;
      end = at;
    }
    text = text.substr(begin, end - begin);
    return {};
  }

 private:
  bool left_, right_;
};

class ReplaceAll final : public Normalizer {
 public:
  ReplaceAll(Pattern pattern, std::string content) : pattern_(std::move(pattern)), content_(std::move(content)) {}
  Status run(std::string& text, bool) const override {
    MR_ASSIGN_OR_RETURN(text, pattern_.replace(text, content_));
    return {};
  }

 private:
  Pattern pattern_;
  std::string content_;
};

class Prepend final : public Normalizer {
 public:
  explicit Prepend(std::string text) : text_(std::move(text)) {}
  Status run(std::string& text, bool) const override {
    if (!text.empty()) text.insert(0, text_);
    return {};
  }

 private:
  std::string text_;
};

// The blocks of CJK ideographs that BERT isolates.
bool is_chinese(char32_t c) {
  return (c >= 0x4e00 && c <= 0x9fff) || (c >= 0x3400 && c <= 0x4dbf) || (c >= 0x20000 && c <= 0x2a6df) ||
         (c >= 0x2a700 && c <= 0x2b73f) || (c >= 0x2b740 && c <= 0x2b81f) || (c >= 0x2b920 && c <= 0x2ceaf) ||
         (c >= 0xf900 && c <= 0xfaff) || (c >= 0x2f800 && c <= 0x2fa1f);
}

void append_clean(char32_t c, std::string& out) {
  const bool line_space = c == '\t' || c == '\n' || c == '\r';
  if (c == 0 || c == 0xfffd || (!line_space && is_other(c))) return;
  if (line_space || is_white_space(c))
    out += ' ';
  else
    append_utf8(out, c);
}

class BertNormalizer final : public Normalizer {
 public:
  explicit BertNormalizer(const BertNormalizerOptions& options) : options_(options) {}
  Status run(std::string& text, bool) const override {
    if (options_.clean_text) text = map_chars(text, append_clean);
    if (options_.handle_chinese_chars && !is_ascii(text)) text = map_chars(text, append_isolated);
    if (options_.strip_accents) {
      MR_RETURN_IF_ERROR(normalize_form(UnicodeForm::kNfd, text));
      if (!is_ascii(text)) text = map_chars(text, append_unmarked);
    }
    if (options_.lowercase) text = map_chars(text, append_lowercase);
    return {};
  }

 private:
  static void append_isolated(char32_t c, std::string& out) {
    if (!is_chinese(c)) return append_utf8(out, c);
    out += ' ';
    append_utf8(out, c);
    out += ' ';
  }
  static void append_unmarked(char32_t c, std::string& out) {
    if (!is_nonspacing_mark(c)) append_utf8(out, c);
  }
  BertNormalizerOptions options_;
};

class Nmt final : public Normalizer {
 public:
  Status run(std::string& text, bool) const override {
    text = map_chars(text, append);
    return {};
  }

 private:
  static bool dropped(char32_t c) {
    return (c >= 0x1 && c <= 0x8) || c == 0xb || (c >= 0xe && c <= 0x1f) || c == 0x7f || c == 0x8f || c == 0x9f;
  }
  static bool is_space(char32_t c) {
    return c == 0x9 || c == 0xa || c == 0xc || c == 0xd || c == 0x1680 || (c >= 0x200b && c <= 0x200f) || c == 0x2028 ||
           c == 0x2029 || c == 0x2581 || c == 0xfeff || c == 0xfffd;
  }
  static void append(char32_t c, std::string& out) {
    if (dropped(c)) return;
    append_utf8(out, is_space(c) ? U' ' : c);
  }
};

class PrecompiledMap final : public Normalizer {
 public:
  explicit PrecompiledMap(CharsMap map) : map_(std::move(map)) {
    for (size_t c = 0; c < mapped_ascii_.size(); ++c) {
      const char one = static_cast<char>(c);
      mapped_ascii_[c] = map_.shortest_prefix({&one, 1}).has_value();
    }
  }
  Status run(std::string& text, bool) const override {
    if (map_.empty()) return {};
    std::string out;
    out.reserve(text.size() + text.size() / 8);
    MR_RETURN_IF_ERROR(for_each_grapheme(
        text, [&](std::string_view run) { append_ascii(run, out); },
        [&](std::string_view cluster) { append(cluster, out); }));
    text = std::move(out);
    return {};
  }

 private:
  static constexpr size_t kLongestMappedCluster = 5;  // bytes
  void append_ascii(std::string_view run, std::string& out) const {
    for (size_t i = 0; i < run.size(); ++i) {
      if (mapped_ascii_[static_cast<size_t>(run[i])])
        append(run.substr(i, 1), out);
      else
        out += run[i];
    }
  }
  void append(std::string_view grapheme, std::string& out) const {
    if (grapheme.size() <= kLongestMappedCluster) {
      if (const auto match = map_.shortest_prefix(grapheme)) {
        out += match->replacement;
        return;
      }
    }
    for (size_t i = 0; i < grapheme.size();) {
      const std::string_view one = grapheme.substr(i, decode_valid(grapheme.data() + i).bytes);
      const auto match = map_.shortest_prefix(one);
      out += match ? match->replacement : one;
      i += one.size();
    }
  }
  CharsMap map_;
  std::array<bool, 128> mapped_ascii_{};
};

class ToAlphabet final : public Normalizer {
 public:
  Status run(std::string& text, bool) const override {
    text = to_alphabet(text);
    return {};
  }
};

class Sequence final : public Normalizer {
 public:
  explicit Sequence(std::vector<NormalizerPtr> steps) : steps_(std::move(steps)) {}
  Status run(std::string& text, bool at_start) const override {
    for (const NormalizerPtr& step : steps_) MR_RETURN_IF_ERROR(step->run(text, at_start));
    return {};
  }
  bool keeps_ascii() const override {
    return std::all_of(steps_.begin(), steps_.end(), [](const NormalizerPtr& s) { return s->keeps_ascii(); });
  }

 private:
  std::vector<NormalizerPtr> steps_;
};

}  // namespace

NormalizerPtr unicode_form(UnicodeForm form) { return std::make_unique<UnicodeFormNormalizer>(form); }
NormalizerPtr lowercase() { return std::make_unique<Lowercase>(); }
NormalizerPtr strip_accents() { return std::make_unique<StripAccents>(); }
NormalizerPtr strip_space(bool left, bool right) { return std::make_unique<StripSpace>(left, right); }
NormalizerPtr replace_all(Pattern pattern, std::string content) {
  return std::make_unique<ReplaceAll>(std::move(pattern), std::move(content));
}
NormalizerPtr prepend(std::string text) { return std::make_unique<Prepend>(std::move(text)); }
NormalizerPtr bert_normalizer(const BertNormalizerOptions& options) {
  return std::make_unique<BertNormalizer>(options);
}
NormalizerPtr nmt_normalizer() { return std::make_unique<Nmt>(); }
NormalizerPtr precompiled(CharsMap map) { return std::make_unique<PrecompiledMap>(std::move(map)); }
NormalizerPtr to_alphabet_normalizer() { return std::make_unique<ToAlphabet>(); }
NormalizerPtr sequence_of(std::vector<NormalizerPtr> steps) { return std::make_unique<Sequence>(std::move(steps)); }

}  // namespace millrace
