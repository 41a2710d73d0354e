#include "tokenizer/format/config.h"

#include <algorithm>

#include "base/file.h"
#include "base/text.h"
#include "tokenizer/format/hf_json.h"
#include "tokenizer/format/json_node.h"
#include "tokenizer/model/vocabulary.h"

namespace millrace {
namespace {

// The file of that name, if the folder has it.
Result<std::optional<Json>> read_optional(const std::string& folder, std::string_view name) {
  const std::string path = join_path(folder, name);
  if (!file_exists(path)) return std::optional<Json>();
  MR_ASSIGN_OR_RETURN(Json json, read_json_file(path));
  return std::optional<Json>(std::move(json));
}

// A special token: its text, or an object with flags.
Status read_special(const JsonNode& node, std::string& text, TokenizerConfig& config) {
  if (!node.is_object()) {
    MR_ASSIGN_OR_RETURN(text, node.string());
    return {};
  }
  MR_ASSIGN_OR_RETURN(AddedToken token, read_added_token_flags(node));
  token.special = true;
  text = token.content;
  config.special_details.push_back(std::move(token));
  return {};
}

// bos_token and the like of tokenizer_config.json or special_tokens_map.json; what is known already stays.
Status read_special_names(const JsonNode& root, TokenizerConfig& config) {
  SpecialTokens& s = config.special;
  const std::pair<std::string_view, std::string*> rows[] = {
      {"bos_token", &s.bos}, {"eos_token", &s.eos}, {"unk_token", &s.unk},  {"pad_token", &s.pad},
      {"sep_token", &s.sep}, {"cls_token", &s.cls}, {"mask_token", &s.mask}};
  for (const auto& [key, text] : rows) {
    const std::optional<JsonNode> node = root.find(key);
    if (node && text->empty()) MR_RETURN_IF_ERROR(read_special(*node, *text, config));
  }
  const std::optional<JsonNode> additional = root.find("additional_special_tokens");
  if (!additional || !s.additional.empty()) return {};
  MR_ASSIGN_OR_RETURN(const std::vector<JsonNode> list, additional->list());
  for (const JsonNode& item : list) MR_RETURN_IF_ERROR(read_special(item, s.additional.emplace_back(), config));
  return {};
}

Result<int32_t> id_of_key(const std::string& key, const JsonNode& node) {
  const bool digits = !key.empty() && key.size() < 9 && key.find_first_not_of("0123456789") == std::string::npos;
  const int32_t id = digits ? std::stoi(key) : -1;
  if (id >= 0 && id < Vocabulary::kMaxIds) return id;
  return invalid_argument("{}: found key '{}', wanted an id from 0 to {}", node.path(), key, Vocabulary::kMaxIds - 1);
}

Status read_added_decoder(const JsonNode& node, TokenizerConfig& config) {
  if (!node.is_object()) return node.wrong("an object of ids and tokens");
  for (const auto& [key, value] : node.value().items()) {
    MR_ASSIGN_OR_RETURN(const int32_t id, id_of_key(key, node));
    MR_ASSIGN_OR_RETURN(AddedToken token,
                        read_added_token_flags(JsonNode(value, fmt::format("{}.{}", node.path(), key))));
    token.id = id;
    config.added.push_back(std::move(token));
  }
  return {};
}

Status read_flag(const JsonNode& root, std::string_view key, std::optional<bool>& flag) {
  const std::optional<JsonNode> node = root.find(key);
  if (!node || !node->value().is_boolean()) return {};
  flag = node->value().get<bool>();
  return {};
}

Status read_chat_template(const JsonNode& node, TokenizerConfig& config) {
  if (!node.value().is_array()) {
    MR_ASSIGN_OR_RETURN(config.chat_templates["default"], node.string());
    return {};
  }
  MR_ASSIGN_OR_RETURN(const std::vector<JsonNode> list, node.list());
  for (const JsonNode& item : list) {
    MR_ASSIGN_OR_RETURN(const JsonNode name_node, item.at("name"));
    MR_ASSIGN_OR_RETURN(const std::string name, name_node.string());
    MR_ASSIGN_OR_RETURN(const JsonNode text, item.at("template"));
    MR_ASSIGN_OR_RETURN(config.chat_templates[name], text.string());
  }
  return {};
}

// extra_special_tokens: a list of tokens, or an object of roles and tokens.
Status read_extra_special(const JsonNode& node, TokenizerConfig& config) {
  if (!node.value().is_array() && !node.is_object()) return node.wrong("a list or an object of tokens");
  for (const auto& [key, value] : node.value().items()) {
    std::string text;
    MR_RETURN_IF_ERROR(read_special(JsonNode(value, fmt::format("{}.{}", node.path(), key)), text, config));
    std::vector<std::string>& all = config.special.additional;
    if (std::find(all.begin(), all.end(), text) == all.end()) all.push_back(std::move(text));
  }
  return {};
}

// tokenizer_class, or the class that auto_map names ("tokenization_qwen.QWenTokenizer").
Result<std::string> class_name(const JsonNode& root) {
  MR_ASSIGN_OR_RETURN(std::string name, root.string_or("tokenizer_class", ""));
  const std::optional<JsonNode> map = name.empty() ? root.find("auto_map") : std::nullopt;
  const std::optional<JsonNode> classes = map ? map->find("AutoTokenizer") : std::nullopt;
  if (classes && classes->value().is_array() && !classes->value().empty() && classes->value()[0].is_string())
    name = classes->value()[0].get<std::string>();
  name.erase(0, name.rfind('.') + 1);
  if (name.ends_with("Fast")) name.resize(name.size() - 4);
  return name;
}

Status read_main(const JsonNode& root, TokenizerConfig& config) {
  MR_ASSIGN_OR_RETURN(config.tokenizer_class, class_name(root));
  MR_ASSIGN_OR_RETURN(config.name_or_path, root.string_or("name_or_path", ""));
  MR_RETURN_IF_ERROR(read_flag(root, "add_bos_token", config.add_bos_token));
  MR_RETURN_IF_ERROR(read_flag(root, "add_eos_token", config.add_eos_token));
  MR_RETURN_IF_ERROR(read_flag(root, "add_prefix_space", config.add_prefix_space));
  MR_RETURN_IF_ERROR(read_flag(root, "do_lower_case", config.do_lower_case));
  MR_RETURN_IF_ERROR(read_flag(root, "legacy", config.legacy));
  MR_ASSIGN_OR_RETURN(config.clean_up_tokenization_spaces, root.boolean_or("clean_up_tokenization_spaces", false));
  MR_RETURN_IF_ERROR(read_special_names(root, config));
  if (const auto node = root.find("extra_special_tokens")) MR_RETURN_IF_ERROR(read_extra_special(*node, config));
  if (const auto node = root.find("added_tokens_decoder")) MR_RETURN_IF_ERROR(read_added_decoder(*node, config));
  if (const auto node = root.find("chat_template")) MR_RETURN_IF_ERROR(read_chat_template(*node, config));
  return {};
}

// The model's config.json: read where tokenizer_config.json does not say. What is wrong with the rest of it is for
// those to find who read it.
Status read_model_config(const JsonNode& root, TokenizerConfig& config) {
  if (config.tokenizer_class.empty()) {
    MR_ASSIGN_OR_RETURN(config.tokenizer_class, class_name(root));
  }
  if (config.name_or_path.empty()) {
    MR_ASSIGN_OR_RETURN(config.name_or_path, root.string_or("_name_or_path", ""));
  }
  return {};
}

// {"token": id}; tokens that tokenizer_config.json describes stay as it says.
Status read_added_tokens_json(const JsonNode& root, TokenizerConfig& config) {
  if (!root.is_object()) return root.wrong("an object of tokens and ids");
  for (const auto& [content, value] : root.value().items()) {
    const auto known = [&](const AddedToken& token) { return token.content == content; };
    if (std::any_of(config.added.begin(), config.added.end(), known)) continue;
    MR_ASSIGN_OR_RETURN(const int64_t id, JsonNode(value, content).integer(0, Vocabulary::kMaxIds - 1));
    AddedToken token;
    token.content = content;
    token.id = static_cast<int32_t>(id);
    config.added.push_back(std::move(token));
  }
  return {};
}

Status read_template_files(const std::string& folder, TokenizerConfig& config) {
  MR_ASSIGN_OR_RETURN(const std::optional<Json> json, read_optional(folder, "chat_template.json"));
  if (json) {
    const JsonNode root(*json, "");
    if (const auto node = root.find("chat_template"))
      if (const Status status = read_chat_template(*node, config); !status.ok())
        return status.at(join_path(folder, "chat_template.json"));
  }
  const std::string single = join_path(folder, "chat_template.jinja");
  if (file_exists(single)) {
    MR_ASSIGN_OR_RETURN(config.chat_templates["default"], read_file(single));
  }
  const std::string more = join_path(folder, "additional_chat_templates");
  if (!is_directory(more)) return {};
  MR_ASSIGN_OR_RETURN(const std::vector<std::string> names, list_directory(more));
  for (const std::string& name : names) {
    if (!name.ends_with(".jinja")) continue;
    MR_ASSIGN_OR_RETURN(config.chat_templates[name.substr(0, name.size() - 6)], read_file(join_path(more, name)));
  }
  return {};
}

}  // namespace

Result<TokenizerConfig> read_tokenizer_config(const std::string& folder) {
  TokenizerConfig config;
  const std::pair<std::string_view, Status (*)(const JsonNode&, TokenizerConfig&)> files[] = {
      {"tokenizer_config.json", read_main},
      {"config.json", read_model_config},
      {"special_tokens_map.json", read_special_names},
      {"added_tokens.json", read_added_tokens_json}};
  for (const auto& [name, read] : files) {
    MR_ASSIGN_OR_RETURN(const std::optional<Json> json, read_optional(folder, name));
    if (!json) continue;
    if (const Status status = read(JsonNode(*json, ""), config); !status.ok())
      return status.at(join_path(folder, name));
  }
  MR_RETURN_IF_ERROR(read_template_files(folder, config));
  return config;
}

}  // namespace millrace
