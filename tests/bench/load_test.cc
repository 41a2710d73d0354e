// What the load generator sends when, and what it makes of answers of every kind.
#include "bench/load.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <condition_variable>

#include "bench/arrivals.h"
#include "bench/measures.h"
#include "bench/validity.h"
#include "net/sse.h"
#include "tests/bench/mock_llm.h"
#include "tests/bench/scripted_server.h"

namespace millrace::bench {
namespace {

const std::atomic<bool> kNoStop{false};

LoadTarget target_of(const MockLlm& server, const char* back_end = "openai") {
  const BackEnd* found = *find_back_end(back_end);
  return {.port = server.port(), .path = found->path, .back_end = found, .options = {.model = "m"}};
}

LoadPlan plan_of(int requests, int output_tokens, int64_t max_concurrency = 0) {
  LoadPlan plan{.max_concurrency = max_concurrency};
  for (int i = 0; i < requests; ++i)
    plan.requests.push_back(
        {.prompt_ids = {3, 4, 5, 6}, .prompt = "hi", .prompt_tokens = 4, .output_tokens = output_tokens});
  return plan;
}

Measures run(const MockLlm& server, const LoadPlan& plan, const char* back_end = "openai") {
  return measure(LoadGenerator(target_of(server, back_end)).run(plan, kNoStop));
}

// Nobody passes before all of a group have come. A generator that waits for an answer first keeps the others away:
// after half a minute each passes, and not all have met.
class Meeting {
 public:
  explicit Meeting(size_t group) : group_(group) {}
  void wait(size_t number) {
    std::unique_lock lock(mutex_);
    ++come_;
    changed_.notify_all();
    const size_t all = (number / group_ + 1) * group_;
    all_met_ &= changed_.wait_for(lock, std::chrono::seconds(30), [&] { return come_ >= all; });
  }
  bool all_met() const { return all_met_; }

 private:
  const size_t group_;
  std::mutex mutex_;
  std::condition_variable changed_;
  size_t come_ = 0;
  bool all_met_ = true;
};

// Each answer is one event, so long after its group has met.
std::function<Script(const ScriptedServer::Request&)> answers_after(Meeting& meeting, double ms = 0) {
  return [&meeting, ms](const ScriptedServer::Request& request) {
    meeting.wait(request.number);
    const std::string token = http_chunk(sse_event(R"({"choices":[{"text":"a"}]})"));
    return Script{{{ms, stream_head() + token + last_http_chunk()}}};
  };
}

RunRecord run(const ScriptedServer& server, const LoadPlan& plan) {
  const BackEnd* back_end = *find_back_end("openai");
  return LoadGenerator({.port = server.port(), .path = back_end->path, .back_end = back_end}).run(plan, kNoStop);
}

// When each request was read, in this order, seconds after `start`.
std::vector<double> reads_s(const ScriptedServer& server, ScriptedServer::Clock::time_point start) {
  std::vector<double> reads;
  for (const auto& truth : server.truth())
    reads.push_back(std::chrono::duration<double>(truth.read_at - start).count());
  std::sort(reads.begin(), reads.end());
  return reads;
}

// The first answer comes when the last request has: none waits for one, and none is early.
TEST(Load, ASlowServerDoesNotSlowAnOpenLoop) {
  Meeting meeting(40);
  const ScriptedServer server(answers_after(meeting));
  LoadPlan plan = plan_of(40, 1);
  plan.due_s = *arrival_times({.rate = 50}, 40, 3);
  const auto start = ScriptedServer::Clock::now();
  const Measures m = measure(run(server, plan));
  EXPECT_TRUE(meeting.all_met());
  EXPECT_EQ(m.completed, 40);
  EXPECT_LT(m.late_ms.percentile(50), 20);
  const std::vector<double> reads = reads_s(server, start);
  ASSERT_EQ(reads.size(), 40u);
  for (size_t i = 0; i < reads.size(); ++i) EXPECT_GE(reads[i], plan.due_s[i]) << "request " << i;
}

// One at a time, all due at once: the last has waited for the answers of all others, in its schedule only.
TEST(Load, TimeSpentQueuedInTheClientCountsFromTheSchedule) {
  const MockLlm server({.ttft_ms = 100, .gap_ms = 1});
  LoadPlan plan = plan_of(4, 1, 1);
  plan.due_s = {0, 0, 0, 0};
  const Measures m = run(server, plan);
  const report::Sample& ttft = m.sample(Metric::kTtft);
  ASSERT_EQ(ttft.size(), 4);
  EXPECT_GE(ttft.min(), 100);
  EXPECT_GE(m.sample(Metric::kTtftSched).max(), 4 * ttft.mean());
  EXPECT_TRUE(m.sample(Metric::kTpot).empty());
}

TEST(Load, RoundsWaitForEveryRequestOfTheRoundBefore) {
  Meeting meeting(3);
  const ScriptedServer server(answers_after(meeting, 60));
  LoadPlan plan = plan_of(6, 1);
  plan.round = 3;
  const auto start = ScriptedServer::Clock::now();
  run(server, plan);
  EXPECT_TRUE(meeting.all_met());
  const std::vector<double> reads = reads_s(server, start);
  ASSERT_EQ(reads.size(), 6u);
  EXPECT_GE(reads[3], reads[2] + 0.06);
}

TEST(Load, FailuresAreCountedAndNeverFatal) {
  const MockLlm server({.ttft_ms = 5, .gap_ms = 1, .every_nth_fails = 3});
  const RunRecord record = LoadGenerator(target_of(server)).run(plan_of(9, 4, 1), kNoStop);
  const Measures m = measure(record, {{Metric::kTtft, 1000}});
  EXPECT_EQ(m.completed, 6);
  EXPECT_EQ(m.failures[static_cast<size_t>(Outcome::kRefused)], 3);
  EXPECT_EQ(record.requests[2].http_status, 429);
  EXPECT_EQ(record.requests[2].error, "too many");
  EXPECT_NEAR(m.attainment, 6.0 / 9, 1e-9);
  EXPECT_EQ(worst(check_validity(record, m)), Level::kInvalid);
}

Outcome only_outcome(const MockScript& script, int64_t timeout_ms = 10'000) {
  const MockLlm server(script);
  LoadTarget target = target_of(server);
  target.timeout = std::chrono::milliseconds(timeout_ms);
  const RunRecord record = LoadGenerator(target).run(plan_of(1, 8), kNoStop);
  EXPECT_NE(record.requests[0].error, "");
  return record.requests[0].outcome;
}

TEST(Load, EachWayToFailHasItsName) {
  EXPECT_EQ(only_outcome({.hang_up_after_events = 3}), Outcome::kHungUp);
  EXPECT_EQ(only_outcome({.error_after_events = 3}), Outcome::kBadAnswer);
  EXPECT_EQ(only_outcome({.status = 401}), Outcome::kRefused);
  EXPECT_EQ(only_outcome({.stall_at_event = 1, .stall_ms = 60'000}, 200), Outcome::kTimedOut);
}

TEST(Load, NobodyListeningIsUnreachable) {
  auto server = std::make_unique<MockLlm>(MockScript{});
  LoadGenerator load(target_of(*server));
  server.reset();
  const RunRecord record = load.run(plan_of(2, 8), kNoStop);
  EXPECT_EQ(record.requests[1].outcome, Outcome::kUnreachable);
}

// Four answers, two at a time, then two that never end; a stop when all six are asked for.
TEST(Load, AStopKeepsWhatWasMeasured) {
  std::atomic<bool> stop{false};
  const ScriptedServer server([&](const ScriptedServer::Request& request) {
    if (request.number == 5) stop = true;
    const std::string begun = stream_head() + http_chunk(sse_event(R"({"choices":[{"text":"a"}]})"));
    if (request.number >= 4) return Script{{{1, begun}}, ScriptEnd::kStall};
    return Script{{{1, begun + last_http_chunk()}}};
  });
  const BackEnd* back_end = *find_back_end("openai");
  LoadGenerator load({.port = server.port(), .path = back_end->path, .back_end = back_end});
  const RunRecord record = load.run(plan_of(1000, 1, 2), stop);
  const Measures m = measure(record);
  EXPECT_TRUE(record.interrupted);
  EXPECT_EQ(m.completed, 4);
  EXPECT_EQ(m.interrupted, 2);
  EXPECT_EQ(m.failed, 0);
  EXPECT_EQ(m.issued, 6);
}

TEST(Load, AServerThatRefusesStreamOptionsIsAskedWithoutThem) {
  const MockLlm server({.ttft_ms = 1, .gap_ms = 1, .refuse_stream_options = true});
  LoadGenerator load(target_of(server));
  EXPECT_TRUE(load.probe(plan_of(1, 2).requests[0], kNoStop).ok());
  EXPECT_FALSE(load.target().options.include_usage);
}

// Like OpenAI's own: an argument that it does not know is an error.
TEST(Load, AStrictServerIsAskedWithoutWhatItDoesNotKnow) {
  const ScriptedServer server([](const ScriptedServer::Request& request) {
    if (request.body.find("ignore_eos") == std::string::npos && request.body.find("continuous") == std::string::npos)
      return Script{{{1, stream_head() + http_chunk(sse_event(R"({"choices":[{"text":"a"}]})")) + last_http_chunk()}}};
    return Script{{{1, "HTTP/1.1 400 Bad Request\r\nContent-Length: 28\r\n\r\n{\"error\":\"unknown argument\"}"}}};
  });
  const BackEnd* back_end = *find_back_end("openai");
  LoadGenerator load({.port = server.port(), .path = back_end->path, .back_end = back_end});
  const auto record = load.probe(plan_of(1, 2).requests[0], kNoStop);
  EXPECT_TRUE(record.ok()) << record.status().message();
  EXPECT_TRUE(load.target().options.include_usage);
  EXPECT_FALSE(load.target().options.continuous_usage);
  EXPECT_FALSE(load.target().options.ignore_eos);
}

TEST(Load, AProbeThatFailsIsOneLine) {
  const MockLlm server({.status = 401, .body = "{\"error\":{\"message\":\"wrong\\nkey\"}}"});
  const auto probe = LoadGenerator(target_of(server)).probe(plan_of(1, 2).requests[0], kNoStop);
  EXPECT_EQ(probe.status().message(),
            fmt::format("127.0.0.1:{}/v1/completions: refused with status 401 (Unauthorized): wrong key; the key is "
                        "taken from OPENAI_API_KEY or --header Authorization='Bearer KEY'",
                        server.port()));
}

TEST(Load, ABurstOf512StreamsIsStampedInTime) {
  const MockLlm server({.ttft_ms = 400, .gap_ms = 20});
  const Measures m = run(server, plan_of(512, 4));
  EXPECT_EQ(m.completed, 512);
  EXPECT_EQ(m.output_tokens, 2048);
}

}  // namespace
}  // namespace millrace::bench
