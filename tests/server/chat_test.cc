// /v1/chat/completions: messages, templates, and the exact shape of answers and streams.
#include "tests/server/test_server.h"

namespace millrace {
namespace {

constexpr const char* kPath = "/v1/chat/completions";

// What the template made of the messages, from the ids the engine got.
std::string prompt_of(TestServer& s, std::string body) {
  s.post_json(kPath, std::move(body));
  const auto ids = s.engine->wait_for_requests(1).back().prompt_token_ids;
  return s.codec->decode(ids, false);
}

TEST(Chat, AWholeAnswerHasTheDocumentedShape) {
  TestServer s;
  const HttpResponse answer = s.post(kPath, R"({"model":"m","messages":[{"role":"user","content":"Hello"}]})");
  EXPECT_EQ(
      TestServer::anonymous(answer.body),
      R"({"id":"chatcmpl-ID","object":"chat.completion","created":0,"model":"m","choices":[{"index":0,)"
      R"("message":{"role":"assistant","content":"Hi all","tool_calls":[]},"logprobs":null,"finish_reason":"stop",)"
      R"("stop_reason":null}],"usage":{"prompt_tokens":23,"total_tokens":29,"completion_tokens":6},)"
      R"("prompt_logprobs":null})");
}

TEST(Chat, AStreamIsRoleThenContentThenFinishThenUsageThenDone) {
  TestServer s;
  const auto events = s.stream(
      kPath,
      R"({"messages":[{"role":"user","content":"Hello"}],"stream":true,"stream_options":{"include_usage":true}})");
  const std::string head =
      R"({"id":"chatcmpl-ID","object":"chat.completion.chunk","created":0,"model":"m","choices":[)";
  EXPECT_EQ(
      events,
      (std::vector<std::string>{
          head +
              R"({"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}],"usage":null})",
          head + R"({"index":0,"delta":{"content":"Hi"},"logprobs":null,"finish_reason":null}],"usage":null})",
          head +
              R"({"index":0,"delta":{"content":" all"},"logprobs":null,"finish_reason":"stop","stop_reason":null}],"usage":null})",
          head + R"(],"usage":{"prompt_tokens":23,"total_tokens":29,"completion_tokens":6}})", "[DONE]"}));
}

TEST(Chat, WithoutUsageChunksHaveNoUsageKey) {
  TestServer s;
  for (const std::string& event : s.stream(kPath, R"({"messages":[{"role":"user","content":"x"}],"stream":true})"))
    EXPECT_EQ(event.find("usage"), std::string::npos);
}

TEST(Chat, EveryChoiceHasOneRoleChunkAndOneFinishChunkAndUsageSumsThemAll) {
  TestServer s;
  const auto events = s.stream(
      kPath,
      R"({"messages":[{"role":"user","content":"x"}],"n":3,"stream":true,"stream_options":{"include_usage":true}})");
  std::map<int, int> roles, finishes;
  std::map<int, std::string> texts;
  for (size_t i = 0; i + 2 < events.size(); ++i) {
    const Json choice = Json::parse(events[i])["choices"][0];
    const int index = choice["index"];
    roles[index] += choice["delta"].contains("role");
    finishes[index] += !choice["finish_reason"].is_null();
    texts[index] += choice["delta"]["content"].get<std::string>();
    EXPECT_EQ(choice["delta"].contains("role"), i < 3) << "role chunks come first";
  }
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(roles[i], 1);
    EXPECT_EQ(finishes[i], 1);
    EXPECT_EQ(texts[i], "Hi all");
  }
  EXPECT_EQ(Json::parse(events[events.size() - 2])["usage"]["completion_tokens"], 18);
}

TEST(Chat, MaxTokensIsWhatThePromptLeavesAndMaxCompletionTokensWins) {
  TestServer s;
  const std::string messages = R"("messages":[{"role":"user","content":"x"}])";  // 19 tokens
  s.post_json(kPath, "{" + messages + "}");
  s.post_json(kPath, "{" + messages + R"(,"max_tokens":5})");
  s.post_json(kPath, "{" + messages + R"(,"max_tokens":5,"max_completion_tokens":7})");
  const auto requests = s.engine->wait_for_requests(3);
  EXPECT_EQ(requests[0].params.max_tokens, 81);
  EXPECT_EQ(requests[1].params.max_tokens, 5);
  EXPECT_EQ(requests[2].params.max_tokens, 7);
}

TEST(Chat, TextPartsAreJoinedByLineBreaks) {
  TestServer s;
  EXPECT_EQ(prompt_of(s, R"({"messages":[{"role":"system","content":"S"},
      {"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]}]})"),
            "<system>S\n<user>a\nb\n<assistant>");
}

TEST(Chat, KwargsDocumentsAndServerDefaultsReachTheTemplate) {
  ServerConfig config;
  config.default_chat_template_kwargs = {{"thinking", false}, {"level", 1}};
  TestServer s(speak({"x"}), config);
  EXPECT_EQ(prompt_of(s, R"({"messages":[{"role":"user","content":"a"}],"add_generation_prompt":false,
      "chat_template_kwargs":{"thinking":true},"documents":[{"t":1}]})"),
            "<user>a\nthinking=true\nlevel=1\ndocuments=[{\"t\":1}]\n");
}

TEST(Chat, ToolCallsInTheHistoryReachTheTemplateAsObjects) {
  struct Recorder : ByteCodec {
    Result<std::string> render_chat(const ChatPrompt& prompt) const override {
      seen = prompt.messages;
      return std::string("p");
    }
    mutable OrderedJson seen;
  };
  const auto codec = std::make_shared<Recorder>();
  ServerConfig config{.host = "127.0.0.1", .port = 0, .served_model_name = {"m"}};
  ApiServer server(config, std::make_shared<FakeEngine>(speak({"x"})), codec);
  ASSERT_TRUE(server.start().ok());
  HttpClient client;
  const auto answer = client.post_json("127.0.0.1", server.port(), kPath, R"({"messages":[{"role":"user","content":"a"},
      {"role":"assistant","content":null,"tool_calls":[{"id":"1","type":"function","function":{"name":"f","arguments":"{\"z\":1,\"a\":2}"}}]},
      {"role":"tool","content":"42","tool_call_id":"1","name":"f"}]})");
  ASSERT_EQ(answer->status, 200) << answer->body;
  EXPECT_TRUE(codec->seen[1]["content"].is_null());
  EXPECT_EQ(codec->seen[1]["tool_calls"][0]["function"]["arguments"]["a"], 2);
  EXPECT_EQ(codec->seen[2].dump(), R"({"role":"tool","content":"42","name":"f","tool_call_id":"1"})");
}

TEST(Chat, EchoRepeatsTheLastMessageOfTheAnswerersRole) {
  TestServer s(speak({" dog"}));
  const std::string body =
      R"({"messages":[{"role":"user","content":"x"},{"role":"assistant","content":"The"}],"echo":true)";
  EXPECT_EQ(s.post_json(kPath, body + "}")["choices"][0]["message"]["content"], "The dog");
  const auto events = s.stream(kPath, body + R"(,"stream":true})");
  ASSERT_EQ(events.size(), 4u);
  EXPECT_EQ(Json::parse(events[1])["choices"][0]["delta"]["content"], "The");
  EXPECT_EQ(Json::parse(events[2])["choices"][0]["delta"]["content"], " dog");
  EXPECT_EQ(
      s.post_json(kPath,
                  R"({"messages":[{"role":"user","content":"x"}],"echo":true})")["choices"][0]["message"]["content"],
      " dog");
}

TEST(Chat, ContinueFinalMessageEndsThePromptInsideTheLastMessage) {
  TestServer s(speak({"!"}));
  EXPECT_EQ(prompt_of(s, R"({"messages":[{"role":"user","content":"x"},{"role":"assistant","content":" The cat "}],
      "continue_final_message":true,"add_generation_prompt":false})"),
            "<user>x\n<assistant> The cat ");
  const Json answer =
      s.post_json(kPath, R"({"messages":[{"role":"robot","content":"Beep"}],"continue_final_message":true,
      "add_generation_prompt":false})");
  EXPECT_EQ(answer["choices"][0]["message"]["role"], "robot");
  EXPECT_EQ(answer["choices"][0]["message"]["content"], "Beep!");
}

TEST(Chat, ARequestsTemplateIsUsedOnlyWhereTrusted) {
  ServerConfig config;
  config.trust_request_chat_template = true;
  TestServer trusting(speak({"x"}), config);
  const std::string body = R"({"messages":[{"role":"user","content":"a"}],"chat_template":"T:"})";
  EXPECT_EQ(prompt_of(trusting, body), "T:<user>a\n<assistant>");
  TestServer s;
  EXPECT_EQ(s.post(kPath, body).status, 400);
}

TEST(Chat, TokenIdsAreReturnedWhereAskedFor) {
  TestServer s(speak({"ab", "c"}));
  const std::string body = R"({"messages":[{"role":"u","content":"x"}],"return_token_ids":true)";
  const Json answer = s.post_json(kPath, body + "}");
  EXPECT_EQ(answer["prompt_token_ids"].size(), 16u);
  EXPECT_EQ(answer["choices"][0]["token_ids"], Json::parse("[97,98,99]"));
  const auto events = s.stream(kPath, body + R"(,"stream":true})");
  EXPECT_EQ(Json::parse(events[0])["prompt_token_ids"].size(), 16u);
  EXPECT_EQ(Json::parse(events[1])["choices"][0]["token_ids"], Json::parse("[97,98]"));
}

}  // namespace
}  // namespace millrace
