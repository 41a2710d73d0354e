#include "ops/sampling.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <set>

#include "base/random.h"

namespace millrace {
namespace {

constexpr float kBanned = -std::numeric_limits<float>::infinity();

std::vector<float> random_logits(uint64_t seed, int64_t n, float scale = 2) {
  Random random(seed);
  std::vector<float> logits(n);
  for (float& x : logits) x = scale * random.normal();
  return logits;
}

std::set<int32_t> survivors(const std::vector<float>& logits) {
  std::set<int32_t> ids;
  for (size_t i = 0; i < logits.size(); ++i)
    if (logits[i] > kBanned) ids.insert(static_cast<int32_t>(i));
  return ids;
}

// The filters as their definition has them: by a full sort.
std::set<int32_t> kept_by_definition(const std::vector<float>& logits, const SampleParams& p) {
  std::vector<int32_t> order;
  for (const int32_t id : survivors(logits)) order.push_back(id);
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return logits[a] > logits[b]; });
  const auto weight = [&](int32_t id) {
    return std::exp((static_cast<double>(logits[id]) - logits[order[0]]) / p.temperature);
  };
  std::vector<int32_t> kept;
  for (const int32_t id : order)
    if (weight(id) >= p.min_p) kept.push_back(id);
  if (p.top_k > 0 && static_cast<size_t>(p.top_k) < kept.size()) {
    const float least = logits[kept[p.top_k - 1]];
    std::erase_if(kept, [&](int32_t id) { return logits[id] < least; });
  }
  double total = 0, tail = 0;
  for (const int32_t id : kept) total += weight(id);
  if (p.top_p < 1)
    while (kept.size() > 1 && (tail += weight(kept.back())) <= (1 - static_cast<double>(p.top_p)) * total)
      kept.pop_back();
  return {kept.begin(), kept.end()};
}

TEST(FilterLogits, KeepsWhatTheDefinitionKeeps) {
  SampleScratch scratch;
  Random random(1);
  for (int round = 0; round < 400; ++round) {
    const int64_t n = 1 + random.below(3000);
    auto logits = random_logits(round, n, 0.1f + 4 * random.uniform());
    for (int banned = static_cast<int>(random.below(5)); banned-- > 0 && n > 10;) logits[random.below(5)] = kBanned;
    SampleParams p{.temperature = 0.3f + 2 * random.uniform()};
    if (random.below(2)) p.top_k = 1 + random.below(100);
    if (random.below(2)) p.top_p = random.uniform();
    if (random.below(3) == 0) p.min_p = 0.3f * random.uniform();
    const auto want = kept_by_definition(logits, p);
    filter_logits(logits, p, scratch);
    const auto got = survivors(logits);
    std::vector<int32_t> differ;
    std::set_symmetric_difference(want.begin(), want.end(), got.begin(), got.end(), std::back_inserter(differ));
    ASSERT_LE(differ.size(), 1u) << "round " << round;  // at the very edge the order of summation may decide
    ASSERT_GE(got.size(), 1u);
  }
}

// Rows in which top-p keeps thousands of tokens, some of them equal.
TEST(FilterLogits, KeepsWhatTheDefinitionKeepsOfFlatRows) {
  SampleScratch scratch;
  Random random(2);
  for (int round = 0; round < 60; ++round) {
    auto logits = random_logits(round, 20000 + round, 0.01f + 3 * random.uniform());
    if (round % 3 == 0)
      for (float& x : logits) x = std::round(4 * x) / 4;
    if (round % 5 == 0)
      for (float& x : logits) x += round % 2 ? 1000.0f : -3e6f;
    const SampleParams p{.temperature = round % 4 ? 1.0f : 0.5f, .top_p = round % 7 ? random.uniform() : 0.9999f};
    const auto fresh = logits;
    const double top = *std::max_element(fresh.begin(), fresh.end());
    const auto want = kept_by_definition(logits, p);
    filter_logits(logits, p, scratch);
    const auto got = survivors(logits);
    std::vector<int32_t> differ;
    std::set_symmetric_difference(want.begin(), want.end(), got.begin(), got.end(), std::back_inserter(differ));
    // Sums of float32 in blocks decide: within a millionth of the whole mass.
    double total = 0, apart = 0;
    const auto weight = [&](int32_t id) { return std::exp((static_cast<double>(fresh[id]) - top) / p.temperature); };
    for (int32_t id = 0; id < static_cast<int32_t>(fresh.size()); ++id) total += weight(id);
    for (const int32_t id : differ) apart += weight(id);
    ASSERT_TRUE(differ.size() <= 1 || apart <= 1e-6 * total) << differ.size() << " in round " << round;
  }
}

TEST(FilterLogits, TiesWithTheKthValueStay) {
  SampleScratch scratch;
  std::vector<float> logits = {1, 3, 2, 2, 2, 0};
  filter_logits(logits, {.top_k = 2}, scratch);
  EXPECT_EQ(survivors(logits), (std::set<int32_t>{1, 2, 3, 4}));
}

TEST(FilterLogits, OfEqualTokensTopPKeepsTheLowerIds) {
  SampleScratch scratch;
  std::vector<float> logits(8, 1.0f);
  filter_logits(logits, {.top_p = 0.5f}, scratch);
  EXPECT_EQ(survivors(logits), (std::set<int32_t>{0, 1, 2, 3}));
}

TEST(FilterLogits, TheBestTokenAlwaysStays) {
  SampleScratch scratch;
  for (const SampleParams& p : {SampleParams{.top_p = 1e-9f}, SampleParams{.min_p = 1.0f}, SampleParams{.top_k = 1}}) {
    auto logits = random_logits(3, 500);
    const int32_t best = greedy_token(logits);
    filter_logits(logits, p, scratch);
    EXPECT_EQ(survivors(logits), std::set<int32_t>{best});
  }
}

TEST(GreedyToken, TheLowerIdWinsATieAndNanNever) {
  EXPECT_EQ(greedy_token(std::vector<float>{1, 5, 2, 5}), 1);
  EXPECT_EQ(greedy_token(std::vector<float>{NAN, -3, NAN, -2, NAN}), 3);
  EXPECT_EQ(greedy_token(std::vector<float>(40, kBanned)), 0);
  std::vector<float> logits(1000, 0.0f);
  logits[999] = 1;
  EXPECT_EQ(greedy_token(logits), 999);
}

TEST(SampleToken, FollowsTheDistribution) {
  SampleScratch scratch;
  const std::vector<float> logits = {0, 1, 2, kBanned, -1};
  std::vector<int> counts(5);
  constexpr int kDraws = 40000;
  for (int i = 0; i < kDraws; ++i) {
    auto row = logits;
    ++counts[sample_token(row, {}, /*seed=*/42, /*position=*/i, scratch)];
  }
  double total = 0;
  for (const float x : logits) total += std::exp(x);
  for (size_t i = 0; i < 5; ++i) {
    const double p = std::exp(logits[i]) / total, deviation = std::sqrt(kDraws * p * (1 - p));
    EXPECT_NEAR(counts[i], kDraws * p, 4.5 * deviation) << i;
  }
}

TEST(SampleToken, DependsOnSeedAndPositionAlone) {
  SampleScratch scratch;
  const auto logits = random_logits(5, 5000);
  const auto draw = [&](uint64_t seed, uint64_t position) {
    auto row = logits;
    return sample_token(row, {.temperature = 1.5f}, seed, position, scratch);
  };
  std::set<int32_t> by_position, by_seed;
  for (uint64_t i = 0; i < 30; ++i) {
    EXPECT_EQ(draw(7, i), draw(7, i));
    by_position.insert(draw(7, i));
    by_seed.insert(draw(i, 7));
  }
  EXPECT_GT(by_position.size(), 15u);
  EXPECT_GT(by_seed.size(), 15u);
}

TEST(SampleToken, IsTheArgmaxOfLogitPlusNoise) {
  SampleScratch scratch;
  for (uint64_t position = 0; position < 20; ++position) {
    auto logits = random_logits(position, 3000, 0.5f + static_cast<float>(position));
    int32_t want = 0;
    float best = kBanned;
    for (int32_t id = 0; id < 3000; ++id) {
      const float u = uniform_open(philox(9, static_cast<uint64_t>(id) / 4, position)[id % 4]);
      const float value = logits[id] - std::log(-std::log(u));
      if (value > best) best = value, want = id;
    }
    EXPECT_EQ(sample_token(logits, {}, 9, position, scratch), want);
  }
}

// A token's noise does not depend on which other tokens are left: the winner of all wins every subset that has it.
TEST(SampleToken, TheWinnerStaysTheWinnerAmongFewer) {
  SampleScratch scratch;
  for (uint64_t position = 0; position < 50; ++position) {
    auto all = random_logits(6, 300), fewer = all;
    const int32_t winner = sample_token(all, {}, 1, position, scratch);
    for (int32_t id = 0; id < 300; id += 2)
      if (id != winner) fewer[id] = kBanned;
    EXPECT_EQ(sample_token(fewer, {}, 1, position, scratch), winner);
  }
}

// Flat and peaked rows, rows of few values, banned tokens; shares that end on a tie, between tokens, before the first.
TEST(DrawToken, IsWhatSampleTokenReturns) {
  SampleScratch scratch;
  const auto expect_same = [&](const std::vector<float>& logits, uint64_t positions) {
    for (const SampleParams& params : {SampleParams{},
                                       {.top_p = 0.3f},
                                       {.top_p = 0.5f},
                                       {.top_p = 0.75f},
                                       {.temperature = 0.8f, .top_p = 0.9f},
                                       {.temperature = 3, .top_p = 0.95f},
                                       {.top_p = 0.9999f},
                                       {.top_k = 5, .top_p = 0.9f},
                                       {.top_p = 0.9f, .min_p = 0.1f}})
      for (uint64_t position = 0; position < positions; ++position) {
        auto whole = logits, quick = logits;
        ASSERT_EQ(draw_token(quick, params, 3, position, scratch), sample_token(whole, params, 3, position, scratch))
            << logits.size() << " logits, top-p " << params.top_p << " at " << position;
      }
  };
  for (const int64_t n : {1, 2, 130, 4096, 4097, 9000})
    for (const float spread : {0.0f, 0.01f, 1.0f, 3.0f, 20.0f, 200.0f}) {
      auto logits = random_logits(n, n, spread);
      expect_same(logits, 8);
      for (float& x : logits) x = std::round(x);
      expect_same(logits, 8);
      for (size_t i = 0; i < logits.size(); i += i < 5000 ? 1 : 3) logits[i] = kBanned;
      expect_same(logits, 4);
    }
  std::vector<float> odd = random_logits(1, 5000);
  odd[17] = std::numeric_limits<float>::quiet_NaN();
  expect_same(odd, 8);
  odd[18] = std::numeric_limits<float>::infinity();
  expect_same(odd, 8);
}

TEST(TokenLogprobs, AreTheLogSoftmaxWithRanks) {
  SampleScratch scratch;
  for (const int64_t n : {1, 5, 17, 331, 5000, 40000}) {
    auto logits = random_logits(n, n);
    if (n > 100) logits[50] = logits[60] = *std::max_element(logits.begin(), logits.end()) + 1;
    const int64_t k = std::min<int64_t>(n, 20);
    double total = 0;
    for (const float x : logits) total += std::exp(static_cast<double>(x));
    std::vector<RankedToken> top(k);
    for (const int32_t chosen : {int32_t{0}, static_cast<int32_t>(n / 2), greedy_token(logits)}) {
      const RankedToken got = token_logprobs(logits, chosen, top, scratch);
      EXPECT_EQ(got.token, chosen);
      EXPECT_NEAR(got.logprob, logits[chosen] - std::log(total), 2e-6);
      EXPECT_EQ(got.rank, 1 + std::count_if(logits.begin(), logits.end(), [&](float x) { return x > logits[chosen]; }));
      for (const RankedToken& entry : top) {
        EXPECT_EQ(entry.rank,
                  1 + std::count_if(logits.begin(), logits.end(), [&](float x) { return x > logits[entry.token]; }));
        if (entry.token == chosen) {
          EXPECT_EQ(entry.logprob, got.logprob);
        }
      }
      for (int64_t i = 1; i < k; ++i)
        EXPECT_TRUE(top[i - 1].logprob > top[i].logprob ||
                    (top[i - 1].logprob == top[i].logprob && top[i - 1].token < top[i].token));
      EXPECT_EQ(top[0].token, greedy_token(logits));
    }
  }
}

TEST(TokenLogprobs, BannedTokensComeLastWithMinusInfinity) {
  SampleScratch scratch;
  std::vector<float> logits(20, kBanned);
  logits[7] = 1, logits[3] = 0;
  std::vector<RankedToken> top(4);
  const RankedToken got = token_logprobs(logits, 5, top, scratch);
  EXPECT_EQ(got.logprob, kBanned);
  EXPECT_EQ(got.rank, 3);
  EXPECT_EQ(top[0].token, 7);
  EXPECT_EQ(top[1].token, 3);
  EXPECT_EQ(top[2].token, 0);
  EXPECT_EQ(top[2].logprob, kBanned);
}

TEST(Penalties, FollowTheFormulas) {
  std::vector<float> logits = {2, -2, 2, 1, 1};
  const TokenUse uses[] = {{0, 0}, {1, 3}, {2, 1}};
  apply_penalties(logits, uses, {.repetition = 2, .frequency = 0.5f, .presence = 0.25f});
  EXPECT_EQ(logits, (std::vector<float>{1, -4 - 1.5f - 0.25f, 1 - 0.75f, 1, 1}));
}

TEST(Bias, AddsBansAndAllows) {
  std::vector<float> logits = {1, 2, 3, 4}, scratch;
  const std::pair<int32_t, float> biases[] = {{1, 5.0f}, {3, -1.0f}};
  add_logit_bias(logits, biases);
  EXPECT_EQ(logits, (std::vector<float>{1, 7, 3, 3}));
  const int32_t allowed[] = {3, 0, 3};
  allow_only(logits, allowed, scratch);
  EXPECT_EQ(logits, (std::vector<float>{1, kBanned, kBanned, 3}));
  const int32_t banned[] = {0};
  ban(logits, banned);
  EXPECT_EQ(greedy_token(logits), 3);
}

}  // namespace
}  // namespace millrace
