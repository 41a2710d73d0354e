// `millrace bench plot`, `pd` and `all` as a user runs them.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/text.h"
#include "tests/api/server_process.h"
#include "tests/bench/mock_llm.h"

namespace millrace {
namespace {

std::string port_of(const MockLlm& server) { return std::to_string(server.port()); }

CommandResult bench(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), "bench");
  return run_millrace(arguments);
}

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
  EXPECT_NEAR(page["data"]["systems"][1]["ttft_p90_ms"][0].get<double>(), 300, 60);
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
