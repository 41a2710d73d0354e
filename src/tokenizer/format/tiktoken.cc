#include "tokenizer/format/tiktoken.h"

#include <array>
#include <charconv>

#include "base/text.h"
#include "tokenizer/format/base64.h"
#include "tokenizer/model/bpe.h"
#include "tokenizer/text/alphabet.h"

namespace millrace {
namespace {

constexpr std::string_view kO200kPattern =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?)"
    R"(|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?)"
    R"(|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

using Names = std::vector<std::pair<std::string, int32_t>>;

Names numbered(Names names, std::string_view prefix, int from, int to, int32_t first_id) {
  for (int i = from; i <= to; ++i) names.emplace_back(fmt::format("<|{}{}|>", prefix, i), first_id++);
  return names;
}

Names llama3_names() {
  Names names = {{"<|begin_of_text|>", 128000},
                 {"<|end_of_text|>", 128001},
                 {"<|reserved_special_token_0|>", 128002},
                 {"<|reserved_special_token_1|>", 128003},
                 {"<|finetune_right_pad_id|>", 128004},
                 {"<|reserved_special_token_2|>", 128005},
                 {"<|start_header_id|>", 128006},
                 {"<|end_header_id|>", 128007},
                 {"<|eom_id|>", 128008},
                 {"<|eot_id|>", 128009},
                 {"<|python_tag|>", 128010}};
  return numbered(std::move(names), "reserved_special_token_", 3, 247, 128011);
}

std::vector<std::string> qwen_names() {
  std::vector<std::string> names = {"<|endoftext|>", "<|im_start|>", "<|im_end|>"};
  for (int i = 0; i < 205; ++i) names.push_back(fmt::format("<|extra_{}|>", i));
  return names;
}

std::vector<std::string> glm4_names() {
  return {"<|endoftext|>",
          "[MASK]",
          "[gMASK]",
          "[sMASK]",
          "<sop>",
          "<eop>",
          "<|system|>",
          "<|user|>",
          "<|assistant|>",
          "<|observation|>",
          "<|begin_of_image|>",
          "<|end_of_image|>",
          "<|begin_of_video|>",
          "<|end_of_video|>"};
}

// A published vocabulary.
struct Known {
  size_t tokens;
  std::string_view name, tokenizer_class, pattern;
  bool nfc = false;
  Names special = {};
  std::vector<std::string> numbered_on = {};  // special tokens with the ids behind the last rank
  std::string_view bos = "", eos = "", pad = "";
  std::vector<std::string> prefix = {};  // tokens in front of a text
  bool adds_bos = false;
};
const std::array<Known, 6>& known_vocabularies() {
  static const std::array<Known, 6> known = {{
      {.tokens = 128000,
       .name = "Llama 3",
       .pattern = kLlama3Pattern,
       .special = llama3_names(),
       .bos = "<|begin_of_text|>",
       .eos = "<|end_of_text|>",
       .adds_bos = true},
      {.tokens = 151643,
       .name = "Qwen",
       .tokenizer_class = "QWenTokenizer",
       .pattern = kQwen2Pattern,
       .nfc = true,
       .numbered_on = qwen_names(),
       .eos = "<|endoftext|>",
       .pad = "<|endoftext|>"},
      {.tokens = 151329,
       .name = "GLM-4",
       .tokenizer_class = "ChatGLM4Tokenizer",
       .pattern = kLlama3Pattern,
       .numbered_on = glm4_names(),
       .eos = "<|endoftext|>",
       .pad = "<|endoftext|>",
       .prefix = {"[gMASK]", "<sop>"}},
      {.tokens = 100256,
       .name = "cl100k",
       .pattern = kLlama3Pattern,
       .special = {{"<|endoftext|>", 100257},
                   {"<|fim_prefix|>", 100258},
                   {"<|fim_middle|>", 100259},
                   {"<|fim_suffix|>", 100260},
                   {"<|endofprompt|>", 100276}},
       .eos = "<|endoftext|>"},
      {.tokens = 199998,
       .name = "o200k",
       .pattern = kO200kPattern,
       .special = {{"<|endoftext|>", 199999}, {"<|endofprompt|>", 200018}},
       .eos = "<|endoftext|>"},
      {.tokens = 50256,
       .name = "GPT-2",
       .pattern = kGpt2Pattern,
       .special = {{"<|endoftext|>", 50256}},
       .bos = "<|endoftext|>",
       .eos = "<|endoftext|>"},
  }};
  return known;
}
const Known& unknown_vocabulary() {
  static const Known other = {.tokens = 0, .name = "tiktoken", .pattern = kLlama3Pattern};
  return other;
}

// GLM-4's wrapper has had two names.
bool is_class(const Known& known, std::string_view tokenizer_class) {
  if (known.tokenizer_class.empty()) return false;
  return tokenizer_class == known.tokenizer_class ||
         (tokenizer_class == "ChatGLMTokenizer" && known.tokenizer_class == "ChatGLM4Tokenizer");
}

const Known& find_known(std::string_view tokenizer_class, size_t tokens) {
  for (const Known& known : known_vocabularies())
    if (is_class(known, tokenizer_class)) return known;
  for (const Known& known : known_vocabularies())
    if (known.tokens == tokens) return known;
  return unknown_vocabulary();
}

struct Line {
  std::string bytes;
  int32_t rank;
};

Result<Line> read_line(std::string_view line, size_t number) {
  const size_t space = line.find(' ');
  int32_t rank = -1;
  if (space != std::string_view::npos) {
    const std::string_view digits = line.substr(space + 1);
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), rank);
    if (error != std::errc() || end != digits.data() + digits.size()) rank = -1;
  }
  const std::optional<std::string> bytes = decode_base64(line.substr(0, space));
  if (!bytes || bytes->empty() || rank < 0 || rank >= Vocabulary::kMaxIds)
    return invalid_argument("line {}: found '{}', wanted the base64 of a token, a space and its rank", number,
                            line.substr(0, 60));
  if (bytes->size() > kMaxRankedTokenBytes)
    return invalid_argument("line {}: the token has {} bytes; at most {} are allowed", number, bytes->size(),
                            kMaxRankedTokenBytes);
  return Line{*bytes, rank};
}

Result<Vocabulary> read_ranks(std::string_view text) {
  std::vector<Vocabulary::Entry> entries;
  for (size_t at = 0, number = 1; at < text.size(); ++number) {
    const size_t end = std::min(text.find('\n', at), text.size());
    const std::string_view line = trim(text.substr(at, end - at));
    at = end + 1;
    if (line.empty()) continue;
    MR_ASSIGN_OR_RETURN(const Line entry, read_line(line, number));
    entries.emplace_back(to_alphabet(entry.bytes), entry.rank);
  }
  MR_ASSIGN_OR_RETURN(Vocabulary vocabulary, Vocabulary::build(entries));
  if (static_cast<size_t>(vocabulary.size()) != entries.size())
    return invalid_argument("{} lines name {} different tokens; each token may stand once", entries.size(),
                            vocabulary.size());
  return vocabulary;
}

void add_names(const Known& known, TokenizerParts& parts) {
  for (const auto& [name, id] : known.special) {
    AddedToken token;
    token.content = name;
    token.id = id;
    token.special = true;
    parts.added.push_back(std::move(token));
  }
  parts.numbered_on = known.numbered_on;
  parts.prefix = known.prefix;
  parts.names.bos = known.bos;
  parts.names.eos = known.eos;
  parts.names.pad = known.pad;
  parts.adds_bos = known.adds_bos;
}

}  // namespace

bool looks_like_tiktoken(std::string_view text) {
  return read_line(trim(text.substr(0, std::min(text.find('\n'), text.size()))), 1).ok();
}

Result<TokenizerParts> ranked_bpe(Vocabulary vocabulary, std::string_view regex) {
  TokenizerParts parts;
  const std::vector<BpeMerge> merges = all_splits(
      vocabulary, [](int32_t id) { return std::optional<uint32_t>(id); },
      [&](std::string_view part) { return vocabulary.find(part); });
  BpeOptions options;
  options.ignore_merges = true;
  parts.model = make_byte_bpe(std::move(vocabulary), merges, options);
  MR_ASSIGN_OR_RETURN(Pattern pattern, Pattern::regex(regex));
  parts.pre_tokenizers.push_back(split_at(std::move(pattern), SplitBehavior::kIsolated, false));
  parts.decoders.push_back(byte_level_decoder());
  return parts;
}

Result<TokenizerParts> read_tiktoken(std::string_view text, std::string_view tokenizer_class) {
  MR_ASSIGN_OR_RETURN(Vocabulary vocabulary, read_ranks(text));
  if (vocabulary.size() == 0) return data_loss("the rank file has no tokens");
  const Known& known = find_known(tokenizer_class, static_cast<size_t>(vocabulary.size()));
  MR_ASSIGN_OR_RETURN(TokenizerParts parts, ranked_bpe(std::move(vocabulary), known.pattern));
  parts.kind = fmt::format("tiktoken BPE, {} pattern", known.name);
  if (known.nfc) parts.normalizer = unicode_form(UnicodeForm::kNfc);
  add_names(known, parts);
  return parts;
}

}  // namespace millrace
