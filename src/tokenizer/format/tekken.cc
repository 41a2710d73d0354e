#include "tokenizer/format/tekken.h"

#include <algorithm>
#include <array>

#include "tokenizer/format/base64.h"
#include "tokenizer/format/json_node.h"
#include "tokenizer/format/tiktoken.h"
#include "tokenizer/text/alphabet.h"

namespace millrace {
namespace {

// Of files that list no special tokens (version v3); the ids up to default_num_special_tokens are fillers.
constexpr std::array<std::string_view, 20> kV3Names = {"<unk>",
                                                       "<s>",
                                                       "</s>",
                                                       "[INST]",
                                                       "[/INST]",
                                                       "[AVAILABLE_TOOLS]",
                                                       "[/AVAILABLE_TOOLS]",
                                                       "[TOOL_RESULTS]",
                                                       "[/TOOL_RESULTS]",
                                                       "[TOOL_CALLS]",
                                                       "[IMG]",
                                                       "<pad>",
                                                       "[IMG_BREAK]",
                                                       "[IMG_END]",
                                                       "[PREFIX]",
                                                       "[MIDDLE]",
                                                       "[SUFFIX]",
                                                       "[SYSTEM_PROMPT]",
                                                       "[/SYSTEM_PROMPT]",
                                                       "[TOOL_CONTENT]"};

constexpr int64_t kMaxSpecial = 65536;

struct Sizes {
  int64_t all = 0, special = 0;
};

Result<Sizes> read_sizes(const JsonNode& config) {
  Sizes sizes;
  MR_ASSIGN_OR_RETURN(const JsonNode all, config.at("default_vocab_size"));
  MR_ASSIGN_OR_RETURN(sizes.all, all.integer(1, Vocabulary::kMaxIds));
  MR_ASSIGN_OR_RETURN(const JsonNode special, config.at("default_num_special_tokens"));
  MR_ASSIGN_OR_RETURN(sizes.special, special.integer(0, std::min(sizes.all - 1, kMaxSpecial)));
  return sizes;
}

Result<Vocabulary::Entry> read_token(const JsonNode& node, const Sizes& sizes) {
  MR_ASSIGN_OR_RETURN(const JsonNode rank_node, node.at("rank"));
  MR_ASSIGN_OR_RETURN(const int64_t rank, rank_node.integer(0, Vocabulary::kMaxIds - 1));
  MR_ASSIGN_OR_RETURN(const JsonNode bytes_node, node.at("token_bytes"));
  MR_ASSIGN_OR_RETURN(const std::string base64, bytes_node.string());
  const std::optional<std::string> bytes = decode_base64(base64);
  if (!bytes || bytes->empty() || bytes->size() > kMaxRankedTokenBytes)
    return bytes_node.wrong(fmt::format("the base64 of 1 to {} bytes", kMaxRankedTokenBytes));
  return Vocabulary::Entry(to_alphabet(*bytes), static_cast<int32_t>(rank + sizes.special));
}

// Tokens of ranks that default_vocab_size has no room for are not part of the vocabulary.
Result<Vocabulary> read_vocab(const JsonNode& node, const Sizes& sizes) {
  MR_ASSIGN_OR_RETURN(const std::vector<JsonNode> list, node.list());
  std::vector<Vocabulary::Entry> entries;
  for (const JsonNode& item : list) {
    MR_ASSIGN_OR_RETURN(Vocabulary::Entry entry, read_token(item, sizes));
    if (entry.second < sizes.all) entries.push_back(std::move(entry));
  }
  if (entries.empty()) return node.wrong("at least one token below default_vocab_size");
  MR_ASSIGN_OR_RETURN(Vocabulary vocabulary, Vocabulary::build(entries));
  if (static_cast<size_t>(vocabulary.size()) != entries.size())
    return node.wrong(fmt::format("{} different tokens and ranks", entries.size()));
  return vocabulary;
}

Result<std::vector<std::string>> read_special_names(const JsonNode& root, const Sizes& sizes) {
  std::vector<std::string> names(static_cast<size_t>(sizes.special));
  for (size_t i = 0; i < names.size(); ++i) names[i] = fmt::format("<SPECIAL_{}>", i);
  const std::optional<JsonNode> listed = root.find("special_tokens");
  for (size_t i = 0; !listed && i < std::min(names.size(), kV3Names.size()); ++i) names[i] = kV3Names[i];
  if (!listed) return names;
  MR_ASSIGN_OR_RETURN(const std::vector<JsonNode> list, listed->list());
  for (const JsonNode& item : list) {
    MR_ASSIGN_OR_RETURN(const JsonNode rank_node, item.at("rank"));
    MR_ASSIGN_OR_RETURN(const int64_t rank, rank_node.integer(0, sizes.special - 1));
    MR_ASSIGN_OR_RETURN(const JsonNode text, item.at("token_str"));
    MR_ASSIGN_OR_RETURN(names[static_cast<size_t>(rank)], text.string());
  }
  return names;
}

void add_special(const std::vector<std::string>& names, TokenizerParts& parts) {
  for (size_t i = 0; i < names.size(); ++i) {
    AddedToken token;
    token.content = names[i];
    token.id = static_cast<int32_t>(i);
    token.special = true;
    if (token.content == "<s>") parts.names.bos = token.content;
    if (token.content == "</s>") parts.names.eos = token.content;
    if (token.content == "<unk>") parts.names.unk = token.content;
    if (token.content == "<pad>") parts.names.pad = token.content;
    parts.added.push_back(std::move(token));
  }
}

}  // namespace

Result<TokenizerParts> read_tekken(std::string_view json_text) {
  MR_ASSIGN_OR_RETURN(const Json json, parse_json(json_text));
  const JsonNode root(json, "");
  MR_ASSIGN_OR_RETURN(const JsonNode config, root.at("config"));
  MR_ASSIGN_OR_RETURN(const Sizes sizes, read_sizes(config));
  MR_ASSIGN_OR_RETURN(const JsonNode pattern_node, config.at("pattern"));
  MR_ASSIGN_OR_RETURN(const std::string pattern, pattern_node.string());
  MR_ASSIGN_OR_RETURN(const JsonNode vocab, root.at("vocab"));
  MR_ASSIGN_OR_RETURN(Vocabulary vocabulary, read_vocab(vocab, sizes));
  MR_ASSIGN_OR_RETURN(const std::vector<std::string> names, read_special_names(root, sizes));
  MR_ASSIGN_OR_RETURN(TokenizerParts parts, ranked_bpe(std::move(vocabulary), pattern));
  parts.kind = "tekken BPE";
  parts.adds_bos = true;
  add_special(names, parts);
  return parts;
}

}  // namespace millrace
