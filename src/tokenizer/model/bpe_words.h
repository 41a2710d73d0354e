// What the kinds of byte-pair encoding share: pieces are cut into words that no merge can cross, words seen before come
// from a cache, the others are turned into symbols, merged, and written out.
#pragma once
#include <bitset>
#include <memory>
#include <string_view>
#include <vector>

#include "tokenizer/model/bpe_merge.h"
#include "tokenizer/model/model.h"
#include "tokenizer/model/word_cache.h"

namespace millrace {

struct BpeScratch final : ModelScratch {
  WordCache cache;
  BpeMerger merger;
  std::vector<BpeSymbol> symbols;
  std::vector<int32_t> word_ids;

  void trim() override {
    if (symbols.capacity() <= kKeptSymbols) return;
    symbols = {};
    merger = {};
  }
  static constexpr size_t kKeptSymbols = size_t{1} << 16;
};

// U+2581, which stands for a space.
inline constexpr std::string_view kMark = "\xe2\x96\x81";

// Places where no token and no merge reaches across, so that a text can be cut there without changing its ids: in front
// of a mark, and between two ASCII characters.
class WordBoundaries {
 public:
  // Nowhere.
  WordBoundaries() = default;
  // Everywhere but inside tokens. `is_known(c)`: whether the ASCII character c has a token; two that have none stay
  // together, for they may fuse. The mark must have one.
  template <class IsKnown>
  void enable(IsKnown is_known) {
    enabled_ = true;
    for (size_t pair = 0; pair < ascii_.size(); ++pair)
      ascii_[pair] = is_known(static_cast<char>(pair / kAscii)) || is_known(static_cast<char>(pair % kAscii));
  }
  // After enable(): there is a token of this text.
  void add_token(std::string_view text);

  // Calls fn(word) for the words of `text`, in order; together they are the text.
  template <class Fn>
  void for_each_word(std::string_view text, Fn fn) const {
    size_t start = 0;
    for (size_t at = 1; enabled_ && at < text.size(); ++at) {
      if (!is_boundary(text, at)) continue;
      fn(text.substr(start, at - start));
      start = at;
    }
    fn(text.substr(start));
  }

 private:
  static constexpr int kAscii = 128;
  static constexpr size_t kMarkBits = 1 << 16;  // characters share bits: a false "inside" costs time only
  static size_t index(char a, char b) { return static_cast<size_t>(a) * kAscii + static_cast<size_t>(b); }
  bool is_boundary(std::string_view text, size_t at) const {
    const char left = text[at - 1], right = text[at];
    if (right >= 0) return left >= 0 && ascii_[index(left, right)];
    return right == kMark[0] && text.substr(at, kMark.size()) == kMark && is_mark_boundary(text, at);
  }
  bool is_mark_boundary(std::string_view text, size_t at) const;

  bool enabled_ = false;
  std::vector<bool> before_mark_ = std::vector<bool>(kMarkBits);  // characters that some token has in front of a mark
  std::vector<uint8_t> ascii_ = std::vector<uint8_t>(kAscii * kAscii);
};

class BpeWords : public Model {
 public:
  std::unique_ptr<ModelScratch> new_scratch() const override { return std::make_unique<BpeScratch>(); }
  Status encode(const PieceList& list, ModelScratch& scratch, std::vector<int32_t>& ids) const override;
  const Vocabulary& vocabulary() const override { return vocabulary_; }

 protected:
  BpeWords(Vocabulary vocabulary, const std::vector<BpeMerge>& merges)
      : vocabulary_(std::move(vocabulary)), pairs_(merges) {}
  // Appends the ids of `word` if they need no merging.
  virtual bool encode_whole(std::string_view word, std::vector<int32_t>& ids) const = 0;
  // Fills `symbols` (empty before) with what `word` starts as.
  virtual void symbolize(std::string_view word, std::vector<BpeSymbol>& symbols) const = 0;
  // Appends the ids of merged symbols.
  virtual void write(std::string_view word, const std::vector<BpeSymbol>& symbols, std::vector<int32_t>& ids) const = 0;

  Vocabulary vocabulary_;
  PairTable pairs_;
  WordBoundaries boundaries_;

 private:
  void encode_word(std::string_view word, size_t readable, BpeScratch& scratch, std::vector<int32_t>& ids) const;
  void merge_word(std::string_view word, BpeScratch& scratch, std::vector<int32_t>& ids) const;
};

}  // namespace millrace
