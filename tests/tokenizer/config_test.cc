// What the files beside a tokenizer change, and what is refused.
#include <thread>

#include "tests/tokenizer/fixtures.h"
#include "tests/tokenizer/gguf_tokenizers.h"
#include "tokenizer/byte_level.h"

namespace millrace {
namespace {

using Ids = std::vector<int32_t>;

// Bytes are their own ids; then <|endoftext|> 256, <|im_start|> 257, <|im_end|> 258.
TokenizerFolder& add_bytes(TokenizerFolder& folder) {
  return folder.add("tokenizer.json", byte_level_tokenizer_json());
}

TEST(TokenizerConfig, ByteLevelWriterMakesAWholeTokenizer) {
  const auto tokenizer = TokenizerFolder()
                             .add("tokenizer.json", byte_level_tokenizer_json())
                             .add("tokenizer_config.json", byte_level_tokenizer_config())
                             .load();
  EXPECT_EQ(tokenizer->vocab_size(), 259);
  EXPECT_EQ(*tokenizer->encode("Az<|im_end|>"), (Ids{'A', 'z', 258}));
  EXPECT_EQ(tokenizer->eos_id(), 258);
  EXPECT_EQ(tokenizer->pad_id(), 256);
  EXPECT_EQ(tokenizer->bos_id(), std::nullopt);
  EXPECT_TRUE(tokenizer->is_special(257));
  EXPECT_NE(tokenizer->chat_templates().at("default").find("<|im_start|>"), std::string::npos);
  EXPECT_EQ(tokenizer->description(), "tokenizer.json (BPE, 259 tokens)");
}

TEST(TokenizerConfig, ParseSpecialOffLeavesSpecialTokensAsText) {
  TokenizerFolder folder;
  const auto tokenizer = add_bytes(folder).load();
  EXPECT_EQ(tokenizer->encode("<|im_end|>", {.parse_special = false})->size(), 10u);
}

TEST(TokenizerConfig, LlamaClassPutsBosInFrontUnlessToldOtherwise) {
  TokenizerFolder folder;
  add_bytes(folder);
  const auto with = [&](std::string_view config) {
    folder.add("tokenizer_config.json", config);
    return *folder.load()->encode("a");
  };
  EXPECT_EQ(with(R"({"tokenizer_class": "LlamaTokenizerFast", "bos_token": "<|endoftext|>"})"), (Ids{256, 'a'}));
  EXPECT_EQ(with(R"({"tokenizer_class": "LlamaTokenizer", "bos_token": "<|endoftext|>", "add_bos_token": false})"),
            (Ids{'a'}));
  EXPECT_EQ(with(R"({"tokenizer_class": "LlamaTokenizer", "bos_token": "<|endoftext|>", "eos_token": "<|im_end|>",
                     "add_eos_token": true})"),
            (Ids{256, 'a', 258}));
  EXPECT_EQ(with(R"({"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|endoftext|>"})"), (Ids{'a'}));
  EXPECT_EQ(with(R"({"bos_token": {"content": "<|endoftext|>", "lstrip": false}, "add_bos_token": true})"),
            (Ids{256, 'a'}));
}

TEST(TokenizerConfig, AddedTokensDecoderAddsTokensAndChangesFlags) {
  TokenizerFolder folder;
  add_bytes(folder).add("tokenizer_config.json", R"({"added_tokens_decoder": {
      "258": {"content": "<|im_end|>", "special": false, "rstrip": true},
      "300": {"content": "<tool>", "special": true}}})");
  const auto tokenizer = folder.load();
  EXPECT_EQ(*tokenizer->encode("<tool><|im_end|>  a"), (Ids{300, 258, 'a'}));
  EXPECT_FALSE(tokenizer->is_special(258));
  EXPECT_TRUE(tokenizer->is_special(300));
  EXPECT_EQ(tokenizer->vocab_size(), 301);
}

TEST(TokenizerConfig, NamedTokensThatNobodyHasGetTheNextIds) {
  TokenizerFolder folder;
  add_bytes(folder).add("special_tokens_map.json",
                        R"({"pad_token": "[PAD]", "additional_special_tokens": ["<a>", {"content": "<b>"}]})");
  const auto tokenizer = folder.load();
  EXPECT_EQ(tokenizer->pad_id(), 259);
  EXPECT_EQ(*tokenizer->encode("<a><b>"), (Ids{260, 261}));
  EXPECT_EQ(tokenizer->special_tokens().additional, (std::vector<std::string>{"<a>", "<b>"}));
}

TEST(TokenizerConfig, AddedTokensOutsideAsciiDecodeToThemselves) {
  TokenizerFolder folder;
  add_bytes(folder).add("added_tokens.json", R"({"f\u00fcr": 300, "a b": 301, "\u4e2d": 302})");
  const auto tokenizer = folder.load();
  const Ids ids = *tokenizer->encode("<f\u00fcr> a b\u4e2d");
  EXPECT_EQ(ids, (Ids{'<', 300, '>', ' ', 301, 302}));
  EXPECT_EQ(tokenizer->decode(ids), "<f\u00fcr> a b\u4e2d");
  EXPECT_EQ(tokenizer->token_text(300), "f\u00fcr");
}

TEST(TokenizerConfig, AddedTokensJsonCounts) {
  TokenizerFolder folder;
  add_bytes(folder).add("added_tokens.json", R"({"<x>": 400})");
  EXPECT_EQ(*folder.load()->encode("<x>"), (Ids{400}));
}

TEST(TokenizerConfig, ChatTemplatesComeFromAllTheirFiles) {
  TokenizerFolder folder;
  add_bytes(folder).add("tokenizer_config.json", R"({"chat_template": [{"name": "default", "template": "one"},
                                                                        {"name": "tool_use", "template": "two"}]})");
  EXPECT_EQ(folder.load()->chat_templates(),
            (std::map<std::string, std::string>{{"default", "one"}, {"tool_use", "two"}}));
  folder.add("chat_template.json", R"({"chat_template": "three"})");
  EXPECT_EQ(folder.load()->chat_templates().at("default"), "three");
  folder.add("chat_template.jinja", "four");
  EXPECT_EQ(folder.load()->chat_templates().at("default"), "four");
}

TEST(TokenizerConfig, BertVocabularyIsReadWithoutAJson) {
  TokenizerFolder folder;
  folder.add("vocab.txt", "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nun\n##aff\n##able\n!\n");
  const auto tokenizer = folder.load();
  EXPECT_EQ(*tokenizer->encode("Unaffable! x"), (Ids{2, 5, 6, 7, 8, 1, 3}));
  EXPECT_EQ(tokenizer->decode(*tokenizer->encode("Unaffable!")), "unaffable!");
}

TEST(TokenizerConfig, ClipVocabularyEndsWords) {
  TokenizerFolder folder;
  folder.add("vocab.json", R"({"a": 0, "a</w>": 1, "b</w>": 2, "ab</w>": 3, "<|startoftext|>": 4, "<|endoftext|>": 5})")
      .add("merges.txt", "#version: 0.2\na b</w>\n")
      .add("tokenizer_config.json", R"({"tokenizer_class": "CLIPTokenizer"})");
  EXPECT_EQ(*folder.load()->encode("AB  a"), (Ids{4, 3, 1, 5}));
}

void expect_refusal(const TokenizerFolder& folder, std::string_view part) {
  const auto tokenizer = folder.try_load();
  ASSERT_FALSE(tokenizer.ok()) << part;
  EXPECT_NE(tokenizer.status().message().find(part), std::string::npos) << tokenizer.status().message();
}

TEST(TokenizerRefusals, NameWhatIsWrong) {
  const auto json = [](std::string_view rest) {
    return TokenizerFolder().add("tokenizer.json", std::string(R"({"model": )") + std::string(rest) + "}").try_load();
  };
  const std::pair<std::string_view, std::string_view> cases[] = {
      {R"({"type": "BPE", "vocab": {"a": 0}, "merges": [], "dropout": 0.1})", "model.dropout"},
      {R"({"type": "BPE", "vocab": {"a": 0}, "merges": ["a b"]})", "model.merges[0]: 'b'"},
      {R"({"type": "BPE", "vocab": {"a": 0}, "merges": ["a  b"]})", "wanted two tokens"},
      {R"({"type": "BPE", "vocab": {"a": -1}, "merges": []})", "model.vocab['a']"},
      {R"({"type": "BPE", "vocab": {"a": 1e9}, "merges": []})", "model.vocab['a']"},
      {R"({"type": "BPE", "vocab": {"a": 0}})", "'merges' is missing"},
      {R"({"type": "Trigram"})", "'Trigram'"},
      {R"({"type": "Unigram", "vocab": [["a"]]})", "model.vocab[0]"},
      {R"({"type": "Unigram", "vocab": [["a", 0]], "unk_id": 1})", "model.unk_id"},
      {R"({"type": "WordLevel", "vocab": {}}, "normalizer": {"type": "Rot13"})", "'Rot13'"},
      {R"({"type": "WordLevel", "vocab": {}}, "pre_tokenizer": {"type": "Split", "pattern": {"Regex": "("}})", "'('"},
      {R"({"type": "WordLevel", "vocab": {}}, "decoder": {"type": "Sequence", "decoders": [{"type": "Nope"}]})",
       "decoder.decoders[0].type"},
      {R"({"type": "WordLevel", "vocab": {}}, "post_processor": {"type": "BertProcessing"})", "'cls' is missing"},
      {R"({"type": "WordLevel", "vocab": {}}, "added_tokens": [{"content": "x"}])", "added_tokens[0]: 'id'"},
  };
  for (const auto& [model, part] : cases) {
    const auto tokenizer = json(model);
    ASSERT_FALSE(tokenizer.ok()) << model;
    EXPECT_NE(tokenizer.status().message().find(part), std::string::npos) << tokenizer.status().message();
    EXPECT_NE(tokenizer.status().message().find("tokenizer.json"), std::string::npos) << tokenizer.status().message();
  }
}

TEST(TokenizerRefusals, FoldersAndFilesThatAreNone) {
  TokenizerFolder empty;
  expect_refusal(empty, "no tokenizer here");
  expect_refusal(TokenizerFolder().add("tokenizer.json", ""), "the file is empty");
  expect_refusal(TokenizerFolder().add("tokenizer.json", "{\"model\": {"), "not valid JSON");
  expect_refusal(TokenizerFolder().add("tokenizer.model", "hello"), "neither JSON, nor a sentencepiece model");
  expect_refusal(TokenizerFolder().add("x.tiktoken", "IQ== 0\nIg== x\n"), "line 2");
  expect_refusal(TokenizerFolder().add("vocab.json", "{}"), "merges.txt");
  EXPECT_EQ(Tokenizer::load("/no/such/place").status().code(), Code::kNotFound);
  TokenizerFolder folder;
  expect_refusal(add_bytes(folder).add("tokenizer_config.json", "[1"), "tokenizer_config.json");
}

TEST(Tokenizer, InvalidBytesCountAsReplacementCharacters) {
  TokenizerFolder folder;
  const auto tokenizer = add_bytes(folder).load();
  EXPECT_EQ(*tokenizer->encode("a\xff"
                               "b"),
            *tokenizer->encode("a\ufffdb"));
  EXPECT_EQ(*tokenizer->encode("\xe4\xb8"), *tokenizer->encode("\ufffd"));
}

TEST(Tokenizer, ManyThreadsGetTheSameIds) {
  SKIP_WITHOUT_SHARED();
  const auto tokenizer = TokenizerFolder().add_shared("tokenizer.json", "smollm2/tokenizer.json.gz").load();
  std::vector<std::string> texts;
  std::vector<Ids> expected;
  Random random(6);
  for (int i = 0; i < 200; ++i) {
    texts.push_back(random_text(random, 40));
    expected.push_back(*tokenizer->encode(texts.back()));
  }
  std::vector<std::thread> threads;
  std::atomic<int> wrong = 0;
  for (int t = 0; t < 6; ++t)
    threads.emplace_back([&] {
      for (size_t i = 0; i < texts.size(); ++i) wrong += *tokenizer->encode(texts[i]) != expected[i];
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
}

// Cost must not grow faster than the text; the bounds are far above what is usual and far below quadratic.
TEST(Tokenizer, LongRunsTakeLinearTime) {
  SKIP_WITHOUT_SHARED();
  const auto llama3 = TokenizerFolder().add_shared("tokenizer.model", "llama3/tokenizer.model.gz").load();
  const auto llama2 = TokenizerFolder().add_shared("tokenizer.model", "llama2/tokenizer.model").load();
  const auto t5 = TokenizerFolder().add_shared("tokenizer.json", "t5_style/tokenizer.json.gz").load();
  const auto deepseek = TokenizerFolder().add("tokenizer.json", tokenizer_json_from_gguf("deepseek-llm")).load();
  for (const auto& tokenizer : {llama3, llama2, t5, deepseek}) {
    for (const std::string& unit : {std::string("a"), std::string(" "), std::string("\u4e2d"), std::string("ab!")}) {
      std::string text;
      while (text.size() < 1'000'000) text += unit;
      const auto start = std::chrono::steady_clock::now();
      ASSERT_TRUE(tokenizer->encode(text + "x").ok());
      EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(30)) << tokenizer->description();
    }
  }
}

}  // namespace
}  // namespace millrace
