#include "tokenizer/model/unigram.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "tokenizer/model/word_cache.h"
#include "tokenizer/text/trie.h"
#include "tokenizer/text/unicode.h"

namespace millrace {
namespace {

constexpr double kUnknownPenalty = 10.0;

// The best way to reach one byte position.
template <class Sum>
struct Step {
  Sum score = 0;
  int32_t id = -1;
  int32_t start = -1;  // -1: not reached
};

template <class Sum>
struct UnigramScratch final : ModelScratch {
  std::vector<Step<Sum>> steps;  // by end position
  std::vector<Step<Sum>> path;   // tokens from the last to the first; `start` is their begin
  WordCache cache;

  void trim() override {
    if (steps.capacity() <= kKeptSteps) return;
    steps = {};
    path = {};
  }
  static constexpr size_t kKeptSteps = size_t{1} << 16;
};

// `Sum` is the type in which scores of a path are kept.
template <class Sum>
class Unigram final : public Model {
 public:
  Unigram(Vocabulary vocabulary, std::vector<double> scores, std::vector<bool> matchable, double unknown_score,
          const UnigramOptions& options)
      : vocabulary_(std::move(vocabulary)),
        scores_(std::move(scores)),
        unknown_score_(unknown_score),
        options_(options) {
    std::vector<std::pair<std::string_view, int32_t>> keys;
    for (int32_t id = 0; id < vocabulary_.end_id(); ++id)
      if (matchable[static_cast<size_t>(id)]) keys.push_back({vocabulary_.text(id), id});
    trie_ = Trie(std::move(keys));
    for (int b = 0; b < 256; ++b) byte_ids_[b] = vocabulary_.find(fmt::format("<0x{:02X}>", b));
    const bool all_bytes = std::all_of(byte_ids_.begin(), byte_ids_.end(), [](int32_t id) { return id >= 0; });
    options_.byte_fallback = options_.byte_fallback && all_bytes;
  }

  std::unique_ptr<ModelScratch> new_scratch() const override { return std::make_unique<UnigramScratch<Sum>>(); }
  const Vocabulary& vocabulary() const override { return vocabulary_; }

  Status encode(const PieceList& list, ModelScratch& base_scratch, std::vector<int32_t>& ids) const override {
    auto& scratch = static_cast<UnigramScratch<Sum>&>(base_scratch);
    for (const Piece& piece : list.pieces)
      MR_RETURN_IF_ERROR(encode_piece(list.view(piece), list.text.size() - piece.begin, scratch, ids));
    return {};
  }

 private:
  static constexpr int32_t kUnknown = -1;

  // `readable`: bytes that may be read from the piece's begin on.
  Status encode_piece(std::string_view text, size_t readable, UnigramScratch<Sum>& scratch,
                      std::vector<int32_t>& ids) const {
    if (!WordCache::fits(text.size())) return search_and_write(text, scratch, ids);
    const WordCache::Key key = WordCache::key_of(text.data(), text.size(), readable);
    if (const auto known = scratch.cache.find(key); !known.empty()) {
      ids.insert(ids.end(), known.begin(), known.end());
      return {};
    }
    const size_t before = ids.size();
    MR_RETURN_IF_ERROR(search_and_write(text, scratch, ids));
    scratch.cache.remember(key, std::span(ids).subspan(before));
    return {};
  }
  Status search_and_write(std::string_view text, UnigramScratch<Sum>& scratch, std::vector<int32_t>& ids) const {
    search(text, scratch.steps);
    collect(text, scratch);
    return write(text, scratch.path, ids);
  }

  // Viterbi's algorithm, forward.
  void search(std::string_view text, std::vector<Step<Sum>>& steps) const {
    steps.assign(text.size() + 1, {});
    for (size_t at = 0; at < text.size();) {
      const size_t char_bytes = decode_valid(text.data() + at).bytes;
      const double before = steps[at].score;
      bool single = false;
      trie_.for_each_prefix(text.substr(at), [&](size_t bytes, int32_t id) {
        reach(steps[at + bytes], before + scores_[static_cast<size_t>(id)], id, at);
        single |= bytes == char_bytes;
      });
      if (!single) reach(steps[at + char_bytes], before + unknown_score_, kUnknown, at);
      at += char_bytes;
    }
  }
  static void reach(Step<Sum>& step, double score, int32_t id, size_t start) {
    if (step.start >= 0 && !(score > static_cast<double>(step.score))) return;
    step = {static_cast<Sum>(score), id, static_cast<int32_t>(start)};
  }
  // Walks back; runs of unknown characters become one.
  void collect(std::string_view text, UnigramScratch<Sum>& scratch) const {
    scratch.path.clear();
    for (auto end = static_cast<int32_t>(text.size()); end > 0;) {
      Step<Sum> step = scratch.steps[static_cast<size_t>(end)];
      if (step.id == options_.unk_id) step.id = kUnknown;
      end = step.start;
      if (step.id == kUnknown && !scratch.path.empty() && scratch.path.back().id == kUnknown)
        scratch.path.back().start = step.start;
      else
        scratch.path.push_back(step);
    }
  }
  Status write(std::string_view text, const std::vector<Step<Sum>>& path, std::vector<int32_t>& ids) const {
    for (size_t i = path.size(); i-- > 0;) {
      if (path[i].id != kUnknown) {
        ids.push_back(path[i].id);
        continue;
      }
      const auto begin = static_cast<size_t>(path[i].start);
      const size_t end = i > 0 ? static_cast<size_t>(path[i - 1].start) : text.size();
      MR_RETURN_IF_ERROR(write_unknown(text.substr(begin, end - begin), ids));
    }
    return {};
  }
  Status write_unknown(std::string_view run, std::vector<int32_t>& ids) const {
    if (options_.byte_fallback && run != vocabulary_.text(options_.unk_id)) {
      for (const char b : run) ids.push_back(byte_ids_[static_cast<uint8_t>(b)]);
      return {};
    }
    if (options_.unk_id < 0)
      return invalid_argument("'{}' has no token and the tokenizer has no unknown token", run.substr(0, 40));
    ids.push_back(options_.unk_id);
    return {};
  }

  Vocabulary vocabulary_;
  std::vector<double> scores_;
  double unknown_score_;
  UnigramOptions options_;
  Trie trie_;
  std::array<int32_t, 256> byte_ids_{};
};

}  // namespace

Result<std::unique_ptr<const Model>> make_unigram(Vocabulary vocabulary, std::vector<double> scores,
                                                  const UnigramOptions& options) {
  double lowest = INFINITY;
  for (const double score : scores) lowest = std::min(lowest, score);
  std::vector<bool> matchable(static_cast<size_t>(vocabulary.end_id()), true);
  return std::unique_ptr<const Model>(new Unigram<double>(std::move(vocabulary), std::move(scores),
                                                          std::move(matchable), lowest - kUnknownPenalty, options));
}

Result<std::unique_ptr<const Model>> make_sentencepiece_unigram(SentencePieces pieces) {
  const auto count = static_cast<size_t>(pieces.vocabulary.end_id());
  float lowest = INFINITY, highest = -INFINITY;
  for (size_t id = 0; id < count; ++id) {
    if (pieces.types[id] != PieceType::kNormal) continue;
    lowest = std::min(lowest, pieces.scores[id]);
    highest = std::max(highest, pieces.scores[id]);
  }
  std::vector<double> scores(count);
  std::vector<bool> matchable(count);
  for (size_t id = 0; id < count; ++id) {
    const auto bytes = static_cast<float>(pieces.vocabulary.text(static_cast<int32_t>(id)).size());
    const bool user_defined = pieces.types[id] == PieceType::kUserDefined;
    scores[id] = user_defined ? bytes * highest - 0.1 : pieces.scores[id];
    matchable[id] = user_defined || pieces.types[id] == PieceType::kNormal;
  }
  const UnigramOptions options = {.unk_id = pieces.unk_id, .byte_fallback = pieces.byte_fallback};
  const float unknown_score = lowest - static_cast<float>(kUnknownPenalty);
  return std::unique_ptr<const Model>(new Unigram<float>(std::move(pieces.vocabulary), std::move(scores),
                                                         std::move(matchable), unknown_score, options));
}

}  // namespace millrace
