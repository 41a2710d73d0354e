// Files of ../shared/data for tokenizer tests: unpacked, written into temporary folders, and read back as goldens.
#pragma once
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/file.h"
#include "base/json.h"
#include "base/random.h"
#include "tokenizer/tokenizer.h"

namespace millrace {

std::string shared_file(std::string_view name);  // under ../shared/data/tokenizers
bool has_shared();
// The file, gunzipped if its name ends in .gz.
std::string read_shared(std::string_view name);

#define SKIP_WITHOUT_SHARED() \
  if (!has_shared()) GTEST_SKIP() << "../shared/data/tokenizers is not there; real tokenizers are not checked"

// A temporary folder with the given files, and the tokenizer loaded from it.
class TokenizerFolder {
 public:
  TokenizerFolder& add(std::string_view name, std::string_view content);
  TokenizerFolder& add_shared(std::string_view name, std::string_view shared_name);
  const std::string& path() const { return folder_.path(); }
  Result<std::shared_ptr<const Tokenizer>> try_load() const { return Tokenizer::load(folder_.path()); }
  // Stops the test with the error if there is one.
  std::shared_ptr<const Tokenizer> load() const;

 private:
  TemporaryDirectory folder_;
};

// What a GGUF version 3 file with a vocabulary holds of it.
struct GgufVocabulary {
  std::vector<std::string> tokens, merges;
  std::vector<int32_t> types;  // 1 normal, 3 control, 4 user defined
  std::vector<float> scores;
};
GgufVocabulary read_gguf_vocabulary(const std::string& bytes);

// The bytes of a sentencepiece model: its pieces in order, the trainer's kind (1 Unigram, 2 BPE), and whether a space
// goes in front of a text.
struct ModelPiece {
  std::string text;
  float score = 0;
  int type = 1;  // 1 normal, 2 unknown, 3 control, 4 user defined, 6 byte
};
std::string sentencepiece_model(const std::vector<ModelPiece>& pieces, int model_type, bool add_dummy_prefix = true);

struct GoldenText {
  std::string text;
  std::vector<int32_t> ids;
};
// ggml-vocab-<name>.gguf.inp and .out.
std::vector<GoldenText> ggml_goldens(const std::string& name);

// Multilingual text of up to `parts` fragments: words, digits, spaces of all kinds, marks, emoji, control characters.
std::string random_text(Random& random, uint32_t parts);

}  // namespace millrace
