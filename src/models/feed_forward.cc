#include <fmt/format.h>

#include "models/layer_parts.h"
#include "ops/experts.h"
#include "ops/rows.h"

namespace millrace {
namespace {

GluActivation kernel_activation(Activation activation) {
  switch (activation) {
    case Activation::kSilu:
      return GluActivation::kSilu;
    case Activation::kGelu:
      return GluActivation::kGelu;
    case Activation::kGeluTanh:
      return GluActivation::kGeluTanh;
    case Activation::kRelu:
      return GluActivation::kRelu;
  }
  return GluActivation::kSilu;
}

Result<GatedMlp> gated_mlp(const Glu& glu, const std::string& name, WeightSource& weights) {
  GatedMlp mlp;
  MR_ASSIGN_OR_RETURN(mlp.gate_up, weights.linear({name + "gate", name + "up"}, glu.bias));
  MR_ASSIGN_OR_RETURN(mlp.down, weights.linear({name + "down"}, glu.bias));
  return mlp;
}

class GatedFeedForward : public FeedForward {
 public:
  GatedFeedForward(GatedMlp parts, Activation activation)
      : parts_(std::move(parts)), activation_(kernel_activation(activation)) {}

  void forward(const Tensor& x, Workspace& workspace, Tensor& y, float add_scale) override {
    const Workspace::Scope scope(workspace);
    if (parts_.gate_up.feeds(parts_.down, x.size(0))) {
      const PackedRows hidden{workspace.bytes(parts_.down.packed_rows_bytes(x.size(0))), x.size(0)};
      parts_.gate_up.forward_gated(x, activation_, parts_.down, hidden, workspace);
      return parts_.down.forward(hidden, y, workspace, add_scale);
    }
    Tensor gated = workspace.rows(parts_.down.input_dtype(), x.size(0), parts_.hidden());
    parts_.gate_up.forward_gated(x, activation_, gated, workspace);
    parts_.down.forward(gated, y, workspace, add_scale);
  }
  bool adds() const override { return parts_.down.adds(); }
  DType input_dtype() const override { return parts_.gate_up.input_dtype(); }
  BranchInput integer_input() const override { return {parts_.gate_up.takes_integers(), parts_.gate_up.input_scale()}; }
  int64_t scratch_bytes(int64_t T) const override {
    const int64_t packed = Workspace::tensor_bytes(DType::kU8, {parts_.down.packed_rows_bytes(T)});
    return std::max(packed, Workspace::rows_bytes(parts_.down.input_dtype(), T, parts_.hidden())) +
           std::max(parts_.gate_up.gated_scratch_bytes(T), parts_.down.scratch_bytes(T));
  }
  int64_t weight_bytes() const override { return parts_.gate_up.weight_bytes() + parts_.down.weight_bytes(); }

 private:
  GatedMlp parts_;
  GluActivation activation_;
};

class PlainFeedForward : public FeedForward {
 public:
  PlainFeedForward(Linear up, Linear down, Activation activation)
      : up_(std::move(up)), down_(std::move(down)), activation_(kernel_activation(activation)) {}

  void forward(const Tensor& x, Workspace& workspace, Tensor& y, float add_scale) override {
    const Workspace::Scope scope(workspace);
    Tensor up = workspace.tensor(DType::kF32, {x.size(0), up_.out_features()});
    Tensor active = workspace.tensor(down_.input_dtype(), up.shape());
    up_.forward(x, up, workspace);
    activate(up, activation_, active);
    down_.forward(active, y, workspace, add_scale);
  }
  bool adds() const override { return down_.adds(); }
  DType input_dtype() const override { return up_.input_dtype(); }
  BranchInput integer_input() const override { return {up_.takes_integers(), up_.input_scale()}; }
  int64_t scratch_bytes(int64_t T) const override {
    return Workspace::tensor_bytes(DType::kF32, {T, up_.out_features()}) +
           Workspace::tensor_bytes(down_.input_dtype(), {T, up_.out_features()}) +
           std::max(up_.scratch_bytes(T), down_.scratch_bytes(T));
  }
  int64_t weight_bytes() const override { return up_.weight_bytes() + down_.weight_bytes(); }

 private:
  Linear up_, down_;
  GluActivation activation_;
};

RouterParams router_params(const Moe& moe) {
  const Routing& router = moe.router;
  return {.score = router.score == Routing::Score::kSoftmax ? RouterScore::kSoftmax : RouterScore::kSigmoid,
          .experts_per_token = moe.experts_per_token,
          .groups = router.groups,
          .groups_per_token = router.groups_per_token,
          .group_score =
              router.group_score == Routing::GroupScore::kMax ? RouterGroupScore::kMax : RouterGroupScore::kTwoBest,
          .normalize = router.normalize,
          .scale = static_cast<float>(router.scale)};
}

Result<Experts::Parts> expert_parts(const Moe& moe, const std::string& name, WeightSource& weights) {
  Experts::Parts parts;
  const Tensor router = weights.take(name + "router.weight");
  const Tensor bias = moe.router.correction_bias ? weights.take(name + "router.correction_bias") : Tensor();
  parts.router = Router(router, bias, router_params(moe));
  for (int64_t e = 0; e < moe.experts; ++e) {
    MR_ASSIGN_OR_RETURN(GatedMlp expert, gated_mlp(moe.expert, fmt::format("{}experts.{}.", name, e), weights));
    parts.experts.push_back(std::move(expert));
  }
  parts.activation = kernel_activation(moe.expert.activation);
  if (moe.shared.hidden > 0) {
    MR_ASSIGN_OR_RETURN(parts.shared, gated_mlp(moe.shared, name + "shared.", weights));
  }
  if (moe.shared_gate) {
    const Tensor gate[] = {weights.take(name + "shared_gate.weight")};
    parts.shared_gate = Linear::pack(gate, {}, weights.dtype());
  }
  return parts;
}

class ExpertFeedForward : public FeedForward {
 public:
  explicit ExpertFeedForward(Experts::Parts parts) : experts_(std::move(parts)) {}

  void forward(const Tensor& x, Workspace& workspace, Tensor& y, float add_scale) override {
    MR_CHECK(add_scale == 0, "experts' outputs are not added, {}", add_scale);
    experts_.forward(x, y, workspace);
  }
  bool adds() const override { return false; }
  DType input_dtype() const override { return experts_.input_dtype(); }
  int64_t scratch_bytes(int64_t max_tokens) const override { return experts_.scratch_bytes(max_tokens); }
  int64_t weight_bytes() const override { return experts_.weight_bytes(); }

 private:
  Experts experts_;
};

}  // namespace

namespace {

using Made = Result<std::unique_ptr<FeedForward>>;

Made make(const Glu& glu, const std::string& name, WeightSource& weights) {
  MR_ASSIGN_OR_RETURN(GatedMlp parts, gated_mlp(glu, name, weights));
  return Made(std::make_unique<GatedFeedForward>(std::move(parts), glu.activation));
}
Made make(const Mlp& mlp, const std::string& name, WeightSource& weights) {
  MR_ASSIGN_OR_RETURN(Linear up, weights.linear({name + "up"}, mlp.bias));
  MR_ASSIGN_OR_RETURN(Linear down, weights.linear({name + "down"}, mlp.bias));
  return Made(std::make_unique<PlainFeedForward>(std::move(up), std::move(down), mlp.activation));
}
Made make(const Moe& moe, const std::string& name, WeightSource& weights) {
  MR_ASSIGN_OR_RETURN(Experts::Parts parts, expert_parts(moe, name, weights));
  return Made(std::make_unique<ExpertFeedForward>(std::move(parts)));
}

}  // namespace

Result<std::unique_ptr<FeedForward>> make_feed_forward(const LayerSpec& layer, const std::string& name,
                                                       WeightSource& weights) {
  return std::visit([&](const auto& kind) { return make(kind, name, weights); }, layer.mlp);
}

}  // namespace millrace
