// tokenizer.json as a whole, and its models.
#include "tokenizer/format/hf_json.h"

#include "tokenizer/model/bpe.h"
#include "tokenizer/model/unigram.h"
#include "tokenizer/model/wordpiece.h"

namespace millrace {
namespace {

Result<AddedToken> read_added_token(const JsonNode& node) {
  MR_ASSIGN_OR_RETURN(AddedToken token, read_added_token_flags(node));
  MR_ASSIGN_OR_RETURN(const JsonNode id, node.at("id"));
  MR_ASSIGN_OR_RETURN(const int64_t number, id.integer(0, Vocabulary::kMaxIds - 1));
  token.id = static_cast<int32_t>(number);
  return token;
}

Result<Vocabulary> read_vocabulary(const JsonNode& node) {
  if (!node.is_object()) return node.wrong("an object of tokens and their ids");
  std::vector<Vocabulary::Entry> entries;
  entries.reserve(node.value().size());
  for (const auto& [token, id] : node.value().items()) {
    if (!id.is_number_unsigned() || id.get<uint64_t>() >= Vocabulary::kMaxIds)
      return invalid_argument("{}['{}']: found {}, wanted an id from 0 to {}", node.path(), token, json_excerpt(id),
                              Vocabulary::kMaxIds - 1);
    entries.emplace_back(token, id.get<int32_t>());
  }
  return Vocabulary::build(entries);
}

// Two tokens that merge: ["a", "b"] or "a b".
Result<std::pair<std::string_view, std::string_view>> read_pair(const Json& merge, const std::string& path, size_t i) {
  if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string())
    return std::pair<std::string_view, std::string_view>(merge[0].get_ref<const std::string&>(),
                                                         merge[1].get_ref<const std::string&>());
  if (merge.is_string()) {
    const std::string_view text = merge.get_ref<const std::string&>();
    const size_t space = text.find(' ');
    if (space != std::string_view::npos && text.find(' ', space + 1) == std::string_view::npos)
      return std::pair(text.substr(0, space), text.substr(space + 1));
  }
  return invalid_argument("{}[{}]: found {}, wanted two tokens", path, i, json_excerpt(merge));
}

Result<std::vector<BpeMerge>> read_merges(const JsonNode& node, const Vocabulary& vocabulary,
                                          const std::string& continuing_prefix) {
  if (!node.value().is_array()) return node.wrong("a list of pairs of tokens");
  std::vector<BpeMerge> merges;
  merges.reserve(node.value().size());
  std::string joined;
  for (size_t i = 0; i < node.value().size(); ++i) {
    const Json& item = node.value()[i];
    if (item.is_string() && item.get_ref<const std::string&>().starts_with("#version")) continue;
    MR_ASSIGN_OR_RETURN(const auto pair, read_pair(item, node.path(), i));
    const auto [left, right] = pair;
    joined = left;
    joined += right.starts_with(continuing_prefix) ? right.substr(continuing_prefix.size()) : right;
    const BpeMerge merge = {vocabulary.find(left), vocabulary.find(right), vocabulary.find(joined),
                            static_cast<uint32_t>(merges.size())};
    if (merge.left < 0 || merge.right < 0 || merge.result < 0)
      return invalid_argument("{}[{}]: '{}' is not in the vocabulary", node.path(), i,
                              merge.left < 0    ? left
                              : merge.right < 0 ? right
                                                : std::string_view(joined));
    merges.push_back(merge);
  }
  return merges;
}

// The id of the token named by `key`, -1 if the file names none.
Result<int32_t> read_unk(const JsonNode& node, const Vocabulary& vocabulary) {
  MR_ASSIGN_OR_RETURN(const std::string unk, node.string_or("unk_token", ""));
  if (unk.empty()) return -1;
  return vocabulary.find(unk);
}

Status refuse_dropout(const JsonNode& node) {
  const std::optional<JsonNode> dropout = node.find("dropout");
  if (!dropout) return {};
  MR_ASSIGN_OR_RETURN(const double p, dropout->number());
  if (p == 0) return {};
  return unimplemented("{}: found {}; merges are never dropped here, so it must be null or 0", dropout->path(), p);
}

Result<std::unique_ptr<const Model>> read_bpe(const JsonNode& node, PreTokenization& pre) {
  MR_RETURN_IF_ERROR(refuse_dropout(node));
  BpeOptions options;
  MR_ASSIGN_OR_RETURN(options.fuse_unk, node.boolean_or("fuse_unk", false));
  MR_ASSIGN_OR_RETURN(options.byte_fallback, node.boolean_or("byte_fallback", false));
  MR_ASSIGN_OR_RETURN(options.ignore_merges, node.boolean_or("ignore_merges", false));
  MR_ASSIGN_OR_RETURN(options.continuing_subword_prefix, node.string_or("continuing_subword_prefix", ""));
  MR_ASSIGN_OR_RETURN(options.end_of_word_suffix, node.string_or("end_of_word_suffix", ""));
  MR_ASSIGN_OR_RETURN(const JsonNode vocab_node, node.at("vocab"));
  MR_ASSIGN_OR_RETURN(Vocabulary vocabulary, read_vocabulary(vocab_node));
  MR_ASSIGN_OR_RETURN(const JsonNode merges_node, node.at("merges"));
  MR_ASSIGN_OR_RETURN(const std::vector<BpeMerge> merges,
                      read_merges(merges_node, vocabulary, options.continuing_subword_prefix));
  MR_ASSIGN_OR_RETURN(options.unk_id, read_unk(node, vocabulary));
  const bool plain =
      !options.byte_fallback && options.continuing_subword_prefix.empty() && options.end_of_word_suffix.empty();
  if (pre.ends_in_byte_level && plain && !pre.mapped) {
    pre.ends_in_byte_level = false;
    return make_byte_bpe(std::move(vocabulary), merges, options);
  }
  return make_char_bpe(std::move(vocabulary), merges, options);
}

Result<std::unique_ptr<const Model>> read_unigram(const JsonNode& node) {
  MR_ASSIGN_OR_RETURN(const JsonNode vocab_node, node.at("vocab"));
  if (!vocab_node.value().is_array()) return vocab_node.wrong("a list of tokens and scores");
  std::vector<Vocabulary::Entry> entries;
  std::vector<double> scores;
  for (const Json& item : vocab_node.value()) {
    if (!item.is_array() || item.size() != 2 || !item[0].is_string() || !item[1].is_number())
      return invalid_argument("{}[{}]: found {}, wanted a token and its score", vocab_node.path(), entries.size(),
                              json_excerpt(item));
    entries.emplace_back(item[0].get<std::string>(), static_cast<int32_t>(entries.size()));
    scores.push_back(item[1].get<double>());
  }
  if (entries.empty()) return vocab_node.wrong("at least one token");
  UnigramOptions options;
  MR_ASSIGN_OR_RETURN(const int64_t unk, node.integer_or("unk_id", -1, 0, static_cast<int64_t>(entries.size()) - 1));
  options.unk_id = static_cast<int32_t>(unk);
  MR_ASSIGN_OR_RETURN(options.byte_fallback, node.boolean_or("byte_fallback", false));
  MR_ASSIGN_OR_RETURN(Vocabulary vocabulary, Vocabulary::build(entries));
  return make_unigram(std::move(vocabulary), std::move(scores), options);
}

Result<std::unique_ptr<const Model>> read_wordpiece(const JsonNode& node) {
  MR_ASSIGN_OR_RETURN(const JsonNode vocab_node, node.at("vocab"));
  MR_ASSIGN_OR_RETURN(Vocabulary vocabulary, read_vocabulary(vocab_node));
  WordPieceOptions options;
  MR_ASSIGN_OR_RETURN(options.continuing_subword_prefix, node.string_or("continuing_subword_prefix", "##"));
  MR_ASSIGN_OR_RETURN(const int64_t longest, node.integer_or("max_input_chars_per_word", 100, 0, INT32_MAX));
  options.max_input_chars_per_word = static_cast<size_t>(longest);
  MR_ASSIGN_OR_RETURN(const std::string unk, node.string_or("unk_token", "[UNK]"));
  options.unk_id = vocabulary.find(unk);
  return make_wordpiece(std::move(vocabulary), options);
}

Result<std::unique_ptr<const Model>> read_wordlevel(const JsonNode& node) {
  MR_ASSIGN_OR_RETURN(const JsonNode vocab_node, node.at("vocab"));
  MR_ASSIGN_OR_RETURN(Vocabulary vocabulary, read_vocabulary(vocab_node));
  MR_ASSIGN_OR_RETURN(const std::string unk, node.string_or("unk_token", "<unk>"));
  const int32_t unk_id = vocabulary.find(unk);
  return make_wordlevel(std::move(vocabulary), unk_id);
}

// Files from before the type was written: their members tell.
std::string guess_model_type(const JsonNode& node) {
  if (node.find("merges")) return "BPE";
  const std::optional<JsonNode> vocab = node.find("vocab");
  if (vocab && vocab->value().is_array()) return "Unigram";
  return node.find("continuing_subword_prefix") ? "WordPiece" : "WordLevel";
}

Result<std::unique_ptr<const Model>> read_model(const JsonNode& node, PreTokenization& pre, std::string& type) {
  MR_ASSIGN_OR_RETURN(type, node.string_or("type", guess_model_type(node)));
  if (type == "BPE") return read_bpe(node, pre);
  if (type == "Unigram") return read_unigram(node);
  if (type == "WordPiece") return read_wordpiece(node);
  if (type == "WordLevel") return read_wordlevel(node);
  return unimplemented("{}.type: model '{}' is not known; there are BPE, Unigram, WordPiece and WordLevel", node.path(),
                       type);
}

Result<std::vector<AddedToken>> read_added_tokens(const JsonNode& root, const Vocabulary& vocabulary) {
  std::vector<AddedToken> added;
  const std::optional<JsonNode> node = root.find("added_tokens");
  if (!node) return added;
  MR_ASSIGN_OR_RETURN(const std::vector<JsonNode> list, node->list());
  for (const JsonNode& item : list) {
    MR_ASSIGN_OR_RETURN(AddedToken token, read_added_token(item));
    if (const int32_t known = vocabulary.find(token.content); known >= 0) token.id = known;
    added.push_back(std::move(token));
  }
  return added;
}

}  // namespace

Result<AddedToken> read_added_token_flags(const JsonNode& node) {
  AddedToken token;
  MR_ASSIGN_OR_RETURN(const JsonNode content, node.at("content"));
  MR_ASSIGN_OR_RETURN(token.content, content.string());
  MR_ASSIGN_OR_RETURN(token.single_word, node.boolean_or("single_word", false));
  MR_ASSIGN_OR_RETURN(token.lstrip, node.boolean_or("lstrip", false));
  MR_ASSIGN_OR_RETURN(token.rstrip, node.boolean_or("rstrip", false));
  MR_ASSIGN_OR_RETURN(token.special, node.boolean_or("special", false));
  MR_ASSIGN_OR_RETURN(token.normalized, node.boolean_or("normalized", !token.special));
  return token;
}

Result<TokenizerParts> read_hf_tokenizer(std::string_view json_text) {
  MR_ASSIGN_OR_RETURN(const Json json, parse_json(json_text));
  const JsonNode root(json, "");
  if (!root.is_object()) return root.wrong("an object");
  TokenizerParts parts;
  PreTokenization pre;
  if (const auto node = root.find("normalizer")) {
    MR_ASSIGN_OR_RETURN(parts.normalizer, read_normalizer(*node));
  }
  if (const auto node = root.find("pre_tokenizer")) {
    MR_ASSIGN_OR_RETURN(pre, read_pre_tokenizer(*node));
  }
  MR_ASSIGN_OR_RETURN(const JsonNode model_node, root.at("model"));
  MR_ASSIGN_OR_RETURN(parts.model, read_model(model_node, pre, parts.kind));
  if (pre.ends_in_byte_level) pre.steps.push_back(map_to_alphabet());
  parts.pre_tokenizers = std::move(pre.steps);
  if (const auto node = root.find("post_processor")) {
    MR_ASSIGN_OR_RETURN(parts.around, read_post_processor(*node));
  }
  if (const auto node = root.find("decoder")) {
    MR_ASSIGN_OR_RETURN(parts.decoders, read_decoder(*node));
  } else {
    parts.decoders.push_back(join_decoder());
  }
  MR_ASSIGN_OR_RETURN(parts.added, read_added_tokens(root, parts.model->vocabulary()));
  return parts;
}

}  // namespace millrace
