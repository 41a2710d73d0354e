// Tokenizer::load: finds the tokenizer's file, reads it by its content, and applies the configuration beside it.
#include <algorithm>
#include <array>

#include "base/file.h"
#include "base/text.h"
#include "tokenizer/format/classes.h"
#include "tokenizer/format/config.h"
#include "tokenizer/format/hf_json.h"
#include "tokenizer/format/sentencepiece.h"
#include "tokenizer/format/tekken.h"
#include "tokenizer/format/tiktoken.h"
#include "tokenizer/format/vocab_files.h"
#include "tokenizer/state.h"

namespace millrace {
namespace {

constexpr std::array<std::string_view, 4> kFileNames = {"tokenizer.json", "tekken.json", "tokenizer.model",
                                                        "spiece.model"};
constexpr std::array<std::string_view, 3> kPairNames = {"vocab.json", "encoder.json", "vocab.txt"};

// The tokenizer's file in a folder.
Result<std::string> find_file(const std::string& folder) {
  for (const std::string_view name : kFileNames)
    if (file_exists(join_path(folder, name))) return join_path(folder, name);
  MR_ASSIGN_OR_RETURN(const std::vector<std::string> names, list_directory(folder));
  for (const std::string& name : names)
    if (name.ends_with(".tiktoken")) return join_path(folder, name);
  for (const std::string_view name : kPairNames)
    if (file_exists(join_path(folder, name))) return join_path(folder, name);
  return not_found(
      "{}: no tokenizer here; looked for tokenizer.json, tekken.json, tokenizer.model, spiece.model, *.tiktoken, "
      "vocab.json with merges.txt, and vocab.txt",
      folder);
}

std::string folder_of(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? "." : slash == 0 ? "/" : path.substr(0, slash);
}
std::string name_of(const std::string& path) { return path.substr(path.rfind('/') + 1); }

Result<TokenizerParts> read_with_merges(const std::string& path, std::string_view text, const TokenizerConfig& config) {
  for (const char* name : {"merges.txt", "vocab.bpe"}) {
    const std::string merges_path = join_path(folder_of(path), name);
    if (!file_exists(merges_path)) continue;
    MR_ASSIGN_OR_RETURN(const std::string merges, read_file(merges_path));
    return read_vocab_and_merges(text, merges, config);
  }
  return not_found("a vocabulary without a model needs merges.txt beside it");
}

// A top-level "model" tells a tokenizer.json from a plain vocabulary, in which it would be a token with an id.
bool has_model(std::string_view json_text) {
  for (size_t at = json_text.find("\"model\""); at != std::string_view::npos;
       at = json_text.find("\"model\"", at + 1)) {
    const size_t next = json_text.find_first_not_of(" \t\r\n:", at + 7);
    if (next != std::string_view::npos && json_text[next] == '{') return true;
  }
  return false;
}

Result<TokenizerParts> read_by_content(const std::string& path, std::string_view text, const TokenizerConfig& config) {
  const size_t first = text.find_first_not_of(" \t\r\n");
  if (first == std::string_view::npos) return data_loss("the file is empty");
  if (text[first] == '{' && name_of(path).starts_with("tekken")) return read_tekken(text);
  if (text[first] == '{') return has_model(text) ? read_hf_tokenizer(text) : read_with_merges(path, text, config);
  if (looks_like_tiktoken(text)) return read_tiktoken(text, config.tokenizer_class);
  if (looks_like_sentencepiece(text)) {
    MR_ASSIGN_OR_RETURN(TokenizerParts parts, read_sentencepiece(text, !config.legacy.value_or(true)));
    const bool t5 =
        config.tokenizer_class == "T5Tokenizer" || (config.tokenizer_class.empty() && name_of(path) == "spiece.model");
    parts.adds_bos = !t5;
    parts.adds_eos = t5;
    add_class_facts(config, folder_of(path), parts);
    return parts;
  }
  if (name_of(path) == "vocab.txt") return read_bert_vocab(text, config);
  return invalid_argument("neither JSON, nor a sentencepiece model, nor tiktoken ranks");
}

AddedToken* find_added(std::vector<AddedToken>& tokens, std::string_view content) {
  const auto it =
      std::find_if(tokens.begin(), tokens.end(), [&](const AddedToken& token) { return token.content == content; });
  return it == tokens.end() ? nullptr : &*it;
}

// Tokens of the configuration go before those of the file: their flags count, and their place if two want the same id.
void add_configured(const std::vector<AddedToken>& configured, TokenizerParts& parts) {
  const Vocabulary& vocabulary = parts.model->vocabulary();
  for (AddedToken token : configured) {
    if (AddedToken* known = find_added(parts.added, token.content)) {
      token.id = known->id;
      *known = std::move(token);
      continue;
    }
    if (const int32_t id = vocabulary.find(token.content); id >= 0) token.id = id;
    std::erase_if(parts.added, [&](const AddedToken& other) { return other.id == token.id; });
    parts.added.push_back(std::move(token));
  }
}

int32_t end_of_ids(const TokenizerParts& parts) {
  int32_t end = parts.model->vocabulary().end_id();
  for (const AddedToken& token : parts.added) end = std::max(end, token.id + 1);
  return end;
}

// Behind the model's vocabulary, each name has its place, whether or not the configuration says so too.
void number_on(TokenizerParts& parts) {
  int32_t id = parts.model->vocabulary().end_id();
  for (const std::string& name : parts.numbered_on) {
    AddedToken token;
    token.content = name;
    token.id = id++;
    token.special = true;
    const bool taken = std::ranges::any_of(parts.added, [&](const AddedToken& a) { return a.id == token.id; });
    if (!taken && !find_added(parts.added, name)) parts.added.push_back(std::move(token));
  }
}

// Every token with a role is found in text; one that has no id yet gets the next.
void add_named(const std::string& content, const TokenizerConfig& config, TokenizerParts& parts) {
  if (content.empty() || find_added(parts.added, content)) return;
  AddedToken token;
  for (const AddedToken& detail : config.special_details)
    if (detail.content == content) token = detail;
  token.content = content;
  token.special = true;
  token.id = parts.model->vocabulary().find(content);
  if (token.id < 0) token.id = end_of_ids(parts);
  parts.added.push_back(std::move(token));
}

SpecialTokens names_of(const TokenizerConfig& config, const SpecialTokens& own) {
  SpecialTokens names = config.special;
  const std::pair<std::string*, const std::string*> rows[] = {
      {&names.bos, &own.bos}, {&names.eos, &own.eos}, {&names.unk, &own.unk},  {&names.pad, &own.pad},
      {&names.sep, &own.sep}, {&names.cls, &own.cls}, {&names.mask, &own.mask}};
  for (const auto& [name, fallback] : rows)
    if (name->empty()) *name = *fallback;
  return names;
}

void add_all_named(const SpecialTokens& names, const TokenizerConfig& config, TokenizerParts& parts) {
  for (const std::string& name : {names.bos, names.eos, names.unk, names.sep, names.pad, names.cls, names.mask})
    add_named(name, config, parts);
  for (const std::string& name : names.additional) add_named(name, config, parts);
}

int32_t id_of(const std::string& name, TokenizerParts& parts) {
  const AddedToken* token = name.empty() ? nullptr : find_added(parts.added, name);
  return token ? token->id : -1;
}

bool contains(const Template& around, int32_t id) {
  return std::find(around.begin(), around.end(), id) != around.end();
}

// The prefix in front of a text; none if one of its tokens is missing.
void put_prefix(TokenizerParts& parts) {
  Template ids;
  for (const std::string& name : parts.prefix) ids.push_back(id_of(name, parts));
  if (contains(ids, -1)) return;
  parts.around.insert(parts.around.begin(), ids.begin(), ids.end());
}

void set_template(const SpecialTokens& names, const TokenizerConfig& config, bool has_own, TokenizerParts& parts) {
  if (!parts.prefix.empty()) put_prefix(parts);
  const bool rebuild = rebuilds_template(config.tokenizer_class);
  const bool plain = parts.around == Template{kText};
  if (rebuild && has_own) parts.around = {kText};
  const bool default_bos = has_own ? rebuild : plain && parts.adds_bos;
  const bool default_eos = !has_own && plain && parts.adds_eos;
  const int32_t bos = id_of(names.bos, parts), eos = id_of(names.eos, parts);
  if (config.add_bos_token.value_or(default_bos) && bos >= 0 && !contains(parts.around, bos))
    parts.around.insert(parts.around.begin(), bos);
  // One token may be both: then it stands at both ends.
  const bool has_eos = contains(parts.around, eos) && (parts.around.back() == eos || eos != bos);
  if (config.add_eos_token.value_or(default_eos) && eos >= 0 && !has_eos) parts.around.push_back(eos);
}

}  // namespace

class TokenizerBuilder {
 public:
  static Result<std::shared_ptr<const Tokenizer>> build(const std::string& path, TokenizerParts parts,
                                                        TokenizerConfig config) {
    const SpecialTokens names = names_of(config, parts.names);
    const bool has_own = parts.names.unk.empty() && !parts.adds_bos && name_of(path) == "tokenizer.json";
    add_configured(config.added, parts);
    number_on(parts);
    guard_wordlike_tokens(parts);
    add_all_named(names, config, parts);
    set_template(names, config, has_own, parts);
    auto state = std::make_unique<Tokenizer::State>();
    MR_ASSIGN_OR_RETURN(state->pipeline.added, AddedTokens::build(std::move(parts.added), parts.normalizer.get()));
    state->pipeline.normalizer = std::move(parts.normalizer);
    state->pipeline.pre_tokenizers = std::move(parts.pre_tokenizers);
    state->pipeline.model = std::move(parts.model);
    state->pipeline.around = std::move(parts.around);
    state->pipeline.decoders = std::move(parts.decoders);
    state->special = names;
    state->chat_templates = std::move(config.chat_templates);
    state->cleans_up_spaces = config.clean_up_tokenization_spaces;
    state->finish();
    state->description = fmt::format("{} ({}, {} tokens)", name_of(path), parts.kind, format_count(state->end_id));
    return std::shared_ptr<const Tokenizer>(new Tokenizer(std::move(state)));
  }
};

Result<std::shared_ptr<const Tokenizer>> Tokenizer::load(const std::string& path, const std::string& default_class) {
  std::string file = path;
  if (is_directory(path)) {
    MR_ASSIGN_OR_RETURN(file, find_file(path));
  }
  MR_ASSIGN_OR_RETURN(TokenizerConfig config, read_tokenizer_config(folder_of(file)));
  if (config.tokenizer_class.empty()) config.tokenizer_class = default_class;
  MR_ASSIGN_OR_RETURN(const std::string text, read_file(file));
  Result<TokenizerParts> parts = read_by_content(file, text, config);
  if (!parts.ok()) return parts.status().at(file);
  Result<std::shared_ptr<const Tokenizer>> tokenizer =
      TokenizerBuilder::build(file, std::move(parts).value(), std::move(config));
  if (!tokenizer.ok()) return tokenizer.status().at(file);
  return tokenizer;
}

}  // namespace millrace
