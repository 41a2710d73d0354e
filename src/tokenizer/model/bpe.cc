#include "tokenizer/model/bpe.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>

#include "base/check.h"
#include "tokenizer/model/bpe_words.h"
#include "tokenizer/text/alphabet.h"
#include "tokenizer/text/unicode.h"

namespace millrace {
namespace {

using ByteIds = std::array<int32_t, 256>;

// Ids of "<0x00>" to "<0xFF>", -1 where there is none.
ByteIds byte_token_ids(const Vocabulary& vocabulary) {
  ByteIds ids;
  for (int b = 0; b < 256; ++b) ids[b] = vocabulary.find(fmt::format("<0x{:02X}>", b));
  return ids;
}

// Ids of symbols in the order of the text, with runs of unknown ones joined if asked for.
class SymbolWriter {
 public:
  SymbolWriter(const BpeOptions& options, std::vector<BpeSymbol>& symbols) : options_(options), symbols_(symbols) {}
  void known(int32_t id, uint32_t begin) {
    flush();
    symbols_.push_back({id, begin});
  }
  void byte(int32_t id, uint32_t begin) { symbols_.push_back({id, begin}); }
  void unknown(uint32_t begin) {
    if (options_.unk_id < 0) return;
    if (pending_ && options_.fuse_unk) return;
    flush();
    pending_ = BpeSymbol{options_.unk_id, begin};
  }
  void flush() {
    if (pending_) symbols_.push_back(*pending_);
    pending_.reset();
  }

 private:
  const BpeOptions& options_;
  std::vector<BpeSymbol>& symbols_;
  std::optional<BpeSymbol> pending_;
};

// What all but sentencepiece's kind write: their symbols are tokens already.
class TokenBpe : public BpeWords {
 protected:
  using BpeWords::BpeWords;
  void write(std::string_view, const std::vector<BpeSymbol>& symbols, std::vector<int32_t>& ids) const override {
    for (const BpeSymbol& s : symbols) ids.push_back(s.id);
  }
};

class ByteBpe final : public TokenBpe {
 public:
  ByteBpe(Vocabulary vocabulary, const std::vector<BpeMerge>& merges, const BpeOptions& options)
      : TokenBpe(std::move(vocabulary), merges), options_(options) {
    for (int b = 0; b < 256; ++b) byte_ids_[b] = vocabulary_.find(byte_spelling(static_cast<uint8_t>(b)));
    if (!options.ignore_merges) return;
    std::vector<Vocabulary::Entry> whole;
    for (int32_t id = 0; id < vocabulary_.end_id(); ++id)
      if (std::optional<std::string> bytes = from_alphabet(vocabulary_.text(id)); bytes && !bytes->empty())
        whole.emplace_back(*std::move(bytes), id);
    if (Result<Vocabulary> built = Vocabulary::build(whole); built.ok()) whole_ = std::move(built).value();
  }

 private:
  bool encode_whole(std::string_view word, std::vector<int32_t>& ids) const override {
    if (word.size() == 1 && byte_ids_[static_cast<uint8_t>(word[0])] >= 0) {
      ids.push_back(byte_ids_[static_cast<uint8_t>(word[0])]);
      return true;
    }
    if (word.size() > whole_.longest_token_bytes()) return false;
    const int32_t id = whole_.find(word);
    if (id < 0) return false;
    ids.push_back(id);
    return true;
  }
  void symbolize(std::string_view word, std::vector<BpeSymbol>& symbols) const override {
    SymbolWriter writer(options_, symbols);
    for (uint32_t i = 0; i < word.size(); ++i) {
      const int32_t id = byte_ids_[static_cast<uint8_t>(word[i])];
      if (id >= 0)
        writer.known(id, i);
      else
        writer.unknown(i);
    }
    writer.flush();
  }

  BpeOptions options_;
  ByteIds byte_ids_;
  Vocabulary whole_;  // tokens by their bytes, where a whole piece may be one without merging
};

class CharBpe final : public TokenBpe {
 public:
  CharBpe(Vocabulary vocabulary, const std::vector<BpeMerge>& merges, const BpeOptions& options)
      : TokenBpe(std::move(vocabulary), merges), options_(options), byte_ids_(byte_token_ids(vocabulary_)) {
    if (can_cut()) {
      boundaries_.enable([&](char c) { return options_.byte_fallback || vocabulary_.find({&c, 1}) >= 0; });
      for (const BpeMerge& merge : merges) boundaries_.add_token(vocabulary_.text(merge.result));
    }
  }

 private:
  bool encode_whole(std::string_view word, std::vector<int32_t>& ids) const override {
    if (!options_.ignore_merges) return false;
    const int32_t id = vocabulary_.find(word);
    if (id < 0) return false;
    ids.push_back(id);
    return true;
  }
  // Not where a whole piece is looked up, nor where a character's spelling depends on its place, nor where unknown
  // characters vanish, for then their neighbours meet.
  bool can_cut() const {
    if (options_.ignore_merges || vocabulary_.find(kMark) < 0) return false;
    if (!options_.continuing_subword_prefix.empty() || !options_.end_of_word_suffix.empty()) return false;
    const bool all_bytes = std::all_of(byte_ids_.begin(), byte_ids_.end(), [](int32_t id) { return id >= 0; });
    return options_.byte_fallback ? all_bytes : options_.unk_id >= 0;
  }
  // The character at [begin, end) of `word` as the vocabulary spells it there.
  std::string_view spelled(std::string_view word, uint32_t begin, uint32_t end, std::string& buffer) const {
    const std::string_view plain = word.substr(begin, end - begin);
    const bool prefixed = begin > 0 && !options_.continuing_subword_prefix.empty();
    const bool suffixed = end == word.size() && !options_.end_of_word_suffix.empty();
    if (!prefixed && !suffixed) return plain;
    buffer = prefixed ? options_.continuing_subword_prefix : "";
    buffer += plain;
    if (suffixed) buffer += options_.end_of_word_suffix;
    return buffer;
  }
  bool write_bytes(std::string_view text, uint32_t begin, SymbolWriter& writer) const {
    if (!options_.byte_fallback) return false;
    for (const char b : text)
      if (byte_ids_[static_cast<uint8_t>(b)] < 0) return false;
    for (const char b : text) writer.byte(byte_ids_[static_cast<uint8_t>(b)], begin);
    return true;
  }
  void symbolize(std::string_view word, std::vector<BpeSymbol>& symbols) const override {
    SymbolWriter writer(options_, symbols);
    std::string buffer;
    for (uint32_t i = 0; i < word.size();) {
      const uint32_t end = i + decode_valid(word.data() + i).bytes;
      const std::string_view text = spelled(word, i, end, buffer);
      const int32_t id = vocabulary_.find(text);
      if (id >= 0)
        writer.known(id, i);
      else if (!write_bytes(text, i, writer))
        writer.unknown(i);
      i = end;
    }
    writer.flush();
  }

  BpeOptions options_;
  ByteIds byte_ids_;
};

// sentencepiece merges strings, known or not, and looks at the vocabulary of single characters last. Its symbols are
// pieces; characters that are no piece but part of one get numbers above the pieces'.
class SentencePieceBpe final : public BpeWords {
 public:
  SentencePieceBpe(SentencePieces pieces, std::unordered_map<std::string, int32_t> other_chars,
                   const std::vector<BpeMerge>& merges)
      : BpeWords(std::move(pieces.vocabulary), merges),
        types_(std::move(pieces.types)),
        unk_id_(pieces.unk_id),
        byte_fallback_(pieces.byte_fallback),
        byte_ids_(byte_token_ids(vocabulary_)),
        other_chars_(std::move(other_chars)),
        unknown_(vocabulary_.end_id() + static_cast<int32_t>(other_chars_.size())) {
    const auto has_piece = [&](std::string_view one_char) { return symbol_of(one_char) < vocabulary_.end_id(); };
    if (has_piece(kMark)) boundaries_.enable([&](char c) { return byte_fallback_ || has_piece({&c, 1}); });
    std::vector<std::pair<std::string_view, int32_t>> user_defined;
    for (int32_t id = 0; id < vocabulary_.end_id(); ++id) {
      if (!is_text(id)) continue;
      boundaries_.add_token(vocabulary_.text(id));
      if (type(id) == PieceType::kUserDefined) user_defined.push_back({vocabulary_.text(id), id});
    }
    user_defined_ = Trie(std::move(user_defined));
    for (const BpeMerge& merge : merges)
      if (type(merge.result) == PieceType::kUnused) unused_splits_[merge.result] = {merge.left, merge.right};
  }

 private:
  PieceType type(int32_t id) const { return types_[static_cast<size_t>(id)]; }
  // Whether text can become this piece.
  bool is_text(int32_t id) const {
    return type(id) == PieceType::kNormal || type(id) == PieceType::kUserDefined || type(id) == PieceType::kUnused;
  }
  int32_t symbol_of(std::string_view one_char) const {
    const int32_t id = vocabulary_.find(one_char);
    if (id >= 0 && is_text(id)) return id;
    const auto it = other_chars_.empty() ? other_chars_.end() : other_chars_.find(std::string(one_char));
    return it == other_chars_.end() ? unknown_ : it->second;
  }
  bool encode_whole(std::string_view, std::vector<int32_t>&) const override { return false; }
  void symbolize(std::string_view word, std::vector<BpeSymbol>& symbols) const override {
    for (uint32_t i = 0; i < word.size();) {
      const Trie::Match frozen = user_defined_.longest_prefix(word.substr(i));
      if (frozen.bytes > 0) {
        // Symbols beyond `unknown_` stand for pieces that merge with nothing.
        symbols.push_back({unknown_ + 1 + frozen.value, i});
        i += static_cast<uint32_t>(frozen.bytes);
        continue;
      }
      const uint32_t bytes = decode_valid(word.data() + i).bytes;
      symbols.push_back({symbol_of(word.substr(i, bytes)), i});
      i += bytes;
    }
  }
  void write(std::string_view word, const std::vector<BpeSymbol>& symbols, std::vector<int32_t>& ids) const override {
    bool after_unknown = false;
    for (size_t i = 0; i < symbols.size(); ++i) {
      const int32_t id = symbols[i].id;
      const bool is_piece = id < vocabulary_.end_id() || id > unknown_;
      if (is_piece) {
        write_piece(id > unknown_ ? id - unknown_ - 1 : id, ids);
      } else {
        const size_t end = i + 1 < symbols.size() ? symbols[i + 1].begin : word.size();
        write_unknown(word.substr(symbols[i].begin, end - symbols[i].begin), after_unknown, ids);
      }
      after_unknown = !is_piece;
    }
  }
  // A piece that is out of use falls back to the two it was made of.
  void write_piece(int32_t id, std::vector<int32_t>& ids) const {
    std::vector<int32_t> open = {id};
    while (!open.empty()) {
      const int32_t top = open.back();
      open.pop_back();
      const auto split = unused_splits_.empty() ? unused_splits_.end() : unused_splits_.find(top);
      if (split == unused_splits_.end()) {
        ids.push_back(top < vocabulary_.end_id() ? top : unk_id_);
      } else {
        open.push_back(split->second.second);
        open.push_back(split->second.first);
      }
    }
  }
  void write_unknown(std::string_view text, bool after_unknown, std::vector<int32_t>& ids) const {
    if (byte_fallback_) {
      for (const char b : text) ids.push_back(byte_ids_[static_cast<uint8_t>(b)]);
    } else if (!after_unknown) {
      ids.push_back(unk_id_);
    }
  }

  std::vector<PieceType> types_;
  int32_t unk_id_;
  bool byte_fallback_;
  ByteIds byte_ids_;
  std::unordered_map<std::string, int32_t> other_chars_;
  int32_t unknown_;
  Trie user_defined_;
  std::unordered_map<int32_t, std::pair<int32_t, int32_t>> unused_splits_;
};

Status check_bytes(const SentencePieces& pieces) {
  if (!pieces.byte_fallback) return {};
  const ByteIds ids = byte_token_ids(pieces.vocabulary);
  for (int b = 0; b < 256; ++b)
    if (ids[b] < 0) return data_loss("the model wants byte fallback but has no piece '<0x{:02X}>'", b);
  return {};
}

// Dense ranks: the best score is 0, equal scores share a rank.
std::vector<uint32_t> ranks_by_score(const std::vector<float>& scores) {
  std::vector<float> sorted = scores;
  std::sort(sorted.begin(), sorted.end(), std::greater<>());
  sorted.erase(std::unique(sorted.begin(), sorted.end()), sorted.end());
  std::vector<uint32_t> ranks;
  ranks.reserve(scores.size());
  for (const float score : scores)
    ranks.push_back(static_cast<uint32_t>(std::lower_bound(sorted.begin(), sorted.end(), score, std::greater<>()) -
                                          sorted.begin()));
  return ranks;
}

}  // namespace

std::unique_ptr<const Model> make_byte_bpe(Vocabulary vocabulary, const std::vector<BpeMerge>& merges,
                                           const BpeOptions& options) {
  return std::make_unique<ByteBpe>(std::move(vocabulary), merges, options);
}

std::unique_ptr<const Model> make_char_bpe(Vocabulary vocabulary, const std::vector<BpeMerge>& merges,
                                           const BpeOptions& options) {
  return std::make_unique<CharBpe>(std::move(vocabulary), merges, options);
}

Result<std::unique_ptr<const Model>> make_sentencepiece_bpe(SentencePieces pieces) {
  MR_RETURN_IF_ERROR(check_bytes(pieces));
  const auto is_text = [&](int32_t id) {
    const PieceType type = pieces.types[static_cast<size_t>(id)];
    return type == PieceType::kNormal || type == PieceType::kUserDefined || type == PieceType::kUnused;
  };
  std::unordered_map<std::string, int32_t> other_chars;
  const auto symbol_of = [&](std::string_view text) {
    const int32_t id = pieces.vocabulary.find(text);
    if (id >= 0 && is_text(id)) return id;
    const auto first = static_cast<uint8_t>(text[0]);
    if ((first & 0xc0) == 0x80 || decode_valid(text.data()).bytes != text.size()) return -1;
    const auto next = pieces.vocabulary.end_id() + static_cast<int32_t>(other_chars.size());
    return other_chars.try_emplace(std::string(text), next).first->second;
  };
  const std::vector<uint32_t> ranks = ranks_by_score(pieces.scores);
  const auto rank_of = [&](int32_t id) -> std::optional<uint32_t> {
    if (!is_text(id)) return std::nullopt;
    return ranks[static_cast<size_t>(id)];
  };
  const std::vector<BpeMerge> merges = all_splits(pieces.vocabulary, rank_of, symbol_of);
  return std::unique_ptr<const Model>(new SentencePieceBpe(std::move(pieces), std::move(other_chars), merges));
}

}  // namespace millrace
