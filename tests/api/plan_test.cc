// `millrace plan` as a user runs it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/file.h"
#include "tests/api/server_process.h"

namespace millrace {
namespace {

using testing::HasSubstr;
using testing::Not;

TEST(Plan, OneModelIsATableOfPrecisions) {
  const CommandResult plan = run_millrace({"plan", "qwen2.5-7b", "--memory", "24GiB"});
  EXPECT_EQ(plan.exit_code, 0);
  EXPECT_THAT(plan.output, HasSubstr("Qwen/Qwen2.5-7B: Qwen2ForCausalLM (qwen2), 28 layers, 7,615,616,512 parameters"));
  for (const char* precision : {"\nfloat32 ", "\nbfloat16 ", "\nint8 ", "\nint4 "})
    EXPECT_THAT(plan.output, HasSubstr(precision));
  EXPECT_THAT(plan.output, Not(HasSubstr("attn.q.weight")));
  const CommandResult explained = run_millrace({"plan", "qwen2.5-7b", "--memory", "24GiB", "--explain"});
  EXPECT_THAT(explained.output, HasSubstr("attn.q.weight"));
  EXPECT_THAT(explained.output, HasSubstr("28 layers x 2 (k and v) x 4 heads x 128 elements"));
}

TEST(Plan, ACacheOfIntegersHoldsMoreTokens) {
  const std::vector<std::string> command = {"plan",  "Qwen/Qwen2.5-7B", "--memory",
                                            "24GiB", "--json",          "--kv-cache-dtype"};
  const auto bytes = [&](const char* dtype) {
    std::vector<std::string> all = command;
    all.push_back(dtype);
    const Result<Json> json = parse_json(run_millrace(all).output);
    EXPECT_TRUE(json.ok()) << dtype;
    return json->at("models").at(0).at("precisions").at(1).at("kv_bytes_per_token").get<int64_t>();
  };
  EXPECT_EQ(bytes("int8"), 28 * 2 * 4 * 128);
  EXPECT_EQ(bytes("int8-dynamic"), 28 * 2 * 4 * (128 + 4));
}

// 7,615,616,512 parameters in bfloat16; 28 layers of 4 heads of 128 for keys and as much for values.
TEST(Plan, JsonHasTheNumbersOfTheTable) {
  const CommandResult plan = run_millrace({"plan", "Qwen/Qwen2.5-7B", "--memory", "24GiB", "--devices", "2", "--json"});
  const Result<Json> json = parse_json(plan.output);
  ASSERT_TRUE(json.ok()) << plan.output;
  EXPECT_EQ(json->at("request").at("memory_bytes"), int64_t{24} << 30);
  const Json& bfloat16 = json->at("models").at(0).at("precisions").at(1);
  EXPECT_EQ(bfloat16.at("weight_bytes"), 2 * int64_t{7'615'616'512});
  EXPECT_EQ(bfloat16.at("kv_bytes_per_token"), 28 * 2 * 4 * 128 * 2);
  EXPECT_EQ(bfloat16.at("device_kv_bytes_per_token"), 28 * 2 * 4 * 128);
  EXPECT_EQ(bfloat16.at("fewest_devices"), 1);
  EXPECT_EQ(bfloat16.at("devices"), 2);
  EXPECT_EQ(bfloat16.at("max_model_len"), 131072);
}

TEST(Plan, WithoutAModelTheWholeListIsPlanned) {
  const CommandResult plan = run_millrace({"plan", "--memory", "80GiB", "--max-model-len", "8192", "--json"});
  const Result<Json> json = parse_json(plan.output);
  ASSERT_TRUE(json.ok()) << plan.output;
  EXPECT_GE(json->at("models").size(), 60u);
  for (const Json& model : json->at("models")) EXPECT_EQ(model.at("precisions").size(), 4u) << model.at("model");
  const CommandResult table = run_millrace({"plan", "--memory", "80GiB", "--precision", "int4"});
  EXPECT_THAT(table.output, HasSubstr("\nmeta-llama/Llama-3.1-405B "));
  EXPECT_THAT(table.output, HasSubstr("for int4 weights"));
}

TEST(Plan, AFolderAndItsConfigFileArePlannedAlike) {
  const TemporaryDirectory folder;
  const std::string model = folder.file("m");
  ASSERT_EQ(run_millrace({"init", model, "--size", "tiny"}).exit_code, 0);
  const auto plan = [](const std::string& of) {
    const Result<Json> json = parse_json(run_millrace({"plan", of, "--memory", "1GiB", "--json"}).output);
    EXPECT_TRUE(json.ok());
    return json.ok() ? json->at("models").at(0).at("precisions") : Json();
  };
  EXPECT_EQ(plan(model), plan(model + "/config.json"));
  EXPECT_EQ(plan(model).at(1).at("max_model_len"), 512);
}

TEST(Plan, MeasuringServesEveryLengthUpToTheCheckpoints) {
  const TemporaryDirectory folder;
  const std::string model = folder.file("m");
  ASSERT_EQ(
      run_millrace({"init", model, "--size", "tiny", "--config-overrides", R"({"max_position_embeddings": 9000})"})
          .exit_code,
      0);
  const CommandResult measured = run_millrace({"plan", "--measure", model, "--batch-size", "2"});
  EXPECT_EQ(measured.exit_code, 0) << measured.output;
  for (const char* length : {"\n        4,096 ", "\n        8,192 ", "\n        9,000 "})
    EXPECT_THAT(measured.output, HasSubstr(length));
  EXPECT_THAT(measured.output, HasSubstr("longest that served: 9,000 tokens (the checkpoint's own)"));
  // A cache of 5000 tokens of 2 layers of 2 heads of 16, keys and values, bfloat16, in blocks of 16.
  const Result<Json> json = parse_json(
      run_millrace({"plan", "--measure", model + "/config.json", "--max-model-len", "5000", "--json"}).output);
  ASSERT_TRUE(json.ok());
  EXPECT_EQ(json->at("longest"), 5000);
  EXPECT_EQ(json->at("end"), "--max-model-len");
  EXPECT_EQ(json->at("lengths").at(1).at("kv_cache_bytes"), 5008 * 2 * 2 * 16 * 2 * 2);
}

TEST(Plan, MeasuringStopsBeforeMemoryThatIsNotThere) {
  const CommandResult large = run_millrace({"plan", "--measure", "meta-llama/Llama-3.1-405B"});
  EXPECT_EQ(large.exit_code, 1);
  EXPECT_THAT(large.output, HasSubstr("4,096 tokens: weights of 756.0 GiB"));
  EXPECT_THAT(large.output, HasSubstr("of memory are free"));
}

void expect_refused(const CommandResult& result, int code, const std::string& words) {
  EXPECT_EQ(result.exit_code, code) << result.output;
  EXPECT_THAT(result.output, HasSubstr(words));
}

TEST(Plan, WhatCannotBePlannedIsRefusedByName) {
  expect_refused(run_millrace({"plan", "qwen2.5-7"}), 1, "did you mean 'Qwen/Qwen2.5-7B'?");
  expect_refused(run_millrace({"plan", "qwen2.5-7b", "--memory", "much"}), 1, "--memory: 'much' is not a size");
  expect_refused(run_millrace({"plan", "qwen2.5-7b", "--memory", "32"}), 1, "--memory is 32 bytes");
  expect_refused(run_millrace({"plan", "llama-2-7b-hf", "--max-model-len", "8192"}), 1, "made for 4096 tokens");
  expect_refused(run_millrace({"plan", "qwen2.5-7b", "--device", "2"}), 2, "--devices");
  expect_refused(run_millrace({"plan", "--explain"}), 1, "--explain");
  expect_refused(run_millrace({"plan", "--measure"}), 1, "--measure");
  expect_refused(run_millrace({"plan", "--measure", "qwen2.5-7"}), 1, "did you mean 'Qwen/Qwen2.5-7B'?");
  expect_refused(run_millrace({"plan", "--measure", "qwen2.5-7b", "--devices", "2"}), 1, "--devices");
  expect_refused(run_millrace({"plan", "qwen2.5-7b", "--output-len", "2"}), 1, "--output-len is about --measure");
  const TemporaryDirectory folder;
  const auto config = [&](const char* text) {
    EXPECT_TRUE(write_file(folder.file("config.json"), text).ok());
    return run_millrace({"plan", folder.file("config.json")});
  };
  expect_refused(config(R"({"architectures": ["LlamaForCausalML"]})"), 1, "did you mean 'LlamaForCausalLM'?");
  expect_refused(config(R"({"architectures": ["LlamaForCausalLM"], "use_alibi": true})"), 1, "use_alibi");
  expect_refused(config("{"), 1, "config.json");
  expect_refused(run_millrace({"plan", folder.file("nothing")}), 1, "nothing");
}

}  // namespace
}  // namespace millrace
