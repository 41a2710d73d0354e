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

// Places in front of a mark where no token reaches across, so that the text can be cut there without changing a merge.
class MarkBoundaries {
 public:
  // Nowhere.
  MarkBoundaries() = default;
  // Notes that a token or merge has this text.
  void add_token(std::string_view text);
  void enable() { enabled_ = true; }

  // Calls fn(word) for the words of `text`, in order; together they are the text.
  template <class Fn>
  void for_each_word(std::string_view text, Fn fn) const {
    size_t start = 0;
    if (enabled_) {
      for (size_t at = text.find(kMark, 1); at != std::string_view::npos; at = text.find(kMark, at + kMark.size())) {
        if (!is_boundary(text, at)) continue;
        fn(text.substr(start, at - start));
        start = at;
      }
    }
    fn(text.substr(start));
  }

 private:
  bool is_boundary(std::string_view text, size_t at) const;
  static constexpr size_t kBits = 1 << 16;  // characters share bits: a false "unsafe" costs time only
  bool enabled_ = false;
  std::vector<bool> unsafe_ = std::vector<bool>(kBits);
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
  MarkBoundaries boundaries_;

 private:
  void encode_word(std::string_view word, size_t readable, BpeScratch& scratch, std::vector<int32_t>& ids) const;
  void merge_word(std::string_view word, BpeScratch& scratch, std::vector<int32_t>& ids) const;
};

}  // namespace millrace
