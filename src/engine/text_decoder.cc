#include "engine/text_decoder.h"

#include <algorithm>
#include <span>
#include <utility>

#include "tokenizer/detokenizer.h"

namespace millrace {
namespace {

constexpr size_t kPromptTail = 8;  // ids; enough to know whether the first token keeps its leading space

class TokenizerTextDecoder : public TextDecoder {
 public:
  TokenizerTextDecoder(std::shared_ptr<const Tokenizer> tokenizer, const GenerationRequest& request)
      : detokenizer_(std::move(tokenizer),
                     {.skip_special_tokens = request.params.skip_special_tokens,
                      .spaces_between_special_tokens = request.params.spaces_between_special_tokens},
                     tail(request.prompt_token_ids)) {}
  std::string append(int32_t token) override { return detokenizer_.append(token); }
  std::string flush() override { return detokenizer_.finish(); }

 private:
  static std::span<const int32_t> tail(std::span<const int32_t> prompt) {
    return prompt.last(std::min(prompt.size(), kPromptTail));
  }
  IncrementalDetokenizer detokenizer_;
};

}  // namespace

TextDecoderFactory text_decoders(std::shared_ptr<const Tokenizer> tokenizer) {
  return [tokenizer = std::move(tokenizer)](const GenerationRequest& request) {
    return std::make_unique<TokenizerTextDecoder>(tokenizer, request);
  };
}

}  // namespace millrace
