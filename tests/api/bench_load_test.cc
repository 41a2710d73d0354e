// `millrace bench` as a user runs it: against a scripted server, against our own, and with what is wrong.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/text.h"
#include "tests/api/bench_command.h"

namespace millrace {
namespace {

TEST(BenchCommand, StaticLoadWritesEveryTable) {
  const MockLlm server({.ttft_ms = 20, .gap_ms = 5});
  const TemporaryDirectory folder;
  const CommandResult result = bench({"parallel",
                                      "--host",
                                      "127.0.0.1",
                                      "--port",
                                      port_of(server),
                                      "--parallel-num",
                                      "2",
                                      "1",
                                      "--prompt-tokens",
                                      "32",
                                      "16",
                                      "--output-tokens",
                                      "4",
                                      "8",
                                      "--epochs",
                                      "2",
                                      "--benchmark-csv",
                                      folder.file("p.csv"),
                                      "--csv-dialect",
                                      "gen1",
                                      "--output-json",
                                      folder.file("p.json"),
                                      "--output-html",
                                      folder.file("p.html"),
                                      "--save-baseline",
                                      folder.file("base.json")});
  ASSERT_EQ(result.exit_code, 0) << result.output;
  EXPECT_EQ(read_csv(folder.file("p.csv")).size(), 5u);  // titles, four points
  EXPECT_TRUE(file_exists(folder.file("p.millrace.csv")));
  EXPECT_NE(read_file(folder.file("p.html"))->find("16 in, 8 out, 1 at once"), std::string::npos);
  const Json json = *read_json_file(folder.file("p.json"));
  ASSERT_EQ(json["points"].size(), 4u);
  EXPECT_EQ(json["points"][0]["figures"]["completed"], 4);
  EXPECT_EQ(json["points"][0]["requests"][3]["output_tokens"], 4);
  EXPECT_EQ(Json::parse(server.bodies().back())["prompt"].size(), 16u);
  const CommandResult again =
      bench({"parallel", "--port", port_of(server), "--parallel-num", "2", "--prompt-tokens", "32", "--output-tokens",
             "4", "--epochs", "2", "--against", folder.file("base.json")});
  EXPECT_NE(again.output.find("verdict"), std::string::npos) << again.output;
}

TEST(BenchTables, AreReadWithoutTheColumnOfInvalidFigures) {
  const TemporaryDirectory folder;
  ASSERT_TRUE(write_file(folder.file("t.csv"), "a,b,INVALID\r\n1,\"2,3\",\"late, busy\"\r\n4,5,\r\n").ok());
  using Cells = std::vector<std::vector<std::string>>;
  EXPECT_EQ(read_csv(folder.file("t.csv")), (Cells{{"a", "b"}, {"1", "2,3"}, {"4", "5"}}));
}

TEST(BenchCommand, VllmsDialectWritesVllmsResult) {
  const MockLlm server({.ttft_ms = 20, .gap_ms = 5});
  const TemporaryDirectory folder;
  const CommandResult result = bench({"serve",
                                      "--base-url",
                                      "http://127.0.0.1:" + port_of(server),
                                      "--model",
                                      "m",
                                      "--dataset-name",
                                      "random",
                                      "--random-input-len",
                                      "16",
                                      "--random-output-len",
                                      "4",
                                      "--num-prompts",
                                      "20",
                                      "--request-rate",
                                      "100",
                                      "--goodput",
                                      "ttft:500",
                                      "tpot:100",
                                      "--percentile-metrics",
                                      "ttft,e2el",
                                      "--metric-percentiles",
                                      "50,99.9",
                                      "--save-result",
                                      "--save-detailed",
                                      "--result-dir",
                                      folder.path(),
                                      "--result-filename",
                                      "r.json"});
  ASSERT_EQ(result.exit_code, 0) << result.output;
  const Json json = *read_json_file(folder.file("r.json"));
  EXPECT_EQ(json["completed"], 20);
  EXPECT_EQ(json["total_output_tokens"], 80);
  EXPECT_EQ(json["request_rate"], 100);
  EXPECT_TRUE(json.contains("p99.9_e2el_ms"));
  EXPECT_GT(json["request_goodput"], 0);
  EXPECT_EQ(json["ttfts"].size(), 20u);
  EXPECT_NE(result.output.find("Serving Benchmark Result"), std::string::npos);
}

TEST(BenchCommand, WhatIsWrongIsOneClearLine) {
  const MockLlm denied({.status = 401, .body = R"({"error":{"message":"bad key"}})"});
  const MockLlm busy({.status = 429, .body = R"({"error":{"message":"slow down"}})"});
  const MockLlm fine({});
  const struct {
    std::vector<std::string> arguments;
    const char* said;
  } cases[] = {
      {{"parallel", "--prompt-tokens", "1", "2", "--output-tokens", "3"},
       "--prompt-tokens has 2 values and --output-tokens 1"},
      {{"serving", "--request-rate", "1", "2", "3", "--num-prompts", "4", "5"},
       "--request-rate has 3 values and --num-prompts 2"},
      {{"serving", "--request-rate", "-1"}, "a number above 0 or inf is wanted"},
      {{"parallel", "--host", "127.0.0.1", "--port", "1"}, "127.0.0.1:1/v1/completions: unreachable"},
      {{"parallel", "--port", port_of(denied)}, "refused with status 401 (Unauthorized): bad key"},
      {{"serving", "--port", port_of(busy)}, "refused with status 429 (Too Many Requests): slow down"},
      {{"serving", "--dataset", "/nowhere.json", "--dataset-type", "alpaca", "--tokenizer", "x"}, "/nowhere.json"},
      {{"serving", "--dataset", "/nowhere.json"}, "needs --tokenizer"},
      {{"serving", "--dataset-name", "sharegpt"}, "needs --dataset-path"},
      {{"serving", "--find", "max-rate"}, "--find max-rate and --slo go together"},
      {{"serving", "--find", "max-rate", "--slo", "ttft:90:5"}, "METRIC:pNN:MS is wanted"},
      {{"serving", "--trace", "/nowhere.jsonl"}, "/nowhere.jsonl"},
      {{"parallel", "--backend", "opnai"}, "did you mean 'openai'?"},
      {{"parallel", "--port", port_of(fine), "--output-json", "/no/folder/x.json"}, "there is no folder /no/folder"},
      {{"parallel", "--port", port_of(fine), "--backend", "tgi", "--parallel-num", "1"}, "needs --tokenizer"},
      {{"dataset", "--tokenizer", "/nowhere", "--min-input", "9", "--max-input", "3"}, "input lengths from 9 to 3"},
  };
  for (const auto& c : cases) {
    const CommandResult result = bench(c.arguments);
    EXPECT_EQ(result.exit_code, 1) << result.output;
    EXPECT_NE(result.output.find(c.said), std::string::npos) << c.said << " in: " << result.output;
    EXPECT_EQ(split(result.output, '\n').size(), 2u) << result.output;
  }
}

TEST(BenchCommand, UnknownFlagsAreRefusedByName) {
  const CommandResult result = bench({"parallel", "--paralel-num", "3"});
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_NE(result.output.find("did you mean '--parallel-num'"), std::string::npos) << result.output;
  EXPECT_EQ(bench({"servign"}).exit_code, 2);
}

TEST(BenchCommand, TheLargestRateIsFound) {
  const MockLlm server({.ttft_ms = 10, .gap_ms = 1});
  const CommandResult result =
      bench({"serving", "--port", port_of(server), "--random-input-len", "8", "--random-output-len", "2",
             "--num-prompts", "4", "--request-rate", "50", "--find", "max-rate", "--slo", "ttft:p50:5000"});
  EXPECT_NE(result.output.find("Largest rate that meets the limits: at least"), std::string::npos) << result.output;
}

TEST(BenchCommand, OurOwnServerIsMeasured) {
  const TemporaryDirectory folder;
  const std::string model = folder.file("model");
  ASSERT_EQ(run_millrace({"init", model, "--size", "tiny"}).exit_code, 0);
  auto server = ServerProcess::start({model});
  ASSERT_TRUE(server.ok()) << server.status().message();
  const std::string port = std::to_string((*server)->port());
  for (const char* back_end : {"openai", "openai-chat"}) {
    const CommandResult result = bench({"parallel", "--backend", back_end, "--port", port, "--tokenizer", model,
                                        "--parallel-num", "2", "--prompt-tokens", "24", "--output-tokens", "6",
                                        "--epochs", "2", "--output-json", folder.file("r.json")});
    ASSERT_EQ(result.exit_code, 0) << result.output;
    const Json point = (*read_json_file(folder.file("r.json")))["points"][0];
    EXPECT_EQ(point["figures"]["output_tokens"], 24) << back_end;
    if (std::string_view(back_end) == "openai") {
      EXPECT_EQ(point["figures"]["input_tokens"], 96);
    }
    EXPECT_EQ(point["requests"][0]["output_tokens_from"], "usage");
    EXPECT_FALSE(point["figures"]["itl_estimated"].get<bool>());
  }
  const std::string data = folder.file("data.json");
  ASSERT_EQ(bench({"dataset", "--tokenizer",  model, "--num-requests", "20", "--min-input",  "8", "--max-input",
                   "40",      "--avg-input",  "20",  "--std-input",    "8",  "--min-output", "4", "--max-output",
                   "8",       "--avg-output", "6",   "--std-output",   "2",  "--output",     data})
                .exit_code,
            0);
  const CommandResult dynamic =
      bench({"serving", "--port", port, "--tokenizer", model, "--dataset", data, "--dataset-type", "custom",
             "--request-rate", "50", "--num-prompts", "10", "--benchmark-csv", folder.file("s.csv")});
  ASSERT_EQ(dynamic.exit_code, 0) << dynamic.output;
  EXPECT_TRUE(read_file(folder.file("s.csv"))
                  ->starts_with("\xEF\xBB\xBF"
                                "DATASET,AVG_Input_Length"));
}

}  // namespace
}  // namespace millrace
