// The engine end to end over FakeModel: what a request gets, and that nothing beside it changes that.
#include "engine/engine.h"

#include <gtest/gtest.h>

#include <thread>

#include "base/random.h"
#include "base/utf8.h"
#include "tests/engine/engine_fixture.h"

namespace millrace {
namespace {

GenerationRequest request_of(std::vector<int32_t> prompt, int64_t max_tokens) {
  GenerationRequest request;
  request.prompt_token_ids = std::move(prompt);
  request.params.max_tokens = max_tokens;
  request.params.temperature = 0;
  return request;
}

std::vector<int32_t> random_prompt(Random& random, int64_t length) {
  std::vector<int32_t> prompt(static_cast<size_t>(length));
  for (int32_t& token : prompt) token = 1 + static_cast<int32_t>(random.below(kFakeVocab - 1));
  return prompt;
}

// Thirty-two requests of every kind; a third of the prompts begin alike.
std::vector<GenerationRequest> mixed_requests() {
  Random random(3);
  const std::vector<int32_t> common = random_prompt(random, 19);
  std::vector<GenerationRequest> requests;
  for (int i = 0; i < 32; ++i) {
    GenerationRequest request = request_of(i % 3 == 0 ? common : std::vector<int32_t>{}, 1 + random.below(30));
    for (const int32_t token : random_prompt(random, 1 + random.below(40))) request.prompt_token_ids.push_back(token);
    SamplingParams& p = request.params;
    p.ignore_eos = i % 4 == 1;
    if (i % 2 == 0) {
      p.temperature = 0.5 + random.uniform();
      p.seed = random.below(1000);
    }
    if (i % 4 == 2) p.n = 1 + static_cast<int>(random.below(4));
    if (i % 6 == 0) p.top_k = 5;
    if (i % 6 == 2) p.top_p = 0.7;
    if (i % 6 == 4) p.min_p = 0.1;
    if (i % 5 == 0) p.repetition_penalty = 1.3, p.frequency_penalty = 0.2, p.presence_penalty = 0.1;
    if (i % 7 == 0) p.logprobs = static_cast<int>(random.below(4));
    if (i % 8 == 3) p.prompt_logprobs = 2;
    if (i % 8 == 5) p.stop = {"ab", "c"};
    if (i % 8 == 6) p.stop = {"d"}, p.include_stop_str_in_output = true;
    if (i % 9 == 4) p.min_tokens = p.max_tokens / 2, p.stop.clear();
    if (i % 10 == 7) p.stop_token_ids = {5, 9};
    if (i % 11 == 8) p.logit_bias = {{7, 3.0f}, {0, -50.0f}};
    if (i % 13 == 9) p.allowed_token_ids = {0, 4, 8, 12, 16, 20};
    requests.push_back(std::move(request));
  }
  return requests;
}

void expect_same(const std::vector<Answer>& got, const std::vector<Answer>& wanted) {
  ASSERT_EQ(got.size(), wanted.size());
  for (size_t i = 0; i < got.size(); ++i) {
    SCOPED_TRACE(testing::Message() << "sequence " << i);
    EXPECT_EQ(got[i].tokens, wanted[i].tokens);
    EXPECT_EQ(got[i].text, wanted[i].text);
    EXPECT_EQ(got[i].reason, wanted[i].reason);
    EXPECT_EQ(got[i].stop_string, wanted[i].stop_string);
    EXPECT_EQ(got[i].stop_token_id, wanted[i].stop_token_id);
    ASSERT_EQ(got[i].logprobs.size(), wanted[i].logprobs.size());
    for (size_t t = 0; t < got[i].logprobs.size(); ++t) {
      const PositionLogprobs &a = got[i].logprobs[t], &b = wanted[i].logprobs[t];
      EXPECT_EQ(a.chosen.token, got[i].tokens[t]);
      EXPECT_EQ(a.chosen.logprob, b.chosen.logprob);
      EXPECT_EQ(a.chosen.rank, b.chosen.rank);
      ASSERT_EQ(a.top.size(), b.top.size());
      for (size_t k = 0; k < a.top.size(); ++k) EXPECT_EQ(a.top[k].token, b.top[k].token);
    }
  }
}

void expect_right_prompt_logprobs(const Collector& collector, const GenerationRequest& request) {
  const PromptLogprobs& got = collector.prompt_logprobs();
  if (!request.params.prompt_logprobs.has_value()) {
    EXPECT_TRUE(got.empty());
    return;
  }
  const std::vector<int32_t>& prompt = request.prompt_token_ids;
  ASSERT_EQ(got.size(), prompt.size());
  EXPECT_FALSE(got[0].has_value());
  SamplerScratch scratch;
  for (size_t i = 1; i < prompt.size(); ++i) {
    const auto logits = FakeModel::logits_after(std::span(prompt).first(i), kFakeVocab);
    const auto wanted = position_logprobs(logits, prompt[i], *request.params.prompt_logprobs, scratch);
    ASSERT_TRUE(got[i].has_value()) << i;
    EXPECT_EQ(got[i]->chosen.token, prompt[i]);
    EXPECT_EQ(got[i]->chosen.logprob, wanted.chosen.logprob);
    EXPECT_EQ(got[i]->chosen.rank, wanted.chosen.rank);
    ASSERT_EQ(got[i]->top.size(), wanted.top.size());
    for (size_t k = 0; k < wanted.top.size(); ++k) EXPECT_EQ(got[i]->top[k].token, wanted.top[k].token);
  }
}

struct Setting {
  const char* name;
  void (*change)(EngineSetup&);
  bool one_by_one = false;
};

const Setting kSettings[] = {
    {"plain", [](EngineSetup&) {}},
    {"alone", [](EngineSetup&) {}, true},
    {"chunks_of_1", [](EngineSetup& s) { s.config.long_prefill_token_threshold = 1; }},
    {"chunks_of_7", [](EngineSetup& s) { s.config.long_prefill_token_threshold = 7; }},
    {"chunks_of_64", [](EngineSetup& s) { s.config.long_prefill_token_threshold = 64; }},
    {"budget_of_1", [](EngineSetup& s) { s.config.max_num_seqs = 1, s.config.max_num_batched_tokens = 1; }},
    {"budget_of_64", [](EngineSetup& s) { s.config.max_num_batched_tokens = 64; }},
    {"no_chunking", [](EngineSetup& s) { s.config.enable_chunked_prefill = false; }},
    {"no_caching", [](EngineSetup& s) { s.config.enable_prefix_caching = false; }},
    {"few_blocks", [](EngineSetup& s) { s.model.num_blocks = 26; }},
    {"few_blocks_no_caching", [](EngineSetup& s) { s.model.num_blocks = 26, s.config.enable_prefix_caching = false; }},
    {"few_sequences", [](EngineSetup& s) { s.config.max_num_seqs = 3; }},
    {"multi_step", [](EngineSetup& s) { s.config.num_scheduler_steps = 5; }},
    {"multi_step_grouped",
     [](EngineSetup& s) { s.config.num_scheduler_steps = 8, s.config.multi_step_stream_outputs = false; }},
    {"multi_step_few_blocks", [](EngineSetup& s) { s.config.num_scheduler_steps = 4, s.model.num_blocks = 26; }},
    {"priority", [](EngineSetup& s) { s.config.scheduling_policy = SchedulingPolicy::kPriority; }},
    {"rope", [](EngineSetup& s) { s.model.rotation = {45}; }},
    {"rope_multi_step_chunks_of_7",
     [](EngineSetup& s) {
       s.model.rotation = {33}, s.config.num_scheduler_steps = 4, s.config.long_prefill_token_threshold = 7;
     }},
    {"small_logits_budget", [](EngineSetup& s) { s.config.logits_bytes = 3 * kFakeVocab * 4; }},
    {"big_blocks", [](EngineSetup& s) { s.config.block_size = s.model.block_tokens = 128, s.model.num_blocks = 80; }},
};

class SameAnswers : public testing::TestWithParam<Setting> {};

TEST_P(SameAnswers, WhateverTheEngineIsSetTo) {
  EngineSetup setup;
  GetParam().change(setup);
  TestEngine engine(setup);
  const auto requests = mixed_requests();
  for (const char* round : {"cold", "warm"}) {
    std::vector<std::shared_ptr<Collector>> collectors;
    for (const GenerationRequest& request : requests) {
      collectors.push_back(engine.submit(request));
      if (GetParam().one_by_one) collectors.back()->wait();
    }
    for (size_t i = 0; i < requests.size(); ++i) {
      SCOPED_TRACE(testing::Message() << round << " request " << i);
      const auto& got = collectors[i]->wait();
      ASSERT_TRUE(collectors[i]->error().ok()) << collectors[i]->error().to_string();
      expect_same(got, oracle(requests[i], setup));
      expect_right_prompt_logprobs(*collectors[i], requests[i]);
    }
  }
  engine.settle();
  const EngineStats stats = engine->stats();
  EXPECT_EQ(stats.blocks_free, stats.blocks_total);
  EXPECT_LE(engine.model().largest_batch, engine->config().max_num_batched_tokens);
  const std::string_view name = GetParam().name;
  if (name.starts_with("few_blocks")) {
    EXPECT_GT(stats.preemptions, 0);
  }
  if (name == "small_logits_budget") {
    EXPECT_EQ(engine.model().largest_logits_request, 3);
  }
  if (engine->config().enable_prefix_caching && name != "big_blocks") {
    EXPECT_GT(stats.prefix_hits, 0);
  }
}

INSTANTIATE_TEST_SUITE_P(Engine, SameAnswers, testing::ValuesIn(kSettings),
                         [](const auto& info) { return std::string(info.param.name); });

TEST(Engine, ALargeVocabularyIsSharedOutToThePoolAndChangesNothing) {
  EngineSetup setup;
  setup.model.vocab_size = 16384;
  setup.config.logits_bytes = 9 * setup.model.vocab_size * 4;
  TestEngine engine(setup);
  Random random(6);
  std::vector<GenerationRequest> requests;
  std::vector<std::shared_ptr<Collector>> collectors;
  for (uint64_t i = 0; i < 12; ++i) {
    GenerationRequest request = request_of(random_prompt(random, 6), 6);
    request.params.temperature = static_cast<double>(i % 3);
    request.params.seed = 77 + static_cast<int64_t>(i);
    request.params.top_p = i % 2 == 0 ? 0.9 : 1;
    request.params.logprobs = 3;
    requests.push_back(request);
    collectors.push_back(engine.submit(request));
  }
  for (size_t i = 0; i < requests.size(); ++i) expect_same(collectors[i]->wait(), oracle(requests[i], setup));
}

TEST(Engine, AStopStringAcrossTokensEndsTheTextAndItsTokens) {
  const EngineSetup setup;
  TestEngine engine(setup);
  Random random(8);
  int across = 0;
  for (int round = 0; round < 80; ++round) {
    GenerationRequest request = request_of(random_prompt(random, 5 + round % 7), 40);
    request.params.ignore_eos = true;
    const Answer whole = oracle(request, setup)[0];
    // Any piece of the text that begins at a character, as long as it likes.
    const size_t from = random.below(static_cast<uint32_t>(whole.text.size() - 5));
    const std::string stop = whole.text.substr(from, 2 + random.below(4));
    if (!is_valid_utf8(stop) || stop.find("\uFFFD") != std::string::npos) continue;
    request.params.stop = {"never seen", stop};
    request.params.include_stop_str_in_output = round % 2 == 0;
    const size_t first = whole.text.find(stop);
    const auto collector = engine.submit(request);
    const Answer got = collector->wait()[0];
    EXPECT_EQ(got.text, whole.text.substr(0, request.params.include_stop_str_in_output ? first + stop.size() : first));
    EXPECT_EQ(got.stop_string, stop);
    EXPECT_EQ(got.reason, FinishReason::kStop);
    EXPECT_EQ(got.tokens, oracle(request, setup)[0].tokens);
    EXPECT_LE(got.tokens.size(), whole.tokens.size());
    std::string streamed;
    for (const std::string& piece : collector->pieces()) {
      EXPECT_TRUE(is_valid_utf8(piece));
      streamed += piece;
    }
    EXPECT_EQ(streamed, got.text);
    across += got.tokens.size() >= 2 ? 1 : 0;
  }
  EXPECT_GT(across, 20);
  engine.settle();
  EXPECT_EQ(engine->stats().blocks_free, engine->stats().blocks_total);
}

// A model whose forwards wait for permission, so that a test decides what happens between two steps.
class Gate {
 public:
  void pass() {
    std::unique_lock lock(mutex_);
    ++arrived_;
    changed_.notify_all();
    changed_.wait(lock, [&] { return open_ || permits_ > 0; });
    if (!open_) --permits_;
  }
  void permit(int steps) {
    const std::lock_guard lock(mutex_);
    permits_ += steps;
    changed_.notify_all();
  }
  void open() {
    const std::lock_guard lock(mutex_);
    open_ = true;
    changed_.notify_all();
  }
  void wait_for_arrivals(int count) {
    std::unique_lock lock(mutex_);
    EXPECT_TRUE(changed_.wait_for(lock, std::chrono::seconds(60), [&] { return arrived_ >= count; }));
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  int arrived_ = 0, permits_ = 0;
  bool open_ = false;
};

TEST(Engine, AbortInFlightFreesTheBlocksWithTheStepAndSilencesTheSink) {
  Gate gate;
  TestEngine engine({}, [&](const Batch&) { gate.pass(); });
  Random random(1);
  GenerationRequest request = request_of(random_prompt(random, 20), 100);
  request.params.ignore_eos = true;
  EngineClient::RequestKey key = 0;
  const auto doomed = engine.submit(request, &key);
  gate.permit(2);
  doomed->wait_for_outputs(2);
  gate.wait_for_arrivals(3);
  engine->abort(key);
  engine->abort(key);
  engine->abort(999);
  gate.permit(1);  // the step under way ends; no other follows
  engine.settle();
  EXPECT_EQ(engine->stats().blocks_free, engine->stats().blocks_total);
  gate.open();
  engine.submit(request_of({1, 2, 3}, 3))->wait();  // behind what was on its way to the doomed request's sink
  EXPECT_LE(doomed->num_outputs(), 3);
  EXPECT_FALSE(doomed->finished());
  const int64_t outputs_then = doomed->num_outputs();
  engine.submit(request_of({1, 2, 3}, 3))->wait();
  EXPECT_EQ(doomed->num_outputs(), outputs_then);
}

TEST(Engine, AnAbortBeforeTheFirstStepLeavesNothing) {
  Gate gate;
  TestEngine engine({}, [&](const Batch&) { gate.pass(); });
  const auto first = engine.submit(request_of({1, 2}, 4));
  gate.wait_for_arrivals(1);
  EngineClient::RequestKey key = 0;
  const auto second = engine.submit(request_of({3, 4}, 4), &key);
  EXPECT_EQ(engine->stats().waiting, 1);
  engine->abort(key);
  gate.open();
  first->wait();
  engine.settle();
  EXPECT_EQ(second->num_outputs(), 0);
}

TEST(Engine, AnExceptionInTheModelFailsEveryRequestAndTheEngineSaysSo) {
  std::atomic<int> forwards = 0;
  Gate gate;
  TestEngine engine({}, [&](const Batch&) {
    gate.pass();
    if (++forwards == 3) throw std::runtime_error("the device caught fire");
  });
  std::vector<std::shared_ptr<Collector>> collectors;
  for (int i = 0; i < 5; ++i) {
    GenerationRequest request = request_of({1, 2, i + 3}, 50);
    request.params.ignore_eos = true;
    collectors.push_back(engine.submit(request));
  }
  gate.open();
  for (const auto& collector : collectors) {
    collector->wait();
    EXPECT_EQ(collector->error().code(), Code::kInternal);
    EXPECT_NE(collector->error().message().find("caught fire"), std::string::npos);
  }
  EXPECT_FALSE(engine->health().ok());
  EXPECT_NE(engine->health().message().find("caught fire"), std::string::npos);
  const auto refused = engine->submit(request_of({1}, 1), [](RequestOutput&&) { ADD_FAILURE(); });
  EXPECT_EQ(refused.status().code(), Code::kUnavailable);
  engine.settle();
  EXPECT_EQ(engine->stats().blocks_free, engine->stats().blocks_total);
}

TEST(Engine, ShutdownWithPatienceLetsRequestsFinish) {
  const EngineSetup setup;
  TestEngine engine(setup);
  GenerationRequest request = request_of({1, 2, 3}, 100);
  request.params.ignore_eos = true;
  const auto collector = engine.submit(request);
  engine->shutdown(std::chrono::seconds(60));
  EXPECT_TRUE(collector->finished());
  EXPECT_EQ(collector->wait()[0].reason, FinishReason::kLength);
  EXPECT_EQ(engine->submit(request, [](RequestOutput&&) {}).status().code(), Code::kUnavailable);
  EXPECT_TRUE(engine->health().ok());
}

TEST(Engine, ShutdownWithoutPatienceEndsRequestsAsAborted) {
  Gate gate;
  TestEngine engine({}, [&](const Batch&) { gate.pass(); });
  GenerationRequest request = request_of({1, 2, 3}, 100);
  request.params.ignore_eos = true;
  request.params.n = 2;
  request.params.temperature = 1;
  const auto running = engine.submit(request);
  gate.permit(3);
  running->wait_for_outputs(3);
  const auto waiting = engine.submit(request);
  std::thread opener([&] {
    while (engine->submit(request, [](RequestOutput&&) {}).ok()) std::this_thread::yield();  // until it is closing
    gate.open();
  });
  engine->shutdown(std::chrono::milliseconds(0));
  opener.join();
  for (const auto& collector : {running, waiting}) {
    ASSERT_TRUE(collector->finished());
    for (const Answer& answer : collector->wait()) EXPECT_EQ(answer.reason, FinishReason::kAbort);
    EXPECT_EQ(collector->wait().size(), 2u);
  }
  EXPECT_GE(running->wait()[0].tokens.size(), 3u);
}

TEST(Engine, EchoWithoutNewTokensGivesThePromptAndNothingElse) {
  TestEngine engine({});
  GenerationRequest request = request_of({5, 6, 7, 8, 9, 10, 11}, 0);
  request.params.prompt_logprobs = 3;
  request.params.n = 2;
  request.params.temperature = 1;
  const auto collector = engine.submit(request);
  const auto answers = collector->wait();
  ASSERT_EQ(answers.size(), 2u);
  for (const Answer& answer : answers) {
    EXPECT_TRUE(answer.tokens.empty());
    EXPECT_EQ(answer.text, "");
    EXPECT_EQ(answer.reason, FinishReason::kLength);
  }
  expect_right_prompt_logprobs(*collector, request);
  EXPECT_EQ(engine->stats().generated_tokens, 0);
}

TEST(Engine, TheContextLengthEndsAnAnswer) {
  EngineSetup setup;
  setup.config.max_model_len = 30;
  TestEngine engine(setup);
  Random random(4);
  GenerationRequest request = request_of(random_prompt(random, 25), 100);
  request.params.ignore_eos = true;
  const auto collector = engine.submit(request);
  EXPECT_EQ(collector->wait()[0].tokens.size(), 5u);
  EXPECT_EQ(collector->wait()[0].reason, FinishReason::kLength);
  const auto refuse = [&](int64_t prompt, int64_t max_tokens) {
    return engine->submit(request_of(random_prompt(random, prompt), max_tokens), [](RequestOutput&&) {}).status();
  };
  EXPECT_EQ(refuse(30, 1).message(),
            "This model's maximum context length is 30 tokens. However, you requested 31 tokens (30 in the prompt, at "
            "least 1 in the completion). Please reduce the length of the prompt.");
  EXPECT_TRUE(refuse(29, 1).ok());
}

TEST(Engine, WhatTheCacheCannotHoldEndsWithLength) {
  EngineSetup setup;
  setup.model.num_blocks = 5;
  TestEngine engine(setup);
  Random random(4);
  GenerationRequest request = request_of(random_prompt(random, 10), 100);
  request.params.ignore_eos = true;
  const Answer wanted = oracle(request, setup)[0];
  const auto grows = engine.submit(request), never_fits = engine.submit(request_of(random_prompt(random, 21), 5));
  EXPECT_EQ(never_fits->wait()[0].reason, FinishReason::kLength);
  EXPECT_TRUE(never_fits->wait()[0].tokens.empty());
  EXPECT_EQ(grows->wait()[0].reason, FinishReason::kLength);
  EXPECT_EQ(grows->wait()[0].tokens, std::vector(wanted.tokens.begin(), wanted.tokens.begin() + 11));
  EXPECT_TRUE(engine->health().ok());
}

TEST(Engine, MultiStepGivesOneOutputPerGroupOrPerToken) {
  for (const bool per_token : {false, true}) {
    EngineSetup setup;
    setup.config.num_scheduler_steps = 4;
    setup.config.multi_step_stream_outputs = per_token;
    TestEngine engine(setup);
    GenerationRequest request = request_of({1, 2, 3}, 10);
    request.params.ignore_eos = true;
    const auto collector = engine.submit(request);
    collector->wait();
    EXPECT_EQ(collector->num_outputs(), per_token ? 10 : 3);
  }
}

TEST(Engine, CachedTokensAreReported) {
  TestEngine engine({});
  Random random(4);
  const GenerationRequest request = request_of(random_prompt(random, 18), 2);
  const auto cold = engine.submit(request);
  cold->wait();
  EXPECT_EQ(cold->cached_tokens(), 0);
  const auto warm = engine.submit(request);
  warm->wait();
  EXPECT_EQ(warm->cached_tokens(), 16);
  GenerationRequest salted = request;
  salted.cache_salt = "mine";
  const auto apart = engine.submit(salted);
  apart->wait();
  EXPECT_EQ(apart->cached_tokens(), 0);
}

TEST(Engine, WithoutATokenizerThereIsNoTextAndStopStringsAreRefused) {
  EngineSetup setup;
  setup.text = false;
  TestEngine engine(setup);
  GenerationRequest request = request_of({1, 2, 3}, 5);
  request.params.ignore_eos = true;
  const auto collector = engine.submit(request);
  EXPECT_EQ(collector->wait()[0].tokens.size(), 5u);
  EXPECT_EQ(collector->wait()[0].text, "");
  request.params.stop = {"x"};
  EXPECT_EQ(engine->submit(request, [](RequestOutput&&) {}).status().code(), Code::kInvalidArgument);
}

TEST(Engine, ARequestCannotTakeMemoryByItsNumberOfAnswers) {
  TestEngine engine({});
  GenerationRequest request = request_of(std::vector<int32_t>(150, 1), 5);
  request.params.temperature = 1;
  request.params.n = 16384;
  EXPECT_TRUE(engine->submit(request, [](RequestOutput&&) {}).ok());
  EngineSetup setup;
  setup.model.max_positions = 1000;
  TestEngine longer(setup);
  request.prompt_token_ids.resize(300, 1);
  EXPECT_EQ(longer->submit(request, [](RequestOutput&&) {}).status().message(),
            "n is 16384 and the prompt has 300 tokens; their product must be at most 4194304.");
}

TEST(Engine, RequestsWithoutASeedDiffer) {
  TestEngine engine({});
  GenerationRequest request = request_of({1, 2, 3}, 20);
  request.params.temperature = 1;
  request.params.ignore_eos = true;
  const auto a = engine.submit(request), b = engine.submit(request);
  EXPECT_NE(a->wait()[0].tokens, b->wait()[0].tokens);
}

TEST(Engine, ASinkThatThrowsEndsOnlyItsOwnRequest) {
  TestEngine engine({});
  GenerationRequest request = request_of({1, 2, 3}, 30);
  request.params.ignore_eos = true;
  std::atomic<int> calls = 0;
  ASSERT_TRUE(engine
                  ->submit(request,
                           [&](RequestOutput&&) {
                             ++calls;
                             throw std::runtime_error("no");
                           })
                  .ok());
  const auto other = engine.submit(request);
  EXPECT_EQ(other->wait()[0].tokens.size(), 30u);
  engine.settle();
  EXPECT_EQ(calls, 1);
}

TEST(Engine, ImpossibleSettingsAreRefusedByName) {
  const auto refusal = [](auto change) {
    EngineSetup setup;
    change(setup);
    const auto engine = Engine::create(setup.config, std::make_unique<FakeModel>(setup.model), nullptr);
    return engine.ok() ? std::string() : engine.status().message();
  };
  EXPECT_EQ(refusal([](EngineSetup&) {}), "");
  EXPECT_EQ(refusal([](EngineSetup& s) { s.config.max_num_batched_tokens = 8; }),
            "max_num_batched_tokens (8) must be greater than or equal to max_num_seqs (64)");
  EXPECT_NE(refusal([](EngineSetup& s) { s.config.max_model_len = 201; }).find("200"), std::string::npos);
  EXPECT_NE(refusal([](EngineSetup& s) { s.config.block_size = 16; }).find("block_size"), std::string::npos);
  EXPECT_NE(refusal([](EngineSetup& s) { s.config.num_scheduler_steps = 0; }).find("num_scheduler_steps"),
            std::string::npos);
  EXPECT_NE(refusal([](EngineSetup& s) {
              s.config.enable_chunked_prefill = false;
              s.config.max_num_batched_tokens = 100;
            }).find("max_model_len"),
            std::string::npos);
}

// Many callers at once, a third of which hang up: every finished answer is right, nothing is left behind.
TEST(Engine, CallersThatComeAndGoLeaveNothingBehind) {
  EngineSetup setup;
  setup.model.num_blocks = 60;
  setup.config.max_num_seqs = 16;
  setup.config.max_num_batched_tokens = 64;
  TestEngine engine(setup);
  std::atomic<int> right = 0;
  std::vector<std::thread> callers;
  for (uint64_t caller = 0; caller < 8; ++caller) {
    callers.emplace_back([&, caller] {
      Random random(caller);
      for (int round = 0; round < 25; ++round) {
        GenerationRequest request = request_of(random_prompt(random, 1 + random.below(40)), 1 + random.below(30));
        request.params.temperature = random.below(2);
        request.params.seed = random.below(100);
        if (request.params.temperature > 0) request.params.n = 1 + static_cast<int>(random.below(3));
        if (random.below(3) == 0) request.params.stop = {"ab", "e"};
        EngineClient::RequestKey key = 0;
        const auto collector = engine.submit(request, &key);
        if (random.below(3) == 0) {
          if (random.below(2) == 0) std::this_thread::yield();
          engine->abort(key);
          continue;
        }
        expect_same(collector->wait(), oracle(request, setup));
        ++right;
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  engine.settle();
  EXPECT_GT(right, 80);
  EXPECT_EQ(engine->stats().blocks_free, engine->stats().blocks_total);
  EXPECT_TRUE(engine->health().ok());
}

}  // namespace
}  // namespace millrace
