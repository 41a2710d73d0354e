// What is read from a server's pages: counters of both generations, whether it is idle.
#include "bench/server_state.h"

#include <gtest/gtest.h>

#include "bench/session.h"
#include "tests/bench/mock_llm.h"

namespace millrace::bench {
namespace {

const std::atomic<bool> kNoStop{false};

LoadTarget target_of(const MockLlm& server) {
  const BackEnd* openai = *find_back_end("openai");
  return {.port = server.port(), .path = openai->path, .back_end = openai, .options = {.model = "m"}};
}

TEST(Metrics, CountersAreSummedOverTheirLabels) {
  const char* page =
      "# HELP a\na{x=\"1\"} 2\na{x=\"2\"} 3.5\nab 7\na{x=\"}\"} 0.5 1700000000\na_total 9\nbroken{ 1\nc NaN\n";
  EXPECT_EQ(metric_value(page, "a"), 6);
  EXPECT_EQ(metric_value(page, "ab"), 7);
  EXPECT_EQ(metric_value(page, "c"), std::nullopt);
  EXPECT_EQ(metric_value(page, "broken"), std::nullopt);
  EXPECT_EQ(metric_value("", "a"), std::nullopt);
}

TEST(Metrics, PositionsAreSummedOverTheOtherLabels) {
  const char* page =
      "p{engine=\"0\",position=\"0\"} 5\np{engine=\"1\",position=\"0\"} 4\np{position=\"2\",x=\"y\"} "
      "1\np{position=\"x\"} 1\n"
      "p{position=\"999999999\"} 1\n";
  EXPECT_EQ(metric_by_position(page, "p"), (std::vector<double>{9, 0, 1}));
}

TEST(Speculation, CountersOfThePresentGeneration) {
  const SpeculationCounters found = speculation_counters(
      "vllm:spec_decode_num_drafts_total{engine=\"0\"} 10.0\nvllm:spec_decode_num_draft_tokens_total{engine=\"0\"} "
      "30.0\n"
      "vllm:spec_decode_num_accepted_tokens_total{engine=\"0\"} 15.0\n"
      "vllm:spec_decode_num_accepted_tokens_per_pos_total{engine=\"0\",position=\"0\"} 9.0\n"
      "vllm:spec_decode_num_accepted_tokens_per_pos_total{engine=\"0\",position=\"1\"} 6.0\n");
  EXPECT_TRUE(found.known);
  EXPECT_EQ(found.drafts, 10);
  EXPECT_EQ(found.draft_tokens, 30);
  EXPECT_EQ(found.accepted_tokens, 15);
  EXPECT_EQ(found.accepted_per_position, (std::vector<double>{9, 6}));
}

TEST(Speculation, CountersOf06CountDraftsByWhatTheyEmitted) {
  const SpeculationCounters found = speculation_counters(
      "vllm:spec_decode_draft_acceptance_rate{model_name=\"m\"} 0.5\n"
      "vllm:spec_decode_num_accepted_tokens_total{model_name=\"m\"} 15.0\n"
      "vllm:spec_decode_num_draft_tokens_total{model_name=\"m\"} 30.0\n"
      "vllm:spec_decode_num_emitted_tokens_total{model_name=\"m\"} 25.0\n");
  EXPECT_TRUE(found.known);
  EXPECT_EQ(found.drafts, 10);
  EXPECT_TRUE(found.accepted_per_position.empty());
  EXPECT_FALSE(speculation_counters("vllm:num_requests_running 0\n").known);
}

TEST(Idle, EveryServersNamesAreKnown) {
  EXPECT_EQ(requests_under_way("vllm:num_requests_running{m=\"x\"} 2.0\nvllm:num_requests_waiting{m=\"x\"} 3.0\n"), 5);
  EXPECT_EQ(requests_under_way("sglang:num_running_reqs 1\nsglang:num_queue_reqs 0\n"), 1);
  EXPECT_EQ(requests_under_way("tgi_batch_current_size 4\ntgi_queue_size 1\n"), 5);
  EXPECT_EQ(requests_under_way("llamacpp:requests_processing 0\nllamacpp:requests_deferred 0\n"), 0);
  EXPECT_EQ(requests_under_way("other 1\n"), std::nullopt);
}

TEST(Idle, TheServerIsPolledUntilNothingRunsOrWaits) {
  std::atomic<int> asked{0};
  const MockLlm server({.metrics = [&](int, int) {
    const int n = ++asked;
    return fmt::format("vllm:num_requests_running {}\nvllm:num_requests_waiting {}\n", n < 2 ? 1 : 0, n < 4 ? 1 : 0);
  }});
  EXPECT_TRUE(wait_until_idle(target_of(server), std::chrono::seconds(20), kNoStop));
  EXPECT_EQ(asked, 4);
}

TEST(Idle, ABusyServerIsNotWaitedForForEver) {
  const MockLlm server({.metrics = [](int, int) { return "vllm:num_requests_running 1\n"; }});
  EXPECT_FALSE(wait_until_idle(target_of(server), std::chrono::milliseconds(250), kNoStop));
  const MockLlm silent({});
  EXPECT_FALSE(wait_until_idle(target_of(silent), std::chrono::seconds(60), kNoStop));
}

TEST(Cache, IsResetWhereTheServerCan) {
  const MockLlm server({}), other({.cache_can_be_reset = false});
  EXPECT_TRUE(reset_prefix_cache(target_of(server)).ok());
  EXPECT_EQ(server.cache_resets(), 1);
  EXPECT_NE(reset_prefix_cache(target_of(other)).message().find("/reset_prefix_cache answers 404"), std::string::npos);
}

// Each answer begun is one draft of three tokens, two of them accepted; half of the prompt comes from the cache.
std::string scripted_page(int begun, int ended) {
  return fmt::format(
      "vllm:num_requests_running {}\nvllm:spec_decode_num_drafts_total {}\nvllm:spec_decode_num_draft_tokens_total {}\n"
      "vllm:spec_decode_num_accepted_tokens_total {}\n"
      "vllm:spec_decode_num_accepted_tokens_per_pos_total{{position=\"0\"}} {}\n"
      "vllm:prefix_cache_queries_total {}\nvllm:prefix_cache_hits_total {}\n",
      begun - ended, begun, 3 * begun, 2 * begun, begun, 10 * begun, 5 * begun);
}

TEST(Session, APointCountsWhatItAloneCaused) {
  const MockLlm server({.ttft_ms = 5, .gap_ms = 1, .tokens_per_event = 3, .metrics = scripted_page});
  SessionConfig config{.target = target_of(server), .loops = 1, .reset_prefix_cache = true, .quiet = true};
  const LoadRequest request{.prompt_ids = {3, 4, 5, 6}, .prompt_tokens = 4, .output_tokens = 6};
  auto session = Session::open(config, request, kNoStop);
  ASSERT_TRUE(session.ok());
  for (int point = 1; point <= 2; ++point) {
    const Point p = (*session)->run({.requests = {request, request}, .max_concurrency = 1}, {}, {request});
    ASSERT_TRUE(p.run.speculation.known);
    EXPECT_EQ(p.run.speculation.drafts, 2);
    const auto found = acceptance(p.run, 0);
    EXPECT_NEAR(found->rate, 2.0 / 3, 1e-9);
    EXPECT_NEAR(found->length, 3, 1e-9);
    EXPECT_EQ(found->per_position, (std::vector<double>{1}));
    EXPECT_EQ(p.run.prefix_cache.query_tokens, 20);
    EXPECT_EQ(server.cache_resets(), point);
    EXPECT_EQ(p.run.idle_note, "");
  }
}

TEST(Session, WithoutAMetricsPageItPausesBetweenPoints) {
  const MockLlm server({.ttft_ms = 1, .gap_ms = 1});
  SessionConfig config{.target = target_of(server), .loops = 1, .pause_ms = 300, .quiet = true};
  const LoadRequest request{.prompt_ids = {3}, .prompt_tokens = 1, .output_tokens = 1};
  auto session = Session::open(config, request, kNoStop);
  ASSERT_TRUE(session.ok());
  (*session)->run({.requests = {request}}, {}, {});
  const auto begin = std::chrono::steady_clock::now();
  const Point p = (*session)->run({.requests = {request}}, {}, {});
  EXPECT_GE(std::chrono::steady_clock::now() - begin, std::chrono::milliseconds(300));
  EXPECT_EQ(p.run.idle_note, "/metrics does not say; paused for 300 ms");
}

}  // namespace
}  // namespace millrace::bench
