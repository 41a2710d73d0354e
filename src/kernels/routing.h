// How tokens find their experts. s = score(logits[t]): softmax or sigmoid, float32. The K experts with the best
// s + bias are taken, best first, equal ones in rising order; with groups, the experts outside the best groups choose
// with 0 in place of s + bias. Weights: s of the taken, divided by their sum (+ 1e-20) if wanted, times `scale`.
// Covers Mixtral, Qwen2-MoE and Qwen3-MoE (softmax), DeepSeek-V2 (softmax, groups by their best) and DeepSeek-V3
// (sigmoid, bias, groups by their two best); formulas: transformers, modeling_*.py of each.
#pragma once
#include <cstdint>

namespace millrace {

constexpr int64_t kMaxExperts = 2048;

enum class RouterScore : uint8_t { kSoftmax, kSigmoid };
enum class RouterGroupScore : uint8_t { kMax, kTwoBest };  // of a group: its best s + bias, or the sum of its two best

struct RouterParams {
  RouterScore score = RouterScore::kSoftmax;
  int64_t experts_per_token = 1;             // K
  int64_t groups = 1, groups_per_token = 1;  // groups of E / groups neighbouring experts
  RouterGroupScore group_score = RouterGroupScore::kMax;
  bool normalize = false;
  float scale = 1;
};

struct RouteArgs {
  const float* logits;  // [T, E], rows stride apart
  const float* bias;    // [E] or null
  RouterParams params;
  int32_t* experts;  // [T, K]
  float* weights;    // [T, K]
  int64_t T, E, stride;
};
// Requires: E <= kMaxExperts, K <= E, groups divide E, groups_per_token <= groups, two experts in a group where two are
// added up. Experts are distinct and in range whatever the logits are.
void route(const RouteArgs& args);

}  // namespace millrace
