#include "engine/text_decoder.h"

#include <gtest/gtest.h>

#include <fstream>

#include "base/file.h"
#include "tokenizer/tokenizer.h"

namespace millrace {
namespace {

// Byte-level tokens: "a", " b", the two bytes of "é", and a special one.
constexpr const char* kTokenizer = R"({
  "version": "1.0", "normalizer": null, "post_processor": null,
  "added_tokens": [{"id": 4, "content": "<s>", "special": true, "normalized": false,
                    "single_word": false, "lstrip": false, "rstrip": false}],
  "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "use_regex": false},
  "decoder": {"type": "ByteLevel"},
  "model": {"type": "BPE", "vocab": {"a": 0, "\u0120b": 1, "\u00c3": 2, "\u00a9": 3, "<s>": 4}, "merges": []}
})";

class TokenizerTextDecoder : public testing::Test {
 protected:
  void SetUp() override {
    std::ofstream(folder_.file("tokenizer.json")) << kTokenizer;
    auto tokenizer = Tokenizer::load(folder_.file("tokenizer.json"));
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status().to_string();
    make_ = text_decoders(*tokenizer);
  }

  TemporaryDirectory folder_;
  TextDecoderFactory make_;
};

TEST_F(TokenizerTextDecoder, WholeCharactersComeOnlyWhenTheyAreWhole) {
  const auto decoder = make_({.prompt_token_ids = {0}});
  EXPECT_EQ(decoder->append(0), "a");
  EXPECT_EQ(decoder->append(2), "");
  EXPECT_EQ(decoder->append(3), "\u00e9");
  EXPECT_EQ(decoder->append(1), " b");
  EXPECT_EQ(decoder->append(2), "");
  EXPECT_EQ(decoder->flush(), "\uFFFD");
}

TEST_F(TokenizerTextDecoder, SpecialTokensAreShownOnRequest) {
  GenerationRequest request{.prompt_token_ids = {0}};
  EXPECT_EQ(make_(request)->append(4), "");
  request.params.skip_special_tokens = false;
  const auto decoder = make_(request);
  EXPECT_EQ(decoder->append(4) + decoder->flush(), "<s>");
}

}  // namespace
}  // namespace millrace
