// Byte-pair encoding in its three forms: over bytes (GPT-2, tiktoken), over characters (Hugging Face, with byte
// fallback, word prefixes and suffixes), and as sentencepiece runs it.
#pragma once
#include <array>
#include <bitset>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "tokenizer/model/bpe_merge.h"
#include "tokenizer/model/model.h"
#include "tokenizer/text/trie.h"

namespace millrace {

struct BpeOptions {
  int32_t unk_id = -1;                    // for characters that have no token; -1: they vanish
  bool fuse_unk = false;                  // one unk_id for a run of them
  bool byte_fallback = false;             // tokens "<0x00>" to "<0xFF>" stand for their bytes
  bool ignore_merges = false;             // a piece that is a token as a whole is that token
  std::string continuing_subword_prefix;  // in front of every character but a piece's first
  std::string end_of_word_suffix;         // behind a piece's last character
};

// Pieces are bytes, which the vocabulary spells in the byte-level alphabet. Byte fallback, prefix and suffix have no
// meaning here.
std::unique_ptr<const Model> make_byte_bpe(Vocabulary vocabulary, const std::vector<BpeMerge>& merges,
                                           const BpeOptions& options);
// Pieces are characters, spelled as in the vocabulary.
std::unique_ptr<const Model> make_char_bpe(Vocabulary vocabulary, const std::vector<BpeMerge>& merges,
                                           const BpeOptions& options);

// What sentencepiece knows about a piece besides its text.
enum class PieceType : uint8_t { kNormal = 1, kUnknown = 2, kControl = 3, kUserDefined = 4, kUnused = 5, kByte = 6 };
struct SentencePieces {
  Vocabulary vocabulary;
  std::vector<float> scores;     // by id
  std::vector<PieceType> types;  // by id
  int32_t unk_id = 0;
  bool byte_fallback = false;
};
Result<std::unique_ptr<const Model>> make_sentencepiece_bpe(SentencePieces pieces);

// All ways to put a token together from two others; of two tokens the one of lower rank is merged first. `rank_of(id)`
// gives ranks; `symbol_of(text)` gives the symbol a part is, or -1.
template <class RankOf, class SymbolOf>
std::vector<BpeMerge> all_splits(const Vocabulary& vocabulary, RankOf rank_of, SymbolOf symbol_of) {
  std::vector<BpeMerge> merges;
  for (int32_t id = 0; id < vocabulary.end_id(); ++id) {
    const std::string_view text = vocabulary.text(id);
    const std::optional<uint32_t> rank = rank_of(id);
    if (!rank) continue;
    for (size_t cut = 1; cut < text.size(); ++cut) {
      const int32_t left = symbol_of(text.substr(0, cut));
      if (left < 0) continue;
      const int32_t right = symbol_of(text.substr(cut));
      if (right >= 0) merges.push_back({left, right, id, *rank});
    }
  }
  return merges;
}

}  // namespace millrace
