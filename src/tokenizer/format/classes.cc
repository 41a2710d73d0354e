#include "tokenizer/format/classes.h"

#include <algorithm>
#include <array>

#include "base/file.h"

namespace millrace {
namespace {

constexpr std::array<std::string_view, 3> kRebuilding = {"LlamaTokenizer", "CodeLlamaTokenizer", "GemmaTokenizer"};

constexpr std::string_view kGlmMask = "[gMASK]";
constexpr std::array<std::string_view, 2> kWordlike = {"sop", "eop"};
constexpr std::array<std::string_view, 4> kGlmRoles = {"<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"};
constexpr std::string_view kGlmSource = "tokenization_chatglm.py";
constexpr size_t kMaxSourceBytes = size_t{1} << 20;

bool is_role(std::string_view name) { return std::ranges::find(kGlmRoles, name) != kGlmRoles.end(); }

// The wrappers of ChatGLM2 and ChatGLM3 have one name; the tokens of roles are those of the second alone. What tells
// them apart, best first: the tokens that the configuration lists, the wrapper's source, the checkpoint's name.
bool has_role_tokens(const TokenizerConfig& config, const std::string& folder) {
  if (std::ranges::any_of(config.added, [](const AddedToken& token) { return is_role(token.content); })) return true;
  if (std::ranges::any_of(config.special.additional, is_role)) return true;
  const std::string source = join_path(folder, kGlmSource);
  if (file_exists(source))
    if (const Result<std::string> text = read_file(source, kMaxSourceBytes); text.ok())
      return text->find(kGlmRoles[1]) != std::string::npos;
  return config.name_or_path.find("chatglm2") == std::string::npos;
}

void be_chatglm(const TokenizerConfig& config, const std::string& folder, TokenizerParts& parts) {
  parts.numbered_on = {"[MASK]", std::string(kGlmMask), "[sMASK]", "sop", "eop"};
  if (has_role_tokens(config, folder))
    parts.numbered_on.insert(parts.numbered_on.end(), kGlmRoles.begin(), kGlmRoles.end());
  parts.prefix = {std::string(kGlmMask), "sop"};
  parts.names.pad = parts.names.unk;
  parts.adds_bos = false;
}

// Baichuan 2 marks the turns of a chat with two pieces that are ordinary ones in its file.
void be_baichuan(TokenizerParts& parts) {
  for (const char* name : {"<reserved_106>", "<reserved_107>"}) {
    AddedToken token;
    token.content = name;
    token.id = parts.model->vocabulary().find(name);
    token.special = true;
    if (token.id >= 0) parts.added.push_back(std::move(token));
  }
}

}  // namespace

bool rebuilds_template(const std::string& tokenizer_class) {
  return std::ranges::find(kRebuilding, tokenizer_class) != kRebuilding.end();
}

void add_class_facts(const TokenizerConfig& config, const std::string& folder, TokenizerParts& parts) {
  if (config.tokenizer_class == "ChatGLMTokenizer") be_chatglm(config, folder, parts);
  if (config.tokenizer_class == "BaichuanTokenizer") be_baichuan(parts);
}

void guard_wordlike_tokens(TokenizerParts& parts) {
  if (std::ranges::find(parts.prefix, kWordlike[0]) == parts.prefix.end()) return;
  const auto mask = std::ranges::find(parts.added, kGlmMask, &AddedToken::content);
  if (mask == parts.added.end()) return;
  const int32_t mask_id = mask->id;
  for (AddedToken& token : parts.added)
    if (std::ranges::find(kWordlike, token.content) != kWordlike.end()) token.only_behind = mask_id;
}

}  // namespace millrace
