// Every way to be refused, with its status and what the message must say; and errors inside streams.
#include "base/random.h"
#include "tests/server/test_server.h"

namespace millrace {
namespace {

constexpr const char* kCompletions = "/v1/completions";
constexpr const char* kChat = "/v1/chat/completions";
// A chat's fields beside its messages.
std::string chat(const std::string& fields) { return R"({"messages":[{"role":"user","content":"x"}],)" + fields + "}"; }

struct Refusal {
  const char* path;
  std::string body;
  int status;
  const char* says;  // part of the message
};

std::vector<Refusal> refusals() {
  return {
      // bodies
      {kCompletions, "", 400, "no body"},
      {kCompletions, "{", 400, "JSON"},
      {kCompletions, "[1]", 400, "a list; it must be an object"},
      {kCompletions, "\"x\"", 400, "must be an object"},
      {kCompletions, "{\"prompt\":\"\xff\"}", 400, "JSON"},
      {kCompletions, R"({"prompt":"x","top_p":1e999})", 400, "JSON"},
      {kCompletions, std::string(100000, '['), 400, "levels deep"},
      // unknown names
      {kCompletions, R"({"prompt":"x","max_token":3})", 400, "unknown field 'max_token'; did you mean 'max_tokens'?"},
      {kCompletions, R"({"prompt":"x","temprature":null})", 400, "did you mean 'temperature'?"},
      {kCompletions, R"({"prompt":"x","messages":[]})", 400, "unknown field 'messages'"},
      {kCompletions, R"({"prompt":"x","zzzzzzzzzzzzzz":1})", 400, "unknown field 'zzzzzzzzzzzzzz'"},
      {kCompletions, R"({"prompt":"x","stream":true,"stream_options":{"include_usages":true}})", 400,
       "unknown field 'stream_options.include_usages'; did you mean 'include_usage'?"},
      {kChat, chat(R"("prompt":"x")"), 400, "unknown field 'prompt'"},
      {kChat, R"({"messages":[{"role":"user","content":"x","contents":1}]})", 400, "messages[0].contents"},
      // models
      {kCompletions, R"({"prompt":"x","model":"other"})", 404, "The model `other` does not exist."},
      {kChat, chat(R"("model":"other")"), 404, "The model `other` does not exist."},
      {"/tokenize", R"({"prompt":"x","model":"other"})", 404, "does not exist"},
      {kCompletions, R"({"prompt":"x","model":3})", 400, "model is 3 (an integer); it must be a string"},
      // prompts
      {kCompletions, "{}", 400, "prompt is missing"},
      {kCompletions, R"({"prompt":null})", 400, "prompt is missing"},
      {kCompletions, R"({"prompt":[]})", 400, "prompt is an empty list"},
      {kCompletions, R"({"prompt":{}})", 400, "prompt is an object"},
      {kCompletions, R"({"prompt":[true]})", 400, "prompt[0] is true (a boolean)"},
      {kCompletions, R"({"prompt":["a",1]})", 400, "prompt[1] is 1 (an integer)"},
      {kCompletions, R"({"prompt":[1,"a"]})", 400, "prompt[1] is \"a\" (a string)"},
      {kCompletions, R"({"prompt":[[1],2]})", 400, "prompt[1]"},
      {kCompletions, R"({"prompt":[[1],[]]})", 400, "prompt[1] has no tokens"},
      {kCompletions, R"({"prompt":[1,300]})", 400,
       "prompt[1] is 300 (an integer); it must be a token id between 0 and 299"},
      {kCompletions, R"({"prompt":[-1]})", 400, "prompt[0] is -1"},
      {kCompletions, R"({"prompt":[99999999999999999999]})", 400, "prompt[0]"},
      {kCompletions, R"({"prompt":[1.5]})", 400, "prompt[0] is 1.5"},
      {kCompletions, R"({"prompt":"","add_special_tokens":false})", 400, "the prompt has no tokens"},
      {kCompletions, R"({"prompt":")" + std::string(99, 'x') + "\"}", 400,
       "maximum context length is 100 tokens. However, you requested 100"},
      {kCompletions, R"({"prompt":["a",")" + std::string(99, 'x') + "\"]}", 400, "prompt[1]"},
      {kChat, R"({"messages":[{"role":"user","content":")" + std::string(99, 'x') + "\"}]}", 400,
       "maximum context length"},
      // wrong types
      {kCompletions, R"({"prompt":"x","max_tokens":"5"})", 400,
       R"(max_tokens is \"5\" (a string); it must be an integer)"},
      {kCompletions, R"({"prompt":"x","max_tokens":1.5})", 400, "max_tokens is 1.5"},
      {kCompletions, R"({"prompt":"x","n":true})", 400, "n is true (a boolean)"},
      {kCompletions, R"({"prompt":"x","n":99999999999})", 400, "n is 99999999999"},
      {kCompletions, R"({"prompt":"x","temperature":"hot"})", 400, "temperature is"},
      {kCompletions, R"({"prompt":"x","echo":1})", 400, "echo is 1 (an integer); it must be true or false"},
      {kCompletions, R"({"prompt":"x","stop":[1]})", 400, "stop[0] is 1"},
      {kCompletions, R"({"prompt":"x","stop":{}})", 400, "stop is an object"},
      {kCompletions, R"({"prompt":"x","logit_bias":[1]})", 400, "logit_bias is a list"},
      {kCompletions, R"({"prompt":"x","logit_bias":{"a":1}})", 400, "logit_bias has the key 'a'"},
      {kCompletions, R"({"prompt":"x","logit_bias":{"1":"a"}})", 400, "logit_bias.1"},
      {kCompletions, R"({"prompt":"x","logit_bias":{"300":1}})", 400, "300"},
      {kCompletions, R"({"prompt":"x","stop_token_ids":"a"})", 400, "stop_token_ids is"},
      {kCompletions, R"({"prompt":"x","allowed_token_ids":[500]})", 400, "500"},
      {kCompletions, R"({"prompt":"x","stream_options":5,"stream":true})", 400, "stream_options is an integer"},
      {kCompletions, R"({"prompt":"x","user":5})", 400, "user is 5"},
      // ranges
      {kCompletions, R"({"prompt":"x","top_p":2})", 400, "top_p must be in (0, 1], got 2"},
      {kCompletions, R"({"prompt":"x","top_p":0})", 400, "top_p"},
      {kCompletions, R"({"prompt":"x","top_k":-2})", 400, "top_k"},
      {kCompletions, R"({"prompt":"x","min_p":1.5})", 400, "min_p"},
      {kCompletions, R"({"prompt":"x","temperature":-1})", 400, "temperature"},
      {kCompletions, R"({"prompt":"x","repetition_penalty":0})", 400, "repetition_penalty"},
      {kCompletions, R"({"prompt":"x","frequency_penalty":2.1})", 400, "frequency_penalty"},
      {kCompletions, R"({"prompt":"x","presence_penalty":-2.1})", 400, "presence_penalty"},
      {kCompletions, R"({"prompt":"x","n":0})", 400, "n must be"},
      {kCompletions, R"({"prompt":"x","n":2,"temperature":0})", 400, "greedy"},
      {kCompletions, R"({"prompt":"x","best_of":2})", 400, "best_of is 2"},
      {kCompletions, R"({"prompt":"x","max_tokens":0})", 400, "max_tokens is 0"},
      {kCompletions, R"({"prompt":"x","max_tokens":-1,"echo":true})", 400, "max_tokens is -1"},
      {kCompletions, R"({"prompt":"x","min_tokens":17})", 400, "min_tokens"},
      {kCompletions, R"({"prompt":"x","min_tokens":-1})", 400, "min_tokens"},
      {kCompletions, R"({"prompt":"x","logprobs":21})", 400, "logprobs"},
      {kCompletions, R"({"prompt":"x","logprobs":-1})", 400, "logprobs"},
      {kCompletions, R"({"prompt":"x","prompt_logprobs":21})", 400, "prompt_logprobs"},
      {kCompletions, R"({"prompt":"x","prompt_logprobs":1,"stream":true})", 400,
       "`prompt_logprobs` are not available when `stream=True`."},
      {kCompletions, R"({"prompt":"x","stream_options":{}})", 400,
       "Stream options can only be defined when `stream=True`."},
      {kCompletions, R"({"prompt":"x","stop":""})", 400, "stop has an empty string"},
      {kCompletions, R"({"prompt":"x","truncate_prompt_tokens":0})", 400, "truncate_prompt_tokens is 0"},
      {kCompletions, R"({"prompt":"x","truncate_prompt_tokens":101})", 400, "truncate_prompt_tokens is 101"},
      {kCompletions, R"({"prompt":"x","truncation_side":"middle"})", 400, "truncation_side"},
      {kCompletions, R"({"prompt":"x","priority":1})", 400, "priority is 1"},
      {kCompletions, R"({"prompt":"x","cache_salt":")" + std::string(200, 's') + "\"}", 400,
       "cache_salt has 200 bytes"},
      {kChat, chat(R"("top_logprobs":2)"), 400, "when using `top_logprobs`, `logprobs` must be set to true."},
      {kChat, chat(R"("logprobs":true,"top_logprobs":21)"), 400, "top_logprobs is 21"},
      {kChat, chat(R"("logprobs":5)"), 400, "logprobs is 5"},
      {kChat, chat(R"("max_tokens":0)"), 400, "max_tokens is 0"},
      {kChat, chat(R"("max_completion_tokens":-5)"), 400, "max_completion_tokens is -5"},
      // not built
      {kCompletions, R"({"prompt":"x","suffix":"y"})", 400, "suffix is not supported"},
      {kCompletions, R"({"prompt":"x","use_beam_search":true})", 400, "use_beam_search is not supported"},
      {kCompletions, R"({"prompt":"x","length_penalty":0.5})", 400, "length_penalty"},
      {kCompletions, R"({"prompt":"x","response_format":{"type":"json_object"}})", 400,
       "response_format is not supported"},
      {kCompletions, R"({"prompt":"x","guided_json":{}})", 400, "guided_json"},
      {kCompletions, R"({"prompt":"x","guided_regex":"a"})", 400, "guided_regex"},
      {kCompletions, R"({"prompt":"x","guided_choice":["a"]})", 400, "guided_choice"},
      {kCompletions, R"({"prompt":"x","structured_outputs":{"json":{}}})", 400, "structured_outputs"},
      {kCompletions, R"({"prompt":"x","bad_words":["a"]})", 400, "bad_words"},
      {kCompletions, R"({"prompt":"x","kv_transfer_params":{}})", 400, "kv_transfer_params"},
      {kChat, chat(R"("tools":[])"), 400, "tools is not supported"},
      {kChat, chat(R"("tool_choice":"auto")"), 400, "tool_choice is not supported"},
      {kChat, chat(R"("reasoning_effort":"high")"), 400, "reasoning_effort"},
      {kChat, chat(R"("chat_template":"x")"), 400, "--trust-request-chat-template"},
      // messages
      {kChat, "{}", 400, "messages is missing"},
      {kChat, R"({"messages":[]})", 400, "messages is empty"},
      {kChat, R"({"messages":"x"})", 400, "messages is \\\"x\\\" (a string)"},
      {kChat, R"({"messages":["x"]})", 400, "messages[0] is a string; it must be an object"},
      {kChat, R"({"messages":[{"content":"x"}]})", 400, "messages[0].role is missing"},
      {kChat, R"({"messages":[{"role":"user"}]})", 400, "messages[0].content is missing"},
      {kChat, R"({"messages":[{"role":"user","content":5}]})", 400, "messages[0].content is 5"},
      {kChat, R"({"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"x"}}]}]})", 400,
       "messages[0].content[0].type is 'image_url'; only 'text' parts are supported"},
      {kChat, R"({"messages":[{"role":"user","content":[{"type":"text"}]}]})", 400,
       "messages[0].content[0].text is missing"},
      {kChat, R"({"messages":[{"role":"assistant","tool_calls":[{"function":{"name":"f","arguments":"{"}}]}]})", 400,
       "arguments"},
      {kChat, chat(R"("continue_final_message":true,"add_generation_prompt":true)"), 400, "Cannot set both"},
      {kChat, chat(R"("chat_template_kwargs":{"messages":[]})"), 400, "chat_template_kwargs.messages"},
      {kChat, chat(R"("chat_template_kwargs":5)"), 400, "chat_template_kwargs is 5"},
      {kChat, chat(R"("documents":5)"), 400, "documents is 5"},
      // tokenize
      {"/tokenize", "{}", 400, "prompt is missing"},
      {"/tokenize", R"({"prompt":"x","messages":[{"role":"user","content":"x"}]})", 400, "only one may be"},
      {"/detokenize", "{}", 400, "tokens is missing"},
      {"/detokenize", R"({"tokens":[300]})", 400, "tokens[0] is 300"},
      {"/detokenize", R"({"tokens":[-1]})", 400, "tokens[0] is -1"},
  };
}

TEST(Errors, EveryMistakeIsAnsweredWithItsStatusAndASentence) {
  TestServer s;
  for (const Refusal& refusal : refusals()) {
    SCOPED_TRACE(std::string(refusal.path) + " " + refusal.body.substr(0, 200));
    const HttpResponse answer = s.post(refusal.path, refusal.body);
    EXPECT_EQ(answer.status, refusal.status) << answer.body;
    const Json body = Json::parse(answer.body, nullptr, false);
    ASSERT_TRUE(body.is_object()) << answer.body;
    const std::string message = body["message"];
    EXPECT_TRUE(message.find(refusal.says) != std::string::npos || answer.body.find(refusal.says) != std::string::npos)
        << message << "\nshould say: " << refusal.says;
  }
  EXPECT_EQ(s.post(kCompletions, R"({"prompt":"x"})").status, 200) << "the server goes on serving";
}

TEST(Errors, TheBodyIsTheUnionOfBothShapes) {
  TestServer s;
  EXPECT_EQ(
      s.post(kCompletions, R"({"prompt":"x","model":"o"})").body,
      R"({"object":"error","message":"The model `o` does not exist. It must be one of: `m`, `alias`",)"
      R"("type":"NotFoundError","param":null,"code":404,"error":{"message":"The model `o` does not exist. It must be )"
      R"(one of: `m`, `alias`","type":"NotFoundError","param":null,"code":404}})");
}

TEST(Errors, UnknownPathsAndMethodsAreJsonErrors) {
  TestServer s;
  const HttpResponse unknown = s.post("/v1/completion", "{}");
  EXPECT_EQ(unknown.status, 404);
  EXPECT_NE(unknown.body.find("did you mean '/v1/completions'?"), std::string::npos) << unknown.body;
  const HttpResponse method = s.send("GET", kCompletions);
  EXPECT_EQ(method.status, 405);
  EXPECT_EQ(method.header("Allow"), "POST");
  EXPECT_EQ(Json::parse(method.body)["error"]["code"], 405);
  EXPECT_EQ(s.send("DELETE", "/v1/models").status, 405);
}

TEST(Errors, BodiesAboveTheLimitAre413InJson) {
  ServerConfig config;
  config.max_body_bytes = 1000;
  TestServer s(speak({"x"}), config);
  const HttpResponse answer = s.post(kCompletions, std::string(2000, ' '));
  EXPECT_EQ(answer.status, 413);
  EXPECT_EQ(Json::parse(answer.body)["error"]["type"], "RequestTooLargeError");
}

TEST(Errors, AFailureBeforeTheFirstTokenIsAStatusAndInAStreamAnEvent) {
  const auto failing = [](const GenerationRequest&) {
    return std::vector<RequestOutput>{{.finished = true, .error = internal_error("the engine broke")}};
  };
  TestServer s(failing);
  const HttpResponse whole = s.post(kCompletions, R"({"prompt":"x"})");
  EXPECT_EQ(whole.status, 500);
  EXPECT_EQ(Json::parse(whole.body)["message"], "the engine broke");
  for (const std::string& body : {std::string(R"({"prompt":"x","stream":true})"), chat(R"("stream":true)")}) {
    const auto events = s.stream(body.find("messages") == std::string::npos ? kCompletions : kChat, body);
    ASSERT_EQ(events.size(), 2u);
    EXPECT_EQ(events[0],
              R"({"error":{"message":"the engine broke","type":"InternalServerError","param":null,"code":500}})");
    EXPECT_EQ(events[1], "[DONE]");
  }
}

TEST(Errors, AFailureInTheMiddleEndsTheStreamWithItsEvent) {
  TestServer s([](const GenerationRequest& r) {
    return std::vector<RequestOutput>{{.sequences = {say(r, 0, "a")}},
                                      {.finished = true, .error = resource_exhausted("no block left")}};
  });
  const auto events = s.stream(kCompletions, R"({"prompt":"x","stream":true,"stream_options":{"include_usage":true}})");
  ASSERT_EQ(events.size(), 3u);
  EXPECT_EQ(Json::parse(events[1])["error"]["code"], 503);
  EXPECT_EQ(events[2], "[DONE]");
}

TEST(Errors, ARefusedSubmissionAbortsTheOthersAndIsAStatusEvenForAStream) {
  TestServer s(nullptr);
  s.engine->fail_submissions_from(3, invalid_argument("does not fit"));
  const HttpResponse answer = s.post(kCompletions, R"({"prompt":["a","b","c","d"],"stream":true})");
  EXPECT_EQ(answer.status, 400);
  EXPECT_EQ(Json::parse(answer.body)["message"], "prompt 2: does not fit");
  EXPECT_EQ(s.engine->wait_for_aborts(2), (std::vector<EngineClient::RequestKey>{1, 2}));
  EXPECT_EQ(s.engine->open_requests(), 0u);
}

TEST(Errors, AFailedPromptAbortsItsSiblings) {
  TestServer s([](const GenerationRequest& r) {
    if (r.prompt_token_ids[0] != 2) return std::vector<RequestOutput>{};
    return std::vector<RequestOutput>{{.finished = true, .error = internal_error("prompt two broke")}};
  });
  EXPECT_EQ(s.post(kCompletions, R"({"prompt":[[1],[2],[3]]})").status, 500);
  s.engine->wait_until_idle();
  EXPECT_GE(s.engine->wait_for_aborts(2).size(), 2u) << "three, if the last one was submitted at all";
}

TEST(Errors, ADeadEngineIsUnhealthyAndRefusesWork) {
  TestServer s;
  s.engine->set_health(internal_error("step failed"));
  EXPECT_EQ(s.send("GET", "/health").status, 503);
  EXPECT_EQ(s.post(kCompletions, R"({"prompt":"x"})").status, 500);
  EXPECT_EQ(s.send("GET", "/v1/models").status, 200);
}

TEST(Errors, AFullQueueIs503WithRetryAfter) {
  ServerConfig config;
  config.max_queue = 4;
  TestServer s(speak({"x"}), config);
  s.engine->set_waiting(3);
  EXPECT_EQ(s.post(kCompletions, R"({"prompt":"x"})").status, 200);
  s.engine->set_waiting(4);
  const HttpResponse answer = s.post(kCompletions, R"({"prompt":"x"})");
  EXPECT_EQ(answer.status, 503);
  EXPECT_EQ(answer.header("Retry-After"), "1");
  EXPECT_EQ(Json::parse(answer.body)["type"], "ServiceUnavailableError");
}

TEST(Errors, TooManySequencesOrStopStringsAreRefused) {
  ServerConfig config;
  config.max_sequences_per_request = 8;
  config.max_stop_strings = 2;
  TestServer s(speak({"x"}), config);
  EXPECT_EQ(s.post(kCompletions, R"({"prompt":["a","b"],"n":4})").status, 200);
  EXPECT_EQ(s.post(kCompletions, R"({"prompt":["a","b","c"],"n":4})").status, 400);
  EXPECT_EQ(s.post(kCompletions, R"({"prompt":"a","stop":["a","b","c"]})").status, 400);
}

TEST(Errors, AChatWithoutATemplateSaysSo) {
  TestServer s;
  s.codec->chat_template = false;
  const HttpResponse answer = s.post(kChat, chat(R"("n":1)"));
  EXPECT_EQ(answer.status, 400);
  EXPECT_NE(answer.body.find("no chat template"), std::string::npos);
}

// ---- random bodies ----

Json random_value(Random& random, int depth) {
  switch (random.below(depth > 3 ? 8 : 10)) {
    case 0:
      return nullptr;
    case 1:
      return random.below(2) == 0;
    case 2:
      return static_cast<int>(random.below(200)) - 100;
    case 3:
      return -9007199254740993LL * random.below(1000);
    case 4:
      return 18446744073709551615ULL;
    case 5:
      return (random.uniform() - 0.5) * 1e308;
    case 6:
      return "\xF0\x9F\x98\x80 x";
    case 7:
      return std::string(random.below(300), 'y');
    case 8: {
      Json list = Json::array();
      for (uint32_t i = 0, count = random.below(5); i < count; ++i) list.push_back(random_value(random, depth + 1));
      return list;
    }
    default: {
      Json object = Json::object();
      for (uint32_t i = 0, count = random.below(4); i < count; ++i)
        object[std::to_string(random.below(400))] = random_value(random, depth + 1);
      return object;
    }
  }
}

// Changes one value somewhere in the tree.
void mutate(Json& value, Random& random) {
  if (value.is_structured() && !value.empty() && random.below(4) != 0) {
    auto at = value.begin();
    std::advance(at, random.below(static_cast<uint32_t>(value.size())));
    return mutate(*at, random);
  }
  if (value.is_array() && random.below(2) == 0)
    value.push_back(random_value(random, 0));
  else
    value = random_value(random, 0);
}

TEST(Errors, RandomBodiesNeverGive500) {
  EngineLimits limits{.vocab_size = 300, .max_model_len = 100, .max_logprobs = 20, .priority_policy = true};
  TestServer s(speak({"Hi", " all"}), {}, true, limits);
  const std::pair<const char*, Json> seeds[] = {
      {kCompletions,
       Json::parse(R"({"model":"m","prompt":["a","b"],"max_tokens":5,"temperature":0.5,"top_p":0.9,"top_k":3,
         "n":2,"seed":1,"stop":["q"],"logit_bias":{"5":1.0},"logprobs":2,"echo":true,"stream":false,"min_tokens":1,
         "stop_token_ids":[7],"allowed_token_ids":[1,2],"truncate_prompt_tokens":4,"priority":1,"prompt_logprobs":1,
         "cache_salt":"s","request_id":"r","user":"u","best_of":2,"response_format":{"type":"text"}})")},
      {kCompletions, Json::parse(R"({"prompt":[[1,2],[3]],"stream":true,"stream_options":{"include_usage":true,
         "continuous_usage_stats":true},"logprobs":1,"echo":true,"max_tokens":0,"return_token_ids":true})")},
      {kChat,
       Json::parse(
           R"({"messages":[{"role":"system","content":"s"},{"role":"user","content":[{"type":"text","text":"t"}]},
         {"role":"assistant","content":null,"tool_calls":[{"id":"1","function":{"name":"f","arguments":"{}"}}]},
         {"role":"assistant","content":"c"}],"logprobs":true,"top_logprobs":3,"chat_template_kwargs":{"a":1},"documents":[{"b":2}],
         "max_completion_tokens":4,"continue_final_message":true,"add_generation_prompt":false,"stream":true,"n":2})")},
      {"/tokenize",
       Json::parse(
           R"({"model":"m","messages":[{"role":"user","content":"x"}],"add_special_tokens":true,"return_token_strs":true})")},
      {"/detokenize", Json::parse(R"({"model":"m","tokens":[1,2,3]})")},
  };
  Random random(2024);
  std::map<int, int> statuses;
  for (int round = 0; round < 1500; ++round) {
    auto [path, body] = seeds[static_cast<size_t>(round) % std::size(seeds)];
    for (uint32_t i = 0, edits = 1 + random.below(3); i < edits; ++i) mutate(body, random);
    std::string text = body.dump();
    if (random.below(5) == 0 && !text.empty())
      text[random.below(static_cast<uint32_t>(text.size()))] ^= 1 << random.below(7);
    const HttpResponse answer = s.post(path, text);
    ++statuses[answer.status];
    ASSERT_TRUE(answer.status == 200 || answer.status == 400 || answer.status == 404)
        << answer.status << " for " << text;
    ASSERT_EQ(answer.body.find("\"code\":500"), std::string::npos) << text;
  }
  EXPECT_GT(statuses[200], 50);
  EXPECT_GT(statuses[400], 500);
  EXPECT_EQ(s.engine->open_requests(), 0u);
}

}  // namespace
}  // namespace millrace
