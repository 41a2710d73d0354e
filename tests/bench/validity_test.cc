// What spoils a run, and that every output says so.
#include "bench/validity.h"

#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "bench/csv.h"
#include "bench/outputs.h"

namespace millrace::bench {
namespace {

// 100 requests a second apart, 100 ms to the first token, 10 ms for each of 10 more.
RunRecord steady_run() {
  RunRecord run{.request_rate = 1, .planned_requests = 100, .last_issue_s = 99, .wall_s = 100};
  for (int i = 0; i < 100; ++i) {
    RequestRecord r{.index = i, .scheduled_s = i + 0.0, .sent_s = i + 0.001, .prompt_tokens = 4, .output_tokens = 11};
    r.requested_output_tokens = 11;
    r.first_token_s = r.sent_s + 0.1, r.last_token_s = r.done_s = r.sent_s + 0.2;
    for (int t = 0; t < 11; ++t) r.chunks.push_back({r.first_token_s + 0.01 * t, 1});
    run.requests.push_back(std::move(r));
  }
  run.client = {.loops = 1, .cpu_share = 0.1, .loop_lag_ms = std::vector<double>(1000, 0.1)};
  return run;
}

Point point_of(const RunRecord& run) {
  Point p{.run = run, .measures = measure(run), .checks = {}};
  p.checks = check_validity(p.run, p.measures);
  return p;
}
Level level_of(const RunRecord& run, const std::string& name) {
  for (const Check& check : point_of(run).checks)
    if (check.name == name) return check.level;
  ADD_FAILURE() << "there is no check of " << name;
  return Level::kGood;
}

TEST(Validity, ASteadyRunHolds) {
  const Point p = point_of(steady_run());
  EXPECT_EQ(invalid_because(p.checks), "");
  for (const Check& check : p.checks) EXPECT_EQ(check.level, Level::kGood) << check.name << ": " << check.found;
}

// p99 > 1 ms or > 2 % of the median TTFT.
TEST(Validity, TheLagMayBeAMillisecondAndTwoPercentOfTheMedianTtft) {
  const auto level = [](double lag_ms, double ttft_ms) {
    RunRecord run = steady_run();
    for (RequestRecord& r : run.requests) r.first_token_s = r.sent_s + ttft_ms * 1e-3;
    run.client.loop_lag_ms.assign(1000, 0.01);
    for (int i = 0; i < 20; ++i) run.client.loop_lag_ms[static_cast<size_t>(i)] = lag_ms;
    return level_of(run, "event-loop lag");
  };
  EXPECT_EQ(level(0.99, 100), Level::kGood);
  EXPECT_EQ(level(1.01, 100), Level::kInvalid);
  EXPECT_EQ(level(0.39, 20), Level::kGood);
  EXPECT_EQ(level(0.41, 20), Level::kInvalid);
  EXPECT_EQ(lag_limit_ms(NAN), 1);
}

TEST(Validity, EveryItemHasItsLimit) {
  const auto with = [](const std::function<void(RunRecord&)>& change, const std::string& name) {
    RunRecord run = steady_run();
    change(run);
    return level_of(run, name);
  };
  EXPECT_EQ(with([](RunRecord& r) { r.client.cpu_share = 0.81; }, "client CPU"), Level::kInvalid);
  EXPECT_EQ(with([](RunRecord& r) { r.client.cpu_share = 0.51; }, "client CPU"), Level::kDoubtful);
  const auto late = [](RunRecord& r) {
    for (RequestRecord& q : r.requests) q.scheduled_s -= 0.02;
  };
  EXPECT_EQ(with(late, "late sends"), Level::kDoubtful);
  EXPECT_EQ(with([](RunRecord& r) { r.requests[0].output_tokens = 3; }, "short outputs"), Level::kDoubtful);
  EXPECT_EQ(with([](RunRecord& r) { r.requests[0].outcome = Outcome::kHungUp; }, "failures"), Level::kDoubtful);
  const auto fail = [](RunRecord& r) {
    for (size_t i = 0; i < 6; ++i) r.requests[i].outcome = Outcome::kTimedOut;
  };
  EXPECT_EQ(with(fail, "failures"), Level::kInvalid);
  EXPECT_EQ(with([](RunRecord& r) { r.requests[0].cached_tokens = 2; }, "cached prompt tokens"), Level::kDoubtful);
  EXPECT_EQ(with([](RunRecord& r) { r.requests[0].output_tokens = kUnknown; }, "token counts"), Level::kInvalid);
  EXPECT_EQ(with([](RunRecord& r) { r.requests.resize(99); }, "sample size"), Level::kDoubtful);
  EXPECT_EQ(with([](RunRecord& r) { r.interrupted = true; }, "whole run"), Level::kDoubtful);
}

// An open loop at 1/s against a server that does 2 in 3 s: every request waits half a second longer than the last.
TEST(Validity, AQueueThatGrowsIsSaturation) {
  RunRecord run = steady_run();
  for (size_t i = 0; i < 100; ++i) {
    RequestRecord& r = run.requests[i];
    r.first_token_s = r.sent_s + 0.5 * static_cast<double>(i);
    r.last_token_s = r.done_s = r.first_token_s + 0.1;
  }
  EXPECT_EQ(level_of(run, "saturation"), Level::kInvalid);
  run.last_issue_s = 29;
  EXPECT_EQ(level_of(run, "saturation"), Level::kGood);
}

Point invalid_point() {
  RunRecord run = steady_run();
  run.client.cpu_share = 0.95;
  return point_of(run);
}

TEST(Validity, AnInvalidRunIsMarkedInEveryOutput) {
  const Point good = point_of(steady_run()), bad = invalid_point();
  const std::string why = "client CPU: busiest of 1 loops 95 %";
  EXPECT_NE(vllm_text(bad, {}).find("INVALID:\n"), std::string::npos);
  EXPECT_NE(vllm_text(bad, {}).find(why), std::string::npos);
  EXPECT_NE(metrics_table(bad).invalid_reason().find("client CPU"), std::string::npos);
  EXPECT_EQ(metrics_table(good).invalid_reason(), "");
  EXPECT_EQ(summary_result({bad})["points"][0]["validity"]["valid"], false);
  EXPECT_TRUE(vllm_result(bad, {})["invalid_because"].get<std::string>().starts_with(why));
  EXPECT_FALSE(vllm_result(good, {}).contains("invalid_because"));
  for (const CsvDialect dialect : {CsvDialect::kGen1, CsvDialect::kGen2, CsvDialect::kMillrace}) {
    EXPECT_EQ(dynamic_table(dialect, {good, bad}).titles.back(), "INVALID");
    EXPECT_EQ(dynamic_table(dialect, {good, bad}).rows[0].back(), "");
    EXPECT_TRUE(dynamic_table(dialect, {good, bad}).rows[1].back().starts_with(why));
    EXPECT_EQ(static_table(dialect, {bad}, 0).titles.back(), "INVALID");
    EXPECT_NE(dynamic_table(dialect, {good}).titles.back(), "INVALID");
  }
}

TEST(Validity, AComparisonWithInvalidFiguresSaysThatItIsNone) {
  const Point good = point_of(steady_run()), bad = invalid_point();
  EXPECT_EQ(compare_with(baseline_of({good}), {good})->invalid_because, "");
  EXPECT_NE(compare_with(baseline_of({bad}), {good})->invalid_because.find("baseline: client CPU"), std::string::npos);
  const Against now = *compare_with(baseline_of({good}), {bad});
  EXPECT_NE(now.invalid_because.find("now: client CPU"), std::string::npos);
  EXPECT_TRUE(now.table.rows()[0].back().starts_with("INVALID: "));
}

}  // namespace
}  // namespace millrace::bench
