// Figures from records made by hand.
#include "bench/measures.h"

#include <gtest/gtest.h>

#include <cmath>

#include "bench/arrivals.h"
#include "bench/prompts.h"
#include "bench/validity.h"

namespace millrace::bench {
namespace {

// Sent at `sent`, first token 0.1 s later, then one token each 0.01 s.
RequestRecord request(double sent, int64_t tokens, double late = 0) {
  RequestRecord r{.scheduled_s = sent - late, .sent_s = sent, .head_s = sent, .first_token_s = sent + 0.1};
  for (int64_t i = 0; i < tokens; ++i) r.chunks.push_back({sent + 0.1 + 0.01 * static_cast<double>(i), 1});
  r.last_token_s = r.chunks.back().at_s;
  r.done_s = r.last_token_s;
  r.prompt_tokens = 100;
  r.output_tokens = r.requested_output_tokens = tokens;
  r.output_source = r.prompt_source = CountSource::kUsage;
  return r;
}

TEST(Measures, FollowTheDefinitions) {
  RunRecord run;
  run.requests = {request(1, 11, 0.05), request(1.5, 1)};
  run.wall_s = 1;
  const Measures m = measure(run, {{Metric::kTtft, 150}, {Metric::kTpot, 10.5}});
  EXPECT_NEAR(m.sample(Metric::kTtft).mean(), 100, 1e-9);
  EXPECT_NEAR(m.sample(Metric::kTtftSched).max(), 150, 1e-9);
  EXPECT_EQ(m.sample(Metric::kTpot).size(), 1);
  EXPECT_NEAR(m.sample(Metric::kTpot).mean(), 10, 1e-9);
  EXPECT_EQ(m.sample(Metric::kItl).size(), 10);
  EXPECT_NEAR(m.sample(Metric::kE2el).max(), 200, 1e-9);
  EXPECT_NEAR(m.duration_s, 0.6, 1e-9);
  EXPECT_NEAR(m.output_throughput, 12 / 0.6, 1e-9);
  EXPECT_NEAR(m.total_throughput, 212 / 0.6, 1e-9);
  EXPECT_EQ(m.good, 2);  // one token only: TPOT counts as 0
}

TEST(Measures, FailuresAreMissesAndInterruptionsAreNeither) {
  RunRecord run;
  run.requests = {request(1, 5), request(1, 5), request(1, 5), request(1, 5)};
  run.requests[1].outcome = Outcome::kTimedOut;
  run.requests[2].outcome = Outcome::kInterrupted;
  const Measures m = measure(run, {{Metric::kE2el, 1000}});
  EXPECT_EQ(m.failed, 1);
  EXPECT_EQ(m.interrupted, 1);
  EXPECT_NEAR(m.attainment, 2.0 / 3, 1e-9);
}

TEST(Measures, TheSteadyWindowLeavesOutTheDrain) {
  RunRecord run;
  for (int i = 0; i < 10; ++i) {
    run.requests.push_back(request(i, 100));
    run.requests.push_back(request(i, 100));
  }
  run.requests.push_back(request(10, 400));  // alone at the end
  run.last_issue_s = 10;
  run.wall_s = 15;
  const Measures m = measure(run);
  ASSERT_TRUE(m.steady);
  EXPECT_EQ(m.steady->concurrency, 4);  // 1.09 s each, every second: two waves overlap
  EXPECT_NEAR(m.steady->output_throughput, 200, 5);
  EXPECT_LT(m.output_throughput, 185);
}

TEST(Measures, LimitsAreReadAndRefusedByName) {
  EXPECT_EQ(parse_limit("tpot:50")->ms, 50);
  for (const char* bad : {"ttft", "ttft:", "ttft:x", "ttft:-1", "speed:5", "itl:5", "ttft:5:6"})
    EXPECT_FALSE(parse_limit(bad).ok()) << bad;
}

TEST(Acceptance, IsEstimatedFromEventsOrReadFromCounters) {
  RunRecord run;
  RequestRecord r = request(0, 5);
  r.output_tokens = 13;  // 1 + 4 steps of 3: two of four drafts accepted
  run.requests = {r};
  const auto estimated = acceptance(run, 4);
  ASSERT_TRUE(estimated);
  EXPECT_TRUE(estimated->estimated);
  EXPECT_NEAR(estimated->rate, 0.5, 1e-9);
  EXPECT_NEAR(estimated->length, 3, 1e-9);
  run.speculation = {
      .known = true, .drafts = 10, .draft_tokens = 40, .accepted_tokens = 30, .accepted_per_position = {10, 5}};
  const auto stated = acceptance(run, 4);
  EXPECT_FALSE(stated->estimated);
  EXPECT_NEAR(stated->rate, 0.75, 1e-9);
  EXPECT_NEAR(stated->length, 4, 1e-9);
  EXPECT_NEAR(stated->per_position[1], 0.5, 1e-9);
}

TEST(Validity, EveryGuardCanFire) {
  RunRecord run;
  for (int i = 0; i < 200; ++i) run.requests.push_back(request(i, 5));
  run.client.loop_lag_ms.assign(100, 0.01);
  EXPECT_EQ(worst(check_validity(run, measure(run))), Level::kGood);
  const auto level_of = [](const RunRecord& r) { return worst(check_validity(r, measure(r))); };
  RunRecord lag = run;
  lag.client.loop_lag_ms.assign(100, 3);
  EXPECT_EQ(level_of(lag), Level::kInvalid);
  RunRecord busy = run;
  busy.client.cpu_share = 0.9;
  EXPECT_EQ(level_of(busy), Level::kInvalid);
  RunRecord uncounted = run;
  uncounted.requests[0].output_tokens = kUnknown;
  EXPECT_EQ(level_of(uncounted), Level::kInvalid);
  RunRecord short_outputs = run;
  for (int i = 0; i < 20; ++i) short_outputs.requests[static_cast<size_t>(i)].requested_output_tokens = 9;
  EXPECT_EQ(level_of(short_outputs), Level::kInvalid);
  RunRecord cached = run;
  for (RequestRecord& r : cached.requests) r.cached_tokens = 90;
  EXPECT_EQ(level_of(cached), Level::kDoubtful);
  RunRecord saturated = run;  // the later, the longer the wait
  saturated.request_rate = 1;
  saturated.last_issue_s = 200;
  for (RequestRecord& r : saturated.requests) {
    const double wait = r.sent_s * 0.5;
    r.first_token_s += wait, r.last_token_s += wait, r.done_s += wait;
    for (Chunk& chunk : r.chunks) chunk.at_s += wait;
  }
  EXPECT_EQ(level_of(saturated), Level::kInvalid);
}

TEST(Arrivals, GapsHaveTheAskedMeanAndSpread) {
  for (const double b : {0.25, 1.0, 4.0}) {
    const auto times = *arrival_times({.kind = ArrivalKind::kGamma, .rate = 10, .burstiness = b}, 20'000, 1);
    EXPECT_DOUBLE_EQ(times.back(), 2000);
    double sum = 0, squares = 0;
    for (size_t i = 1; i < times.size(); ++i) {
      const double gap = times[i] - times[i - 1];
      sum += gap, squares += gap * gap;
    }
    const double n = static_cast<double>(times.size() - 1), mean = sum / n;
    EXPECT_NEAR(std::sqrt(squares / n - mean * mean) / mean, 1 / std::sqrt(b), 0.05 / std::sqrt(b)) << b;
  }
  const auto exponential = *arrival_times({.rate = 2}, 10'000, 5);
  int64_t above = 0;  // a share 1/e of the gaps is longer than the mean
  for (size_t i = 1; i < exponential.size(); ++i) above += exponential[i] - exponential[i - 1] > 0.5;
  EXPECT_NEAR(static_cast<double>(above) / 9999, std::exp(-1), 0.02);
}

TEST(Arrivals, OfOtherKinds) {
  EXPECT_EQ(*arrival_times({}, 3, 1), std::vector<double>(3, 0.0));
  EXPECT_EQ(*arrival_times({.kind = ArrivalKind::kConstant, .rate = 4}, 2, 1), (std::vector<double>{0.25, 0.5}));
  const auto ticks = *arrival_times({.rate = 1, .per_tick = 2}, 4, 1);
  EXPECT_EQ(ticks[0], ticks[1]);
  EXPECT_LT(ticks[1], ticks[2]);
  const auto ramp =
      *arrival_times({.kind = ArrivalKind::kRampLinear, .burstiness = 1000, .start_rate = 1, .end_rate = 10}, 1000, 1);
  EXPECT_NEAR(ramp[10] - ramp[0], 10, 1);
  EXPECT_NEAR(ramp[999] - ramp[989], 1, 0.1);
  EXPECT_FALSE(arrival_times({.rate = 0}, 3, 1).ok());
  EXPECT_FALSE(arrival_times({.kind = ArrivalKind::kRampLinear, .start_rate = 1}, 3, 1).ok());
}

}  // namespace
}  // namespace millrace::bench
