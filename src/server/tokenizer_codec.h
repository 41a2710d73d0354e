// A TextCodec over a model's tokenizer and its chat template.
#pragma once
#include <memory>
#include <optional>
#include <string>

#include "server/text_codec.h"
#include "tokenizer/jinja/template.h"
#include "tokenizer/tokenizer.h"

namespace millrace {

class TokenizerCodec : public TextCodec {
 public:
  // `chat_template` (Jinja text, --chat-template) replaces the tokenizer's own; without either there is no chat. Fails
  // where the template that would be used does not parse.
  static Result<std::shared_ptr<const TokenizerCodec>> create(std::shared_ptr<const Tokenizer> tokenizer,
                                                              const std::optional<std::string>& chat_template = {});

  Result<std::vector<int32_t>> encode(std::string_view text, bool add_special_tokens) const override;
  std::string decode(std::span<const int32_t> ids, bool skip_special_tokens) const override;
  std::string token_bytes(int32_t id) const override { return tokenizer_->token_bytes(id); }
  bool has_chat_template() const override { return template_.has_value(); }
  // The template sees the special tokens (bos_token, ...), messages, add_generation_prompt, tools and documents (none
  // unless given) and the prompt's variables.
  Result<std::string> render_chat(const ChatPrompt& prompt) const override;

 private:
  TokenizerCodec(std::shared_ptr<const Tokenizer> tokenizer, std::optional<ChatTemplate> chat_template);
  const std::shared_ptr<const Tokenizer> tokenizer_;
  const std::optional<ChatTemplate> template_;
  const OrderedJson constants_;  // variables that no request changes
};

}  // namespace millrace
