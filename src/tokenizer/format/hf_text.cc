// Normalizers and pre-tokenizers of tokenizer.json.
#include <array>

#include "tokenizer/format/base64.h"
#include "tokenizer/format/hf_json.h"
#include "tokenizer/text/unicode.h"

namespace millrace {
namespace {

constexpr int kMaxSequenceDepth = 16;
// Words and what is neither word nor space; digits other than decimal ones are no part of words here, joiners are.
constexpr std::string_view kWhitespacePattern =
    R"([\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\u200c\u200d]+|[^\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\u200c\u200d\s]+)";

using NormalizerReader = Result<NormalizerPtr> (*)(const JsonNode& node, int depth);
Result<NormalizerPtr> normalizer_of(const JsonNode& node, int depth);

Result<NormalizerPtr> read_strip(const JsonNode& node, int) {
  MR_ASSIGN_OR_RETURN(const bool left, node.boolean_or("strip_left", true));
  MR_ASSIGN_OR_RETURN(const bool right, node.boolean_or("strip_right", true));
  return strip_space(left, right);
}

Result<NormalizerPtr> read_replace(const JsonNode& node, int) {
  MR_ASSIGN_OR_RETURN(const JsonNode pattern_node, node.at("pattern"));
  MR_ASSIGN_OR_RETURN(Pattern pattern, read_pattern(pattern_node));
  MR_ASSIGN_OR_RETURN(const JsonNode content_node, node.at("content"));
  MR_ASSIGN_OR_RETURN(std::string content, content_node.string());
  return replace_all(std::move(pattern), std::move(content));
}

Result<NormalizerPtr> read_prepend(const JsonNode& node, int) {
  MR_ASSIGN_OR_RETURN(const JsonNode text, node.at("prepend"));
  MR_ASSIGN_OR_RETURN(std::string content, text.string());
  return prepend(std::move(content));
}

Result<NormalizerPtr> read_bert_normalizer(const JsonNode& node, int) {
  BertNormalizerOptions options;
  MR_ASSIGN_OR_RETURN(options.clean_text, node.boolean_or("clean_text", true));
  MR_ASSIGN_OR_RETURN(options.handle_chinese_chars, node.boolean_or("handle_chinese_chars", true));
  MR_ASSIGN_OR_RETURN(options.lowercase, node.boolean_or("lowercase", true));
  MR_ASSIGN_OR_RETURN(options.strip_accents, node.boolean_or("strip_accents", options.lowercase));
  return bert_normalizer(options);
}

Result<NormalizerPtr> read_precompiled(const JsonNode& node, int) {
  MR_ASSIGN_OR_RETURN(const std::string encoded, node.string_or("precompiled_charsmap", ""));
  const std::optional<std::string> blob = decode_base64(encoded);
  if (!blob) return invalid_argument("{}.precompiled_charsmap: not base64", node.path());
  Result<CharsMap> map = CharsMap::parse(*blob);
  if (!map.ok()) return map.status().at(node.path());
  return precompiled(std::move(map).value());
}

Result<NormalizerPtr> read_normalizer_sequence(const JsonNode& node, int depth) {
  MR_ASSIGN_OR_RETURN(const JsonNode list_node, node.at("normalizers"));
  MR_ASSIGN_OR_RETURN(const std::vector<JsonNode> list, list_node.list());
  std::vector<NormalizerPtr> steps;
  for (const JsonNode& item : list) {
    MR_ASSIGN_OR_RETURN(NormalizerPtr step, normalizer_of(item, depth + 1));
    steps.push_back(std::move(step));
  }
  return sequence_of(std::move(steps));
}

template <UnicodeForm kForm>
Result<NormalizerPtr> read_form(const JsonNode&, int) {
  return unicode_form(kForm);
}

struct NormalizerRow {
  std::string_view type;
  NormalizerReader read;
};
constexpr std::array<NormalizerRow, 15> kNormalizers = {{
    {"NFC", read_form<UnicodeForm::kNfc>},
    {"NFD", read_form<UnicodeForm::kNfd>},
    {"NFKC", read_form<UnicodeForm::kNfkc>},
    {"NFKD", read_form<UnicodeForm::kNfkd>},
    {"Lowercase", [](const JsonNode&, int) -> Result<NormalizerPtr> { return lowercase(); }},
    {"StripAccents", [](const JsonNode&, int) -> Result<NormalizerPtr> { return strip_accents(); }},
    {"Strip", read_strip},
    {"Replace", read_replace},
    {"Prepend", read_prepend},
    {"BertNormalizer", read_bert_normalizer},
    {"Bert", read_bert_normalizer},
    {"Nmt", [](const JsonNode&, int) -> Result<NormalizerPtr> { return nmt_normalizer(); }},
    {"Precompiled", read_precompiled},
    {"ByteLevel", [](const JsonNode&, int) -> Result<NormalizerPtr> { return to_alphabet_normalizer(); }},
    {"Sequence", read_normalizer_sequence},
}};

Result<NormalizerPtr> normalizer_of(const JsonNode& node, int depth) {
  if (depth > kMaxSequenceDepth) return invalid_argument("{}: sequences nest too deep", node.path());
  MR_ASSIGN_OR_RETURN(const JsonNode type_node, node.at("type"));
  MR_ASSIGN_OR_RETURN(const std::string type, type_node.string());
  for (const NormalizerRow& row : kNormalizers)
    if (row.type == type) return row.read(node, depth);
  return unimplemented("{}: normalizer '{}' is not known", type_node.path(), type);
}

// Pre-tokenizers append their steps to `out`.
using StepReader = Status (*)(const JsonNode& node, int depth, PreTokenization& out);
Status add_pre_tokenizer(const JsonNode& node, int depth, PreTokenization& out);

Result<SplitBehavior> read_behavior(const JsonNode& node, SplitBehavior otherwise) {
  const std::optional<JsonNode> member = node.find("behavior");
  if (!member) return otherwise;
  MR_ASSIGN_OR_RETURN(const std::string name, member->string());
  if (name == "Removed") return SplitBehavior::kRemoved;
  if (name == "Isolated") return SplitBehavior::kIsolated;
  if (name == "MergedWithPrevious") return SplitBehavior::kMergedWithPrevious;
  if (name == "MergedWithNext") return SplitBehavior::kMergedWithNext;
  if (name == "Contiguous") return SplitBehavior::kContiguous;
  return member->wrong("Removed, Isolated, MergedWithPrevious, MergedWithNext or Contiguous");
}

Status read_byte_level(const JsonNode& node, int, PreTokenization& out) {
  MR_ASSIGN_OR_RETURN(const bool prefix_space, node.boolean_or("add_prefix_space", true));
  MR_ASSIGN_OR_RETURN(const bool use_regex, node.boolean_or("use_regex", true));
  if (prefix_space) out.steps.push_back(add_prefix_space());
  if (use_regex) {
    MR_ASSIGN_OR_RETURN(Pattern pattern, Pattern::regex(kGpt2Pattern));
    out.steps.push_back(split_at(std::move(pattern), SplitBehavior::kIsolated, false));
  }
  out.ends_in_byte_level = true;
  return {};
}

Status read_split(const JsonNode& node, int, PreTokenization& out) {
  MR_ASSIGN_OR_RETURN(const JsonNode pattern_node, node.at("pattern"));
  MR_ASSIGN_OR_RETURN(Pattern pattern, read_pattern(pattern_node));
  MR_ASSIGN_OR_RETURN(const SplitBehavior behavior, read_behavior(node, SplitBehavior::kIsolated));
  MR_ASSIGN_OR_RETURN(const bool invert, node.boolean_or("invert", false));
  out.steps.push_back(split_at(std::move(pattern), behavior, invert));
  return {};
}

Status read_digits(const JsonNode& node, int, PreTokenization& out) {
  MR_ASSIGN_OR_RETURN(const bool each, node.boolean_or("individual_digits", false));
  out.steps.push_back(split_at_chars(is_numeric, each ? SplitBehavior::kIsolated : SplitBehavior::kContiguous));
  return {};
}

Status read_metaspace(const JsonNode& node, int, PreTokenization& out) {
  MR_ASSIGN_OR_RETURN(const char32_t mark, node.character_or("replacement", U'\u2581'));
  MR_ASSIGN_OR_RETURN(const bool add_prefix, node.boolean_or("add_prefix_space", true));
  MR_ASSIGN_OR_RETURN(const std::string scheme, node.string_or("prepend_scheme", add_prefix ? "always" : "never"));
  MR_ASSIGN_OR_RETURN(const bool split, node.boolean_or("split", true));
  if (scheme != "first" && scheme != "always" && scheme != "never")
    return invalid_argument("{}.prepend_scheme: found '{}', wanted first, always or never", node.path(), scheme);
  const PrependScheme prepend = scheme == "first"    ? PrependScheme::kFirst
                                : scheme == "always" ? PrependScheme::kAlways
                                                     : PrependScheme::kNever;
  out.steps.push_back(metaspace(mark, prepend, split));
  return {};
}

Status read_whitespace(const JsonNode&, int, PreTokenization& out) {
  MR_ASSIGN_OR_RETURN(Pattern pattern, Pattern::regex(kWhitespacePattern));
  out.steps.push_back(split_at(std::move(pattern), SplitBehavior::kRemoved, true));
  return {};
}

Status read_whitespace_split(const JsonNode&, int, PreTokenization& out) {
  out.steps.push_back(split_at_chars(is_white_space, SplitBehavior::kRemoved));
  return {};
}

Status read_punctuation(const JsonNode& node, int, PreTokenization& out) {
  MR_ASSIGN_OR_RETURN(const SplitBehavior behavior, read_behavior(node, SplitBehavior::kIsolated));
  out.steps.push_back(split_at_chars(is_punctuation, behavior));
  return {};
}

Status read_bert_pre_tokenizer(const JsonNode&, int, PreTokenization& out) {
  out.steps.push_back(split_at_chars(is_white_space, SplitBehavior::kRemoved));
  out.steps.push_back(split_at_chars(is_punctuation, SplitBehavior::kIsolated));
  return {};
}

Status read_char_delimiter(const JsonNode& node, int, PreTokenization& out) {
  MR_ASSIGN_OR_RETURN(const JsonNode delimiter, node.at("delimiter"));
  MR_RETURN_IF_ERROR(delimiter.character().status());
  MR_ASSIGN_OR_RETURN(std::string text, delimiter.string());
  out.steps.push_back(split_at(Pattern::literal(std::move(text)), SplitBehavior::kRemoved, false));
  return {};
}

Status read_fixed_length(const JsonNode& node, int, PreTokenization& out) {
  MR_ASSIGN_OR_RETURN(const int64_t chars, node.integer_or("length", 5, 1, INT32_MAX));
  out.steps.push_back(split_every(static_cast<uint32_t>(chars)));
  return {};
}

Status read_unicode_scripts(const JsonNode&, int, PreTokenization& out) {
  out.steps.push_back(split_at_scripts());
  return {};
}

Status read_pre_tokenizer_sequence(const JsonNode& node, int depth, PreTokenization& out) {
  MR_ASSIGN_OR_RETURN(const JsonNode list_node, node.at("pretokenizers"));
  MR_ASSIGN_OR_RETURN(const std::vector<JsonNode> list, list_node.list());
  for (const JsonNode& item : list) MR_RETURN_IF_ERROR(add_pre_tokenizer(item, depth + 1, out));
  return {};
}

struct StepRow {
  std::string_view type;
  StepReader read;
};
constexpr std::array<StepRow, 12> kPreTokenizers = {{
    {"ByteLevel", read_byte_level},
    {"Split", read_split},
    {"Digits", read_digits},
    {"Metaspace", read_metaspace},
    {"Whitespace", read_whitespace},
    {"WhitespaceSplit", read_whitespace_split},
    {"Punctuation", read_punctuation},
    {"BertPreTokenizer", read_bert_pre_tokenizer},
    {"CharDelimiterSplit", read_char_delimiter},
    {"FixedLength", read_fixed_length},
    {"UnicodeScripts", read_unicode_scripts},
    {"Sequence", read_pre_tokenizer_sequence},
}};

Status add_pre_tokenizer(const JsonNode& node, int depth, PreTokenization& out) {
  if (depth > kMaxSequenceDepth) return invalid_argument("{}: sequences nest too deep", node.path());
  MR_ASSIGN_OR_RETURN(const JsonNode type_node, node.at("type"));
  MR_ASSIGN_OR_RETURN(const std::string type, type_node.string());
  for (const StepRow& row : kPreTokenizers) {
    if (row.type != type) continue;
    if (out.ends_in_byte_level && type != "Sequence") {  // it was not the last step: map for those that follow
      out.steps.push_back(map_to_alphabet());
      out.ends_in_byte_level = false;
      out.mapped = true;
    }
    return row.read(node, depth, out);
  }
  return unimplemented("{}: pre-tokenizer '{}' is not known", type_node.path(), type);
}

}  // namespace

Result<Pattern> read_pattern(const JsonNode& node) {
  if (const std::optional<JsonNode> text = node.find("String")) {
    MR_ASSIGN_OR_RETURN(std::string literal, text->string());
    return Pattern::literal(std::move(literal));
  }
  if (const std::optional<JsonNode> text = node.find("Regex")) {
    MR_ASSIGN_OR_RETURN(const std::string regex, text->string());
    Result<Pattern> pattern = Pattern::regex(regex);
    if (!pattern.ok()) return pattern.status().at(node.path());
    return pattern;
  }
  return node.wrong("an object with 'String' or 'Regex'");
}

Result<NormalizerPtr> read_normalizer(const JsonNode& node) { return normalizer_of(node, 0); }

Result<PreTokenization> read_pre_tokenizer(const JsonNode& node) {
  PreTokenization out;
  MR_RETURN_IF_ERROR(add_pre_tokenizer(node, 0, out));
  return out;
}

}  // namespace millrace
