#include "engine/sampler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>

#include "base/random.h"

namespace millrace {
namespace {

constexpr int64_t kVocab = 12;

class Sampling {
 public:
  GenerationRequest request;
  std::vector<int32_t> eos;
  bool processed_logprobs = false;

  TokenSampler sampler(uint64_t seed = 1, int index = 0) const {
    return {std::make_shared<const GenerationRequest>(request), index, seed, eos, processed_logprobs};
  }
  TokenSampler::Choice choose(std::vector<float> logits, int64_t position = 5, int64_t generated = 0) {
    return sampler().choose(logits, position, generated, scratch_);
  }
  // How often each token comes in `draws` draws.
  std::map<int32_t, int> histogram(const std::vector<float>& logits, int draws) {
    std::map<int32_t, int> counts;
    TokenSampler drawing = sampler();
    for (int i = 0; i < draws; ++i) {
      std::vector<float> copy = logits;
      ++counts[drawing.choose(copy, i, 0, scratch_).token];
    }
    return counts;
  }

 private:
  SamplerScratch scratch_;
};

std::vector<float> rising() {
  std::vector<float> logits(kVocab);
  for (size_t v = 0; v < logits.size(); ++v) logits[v] = 0.25f * static_cast<float>(v) - 1;
  return logits;
}

TEST(TokenSampler, GreedyTakesTheLargestAfterBiasAndBans) {
  Sampling s;
  s.request.params.temperature = 0;
  EXPECT_EQ(s.choose(rising()).token, 11);
  s.request.params.allowed_token_ids = {2, 6, 4};
  EXPECT_EQ(s.choose(rising()).token, 6);
  s.request.params.logit_bias = {{2, 100.0f}, {11, 1000.0f}};
  EXPECT_EQ(s.choose(rising()).token, 2) << "a bias does not bring back what is not allowed";
}

TEST(TokenSampler, MinTokensBansEosAndStopIdsUntilThen) {
  Sampling s;
  s.request.params.temperature = 0;
  s.request.params.min_tokens = 2;
  s.request.params.max_tokens = 9;
  s.request.params.stop_token_ids = {10, 5000, -3};
  s.eos = {11};
  EXPECT_EQ(s.choose(rising(), 5, 0).token, 9);
  EXPECT_EQ(s.choose(rising(), 6, 1).token, 9);
  EXPECT_EQ(s.choose(rising(), 7, 2).token, 11);
}

TEST(TokenSampler, RepetitionCountsThePromptTheOtherPenaltiesOnlyTheOutput) {
  Sampling s;
  s.request.prompt_token_ids = {11, 11};
  s.request.params.temperature = 0;
  s.request.params.frequency_penalty = 0.3;
  s.request.params.presence_penalty = 0.1;
  SamplerScratch scratch;
  TokenSampler sampler = s.sampler();
  auto logits = rising();
  EXPECT_EQ(sampler.choose(logits, 2, 0, scratch).token, 11);
  sampler.accept(11);
  logits = rising();
  EXPECT_EQ(sampler.choose(logits, 3, 1, scratch).token, 10) << "1.75 - 0.3 - 0.1 < 1.5";
  s.request.params.frequency_penalty = s.request.params.presence_penalty = 0;
  s.request.params.repetition_penalty = 2;
  EXPECT_EQ(s.choose(rising()).token, 10);
}

TEST(TokenSampler, FrequenciesFollowTheSoftmax) {
  Sampling s;
  const auto logits = rising();
  const int draws = 20000;
  const auto counts = s.histogram(logits, draws);
  double total = 0;
  for (const float logit : logits) total += std::exp(logit);
  for (int32_t v = 0; v < kVocab; ++v) {
    const double p = std::exp(logits[static_cast<size_t>(v)]) / total;
    EXPECT_NEAR(counts.at(v), draws * p, 5 * std::sqrt(draws * p * (1 - p))) << v;
  }
}

TEST(TokenSampler, TopKTopPAndMinPLeaveOnlyTheBest) {
  Sampling s;
  s.request.params.top_k = 3;
  for (const auto& [token, count] : s.histogram(rising(), 500)) EXPECT_GE(token, 9);
  s.request.params.top_k = 0;
  s.request.params.min_p = 0.5;  // exp(-0.75) < 0.5 < exp(-0.5)
  for (const auto& [token, count] : s.histogram(rising(), 500)) EXPECT_GE(token, 9);
  s.request.params.min_p = 0;
  s.request.params.top_p = 1e-6;
  EXPECT_EQ(s.histogram(rising(), 100).size(), 1u);
}

TEST(TokenSampler, AChoiceDependsOnSeedPositionAndIndexOnly) {
  Sampling s;
  SamplerScratch scratch;
  const auto draw = [&](uint64_t seed, int index, int64_t position) {
    auto logits = rising();
    return s.sampler(seed, index).choose(logits, position, 0, scratch).token;
  };
  std::map<int32_t, int> by_seed, by_index, by_position;
  for (int i = 0; i < 64; ++i) {
    EXPECT_EQ(draw(3, 1, i), draw(3, 1, i));
    ++by_seed[draw(static_cast<uint64_t>(i), 0, 7)];
    ++by_index[draw(7, i, 7)];
    ++by_position[draw(7, 0, i)];
  }
  EXPECT_GT(by_seed.size(), 3u);
  EXPECT_GT(by_index.size(), 3u);
  EXPECT_GT(by_position.size(), 3u);
}

TEST(TokenSampler, LogprobsAreThoseOfTheModelUnlessProcessedOnesAreAskedFor) {
  Sampling s;
  s.request.params.temperature = 0;
  s.request.params.logprobs = 2;
  s.request.params.logit_bias = {{0, 100.0f}};
  double total = 0;
  for (const float logit : rising()) total += std::exp(logit);
  const auto raw = s.choose(rising()).logprobs.value();
  EXPECT_EQ(raw.chosen.token, 0);
  EXPECT_EQ(raw.chosen.rank, 12);
  EXPECT_NEAR(raw.chosen.logprob, -1 - std::log(total), 1e-5);
  ASSERT_EQ(raw.top.size(), 2u);
  EXPECT_EQ(raw.top[0].token, 11);
  EXPECT_EQ(raw.top[1].token, 10);
  s.processed_logprobs = true;
  const auto processed = s.choose(rising()).logprobs.value();
  EXPECT_EQ(processed.chosen.rank, 1);
  EXPECT_NEAR(processed.chosen.logprob, 0, 1e-5);
  EXPECT_EQ(processed.chosen.logprob, processed.top[0].logprob);
}

TEST(SamplingParams, AbsurdValuesAreRefusedInVllmsWords) {
  const auto message = [](auto change) {
    SamplingParams params;
    change(params);
    return validate(params, 100, 20).message();
  };
  const double nan = std::numeric_limits<double>::quiet_NaN();
  EXPECT_EQ(message([](auto&) {}), "");
  EXPECT_EQ(message([](auto& p) { p.top_p = 2; }), "top_p must be in (0, 1], got 2.");
  EXPECT_EQ(message([](auto& p) { p.top_p = 0; }), "top_p must be in (0, 1], got 0.");
  EXPECT_EQ(message([=](auto& p) { p.top_p = nan; }), "top_p must be in (0, 1], got nan.");
  EXPECT_EQ(message([](auto& p) { p.temperature = -1; }), "temperature must be non-negative, got -1.");
  EXPECT_EQ(message([=](auto& p) { p.temperature = nan; }), "temperature must be non-negative, got nan.");
  EXPECT_EQ(message([](auto& p) { p.top_k = -2; }), "top_k must be -1 or 0 (disable), or at least 1, got -2.");
  EXPECT_EQ(message([](auto& p) { p.min_p = 1.5; }), "min_p must be in [0, 1], got 1.5.");
  EXPECT_EQ(message([](auto& p) { p.presence_penalty = 3; }), "presence_penalty must be in [-2, 2], got 3.");
  EXPECT_EQ(message([](auto& p) { p.frequency_penalty = -3; }), "frequency_penalty must be in [-2, 2], got -3.");
  EXPECT_EQ(message([](auto& p) { p.repetition_penalty = 0; }), "repetition_penalty must be greater than zero, got 0.");
  EXPECT_EQ(message([](auto& p) { p.n = 0; }), "n must be at least 1, got 0.");
  EXPECT_EQ(message([](auto& p) { p.n = 1 << 20; }), "n must be at most 16384, got 1048576.");
  EXPECT_EQ(message([](auto& p) { p.n = 2, p.temperature = 0; }), "n must be 1 when using greedy sampling, got 2.");
  EXPECT_EQ(message([](auto& p) { p.max_tokens = 0; }), "max_tokens must be at least 1, got 0.");
  EXPECT_EQ(message([](auto& p) { p.max_tokens = 0, p.prompt_logprobs = 1; }), "");
  EXPECT_EQ(message([](auto& p) { p.min_tokens = 17; }),
            "min_tokens must be less than or equal to max_tokens=16, got 17.");
  EXPECT_EQ(message([](auto& p) { p.min_tokens = -1; }), "min_tokens must be greater than or equal to 0, got -1.");
  EXPECT_EQ(message([](auto& p) { p.logprobs = 21; }),
            "Requested logprobs of 21, which is greater than max allowed: 20.");
  EXPECT_EQ(message([](auto& p) { p.prompt_logprobs = -1; }), "prompt_logprobs must be non-negative, got -1.");
  EXPECT_EQ(message([](auto& p) { p.stop = {""}; }), "stop cannot contain an empty string.");
  EXPECT_EQ(message([](auto& p) { p.stop = {"x"}, p.detokenize = false; }),
            "stop strings are only supported when detokenize is true.");
  EXPECT_EQ(message([](auto& p) {
              p.allowed_token_ids = {1, 100};
            }),
            "allowed_token_ids: token id 100 is not in the vocabulary of 100.");
  EXPECT_EQ(message([](auto& p) {
              p.logit_bias = {{-1, 1.0f}};
            }),
            "logit_bias: token id -1 is not in the vocabulary of 100.");
}

}  // namespace
}  // namespace millrace
