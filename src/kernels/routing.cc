#include "kernels/routing.h"

#include <cmath>

#include "base/check.h"
#include "kernels/parallel.h"

namespace millrace {
namespace {

void softmax(const float* logits, int64_t E, float* score) {
  float top = logits[0], total = 0;
  for (int64_t e = 1; e < E; ++e) top = std::max(top, logits[e]);
  for (int64_t e = 0; e < E; ++e) total += score[e] = std::exp(logits[e] - top);
  for (int64_t e = 0; e < E; ++e) score[e] /= total;
}

void sigmoid(const float* logits, int64_t E, float* score) {
  for (int64_t e = 0; e < E; ++e) score[e] = 1 / (1 + std::exp(-logits[e]));
}

// The `count` largest of n values, largest first, equal ones in rising order. `taken` is zero and becomes 1 for them.
void take_best(const float* values, int64_t n, int64_t count, uint8_t* taken, int32_t* best) {
  for (int64_t i = 0; i < count; ++i) {
    int64_t found = -1;
    for (int64_t e = 0; e < n; ++e)
      if (!taken[e] && (found < 0 || values[e] > values[found])) found = e;
    taken[found] = 1;
    best[i] = static_cast<int32_t>(found);
  }
}

float group_score(const float* choice, int64_t n, RouterGroupScore kind) {
  float best = -INFINITY, second = -INFINITY;
  for (int64_t e = 0; e < n; ++e) {
    second = std::max(second, std::min(best, choice[e]));
    best = std::max(best, choice[e]);
  }
  return kind == RouterGroupScore::kMax ? best : best + second;
}

// Outside the best groups every choice becomes 0.
void keep_best_groups(const RouterParams& params, int64_t E, float* choice) {
  const int64_t n = E / params.groups;
  float scores[kMaxExperts];
  uint8_t taken[kMaxExperts] = {};
  int32_t best[kMaxExperts];
  for (int64_t g = 0; g < params.groups; ++g) scores[g] = group_score(choice + g * n, n, params.group_score);
  take_best(scores, params.groups, params.groups_per_token, taken, best);
  for (int64_t e = 0; e < E; ++e)
    if (!taken[e / n]) choice[e] = 0;
}

void weigh(const RouterParams& params, const float* score, const int32_t* experts, float* weights) {
  float total = 1e-20f;
  for (int64_t k = 0; k < params.experts_per_token; ++k) total += weights[k] = score[experts[k]];
  for (int64_t k = 0; k < params.experts_per_token; ++k) {
    if (params.normalize) weights[k] /= total;
    weights[k] *= params.scale;
  }
}

void route_token(const RouteArgs& a, int64_t t) {
  const int64_t K = a.params.experts_per_token;
  float score[kMaxExperts], choice[kMaxExperts];
  uint8_t taken[kMaxExperts] = {};
  if (a.params.score == RouterScore::kSoftmax)
    softmax(a.logits + t * a.stride, a.E, score);
  else
    sigmoid(a.logits + t * a.stride, a.E, score);
  for (int64_t e = 0; e < a.E; ++e) choice[e] = a.bias ? score[e] + a.bias[e] : score[e];
  if (a.params.groups > 1) keep_best_groups(a.params, a.E, choice);
  take_best(choice, a.E, K, taken, a.experts + t * K);
  weigh(a.params, score, a.experts + t * K, a.weights + t * K);
}

}  // namespace

void route(const RouteArgs& a) {
  const RouterParams& p = a.params;
  MR_CHECK(a.E >= 1 && a.E <= kMaxExperts && p.experts_per_token >= 1 && p.experts_per_token <= a.E,
           "{} of {} experts; at most {}", p.experts_per_token, a.E, kMaxExperts);
  MR_CHECK(p.groups >= 1 && a.E % p.groups == 0 && p.groups_per_token >= 1 && p.groups_per_token <= p.groups &&
               (p.groups == 1 || p.group_score == RouterGroupScore::kMax || a.E / p.groups >= 2),
           "{} of {} groups of {} experts", p.groups_per_token, p.groups, a.E);
  constexpr int64_t kGrain = 8;
  parallel_ranges(a.T, kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) route_token(a, t);
  });
}

}  // namespace millrace
