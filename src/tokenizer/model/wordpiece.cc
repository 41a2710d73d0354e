#include "tokenizer/model/wordpiece.h"

#include "base/utf8.h"
#include "tokenizer/text/trie.h"

namespace millrace {
namespace {

Status write_unknown(std::string_view word, int32_t unk_id, std::vector<int32_t>& ids) {
  if (unk_id < 0)
    return invalid_argument("'{}' has no token and the tokenizer has no unknown token", word.substr(0, 40));
  ids.push_back(unk_id);
  return {};
}

class WordPiece final : public Model {
 public:
  WordPiece(Vocabulary vocabulary, const WordPieceOptions& options)
      : vocabulary_(std::move(vocabulary)), options_(options) {
    const std::string& prefix = options_.continuing_subword_prefix;
    std::vector<std::pair<std::string_view, int32_t>> first, later;
    for (int32_t id = 0; id < vocabulary_.end_id(); ++id) {
      const std::string_view text = vocabulary_.text(id);
      first.push_back({text, id});
      if (text.starts_with(prefix)) later.push_back({text.substr(prefix.size()), id});
    }
    first_ = Trie(std::move(first));
    later_ = Trie(std::move(later));
  }
  const Vocabulary& vocabulary() const override { return vocabulary_; }

  Status encode(const PieceList& list, ModelScratch&, std::vector<int32_t>& ids) const override {
    for (const Piece& piece : list.pieces) {
      const std::string_view word = list.view(piece);
      const size_t before = ids.size();
      if (!too_long(word) && encode_word(word, ids)) continue;
      ids.resize(before);
      MR_RETURN_IF_ERROR(write_unknown(word, options_.unk_id, ids));
    }
    return {};
  }

 private:
  bool too_long(std::string_view word) const {
    return word.size() > options_.max_input_chars_per_word && utf8_length(word) > options_.max_input_chars_per_word;
  }
  bool encode_word(std::string_view word, std::vector<int32_t>& ids) const {
    for (size_t at = 0; at < word.size();) {
      const Trie::Match match = (at == 0 ? first_ : later_).longest_prefix(word.substr(at));
      if (match.bytes == 0) return false;
      ids.push_back(match.value);
      at += match.bytes;
    }
    return true;
  }

  Vocabulary vocabulary_;
  WordPieceOptions options_;
  Trie first_, later_;  // tokens that start a word; tokens that go on, without their prefix
};

class WordLevel final : public Model {
 public:
  WordLevel(Vocabulary vocabulary, int32_t unk_id) : vocabulary_(std::move(vocabulary)), unk_id_(unk_id) {}
  const Vocabulary& vocabulary() const override { return vocabulary_; }

  Status encode(const PieceList& list, ModelScratch&, std::vector<int32_t>& ids) const override {
    for (const Piece& piece : list.pieces) {
      const int32_t id = vocabulary_.find(list.view(piece));
      if (id >= 0)
        ids.push_back(id);
      else
        MR_RETURN_IF_ERROR(write_unknown(list.view(piece), unk_id_, ids));
    }
    return {};
  }

 private:
  Vocabulary vocabulary_;
  int32_t unk_id_;
};

}  // namespace

std::unique_ptr<const Model> make_wordpiece(Vocabulary vocabulary, const WordPieceOptions& options) {
  return std::make_unique<WordPiece>(std::move(vocabulary), options);
}
std::unique_ptr<const Model> make_wordlevel(Vocabulary vocabulary, int32_t unk_id) {
  return std::make_unique<WordLevel>(std::move(vocabulary), unk_id);
}

}  // namespace millrace
