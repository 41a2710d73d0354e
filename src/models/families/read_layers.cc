#include "models/families/read_layers.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <map>

namespace millrace {
namespace {

constexpr int64_t kMaxHeads = int64_t{1} << 16, kMaxHeadDim = int64_t{1} << 14, kMaxAttention = int64_t{1} << 22,
                  kMaxMlpHidden = int64_t{1} << 24, kMaxExperts = 2048;

Result<Activation> read_activation(const ConfigFields& fields) {
  static const std::map<std::string, Activation> kNames = {
      {"silu", Activation::kSilu},          {"swish", Activation::kSilu},
      {"gelu", Activation::kGelu},          {"gelu_new", Activation::kGeluTanh},
      {"gelu_fast", Activation::kGeluTanh}, {"gelu_pytorch_tanh", Activation::kGeluTanh},
      {"relu", Activation::kRelu},
  };
  const ConfigFields::Entry* entry = fields.find(Field::kActivation);
  if (entry && entry->value.is_string()) {
    const auto it = kNames.find(entry->value.get<std::string>());
    if (it != kNames.end()) return it->second;
  }
  std::vector<std::string> known;
  for (const auto& [name, activation] : kNames) known.push_back(name);
  return unimplemented("{} is {}; it must be one of {}", fields.name(Field::kActivation),
                       entry ? json_excerpt(entry->value) : "null", fmt::join(known, ", "));
}

// Layers whose queries see only the last keys.
Result<std::vector<bool>> windowed_layers(const ConfigFields& fields, int64_t layers, bool has_window) {
  const ConfigFields::Entry* entry = fields.find(Field::kLayerTypes);
  if (!entry) {
    MR_ASSIGN_OR_RETURN(const int64_t every, fields.size(Field::kWindowEvery, kMaxLayers, 1));
    std::vector<bool> windowed(layers, false);
    for (int64_t i = 0; i < layers; i += every) windowed[i] = has_window;
    return windowed;
  }
  if (!entry->value.is_array() || entry->value.size() != static_cast<size_t>(layers))
    return invalid_argument("{} is {}; it must be a list of {} names, one per layer", entry->name,
                            json_excerpt(entry->value), layers);
  std::vector<bool> windowed;
  for (const Json& type : entry->value) {
    if (type != "full_attention" && type != "sliding_attention")
      return unimplemented("{} holds {}; served are \"full_attention\" and \"sliding_attention\"", entry->name,
                           json_excerpt(type));
    windowed.push_back(type == "sliding_attention");
    if (windowed.back() && !has_window)
      return invalid_argument("{} asks for sliding_attention but no sliding window is in use", entry->name);
  }
  return windowed;
}

// The window of every layer, 0 for none. Where layer_types does not say which layers have one, all do: the eager
// attention of transformers 4.46.3 masks every layer, whatever max_window_layers says.
Result<std::vector<int64_t>> read_windows(const ConfigFields& fields, int64_t layers, std::vector<std::string>& notes) {
  MR_ASSIGN_OR_RETURN(const bool used, fields.flag(Field::kUseWindow, true));
  int64_t window = 0;
  if (used && fields.find(Field::kWindow)) {
    MR_ASSIGN_OR_RETURN(window, fields.size(Field::kWindow, kMaxPositions));
  }
  MR_ASSIGN_OR_RETURN(const auto windowed, windowed_layers(fields, layers, window > 0));
  std::vector<int64_t> windows;
  for (const bool has_window : windowed) windows.push_back(has_window ? window : 0);
  const ConfigFields::Entry* first = fields.find(Field::kFirstWindowLayer);
  if (window > 0 && first && first->value != 0 && !fields.find(Field::kLayerTypes))
    notes.push_back(
        fmt::format("{} is {}: the sliding window applies to every layer all the same, as in the reference; "
                    "layer_types would choose layers",
                    first->name, json_excerpt(first->value)));
  return windows;
}

// Heads of q and of k and v.
Status read_heads(const ConfigFields& fields, Gqa& gqa) {
  MR_ASSIGN_OR_RETURN(gqa.heads, fields.size(Field::kHeads, kMaxHeads));
  MR_ASSIGN_OR_RETURN(gqa.kv_heads, fields.size(Field::kKvHeads, kMaxHeads, gqa.heads));
  MR_ASSIGN_OR_RETURN(const bool grouped, fields.flag(Field::kMultiQuery, true));
  MR_ASSIGN_OR_RETURN(const bool one, fields.flag(Field::kOneKvHead, false));
  if (!grouped) gqa.kv_heads = gqa.heads;
  if (one) gqa.kv_heads = 1;
  if (gqa.heads % gqa.kv_heads == 0) return {};
  return invalid_argument("{} ({}) is not divisible by num_key_value_heads ({})", fields.name(Field::kHeads), gqa.heads,
                          gqa.kv_heads);
}

Status read_head_dim(const ConfigFields& fields, int64_t hidden_size, Gqa& gqa) {
  if (!fields.find(Field::kHeadDim) && hidden_size % gqa.heads != 0)
    return invalid_argument("{} ({}) is not divisible by num_attention_heads ({}), and head_dim is not given",
                            fields.name(Field::kHiddenSize), hidden_size, gqa.heads);
  MR_ASSIGN_OR_RETURN(gqa.head_dim,
                      fields.size(Field::kHeadDim, kMaxHeadDim, std::max<int64_t>(1, hidden_size / gqa.heads)));
  if (gqa.head_dim % 2 != 0 || gqa.head_dim > kMaxHeadDim)
    return invalid_argument(
        "{} is {}; heads must have an even number of elements, at most {}",
        fields.find(Field::kHeadDim) ? fields.name(Field::kHeadDim) : "config.json: hidden_size / num_attention_heads",
        gqa.head_dim, kMaxHeadDim);
  if (gqa.heads * gqa.head_dim > kMaxAttention)
    return invalid_argument("{} ({}) times head_dim ({}) is {}; at most {} are supported", fields.name(Field::kHeads),
                            gqa.heads, gqa.head_dim, gqa.heads * gqa.head_dim, kMaxAttention);
  return {};
}

Status read_scores(const ConfigFields& fields, Gqa& gqa) {
  MR_ASSIGN_OR_RETURN(const double scalar, fields.number_above(Field::kQueryPreAttnScalar, 0, 0));
  if (scalar > 0) gqa.scale = 1 / std::sqrt(scalar);
  MR_ASSIGN_OR_RETURN(gqa.soft_cap, fields.number_above(Field::kAttentionSoftCap, 0, 0));
  MR_ASSIGN_OR_RETURN(const bool alibi, fields.flag(Field::kAlibi, false));
  MR_ASSIGN_OR_RETURN(const size_t kind, fields.choice(Field::kAlibiKind, {"scaled", "bf16_unscaled"}, 0));
  if (alibi) gqa.alibi = kind == 0 ? Alibi::kScaled : Alibi::kBf16Unscaled;
  MR_ASSIGN_OR_RETURN(gqa.alibi_factor, fields.number_above(Field::kAlibiFactor, 0, 1));
  MR_ASSIGN_OR_RETURN(const bool logn, fields.flag(Field::kLognAttention, false));
  if (logn) {
    MR_ASSIGN_OR_RETURN(gqa.logn_length, fields.size(Field::kTrainedLength, kMaxPositions, 0, 2));
  }
  return {};
}

Result<Gqa> read_gqa(const ConfigFields& fields, int64_t hidden_size, std::vector<std::string>& notes) {
  Gqa gqa;
  MR_RETURN_IF_ERROR(read_heads(fields, gqa));
  MR_RETURN_IF_ERROR(read_head_dim(fields, hidden_size, gqa));
  MR_ASSIGN_OR_RETURN(gqa.qkv_bias, fields.flag(Field::kQkvBias, false));
  MR_ASSIGN_OR_RETURN(gqa.out_bias, fields.flag(Field::kOutBias, false));
  MR_ASSIGN_OR_RETURN(gqa.qk_norm, fields.flag(Field::kQkNorm, false));
  MR_RETURN_IF_ERROR(read_scores(fields, gqa));
  if (gqa.alibi != Alibi::kNone && gqa.alibi_factor != 1)
    notes.push_back(fmt::format("{} is true: position biases count {} times, as in the reference's eager attention",
                                fields.name(Field::kAlibi), gqa.alibi_factor));
  return gqa;
}

Result<Mla> read_mla(const ConfigFields& fields) {
  Mla mla;
  MR_ASSIGN_OR_RETURN(mla.heads, fields.size(Field::kHeads, kMaxHeads));
  MR_ASSIGN_OR_RETURN(mla.q_lora_rank, fields.size(Field::kQLoraRank, kMaxHiddenSize, 0, 0));
  MR_ASSIGN_OR_RETURN(mla.kv_lora_rank, fields.size(Field::kKvLoraRank, kMaxHeadDim));
  MR_ASSIGN_OR_RETURN(mla.nope_dim, fields.size(Field::kNopeDim, kMaxHeadDim));
  MR_ASSIGN_OR_RETURN(mla.rope_dim, fields.size(Field::kRopeDim, kMaxHeadDim));
  MR_ASSIGN_OR_RETURN(mla.v_dim, fields.size(Field::kVDim, kMaxHeadDim));
  MR_ASSIGN_OR_RETURN(mla.bias, fields.flag(Field::kQkvBias, false));
  if (mla.rope_dim % 2 != 0)
    return invalid_argument("{} is {}; it must be even", fields.name(Field::kRopeDim), mla.rope_dim);
  if (mla.heads * (mla.qk_dim() + mla.v_dim) > kMaxAttention)
    return invalid_argument("{} ({}) times the heads' dimensions ({}) is above {}", fields.name(Field::kHeads),
                            mla.heads, mla.qk_dim() + mla.v_dim, kMaxAttention);
  mla.scale = 1 / std::sqrt(static_cast<double>(mla.qk_dim()));
  return mla;
}

Result<std::variant<Glu, Mlp>> read_dense(const ConfigFields& fields, int64_t hidden_size) {
  MR_ASSIGN_OR_RETURN(const int64_t factor, fields.size(Field::kMlpHiddenFactor, 1024, 0, 0));
  MR_ASSIGN_OR_RETURN(const int64_t divisor, fields.size(Field::kMlpHiddenDivisor, 1024, 1));
  MR_ASSIGN_OR_RETURN(const int64_t stated, fields.size(Field::kMlpHidden, kMaxMlpHidden, factor * hidden_size));
  if (stated % divisor != 0 || stated > kMaxMlpHidden)
    return invalid_argument("{} is {}; it must be a multiple of {} and at most {}", fields.name(Field::kMlpHidden),
                            stated, divisor, kMaxMlpHidden);
  MR_ASSIGN_OR_RETURN(const Activation activation, read_activation(fields));
  MR_ASSIGN_OR_RETURN(const bool bias, fields.flag(Field::kMlpBias, false));
  MR_ASSIGN_OR_RETURN(const bool gated, fields.flag(Field::kMlpGated, true));
  if (gated) return std::variant<Glu, Mlp>(Glu{stated / divisor, activation, bias});
  return std::variant<Glu, Mlp>(Mlp{stated / divisor, activation, bias});
}

// The groups that experts are chosen from; requires moe.experts and moe.experts_per_token.
Status read_groups(const ConfigFields& fields, Moe& moe) {
  Routing& router = moe.router;
  MR_ASSIGN_OR_RETURN(router.groups, fields.size(Field::kRouterGroups, moe.experts));
  MR_ASSIGN_OR_RETURN(router.groups_per_token, fields.size(Field::kRouterGroupsPerToken, router.groups));
  if (moe.experts % router.groups != 0)
    return invalid_argument("{} ({}) does not divide the {} experts", fields.name(Field::kRouterGroups), router.groups,
                            moe.experts);
  const int64_t eligible = moe.experts / router.groups * router.groups_per_token;
  if (eligible < moe.experts_per_token)
    return invalid_argument("{} is {}: {} groups hold {} experts, and {} are chosen",
                            fields.name(Field::kRouterGroupsPerToken), router.groups_per_token, router.groups_per_token,
                            eligible, moe.experts_per_token);
  if (router.group_score == Routing::GroupScore::kTwoBest && moe.experts / router.groups < 2)
    return invalid_argument("{} is {}: a group of one expert has no two best", fields.name(Field::kRouterGroups),
                            router.groups);
  return {};
}

Status read_router(const ConfigFields& fields, Moe& moe) {
  Routing& router = moe.router;
  MR_ASSIGN_OR_RETURN(const size_t score, fields.choice(Field::kRouterScore, {"softmax", "sigmoid"}, 0));
  router.score = score == 0 ? Routing::Score::kSoftmax : Routing::Score::kSigmoid;
  MR_ASSIGN_OR_RETURN(const size_t method,
                      fields.choice(Field::kRouterMethod, {"greedy", "group_limited_greedy", "noaux_tc"}, 0));
  router.correction_bias = method == 2;
  router.group_score = method == 2 ? Routing::GroupScore::kTwoBest : Routing::GroupScore::kMax;
  if (method > 0) MR_RETURN_IF_ERROR(read_groups(fields, moe));
  MR_ASSIGN_OR_RETURN(router.normalize, fields.flag(Field::kRouterNormalize, false));
  MR_ASSIGN_OR_RETURN(router.scale, fields.number_above(Field::kRouterScale, 0, 1));
  MR_ASSIGN_OR_RETURN(const bool scales_normalized, fields.flag(Field::kRouterScalesNormalized, true));
  // Such routers never normalise the weight of a single expert.
  if (!scales_normalized && moe.experts_per_token == 1) router.normalize = false;
  if (router.normalize && !scales_normalized) router.scale = 1;
  return {};
}

Status read_shared_expert(const ConfigFields& fields, Moe& moe) {
  MR_ASSIGN_OR_RETURN(const int64_t count, fields.size(Field::kSharedExperts, 1024, 0, 0));
  MR_ASSIGN_OR_RETURN(const int64_t hidden,
                      fields.size(Field::kSharedHidden, kMaxMlpHidden, count * moe.expert.hidden, 0));
  moe.shared = {hidden, moe.expert.activation, false};
  MR_ASSIGN_OR_RETURN(const bool gate, fields.flag(Field::kSharedGate, false));
  moe.shared_gate = gate && hidden > 0;
  return {};
}

// experts == 0: the family, or this file, has none.
Result<Moe> read_experts(const ConfigFields& fields) {
  Moe moe;
  MR_ASSIGN_OR_RETURN(moe.experts, fields.size(Field::kExperts, kMaxExperts, 0, 0));
  if (moe.experts == 0) return moe;
  MR_ASSIGN_OR_RETURN(moe.experts_per_token, fields.size(Field::kExpertsPerToken, moe.experts));
  MR_ASSIGN_OR_RETURN(moe.expert.hidden, fields.size(Field::kExpertHidden, kMaxMlpHidden));
  MR_ASSIGN_OR_RETURN(moe.expert.activation, read_activation(fields));
  MR_RETURN_IF_ERROR(read_router(fields, moe));
  MR_RETURN_IF_ERROR(read_shared_expert(fields, moe));
  return moe;
}

// Layers that kDenseLayers names.
Result<std::vector<bool>> dense_layers(const ConfigFields& fields, int64_t layers) {
  std::vector<bool> dense(layers, false);
  const ConfigFields::Entry* entry = fields.find(Field::kDenseLayers);
  if (!entry) return dense;
  if (!entry->value.is_array())
    return invalid_argument("{} is {}; it must be a list of layers", entry->name, json_excerpt(entry->value));
  for (const Json& layer : entry->value) {
    if (!layer.is_number_integer() || layer.get<double>() < 0 || layer.get<double>() > 1e9)
      return invalid_argument("{} holds {}; every entry must be a layer's number", entry->name, json_excerpt(layer));
    if (layer.get<int64_t>() < layers) dense[layer.get<int64_t>()] = true;
  }
  return dense;
}

Result<std::vector<bool>> layers_with_experts(const ConfigFields& fields, int64_t layers) {
  MR_ASSIGN_OR_RETURN(const auto dense, dense_layers(fields, layers));
  MR_ASSIGN_OR_RETURN(const int64_t first, fields.size(Field::kFirstDenseLayers, kMaxPositions, 0, 0));
  MR_ASSIGN_OR_RETURN(const int64_t step, fields.size(Field::kSparseStep, kMaxPositions, 1));
  MR_ASSIGN_OR_RETURN(const int64_t every, fields.size(Field::kExpertLayerEvery, kMaxPositions, 1));
  std::vector<bool> out(layers);
  for (int64_t i = 0; i < layers; ++i) out[i] = !dense[i] && i >= first && (i + 1) % step == 0 && i % every == 0;
  return out;
}

}  // namespace

Result<std::vector<LayerSpec>> read_layers(const ConfigFields& fields, const DecoderSpec& spec,
                                           std::vector<std::string>& notes) {
  MR_ASSIGN_OR_RETURN(const int64_t count, fields.size(Field::kLayers, kMaxLayers));
  MR_ASSIGN_OR_RETURN(const auto windows, read_windows(fields, count, notes));
  LayerSpec layer;
  if (fields.find(Field::kKvLoraRank)) {
    MR_ASSIGN_OR_RETURN(layer.attention, read_mla(fields));
  } else {
    MR_ASSIGN_OR_RETURN(layer.attention, read_gqa(fields, spec.hidden_size, notes));
  }
  MR_ASSIGN_OR_RETURN(const Moe experts, read_experts(fields));
  MR_ASSIGN_OR_RETURN(const auto has_experts, layers_with_experts(fields, count));
  std::vector<LayerSpec> layers(count, layer);
  for (int64_t i = 0; i < count; ++i) {
    if (Gqa* gqa = std::get_if<Gqa>(&layers[i].attention)) gqa->window = windows[i];
    if (experts.experts > 0 && has_experts[i]) {
      layers[i].mlp = experts;
      continue;
    }
    MR_ASSIGN_OR_RETURN(const auto dense, read_dense(fields, spec.hidden_size));
    std::visit([&](const auto& mlp) { layers[i].mlp = mlp; }, dense);
  }
  return layers;
}

}  // namespace millrace
