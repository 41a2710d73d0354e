// What published tokenizer classes do beyond their files: ChatGLM's wrappers, Qwen's and GLM-4's rank files, Baichuan's
// reserved pieces, InternLM2's renamed ones, tekken.json.
#include <sentencepiece_processor.h>

#include <nlohmann/json.hpp>

#include "tests/tokenizer/fixtures.h"

namespace millrace {
namespace {

using Ids = std::vector<int32_t>;
constexpr EncodeOptions kPlain = {.add_special_tokens = false};

// Ten pieces; "sop" takes three.
std::string glm_pieces() {
  return sentencepiece_model({{"<unk>", 0, 2},
                              {"<s>", 0, 3},
                              {"</s>", 0, 3},
                              {"\u2581", -9},
                              {"s", -1},
                              {"o", -2},
                              {"p", -3},
                              {"h", -4},
                              {"\n", -6},
                              {"i", -5}},
                             2);
}
constexpr int32_t kMask = 11, kSop = 13, kSystem = 15, kUser = 16, kAssistant = 17;  // [MASK] is 10

TokenizerFolder& chatglm(TokenizerFolder& folder, std::string_view more = "") {
  return folder.add("tokenizer.model", glm_pieces())
      .add("tokenizer_config.json",
           R"({"tokenizer_class": "ChatGLMTokenizer", "remove_space": false)" + std::string(more) + "}");
}

TEST(ChatGlmTokenizer, PutsItsPrefixInFrontAndNumbersSpecialTokensOn) {
  TokenizerFolder folder;
  const auto tokenizer = chatglm(folder).load();
  EXPECT_EQ(*tokenizer->encode("hi"), (Ids{kMask, kSop, 3, 7, 9}));
  EXPECT_EQ(*tokenizer->encode("hi", kPlain), (Ids{3, 7, 9}));
  const char* names[] = {"[MASK]", "[gMASK]", "[sMASK]", "sop", "eop", "<|system|>", "<|user|>", "<|assistant|>"};
  for (int32_t i = 0; i < 8; ++i) {
    EXPECT_EQ(tokenizer->token_id(names[i]), 10 + i);
    EXPECT_TRUE(tokenizer->is_special(10 + i));
  }
  EXPECT_EQ(tokenizer->token_id("<|observation|>"), 18);
  EXPECT_EQ(tokenizer->vocab_size(), 19);
  EXPECT_EQ(tokenizer->eos_id(), 2);
  EXPECT_EQ(tokenizer->pad_id(), 0);
  EXPECT_EQ(tokenizer->decode(*tokenizer->encode("hi")), "hi");
}

TEST(ChatGlmTokenizer, TemplatesReachTheirTokensAndEverySectionGetsItsSpace) {
  TokenizerFolder folder;
  const auto tokenizer = chatglm(folder).load();
  EXPECT_EQ(*tokenizer->encode("[gMASK]sop<|user|>\n hi<|assistant|>", kPlain),
            (Ids{kMask, kSop, kUser, 3, 8, 3, 7, 9, kAssistant}));
}

TEST(ChatGlmTokenizer, WordsWithSopInsideStayWords) {
  TokenizerFolder folder;
  const auto tokenizer = chatglm(folder).load();
  EXPECT_EQ(*tokenizer->encode("sop", kPlain), (Ids{3, 4, 5, 6}));
  EXPECT_EQ(*tokenizer->encode("hisophi", kPlain), (Ids{3, 7, 9, 4, 5, 6, 7, 9}));
  EXPECT_EQ(*tokenizer->encode("[gMASK] sop", kPlain), (Ids{kMask, 3, 4, 5, 6}));
  EXPECT_EQ(*tokenizer->encode("<|user|>sop", kPlain), (Ids{kUser, 3, 4, 5, 6}));
}

TEST(ChatGlmTokenizer, SecondGenerationHasNoRoles) {
  const auto has_roles = [](const TokenizerFolder& folder) {
    const auto tokenizer = folder.load();
    EXPECT_EQ(tokenizer->token_id("eop"), 14);
    return tokenizer->token_id("<|user|>").has_value();
  };
  TokenizerFolder by_name;
  EXPECT_FALSE(has_roles(chatglm(by_name, R"(, "name_or_path": "THUDM/chatglm2-6b")")));
  TokenizerFolder by_model;
  EXPECT_FALSE(has_roles(chatglm(by_model).add("config.json", R"({"_name_or_path": "THUDM/chatglm2-6b-32k"})")));
  TokenizerFolder by_source;
  EXPECT_FALSE(has_roles(chatglm(by_source).add("tokenization_chatglm.py", "special_tokens = ['[MASK]', 'eop']\n")));
  EXPECT_TRUE(has_roles(by_source.add("tokenization_chatglm.py", "roles = ['<|system|>', '<|user|>']\n")));
  TokenizerFolder by_config;
  EXPECT_TRUE(has_roles(chatglm(by_config, R"(, "name_or_path": "my/chatglm2-like", "added_tokens_decoder":
      {"16": {"content": "<|user|>", "special": true}})")));
}

TEST(ChatGlmTokenizer, ConfiguredTokensKeepTheirFlagsAndSopItsGuard) {
  TokenizerFolder folder;
  const auto tokenizer = chatglm(folder, R"(, "added_tokens_decoder": {
      "11": {"content": "[gMASK]", "special": true}, "13": {"content": "sop", "special": true},
      "15": {"content": "<|system|>", "special": false}})")
                             .load();
  EXPECT_EQ(*tokenizer->encode("sop"), (Ids{kMask, kSop, 3, 4, 5, 6}));
  EXPECT_FALSE(tokenizer->is_special(kSystem));
}

TEST(ChatGlmTokenizer, IsKnownByItsRemoteClassOrTheCallersWord) {
  TokenizerFolder remote;
  remote.add("tokenizer.model", glm_pieces())
      .add("tokenizer_config.json",
           R"({"auto_map": {"AutoTokenizer": ["tokenization_chatglm.ChatGLMTokenizer", null]}})");
  EXPECT_EQ(remote.load()->encode("hi")->front(), kMask);
  TokenizerFolder bare;
  bare.add("tokenizer.model", glm_pieces());
  EXPECT_EQ(bare.load()->encode("hi")->front(), 1);
  EXPECT_EQ((*Tokenizer::load(bare.path(), "ChatGLMTokenizer"))->encode("hi")->front(), kMask);
  bare.add("config.json", R"({"tokenizer_class": "LlamaTokenizer"})");
  EXPECT_EQ((*Tokenizer::load(bare.path(), "ChatGLMTokenizer"))->encode("hi")->front(), 1);
}

// Ranks of all bytes, then "12", "123", "ab".
std::string small_ranks() {
  static constexpr std::string_view kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string ranks;
  for (int b = 0; b < 256; ++b)
    ranks += std::string{kDigits[static_cast<size_t>(b) >> 2], kDigits[(static_cast<size_t>(b) & 3) << 4]} +
             "== " + std::to_string(b) + "\n";
  return ranks + "MTI= 256\nMTIz 257\nYWI= 258\n";
}

TEST(QwenTokenizer, ClassDecidesPatternNormalFormAndSpecialTokens) {
  const auto tokenizer = TokenizerFolder()
                             .add("qwen.tiktoken", small_ranks())
                             .add("tokenizer_config.json", R"({"tokenizer_class": "QWenTokenizer"})")
                             .load();
  EXPECT_EQ(*tokenizer->encode("123"), (Ids{'1', '2', '3'}));  // digits one by one
  EXPECT_EQ(*tokenizer->encode("e\u0301"), (Ids{0xc3, 0xa9}));
  EXPECT_EQ(*tokenizer->encode("<|endoftext|><|im_start|>ab<|im_end|><|extra_204|>"), (Ids{259, 260, 258, 261, 466}));
  EXPECT_EQ(tokenizer->eos_id(), 259);
  EXPECT_EQ(tokenizer->bos_id(), std::nullopt);
  EXPECT_EQ(tokenizer->vocab_size(), 467);
}

TEST(QwenTokenizer, PublishedVocabularyHasThePublishedIds) {
  SKIP_WITHOUT_SHARED();
  const auto tokenizer = TokenizerFolder().add_shared("qwen.tiktoken", "qwen/qwen.tiktoken.gz").load();
  EXPECT_EQ(tokenizer->token_id("<|endoftext|>"), 151643);
  EXPECT_EQ(tokenizer->token_id("<|im_end|>"), 151645);
  EXPECT_EQ(tokenizer->token_id("<|extra_0|>"), 151646);
  EXPECT_EQ(tokenizer->vocab_size(), 151851);
}

TEST(Glm4Tokenizer, RankFileGetsPrefixAndSpecialTokens) {
  for (const char* name : {"ChatGLM4Tokenizer", "ChatGLMTokenizer"}) {
    const auto tokenizer = TokenizerFolder()
                               .add("tokenizer.model", small_ranks())
                               .add("tokenizer_config.json", Json({{"tokenizer_class", name}}).dump())
                               .load();
    EXPECT_EQ(*tokenizer->encode("123"), (Ids{261, 263, 257}));  // three digits at a time
    EXPECT_EQ(*tokenizer->encode("[gMASK]<sop><|user|>\nab<|assistant|>", kPlain),
              (Ids{261, 263, 266, '\n', 258, 267}));
    EXPECT_EQ(tokenizer->token_id("<|endoftext|>"), 259);
    EXPECT_EQ(tokenizer->token_id("<|observation|>"), 268);
    EXPECT_EQ(tokenizer->token_id("<|end_of_video|>"), 272);
    EXPECT_EQ(tokenizer->eos_id(), 259);
    EXPECT_EQ(tokenizer->decode(*tokenizer->encode("ab 123")), "ab 123");
  }
}

TEST(Glm4Tokenizer, ConfiguredIdsGoBeforeTheUsualOnes) {
  const auto tokenizer = TokenizerFolder()
                             .add("tokenizer.model", small_ranks())
                             .add("tokenizer_config.json", R"({"tokenizer_class": "ChatGLM4Tokenizer",
      "added_tokens_decoder": {"259": {"content": "[gMASK]", "special": true},
                               "260": {"content": "<sop>", "special": true},
                               "261": {"content": "<|endoftext|>", "special": true}}})")
                             .load();
  EXPECT_EQ(*tokenizer->encode("ab"), (Ids{259, 260, 258}));
  EXPECT_EQ(tokenizer->eos_id(), 261);
  EXPECT_EQ(tokenizer->token_id("<|user|>"), 266);
}

TEST(BaichuanTokenizer, TurnMarksAreTokens) {
  const std::string model = sentencepiece_model(
      {{"<unk>", 0, 2}, {"<s>", 0, 3}, {"</s>", 0, 3}, {"<reserved_106>", -1}, {"<reserved_107>", -2}, {"h", -3}}, 2,
      /*add_dummy_prefix=*/false);
  TokenizerFolder folder;
  folder.add("tokenizer.model", model)
      .add("tokenizer_config.json", R"({"tokenizer_class": "BaichuanTokenizer", "add_bos_token": false,
        "eos_token": {"__type": "AddedToken", "content": "</s>", "single_word": true}})");
  const auto tokenizer = folder.load();
  EXPECT_EQ(*tokenizer->encode("<reserved_106>h<reserved_107>"), (Ids{3, 5, 4}));
  EXPECT_EQ(tokenizer->decode(Ids{3, 5, 4}), "h");
}

TEST(BaichuanTokenizer, PublishedVocabularyGetsTheLibrarysIds) {
  SKIP_WITHOUT_SHARED();
  const GgufVocabulary gguf = read_gguf_vocabulary(read_shared("gguf_vocab/ggml-vocab-baichuan.gguf.gz"));
  std::vector<ModelPiece> pieces;
  for (size_t i = 0; i < gguf.tokens.size(); ++i) pieces.push_back({gguf.tokens[i], gguf.scores[i], gguf.types[i]});
  const std::string model = sentencepiece_model(pieces, 2, /*add_dummy_prefix=*/false);
  sentencepiece::SentencePieceProcessor library;
  const auto status = library.LoadFromSerializedProto(model);
  ASSERT_TRUE(status.ok()) << status.ToString();
  const auto tokenizer = TokenizerFolder()
                             .add("tokenizer.model", model)
                             .add("tokenizer_config.json", R"({"tokenizer_class": "BaichuanTokenizer"})")
                             .load();
  Random random(23);
  for (int i = 0; i < 500; ++i) {
    const std::string text = random_text(random, 40);
    std::vector<int> expected;
    ASSERT_TRUE(library.Encode(text, &expected).ok());
    ASSERT_EQ(*tokenizer->encode(text, {.add_special_tokens = false, .parse_special = false}), expected) << text;
  }
  EXPECT_EQ(*tokenizer->encode("<reserved_106>", kPlain), (Ids{gguf.tokens[199] == "<reserved_106>" ? 199 : 195}));
}

TEST(InternLm2Tokenizer, ConfiguredTokensTakeThePlaceOfUnusedPieces) {
  const std::string model = sentencepiece_model({{"<unk>", 0, 2},
                                                 {"<s>", 0, 3},
                                                 {"</s>", 0, 3},
                                                 {"\u2581", -9},
                                                 {"h", -1},
                                                 {"[UNUSED_TOKEN_145]", 0, 4},
                                                 {"[UNUSED_TOKEN_146]", 0, 4}},
                                                2);
  TokenizerFolder folder;
  folder.add("tokenizer.model", model)
      .add("tokenizer_config.json", R"({"tokenizer_class": "InternLM2Tokenizer", "bos_token": "<s>",
        "additional_special_tokens": ["<|im_start|>", "<|im_end|>"], "added_tokens_decoder":
        {"5": {"content": "<|im_end|>", "special": true}, "6": {"content": "<|im_start|>", "special": true}}})");
  const auto tokenizer = folder.load();
  EXPECT_EQ(*tokenizer->encode("<|im_start|>h<|im_end|>"), (Ids{1, 6, 3, 4, 5}));
  EXPECT_EQ(tokenizer->vocab_size(), 7);
  EXPECT_EQ(tokenizer->decode(Ids{6, 3, 4, 5}, {.skip_special_tokens = false}), "<|im_start|> h<|im_end|>");
}

std::string tekken(const Json& special) {
  Json vocab = Json::array();
  for (const char* token : {"YQ==", "Yg==", "YWI=", "IA==", "YWIg"})
    vocab.push_back({{"rank", vocab.size()}, {"token_bytes", token}, {"token_str", nullptr}});
  Json json = {{"config",
                {{"pattern", R"(\w+|\s)"},
                 {"num_vocab_tokens", 5},
                 {"default_vocab_size", 24},
                 {"default_num_special_tokens", 20},
                 {"version", "v3"}}},
               {"vocab", vocab}};
  if (!special.is_null()) json["special_tokens"] = special;
  return json.dump();
}

TEST(TekkenTokenizer, SpecialTokensTakeTheFirstIds) {
  const auto tokenizer = TokenizerFolder().add("tekken.json", tekken(nullptr)).load();
  EXPECT_EQ(*tokenizer->encode("[INST]ab a[/INST]"), (Ids{1, 3, 22, 23, 20, 4}));
  EXPECT_EQ(tokenizer->token_id("[TOOL_CALLS]"), 9);
  EXPECT_EQ(tokenizer->token_id("ab "), std::nullopt);  // beyond default_vocab_size
  EXPECT_EQ(tokenizer->vocab_size(), 24);
  EXPECT_EQ(tokenizer->bos_id(), 1);
  EXPECT_EQ(tokenizer->eos_id(), 2);
  EXPECT_EQ(tokenizer->decode(Ids{1, 22, 23, 20, 2}), "ab a");
}

TEST(TekkenTokenizer, ListedSpecialTokensGoBeforeTheUsualOnes) {
  const auto tokenizer =
      TokenizerFolder().add("tekken.json", tekken({{{"rank", 5}, {"token_str", "[X]"}, {"is_control", true}}})).load();
  EXPECT_EQ(tokenizer->token_id("[X]"), 5);
  EXPECT_EQ(tokenizer->token_id("<SPECIAL_9>"), 9);
  EXPECT_EQ(tokenizer->token_id("[INST]"), std::nullopt);
}

TEST(TekkenTokenizer, RefusalsNameTheKey) {
  const std::pair<std::string_view, std::string_view> cases[] = {
      {R"({"vocab": []})", "'config' is missing"},
      {R"({"config": {"default_vocab_size": 5, "default_num_special_tokens": 5, "pattern": "a"}, "vocab": []})",
       "default_num_special_tokens"},
      {R"({"config": {"default_vocab_size": 5, "default_num_special_tokens": 1, "pattern": "a"}, "vocab": []})",
       "vocab: "},
      {R"({"config": {"default_vocab_size": 5, "default_num_special_tokens": 1, "pattern": "a"},
           "vocab": [{"rank": 0, "token_bytes": "?"}]})",
       "vocab[0].token_bytes"},
  };
  for (const auto& [json, part] : cases) {
    const auto tokenizer = TokenizerFolder().add("tekken.json", json).try_load();
    ASSERT_FALSE(tokenizer.ok()) << json;
    EXPECT_NE(tokenizer.status().message().find(part), std::string::npos) << tokenizer.status().message();
  }
}

TEST(ExtraSpecialTokens, ListsAndRolesAreRead) {
  for (const char* extra : {R"(["<image>"])", R"({"image_token": "<image>"})"}) {
    const auto tokenizer = TokenizerFolder()
                               .add("tokenizer.model", glm_pieces())
                               .add("tokenizer_config.json", std::string(R"({"extra_special_tokens": )") + extra + "}")
                               .load();
    EXPECT_EQ(*tokenizer->encode("<image>", kPlain), (Ids{10})) << extra;
    EXPECT_TRUE(tokenizer->is_special(10));
  }
}

}  // namespace
}  // namespace millrace
