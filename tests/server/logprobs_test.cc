// Log-probabilities, echo and prompt log-probabilities.
#include <cmath>

#include "server/logprob_format.h"
#include "tests/server/test_server.h"

namespace millrace {
namespace {

constexpr const char* kPath = "/v1/completions";

TEST(Logprobs, TheChosenTokensValueEqualsTheBestOneExactly) {
  const float odd = -0.1f * 3.3333333f;
  TestServer s([&](const GenerationRequest& r) {
    RequestOutput output{.sequences = {say(r, 0, "A", FinishReason::kStop)}, .finished = true};
    output.sequences[0].logprobs = {{.chosen = {'A', odd, 1}, .top = {{'A', odd, 1}, {'B', -2.5f, 2}}}};
    return std::vector{output};
  });
  const Json logprobs = s.post_json(kPath, R"({"prompt":"x","logprobs":2})")["choices"][0]["logprobs"];
  EXPECT_EQ(logprobs["token_logprobs"][0].get<double>(), logprobs["top_logprobs"][0]["A"].get<double>());
  EXPECT_EQ(static_cast<float>(logprobs["token_logprobs"][0].get<double>()), odd);
}

TEST(Logprobs, OutputHasOneEntryPerTokenWithOffsetsInCharacters) {
  TestServer s(speak({"a", "bc"}));
  const std::string body = R"({"prompt":"x","logprobs":2})";
  const Json logprobs = s.post_json(kPath, body)["choices"][0]["logprobs"];
  EXPECT_EQ(logprobs["tokens"], Json::parse(R"(["a","b","c"])"));
  EXPECT_EQ(logprobs["text_offset"], Json::parse("[0,1,2]"));
  EXPECT_EQ(logprobs["token_logprobs"], Json::parse("[-0.25,-0.25,-0.25]"));
  EXPECT_EQ(logprobs["top_logprobs"][0], Json::parse(R"({"a":-0.25,"b":-0.75})"));
  const auto events = s.stream(kPath, R"({"prompt":"x","logprobs":2,"stream":true})");
  EXPECT_EQ(Json::parse(events[1])["choices"][0]["logprobs"]["text_offset"], Json::parse("[1,2]"));
}

TEST(Logprobs, EchoPutsThePromptFirstWithNullForItsFirstToken) {
  TestServer s(speak({"cd"}));
  const Json choice = s.post_json(kPath, R"({"prompt":"ab","logprobs":1,"echo":true,"max_tokens":1})")["choices"][0];
  EXPECT_EQ(choice["text"], "abc");
  EXPECT_EQ(choice["logprobs"]["tokens"], Json::parse(R"(["<s>","a","b","c"])"));
  EXPECT_EQ(choice["logprobs"]["token_logprobs"], Json::parse("[null,-0.25,-0.25,-0.25]"));
  EXPECT_EQ(choice["logprobs"]["top_logprobs"], Json::parse(R"([null,{"a":-0.25},{"b":-0.25},{"c":-0.25}])"));
  EXPECT_EQ(choice["logprobs"]["text_offset"], Json::parse("[0,3,4,5]"));
  EXPECT_EQ(choice["finish_reason"], "length");
  EXPECT_EQ(s.engine->wait_for_requests(1)[0].params.prompt_logprobs, 1);
}

TEST(Logprobs, EchoWithNoNewTokensIsThePromptAlone) {
  const auto prompt_only = [](const GenerationRequest& r) {
    EXPECT_EQ(r.params.max_tokens, 0);
    return std::vector<RequestOutput>{{.sequences = {{.finish_reason = FinishReason::kLength}},
                                       .prompt_logprobs = prompt_logprobs_of(r),
                                       .finished = true}};
  };
  TestServer s(prompt_only);
  const Json answer = s.post_json(kPath, R"({"prompt":[97,98],"logprobs":5,"echo":true,"max_tokens":0})");
  const Json& choice = answer["choices"][0];
  EXPECT_EQ(choice["text"], "ab") << "decoded from ids";
  EXPECT_EQ(choice["logprobs"]["tokens"], Json::parse(R"(["a","b"])"));
  EXPECT_EQ(choice["logprobs"]["top_logprobs"][1].size(), 5u);
  EXPECT_EQ(answer["usage"]["completion_tokens"], 0);
  EXPECT_EQ(s.post_json(kPath, R"({"prompt":"ab","echo":true,"max_tokens":0})")["choices"][0]["text"], "ab");
  const auto events = s.stream(kPath, R"({"prompt":"ab","echo":true,"max_tokens":0,"logprobs":0,"stream":true})");
  ASSERT_EQ(events.size(), 2u);
  EXPECT_EQ(Json::parse(events[0])["choices"][0]["text"], "ab");
  EXPECT_EQ(Json::parse(events[0])["choices"][0]["logprobs"]["tokens"].size(), 3u);
}

TEST(Logprobs, AStreamWithEchoHasThePromptInTheFirstChunkOfEachChoice) {
  TestServer s(speak({"c", "d"}));
  const auto events = s.stream(kPath, R"({"prompt":["a","b"],"logprobs":0,"echo":true,"n":2,"stream":true})");
  std::map<int, std::string> texts;
  std::map<int, std::vector<int>> offsets;
  for (size_t i = 0; i + 1 < events.size(); ++i) {
    const Json choice = Json::parse(events[i])["choices"][0];
    texts[choice["index"]] += choice["text"].get<std::string>();
    for (const auto& offset : choice["logprobs"]["text_offset"]) offsets[choice["index"]].push_back(offset);
  }
  EXPECT_EQ(texts, (std::map<int, std::string>{{0, "acd"}, {1, "acd"}, {2, "bcd"}, {3, "bcd"}}));
  for (const auto& [index, list] : offsets) EXPECT_EQ(list, (std::vector<int>{0, 3, 4, 5}));
}

TEST(Logprobs, PromptLogprobsListEveryTokenById) {
  TestServer s;
  const std::string body = R"({"prompt":"ab","prompt_logprobs":1})";
  const Json list = s.post_json(kPath, body)["choices"][0]["prompt_logprobs"];
  EXPECT_EQ(list, Json::parse(R"([null,{"97":{"logprob":-0.25,"rank":1,"decoded_token":"a"}},
                                       {"98":{"logprob":-0.25,"rank":1,"decoded_token":"b"}}])"));
  const Json chat =
      s.post_json("/v1/chat/completions", R"({"messages":[{"role":"user","content":"a"}],"prompt_logprobs":0})");
  EXPECT_EQ(chat["prompt_logprobs"][1], Json::parse(R"({"117":{"logprob":-0.25,"rank":1,"decoded_token":"u"}})"));
}

TEST(Logprobs, AskingForMorePromptAlternativesThanOutputOnesShowsEachItsOwn) {
  TestServer s;
  const Json choice =
      s.post_json(kPath, R"({"prompt":"ab","prompt_logprobs":3,"logprobs":1,"echo":true})")["choices"][0];
  EXPECT_EQ(choice["prompt_logprobs"][1].size(), 3u);
  EXPECT_EQ(choice["logprobs"]["top_logprobs"][1].size(), 1u);
  const Json other =
      s.post_json(kPath, R"({"prompt":"ab","prompt_logprobs":0,"logprobs":2,"echo":true})")["choices"][0];
  EXPECT_EQ(other["prompt_logprobs"][1].size(), 1u);
  EXPECT_EQ(other["logprobs"]["top_logprobs"][1].size(), 2u);
}

TEST(Logprobs, TokensAreIdsWhereTheRequestOrTheServerSaysSo) {
  TestServer s(speak({"a"}));
  const std::string ids = R"(["token_id:97"])";
  EXPECT_EQ(s.post_json(
                kPath,
                R"({"prompt":"x","logprobs":0,"return_tokens_as_token_ids":true})")["choices"][0]["logprobs"]["tokens"],
            Json::parse(ids));
  ServerConfig config;
  config.return_tokens_as_token_ids = true;
  TestServer all(speak({"a"}), config);
  EXPECT_EQ(all.post_json(kPath, R"({"prompt":"x","logprobs":0})")["choices"][0]["logprobs"]["tokens"],
            Json::parse(ids));
}

std::string completion_logprobs(const PositionLogprobs& position, int top) {
  const TokenNames names(std::make_shared<ByteCodec>(), false);
  int64_t offset = 0;
  CompletionLogprobs logprobs(names, top, offset);
  logprobs.add(position);
  std::string out;
  JsonWriter json(out);
  logprobs.write(json);
  return Json::parse(out)["top_logprobs"][0].dump();
}

TEST(Logprobs, AChosenTokenOutsideTheTopIsAddedLast) {
  EXPECT_EQ(completion_logprobs({.chosen = {'z', -5, 9}, .top = {{'a', -0.5f, 1}, {'b', -1, 2}}}, 2),
            R"({"a":-0.5,"b":-1.0,"z":-5.0})");
  EXPECT_EQ(completion_logprobs({.chosen = {'z', -5, 9}}, 0), R"({"z":-5.0})");
}

TEST(Logprobs, TokensWithTheSameNameShareTheChosenOnesValue) {
  // 0xff and 0xfe are both shown as U+FFFD.
  const Json map =
      Json::parse(completion_logprobs({.chosen = {0xff, -0.5f, 1}, .top = {{0xff, -0.5f, 1}, {0xfe, -1, 2}}}, 2));
  EXPECT_EQ(map.size(), 1u);
  EXPECT_EQ(map["\uFFFD"], -0.5);
}

TEST(Logprobs, WhatIsNoNumberIsMinus9999) {
  EXPECT_EQ(completion_logprobs({.chosen = {'a', -INFINITY, 1}, .top = {{'b', NAN, 1}, {'c', -1e30f, 2}}}, 2),
            R"({"a":-9999.0,"b":-9999.0,"c":-9999.0})");
}

TEST(Logprobs, ChatListsTokensWithTheirBytes) {
  TestServer s(speak({"\xC3\xA9"}));
  const Json answer = s.post_json("/v1/chat/completions",
                                  R"({"messages":[{"role":"user","content":"x"}],"logprobs":true,"top_logprobs":2})");
  const Json content = answer["choices"][0]["logprobs"]["content"];
  ASSERT_EQ(content.size(), 2u);
  EXPECT_EQ(content[0], Json::parse(R"({"token":"�","logprob":-0.25,"bytes":[195],"top_logprobs":[
      {"token":"�","logprob":-0.25,"bytes":[195]},{"token":"�","logprob":-0.75,"bytes":[196]}]})"));
  const Json none =
      s.post_json("/v1/chat/completions", R"({"messages":[{"role":"user","content":"x"}],"logprobs":true})");
  EXPECT_EQ(none["choices"][0]["logprobs"]["content"][0]["top_logprobs"], Json::array());
}

}  // namespace
}  // namespace millrace
