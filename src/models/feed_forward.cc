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

GatedMlp gated_mlp(const Glu& glu, const std::string& name, WeightSource& weights) {
  return {weights.linear({name + "gate", name + "up"}, glu.bias), weights.linear({name + "down"}, glu.bias)};
}

class GatedFeedForward : public FeedForward {
 public:
  GatedFeedForward(const Glu& glu, const std::string& name, WeightSource& weights)
      : parts_(gated_mlp(glu, name, weights)), activation_(kernel_activation(glu.activation)) {}

  void forward(const Tensor& x, Workspace& workspace, Tensor& y) override {
    const Workspace::Scope scope(workspace);
    Tensor gated = workspace.tensor(parts_.down.input_dtype(), {x.size(0), parts_.hidden()});
    parts_.gate_up.forward_gated(x, activation_, gated, workspace);
    parts_.down.forward(gated, y, workspace);
  }
  DType input_dtype() const override { return parts_.gate_up.input_dtype(); }
  int64_t scratch_bytes(int64_t T) const override {
    return Workspace::tensor_bytes(parts_.down.input_dtype(), {T, parts_.hidden()}) +
           std::max(parts_.gate_up.gated_scratch_bytes(T), parts_.down.scratch_bytes(T));
  }
  int64_t weight_bytes() const override { return parts_.gate_up.weight_bytes() + parts_.down.weight_bytes(); }

 private:
  GatedMlp parts_;
  GluActivation activation_;
};

class PlainFeedForward : public FeedForward {
 public:
  PlainFeedForward(const Mlp& mlp, const std::string& name, WeightSource& weights)
      : up_(weights.linear({name + "up"}, mlp.bias)),
        down_(weights.linear({name + "down"}, mlp.bias)),
        activation_(kernel_activation(mlp.activation)) {}

  void forward(const Tensor& x, Workspace& workspace, Tensor& y) override {
    const Workspace::Scope scope(workspace);
    Tensor up = workspace.tensor(DType::kF32, {x.size(0), up_.out_features()});
    Tensor active = workspace.tensor(down_.input_dtype(), up.shape());
    up_.forward(x, up, workspace);
    activate(up, activation_, active);
    down_.forward(active, y, workspace);
  }
  DType input_dtype() const override { return up_.input_dtype(); }
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

Experts::Parts expert_parts(const Moe& moe, const std::string& name, WeightSource& weights) {
  Experts::Parts parts;
  const Tensor router = weights.take(name + "router.weight");
  const Tensor bias = moe.router.correction_bias ? weights.take(name + "router.correction_bias") : Tensor();
  parts.router = Router(router, bias, router_params(moe));
  for (int64_t e = 0; e < moe.experts; ++e)
    parts.experts.push_back(gated_mlp(moe.expert, fmt::format("{}experts.{}.", name, e), weights));
  parts.activation = kernel_activation(moe.expert.activation);
  if (moe.shared.hidden > 0) parts.shared = gated_mlp(moe.shared, name + "shared.", weights);
  if (moe.shared_gate) parts.shared_gate = weights.linear({name + "shared_gate"}, false);
  return parts;
}

class ExpertFeedForward : public FeedForward {
 public:
  ExpertFeedForward(const Moe& moe, const std::string& name, WeightSource& weights)
      : experts_(expert_parts(moe, name, weights)) {}

  void forward(const Tensor& x, Workspace& workspace, Tensor& y) override { experts_.forward(x, y, workspace); }
  DType input_dtype() const override { return experts_.input_dtype(); }
  int64_t scratch_bytes(int64_t max_tokens) const override { return experts_.scratch_bytes(max_tokens); }
  int64_t weight_bytes() const override { return experts_.weight_bytes(); }

 private:
  Experts experts_;
};

}  // namespace

std::unique_ptr<FeedForward> make_feed_forward(const LayerSpec& layer, const std::string& name, WeightSource& weights) {
  if (const Glu* glu = std::get_if<Glu>(&layer.mlp)) return std::make_unique<GatedFeedForward>(*glu, name, weights);
  if (const Mlp* mlp = std::get_if<Mlp>(&layer.mlp)) return std::make_unique<PlainFeedForward>(*mlp, name, weights);
  return std::make_unique<ExpertFeedForward>(std::get<Moe>(layer.mlp), name, weights);
}

}  // namespace millrace
