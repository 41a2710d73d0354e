// Text of a growing sequence of ids, piece by piece.
#pragma once
#include <memory>
#include <span>
#include <string>

#include "tokenizer/tokenizer.h"

namespace millrace {

class TokenSink;

// What append() and finish() return, put together, is what Tokenizer::decode says of all ids. No piece holds half a
// character. The cost of an id does not depend on how many came before. One thread at a time.
class IncrementalDetokenizer {
 public:
  // `prompt_tail` are the last ids before the first one to come, if any: they produce no text themselves, but decide
  // whether the first token keeps its leading space. A handful is enough.
  explicit IncrementalDetokenizer(std::shared_ptr<const Tokenizer> tokenizer, const DecodeOptions& options = {},
                                  std::span<const int32_t> prompt_tail = {});
  IncrementalDetokenizer(IncrementalDetokenizer&&) noexcept;
  IncrementalDetokenizer& operator=(IncrementalDetokenizer&&) noexcept;
  ~IncrementalDetokenizer();

  // The text that is decided by now and was not before; may be empty.
  std::string append(int32_t id);
  std::string append(std::span<const int32_t> ids);
  // The rest; a character that was never completed becomes U+FFFD. Nothing may be appended after it.
  std::string finish();

 private:
  void feed(int32_t id);
  std::string take();

  std::shared_ptr<const Tokenizer> tokenizer_;
  DecodeOptions options_;
  std::unique_ptr<std::string> text_;  // where the chain ends
  std::unique_ptr<TokenSink> chain_;
  bool after_special_ = false;
};

}  // namespace millrace
