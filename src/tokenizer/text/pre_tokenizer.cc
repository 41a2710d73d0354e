#include "tokenizer/text/pre_tokenizer.h"

#include <unicode/uscript.h>

#include <algorithm>
#include <array>

#include "base/utf8.h"
#include "tokenizer/text/alphabet.h"
#include "tokenizer/text/unicode.h"

namespace millrace {
namespace {

// Calls fn(character, begin, end) for each character of a piece.
template <class Fn>
void for_each_char(std::string_view text, Piece piece, Fn fn) {
  for (uint32_t i = piece.begin; i < piece.end;) {
    const DecodedChar c = decode_valid(text.data() + i);
    fn(c.code, i, i + c.bytes);
    i += c.bytes;
  }
}

class Split final : public PreTokenizer {
 public:
  Split(Pattern pattern, SplitBehavior behavior, bool invert)
      : pattern_(std::move(pattern)), behavior_(behavior), invert_(invert) {}
  Status run(PieceList& list) const override {
    std::vector<Piece> out, matches;
    out.reserve(list.pieces.size() + list.text.size() / 4);
    Pattern::Finder finder(pattern_);
    const bool as_found = pattern_.covers_everything() && keeps_matches();
    for (const Piece& piece : list.pieces) {
      matches.clear();
      MR_RETURN_IF_ERROR(finder.find(list.text, piece, as_found ? out : matches));
      if (as_found) continue;
      if (matches.empty() && !invert_)
        out.push_back(piece);
      else
        cut(piece, matches, invert_, behavior_, out);
    }
    list.pieces = std::move(out);
    return {};
  }

 private:
  bool keeps_matches() const {
    return invert_ ? behavior_ == SplitBehavior::kRemoved : behavior_ == SplitBehavior::kIsolated;
  }
  Pattern pattern_;
  SplitBehavior behavior_;
  bool invert_;
};

class CharSplit final : public PreTokenizer {
 public:
  CharSplit(bool (*is_match)(char32_t), SplitBehavior behavior) : is_match_(is_match), behavior_(behavior) {
    for (char32_t c = 0; c < ascii_.size(); ++c) ascii_[c] = is_match(c);
  }
  Status run(PieceList& list) const override {
    std::vector<Piece> out, matches;
    for (const Piece& piece : list.pieces) {
      matches.clear();
      for_each_char(list.text, piece, [&](char32_t c, uint32_t begin, uint32_t end) {
        if (c < 0x80 ? ascii_[c] : is_match_(c)) matches.push_back({begin, end});
      });
      if (matches.empty())
        out.push_back(piece);
      else
        cut(piece, matches, false, behavior_, out);
    }
    list.pieces = std::move(out);
    return {};
  }

 private:
  bool (*is_match_)(char32_t);
  SplitBehavior behavior_;
  std::array<bool, 128> ascii_{};
};

class FixedLength final : public PreTokenizer {
 public:
  explicit FixedLength(uint32_t chars) : chars_(chars) {}
  Status run(PieceList& list) const override {
    std::vector<Piece> out;
    for (const Piece& piece : list.pieces) {
      uint32_t count = 0;
      for_each_char(list.text, piece, [&](char32_t, uint32_t begin, uint32_t end) {
        if (count++ % chars_ == 0) out.push_back({begin, end});
        out.back().end = end;
      });
    }
    list.pieces = std::move(out);
    return {};
  }

 private:
  uint32_t chars_;
};

class ScriptSplit final : public PreTokenizer {
 public:
  Status run(PieceList& list) const override {
    std::vector<Piece> out;
    for (const Piece& piece : list.pieces) {
      int32_t last = kAnyScript;  // nothing yet: what comes before the first script is dropped
      for_each_char(list.text, piece, [&](char32_t c, uint32_t begin, uint32_t end) {
        const int32_t script = script_of(c);
        if (script != kAnyScript && script != last) out.push_back({begin, end});
        if (script != kAnyScript) last = script;
        if (last != kAnyScript) out.back().end = end;
      });
    }
    list.pieces = std::move(out);
    return {};
  }

 private:
  static constexpr int32_t kAnyScript = -1;
  static int32_t script_of(char32_t c) {
    if (c == ' ') return kAnyScript;
    if (c == 0x30fc) return USCRIPT_HAN;
    UErrorCode error = U_ZERO_ERROR;
    const UScriptCode script = uscript_getScript(static_cast<UChar32>(c), &error);
    if (script == USCRIPT_HIRAGANA || script == USCRIPT_KATAKANA) return USCRIPT_HAN;
    return U_FAILURE(error) || script == USCRIPT_UNKNOWN ? kAnyScript : static_cast<int32_t>(script);
  }
};

class Metaspace final : public PreTokenizer {
 public:
  Metaspace(char32_t replacement, PrependScheme scheme, bool split) : scheme_(scheme), split_(split) {
    append_utf8(mark_, replacement);
  }
  Status run(PieceList& list) const override {
    std::string text;
    text.reserve(list.text.size() + list.text.size() / 2 + mark_.size());
    std::vector<Piece> out;
    for (size_t i = 0; i < list.pieces.size(); ++i) {
      const auto begin = static_cast<uint32_t>(text.size());
      const std::string_view piece = list.view(list.pieces[i]);
      if (!starts_marked(piece) && prepends(list, i)) text += mark_;
      append_marked(piece, text);
      add_pieces(text, {begin, static_cast<uint32_t>(text.size())}, out);
    }
    list.replace_text(std::move(text), std::move(out));
    return {};
  }

 private:
  bool starts_marked(std::string_view piece) const { return piece.starts_with(' ') || piece.starts_with(mark_); }
  bool prepends(const PieceList& list, size_t index) const {
    if (scheme_ == PrependScheme::kFirst) return index == 0 && list.at_start && list.pieces[0].begin == 0;
    return scheme_ == PrependScheme::kAlways;
  }
  void append_marked(std::string_view piece, std::string& text) const {
    for (size_t at = 0; at < piece.size();) {
      const size_t space = std::min(piece.find(' ', at), piece.size());
      text.append(piece, at, space - at);
      if (space < piece.size()) text += mark_;
      at = space + 1;
    }
  }
  // A piece for every mark that follows something else than a mark, as MergedWithNext has it.
  void add_pieces(std::string_view text, Piece range, std::vector<Piece>& out) const {
    if (!split_) {
      out.push_back(range);
      return;
    }
    std::vector<Piece> matches;
    for (size_t at = text.find(mark_, range.begin); at < range.end; at = text.find(mark_, at + mark_.size()))
      matches.push_back({static_cast<uint32_t>(at), static_cast<uint32_t>(at + mark_.size())});
    cut(range, matches, false, SplitBehavior::kMergedWithNext, out);
  }
  std::string mark_;
  PrependScheme scheme_;
  bool split_;
};

class PrefixSpace final : public PreTokenizer {
 public:
  Status run(PieceList& list) const override {
    std::string text;
    text.reserve(list.text.size() + list.pieces.size());
    std::vector<Piece> out;
    for (const Piece& piece : list.pieces) {
      const auto begin = static_cast<uint32_t>(text.size());
      const std::string_view view = list.view(piece);
      if (!view.starts_with(' ')) text += ' ';
      text += view;
      out.push_back({begin, static_cast<uint32_t>(text.size())});
    }
    list.replace_text(std::move(text), std::move(out));
    return {};
  }
};

class AlphabetMap final : public PreTokenizer {
 public:
  Status run(PieceList& list) const override {
    std::string text;
    text.reserve(list.text.size() + list.text.size() / 4);
    std::vector<Piece> out;
    out.reserve(list.pieces.size());
    for (const Piece& piece : list.pieces) {
      const auto begin = static_cast<uint32_t>(text.size());
      for (const char b : list.view(piece)) text += byte_spelling(static_cast<uint8_t>(b));
      out.push_back({begin, static_cast<uint32_t>(text.size())});
    }
    list.replace_text(std::move(text), std::move(out));
    return {};
  }
};

}  // namespace

PreTokenizerPtr split_at(Pattern pattern, SplitBehavior behavior, bool invert) {
  return std::make_unique<Split>(std::move(pattern), behavior, invert);
}
PreTokenizerPtr split_at_chars(bool (*is_match)(char32_t), SplitBehavior behavior) {
  return std::make_unique<CharSplit>(is_match, behavior);
}
PreTokenizerPtr split_every(uint32_t chars) { return std::make_unique<FixedLength>(chars); }
PreTokenizerPtr split_at_scripts() { return std::make_unique<ScriptSplit>(); }
PreTokenizerPtr metaspace(char32_t replacement, PrependScheme scheme, bool split) {
  return std::make_unique<Metaspace>(replacement, scheme, split);
}
PreTokenizerPtr add_prefix_space() { return std::make_unique<PrefixSpace>(); }
PreTokenizerPtr map_to_alphabet() { return std::make_unique<AlphabetMap>(); }

}  // namespace millrace
