// Prompts of a wanted number of tokens. One thread at a time.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "base/random.h"
#include "base/result.h"
#include "tokenizer/tokenizer.h"

namespace millrace::bench {

class PromptMaker {
 public:
  // Without a tokenizer only ids can be made, from [3, 256): bytes or frequent pieces in nearly every vocabulary.
  PromptMaker(std::shared_ptr<const Tokenizer> tokenizer, uint64_t seed);

  // `tokens` random ids, none special.
  std::vector<int32_t> ids(int64_t tokens);
  // A random text that the tokenizer cuts into exactly `tokens` tokens, without special ones: decode, encode, cut or
  // extend, at most ten times; then one word repeated. `exact` tells whether the count was met; text() needs a
  // tokenizer.
  struct Text {
    std::string text;
    int64_t tokens = 0;
    bool exact = false;
  };
  Result<Text> text(int64_t tokens);

 private:
  Result<Text> repeated_word(int64_t tokens) const;
  std::shared_ptr<const Tokenizer> tokenizer_;
  std::vector<int32_t> vocabulary_;
  Random random_;
};

}  // namespace millrace::bench
