// Our reader of sentencepiece models against the library of that name.
#include <sentencepiece_processor.h>

#include "tests/tokenizer/fixtures.h"

namespace millrace {
namespace {

class SentencePiece : public testing::TestWithParam<const char*> {};

TEST_P(SentencePiece, RandomTextGetsTheLibrarysIds) {
  SKIP_WITHOUT_SHARED();
  const std::string model = read_shared(GetParam());
  sentencepiece::SentencePieceProcessor library;
  ASSERT_TRUE(library.LoadFromSerializedProto(model).ok());
  const auto tokenizer = TokenizerFolder().add("tokenizer.model", model).load();
  Random random(17);
  for (int i = 0; i < 1500; ++i) {
    const std::string text = random_text(random, 40);
    std::vector<int> expected;
    ASSERT_TRUE(library.Encode(text, &expected).ok());
    const auto ids = tokenizer->encode(text, {.add_special_tokens = false, .parse_special = false});
    ASSERT_TRUE(ids.ok());
    ASSERT_EQ(*ids, expected) << dump_json(Json(text));
  }
}

TEST_P(SentencePiece, LongTextGetsTheLibrarysIds) {
  SKIP_WITHOUT_SHARED();
  const std::string model = read_shared(GetParam());
  sentencepiece::SentencePieceProcessor library;
  ASSERT_TRUE(library.LoadFromSerializedProto(model).ok());
  const auto tokenizer = TokenizerFolder().add("tokenizer.model", model).load();
  Random random(18);
  std::string text;
  while (text.size() < 40000) text += random_text(random, 40);
  std::vector<int> expected;
  ASSERT_TRUE(library.Encode(text, &expected).ok());
  EXPECT_EQ(*tokenizer->encode(text, {.add_special_tokens = false, .parse_special = false}), expected);
}

TEST_P(SentencePiece, EveryPieceKeepsItsIdAndText) {
  SKIP_WITHOUT_SHARED();
  const std::string model = read_shared(GetParam());
  sentencepiece::SentencePieceProcessor library;
  ASSERT_TRUE(library.LoadFromSerializedProto(model).ok());
  const auto tokenizer = TokenizerFolder().add("tokenizer.model", model).load();
  ASSERT_EQ(tokenizer->vocab_size(), library.GetPieceSize());
  for (int id = 0; id < library.GetPieceSize(); ++id) {
    EXPECT_EQ(tokenizer->token_text(id), library.IdToPiece(id));
    EXPECT_EQ(tokenizer->token_id(library.IdToPiece(id)), id);
  }
}

INSTANTIATE_TEST_SUITE_P(Models, SentencePiece,
                         testing::Values("llama2/tokenizer.model", "openllama/tokenizer.model",
                                         "mistral/tokenizer.model.v1",
                                         "mistral/mistral_instruct_tokenizer_240323.model.v3",
                                         "t5_style/spiece.model"));

TEST(SentencePieceFolder, ControlPiecesAreParsedOnlyIfAskedFor) {
  SKIP_WITHOUT_SHARED();
  const auto tokenizer = TokenizerFolder().add_shared("tokenizer.model", "llama2/tokenizer.model").load();
  const EncodeOptions parse = {.add_special_tokens = false, .parse_special = true};
  const EncodeOptions plain = {.add_special_tokens = false, .parse_special = false};
  EXPECT_EQ(*tokenizer->encode("</s>", parse), (std::vector<int32_t>{2}));
  EXPECT_NE(*tokenizer->encode("</s>", plain), (std::vector<int32_t>{2}));
}

TEST(SentencePieceFolder, LegacyDecidesWhetherASpaceFollowsASpecialToken) {
  SKIP_WITHOUT_SHARED();
  const EncodeOptions plain = {.add_special_tokens = false};
  TokenizerFolder folder;
  folder.add_shared("tokenizer.model", "llama2/tokenizer.model");
  const auto old_way = folder.load();
  folder.add("tokenizer_config.json", R"({"tokenizer_class": "LlamaTokenizer", "legacy": false})");
  const auto new_way = folder.load();
  const int32_t spaced = *old_way->token_id("\u2581Hello"), bare = *old_way->token_id("Hello");
  EXPECT_EQ(*old_way->encode("<s>Hello", plain), (std::vector<int32_t>{1, spaced}));
  EXPECT_EQ(*new_way->encode("<s>Hello", plain), (std::vector<int32_t>{1, bare}));
  EXPECT_EQ(*new_way->encode("Hello", plain), (std::vector<int32_t>{spaced}));
}

TEST(SentencePieceFolder, T5EndsInEosAndLlamaStartsWithBos) {
  SKIP_WITHOUT_SHARED();
  const auto t5 = TokenizerFolder().add_shared("spiece.model", "t5_style/spiece.model").load();
  EXPECT_EQ(t5->encode("law")->back(), t5->eos_id());
  const auto json = TokenizerFolder().add_shared("tokenizer.json", "t5_style/tokenizer.json.gz").load();
  EXPECT_EQ(*t5->encode("Article 3 of the law"), *json->encode("Article 3 of the law"));
}

}  // namespace
}  // namespace millrace
