// /v1/completions: what the engine is asked, and the exact shape of what the client gets.
#include "tests/server/test_server.h"

namespace millrace {
namespace {

constexpr const char* kPath = "/v1/completions";

TEST(Completions, AWholeAnswerHasTheDocumentedShape) {
  TestServer s;
  const HttpResponse answer = s.post(kPath, R"({"model":"alias","prompt":"ab","max_tokens":20})");
  EXPECT_EQ(answer.status, 200);
  EXPECT_EQ(answer.content_type, "application/json");
  EXPECT_EQ(TestServer::anonymous(answer.body),
            R"({"id":"cmpl-ID","object":"text_completion","created":0,"model":"m",)"
            R"("choices":[{"index":0,"text":"Hi all","logprobs":null,"finish_reason":"stop","stop_reason":null,)"
            R"("prompt_logprobs":null}],"usage":{"prompt_tokens":3,"total_tokens":9,"completion_tokens":6}})");
}

TEST(Completions, AStreamHasChunksWithAllKeysThenUsageThenDone) {
  TestServer s;
  const auto events =
      s.stream(kPath, R"({"prompt":[1,2],"max_tokens":20,"stream":true,"stream_options":{"include_usage":true}})");
  const std::string head = R"({"id":"cmpl-ID","object":"text_completion","created":0,"model":"m","choices":[)";
  EXPECT_EQ(
      events,
      (std::vector<std::string>{
          head + R"({"index":0,"text":"Hi","logprobs":null,"finish_reason":null,"stop_reason":null}],"usage":null})",
          head +
              R"({"index":0,"text":" all","logprobs":null,"finish_reason":"stop","stop_reason":null}],"usage":null})",
          head + R"(],"usage":{"prompt_tokens":2,"total_tokens":8,"completion_tokens":6}})", "[DONE]"}));
}

TEST(Completions, ContinuousUsageCountsUp) {
  TestServer s;
  const auto events =
      s.stream(kPath, R"({"prompt":[1,2],"stream":true,"stream_options":{"continuous_usage_stats":true}})");
  ASSERT_EQ(events.size(), 4u);
  EXPECT_EQ(Json::parse(events[0])["usage"]["completion_tokens"], 2);
  EXPECT_EQ(Json::parse(events[1])["usage"]["completion_tokens"], 6);
  EXPECT_EQ(Json::parse(events[2])["usage"]["total_tokens"], 8);
}

TEST(Completions, WithoutStreamOptionsThereIsNoUsageChunk) {
  TestServer s;
  for (const char* options : {"", R"(,"stream_options":null)", R"(,"stream_options":{"include_usage":false})"}) {
    const auto events = s.stream(kPath, std::string(R"({"prompt":"x","stream":true)") + options + "}");
    ASSERT_EQ(events.size(), 3u);
    EXPECT_TRUE(Json::parse(events[0])["usage"].is_null());
    EXPECT_EQ(events.back(), "[DONE]");
  }
}

TEST(Completions, EveryPromptFormReachesTheEngineAndChoicesKeepPromptOrder) {
  TestServer s;
  EXPECT_EQ(s.post_json(kPath, R"({"prompt":"ab"})")["choices"].size(), 1u);
  EXPECT_EQ(s.post_json(kPath, R"({"prompt":["a","bc"]})")["choices"].size(), 2u);
  EXPECT_EQ(s.post_json(kPath, R"({"prompt":[5,6,7]})")["choices"].size(), 1u);
  const Json answer = s.post_json(kPath, R"({"prompt":[[5],[6,7]],"n":3})");
  ASSERT_EQ(answer["choices"].size(), 6u);
  for (int i = 0; i < 6; ++i) EXPECT_EQ(answer["choices"][i]["index"], i);
  EXPECT_EQ(answer["usage"]["prompt_tokens"], 3);
  EXPECT_EQ(answer["usage"]["completion_tokens"], 36);
  const auto requests = s.engine->wait_for_requests(6);
  EXPECT_EQ(requests[0].prompt_token_ids, (std::vector<int32_t>{256, 'a', 'b'}));
  EXPECT_EQ(requests[2].prompt_token_ids, (std::vector<int32_t>{256, 'b', 'c'}));
  EXPECT_EQ(requests[3].prompt_token_ids, (std::vector<int32_t>{5, 6, 7}));
  EXPECT_EQ(requests[5].prompt_token_ids, (std::vector<int32_t>{6, 7}));
  EXPECT_EQ(requests[5].params.n, 3);
}

TEST(Completions, EveryFieldReachesTheSampler) {
  TestServer s;
  s.post_json(kPath, R"({"prompt":"a","max_tokens":9,"temperature":0.5,"top_p":0.9,"top_k":7,"min_p":0.1,
    "repetition_penalty":1.2,"frequency_penalty":0.3,"presence_penalty":-0.4,"seed":42,"stop":["x","yz"],
    "stop_token_ids":[3,4],"include_stop_str_in_output":true,"ignore_eos":true,"min_tokens":2,"logit_bias":{"65":-100,"66":5.5},
    "allowed_token_ids":[65,66],"skip_special_tokens":false,"spaces_between_special_tokens":false,"logprobs":2,
    "prompt_logprobs":1,"cache_salt":"salt","user":"somebody","best_of":1,"add_special_tokens":false})");
  const GenerationRequest r = s.engine->wait_for_requests(1)[0];
  const SamplingParams& p = r.params;
  EXPECT_EQ(r.prompt_token_ids, (std::vector<int32_t>{'a'}));
  EXPECT_EQ(r.cache_salt, "salt");
  EXPECT_EQ(p.max_tokens, 9);
  EXPECT_EQ(p.temperature, 0.5);
  EXPECT_EQ(p.top_p, 0.9);
  EXPECT_EQ(p.top_k, 7);
  EXPECT_EQ(p.min_p, 0.1);
  EXPECT_EQ(p.repetition_penalty, 1.2);
  EXPECT_EQ(p.frequency_penalty, 0.3);
  EXPECT_EQ(p.presence_penalty, -0.4);
  EXPECT_EQ(p.seed, 42);
  EXPECT_EQ(p.stop, (std::vector<std::string>{"x", "yz"}));
  EXPECT_EQ(p.stop_token_ids, (std::vector<int32_t>{3, 4}));
  EXPECT_TRUE(p.include_stop_str_in_output && p.ignore_eos && p.detokenize);
  EXPECT_FALSE(p.skip_special_tokens || p.spaces_between_special_tokens);
  EXPECT_EQ(p.min_tokens, 2);
  EXPECT_EQ(p.logit_bias, (std::vector<std::pair<int32_t, float>>{{65, -100.f}, {66, 5.5f}}));
  EXPECT_EQ(p.allowed_token_ids, (std::vector<int32_t>{65, 66}));
  EXPECT_EQ(p.logprobs, 2);
  EXPECT_EQ(p.prompt_logprobs, 1);
}

TEST(Completions, NullIsTheDefaultOfEveryOptionalField) {
  TestServer s;
  s.post_json(kPath, R"({"model":null,"prompt":"a","temperature":null,"top_p":null,"top_k":null,"min_p":null,"n":null,
    "repetition_penalty":null,"frequency_penalty":null,"presence_penalty":null,"seed":null,"stop":null,"best_of":null,
    "stop_token_ids":null,"include_stop_str_in_output":null,"ignore_eos":null,"min_tokens":null,"logit_bias":null,
    "allowed_token_ids":null,"skip_special_tokens":null,"spaces_between_special_tokens":null,"logprobs":null,"echo":null,
    "prompt_logprobs":null,"cache_salt":null,"user":null,"add_special_tokens":null,"stream":null,"stream_options":null,
    "suffix":null,"use_beam_search":null,"length_penalty":null,"truncate_prompt_tokens":null,"response_format":null,
    "guided_json":null,"guided_regex":null,"guided_choice":null,"guided_grammar":null,"guided_decoding_backend":null,
    "guided_whitespace_pattern":null,"priority":null,"bad_words":null,"structured_outputs":null,"logits_processors":null,
    "return_token_ids":null,"return_tokens_as_token_ids":null,"request_id":null,"kv_transfer_params":null,
    "vllm_xargs":null,"logprob_token_ids":null,"stream_interval":null,"thinking_token_budget":null,
    "repetition_detection":null,"truncation_side":null})");
  const SamplingParams p = s.engine->wait_for_requests(1)[0].params;
  const SamplingParams defaults;
  EXPECT_EQ(p.temperature, defaults.temperature);
  EXPECT_EQ(p.n, 1);
  EXPECT_EQ(p.max_tokens, 16);
  EXPECT_FALSE(p.seed || p.logprobs || p.prompt_logprobs);
  s.post_json(kPath, R"({"prompt":"a","max_tokens":null})");
  EXPECT_EQ(s.engine->wait_for_requests(2)[1].params.max_tokens, 98) << "null max_tokens: what the prompt leaves";
}

TEST(Completions, NeutralValuesOfUnbuiltFieldsAreAccepted) {
  TestServer s;
  s.post_json(kPath, R"({"prompt":"a","suffix":"","use_beam_search":false,"length_penalty":1.0,"bad_words":[],
                         "response_format":{"type":"text"},"stream_interval":1,"logits_processors":[],"seed":-1,"top_k":-1})");
  EXPECT_FALSE(s.engine->wait_for_requests(1)[0].params.seed);
}

TEST(Completions, ModelDefaultsApplyUntilARequestSaysOtherwise) {
  ServerConfig config;
  config.default_sampling_params = {
      .temperature = 0.6, .top_p = 0.8, .repetition_penalty = 1.1, .top_k = 20, .max_tokens = 40};
  TestServer s(speak({"x"}), config);
  s.post_json(kPath, R"({"prompt":"a"})");
  s.post_json(kPath, R"({"prompt":"a","temperature":1.0,"top_k":0,"max_tokens":80})");
  const auto requests = s.engine->wait_for_requests(2);
  EXPECT_EQ(requests[0].params.temperature, 0.6);
  EXPECT_EQ(requests[0].params.top_p, 0.8);
  EXPECT_EQ(requests[0].params.top_k, 20);
  EXPECT_EQ(requests[0].params.repetition_penalty, 1.1);
  EXPECT_EQ(requests[1].params.temperature, 1.0);
  EXPECT_EQ(requests[1].params.top_k, 0);
  EXPECT_EQ(requests[1].params.max_tokens, 40);
}

TEST(Completions, TinyTemperaturesAreRaisedAndZeroIsGreedy) {
  TestServer s;
  s.post_json(kPath, R"({"prompt":"a","temperature":0})");
  s.post_json(kPath, R"({"prompt":"a","temperature":0.001})");
  EXPECT_TRUE(s.engine->wait_for_requests(2)[0].params.greedy());
  EXPECT_EQ(s.engine->wait_for_requests(2)[1].params.temperature, 0.01);
}

TEST(Completions, MaxTokensIsCutToTheContextAndPromptsAreTruncatedOnTheAskedSide) {
  TestServer s;
  const std::string prompt(90, 'p');
  s.post_json(kPath, R"({"prompt":")" + prompt + R"(","max_tokens":50,"min_tokens":30})");
  s.post_json(kPath, R"({"prompt":[1,2,3,4],"truncate_prompt_tokens":3})");
  s.post_json(kPath, R"({"prompt":[1,2,3,4],"truncate_prompt_tokens":3,"truncation_side":"right"})");
  const auto requests = s.engine->wait_for_requests(3);
  EXPECT_EQ(requests[0].params.max_tokens, 9);
  EXPECT_EQ(requests[0].params.min_tokens, 9);
  EXPECT_EQ(requests[1].prompt_token_ids, (std::vector<int32_t>{2, 3, 4}));
  EXPECT_EQ(requests[2].prompt_token_ids, (std::vector<int32_t>{1, 2, 3}));
}

TEST(Completions, StopReasonNamesWhatEndedTheChoice) {
  TestServer s([](const GenerationRequest& r) {
    RequestOutput output{.finished = true};
    output.sequences = {say(r, 0, "a", FinishReason::kStop), say(r, 1, "b", FinishReason::kStop),
                        say(r, 2, "c", FinishReason::kAbort)};
    output.sequences[0].stop_string = "\n\"";
    output.sequences[1].stop_token_id = 13;
    return std::vector{output};
  });
  const Json choices = s.post_json(kPath, R"({"prompt":"x","n":3})")["choices"];
  EXPECT_EQ(choices[0]["stop_reason"], "\n\"");
  EXPECT_EQ(choices[1]["stop_reason"], 13);
  EXPECT_TRUE(choices[2]["stop_reason"].is_null());
  EXPECT_EQ(choices[2]["finish_reason"], "abort");
}

TEST(Completions, TokenIdsAreReturnedWhereAskedFor) {
  TestServer s;
  const Json choice = s.post_json(kPath, R"({"prompt":[7,8],"return_token_ids":true})")["choices"][0];
  EXPECT_EQ(choice["prompt_token_ids"], Json::parse("[7,8]"));
  EXPECT_EQ(choice["token_ids"], Json::parse("[72,105,32,97,108,108]"));
  const auto events = s.stream(kPath, R"({"prompt":[7,8],"return_token_ids":true,"stream":true})");
  EXPECT_EQ(Json::parse(events[0])["choices"][0]["prompt_token_ids"], Json::parse("[7,8]"));
  EXPECT_EQ(Json::parse(events[0])["choices"][0]["token_ids"], Json::parse("[72,105]"));
  EXPECT_FALSE(Json::parse(events[1])["choices"][0].contains("prompt_token_ids"));
}

TEST(Completions, CachedTokensAreShownWhereTheServerIsToldTo) {
  ServerConfig config;
  config.enable_prompt_tokens_details = true;
  TestServer s(
      [](const GenerationRequest& r) {
        return std::vector<RequestOutput>{
            {.sequences = {say(r, 0, "a")}, .cached_tokens = 16},
            {.sequences = {say(r, 0, "b", FinishReason::kStop)}, .cached_tokens = 16, .finished = true}};
      },
      config);
  EXPECT_EQ(s.post_json(kPath, R"({"prompt":["x","y"]})")["usage"]["prompt_tokens_details"]["cached_tokens"], 32);
}

TEST(Completions, RequestIdsComeFromTheHeaderOrTheBody) {
  ServerConfig config;
  config.enable_request_id_headers = true;
  TestServer s(speak({"x"}), config);
  const HttpResponse named = s.send("POST", kPath, R"({"prompt":"a"})", {{"X-Request-Id", "abc-7"}});
  EXPECT_EQ(named.header("X-Request-Id"), "abc-7");
  EXPECT_EQ(Json::parse(named.body)["id"], "cmpl-abc-7");
  const HttpResponse fresh = s.post(kPath, R"({"prompt":"a"})");
  EXPECT_EQ(fresh.header("X-Request-Id").size(), 32u);
  TestServer plain;
  EXPECT_EQ(plain.post_json(kPath, R"({"prompt":"a","request_id":"r1"})")["id"], "cmpl-r1");
}

TEST(Completions, HeadsOfStreamsForbidCaching) {
  TestServer s;
  const HttpResponse answer = s.post(kPath, R"({"prompt":"a","stream":true})");
  EXPECT_EQ(answer.content_type, "text/event-stream; charset=utf-8");
  EXPECT_EQ(answer.header("Cache-Control"), "no-cache");
  EXPECT_TRUE(answer.body.ends_with("data: [DONE]\n\n"));
}

TEST(Completions, WithoutATokenizerIdsGoInAndOut) {
  TestServer s(speak({"Hi"}), {}, /*tokenizer=*/false);
  const Json choice =
      s.post_json(kPath, R"({"prompt":[7,8],"return_token_ids":true,"logprobs":1,"echo":true})")["choices"][0];
  EXPECT_EQ(choice["text"], "");
  EXPECT_EQ(choice["token_ids"], Json::parse("[72,105]"));
  EXPECT_EQ(choice["logprobs"]["tokens"], Json::parse(R"(["token_id:7","token_id:8","token_id:72","token_id:105"])"));
  EXPECT_FALSE(s.engine->wait_for_requests(1)[0].params.detokenize);
  const auto refused = [&](const char* path, const char* body) {
    const HttpResponse answer = s.post(path, body);
    EXPECT_EQ(answer.status, 400) << answer.body;
    EXPECT_NE(answer.body.find("--skip-tokenizer-init"), std::string::npos) << answer.body;
  };
  refused(kPath, R"({"prompt":"text"})");
  refused(kPath, R"({"prompt":[1],"stop":"x"})");
  refused("/v1/chat/completions", R"({"messages":[{"role":"user","content":"x"}]})");
  refused("/tokenize", R"({"prompt":"x"})");
  refused("/detokenize", R"({"tokens":[1]})");
}

}  // namespace
}  // namespace millrace
