// Each chat format against conversations written out by hand from the models' published descriptions.
#include "models/families/chat_formats.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <set>

#include "base/file.h"
#include "models/families/families.h"
#include "tokenizer/jinja/template.h"

namespace millrace {
namespace {

OrderedJson message(const char* role, const char* content) { return {{"role", role}, {"content", content}}; }
OrderedJson two_rounds() { return {message("user", "Q1"), message("assistant", "A1"), message("user", " Q2 ")}; }
OrderedJson with_system() {
  OrderedJson messages = two_rounds();
  messages.insert(messages.begin(), message("system", "S"));
  return messages;
}

Result<std::string> render(const FamilyChatFormat& format, const OrderedJson& messages, bool prompt = true,
                           const OrderedJson& tools = nullptr) {
  const auto parsed = ChatTemplate::parse(format.chat_template);
  EXPECT_TRUE(parsed.ok()) << parsed.status().message();
  return parsed->render({{"messages", messages},
                         {"add_generation_prompt", prompt},
                         {"tools", tools},
                         {"documents", nullptr},
                         {"eos_token", "<|endoftext|>"}});
}

void expect_text(const FamilyChatFormat& format, const OrderedJson& messages, const std::string& expected,
                 bool prompt = true) {
  const auto text = render(format, messages, prompt);
  ASSERT_TRUE(text.ok()) << format.name << ": " << text.status().message();
  EXPECT_EQ(*text, expected) << format.name;
}

std::string error_of(const FamilyChatFormat& format, const OrderedJson& messages, const OrderedJson& tools = nullptr) {
  const auto text = render(format, messages, true, tools);
  EXPECT_FALSE(text.ok()) << format.name << " gives " << *text;
  return text.ok() ? "" : text.status().message();
}

std::vector<FamilyChatFormat> all_formats() {
  std::vector<FamilyChatFormat> all = {chat_ml(),       chat_ml("D"),     llama2_chat(),   llama3_chat(),
                                       deepseek_chat(), gemma_chat(),     chatglm2_chat(), chatglm3_chat(),
                                       glm4_chat(),     baichuan2_chat(), phi3_chat(),     deepseek_v3_chat()};
  for (const auto& more : {mistral_chats(), internlm2_chats()}) all.insert(all.end(), more.begin(), more.end());
  return all;
}

TEST(ChatFormats, ChatMl) {
  const std::string turns =
      "<|im_start|>user\nQ1<|im_end|>\n<|im_start|>assistant\nA1<|im_end|>\n<|im_start|>user\n Q2 <|im_end|>\n";
  const std::string system = "<|im_start|>system\nS<|im_end|>\n", answer = "<|im_start|>assistant\n";
  expect_text(chat_ml(), two_rounds(), turns + answer);
  expect_text(chat_ml(), two_rounds(), turns, false);
  expect_text(chat_ml("You are here."), two_rounds(), "<|im_start|>system\nYou are here.<|im_end|>\n" + turns + answer);
  expect_text(chat_ml("You are here."), with_system(), system + turns + answer);
  expect_text(internlm2_chats()[0], with_system(), "<s>" + system + turns + answer);
  expect_text(internlm2_chats()[1], OrderedJson::array({message("user", "Q1")}),
              "<s>[UNUSED_TOKEN_146]user\nQ1[UNUSED_TOKEN_145]\n[UNUSED_TOKEN_146]assistant\n");
}

TEST(ChatFormats, Llama) {
  expect_text(llama2_chat(), two_rounds(), "<s>[INST] Q1 [/INST] A1 </s><s>[INST] Q2 [/INST]");
  expect_text(llama2_chat(), with_system(), "<s>[INST] <<SYS>>\nS\n<</SYS>>\n\nQ1 [/INST] A1 </s><s>[INST] Q2 [/INST]");
  expect_text(llama3_chat(), with_system(),
              "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nS<|eot_id|>"
              "<|start_header_id|>user<|end_header_id|>\n\nQ1<|eot_id|>"
              "<|start_header_id|>assistant<|end_header_id|>\n\nA1<|eot_id|>"
              "<|start_header_id|>user<|end_header_id|>\n\nQ2<|eot_id|>"
              "<|start_header_id|>assistant<|end_header_id|>\n\n");
}

TEST(ChatFormats, Mistral) {
  const std::vector<FamilyChatFormat> formats = mistral_chats();
  expect_text(formats[0], two_rounds(), "<s>[INST]Q1[/INST]A1</s>[INST] Q2 [/INST]");
  expect_text(formats[0], with_system(), "<s>[INST]Q1[/INST]A1</s>[INST]S\n\n Q2 [/INST]");
  expect_text(formats[1], with_system(), "<s>[INST] Q1[/INST] A1</s>[INST] S\n\n Q2 [/INST]");
  expect_text(formats[2], with_system(), "<s>[INST] S\n\nQ1 [/INST] A1</s>[INST]  Q2  [/INST]");
}

TEST(ChatFormats, DeepSeek) {
  expect_text(deepseek_chat(), with_system(),
              "<｜begin▁of▁sentence｜>S\n\nUser: Q1\n\nAssistant: A1<｜end▁of▁sentence｜>User:  Q2 \n\nAssistant:");
  expect_text(
      deepseek_v3_chat(), with_system(),
      "<｜begin▁of▁sentence｜>S<｜User｜>Q1<｜Assistant｜>A1<｜end▁of▁sentence｜><｜User｜> Q2 <｜Assistant｜>");
}

TEST(ChatFormats, Gemma) {
  expect_text(gemma_chat(), two_rounds(),
              "<bos><start_of_turn>user\nQ1<end_of_turn>\n<start_of_turn>model\nA1<end_of_turn>\n"
              "<start_of_turn>user\nQ2<end_of_turn>\n<start_of_turn>model\n");
  EXPECT_EQ(error_of(gemma_chat(), with_system()), "System role not supported");
}

TEST(ChatFormats, ChatGlm) {
  expect_text(chatglm2_chat(), two_rounds(),
              "[gMASK]sop[Round 1]\n\n问：Q1\n\n答：A1\n\n[Round 2]\n\n问： Q2 \n\n答：");
  expect_text(chatglm3_chat(), with_system(),
              "[gMASK]sop<|system|>\n S<|user|>\n Q1<|assistant|>\n A1<|user|>\n  Q2 <|assistant|>");
  expect_text(glm4_chat(), with_system(),
              "[gMASK]<sop><|system|>\nS<|user|>\nQ1<|assistant|>\nA1<|user|>\n Q2 <|assistant|>");
}

TEST(ChatFormats, Baichuan2) {
  expect_text(baichuan2_chat(), with_system(), "S<reserved_106>Q1<reserved_107>A1<reserved_106> Q2 <reserved_107>");
}

TEST(ChatFormats, Phi3IsThePublishedTemplate) {
  expect_text(phi3_chat(), with_system(),
              "<|system|>\nS<|end|>\n<|user|>\nQ1<|end|>\n<|assistant|>\nA1<|end|>\n<|user|>\n Q2 <|end|>\n"
              "<|assistant|>\n");
  const auto published =
      read_file(MILLRACE_SOURCE_DIR "/../shared/data/chat_templates/microsoft-Phi-3.5-mini-instruct.jinja");
  if (!published.ok()) GTEST_SKIP() << "../shared/data/chat_templates is not there";
  const FamilyChatFormat theirs = {.name = "published", .chat_template = *published};
  for (const bool prompt : {true, false})
    for (const OrderedJson& messages : {two_rounds(), with_system()})
      EXPECT_EQ(*render(phi3_chat(), messages, prompt), *render(theirs, messages, prompt));
}

TEST(ChatFormats, TurnsOutOfOrderAreRefused) {
  std::vector<FamilyChatFormat> strict = mistral_chats();
  strict.push_back(llama2_chat());
  strict.push_back(gemma_chat());
  for (const FamilyChatFormat& format : strict) {
    EXPECT_EQ(error_of(format, OrderedJson::array({message("assistant", "A")})),
              "this chat format wants a message of user here, not of assistant");
    EXPECT_EQ(error_of(format, {message("user", "Q"), message("user", "Q")}),
              "this chat format wants a message of assistant here, not of user");
  }
}

TEST(ChatFormats, UnknownRolesAndToolsAreRefused) {
  for (const FamilyChatFormat& format : all_formats()) {
    EXPECT_NE(error_of(format, {message("user", "Q"), message("narrator", "N")}).find("narrator"), std::string::npos)
        << format.name;
    EXPECT_NE(error_of(format, two_rounds(), OrderedJson::array({{{"type", "function"}}})).find("--chat-template"),
              std::string::npos);
  }
}

TEST(ChatFormats, MissingContentIsNoText) {
  for (const FamilyChatFormat& format : all_formats()) {
    const OrderedJson empty = {message("user", "Q"), message("assistant", ""), message("user", "R")};
    OrderedJson missing = empty;
    missing[1]["content"] = nullptr;
    EXPECT_EQ(*render(format, missing), *render(format, empty)) << format.name;
  }
}

TEST(ChatFormats, AFamilysFormatsDifferInWhatTheyNeedAndStopAtAToken) {
  for (const Family* family : all_families()) {
    std::set<std::vector<std::string>> seen;
    for (const FamilyChatFormat& format : family->text.chat_formats) {
      EXPECT_FALSE(format.needs.empty() || format.stop.empty() || format.name.empty()) << family->name;
      EXPECT_TRUE(seen.insert(format.needs).second) << family->name << ": " << format.name << " can never be chosen";
    }
  }
}

}  // namespace
}  // namespace millrace
