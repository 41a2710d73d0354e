// The small files beside a tokenizer: tokenizer_config.json, special_tokens_map.json, added_tokens.json, chat
// templates, and what the model's config.json says about its tokenizer. All are optional.
#pragma once
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "tokenizer/pipeline/added_tokens.h"
#include "tokenizer/special_tokens.h"

namespace millrace {

struct TokenizerConfig {
  std::string tokenizer_class;  // without "Fast"
  std::string name_or_path;     // the checkpoint's name where it was published; often absent
  std::optional<bool> add_bos_token, add_eos_token, add_prefix_space, do_lower_case, legacy;
  bool clean_up_tokenization_spaces = false;
  SpecialTokens special;
  std::vector<AddedToken> special_details;  // flags of special tokens that are written as objects; no ids
  std::vector<AddedToken> added;            // with ids
  std::map<std::string, std::string> chat_templates;
};

Result<TokenizerConfig> read_tokenizer_config(const std::string& folder);

}  // namespace millrace
