// What requests look like and how answers are read, protocol by protocol.
#include "bench/back_end.h"

#include <gtest/gtest.h>

namespace millrace::bench {
namespace {

struct Read {
  RequestRecord record;
  Status status;
};
// Feeds each piece as one read, one second apart.
Read read(const char* back_end, const std::vector<std::string>& pieces, const std::string& prompt = "P") {
  Read result;
  AnswerReader reader(**find_back_end(back_end), result.record, prompt, nullptr, /*keep_text=*/true);
  double at_s = 1;
  for (const std::string& piece : pieces) reader.feed(piece, at_s++);
  result.status = reader.finish();
  return result;
}

std::string sse(const std::string& data) { return "data: " + data + "\r\n\r\n"; }

TEST(AnswerReader, CutFramesAreOneEventEach) {
  const std::string all =
      sse(R"({"choices":[{"text":"a"}],"usage":{"prompt_tokens":2,"completion_tokens":1}})") + ": ping\n\n" +
      sse(R"({"choices":[{"text":"b"}],"usage":{"prompt_tokens":2,"completion_tokens":3}})") + sse("[DONE]");
  for (size_t cut = 1; cut < all.size(); ++cut) {
    const Read r = read("openai", {all.substr(0, cut), all.substr(cut)});
    ASSERT_TRUE(r.status.ok());
    ASSERT_EQ(r.record.chunks.size(), 2u) << cut;
    EXPECT_EQ(r.record.chunks[1].tokens, 2);
    EXPECT_EQ(r.record.output_tokens, 3);
    EXPECT_EQ(r.record.prompt_tokens, 2);
    EXPECT_EQ(r.record.text, "ab");
    EXPECT_EQ(r.record.output_source, CountSource::kUsage);
  }
}

TEST(AnswerReader, EventsOfOneReadShareItsTimeAndAreCounted) {
  const std::string event = sse(R"({"choices":[{"text":"a"}]})");
  const Read r = read("openai", {event + event + event, event});
  EXPECT_EQ(r.record.coalesced_events, 2);
  EXPECT_EQ(r.record.chunks[2].at_s, 1);
  EXPECT_EQ(r.record.chunks[3].at_s, 2);
  EXPECT_EQ(r.record.output_tokens, kUnknown);  // never from events
}

TEST(AnswerReader, TheFirstTokenMayComeOnAnyChannel) {
  const Read r = read("openai-chat", {sse(R"({"choices":[{"delta":{"role":"assistant","content":""}}]})"),
                                      sse(R"({"choices":[{"delta":{"reasoning_content":"hm"}}]})"),
                                      sse(R"({"choices":[{"delta":{"content":"x"}}]})"),
                                      sse(R"({"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":4}})")});
  EXPECT_EQ(r.record.first_token_s, 2);
  EXPECT_EQ(r.record.last_token_s, 3);
  EXPECT_EQ(r.record.output_tokens, 4);
  EXPECT_TRUE(r.record.chunk_tokens_estimated);
  EXPECT_EQ(r.record.chunks[0].tokens, 2);
  const Read tool = read("openai-chat", {sse(R"({"choices":[{"delta":{"tool_calls":[{"function":{"name":"f"}}]}}]})")});
  EXPECT_EQ(tool.record.first_token_s, 1);
}

TEST(AnswerReader, ATokenWithoutVisibleTextCountsByItsTotal) {
  const Read r = read("openai", {sse(R"({"choices":[{"text":""}],"usage":{"completion_tokens":0}})"),
                                 sse(R"({"choices":[{"text":""}],"usage":{"completion_tokens":1}})"),
                                 sse(R"({"choices":[{"text":"é"}],"usage":{"completion_tokens":2}})")});
  EXPECT_EQ(r.record.first_token_s, 2);
  EXPECT_EQ(r.record.chunks.size(), 2u);
}

TEST(AnswerReader, ProtocolsWithATokenPerMessageCountThem) {
  const Read trt =
      read("trt", {sse(R"({"text_output":"a"})"), sse(R"({"text_output":""})"), sse(R"({"text_output":"b"})")});
  ASSERT_TRUE(trt.status.ok());
  EXPECT_EQ(trt.record.output_tokens, 3);
  EXPECT_EQ(trt.record.text, "ab");
  EXPECT_EQ(trt.record.output_source, CountSource::kProtocol);
  const Read base = read("base", {"{\"token\":{\"text\":\"a\"}}\n{\"text\":", "\"b\"}\n"});
  ASSERT_TRUE(base.status.ok());
  EXPECT_EQ(base.record.output_tokens, 2);
  EXPECT_EQ(base.record.text, "ab");
}

TEST(AnswerReader, AnEmbeddingIsOneAnswerWithoutTokens) {
  const Read r = read("embedding", {R"({"data":[{"embedding":[0.5)", R"(]}],"usage":{"prompt_tokens":7}})"});
  ASSERT_TRUE(r.status.ok()) << r.status.message();
  EXPECT_EQ(r.record.output_tokens, 0);
  EXPECT_EQ(r.record.prompt_tokens, 7);
  EXPECT_EQ(r.record.first_token_s, kNever);
  EXPECT_EQ(r.record.last_token_s, 2);
  EXPECT_FALSE(read("embedding", {R"({"data":[]})"}).status.ok());
  EXPECT_FALSE(read("embedding", {R"({"data":[1)"}).status.ok());
  EXPECT_FALSE(read("embedding", {""}).status.ok());
}

TEST(AnswerReader, CumulativeTextsAreCutAtWhatIsKnown) {
  const Read r = read("vllm", {std::string("{\"text\":[\"Pa\"]}\0{\"te", 20), std::string("xt\":[\"Pabc\"]}\0", 15)});
  ASSERT_TRUE(r.status.ok()) << r.status.message();
  EXPECT_EQ(r.record.text, "abc");
  EXPECT_EQ(r.record.chunks.size(), 2u);
  EXPECT_EQ(r.record.output_tokens, kUnknown);
  const Read lines = read("vllm", {"{\"text\":[\"Pa\"]}\n", "{\"text\":[\"Pab\"]}"});
  EXPECT_EQ(lines.record.text, "ab");
}

TEST(AnswerReader, TgiEventsAreTokensAndPingsAreNot) {
  const Read r = read("tgi", {":\n\n", "data:{\"token\":{\"id\":1,\"text\":\"a\"},\"generated_text\":null}\n\n",
                              "data:{\"token\":{\"id\":2,\"text\":\"b\"},\"generated_text\":\"ab\"}\n\n"});
  EXPECT_EQ(r.record.output_tokens, 2);
  EXPECT_EQ(r.record.output_source, CountSource::kProtocol);
  EXPECT_EQ(r.record.first_token_s, 2);
  EXPECT_FALSE(r.record.chunk_tokens_estimated);
}

TEST(AnswerReader, MindSporeLinesNeedNoBlankLineBetween) {
  const Read r = read(
      "mindspore", {"data:{\"token\":{\"text\":\"a\",\"index\":1}}\ndata:{\"token\":{\"text\":\"b\",\"index\":2}}\n"});
  EXPECT_EQ(r.record.output_tokens, 2);
  EXPECT_EQ(r.record.coalesced_events, 1);
}

TEST(AnswerReader, WhatIsNoAnswerIsSaidToBeNone) {
  EXPECT_NE(read("openai", {"<html>"}).status.message().find("'<html>'"), std::string::npos);
  EXPECT_FALSE(read("openai", {sse("{]")}).status.ok());
  EXPECT_EQ(read("openai", {sse(R"({"error":{"message":"gone"}})")}).status.message(), "gone");
  EXPECT_EQ(read("tgi", {sse(R"({"error":"gone"})")}).status.message(), "\"gone\"");
  for (const char* odd :
       {"[]", "{\"choices\":7}", "{\"choices\":[3]}", "{\"usage\":[]}", "{\"choices\":[{\"text\":5}]}",
        "{\"usage\":{\"completion_tokens\":-5}}", "{\"usage\":{\"completion_tokens\":1e300}}"}) {
    const Read r = read("openai", {sse(odd)});
    EXPECT_TRUE(r.record.chunks.empty()) << odd;
    EXPECT_EQ(r.record.output_tokens, kUnknown) << odd;
  }
}

TEST(RequestBody, HoldsWhatEachProtocolWants) {
  const LoadRequest request{.prompt_ids = {7, 8}, .prompt = "hi", .output_tokens = 5};
  const RequestOptions options{.model = "m", .extra_body = {{"top_k", 3}}};
  const auto body = [&](const char* name) {
    return Json::parse(request_body(**find_back_end(name), request, options));
  };
  EXPECT_EQ(body("openai"),
            Json::parse(R"({"model":"m","prompt":[7,8],"max_tokens":5,"temperature":0.0,"ignore_eos":true,
    "stream":true,"stream_options":{"include_usage":true,"continuous_usage_stats":true},"top_k":3})"));
  EXPECT_EQ(body("openai-chat")["messages"], Json::parse(R"([{"role":"user","content":"hi"}])"));
  EXPECT_EQ(body("tgi")["parameters"]["max_new_tokens"], 5);
  EXPECT_EQ(body("tgi")["inputs"], "hi");
  EXPECT_EQ(body("mindspore")["parameters"]["return_full_text"], false);
  EXPECT_EQ(body("vllm")["prompt"], "hi");
}

TEST(BackEnds, AnUnknownNameIsRefusedWithTheNearest) {
  EXPECT_NE(find_back_end("openai-chta").status().message().find("did you mean 'openai-chat'?"), std::string::npos);
}

}  // namespace
}  // namespace millrace::bench
