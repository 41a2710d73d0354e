#include "server/tokenizer_codec.h"

namespace millrace {
namespace {

OrderedJson template_constants(const SpecialTokens& special) {
  OrderedJson out = {{"tools", nullptr}, {"documents", nullptr}};
  const std::pair<const char*, const std::string&> named[] = {
      {"bos_token", special.bos}, {"eos_token", special.eos}, {"unk_token", special.unk},  {"pad_token", special.pad},
      {"sep_token", special.sep}, {"cls_token", special.cls}, {"mask_token", special.mask}};
  for (const auto& [name, text] : named)
    if (!text.empty()) out[name] = text;
  if (!special.additional.empty()) out["additional_special_tokens"] = special.additional;
  return out;
}

}  // namespace

Result<std::shared_ptr<const TokenizerCodec>> TokenizerCodec::create(std::shared_ptr<const Tokenizer> tokenizer,
                                                                     const std::optional<std::string>& chat_template) {
  const std::optional<std::string> source = chat_template ? chat_template : tokenizer->default_chat_template();
  std::optional<ChatTemplate> parsed;
  if (source) {
    MR_ASSIGN_OR_RETURN(parsed, ChatTemplate::parse(*source));
  }
  return std::shared_ptr<const TokenizerCodec>(new TokenizerCodec(std::move(tokenizer), std::move(parsed)));
}

TokenizerCodec::TokenizerCodec(std::shared_ptr<const Tokenizer> tokenizer, std::optional<ChatTemplate> chat_template)
    : tokenizer_(std::move(tokenizer)),
      template_(std::move(chat_template)),
      constants_(template_constants(tokenizer_->special_tokens())) {}

Result<std::vector<int32_t>> TokenizerCodec::encode(std::string_view text, bool add_special_tokens) const {
  return tokenizer_->encode(text, {.add_special_tokens = add_special_tokens});
}

std::string TokenizerCodec::decode(std::span<const int32_t> ids, bool skip_special_tokens) const {
  return tokenizer_->decode(ids, {.skip_special_tokens = skip_special_tokens});
}

Result<std::string> TokenizerCodec::render_chat(const ChatPrompt& prompt) const {
  OrderedJson variables = constants_;
  variables["messages"] = prompt.messages;
  variables["add_generation_prompt"] = prompt.add_generation_prompt;
  for (const auto& [name, value] : prompt.variables.items()) variables[name] = value;
  Result<std::string> text = std::string();
  if (prompt.chat_template) {
    MR_ASSIGN_OR_RETURN(const ChatTemplate own, ChatTemplate::parse(*prompt.chat_template));
    text = own.render(variables);
  } else {
    text = template_->render(variables);
  }
  // Limits that a request's messages run into are the request's fault, not a shortage here.
  if (!text.ok()) return Status(Code::kInvalidArgument, text.status().message());
  return text;
}

}  // namespace millrace
