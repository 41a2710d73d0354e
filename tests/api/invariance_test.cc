// The same requests give the same answers alone, together, chunked, cached, preempted, sampled four at a time and in
// multi-step groups, down to the last bit of their log-probabilities, in every dtype.
#include <gtest/gtest.h>

#include <cmath>
#include <future>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/random.h"
#include "tests/api/server_process.h"
#include "tests/golden_folders.h"

namespace millrace {
namespace {

constexpr int kRequests = 32;

// Requests of every kind: greedy and sampled, penalised, biased, short and long, echoing, several answers.
Json request(int i) {
  Random random(1000 + i);
  Json prompt = Json::array();
  const int length = i % 8 == 0 ? 1 : 1 + static_cast<int>(random.below(70));
  const bool shares_prefix = i % 3 == 0;
  for (int t = 0; t < length; ++t) prompt.push_back(shares_prefix ? 3 + t * 5 % 250 : 3 + random.below(300));
  Json body = {
      {"model", "m"},  {"prompt", prompt},         {"max_tokens", 4 + i % 19}, {"ignore_eos", true},
      {"logprobs", 3}, {"return_token_ids", true}, {"seed", 77 + i},           {"temperature", i % 2 ? 0.9 : 0.0}};
  if (i % 4 == 1) body.update({{"top_p", 0.8}, {"top_k", 40}});
  if (i % 4 == 3) body.update({{"min_p", 0.02}, {"repetition_penalty", 1.2}, {"presence_penalty", 0.3}});
  if (i % 5 == 2) body["logit_bias"] = {{"17", 2.5}, {"30", -4.0}};
  if (i % 7 == 5) body.update({{"echo", true}});
  if (i % 8 == 7) body["n"] = 4;
  return body;
}

struct Answer {
  Json tokens;
  std::vector<double> logprobs;
};

std::vector<Answer> answers_of(const Json& reply) {
  std::vector<Answer> answers;
  for (const Json& choice : reply.at("choices")) {
    Answer answer{.tokens = choice.at("token_ids")};
    for (const Json& value : choice.at("logprobs").at("token_logprobs"))
      answer.logprobs.push_back(value.is_null() ? 0 : value.get<double>());
    answers.push_back(std::move(answer));
  }
  return answers;
}

using Answers = std::vector<std::vector<Answer>>;

Answers ask_one_by_one(ServerProcess& server) {
  Answers all;
  for (int i = 0; i < kRequests; ++i) {
    const Result<Json> reply = server.post("/v1/completions", request(i));
    EXPECT_TRUE(reply.ok()) << reply.status().message();
    all.push_back(reply.ok() ? answers_of(*reply) : std::vector<Answer>{});
  }
  return all;
}

Answers ask_together(ServerProcess& server) {
  std::vector<std::future<Result<Json>>> pending;
  for (int i = 0; i < kRequests; ++i)
    pending.push_back(
        std::async(std::launch::async, [&server, i] { return server.post("/v1/completions", request(i)); }));
  Answers all;
  for (auto& future : pending) {
    const Result<Json> reply = future.get();
    EXPECT_TRUE(reply.ok()) << reply.status().message();
    all.push_back(reply.ok() ? answers_of(*reply) : std::vector<Answer>{});
  }
  return all;
}

void expect_same(const Answers& got, const Answers& want, const std::string& how) {
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < got.size(); ++i) {
    ASSERT_EQ(got[i].size(), want[i].size()) << how << ", request " << i;
    for (size_t c = 0; c < got[i].size(); ++c) {
      EXPECT_EQ(got[i][c].tokens, want[i][c].tokens) << how << ", request " << i << " choice " << c;
      EXPECT_EQ(got[i][c].logprobs, want[i][c].logprobs) << how << ", request " << i << " choice " << c;
    }
  }
}

std::unique_ptr<ServerProcess> serve(const std::string& folder, std::vector<std::string> more) {
  std::vector<std::string> arguments = {"--model",
                                        folder,
                                        "--skip-tokenizer-init",
                                        "--served-model-name",
                                        "m",
                                        "--max-model-len",
                                        "128",
                                        "--num-gpu-blocks-override",
                                        "400"};
  arguments.insert(arguments.end(), more.begin(), more.end());
  auto server = ServerProcess::start(arguments);
  EXPECT_TRUE(server.ok()) << server.status().message();
  return server.ok() ? std::move(*server) : nullptr;
}

struct Variant {
  const char* name;
  std::vector<std::string> flags;
};
const Variant kVariants[] = {
    {"prefix caching on", {}},
    {"prefix caching off", {"--no-enable-prefix-caching"}},
    {"chunks of 1", {"--long-prefill-token-threshold", "1"}},
    {"chunks of 7", {"--long-prefill-token-threshold", "7", "--no-enable-prefix-caching"}},
    {"chunks of 64", {"--max-num-batched-tokens", "64", "--max-num-seqs", "64"}},
    {"no chunks", {"--no-enable-chunked-prefill"}},
    {"few blocks", {"--num-gpu-blocks-override", "14"}},
    {"few blocks, no cache", {"--num-gpu-blocks-override", "14", "--no-enable-prefix-caching"}},
    {"multi-step", {"--num-scheduler-steps", "4"}},
    {"multi-step, grouped outputs", {"--num-scheduler-steps", "8", "--multi-step-stream-outputs", "false"}},
    {"blocks of 32", {"--block-size", "32"}},
};

class Invariance : public testing::TestWithParam<std::string> {};

TEST_P(Invariance, AnswersAreBitIdenticalHoweverTheyAreComputed) {
  for (const std::string dtype : {"float32", "bfloat16", "float16"}) {
    const auto alone = serve(GetParam(), {"--dtype", dtype, "--no-enable-prefix-caching", "--batch-invariant"});
    ASSERT_TRUE(alone);
    const Answers want = ask_one_by_one(*alone);
    expect_same(ask_together(*alone), want, dtype + ", together");
    for (const Variant& variant : kVariants) {
      std::vector<std::string> flags = {"--dtype", dtype, "--batch-invariant"};
      flags.insert(flags.end(), variant.flags.begin(), variant.flags.end());
      const auto server = serve(GetParam(), flags);
      ASSERT_TRUE(server) << variant.name;
      expect_same(ask_together(*server), want, fmt::format("{}, {}, cold", dtype, variant.name));
      expect_same(ask_together(*server), want, fmt::format("{}, {}, warm", dtype, variant.name));
    }
  }
}

void write_scales(const std::string& path, int layers) {
  Json factors;
  for (int i = 0; i < layers; ++i) factors[std::to_string(i)] = 0.02 + 0.01 * i;
  const Json file = {{"kv_cache", {{"dtype", "int8"}, {"scaling_factor", {{"0", factors}}}}}};
  ASSERT_TRUE(write_file(path, dump_json(file)).ok());
}

// The same with keys and values of integers, which rotations that depend on the length compute again too.
class Int8Invariance : public testing::TestWithParam<std::string> {};

TEST_P(Int8Invariance, AnswersAreBitIdenticalHoweverTheyAreComputed) {
  const TemporaryDirectory folder;
  const std::string scales = folder.file("kv_cache_scales.json");
  write_scales(scales, read_json_file(GetParam() + "/config.json")->at("num_hidden_layers").get<int>());
  for (const auto& [dtype, kv] :
       {std::pair<std::string, std::string>{"float32", "int8-dynamic"}, {"bfloat16", "int8"}}) {
    std::vector<std::string> type = {"--dtype", dtype, "--kv-cache-dtype", kv};
    if (kv == "int8") type.insert(type.end(), {"--quantization-param-path", scales});
    const auto with = [&](std::vector<std::string> flags) {
      flags.insert(flags.begin(), type.begin(), type.end());
      return flags;
    };
    const auto alone = serve(GetParam(), with({"--no-enable-prefix-caching"}));
    ASSERT_TRUE(alone);
    const Answers want = ask_one_by_one(*alone);
    for (const Variant& variant : kVariants) {
      const auto server = serve(GetParam(), with(variant.flags));
      ASSERT_TRUE(server) << variant.name;
      expect_same(ask_together(*server), want, fmt::format("{}, {}, {}, cold", dtype, kv, variant.name));
      expect_same(ask_together(*server), want, fmt::format("{}, {}, {}, warm", dtype, kv, variant.name));
    }
  }
}

std::vector<std::string> shipped(std::initializer_list<const char*> families) {
  std::vector<std::string> folders;
  for (const char* family : families)
    folders.push_back((std::filesystem::path(MILLRACE_SOURCE_DIR) / "tests/golden" / family).string());
  return folders;
}
INSTANTIATE_TEST_SUITE_P(Folders, Int8Invariance,
                         testing::ValuesIn(shipped({"llama_rope_dynamic", "qwen_v1_ntk_logn", "gemma2"})),
                         [](const auto& info) { return std::filesystem::path(info.param).filename().string(); });
INSTANTIATE_TEST_SUITE_P(Folders, Invariance,
                         testing::ValuesIn(shipped({"llama_rope_dynamic", "mistral", "qwen2_sliding",
                                                    "qwen_v1_ntk_logn", "gemma2", "baichuan2_13b", "qwen3_moe",
                                                    "deepseek_v3"})),
                         [](const auto& info) { return std::filesystem::path(info.param).filename().string(); });

}  // namespace
}  // namespace millrace
