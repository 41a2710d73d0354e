// Files that other tools read: titles, keys and numbers.
#include "bench/outputs.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cmath>

#include "base/file.h"
#include "bench/csv.h"

namespace millrace::bench {
namespace {

// Two requests of `tokens` tokens: first token after 0.1 s, then one each 0.01 s; the second begins 0.05 s later.
Point point(int64_t parallel, int64_t input, int64_t tokens = 11) {
  Point p;
  for (const double sent : {1.0, 1.05}) {
    RequestRecord r{.scheduled_s = sent, .sent_s = sent, .head_s = sent, .first_token_s = sent + 0.1};
    for (int64_t i = 0; i < tokens; ++i) r.chunks.push_back({sent + 0.1 + 0.01 * static_cast<double>(i), 1});
    r.last_token_s = r.done_s = r.chunks.back().at_s;
    r.prompt_tokens = input;
    r.output_tokens = r.requested_output_tokens = tokens;
    r.output_source = CountSource::kUsage;
    p.run.requests.push_back(r);
  }
  p.run.backend = "openai", p.run.model = "org/m", p.run.dataset = "alpaca", p.run.started_at = "20260102-030405";
  p.run.input_tokens = input, p.run.output_tokens = tokens, p.run.max_concurrency = parallel,
  p.run.planned_requests = 2;
  p.measures = measure(p.run, {{Metric::kTtft, 500}});
  p.checks = check_validity(p.run, p.measures);
  return p;
}

std::string cell(const CsvTable& table, const std::string& title, size_t row = 0) {
  for (size_t i = 0; i < table.titles.size(); ++i)
    if (table.titles[i] == title) return table.rows[row][i];
  return "no column " + title;
}

TEST(Csv, StaticTitlesAreThoseOfTheirGeneration) {
  const std::vector<Point> points = {point(8, 512), point(1, 512)};
  const CsvTable gen1 = static_table(CsvDialect::kGen1, points, 0);
  EXPECT_EQ(
      gen1.text().substr(0, gen1.text().find('\r')),
      "输入长度,输出长度,并发数,输出tokens总吞吐,首tokens时延TP90（ms）,首tokens时延TP99（ms）,最大首tokens时延（ms）,"
      "平均首tokens时延（ms）,增量时延TP90（ms）,增量时延TP99（ms）,最大增量时延（ms）,平均增量时延（ms）");
  const CsvTable gen2 = static_table(CsvDialect::kGen2, points, 0);
  EXPECT_EQ(gen2.text().substr(0, gen2.text().find('\r')),
            "Input_Length,Output_Length,Concurrency,Total_Token_Throughput(tokens/s),Output_Token_Throughput(tokens/s),"
            "TP75_TTFT(s),TP90_TTFT(s),TP95_TTFT(s),TP99_TTFT(s),MAX_TTFT(s),AVG_TTFT(s),TP75_TPOT(s),TP90_TPOT(s),"
            "TP95_TPOT(s),TP99_TPOT(s),MAX_TPOT(s),AVG_TPOT(s),TP90_TPOT_SEC(s),TP95_TPOT_SEC(s),TP99_TPOT_SEC(s),"
            "MAX_TPOT_SEC(s),AVG_TPOT_SEC(s),TP90_TIME_BETWEEN_FIRST_AND_SECOND_TOKEN(s),"
            "TP95_TIME_BETWEEN_FIRST_AND_SECOND_TOKEN(s),TP99_TIME_BETWEEN_FIRST_AND_SECOND_TOKEN(s),"
            "MIN_TIME_BETWEEN_FIRST_AND_SECOND_TOKEN(s),MAX_TIME_BETWEEN_FIRST_AND_SECOND_TOKEN(s),"
            "AVG_TIME_BETWEEN_FIRST_AND_SECOND_TOKEN(s),TP75_E2E(s),TP90_E2E(s),TP95_E2E(s),TP99_E2E(s),MAX_E2E(s),"
            "AVG_E2E(s),Total_Time(s),QPS,Fail_Rate,Backend,Temperature,Top_k,Top_p");
  EXPECT_EQ(cell(gen2, "Concurrency"), "1");  // sorted
  EXPECT_EQ(cell(gen2, "AVG_TTFT(s)"), "0.1");
  EXPECT_EQ(cell(gen2, "AVG_TPOT(s)"), "0.01");
  EXPECT_EQ(cell(gen2, "Total_Time(s)"), "0.25");
  EXPECT_EQ(cell(gen2, "Output_Token_Throughput(tokens/s)"), "88.0");
  EXPECT_EQ(cell(gen1, "平均首tokens时延（ms）"), "100.0");
}

// "512.0,11.0,8,...": means are floats, counts are not, as in files of the load scripts.
TEST(Csv, CellsLookAsTheLoadScriptsWriteThem) {
  const CsvTable gen1 = static_table(CsvDialect::kGen1, {point(8, 512)}, 0);
  EXPECT_EQ(gen1.rows[0], (std::vector<std::string>{"512.0", "11.0", "8", "88.0", "100.0", "100.0", "100.0", "100.0",
                                                    "10.0", "10.0", "10.0", "10.0"}));
  EXPECT_TRUE(gen1.text().ends_with("10.0\r\n"));
  Point real = point(8, 512);
  real.run.input_tokens = real.run.output_tokens = kUnknown;  // of a data set
  real.run.temperature = 0.5;
  const CsvTable gen2 = static_table(CsvDialect::kGen2, {real}, 0);
  EXPECT_EQ(cell(gen2, "Input_Length"), "512.0");
  EXPECT_EQ(cell(gen2, "Output_Length"), "11.0");
  EXPECT_EQ(cell(gen2, "Temperature"), "0.5");
  EXPECT_EQ(cell(gen2, "Top_k"), "-1");
  EXPECT_EQ(cell(gen2, "Top_p"), "1");
  EXPECT_EQ(cell(gen2, "Fail_Rate"), "0.0");
}

TEST(Csv, IncrementLatencyLeavesOutGapsDuringSomeonesPrefill) {
  // The first request decodes from 1.1 to 1.2, the second waits for its first token until 1.15: its gaps until then do
  // not count.
  Point p = point(2, 16);
  for (size_t i = 0; i < 5; ++i) p.run.requests[0].chunks[i].at_s = 1.1 + 0.001 * static_cast<double>(i);
  const CsvTable table = static_table(CsvDialect::kGen1, {p}, 0);
  EXPECT_NEAR(std::stod(cell(table, "平均增量时延（ms）")), 10, 0.5);
}

TEST(Csv, SpeculationAddsFiveColumnsAndSortsByConcurrency) {
  const CsvTable table = static_table(CsvDialect::kGen2, {point(4, 16), point(2, 99)}, 3);
  EXPECT_EQ(table.titles.size(), 46u);
  EXPECT_EQ(table.titles.back(), "AVG_SPEC_ACCEPT_RATE");
  EXPECT_EQ(cell(table, "Concurrency"), "2");
  EXPECT_EQ(cell(table, "AVG_SPEC_ACCEPT_RATE"), "0.0");
}

TEST(Csv, DynamicTablesHaveTheirTenColumns) {
  Point slow = point(0, 100), fast = point(0, 100);
  slow.run.request_rate = 0.5, fast.run.request_rate = 10;
  const CsvTable table = dynamic_table(CsvDialect::kGen2, {fast, slow});
  EXPECT_EQ(table.titles.size(), 10u);
  EXPECT_EQ(cell(table, "REQ_RATE"), "0.5");
  EXPECT_EQ(cell(table, "REQ_RATE", 1), "10.0");
  EXPECT_EQ(cell(table, "AVG_LATENCY_PER_TOKEN_FOR_A_SINGLE_REQ"), "9.0909");  // 100 ms / 11, not / 10
  EXPECT_EQ(cell(table, "AVG_PER_REQ_OUTPUT_TOKEN_THROUGHPUT"), "110.0");
  EXPECT_EQ(dynamic_table(CsvDialect::kGen1, {fast}).titles[8], "首tokens平均时延（ms）");
}

TEST(Csv, FilesHaveAMarkAndDoNotReplaceOthers) {
  const TemporaryDirectory folder;
  const CsvTable table{{"a", "b"}, {{"1,5", "say \"x\""}}};
  const std::string path = *write_csv(folder.file("t.csv"), table);
  EXPECT_EQ(*read_file(path),
            "\xEF\xBB\xBF"
            "a,b\r\n\"1,5\",\"say \"\"x\"\"\"\r\n");
  const std::string second = *write_csv(folder.file("t.csv"), table);
  struct stat status {};
  ASSERT_EQ(::stat(path.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0600u);
  const std::string stamp = second.substr(folder.file("t").size());
  EXPECT_EQ(stamp.size(), std::string("_20260102030405.csv").size()) << second;
  EXPECT_TRUE(second.ends_with(".csv"));
}

TEST(Csv, FloatsLookAsPythonPrintsThem) {
  EXPECT_EQ(python_float(3), "3.0");
  EXPECT_EQ(python_float(0.12345), "0.1235");
  EXPECT_EQ(python_float(-2.5), "-2.5");
  EXPECT_EQ(python_float(NAN), "");
}

TEST(VllmResult, HasTheKeysInOrder) {
  Point p = point(0, 100);
  p.run.request_rate = INFINITY;
  p.run.metadata = {{"gpu", "none"}};
  const OrderedJson json = vllm_result(p, {.detailed = true});
  std::vector<std::string> keys;
  for (const auto& [key, value] : json.items()) keys.push_back(key);
  const std::vector<std::string> wanted = {"date",
                                           "endpoint_type",
                                           "backend",
                                           "label",
                                           "model_id",
                                           "tokenizer_id",
                                           "num_prompts",
                                           "gpu",
                                           "request_rate",
                                           "burstiness",
                                           "max_concurrency",
                                           "duration",
                                           "completed",
                                           "failed",
                                           "total_input_tokens",
                                           "total_output_tokens",
                                           "request_throughput",
                                           "request_goodput",
                                           "output_throughput",
                                           "total_token_throughput",
                                           "input_lens",
                                           "output_lens",
                                           "ttfts",
                                           "itls",
                                           "latencies",
                                           "start_times",
                                           "queue_times",
                                           "generated_texts",
                                           "errors",
                                           "max_output_tokens_per_s",
                                           "max_concurrent_requests",
                                           "rtfx",
                                           "mean_ttft_ms",
                                           "median_ttft_ms",
                                           "std_ttft_ms",
                                           "p99_ttft_ms",
                                           "mean_tpot_ms",
                                           "median_tpot_ms",
                                           "std_tpot_ms",
                                           "p99_tpot_ms",
                                           "mean_itl_ms",
                                           "median_itl_ms",
                                           "std_itl_ms",
                                           "p99_itl_ms"};
  EXPECT_EQ(keys, wanted);
  EXPECT_EQ(json["request_rate"], "inf");
  EXPECT_NEAR(json["mean_ttft_ms"].get<double>(), 100, 1e-6);
  EXPECT_NEAR(json["median_itl_ms"].get<double>(), 10, 1e-6);
  EXPECT_EQ(json["itls"][0].size(), 10u);
  EXPECT_EQ(vllm_result_name(p, ""), "openai-infqps-m-20260102-030405.json");
  p.run.request_rate = 2, p.run.max_concurrency = 4;
  EXPECT_EQ(vllm_result_name(p, "x"), "x-2.0qps-concurrency4-m-20260102-030405.json");
}

TEST(VllmText, IsFiftyWideAndMarksInvalidFigures) {
  Point p = point(4, 100);
  const std::string text = vllm_text(p, {});
  EXPECT_TRUE(
      text.starts_with("============ Serving Benchmark Result ============\n"
                       "Successful requests:                     2         \n"
                       "Failed requests:                         0         \n"));
  EXPECT_NE(text.find("Mean TTFT (ms):                          100.00    \n"), std::string::npos);
  EXPECT_NE(text.find("---------------Time to First Token----------------\n"), std::string::npos);
  EXPECT_EQ(text.find("INVALID"), std::string::npos);
  p.run.client.cpu_share = 0.99;
  p.checks = check_validity(p.run, p.measures);
  EXPECT_NE(vllm_text(p, {}).find("THE FIGURES ABOVE ARE INVALID"), std::string::npos);
  EXPECT_FALSE(metrics_table(p).invalid_reason().empty());
}

TEST(FullResult, KeepsEveryRequest) {
  Point p = point(4, 100);
  p.run.requests[1].outcome = Outcome::kTimedOut;
  p.run.requests[1].error = "late";
  const Json json = full_result({p});
  const Json& requests = json["points"][0]["requests"];
  ASSERT_EQ(requests.size(), 2u);
  EXPECT_EQ(requests[0]["chunks"].size(), 11u);
  EXPECT_EQ(requests[0]["chunks"][0], Json::parse("[1.1,1.0]"));
  EXPECT_EQ(requests[1]["outcome"], "timed out");
  EXPECT_EQ(requests[1]["error"], "late");
  EXPECT_EQ(requests[0]["cached_tokens"], nullptr);
  EXPECT_EQ(json["points"][0]["validity"]["valid"].is_boolean(), true);
}

// 60 requests whose TTFT is around `ttft_ms`.
Point many(double ttft_ms) {
  Point p;
  for (int i = 0; i < 60; ++i) {
    RequestRecord r{.scheduled_s = 0, .sent_s = 0, .first_token_s = (ttft_ms + i % 7) * 1e-3};
    r.chunks = {{r.first_token_s, 1}, {r.first_token_s + 0.01 + 1e-4 * (i % 5), 1}};
    r.last_token_s = r.done_s = r.chunks[1].at_s;
    r.output_tokens = 2;
    p.run.requests.push_back(r);
  }
  p.run.max_concurrency = 1;
  p.measures = measure(p.run);
  return p;
}

TEST(Baseline, OnlyARealDifferenceIsWorse) {
  const Json baseline = baseline_of({many(100)});
  EXPECT_FALSE(compare_with(baseline, {many(100)})->worse);
  EXPECT_TRUE(compare_with(baseline, {many(150)})->worse);
  EXPECT_FALSE(compare_with(baseline, {many(70)})->worse);
}

TEST(Baseline, WhatIsNoneIsRefused) {
  const Json baseline = baseline_of({many(100)});
  Point other = many(100);
  other.run.max_concurrency = 7;
  EXPECT_FALSE(compare_with(baseline, {other}).ok());
  for (const char* bad :
       {"[]", "{}", R"({"format":"millrace-bench-baseline","version":1,"points":5})",
        R"({"format":"millrace-bench-baseline","version":1,"points":[3]})",
        R"({"format":"millrace-bench-baseline","version":1,"points":[{"name":"1 at once"}]})",
        R"({"format":"millrace-bench-baseline","version":1,"points":[{"name":"1 at once","ttft_ms":["x"]}]})"})
    EXPECT_FALSE(compare_with(Json::parse(bad), {many(100)}).ok()) << bad;
}

TEST(MaxRate, IsBracketedAndBisected) {
  for (const double edge : {0.07, 1.0, 6.3, 700.0}) {
    const auto found = find_max_rate({.tolerance = 0.05}, [&](double rate) -> Result<bool> { return rate <= edge; });
    ASSERT_TRUE(found.ok());
    EXPECT_LE(found->rate, edge);
    EXPECT_GE(found->rate, edge / 1.06);
    EXPECT_LT(found->tried.size(), 40u);
  }
  EXPECT_EQ(find_max_rate({}, [](double) -> Result<bool> { return false; })->rate, 0);
  EXPECT_FALSE(find_max_rate({.highest = 100}, [](double) -> Result<bool> { return true; })->bounded);
  EXPECT_FALSE(find_max_rate({}, [](double) -> Result<bool> { return cancelled("x"); }).ok());
}

}  // namespace
}  // namespace millrace::bench
