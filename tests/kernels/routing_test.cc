#include "kernels/routing.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <numeric>

#include "kernels/expert_rows.h"
#include "tests/kernels/testing.h"

namespace millrace {
namespace {

struct Routed {
  std::vector<int32_t> experts;
  std::vector<float> weights;
};

Routed run_route(const std::vector<float>& logits, int64_t T, const RouterParams& params,
                 const std::vector<float>& bias = {}) {
  const auto E = static_cast<int64_t>(logits.size()) / T;
  Routed out{std::vector<int32_t>(T * params.experts_per_token), std::vector<float>(T * params.experts_per_token)};
  route({.logits = logits.data(),
         .bias = bias.empty() ? nullptr : bias.data(),
         .params = params,
         .experts = out.experts.data(),
         .weights = out.weights.data(),
         .T = T,
         .E = E,
         .stride = E});
  return out;
}

// Indices of `values` from the largest down, equal ones rising.
std::vector<int64_t> ranked(const std::vector<double>& values) {
  std::vector<int64_t> order(values.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return values[a] > values[b]; });
  return order;
}

// One token by sorting, in double.
std::map<int64_t, double> chosen(const float* logits, int64_t E, const RouterParams& p,
                                 const std::vector<float>& bias) {
  std::vector<double> score(E), choice(E);
  double total = 0;
  for (int64_t e = 0; e < E; ++e) total += std::exp(static_cast<double>(logits[e]));
  for (int64_t e = 0; e < E; ++e) {
    const double x = logits[e];
    score[e] = p.score == RouterScore::kSoftmax ? std::exp(x) / total : 1 / (1 + std::exp(-x));
    choice[e] = score[e] + (bias.empty() ? 0 : bias[e]);
  }
  if (p.groups > 1) {
    const int64_t n = E / p.groups;
    std::vector<double> of_group;
    for (int64_t g = 0; g < p.groups; ++g) {
      std::vector<double> members(choice.begin() + g * n, choice.begin() + (g + 1) * n);
      std::sort(members.rbegin(), members.rend());
      of_group.push_back(p.group_score == RouterGroupScore::kMax ? members[0] : members[0] + members[1]);
    }
    const auto order = ranked(of_group);
    for (int64_t i = p.groups_per_token; i < p.groups; ++i) std::fill_n(choice.begin() + order[i] * n, n, 0.0);
  }
  const auto order = ranked(choice);
  double sum = 0;
  for (int64_t k = 0; k < p.experts_per_token; ++k) sum += score[order[k]];
  std::map<int64_t, double> weights;
  for (int64_t k = 0; k < p.experts_per_token; ++k)
    weights[order[k]] = score[order[k]] / (p.normalize ? sum : 1) * p.scale;
  return weights;
}

struct RouteCase {
  const char* name;
  int64_t E;
  RouterParams params;
  bool biased = false;
};
constexpr auto kSoftmax = RouterScore::kSoftmax, kSigmoid = RouterScore::kSigmoid;
constexpr auto kMax = RouterGroupScore::kMax, kTwoBest = RouterGroupScore::kTwoBest;
const RouteCase kCases[] = {
    {"mixtral", 8, {kSoftmax, 2, 1, 1, kMax, true, 1}},
    {"qwen2_moe", 60, {kSoftmax, 4, 1, 1, kMax, false, 1}},
    {"qwen3_moe", 128, {kSoftmax, 8, 1, 1, kMax, true, 1}},
    {"deepseek_v2", 160, {kSoftmax, 6, 8, 3, kMax, false, 16}},
    {"deepseek_v3", 256, {kSigmoid, 8, 8, 4, kTwoBest, true, 2.5f}, true},
    {"all_experts", 5, {kSigmoid, 5, 1, 1, kMax, true, 1}, true},
    {"one_expert", 1, {kSoftmax, 1, 1, 1, kMax, true, 1}},
};

TEST(Routing, ChoosesAndWeighsAsSortingInDoubleDoes) {
  constexpr int64_t T = 40;
  Random random(11);
  for (const RouteCase& c : kCases) {
    SCOPED_TRACE(c.name);
    const auto logits = random_floats(random, T * c.E, 2);
    const auto bias = c.biased ? random_floats(random, c.E, 0.2f) : std::vector<float>();
    const Routed got = run_route(logits, T, c.params, bias);
    const int64_t K = c.params.experts_per_token;
    for (int64_t t = 0; t < T; ++t) {
      const auto want = chosen(logits.data() + t * c.E, c.E, c.params, bias);
      for (int64_t i = t * K; i < (t + 1) * K; ++i) {
        const auto found = want.find(got.experts[i]);
        ASSERT_NE(found, want.end()) << "token " << t << " expert " << got.experts[i];
        ASSERT_NEAR(got.weights[i], found->second, 2e-6 * found->second + 1e-7);
      }
    }
  }
}

TEST(Routing, EqualScoresAreTakenInRisingOrder) {
  const std::vector<float> logits = {1, 3, 3, 0, 3, 1};
  EXPECT_EQ(run_route(logits, 1, {.experts_per_token = 5}).experts, (std::vector<int32_t>{1, 2, 4, 0, 5}));
  const std::vector<float> same(8, 0.5f);
  const RouterParams grouped{.experts_per_token = 3, .groups = 4, .groups_per_token = 2};
  EXPECT_EQ(run_route(same, 1, grouped).experts, (std::vector<int32_t>{0, 1, 2}));
}

TEST(Routing, ExpertsOutsideTheBestGroupsChooseWithZero) {
  // With the bias every expert of the better group {2, 3} chooses below zero but for one.
  const std::vector<float> logits = {0, 0, 4, 0}, bias = {-2, -2, -0.5f, -3};
  const RouterParams params{kSigmoid, 2, 2, 1, kMax, false, 1};
  const Routed routed = run_route(logits, 1, params, bias);
  EXPECT_EQ(routed.experts, (std::vector<int32_t>{2, 0}));
  EXPECT_FLOAT_EQ(routed.weights[1], 0.5f);
}

TEST(Routing, AnyLogitsGiveDistinctExpertsInRange) {
  const float nan = std::nanf(""), inf = INFINITY;
  for (const std::vector<float>& logits :
       {std::vector<float>(6, nan), std::vector<float>(6, -inf), std::vector<float>{inf, nan, inf, -inf, 0, nan}})
    for (const RouterScore score : {kSoftmax, kSigmoid}) {
      auto experts = run_route(logits, 1, {score, 4, 3, 2, kTwoBest, true, 1}).experts;
      std::sort(experts.begin(), experts.end());
      EXPECT_EQ(std::unique(experts.begin(), experts.end()), experts.end());
      EXPECT_GE(experts.front(), 0);
      EXPECT_LT(experts.back(), 6);
    }
}

TEST(ExpertRows, AreSortedByExpertThenToken) {
  const std::vector<int32_t> experts = {3, 0, 0, 3, 1, 3};  // T 3, K 2
  std::vector<int32_t> first(6), row_of(6), token_of(6);
  order_by_expert({.experts = experts.data(),
                   .T = 3,
                   .K = 2,
                   .E = 5,
                   .first_row = first.data(),
                   .row_of = row_of.data(),
                   .token_of_row = token_of.data()});
  EXPECT_EQ(first, (std::vector<int32_t>{0, 2, 3, 3, 6, 6}));
  EXPECT_EQ(row_of, (std::vector<int32_t>{3, 0, 1, 4, 2, 5}));
  EXPECT_EQ(token_of, (std::vector<int32_t>{0, 1, 2, 0, 1, 2}));
}

TEST(ExpertRows, EveryImplementationCombinesAsPortable) {
  Random random(2);
  for (const int64_t C : {1, 16, 37, 200})
    for (const bool adds : {false, true})
      for (const bool gated : {false, true}) {
        constexpr int64_t T = 5, K = 3;
        const auto x = random_floats(random, T * K * C), weights = random_floats(random, T * K);
        const auto gate = random_floats(random, T), base = random_floats(random, T * (C + 2));
        std::vector<int32_t> row_of(T * K);
        for (int64_t i = 0; i < T * K; ++i) row_of[i] = static_cast<int32_t>((i * 4 + 1) % (T * K));
        const auto run = [&](CombineRowsFn* combine) {
          std::vector<float> y = base;
          combine({.x = x.data(),
                   .weights = weights.data(),
                   .row_of = row_of.data(),
                   .y = y.data(),
                   .T = T,
                   .K = K,
                   .C = C,
                   .y_stride = C + 2,
                   .adds = adds,
                   .gate = gated ? gate.data() : nullptr});
          return y;
        };
        const auto want = run(combine_rows_impls().back().run);
        for (const auto& impl : combine_rows_impls()) {
          if (!cpu_has(impl.needs)) continue;
          const auto got = run(impl.run);
          for (size_t i = 0; i < want.size(); ++i) {
            ASSERT_NEAR(got[i], want[i], 2e-6f) << impl.name << ' ' << i;
            if (static_cast<int64_t>(i) % (C + 2) >= C) {
              ASSERT_EQ(got[i], base[i]);
            }
          }
        }
      }
}

}  // namespace
}  // namespace millrace
