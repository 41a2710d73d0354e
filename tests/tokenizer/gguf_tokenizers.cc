#include "tests/tokenizer/gguf_tokenizers.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <unordered_map>

#include "tests/tokenizer/fixtures.h"

namespace millrace {
namespace {

// Cased letters as DeepSeek's pattern lists them.
const std::string kCasedLetters =
    "A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af\u0370"
    "-\u0373\u0376\u0377\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5\u03f7-"
    "\u0481\u048a-\u052f\u0531-\u0556\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd\u1c90-\u1cba\u1cbd-"
    "\u1cbf\u1d00-\u1d2b\u1d6b-\u1d77\u1d79-\u1d9a\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45\u1f48-"
    "\u1f4d\u1f50-\u1f57\u1f59\u1f5b\u1f5d\u1f5f-\u1f7d\u1f80-\u1fb4\u1fb6-\u1fbc\u03b9\u1fc2-\u1fc4"
    "\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb\u1fe0-\u1fec\u1ff2-\u1ff4\u1ff6-\u1ffc\u2102\u2107\u210a"
    "-\u2113\u2115\u2119-\u211d\u2124\u03a9\u2128K-\u212d\u212f-\u2134\u2139\u213c-\u213f\u2145-"
    "\u2149\u214e\u2183\u2184\u2c00-\u2c7b\u2c7e-\u2ce4\u2ceb-\u2cee\u2cf2\u2cf3\ua640-\ua66d\ua680-"
    "\ua69b\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf\ufb00-\ufb06\ufb13-\ufb17\uff21-"
    "\uff3a\uff41-\uff5a\U00010400-\U0001044f\U000104b0-\U000104d3\U000104d8-\U000104fb\U00010c80-"
    "\U00010cb2\U00010cc0-\U00010cf2\U000118a0-\U000118df\U0001e900-\U0001e943";

Json byte_level(bool use_regex) {
  return {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", use_regex}};
}
Json split(const std::string& regex) {
  return {{"type", "Split"}, {"pattern", {{"Regex", regex}}}, {"behavior", "Isolated"}, {"invert", false}};
}
Json digits(bool individual) { return {{"type", "Digits"}, {"individual_digits", individual}}; }

Json pre_tokenizers(const std::string& name) {
  const Json cjk = split("[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+");
  if (name == "deepseek-llm")
    return {split("[\r\n]"),
            split("\\s?[" + kCasedLetters + "]+"),
            split("\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+"),
            split("\\s+$"),
            cjk,
            digits(true),
            byte_level(false)};
  if (name == "deepseek-coder")
    return {split("[\r\n]"), split("\\s?\\p{L}+"), split("\\s?\\p{P}+"), cjk, digits(true), byte_level(false)};
  if (name == "falcon")
    return {{{"type", "Punctuation"}, {"behavior", "Contiguous"}},
            byte_level(true),
            digits(false),
            split("[0-9][0-9][0-9]")};
  return Json::array({byte_level(true)});
}

Json added_tokens(const GgufVocabulary& vocabulary) {
  Json added = Json::array();
  for (size_t id = 0; id < vocabulary.tokens.size(); ++id) {
    const int32_t type = vocabulary.types[id];
    if (type != 3 && type != 4) continue;
    added.push_back({{"id", id},
                     {"content", vocabulary.tokens[id]},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", type == 4},
                     {"special", type == 3}});
  }
  return added;
}

Json byte_level_tokenizer(const std::string& name, const GgufVocabulary& vocabulary) {
  Json vocab = Json::object();
  for (size_t id = 0; id < vocabulary.tokens.size(); ++id)
    if (vocabulary.types[id] == 1) vocab[vocabulary.tokens[id]] = id;
  return {{"added_tokens", added_tokens(vocabulary)},
          {"pre_tokenizer", {{"type", "Sequence"}, {"pretokenizers", pre_tokenizers(name)}}},
          {"decoder", byte_level(false)},
          {"model", {{"type", "BPE"}, {"vocab", std::move(vocab)}, {"merges", vocabulary.merges}}}};
}

// All ways to put a piece together, the best scores first: what converters make of sentencepiece models.
Json merges_by_score(const GgufVocabulary& vocabulary) {
  std::unordered_map<std::string, size_t> ids;
  for (size_t id = 0; id < vocabulary.tokens.size(); ++id) ids[vocabulary.tokens[id]] = id;
  struct Merge {
    float score;
    std::string left, right;
  };
  std::vector<Merge> merges;
  for (size_t id = 0; id < vocabulary.tokens.size(); ++id) {
    const std::string& token = vocabulary.tokens[id];
    for (size_t cut = 1; vocabulary.types[id] == 1 && cut < token.size(); ++cut)
      if (ids.contains(token.substr(0, cut)) && ids.contains(token.substr(cut)))
        merges.push_back({vocabulary.scores[id], token.substr(0, cut), token.substr(cut)});
  }
  std::stable_sort(merges.begin(), merges.end(), [](const Merge& a, const Merge& b) { return a.score > b.score; });
  Json out = Json::array();
  for (const Merge& merge : merges) out.push_back({merge.left, merge.right});
  return out;
}

Json llama_tokenizer(const GgufVocabulary& vocabulary) {
  Json vocab = Json::object();
  for (size_t id = 0; id < vocabulary.tokens.size(); ++id) vocab[vocabulary.tokens[id]] = id;
  const Json space = {{"String", " "}}, mark = {{"String", "\u2581"}};
  return {{"added_tokens", added_tokens(vocabulary)},
          {"normalizer",
           {{"type", "Sequence"},
            {"normalizers",
             {{{"type", "Prepend"}, {"prepend", "\u2581"}},
              {{"type", "Replace"}, {"pattern", space}, {"content", "\u2581"}}}}}},
          {"decoder",
           {{"type", "Sequence"},
            {"decoders",
             {{{"type", "Replace"}, {"pattern", mark}, {"content", " "}},
              {{"type", "ByteFallback"}},
              {{"type", "Fuse"}},
              {{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}}}}}},
          {"model",
           {{"type", "BPE"},
            {"unk_token", "<unk>"},
            {"fuse_unk", true},
            {"byte_fallback", true},
            {"vocab", std::move(vocab)},
            {"merges", merges_by_score(vocabulary)}}}};
}

}  // namespace

std::string tokenizer_json_from_gguf(const std::string& name) {
  const GgufVocabulary vocabulary = read_gguf_vocabulary(read_shared("gguf_vocab/ggml-vocab-" + name + ".gguf.gz"));
  return dump_json(vocabulary.scores.empty() ? byte_level_tokenizer(name, vocabulary) : llama_tokenizer(vocabulary));
}

}  // namespace millrace
