#include "server/tokenizer_codec.h"

#include <gtest/gtest.h>

#include "base/file.h"

namespace millrace {
namespace {

// A byte-level vocabulary of four tokens with a chat template beside it.
std::shared_ptr<const Tokenizer> small_tokenizer(const TemporaryDirectory& folder) {
  EXPECT_TRUE(write_file(folder.file("tokenizer.json"), R"({"version":"1.0","truncation":null,"padding":null,
    "added_tokens":[{"id":3,"content":"<s>","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true}],
    "normalizer":null,"pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":true},
    "post_processor":null,"decoder":{"type":"ByteLevel","add_prefix_space":true,"trim_offsets":true,"use_regex":true},
    "model":{"type":"BPE","dropout":null,"unk_token":null,"continuing_subword_prefix":null,"end_of_word_suffix":null,
    "fuse_unk":false,"byte_fallback":false,"vocab":{"a":0,"b":1,"Ġ":2},"merges":[]}})")
                  .ok());
  EXPECT_TRUE(
      write_file(
          folder.file("tokenizer_config.json"),
          R"({"bos_token":"<s>","chat_template":"{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %})"
          R"({% if add_generation_prompt %} a{% endif %}{{ flag }}"})")
          .ok());
  auto tokenizer = Tokenizer::load(folder.path());
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status().message();
  return tokenizer.ok() ? *tokenizer : nullptr;
}

TEST(TokenizerCodec, TextAndIdsAreTheTokenizers) {
  const TemporaryDirectory folder;
  const auto tokenizer = small_tokenizer(folder);
  ASSERT_TRUE(tokenizer);
  const auto codec = TokenizerCodec::create(tokenizer);
  ASSERT_TRUE(codec.ok()) << codec.status().message();
  EXPECT_EQ(*(*codec)->encode("ab a", true), (std::vector<int32_t>{0, 1, 2, 0}));
  EXPECT_EQ((*codec)->decode(std::vector<int32_t>{3, 0, 2, 1}, true), "a b");
  EXPECT_EQ((*codec)->decode(std::vector<int32_t>{3, 0}, false), "<s>a");
  EXPECT_EQ((*codec)->token_bytes(2), " ");
}

TEST(TokenizerCodec, TheTemplateSeesTokensMessagesAndVariables) {
  const TemporaryDirectory folder;
  const auto tokenizer = small_tokenizer(folder);
  ASSERT_TRUE(tokenizer);
  ChatPrompt prompt;
  prompt.messages.push_back({{"role", "user"}, {"content", "b"}});
  prompt.variables["flag"] = "!";
  const auto own = TokenizerCodec::create(tokenizer);
  EXPECT_EQ(*(*own)->render_chat(prompt), "<s>b a!");
  const auto given = TokenizerCodec::create(tokenizer, "{{ messages[0].role }}");
  EXPECT_EQ(*(*given)->render_chat(prompt), "user");
  prompt.chat_template = "{{ documents is none }}";
  EXPECT_EQ(*(*given)->render_chat(prompt), "True");
}

TEST(TokenizerCodec, WhatATemplateRaisesIsTheRequestsFault) {
  const TemporaryDirectory folder;
  const auto tokenizer = small_tokenizer(folder);
  ASSERT_TRUE(tokenizer);
  const auto codec = TokenizerCodec::create(tokenizer, "{{ raise_exception('roles must alternate') }}");
  const Status status = (*codec)->render_chat({}).status();
  EXPECT_EQ(status.code(), Code::kInvalidArgument);
  EXPECT_EQ(status.message(), "roles must alternate");
  EXPECT_FALSE(TokenizerCodec::create(tokenizer, "{% for %}").ok());
}

}  // namespace
}  // namespace millrace
