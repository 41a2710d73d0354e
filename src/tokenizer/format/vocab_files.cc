#include "tokenizer/format/vocab_files.h"

#include "base/text.h"
#include "tokenizer/format/json_node.h"
#include "tokenizer/model/bpe.h"
#include "tokenizer/model/wordpiece.h"
#include "tokenizer/text/unicode.h"

namespace millrace {
namespace {

// CLIP's own; its white space is removed before.
constexpr std::string_view kClipPattern =
    R"(<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+)";

Result<Vocabulary> read_vocab_json(std::string_view text) {
  MR_ASSIGN_OR_RETURN(const Json json, parse_json(text));
  if (!json.is_object()) return invalid_argument("found {}, wanted an object of tokens and ids", json_kind(json));
  std::vector<Vocabulary::Entry> entries;
  entries.reserve(json.size());
  for (const auto& [token, id] : json.items()) {
    MR_ASSIGN_OR_RETURN(const int64_t number, JsonNode(id, token).integer(0, Vocabulary::kMaxIds - 1));
    entries.emplace_back(token, static_cast<int32_t>(number));
  }
  return Vocabulary::build(entries);
}

Result<std::vector<BpeMerge>> read_merges_text(std::string_view text, const Vocabulary& vocabulary) {
  std::vector<BpeMerge> merges;
  for (size_t at = 0, number = 1; at < text.size(); ++number) {
    const size_t end = std::min(text.find('\n', at), text.size());
    std::string_view line = text.substr(at, end - at);
    if (line.ends_with('\r')) line.remove_suffix(1);
    at = end + 1;
    if (line.empty() || line.starts_with("#version")) continue;
    const size_t space = line.find(' ');
    if (space == std::string_view::npos || line.find(' ', space + 1) != std::string_view::npos)
      return invalid_argument("merges, line {}: found '{}', wanted two tokens", number, line.substr(0, 60));
    const std::string_view left = line.substr(0, space), right = line.substr(space + 1);
    const BpeMerge merge = {vocabulary.find(left), vocabulary.find(right),
                            vocabulary.find(std::string(left) + std::string(right)),
                            static_cast<uint32_t>(merges.size())};
    if (merge.left < 0 || merge.right < 0 || merge.result < 0)
      return invalid_argument("merges, line {}: '{}' or what it becomes is not in the vocabulary", number, line);
    merges.push_back(merge);
  }
  return merges;
}

void add_if_known(const Vocabulary& vocabulary, const std::string& text, TokenizerParts& parts) {
  const int32_t id = vocabulary.find(text);
  if (id < 0) return;
  AddedToken token;
  token.content = text;
  token.id = id;
  token.special = true;
  parts.added.push_back(std::move(token));
}

Status add_split(std::string_view regex, SplitBehavior behavior, bool invert, TokenizerParts& parts) {
  MR_ASSIGN_OR_RETURN(Pattern pattern, Pattern::regex(regex));
  parts.pre_tokenizers.push_back(split_at(std::move(pattern), behavior, invert));
  return {};
}

Status be_clip(Vocabulary vocabulary, const std::vector<BpeMerge>& merges, TokenizerParts& parts) {
  std::vector<NormalizerPtr> steps;
  MR_ASSIGN_OR_RETURN(Pattern spaces, Pattern::regex(R"(\s+)"));
  steps.push_back(unicode_form(UnicodeForm::kNfc));
  steps.push_back(replace_all(std::move(spaces), " "));
  steps.push_back(lowercase());
  parts.normalizer = sequence_of(std::move(steps));
  MR_RETURN_IF_ERROR(add_split(kClipPattern, SplitBehavior::kRemoved, true, parts));
  parts.pre_tokenizers.push_back(map_to_alphabet());
  parts.names = {.bos = "<|startoftext|>", .eos = "<|endoftext|>", .unk = "<|endoftext|>", .pad = "<|endoftext|>"};
  add_if_known(vocabulary, parts.names.bos, parts);
  add_if_known(vocabulary, parts.names.eos, parts);
  parts.adds_bos = parts.adds_eos = true;
  BpeOptions options;
  options.end_of_word_suffix = "</w>";
  options.unk_id = vocabulary.find(parts.names.unk);
  parts.model = make_char_bpe(std::move(vocabulary), merges, options);
  MR_ASSIGN_OR_RETURN(Pattern suffix, Pattern::regex("</w>"));
  parts.decoders.push_back(replace_decoder(std::move(suffix), " "));
  parts.decoders.push_back(byte_level_decoder());
  return {};
}

Status be_byte_level(Vocabulary vocabulary, const std::vector<BpeMerge>& merges, const TokenizerConfig& config,
                     TokenizerParts& parts) {
  const bool qwen2 = config.tokenizer_class == "Qwen2Tokenizer";
  if (qwen2) parts.normalizer = unicode_form(UnicodeForm::kNfc);
  if (config.add_prefix_space.value_or(false)) parts.pre_tokenizers.push_back(add_prefix_space());
  MR_RETURN_IF_ERROR(add_split(qwen2 ? kQwen2Pattern : kGpt2Pattern, SplitBehavior::kIsolated, false, parts));
  if (config.tokenizer_class == "RobertaTokenizer") {
    parts.names = {.bos = "<s>", .eos = "</s>", .unk = "<unk>", .pad = "<pad>"};
    for (const std::string& name : {parts.names.bos, parts.names.eos, parts.names.unk, parts.names.pad})
      add_if_known(vocabulary, name, parts);
    parts.adds_bos = parts.adds_eos = true;
  } else {
    parts.names = {.bos = qwen2 ? "" : "<|endoftext|>", .eos = "<|endoftext|>"};
    add_if_known(vocabulary, "<|endoftext|>", parts);
  }
  parts.model = make_byte_bpe(std::move(vocabulary), merges, {});
  parts.decoders.push_back(byte_level_decoder());
  return {};
}

}  // namespace

Result<TokenizerParts> read_vocab_and_merges(std::string_view vocab_json, std::string_view merges_text,
                                             const TokenizerConfig& config) {
  MR_ASSIGN_OR_RETURN(Vocabulary vocabulary, read_vocab_json(vocab_json));
  MR_ASSIGN_OR_RETURN(const std::vector<BpeMerge> merges, read_merges_text(merges_text, vocabulary));
  TokenizerParts parts;
  parts.kind = "BPE";
  if (config.tokenizer_class == "CLIPTokenizer")
    MR_RETURN_IF_ERROR(be_clip(std::move(vocabulary), merges, parts));
  else
    MR_RETURN_IF_ERROR(be_byte_level(std::move(vocabulary), merges, config, parts));
  return parts;
}

Result<TokenizerParts> read_bert_vocab(std::string_view vocab_text, const TokenizerConfig& config) {
  std::vector<Vocabulary::Entry> entries;
  for (const std::string& line : split(vocab_text, '\n'))
    entries.emplace_back(line.ends_with('\r') ? line.substr(0, line.size() - 1) : line,
                         static_cast<int32_t>(entries.size()));
  if (!entries.empty() && entries.back().first.empty()) entries.pop_back();
  MR_ASSIGN_OR_RETURN(Vocabulary vocabulary, Vocabulary::build(entries));
  TokenizerParts parts;
  parts.kind = "WordPiece";
  parts.names = {.unk = "[UNK]", .pad = "[PAD]", .sep = "[SEP]", .cls = "[CLS]", .mask = "[MASK]"};
  for (const char* name : {"[UNK]", "[PAD]", "[SEP]", "[CLS]", "[MASK]"}) add_if_known(vocabulary, name, parts);
  const int32_t cls = vocabulary.find("[CLS]"), sep = vocabulary.find("[SEP]");
  if (cls >= 0 && sep >= 0) parts.around = {cls, kText, sep};
  BertNormalizerOptions options;
  options.lowercase = options.strip_accents = config.do_lower_case.value_or(true);
  parts.normalizer = bert_normalizer(options);
  parts.pre_tokenizers.push_back(split_at_chars(is_white_space, SplitBehavior::kRemoved));
  parts.pre_tokenizers.push_back(split_at_chars(is_punctuation, SplitBehavior::kIsolated));
  const int32_t unk = vocabulary.find("[UNK]");
  parts.model = make_wordpiece(std::move(vocabulary), {.unk_id = unk});
  parts.decoders.push_back(wordpiece_decoder("##", true));
  return parts;
}

}  // namespace millrace
