// Text of ids, all at once and piece by piece.
#include "tokenizer/detokenizer.h"

#include "base/utf8.h"
#include "tests/tokenizer/fixtures.h"
#include "tokenizer/byte_level.h"

namespace millrace {
namespace {

std::shared_ptr<const Tokenizer> byte_tokenizer() {
  return TokenizerFolder()
      .add("tokenizer.json", byte_level_tokenizer_json())
      .add("tokenizer_config.json", byte_level_tokenizer_config())
      .load();
}

// A tokenizer.json without merges: `tokens` in order of their ids, then special tokens.
std::shared_ptr<const Tokenizer> word_tokenizer(const std::vector<std::string>& tokens, const Json& decoder,
                                                const std::vector<std::string>& special = {}) {
  Json vocab = Json::object(), added = Json::array();
  for (const std::string& token : tokens) vocab[token] = vocab.size();
  for (const std::string& token : special)
    added.push_back({{"id", tokens.size() + added.size()}, {"content", token}, {"special", true}});
  const Json json = {{"model", {{"type", "WordLevel"}, {"vocab", vocab}, {"unk_token", tokens[0]}}},
                     {"added_tokens", added},
                     {"decoder", decoder}};
  return TokenizerFolder().add("tokenizer.json", dump_json(json)).load();
}

void expect_pieces_make_the_whole(std::shared_ptr<const Tokenizer> tokenizer, uint64_t seed) {
  Random random(seed);
  for (int round = 0; round < 200; ++round) {
    std::vector<int32_t> ids;
    for (uint32_t n = random.below(40); n > 0; --n)
      ids.push_back(static_cast<int32_t>(random.below(static_cast<uint32_t>(tokenizer->vocab_size()))));
    const DecodeOptions options = {.skip_special_tokens = round % 2 == 0};
    IncrementalDetokenizer detokenizer(tokenizer, options);
    std::string all;
    for (const int32_t id : ids) {
      const std::string piece = detokenizer.append(id);
      EXPECT_TRUE(is_valid_utf8(piece));
      all += piece;
    }
    all += detokenizer.finish();
    ASSERT_EQ(all, tokenizer->decode(ids, options));
  }
}

TEST(Detokenizer, PiecesMakeTheWholeForRandomIds) {
  expect_pieces_make_the_whole(byte_tokenizer(), 1);
  const Json strip = {{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 1}};
  const Json fuse = {{"type", "Fuse"}}, bytes = {{"type", "ByteFallback"}};
  const Json replace = {{"type", "Replace"}, {"pattern", {{"String", "ab"}}}, {"content", "_"}};
  const std::vector<std::string> tokens = {"a",      "b",   " a",   "ab ",     "<0xE4>", "<0xB8>",
                                           "<0xAD>", "##x", "</w>", "\u2581y", "|"};
  const Json sequences = {{fuse, strip}, {replace, bytes, fuse}, {fuse, replace}, {bytes, strip}, {fuse, bytes}};
  for (const Json& list : sequences)
    expect_pieces_make_the_whole(word_tokenizer(tokens, {{"type", "Sequence"}, {"decoders", list}}, {"<s>"}), 2);
  for (const char* type : {"WordPiece", "BPEDecoder", "CTC", "Metaspace", "ByteLevel"})
    expect_pieces_make_the_whole(word_tokenizer(tokens, {{"type", type}}, {"<s>", "</s>"}), 3);
  expect_pieces_make_the_whole(word_tokenizer(tokens, nullptr, {"<s>"}), 4);
}

TEST(Detokenizer, PiecesMakeTheWholeForPublishedTokenizers) {
  SKIP_WITHOUT_SHARED();
  for (const char* name : {"mistral", "smollm2", "t5_style"})
    expect_pieces_make_the_whole(
        TokenizerFolder().add_shared("tokenizer.json", std::string(name) + "/tokenizer.json.gz").load(), 5);
  expect_pieces_make_the_whole(TokenizerFolder().add_shared("tokenizer.model", "llama2/tokenizer.model").load(), 6);
}

TEST(Detokenizer, ACharacterAppearsWithItsLastByte) {
  const auto tokenizer = byte_tokenizer();
  IncrementalDetokenizer detokenizer(tokenizer);
  const std::vector<int32_t> ids = *tokenizer->encode("\U0001f600!");
  ASSERT_EQ(ids.size(), 5u);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(detokenizer.append(ids[static_cast<size_t>(i)]), "");
  EXPECT_EQ(detokenizer.append(ids[3]), "\U0001f600");
  EXPECT_EQ(detokenizer.append(ids[4]), "!");
}

TEST(Detokenizer, BrokenCharactersBecomeReplacementCharacters) {
  const auto tokenizer = byte_tokenizer();
  EXPECT_EQ(tokenizer->decode(std::vector<int32_t>{0xf0, 0x9f, 'a'}), "\ufffda");
  EXPECT_EQ(tokenizer->decode(std::vector<int32_t>{0xf0, 0x9f}), "\ufffd");
  EXPECT_EQ(tokenizer->decode(std::vector<int32_t>{0xff, 0xff}), "\ufffd\ufffd");
}

TEST(Detokenizer, ByteFallbackShowsWholeCharactersBeforeTheRunEnds) {
  const Json decoder = {{"type", "ByteFallback"}};
  const auto tokenizer = word_tokenizer({"a", "<0xE4>", "<0xB8>", "<0xAD>"}, decoder);
  IncrementalDetokenizer detokenizer(tokenizer);
  EXPECT_EQ(detokenizer.append(std::vector<int32_t>{1, 2}), "");
  EXPECT_EQ(detokenizer.append(3), "\u4e2d");
  EXPECT_EQ(detokenizer.append(std::vector<int32_t>{1, 0}), "\ufffda");
}

TEST(Detokenizer, ThePromptDecidesAboutTheFirstSpace) {
  SKIP_WITHOUT_SHARED();
  const auto tokenizer = TokenizerFolder().add_shared("tokenizer.model", "llama2/tokenizer.model").load();
  const int32_t hello = *tokenizer->token_id("\u2581Hello");
  const std::vector<int32_t> prompt = *tokenizer->encode("Well,");
  EXPECT_EQ(IncrementalDetokenizer(tokenizer).append(hello), "Hello");
  EXPECT_EQ(IncrementalDetokenizer(tokenizer, {}, prompt).append(hello), " Hello");
}

TEST(Detokenizer, SpecialTokensAreSkippedOrKept) {
  const auto tokenizer = byte_tokenizer();
  const std::vector<int32_t> ids = *tokenizer->encode("a<|im_end|>b");
  EXPECT_EQ(ids.size(), 3u);
  EXPECT_EQ(tokenizer->decode(ids), "ab");
  EXPECT_EQ(tokenizer->decode(ids, {.skip_special_tokens = false}), "a<|im_end|>b");
}

TEST(Detokenizer, SpacesBetweenSpecialTokensCanBeLeftOut) {
  const auto tokenizer = word_tokenizer({"word"}, nullptr, {"<s>", "</s>"});
  const std::vector<int32_t> ids = {0, 1, 2, 0};
  EXPECT_EQ(tokenizer->decode(ids, {.skip_special_tokens = false}), "word <s> </s> word");
  EXPECT_EQ(tokenizer->decode(ids, {.skip_special_tokens = false, .spaces_between_special_tokens = false}),
            "word <s></s> word");
}

TEST(Detokenizer, SpacesAreCleanedUpOnlyIfAskedFor) {
  const auto tokenizer = word_tokenizer({"Hi", "!", "n't"}, nullptr);
  const std::vector<int32_t> ids = {0, 1, 0, 2};
  EXPECT_EQ(tokenizer->decode(ids), "Hi ! Hi n't");
  EXPECT_EQ(tokenizer->decode(ids, {.clean_up_tokenization_spaces = true}), "Hi! Hin't");
}

TEST(Detokenizer, IdsThatAreNoTokenAreNothing) {
  const auto tokenizer = byte_tokenizer();
  EXPECT_EQ(tokenizer->decode(std::vector<int32_t>{'a', -1, 100000, INT32_MAX, INT32_MIN, 'b'}), "ab");
  EXPECT_EQ(tokenizer->token_text(-5), "");
  EXPECT_FALSE(tokenizer->is_special(1 << 30));
}

}  // namespace
}  // namespace millrace
