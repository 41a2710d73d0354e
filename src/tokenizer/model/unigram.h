// Unigram language model: of all ways to cut a piece into tokens the one whose scores sum highest.
#pragma once
#include <memory>
#include <vector>

#include "tokenizer/model/bpe.h"
#include "tokenizer/model/model.h"

namespace millrace {

struct UnigramOptions {
  int32_t unk_id = -1;  // -1: an unknown character is an error
  bool byte_fallback = false;
};
// As the tokenizers library runs it: scores (by id) are summed in double precision, unknown characters fuse, and a run
// of them falls back to bytes as a whole.
Result<std::unique_ptr<const Model>> make_unigram(Vocabulary vocabulary, std::vector<double> scores,
                                                  const UnigramOptions& options);

// As sentencepiece runs it: sums are kept in single precision, user-defined pieces always win, unused ones never match.
Result<std::unique_ptr<const Model>> make_sentencepiece_unigram(SentencePieces pieces);

}  // namespace millrace
