// What the load generator says about servers whose every byte is scripted must be what those servers did, within 2 %.
// A machine that does other things may delay a reader; each comparison has a few attempts, and one must hold in full.
#include <gtest/gtest.h>

#include <cmath>
#include <future>
#include <thread>

#include "bench/arrivals.h"
#include "bench/load.h"
#include "bench/measures.h"
#include "bench/session.h"
#include "net/sse.h"
#include "report/statistics.h"
#include "tests/bench/scripted_server.h"

namespace millrace::bench {
namespace {

const std::atomic<bool> kNoStop{false};
constexpr int kAttempts = 6;
constexpr double kTolerance = 0.02;

LoadTarget target_of(const ScriptedServer& server, const char* back_end) {
  const BackEnd* found = *find_back_end(back_end);
  return {.port = server.port(), .path = found->path, .back_end = found, .options = {.model = "m"}};
}

LoadPlan plan_of(int requests, int output_tokens, int64_t max_concurrency) {
  LoadPlan plan{.max_concurrency = max_concurrency};
  for (int i = 0; i < requests; ++i)
    plan.requests.push_back({.prompt_ids = {3, 4}, .prompt = "hi", .prompt_tokens = 2, .output_tokens = output_tokens});
  return plan;
}

// An event with `text`, and the total so far if it is above 0.
std::string event(const std::string& text, int total) {
  const std::string usage =
      total > 0 ? fmt::format(R"(,"usage":{{"prompt_tokens":2,"completion_tokens":{}}})", total) : "";
  return sse_event(fmt::format(R"({{"choices":[{{"index":0,"text":"{}"}}]{}}})", text, usage));
}
std::string chat_event(const char* channel, const std::string& text) {
  return sse_event(fmt::format(R"({{"choices":[{{"index":0,"delta":{{"{}":"{}"}}}}]}})", channel, text));
}
std::string usage_event(int total) {
  return sse_event(fmt::format(R"({{"choices":[],"usage":{{"prompt_tokens":2,"completion_tokens":{}}}}})", total));
}
ScriptStep head() { return {0, stream_head()}; }
ScriptStep tail(double at_ms) { return {at_ms, http_chunk(sse_event("[DONE]")) + last_http_chunk()}; }

double ms(ScriptedServer::Clock::duration d) { return std::chrono::duration<double, std::milli>(d).count(); }

// The figures of what the server did. `itl_tokens` > 0: what each event is taken to bring.
struct Figures {
  double ttft = 0, tpot = 0, itl = 0, e2el = 0, throughput = 0;
};
Figures figures_of(const std::vector<ScriptedServer::Truth>& truth, double itl_tokens) {
  std::vector<double> ttft, tpot, itl, e2el;
  auto first = truth.front().read_at, last = first;
  double tokens = 0;
  for (const auto& t : truth) {
    double n = 0;
    for (const auto& [at, count] : t.tokens) n += count;
    ttft.push_back(ms(t.tokens.front().first - t.read_at));
    e2el.push_back(ms(t.tokens.back().first - t.read_at));
    tpot.push_back((e2el.back() - ttft.back()) / (n - 1));
    for (size_t i = 1; i < t.tokens.size(); ++i) {
      const double each = itl_tokens > 0 ? itl_tokens : t.tokens[i].second;
      const double gap = ms(t.tokens[i].first - t.tokens[i - 1].first);
      itl.insert(itl.end(), itl_tokens > 0 ? 1 : static_cast<size_t>(each), gap / each);
    }
    tokens += n;
    first = std::min(first, t.read_at), last = std::max(last, t.done_at);
  }
  const auto median = [](std::vector<double> v) { return report::Sample(std::move(v)).percentile(50); };
  return {median(ttft), median(tpot), median(itl), median(e2el), tokens / ms(last - first) * 1e3};
}
Figures figures_of(const Measures& m) {
  const auto median = [&](Metric metric) { return m.sample(metric).percentile(50); };
  return {median(Metric::kTtft), median(Metric::kTpot), median(Metric::kItl), median(Metric::kE2el),
          m.output_throughput};
}

// The largest relative deviation, and of what.
std::pair<double, std::string> deviation(const Figures& found, const Figures& truth) {
  std::pair<double, std::string> worst;
  const auto look = [&](const char* what, double f, double t) {
    const double d = std::isfinite(f) ? std::abs(f - t) / t : INFINITY;
    if (d >= worst.first) worst = {d, fmt::format("{} is {:.4g}, truly {:.4g}", what, f, t)};
  };
  look("TTFT", found.ttft, truth.ttft), look("TPOT", found.tpot, truth.tpot), look("ITL", found.itl, truth.itl);
  look("E2EL", found.e2el, truth.e2el), look("throughput", found.throughput, truth.throughput);
  return worst;
}

struct Case {
  const char* back_end = "openai";
  int tokens = 0;
  bool estimated = false;
  double itl_tokens = 0;
};
Measures expect_truth(const Case& c, const std::function<Script(const ScriptedServer::Request&)>& script) {
  std::pair<double, std::string> best{INFINITY, ""};
  Measures m;
  for (int attempt = 0; attempt < kAttempts && best.first > kTolerance; ++attempt) {
    const ScriptedServer server(script);
    m = measure(LoadGenerator(target_of(server, c.back_end)).run(plan_of(8, c.tokens, 4), kNoStop));
    EXPECT_EQ(m.completed, 8);
    EXPECT_EQ(m.output_tokens, 8 * c.tokens);
    EXPECT_EQ(m.itl_estimated, c.estimated);
    best = std::min(best, deviation(figures_of(m), figures_of(server.truth(), c.itl_tokens)));
  }
  EXPECT_LE(best.first, kTolerance) << best.second;
  return m;
}

TEST(Truth, OneTokenAnEvent) {
  expect_truth({.tokens = 9}, [](const auto&) {
    Script s{{head()}};
    for (int i = 0; i < 9; ++i) s.steps.push_back({200.0 + 40 * i, http_chunk(event("a", i + 1)), 1});
    s.steps.push_back(tail(525));
    return s;
  });
}

TEST(Truth, SeveralTokensAnEvent) {
  const Measures m = expect_truth({.tokens = 16}, [](const auto&) {
    Script s{{head()}};
    for (int i = 0; i < 4; ++i) s.steps.push_back({150.0 + 60 * i, http_chunk(event("abcd", 4 * i + 4)), 4});
    s.steps.push_back(tail(335));
    return s;
  });
  EXPECT_EQ(m.sample(Metric::kItl).size(), 8 * 12);
  EXPECT_EQ(m.sample(Metric::kChunkGap).size(), 8 * 3);
}

TEST(Truth, OnlyTheTotalIsStated) {
  expect_truth({.tokens = 12, .estimated = true, .itl_tokens = 3}, [](const auto&) {
    Script s{{head()}};
    for (int i = 0; i < 4; ++i) s.steps.push_back({150.0 + 60 * i, http_chunk(event("abc", 0)), 3});
    s.steps.push_back({331, http_chunk(usage_event(12))});
    s.steps.push_back(tail(332));
    return s;
  });
}

TEST(Truth, EventsThatShareAReadAreOneStep) {
  const Measures m = expect_truth({.tokens = 9}, [](const auto&) {
    Script s{{head(), {150, http_chunk(event("a", 1)), 1}}};
    for (int i = 0; i < 4; ++i)
      s.steps.push_back({200.0 + 50 * i, http_chunk(event("b", 2 * i + 2)) + http_chunk(event("c", 2 * i + 3)), 2});
    s.steps.push_back(tail(360));
    return s;
  });
  EXPECT_EQ(m.coalesced_events, 8 * 4);
  EXPECT_GT(m.sample(Metric::kItl).min(), 10);  // no gap of nothing
  EXPECT_EQ(m.sample(Metric::kChunkGap).min(), 0);
}

TEST(Truth, AnEventCountsWhenItsLastByteIsThere) {
  expect_truth({.tokens = 5}, [](const auto&) {
    Script s{{head()}};
    for (int i = 0; i < 5; ++i) {
      const std::string bytes = http_chunk(event("a", i + 1));
      s.steps.push_back({180.0 + 60 * i, bytes.substr(0, bytes.size() / 2)});
      s.steps.push_back({200.0 + 60 * i, bytes.substr(bytes.size() / 2), 1});
    }
    s.steps.push_back(tail(445));
    return s;
  });
}

TEST(Truth, TheRoleIsNoTokenAndReasoningIs) {
  expect_truth({.back_end = "openai-chat", .tokens = 6, .estimated = true, .itl_tokens = 1}, [](const auto&) {
    Script s{{head(), {5, http_chunk(chat_event("role", "assistant"))}, {20, http_chunk(": ping\n\n")}}};
    for (int i = 0; i < 6; ++i)
      s.steps.push_back({200.0 + 50 * i, http_chunk(chat_event(i < 3 ? "reasoning_content" : "content", "x")), 1});
    s.steps.push_back({452, http_chunk(usage_event(6))});
    s.steps.push_back(tail(453));
    return s;
  });
}

TEST(Truth, AStallIsInTheLongestGapAndInNoOther) {
  const Measures m = expect_truth({.tokens = 8}, [](const auto&) {
    Script s{{head()}};
    for (int i = 0; i < 8; ++i)
      s.steps.push_back({100.0 + 40 * i + (i >= 5 ? 600 : 0), http_chunk(event("a", i + 1)), 1});
    s.steps.push_back(tail(985));
    return s;
  });
  EXPECT_NEAR(m.sample(Metric::kItl).max(), 640, 40);
}

// --- what else servers do ---

Script answer(const std::string& before, const std::string& bytes, ScriptEnd end) {
  return {{{1, before + bytes, 1}}, end};
}
RunRecord run_once(const std::function<Script(const ScriptedServer::Request&)>& script, int requests = 1,
                   int64_t timeout_ms = 10'000) {
  const ScriptedServer server(script);
  LoadTarget target = target_of(server, "openai");
  target.timeout = std::chrono::milliseconds(timeout_ms);
  return LoadGenerator(target, 1).run(plan_of(requests, 1, 1), kNoStop);
}
const std::string kPlainHead = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n";

TEST(Servers, AnAnswerMayEndInManyWays) {
  const std::string body = event("a", 1) + sse_event("[DONE]");
  const struct {
    const char* what;
    Script script;
  } cases[] = {
      {"a length",
       answer(kPlainHead + fmt::format("Content-Length: {}\r\n\r\n", body.size()), body, ScriptEnd::kNextRequest)},
      {"a close", answer(kPlainHead + "Connection: close\r\n\r\n", body, ScriptEnd::kClose)},
      {"a half-close", answer(kPlainHead + "\r\n", body, ScriptEnd::kHalfClose)},
      {"HTTP/1.0", answer("HTTP/1.0 200 OK\r\nContent-Type: text/event-stream\r\n\r\n", body, ScriptEnd::kClose)},
      {"no [DONE]", answer(stream_head(), http_chunk(event("a", 1)) + last_http_chunk(), ScriptEnd::kNextRequest)},
      {"no blank line after the last event",
       answer(kPlainHead + "\r\n", event("a", 1) + "data: [DONE]", ScriptEnd::kClose)},
      {"chunks that cut events", answer(stream_head(),
                                        http_chunk(body.substr(0, 9)) + http_chunk(body.substr(9, 31)) +
                                            http_chunk(body.substr(40)) + last_http_chunk(),
                                        ScriptEnd::kNextRequest)},
      {"chunk extensions and a trailer",
       answer(stream_head(), fmt::format("{:X};x=y\r\n{}\r\n0\r\nX-T: 1\r\n\r\n", body.size(), body),
              ScriptEnd::kNextRequest)},
  };
  for (const auto& c : cases) {
    const RunRecord run = run_once([&](const auto&) { return c.script; }, 2);
    for (const RequestRecord& r : run.requests) {
      EXPECT_EQ(r.outcome, Outcome::kCompleted) << c.what << ": " << r.error;
      EXPECT_EQ(r.output_tokens, 1) << c.what;
    }
  }
}

TEST(Servers, AnAnswerThatIsCutIsNoSuccess) {
  const std::string begun = stream_head() + http_chunk(event("a", 1));
  const struct {
    Script script;
    Outcome outcome;
  } cases[] = {
      {{{{1, begun, 1}}, ScriptEnd::kClose}, Outcome::kHungUp},
      {{{{1, begun, 1}}, ScriptEnd::kReset}, Outcome::kHungUp},
      {{{{1, begun, 1}}, ScriptEnd::kHalfClose}, Outcome::kHungUp},
      {{{{1, begun, 1}}, ScriptEnd::kStall}, Outcome::kTimedOut},
      {{{{1, ""}}, ScriptEnd::kStall}, Outcome::kTimedOut},
      {{{{1, ""}}, ScriptEnd::kClose}, Outcome::kHungUp},
      {{{{1, "SSH-2.0-x\r\n"}}, ScriptEnd::kClose}, Outcome::kBadAnswer},
      {{{{1, stream_head() + "zz\r\n"}}, ScriptEnd::kClose}, Outcome::kBadAnswer},
      {{{{1, stream_head() + http_chunk("data: {\"choices\":[}\n\n")}}, ScriptEnd::kStall}, Outcome::kBadAnswer},
  };
  for (size_t i = 0; i < std::size(cases); ++i) {
    const int64_t timeout_ms = cases[i].outcome == Outcome::kTimedOut ? 300 : 10'000;
    const RunRecord run = run_once([&](const auto&) { return cases[i].script; }, 2, timeout_ms);
    ASSERT_EQ(run.requests.size(), 2u);
    for (const RequestRecord& r : run.requests) {
      EXPECT_EQ(r.outcome, cases[i].outcome) << "case " << i << ": " << r.error;
      EXPECT_NE(r.error, "") << "case " << i;
    }
  }
}

TEST(Servers, AKeptConnectionThatIsGivenUpCostsNoRequest) {
  const std::string whole = stream_head() + http_chunk(event("a", 1)) + last_http_chunk();
  // It promises to keep the connection, and closes it when the next request comes.
  std::atomic<int> on_connection{0};
  const RunRecord run = run_once(
      [&](const auto&) {
        return ++on_connection % 2 == 1 ? Script{{{1, whole, 1}}} : Script{{{0, ""}}, ScriptEnd::kClose};
      },
      6);
  for (const RequestRecord& r : run.requests) EXPECT_EQ(r.outcome, Outcome::kCompleted) << r.error;
}

// Twenty answers, then four that hang; then it dies.
TEST(Servers, AServerThatDiesIsCountedAndTheRunGoesOn) {
  std::promise<void> all_hang;
  auto server = std::make_unique<ScriptedServer>([&](const ScriptedServer::Request& request) {
    if (request.number == 23) all_hang.set_value();
    if (request.number >= 20) return Script{{head(), {5, http_chunk(event("a", 1)), 1}}, ScriptEnd::kStall};
    return Script{{head(), {5, http_chunk(event("a", 1)), 1}, tail(10)}};
  });
  LoadGenerator load(target_of(*server, "openai"));
  std::thread killer([&] {
    all_hang.get_future().wait();
    server.reset();
  });
  const RunRecord run = load.run(plan_of(60, 1, 4), kNoStop);
  killer.join();
  const Measures m = measure(run);
  EXPECT_EQ(m.issued, 60);
  EXPECT_EQ(m.completed, 20);
  EXPECT_EQ(m.failed, 40);
  EXPECT_EQ(m.failures[static_cast<size_t>(Outcome::kHungUp)] + m.failures[static_cast<size_t>(Outcome::kUnreachable)],
            40);
  EXPECT_GE(m.failures[static_cast<size_t>(Outcome::kUnreachable)], 30);
}

// One answer after the other, 5 ms each: 200 a second and no more. Beyond that the queue grows by 1/200 - 1/rate with
// every request, so the P90 of TTFT says which rate is found.
TEST(MaxRate, IsThatOfAServerOfKnownCapacity) {
  constexpr double kServiceS = 0.005, kLimitMs = 60;
  constexpr int kRequests = 200;
  std::mutex mutex;
  ScriptedServer::Clock::time_point free_at;
  const ScriptedServer server([&](const ScriptedServer::Request& request) {
    std::lock_guard lock(mutex);
    free_at = std::max(free_at, request.read_at) + std::chrono::microseconds(static_cast<int>(kServiceS * 1e6));
    const double at_ms = ms(free_at - request.read_at);
    return Script{{head(), {at_ms, http_chunk(event("a", 1)), 1}, tail(at_ms)}};
  });
  LoadGenerator load(target_of(server, "openai"));
  const auto meets = [&](double rate) -> Result<bool> {
    LoadPlan plan = plan_of(kRequests, 1, 0);
    plan.due_s = *arrival_times({.kind = ArrivalKind::kConstant, .rate = rate}, kRequests, 1);
    const Measures m = measure(load.run(plan, kNoStop));
    return m.failed == 0 && m.sample(Metric::kTtft).percentile(90) <= kLimitMs;
  };
  const auto found = find_max_rate({.start = 80, .tolerance = 0.03}, meets);
  ASSERT_TRUE(found.ok());
  const double waited_s = kLimitMs * 1e-3 - kServiceS;
  const double expected = 1 / (kServiceS - waited_s / (0.9 * kRequests));
  EXPECT_NEAR(found->rate, expected, 0.05 * expected);
  EXPECT_TRUE(found->bounded);
}

}  // namespace
}  // namespace millrace::bench
