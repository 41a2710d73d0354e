// What is wrong is said: broken model folders, impossible flags, a taken port, bad requests. The server goes on.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <nlohmann/json.hpp>

#include "base/file.h"
#include "tests/api/server_process.h"

namespace millrace {
namespace {

using testing::HasSubstr;

class Failure : public testing::Test {
 protected:
  void SetUp() override {
    model_ = folder_.file("m");
    const CommandResult made = run_millrace({"init", model_, "--size", "tiny", "--dtype", "float32"});
    ASSERT_EQ(made.exit_code, 0) << made.output;
  }
  CommandResult serve(std::vector<std::string> more, const std::vector<std::string>& environment = {}) {
    std::vector<std::string> arguments = {"serve", "--model", model_, "--host", "127.0.0.1", "--port", "0"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return run_millrace(arguments, environment);
  }
  // `serve` ends with `code` and says `text`.
  void expect_refused(const CommandResult& result, int code, const std::string& text) {
    EXPECT_EQ(result.exit_code, code) << result.output;
    EXPECT_THAT(result.output, HasSubstr(text));
  }
  void set_config(const Json& changes) {
    Json config = *read_json_file(model_ + "/config.json");
    config.update(changes);
    ASSERT_TRUE(write_file(model_ + "/config.json", dump_json(config)).ok());
  }
  const TemporaryDirectory folder_;
  std::string model_, log_;
};

TEST_F(Failure, FlagsThatCannotBe) {
  expect_refused(serve({"--max-model-length", "5"}), 2,
                 "unknown flag '--max-model-length'; did you mean '--max-model-len'?");
  expect_refused(serve({"--dtype", "int4"}), 2, "--dtype");
  expect_refused(serve({"--max-model-len", "99999999"}), 1, "VLLM_ALLOW_LONG_MAX_MODEL_LEN");
  expect_refused(serve({"--num-gpu-blocks-override", "2", "--max-model-len", "512"}), 1,
                 "the KV cache holds only 32 tokens");
  expect_refused(serve({"--kv-cache-memory-bytes", "100"}), 1, "does not hold one block");
  expect_refused(serve({}, {"VLLM_CPU_KVCACHE_SPACE=many"}), 1, "VLLM_CPU_KVCACHE_SPACE is 'many'");
  expect_refused(serve({"--tensor-parallel-size", "2"}), 2, "supports only 1");
  expect_refused(serve({"--max-num-batched-tokens", "8"}), 1, "--max-num-batched-tokens (8)");
  expect_refused(serve({"--rope-scaling", "{"}), 1, "--rope-scaling: not valid JSON");
  expect_refused(run_millrace({"srve"}), 2, "did you mean 'serve'?");
  expect_refused(run_millrace({"serve"}), 1, "no model");
}

TEST_F(Failure, KvCachesThatCannotBe) {
  const std::string file = folder_.file("kv_cache_scales.json");
  expect_refused(serve({"--kv-cache-dtype", "fp8"}), 2, "--kv-cache-dtype");
  for (const char* dtype : {"auto", "int8-dynamic"})
    expect_refused(serve({"--kv-cache-dtype", dtype, "--quantization-param-path", file}), 1,
                   "--quantization-param-path has scales for --kv-cache-dtype int8");
  const std::vector<std::string> int8 = {"--kv-cache-dtype", "int8", "--quantization-param-path", file};
  expect_refused(serve(int8), 1, "kv_cache_scales.json");
  ASSERT_TRUE(write_file(file, R"({"kv_cache": {"dtype": "int8", "scaling_factor": {"0": {"0": 0.5}}}})").ok());
  expect_refused(serve(int8), 1, "kv_cache.scaling_factor.0.1 is missing");
  model_ = std::string(MILLRACE_SOURCE_DIR) + "/tests/golden/deepseek_v3";
  expect_refused(serve({"--skip-tokenizer-init", "--kv-cache-dtype", "int8"}), 1, "has latent attention");
}

TEST_F(Failure, ModelFoldersThatAreBroken) {
  model_ = folder_.file("none");
  expect_refused(serve({}), 1, "no such folder");
  model_ = folder_.file("m");
  const std::string weights = *read_file(model_ + "/model.safetensors"), config = *read_file(model_ + "/config.json");
  ASSERT_TRUE(write_file(model_ + "/model.safetensors", weights.substr(0, weights.size() / 2)).ok());
  expect_refused(serve({}), 1, "model.safetensors");
  ASSERT_TRUE(write_file(model_ + "/model.safetensors", "\xff\xff\xff\xff\xff\xff\xff\x7f{}").ok());
  expect_refused(serve({}), 1, "model.safetensors");
  ASSERT_TRUE(write_file(model_ + "/model.safetensors", weights).ok());
  set_config({{"num_key_value_heads", 3}});
  expect_refused(serve({}), 1, "num_key_value_heads (3)");
  ASSERT_TRUE(write_file(model_ + "/config.json", config).ok());
  set_config({{"num_hidden_layers", 1000}});
  expect_refused(serve({}), 1, "model.layers.");
  ASSERT_TRUE(write_file(model_ + "/config.json", config).ok());
  set_config({{"intermediate_size", 77}});
  expect_refused(serve({}), 1, "wants [77");
  ASSERT_TRUE(write_file(model_ + "/config.json", config).ok());
  set_config({{"hidden_act", "swoosh"}});
  expect_refused(serve({}), 1, "hidden_act");
  set_config({{"architectures", {"Qwen9ForCausalLM"}}, {"model_type", "qwen9"}});
  expect_refused(serve({}), 1, "Qwen9ForCausalLM");
  ASSERT_TRUE(write_file(model_ + "/config.json", "{\"a\": ").ok());
  expect_refused(serve({}), 1, "not valid JSON");
  ASSERT_TRUE(write_file(model_ + "/config.json", config).ok());
  ASSERT_TRUE(write_file(model_ + "/tokenizer.json", "[1, 2").ok());
  expect_refused(serve({}), 1, "tokenizer.json");
}

TEST_F(Failure, APortInUse) {
  auto first = ServerProcess::start({"--model", model_});
  ASSERT_TRUE(first.ok()) << first.status().message();
  const std::string port = std::to_string((*first)->port());
  expect_refused(serve({"--port", port}), 1, "in use");
  expect_refused(serve({"--port", port, "--model", "/nowhere"}), 1, "in use");  // before anything is loaded
  EXPECT_TRUE((*first)->get("/version").ok());
}

TEST_F(Failure, RequestsThatAreWrongAndTheServerGoesOn) {
  auto started = ServerProcess::start({"--model", model_, "--served-model-name", "m", "--max-model-len", "256"});
  ASSERT_TRUE(started.ok()) << started.status().message();
  ServerProcess& server = **started;
  const Json good = {{"model", "m"}, {"prompt", "hello"}, {"max_tokens", 4}, {"temperature", 0}};
  const Json want = (*server.post("/v1/completions", good))["choices"];
  struct Case {
    Json changes;
    int status;
    const char* says;
  };
  const Case cases[] = {
      {{{"model", "other"}}, 404, "does not exist"},
      {{{"prompt", std::vector<int>(300, 65)}}, 400, "maximum context length is 256"},
      {{{"prompt", {1, 2, 100000}}}, 400, "100000"},
      {{{"prompt", {1, -2}}}, 400, "prompt"},
      {{{"prompt", 5}}, 400, "prompt"},
      {{{"prompt", Json::array()}}, 400, "prompt"},
      {{{"temperature", -1}}, 400, "temperature"},
      {{{"temperature", "hot"}}, 400, "temperature"},
      {{{"temperature", 1e308}}, 200, ""},
      {{{"top_p", 2}}, 400, "top_p must be in (0, 1], got 2"},
      {{{"top_k", -7}}, 400, "top_k"},
      {{{"n", 0}}, 400, "n must"},
      {{{"n", 1000000000}}, 400, "n"},
      {{{"max_tokens", -1}}, 400, "max_tokens"},
      {{{"max_tokens", 99999999999999}}, 200, ""},
      {{{"logprobs", 100000}}, 400, "logprobs"},
      {{{"stop", ""}}, 400, "stop"},
      {{{"logit_bias", {{"99999999", 1}}}}, 400, "logit_bias"},
      {{{"stream_options", {{"include_usage", true}}}}, 400, "stream"},
      {{{"suffix", "x"}}, 400, "suffix"},
      {{{"temprature", 1}}, 400, "did you mean 'temperature'?"},
      {{{"priority", 3}}, 400, "priority"},
  };
  for (const Case& c : cases) {
    Json body = good;
    body.update(c.changes);
    const auto reply = server.client().post_json("127.0.0.1", server.port(), "/v1/completions", dump_json(body));
    ASSERT_TRUE(reply.ok()) << dump_json(c.changes);
    EXPECT_EQ(reply->status, c.status) << dump_json(c.changes) << ": " << reply->body.substr(0, 300);
    EXPECT_THAT(reply->body, HasSubstr(c.says)) << dump_json(c.changes);
    if (c.status != 200) {
      EXPECT_TRUE(parse_json(reply->body)->at("error").at("message").is_string());
    }
  }
  for (const char* text :
       {"", "{", "[]", "nul", "{\"prompt\": \"\xff\"}", "{\"model\":\"m\",\"prompt\":\"a\",\"prompt\":}"}) {
    const auto reply = server.client().post_json("127.0.0.1", server.port(), "/v1/completions", text);
    ASSERT_TRUE(reply.ok());
    EXPECT_EQ(reply->status, 400) << text;
  }
  EXPECT_EQ((*server.post("/v1/completions", good))["choices"], want);
  EXPECT_EQ(server.stop(SIGTERM), 0);
}

TEST_F(Failure, GenerateAndTokenizeAnswerInTheTerminal) {
  const CommandResult one =
      run_millrace({"generate", "--model", model_, "hello", "--max-tokens", "4", "--temperature", "0"});
  EXPECT_EQ(one.exit_code, 0) << one.output;
  const std::string lines =
      "{\"prompt\": \"hello\", \"seed\": 1}\n\n{\"prompt\": [1, 2, 3], \"n\": 2}\n{\"promt\": 1}\n";
  ASSERT_TRUE(write_file(folder_.file("in.jsonl"), lines).ok());
  const CommandResult file = run_millrace(
      {"generate", "--model", model_, "--input", folder_.file("in.jsonl"), "--output", folder_.file("out.jsonl")});
  EXPECT_EQ(file.exit_code, 1);
  EXPECT_THAT(file.output, HasSubstr("1 of 3 requests failed"));
  const std::vector<std::string> answers = [&] {
    std::vector<std::string> parts;
    const std::string text = *read_file(folder_.file("out.jsonl"));
    for (size_t at = 0, end; (end = text.find('\n', at)) != std::string::npos; at = end + 1)
      parts.push_back(text.substr(at, end - at));
    return parts;
  }();
  ASSERT_EQ(answers.size(), 3u);
  EXPECT_EQ(parse_json(answers[1])->at("choices").size(), 2u);
  EXPECT_THAT(answers[2], HasSubstr("did you mean 'prompt'?"));
  const CommandResult ids = run_millrace({"tokenize", "--model", model_, "--json"}, {}, "hi!");
  EXPECT_EQ(*parse_json(ids.output), Json({{"count", 3}, {"tokens", {104, 105, 33}}}));
  EXPECT_EQ(run_millrace({"tokenize", "--model", model_, "--decode", "[104, 105]"}).output, "hi\n");
  const CommandResult chat = run_millrace({"chat", model_, "--max-tokens", "3"}, {}, "hello\n/reset\nagain\n");
  EXPECT_EQ(chat.exit_code, 0) << chat.output;
}

TEST_F(Failure, WithoutATemplateTheFamilysChatFormatIsTakenAndSaid) {
  const Json body = {{"model", "m"}, {"messages", {{{"role", "user"}, {"content", "x"}}}}};
  const auto tokens = [&](const std::vector<std::string>& more) {
    std::vector<std::string> arguments = {"--model", model_, "--served-model-name", "m"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    auto server = ServerProcess::start(arguments);
    EXPECT_TRUE(server.ok()) << server.status().message();
    const Json answer = *(*server)->post("/tokenize", body);
    EXPECT_TRUE((*server)->post("/v1/chat/completions", body).ok());
    log_ = (*server)->log();
    return answer.at("tokens").get<std::vector<int>>();
  };
  const std::vector<int> own = tokens({});
  EXPECT_THAT(log_, Not(HasSubstr("chat format")));
  ASSERT_TRUE(write_file(model_ + "/tokenizer_config.json", R"({"eos_token": "<|im_end|>"})").ok());
  const std::vector<int> familys = tokens({});
  EXPECT_THAT(log_,
              HasSubstr("no chat template; chats take ChatML format, usual in the family qwen2. --chat-template"));
  // The family's says "You are a helpful assistant." before it says the same.
  ASSERT_GT(familys.size(), own.size());
  EXPECT_EQ(std::vector<int>(familys.end() - static_cast<std::ptrdiff_t>(own.size()), familys.end()), own);
  EXPECT_EQ(tokens({"--chat-template", "{{ messages[0].content }}"}), std::vector<int>{'x'});
  EXPECT_THAT(log_, Not(HasSubstr("chat format")));
}

TEST_F(Failure, AModelThatDoesNotChatSaysHowItWould) {
  const std::string qwen = model_;
  model_ = folder_.file("gpt2");
  const std::string golden = MILLRACE_SOURCE_DIR "/../shared/golden/gpt2/";
  const auto config = read_file(golden + "config.json"), weights = read_file(golden + "model.safetensors");
  if (!config.ok() || !weights.ok()) GTEST_SKIP() << "../shared/golden/gpt2 is not there";
  ASSERT_TRUE(make_directories(model_).ok());
  ASSERT_TRUE(write_file(model_ + "/config.json", *config).ok());
  ASSERT_TRUE(write_file(model_ + "/model.safetensors", *weights).ok());
  ASSERT_TRUE(write_file(model_ + "/tokenizer.json", *read_file(qwen + "/tokenizer.json")).ok());
  expect_refused(run_millrace({"chat", model_}, {}, "hi\n"), 1, "--chat-template gives it one");
  const CommandResult given =
      run_millrace({"chat", model_, "--max-tokens", "2", "--chat-template", "{{ 'x' }}"}, {}, "hi\n");
  EXPECT_EQ(given.exit_code, 0) << given.output;
  auto server = ServerProcess::start({"--model", model_, "--served-model-name", "m"});
  ASSERT_TRUE(server.ok()) << server.status().message();
  const Json body = {{"model", "m"}, {"messages", {{{"role", "user"}, {"content", "x"}}}}};
  for (const char* target : {"/v1/chat/completions", "/tokenize"})
    EXPECT_THAT((*server)->post(target, body, 400)->dump(), HasSubstr("--chat-template")) << target;
}

TEST_F(Failure, InitRefusesAFolderWithAModel) {
  expect_refused(run_millrace({"init", model_}), 1, "config.json");
  expect_refused(run_millrace({"init", folder_.file("x"), "--family", "qwen22"}), 1, "qwen2");
  expect_refused(run_millrace({"init", folder_.file("x"), "--size", "hugge"}), 1, "hugge");
}

}  // namespace
}  // namespace millrace
