// Published tokenizers against ids that other programs recorded for them.
#include "base/utf8.h"
#include "tests/tokenizer/fixtures.h"
#include "tests/tokenizer/gguf_tokenizers.h"
#include "tokenizer/text/alphabet.h"

namespace millrace {
namespace {

void expect_goldens(const Tokenizer& tokenizer, const std::string& name) {
  const std::vector<GoldenText> goldens = ggml_goldens(name);
  EXPECT_GE(goldens.size(), 46u);
  for (const GoldenText& golden : goldens) {
    const auto ids = tokenizer.encode(golden.text, {.add_special_tokens = false});
    ASSERT_TRUE(ids.ok()) << ids.status().to_string();
    EXPECT_EQ(*ids, golden.ids) << name << ": '" << golden.text << "'";
  }
}

void expect_round_trips(const Tokenizer& tokenizer, const std::string& name) {
  for (const GoldenText& golden : ggml_goldens(name)) {
    const auto ids = tokenizer.encode(golden.text, {.add_special_tokens = false});
    ASSERT_TRUE(ids.ok());
    EXPECT_EQ(tokenizer.decode(*ids), golden.text) << name;
  }
}

TEST(RealTokenizers, QwenRankFileGivesRecordedIdsAndRoundTrips) {
  SKIP_WITHOUT_SHARED();
  const auto tokenizer = TokenizerFolder().add_shared("qwen.tiktoken", "qwen/qwen.tiktoken.gz").load();
  expect_goldens(*tokenizer, "qwen2");
  expect_round_trips(*tokenizer, "qwen2");
  EXPECT_EQ(*tokenizer->encode("<|im_start|>"), (std::vector<int32_t>{151644}));
}

TEST(RealTokenizers, Llama3RankFileGivesRecordedIdsAndRoundTrips) {
  SKIP_WITHOUT_SHARED();
  const auto tokenizer = TokenizerFolder().add_shared("tokenizer.model", "llama3/tokenizer.model.gz").load();
  expect_goldens(*tokenizer, "llama-bpe");
  expect_round_trips(*tokenizer, "llama-bpe");
  EXPECT_EQ(*tokenizer->encode("hi<|eot_id|>"), (std::vector<int32_t>{128000, 6151, 128009}));
  EXPECT_EQ(tokenizer->vocab_size(), 128256);
}

TEST(RealTokenizers, VocabularyUnderItsFirstNamesRoundTrips) {
  SKIP_WITHOUT_SHARED();
  const auto tokenizer = TokenizerFolder()
                             .add_shared("encoder.json", "llama3/vocab_encoder.json.gz")
                             .add_shared("vocab.bpe", "llama3/vocab.bpe.gz")
                             .load();
  expect_round_trips(*tokenizer, "llama-bpe");
}

TEST(RealTokenizers, Llama2ModelGivesRecordedIdsAndRoundTrips) {
  SKIP_WITHOUT_SHARED();
  const auto tokenizer = TokenizerFolder().add_shared("tokenizer.model", "llama2/tokenizer.model").load();
  expect_goldens(*tokenizer, "llama-spm");
  expect_round_trips(*tokenizer, "llama-spm");
  EXPECT_EQ(tokenizer->bos_id(), 1);
  EXPECT_EQ(tokenizer->eos_id(), 2);
  EXPECT_EQ(tokenizer->encode("x")->front(), 1);
}

TEST(RealTokenizers, Gpt2FilesGiveRecordedIdsAndRoundTrip) {
  SKIP_WITHOUT_SHARED();
  const auto tokenizer = TokenizerFolder()
                             .add_shared("vocab.json", "gpt2/vocab.json.gz")
                             .add_shared("merges.txt", "gpt2/merges.txt.gz")
                             .load();
  expect_goldens(*tokenizer, "gpt-2");
  expect_round_trips(*tokenizer, "gpt-2");
  EXPECT_EQ(*tokenizer->encode("<|endoftext|>"), (std::vector<int32_t>{50256}));
}

class FromGguf : public testing::TestWithParam<const char*> {};

TEST_P(FromGguf, TokenizerJsonGivesRecordedIds) {
  SKIP_WITHOUT_SHARED();
  const std::string name = GetParam();
  const auto tokenizer = TokenizerFolder().add("tokenizer.json", tokenizer_json_from_gguf(name)).load();
  expect_goldens(*tokenizer, name);
  expect_round_trips(*tokenizer, name);
}
INSTANTIATE_TEST_SUITE_P(RealTokenizers, FromGguf,
                         testing::Values("deepseek-llm", "deepseek-coder", "falcon", "gpt-2", "phi-3", "llama-spm"));

TEST(RealTokenizers, MistralJsonGivesTheLibrarysIdsAndTexts) {
  SKIP_WITHOUT_SHARED();
  const auto tokenizer = TokenizerFolder().add_shared("tokenizer.json", "mistral/tokenizer.json.gz").load();
  const Result<Json> goldens = read_json_file(shared_file("mistral/encodings.json"));
  ASSERT_TRUE(goldens.ok());
  for (const Json& golden : (*goldens)["entries"]) {
    const auto text = golden["text"].get<std::string>();
    const auto plain = tokenizer->encode(text, {.add_special_tokens = false});
    EXPECT_EQ(*plain, golden["ids"].get<std::vector<int32_t>>()) << text;
    EXPECT_EQ(*tokenizer->encode(text), golden["ids_special"].get<std::vector<int32_t>>()) << text;
    EXPECT_EQ(tokenizer->decode(*plain, {.skip_special_tokens = false}), golden["decode"].get<std::string>()) << text;
  }
}

TEST(RealTokenizers, OwnByteLevelMergesAreLearntAsRecorded) {
  SKIP_WITHOUT_SHARED();
  const std::string data = std::string(MILLRACE_SOURCE_DIR "/../shared/data/datasets/pretrain/");
  const Result<std::string> vocab = read_file(data + "bpe_reference_vocab.json");
  const Result<std::string> merges = read_file(data + "bpe_reference_merges.txt");
  if (!vocab.ok() || !merges.ok()) GTEST_SKIP() << "the BPE training golden is not there";
  const auto tokenizer = TokenizerFolder().add("vocab.json", *vocab).add("merges.txt", *merges).load();
  const std::string text = "The quick brown fox; 12 of them.";
  const auto ids = tokenizer->encode(text);
  ASSERT_TRUE(ids.ok()) << ids.status().to_string();
  EXPECT_LT(ids->size(), text.size());
  EXPECT_EQ(tokenizer->decode(*ids), text);
}

TEST(RealTokenizers, SmallRankFileOfUnknownKindRoundTripsWhatItHas) {
  SKIP_WITHOUT_SHARED();
  const auto tokenizer = TokenizerFolder().add_shared("test.tiktoken", "scalellm_test/test.tiktoken").load();
  const auto ids = tokenizer->encode("Hello, World!");
  ASSERT_TRUE(ids.ok());
  EXPECT_EQ(tokenizer->decode(*ids), "Hello, World!");
}

TEST(RealTokenizers, RandomTextRoundTripsThroughByteLevelFiles) {
  SKIP_WITHOUT_SHARED();
  const auto tokenizer = TokenizerFolder().add_shared("tokenizer.json", "smollm2/tokenizer.json.gz").load();
  Random random(5);
  for (int i = 0; i < 500; ++i) {
    const std::string text = random_text(random, 30);
    const auto ids = tokenizer->encode(text);
    ASSERT_TRUE(ids.ok());
    EXPECT_EQ(tokenizer->decode(*ids, {.skip_special_tokens = false}), text);
  }
}

TEST(RealTokenizers, BytesOfTokensSpellTheText) {
  SKIP_WITHOUT_SHARED();
  const auto tokenizer = TokenizerFolder().add_shared("qwen.tiktoken", "qwen/qwen.tiktoken.gz").load();
  const std::string text = " caf\u00e9 \U0001f600 \u4e2d\u56fd";
  std::string bytes;
  const std::vector<int32_t> ids = *tokenizer->encode(text);
  for (const int32_t id : ids) bytes += tokenizer->token_bytes(id);
  EXPECT_EQ(bytes, text);
}

}  // namespace
}  // namespace millrace
