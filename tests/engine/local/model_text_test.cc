// Families' text facts joined with tokenizers: classes, chat formats, ends of answers.
#include "engine/local/model_text.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <set>

#include "models/families/families.h"
#include "tests/tokenizer/fixtures.h"
#include "tokenizer/byte_level.h"
#include "tokenizer/jinja/template.h"

namespace millrace {
namespace {

using Ids = std::vector<int32_t>;

const Family& family(const char* name) {
  const Family* found = find_family(name);
  if (!found) throw std::runtime_error(std::string("no family ") + name);
  return *found;
}

std::shared_ptr<const Tokenizer> load(const TokenizerFolder& folder, const char* name) {
  auto tokenizer = load_tokenizer(folder.path(), family(name));
  if (!tokenizer.ok()) throw std::runtime_error(tokenizer.status().message());
  return *tokenizer;
}

std::string format_name(const TokenizerFolder& folder, const char* name) {
  const FamilyChatFormat* format = family_chat_format(family(name), *load(folder, name));
  return format ? format->name : "none";
}

// Ids of a conversation of one message in the family's format.
Ids chat_ids(const TokenizerFolder& folder, const char* name, const char* text) {
  const auto tokenizer = load(folder, name);
  const FamilyChatFormat* format = family_chat_format(family(name), *tokenizer);
  if (!format) return {};
  const OrderedJson messages = OrderedJson::array({{{"role", "user"}, {"content", text}}});
  const auto prompt = ChatTemplate::parse(format->chat_template)
                          ->render({{"messages", messages}, {"add_generation_prompt", true}, {"tools", nullptr}});
  EXPECT_TRUE(prompt.ok()) << prompt.status().message();
  return *tokenizer->encode(*prompt, {.add_special_tokens = false});
}

// Control pieces 0 to 2, then `more`, then single characters.
std::string pieces(const std::vector<std::string>& more) {
  std::vector<ModelPiece> all = {{"<unk>", 0, 2}, {"<s>", 0, 3}, {"</s>", 0, 3}};
  for (const std::string& text : more) all.push_back({text, -1});
  for (const char* text : {"\u2581", "h", "i", "\n"}) all.push_back({text, -2});
  return sentencepiece_model(all, 2);
}
constexpr int32_t kSpace = 3, kH = 4, kI = 5, kLine = 6;  // of pieces({})

// Tokens of the byte-level tokenizer besides the bytes, from 256 on.
std::string byte_level(std::vector<std::string> special) {
  return byte_level_tokenizer_json({.special_tokens = std::move(special)});
}

TEST(ModelText, ChatGlmTakesTheFormatOfItsGeneration) {
  TokenizerFolder third;
  third.add("tokenizer.model", pieces({}));
  EXPECT_EQ(format_name(third, "chatglm"), "ChatGLM3's");
  // [MASK] is 7; [gMASK] sop <|user|> \n hi <|assistant|>
  EXPECT_EQ(chat_ids(third, "chatglm", "hi"), (Ids{8, 10, 13, kSpace, kLine, kSpace, kH, kI, 14}));
  TokenizerFolder second;
  second.add("tokenizer.model", pieces({})).add("config.json", R"({"_name_or_path": "THUDM/chatglm2-6b"})");
  EXPECT_EQ(format_name(second, "chatglm"), "ChatGLM2's");
  TokenizerFolder fourth;
  fourth.add("tokenizer.model", "aA== 0\naQ== 1\nCg== 2\n");
  EXPECT_EQ(format_name(fourth, "chatglm"), "GLM-4's");
  // <|endoftext|> is 3; [gMASK] <sop> <|user|> \n hi <|assistant|>
  EXPECT_EQ(chat_ids(fourth, "chatglm", "hi"), (Ids{5, 7, 10, 2, 0, 1, 11}));
}

TEST(ModelText, BaichuanMarksTurnsWithReservedPieces) {
  TokenizerFolder folder;
  folder.add("tokenizer.model", pieces({"<reserved_106>", "<reserved_107>"}));
  for (const char* name : {"baichuan", "baichuan_13b"})
    EXPECT_EQ(chat_ids(folder, name, "hi"), (Ids{3, 5, 6, 7, 4})) << name;
}

TEST(ModelText, TheTokenizersTokensChooseAmongAFamilysFormats) {
  const std::pair<std::vector<std::string>, const char*> cases[] = {
      {{"<|im_start|>", "<|im_end|>"}, "ChatML"},
      {{"<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"}, "Llama 3's"},
      {{"<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"}, "DeepSeek's"},
      {{"<s>", "</s>"}, "Llama 2's"},
      {{"<other>"}, "none"}};
  for (const auto& [special, expected] : cases) {
    TokenizerFolder folder;
    folder.add("tokenizer.json", byte_level(special));
    EXPECT_EQ(format_name(folder, "llama"), expected);
    for (const char* name : {"falcon", "gpt2"}) EXPECT_EQ(format_name(folder, name), "none") << name;
  }
}

TEST(ModelText, EveryFamilyThatChatsHasAFormat) {
  const std::set<std::string> silent = {"falcon", "falcon2", "gpt2"};
  for (const Family* f : all_families())
    EXPECT_EQ(f->text.chat_formats.empty(), silent.contains(f->name.substr(0, f->name.find('_')))) << f->name;
}

TEST(ModelText, ACheckpointsOwnTemplateLeavesNoneToTheFamily) {
  TokenizerFolder folder;
  folder.add("tokenizer.json", byte_level_tokenizer_json());
  EXPECT_EQ(format_name(folder, "qwen2"), "ChatML");
  folder.add("tokenizer_config.json", byte_level_tokenizer_config());
  EXPECT_EQ(format_name(folder, "qwen2"), "none");
}

TEST(ModelText, StopsAreTheFormatsOrWithoutGenerationConfigTheFamilys) {
  TokenizerFolder folder;
  folder.add("tokenizer.json", byte_level_tokenizer_json());  // <|endoftext|> 256, <|im_end|> 258
  const Family& qwen = family("qwen");
  const auto tokenizer = load(folder, "qwen");
  const FamilyChatFormat* format = family_chat_format(qwen, *tokenizer);
  ASSERT_TRUE(format);
  EXPECT_EQ(family_stop_ids(qwen, *tokenizer, nullptr, true), Ids());
  EXPECT_EQ(family_stop_ids(qwen, *tokenizer, nullptr, false), (Ids{258, 256}));
  EXPECT_EQ(family_stop_ids(qwen, *tokenizer, format, true), Ids{258});
  EXPECT_EQ(family_stop_ids(qwen, *tokenizer, format, false), (Ids{258, 256}));
}

TEST(ModelText, PublishedVocabulariesGiveThePublishedPrompts) {
  SKIP_WITHOUT_SHARED();
  TokenizerFolder qwen;
  qwen.add_shared("qwen.tiktoken", "qwen/qwen.tiktoken.gz");
  EXPECT_EQ(chat_ids(qwen, "qwen", "hi"),
            (Ids{151644, 8948, 198, 2610, 525,    264, 10950,  17847, 13, 151645, 198,  // system
                 151644, 872,  198, 6023, 151645, 198, 151644, 77091, 198}));           // user, assistant
  TokenizerFolder llama;
  llama.add_shared("tokenizer.model", "llama2/tokenizer.model");
  EXPECT_EQ(chat_ids(llama, "llama", "hi"), (Ids{1, 518, 25580, 29962, 7251, 518, 29914, 25580, 29962}));
  TokenizerFolder mistral;
  mistral.add_shared("tokenizer.model", "mistral/tokenizer.model.v1");
  EXPECT_EQ(chat_ids(mistral, "mistral", "hi"), (Ids{1, 733, 16289, 28793, 12014, 733, 28748, 16289, 28793}));
}

}  // namespace
}  // namespace millrace
