// A mixture of experts in place of a feed-forward part: each token goes through the K experts its router chooses.
//   y[t] = sum over the chosen e of weight(t, e) * expert_e(x[t])  +  shared(x[t]) [* sigmoid(shared_gate(x[t]))]
//   expert(x) = down(act(gate(x)) * up(x))
// Tokens are sorted by expert and all experts' products run as one parallel region: a single token costs the bytes of
// its K experts, many tokens fill the tiles. A row of y is bit-identical whatever else is in the batch: it depends on
// its own row of x alone, and the chosen experts are added in the order of their scores.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/routing.h"
#include "ops/grouped_linear.h"

namespace millrace {

// Chooses experts (kernels/routing.h has the formula). Scores are computed in float32 whatever the experts' format is.
class Router {
 public:
  Router() = default;
  // weight [E, C], floating, kept as float32; correction_bias [E], floating, or Tensor() for none. Requires what
  // kernels/routing.h requires of E and params.
  Router(const Tensor& weight, const Tensor& correction_bias, const RouterParams& params);

  int64_t experts() const { return weight_.out_features(); }
  int64_t experts_per_token() const { return params_.experts_per_token; }
  int64_t weight_bytes() const { return weight_.weight_bytes(); }
  int64_t scratch_bytes(int64_t max_tokens) const;

  // x [T, C] kF32 or kBf16; experts and weights [T, K], best first.
  void forward(const Tensor& x, std::span<int32_t> experts, std::span<float> weights, Workspace& workspace) const;

 private:
  Linear weight_;
  Tensor bias_;
  RouterParams params_;
};

// A gated feed-forward part: gate_up [2F, C] has the gates' rows, then the ups'; down [C, F].
struct GatedMlp {
  Linear gate_up, down;
  int64_t hidden() const { return gate_up.out_features() / 2; }
};

class Experts {
 public:
  struct Parts {
    Router router;
    std::vector<GatedMlp> experts;  // E, all of one size
    GluActivation activation = GluActivation::kSilu;
    GatedMlp shared;     // not defined: none
    Linear shared_gate;  // [1, C], or not defined
  };
  explicit Experts(Parts parts);

  // x [T, C] in input_dtype() (any of kF32 and kBf16 works, at the price of conversions), y [T, C] kF32; rows
  // contiguous, row strides free; T >= 0. One forward at a time per object.
  void forward(const Tensor& x, Tensor& y, Workspace& workspace);
  DType input_dtype() const { return parts_.experts[0].gate_up.input_dtype(); }
  // What forward takes from the workspace for up to max_tokens tokens.
  int64_t scratch_bytes(int64_t max_tokens) const;
  // All experts, the shared one and the router.
  int64_t weight_bytes() const;

 private:
  struct Step;  // a forward's routing and intermediate results
  Step plan(const Tensor& x, Workspace& workspace) const;
  void call_gate_up(const Tensor& x, Step& step, Workspace& workspace);
  void call_down(Step& step, Tensor& y, Workspace& workspace);
  void combine(const Tensor& x, const Step& step, Tensor& y, Workspace& workspace) const;

  const GatedMlp& expert() const { return parts_.experts[0]; }
  bool has_shared() const { return parts_.shared.down.defined(); }
  int64_t hidden_size() const { return expert().down.out_features(); }  // C
  int64_t most_experts(int64_t rows) const;

  Parts parts_;
  std::vector<LinearCall> calls_;  // of the products at hand
};

}  // namespace millrace
