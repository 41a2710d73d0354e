// Result files of this program and of others, and files that are none.
#include "bench/result_files.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/file.h"
#include "base/random.h"
#include "bench/outputs.h"

namespace millrace::bench {
namespace {

Point measured(double rate) {
  Point p;
  for (int i = 0; i < 4; ++i) {
    RequestRecord r{.index = i, .scheduled_s = 1, .sent_s = 1, .first_token_s = 1.1 + 0.1 * i};
    r.last_token_s = r.done_s = r.first_token_s + 0.2;
    r.chunks = {{r.first_token_s, 1}, {r.last_token_s, 10}};
    r.output_tokens = r.requested_output_tokens = 11;
    r.output_source = CountSource::kUsage;
    p.run.requests.push_back(r);
  }
  p.run.requests.push_back({.sent_s = 1, .done_s = 2, .outcome = Outcome::kTimedOut, .error = "late"});
  p.run.request_rate = rate, p.run.planned_requests = 5;
  p.measures = measure(p.run);
  p.checks = {{"failures", Level::kInvalid, "20 %"}};
  return p;
}

// What `vllm bench serve --save-result --save-detailed` wrote before it listed latencies; the third request failed.
const char* const kVllm = R"({"date": "20260722-041843", "endpoint_type": "openai", "backend": "openai", "label": null,
"model_id": "m", "tokenizer_id": "m", "num_prompts": 3, "request_rate": 2.0, "burstiness": 1.0, "max_concurrency": null,
"duration": 2.0, "completed": 2, "failed": 1, "total_input_tokens": 20, "total_output_tokens": 8,
"request_throughput": 1.0, "request_goodput": null, "output_throughput": 4.0, "total_token_throughput": 14.0,
"input_lens": [10, 10, 10], "output_lens": [5, 3, 0], "ttfts": [0.1, 0.2, 0.0],
"itls": [[0.01, 0.01, 0.01, 0.01], [0.02, 0.02], []], "generated_texts": ["", "", ""], "errors": ["", "", "refused"],
"mean_ttft_ms": 150.0, "p90_ttft_ms": 190.0})";
const char* const kVllm061 = R"({"date": "20240910-000000", "backend": "vllm", "model_id": "m", "tokenizer_id": "m",
"best_of": 1, "use_beam_search": false, "num_prompts": 100, "request_rate": 4.0, "duration": 30.0, "completed": 98,
"total_input_tokens": 1000, "total_output_tokens": 2000, "request_throughput": 3.2, "output_throughput": 66.0,
"p90_ttft_ms": 120.5, "p90_tpot_ms": 31.25, "mean_e2el_ms": 700.0, "median_e2el_ms": 900.0, "p90_e2el_ms": 1500.0})";
const char* const kDistServe = R"([
{"prompt_len": 8, "output_len": 3, "start_time": 100.0, "end_time": 100.5, "token_timestamps": [100.1, 100.2, 100.4],
 "lifecycle_events": null},
{"prompt_len": 8, "output_len": 1, "start_time": 101.0, "end_time": 102.0, "token_timestamps": [101.5]}])";
const char* const kStatic =
    "\xEF\xBB\xBF"
    "Input_Length,Output_Length,Concurrency,Output_Token_Throughput(tokens/s),TP90_TTFT(s),TP90_TPOT(s),AVG_E2E(s),"
    "Total_Time(s)\r\n1024.0,512.0,300,290.1167,0.328,0.0077,4.1,60.5\r\n";

TEST(ResultFiles, OurResultComesBackAsItWasMeasured) {
  const SweepPoint before = sweep_point(measured(2));
  const auto points = parse_results(full_result({measured(2), measured(INFINITY)}).dump(), "x.json");
  ASSERT_TRUE(points.ok()) << points.status().message();
  ASSERT_EQ(points->size(), 1u);  // the other has no rate
  const SweepPoint& after = (*points)[0];
  EXPECT_EQ(after.rate, 2);
  EXPECT_EQ(after.issued, 5);
  EXPECT_EQ(after.completed, 4);
  EXPECT_EQ(after.planned, 5);
  EXPECT_NEAR(after.ttft_p90_ms, before.ttft_p90_ms, 1e-6);
  EXPECT_NEAR(after.tpot_p90_ms, before.tpot_p90_ms, 1e-6);
  EXPECT_NEAR(after.e2el_mean_ms, before.e2el_mean_ms, 1e-6);
  EXPECT_EQ(after.output_throughput, before.output_throughput);
  EXPECT_EQ(after.answers->size(), 4u);
  EXPECT_TRUE(after.judged);
  EXPECT_EQ(after.problem, "failures 20 %");
}

TEST(ResultFiles, VllmsListsAreReadAndItsFailuresAreMisses) {
  const auto points = parse_results(kVllm, "openai-2.0qps-m-20260722-041843.json");
  ASSERT_TRUE(points.ok()) << points.status().message();
  const SweepPoint& p = (*points)[0];
  EXPECT_EQ(p.rate, 2);
  EXPECT_EQ(p.issued, 3);
  ASSERT_EQ(p.answers->size(), 2u);
  EXPECT_NEAR((*p.answers)[0].ttft_ms, 100, 1e-9);
  EXPECT_NEAR((*p.answers)[0].tpot_ms, 10, 1e-9);
  EXPECT_NEAR((*p.answers)[1].e2el_ms, 240, 1e-9);
  EXPECT_NEAR(p.ttft_p90_ms, 190, 1e-9);
  EXPECT_FALSE(p.judged);
}

TEST(ResultFiles, OldVllmsSwappedMeanAndMedianArePutRight) {
  const auto points = parse_results(kVllm061, "x.json");
  ASSERT_TRUE(points.ok()) << points.status().message();
  EXPECT_EQ((*points)[0].e2el_mean_ms, 900);
  EXPECT_EQ((*points)[0].e2el_median_ms, 700);
  EXPECT_EQ((*points)[0].tpot_p90_ms, 31.25);
  EXPECT_EQ((*points)[0].issued, 100);
  EXPECT_FALSE((*points)[0].answers);
}

TEST(ResultFiles, AppendedVllmResultsAreSeveralPoints) {
  std::string one = kVllm, two = kVllm061;
  std::erase(one, '\n'), std::erase(two, '\n');
  const auto points = parse_results(one + "\n" + two, "x.json");
  ASSERT_TRUE(points.ok()) << points.status().message();
  EXPECT_EQ(points->size(), 2u);
}

TEST(ResultFiles, AVllmResultWithoutP90SaysWhatToDo) {
  std::string text = kVllm061;
  text.replace(text.find("p90_ttft"), 8, "p99_ttft");
  text.replace(text.find("p90_tpot"), 8, "p99_tpot");
  EXPECT_NE(parse_results(text, "x.json").status().message().find("--metric-percentiles 90"), std::string::npos);
}

TEST(ResultFiles, DistServesTimesAreSecondsAndItsRateIsInTheName) {
  const auto points = parse_results(kDistServe, "distserve-100-1.5.exp");
  ASSERT_TRUE(points.ok()) << points.status().message();
  const SweepPoint& p = (*points)[0];
  EXPECT_EQ(p.rate, 1.5);
  EXPECT_EQ(p.planned, 100);
  EXPECT_NEAR((*p.answers)[0].ttft_ms, 100, 1e-6);
  EXPECT_NEAR((*p.answers)[0].tpot_ms, 150, 1e-6);
  EXPECT_TRUE(std::isnan((*p.answers)[1].tpot_ms));
  EXPECT_NEAR(p.output_throughput, 2, 1e-9);
  EXPECT_FALSE(parse_results(kDistServe, "distserve.exp").ok());
}

TEST(ResultFiles, AStaticTableGivesItsPercentilesInMilliseconds) {
  for (const char* name : {"1024-512-300-0.5.csv", "1024-512-300-0.5_20260102030405.csv"}) {
    const auto points = parse_results(kStatic, name);
    ASSERT_TRUE(points.ok()) << points.status().message();
    EXPECT_EQ((*points)[0].rate, 0.5);
    EXPECT_EQ((*points)[0].planned, 300);
    EXPECT_NEAR((*points)[0].ttft_p90_ms, 328, 1e-9);
    EXPECT_NEAR((*points)[0].tpot_p90_ms, 7.7, 1e-9);
    EXPECT_NEAR((*points)[0].output_throughput, 290.1167, 1e-9);
  }
  EXPECT_EQ(parse_results("a,b\n1,2\n", "1-2-3-4.csv").status().message().find("no column TP90_TTFT(s)"), 0u);
}

TEST(ResultFiles, WhatIsNoResultIsRefusedWithItsReason) {
  const struct {
    const char *text, *name, *said;
  } cases[] = {
      {"", "x.json", "expected"},
      {"[]", "a-1-2.exp", "the list is empty"},
      {"{}", "x.json", "no result of"},
      {"3", "x.json", "no result of"},
      {R"({"format":"millrace-bench","version":2})", "x.json", "version 2"},
      {R"({"format":"millrace-bench","version":1,"points":[{}]})", "x.json", "lacks one of"},
      {R"({"request_rate":-1,"request_throughput":1})", "x.json", "\"request_rate\" is -1"},
      {R"({"request_rate":1,"request_throughput":1})", "x.json", "there is no \"num_prompts\""},
      {R"({"request_rate":1e300,"request_throughput":1})", "x.json", "0 to 1e+12 is wanted"},
      {R"([{"start_time":5,"end_time":1,"output_len":2,"token_timestamps":[4]}])", "a-1-2.exp", "not in the order"},
      {"TP90_TTFT(s)\n", "1-2.csv", "0 rows"},
      {"TP90_TTFT(s)\nx\n", "1-2.csv", "column TP90_TTFT(s) holds 'x'"},
  };
  for (const auto& c : cases) {
    const auto points = parse_results(c.text, c.name);
    ASSERT_FALSE(points.ok()) << c.text;
    EXPECT_NE(points.status().message().find(c.said), std::string::npos) << points.status().message();
  }
}

TEST(ResultFiles, AFolderIsASystemAndRequestsNumChooses) {
  const TemporaryDirectory folder;
  ASSERT_TRUE(write_file(folder.file("1-2-5-2.json"), full_result({measured(2)}).dump()).ok());
  ASSERT_TRUE(write_file(folder.file("1-2-5-2.csv"), kStatic).ok());          // beside its JSON: left out
  ASSERT_TRUE(write_file(folder.file("1-2-5-2.millrace.csv"), "no\n").ok());  // not read
  ASSERT_TRUE(write_file(folder.file("1-2-300-0.5.csv"), kStatic).ok());
  ASSERT_TRUE(write_file(folder.file("README.md"), "hello").ok());
  const auto system = read_system("A", folder.path(), 0);
  ASSERT_TRUE(system.ok()) << system.status().message();
  ASSERT_EQ(system->points.size(), 2u);
  EXPECT_EQ(system->points[0].rate, 0.5);
  EXPECT_EQ(system->points[1].rate, 2);
  EXPECT_EQ(read_system("A", folder.path(), 300)->points.size(), 1u);
  EXPECT_NE(read_system("A", folder.path(), 7).status().message().find("--requests-num"), std::string::npos);
  EXPECT_NE(read_system("A", folder.file("none"), 0).status().message().find("no such file or folder"),
            std::string::npos);
  EXPECT_EQ(read_system("A", folder.file("1-2-5-2.json"), 0)->points.size(), 1u);
}

// Bytes changed, cut out, doubled: an error or points whose figures are in range, never anything else.
TEST(ResultFiles, MutatedFilesNeverGiveFiguresOutOfRange) {
  const std::vector<std::pair<std::string, std::string>> seeds = {{full_result({measured(2)}).dump(), "a.json"},
                                                                  {kVllm, "b.json"},
                                                                  {kVllm061, "c.json"},
                                                                  {kDistServe, "d-100-1.5.exp"},
                                                                  {kStatic, "1024-512-300-0.5.csv"}};
  Random random(11);
  const std::string alphabet = "0123456789-+.eE\"[]{},:nulltrueinf \n\r\xFF";
  int read = 0;
  for (int round = 0; round < 4000; ++round) {
    auto [text, name] = seeds[static_cast<size_t>(round) % seeds.size()];
    for (int change = 0; change <= round % 4; ++change) {
      const size_t at = random.below(text.size());
      const size_t length = std::min<size_t>(1 + random.below(8), text.size() - at);
      switch (random.below(3)) {
        case 0:
          text[at] = alphabet[random.below(alphabet.size())];
          break;
        case 1:
          text.erase(at, length);
          break;
        default:
          text.insert(at, text.substr(at, length));
      }
      if (text.empty()) text = "x";
    }
    const auto points = parse_results(text, name);
    if (!points.ok()) continue;
    ++read;
    for (const SweepPoint& p : *points) {
      EXPECT_TRUE(p.rate > 0 && p.rate <= 1e12) << p.rate;
      EXPECT_FALSE(p.ttft_p90_ms < 0 || p.ttft_p90_ms > 1e15);
      EXPECT_FALSE(p.tpot_p90_ms < 0 || p.tpot_p90_ms > 1e15);
      SweepSystem system{"A", {p}};
      rate_sweep("t", {system}, {.ttft_ms = 100, .tpot_ms = 10});
    }
  }
  EXPECT_GT(read, 400);  // most changes of digits still leave a result
}

}  // namespace
}  // namespace millrace::bench
