#include "tokenizer/model/bpe_words.h"

#include "tokenizer/text/unicode.h"

namespace millrace {

void WordBoundaries::add_token(std::string_view text) {
  for (size_t at = 1; at < text.size(); ++at)
    if (text[at - 1] >= 0 && text[at] >= 0) ascii_[index(text[at - 1], text[at])] = false;
  for (size_t at = text.find(kMark, 1); at != std::string_view::npos; at = text.find(kMark, at + 1))
    before_mark_[decode_valid(text.data() + previous_char(text, at)).code % kMarkBits] = true;
}

bool WordBoundaries::is_mark_boundary(std::string_view text, size_t at) const {
  const char32_t before = decode_valid(text.data() + previous_char(text, at)).code;
  return before != U'\u2581' && !before_mark_[before % kMarkBits];
}

Status BpeWords::encode(const PieceList& list, ModelScratch& base_scratch, std::vector<int32_t>& ids) const {
  auto& scratch = static_cast<BpeScratch&>(base_scratch);
  const char* end = list.text.data() + list.text.size();
  for (const Piece& piece : list.pieces)
    boundaries_.for_each_word(list.view(piece), [&](std::string_view word) {
      encode_word(word, static_cast<size_t>(end - word.data()), scratch, ids);
    });
  return {};
}

void BpeWords::encode_word(std::string_view word, size_t readable, BpeScratch& scratch,
                           std::vector<int32_t>& ids) const {
  if (!WordCache::fits(word.size())) return merge_word(word, scratch, ids);
  const WordCache::Key key = WordCache::key_of(word.data(), word.size(), readable);
  if (const auto known = scratch.cache.find(key); !known.empty()) {
    ids.insert(ids.end(), known.begin(), known.end());
    return;
  }
  scratch.word_ids.clear();
  merge_word(word, scratch, scratch.word_ids);
  scratch.cache.remember(key, scratch.word_ids);
  ids.insert(ids.end(), scratch.word_ids.begin(), scratch.word_ids.end());
}

void BpeWords::merge_word(std::string_view word, BpeScratch& scratch, std::vector<int32_t>& ids) const {
  if (encode_whole(word, ids)) return;
  scratch.symbols.clear();
  symbolize(word, scratch.symbols);
  scratch.merger.merge(pairs_, scratch.symbols);
  write(word, scratch.symbols, ids);
}

}  // namespace millrace
