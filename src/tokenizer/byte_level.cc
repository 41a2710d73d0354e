#include "tokenizer/byte_level.h"

#include <nlohmann/json.hpp>

#include "base/json.h"
#include "tokenizer/text/alphabet.h"
#include "tokenizer/text/split_scanner.h"

namespace millrace {
namespace {

constexpr int kBytes = 256;
constexpr const char* kChatMl =
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

OrderedJson added_token(const std::string& content, bool with_id, int id) {
  OrderedJson token;
  if (with_id) token["id"] = id;
  token["content"] = content;
  token["single_word"] = token["lstrip"] = token["rstrip"] = token["normalized"] = false;
  token["special"] = true;
  return token;
}

OrderedJson byte_level_step(bool use_regex) {
  return {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", false}, {"use_regex", use_regex}};
}

}  // namespace

std::string byte_level_tokenizer_json(const ByteLevelSpec& spec) {
  OrderedJson json;
  json["version"] = "1.0";
  json["truncation"] = json["padding"] = nullptr;
  json["added_tokens"] = OrderedJson::array();
  for (size_t i = 0; i < spec.special_tokens.size(); ++i)
    json["added_tokens"].push_back(added_token(spec.special_tokens[i], true, kBytes + static_cast<int>(i)));
  json["normalizer"] = nullptr;
  json["pre_tokenizer"] = byte_level_step(true);
  json["post_processor"] = byte_level_step(false);
  json["decoder"] = byte_level_step(true);
  OrderedJson vocab = OrderedJson::object();
  for (int b = 0; b < kBytes; ++b) vocab[std::string(byte_spelling(static_cast<uint8_t>(b)))] = b;
  json["model"] = {{"type", "BPE"},
                   {"dropout", nullptr},
                   {"unk_token", nullptr},
                   {"fuse_unk", false},
                   {"byte_fallback", false},
                   {"ignore_merges", false},
                   {"vocab", std::move(vocab)},
                   {"merges", OrderedJson::array()}};
  return dump_json(json, 1);
}

std::string byte_level_tokenizer_config(const ByteLevelSpec& spec) {
  OrderedJson json;
  json["tokenizer_class"] = "PreTrainedTokenizerFast";
  OrderedJson decoder = OrderedJson::object();
  for (size_t i = 0; i < spec.special_tokens.size(); ++i)
    decoder[std::to_string(kBytes + i)] = added_token(spec.special_tokens[i], false, 0);
  json["added_tokens_decoder"] = std::move(decoder);
  const auto name = [](const std::string& text) { return text.empty() ? OrderedJson(nullptr) : OrderedJson(text); };
  json["bos_token"] = name(spec.bos);
  json["eos_token"] = name(spec.eos);
  json["pad_token"] = name(spec.pad);
  json["unk_token"] = nullptr;
  json["clean_up_tokenization_spaces"] = false;
  json["chat_template"] = kChatMl;
  return dump_json(json, 2);
}

}  // namespace millrace
