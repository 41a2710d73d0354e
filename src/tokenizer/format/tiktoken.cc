#include "tokenizer/format/tiktoken.h"

#include <array>
#include <charconv>

#include "base/text.h"
#include "tokenizer/format/base64.h"
#include "tokenizer/model/bpe.h"
#include "tokenizer/text/alphabet.h"

namespace millrace {
namespace {

constexpr size_t kMaxTokenBytes = 1024;

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

Names qwen_names() {
  return numbered({{"<|endoftext|>", 151643}, {"<|im_start|>", 151644}, {"<|im_end|>", 151645}}, "extra_", 0, 204,
                  151646);
}

// A published vocabulary.
struct Known {
  size_t tokens;
  std::string_view name, pattern;
  bool nfc;
  Names (*special)();
  std::string_view bos, eos, pad;
};
const std::array<Known, 5> kKnown = {{
    {128000, "Llama 3", kLlama3Pattern, false, llama3_names, "<|begin_of_text|>", "<|end_of_text|>", ""},
    {151643, "Qwen", kQwen2Pattern, true, qwen_names, "", "<|endoftext|>", "<|endoftext|>"},
    {100256, "cl100k", kLlama3Pattern, false,
     [] {
       return Names{{"<|endoftext|>", 100257},
                    {"<|fim_prefix|>", 100258},
                    {"<|fim_middle|>", 100259},
                    {"<|fim_suffix|>", 100260},
                    {"<|endofprompt|>", 100276}};
     },
     "", "<|endoftext|>", ""},
    {199998, "o200k", kO200kPattern, false,
     [] {
       return Names{{"<|endoftext|>", 199999}, {"<|endofprompt|>", 200018}};
     },
     "", "<|endoftext|>", ""},
    {50256, "GPT-2", kGpt2Pattern, false,
     [] {
       return Names{{"<|endoftext|>", 50256}};
     },
     "<|endoftext|>", "<|endoftext|>", ""},
}};
// For any other number of tokens.
const Known kOther = {0, "tiktoken", kLlama3Pattern, false, [] { return Names{}; }, "", "", ""};

const Known& known_by_size(size_t tokens) {
  for (const Known& known : kKnown)
    if (known.tokens == tokens) return known;
  return kOther;
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
  if (bytes->size() > kMaxTokenBytes)
    return invalid_argument("line {}: the token has {} bytes; at most {} are allowed", number, bytes->size(),
                            kMaxTokenBytes);
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
  for (const auto& [name, id] : known.special()) {
    AddedToken token;
    token.content = name;
    token.id = id;
    token.special = true;
    parts.added.push_back(std::move(token));
  }
  parts.names.bos = known.bos;
  parts.names.eos = known.eos;
  parts.names.pad = known.pad;
  parts.adds_bos = known.tokens == 128000;
}

}  // namespace

bool looks_like_tiktoken(std::string_view text) {
  return read_line(trim(text.substr(0, std::min(text.find('\n'), text.size()))), 1).ok();
}

Result<TokenizerParts> read_tiktoken(std::string_view text) {
  MR_ASSIGN_OR_RETURN(Vocabulary vocabulary, read_ranks(text));
  if (vocabulary.size() == 0) return data_loss("the rank file has no tokens");
  const Known& known = known_by_size(static_cast<size_t>(vocabulary.size()));
  TokenizerParts parts;
  parts.kind = fmt::format("tiktoken BPE, {} pattern", known.name);
  const std::vector<BpeMerge> merges = all_splits(
      vocabulary, [](int32_t id) { return std::optional<uint32_t>(id); },
      [&](std::string_view part) { return vocabulary.find(part); });
  BpeOptions options;
  options.ignore_merges = true;
  parts.model = make_byte_bpe(std::move(vocabulary), merges, options);
  MR_ASSIGN_OR_RETURN(Pattern pattern, Pattern::regex(known.pattern));
  parts.pre_tokenizers.push_back(split_at(std::move(pattern), SplitBehavior::kIsolated, false));
  if (known.nfc) parts.normalizer = unicode_form(UnicodeForm::kNfc);
  parts.decoders.push_back(byte_level_decoder());
  add_names(known, parts);
  return parts;
}

}  // namespace millrace
