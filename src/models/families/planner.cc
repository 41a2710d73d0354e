#include "models/families/planner.h"

#include <algorithm>
#include <map>

#include "base/check.h"
#include "models/families/families.h"
#include "models/families/names.h"

namespace millrace {
namespace {

constexpr int64_t kGroupColumns = 128, kGroupBytes = kGroupColumns / 2 + 4;  // of four-bit weights

// How tensors of a role are cut and stored. Patterns of names without their layer; the first that fits holds. Of a
// quantized role the weights take fewer bits, not the biases.
struct RoleRule {
  const char* pattern;
  Cut cut;
  bool quantized;
};
constexpr RoleRule kRoleRules[] = {
    {"embed.weight", Cut::kOutputs, false},    {"lm_head.weight", Cut::kOutputs, false},
    {"pos_embed.weight", Cut::kWhole, false},  {"*norm.*", Cut::kWhole, false},
    {"attn.q.*", Cut::kOutputs, true},         {"attn.k.*", Cut::kKvHeads, true},
    {"attn.v.*", Cut::kKvHeads, true},         {"attn.q_a.*", Cut::kWhole, true},
    {"attn.q_b.*", Cut::kOutputs, true},       {"attn.kv_a.*", Cut::kWhole, true},
    {"attn.kv_b.*", Cut::kOutputs, true},      {"attn.out.weight", Cut::kInputs, true},
    {"attn.out.bias", Cut::kWhole, false},     {"mlp.router.*", Cut::kWhole, false},
    {"mlp.shared_gate.*", Cut::kWhole, false}, {"mlp*.gate.*", Cut::kOutputs, true},
    {"mlp*.up.*", Cut::kOutputs, true},        {"mlp*.down.weight", Cut::kInputs, true},
    {"mlp*.down.bias", Cut::kWhole, false},
};

const RoleRule& rule_of(const std::string& role) {
  const RoleRule* rule =
      std::ranges::find_if(kRoleRules, [&](const RoleRule& r) { return matches_pattern(r.pattern, role); });
  MR_CHECK(rule != std::end(kRoleRules), "no rule says how {} is cut", role);
  return *rule;
}

bool is_number(std::string_view text) {
  return !text.empty() && std::ranges::all_of(text, [](char c) { return c >= '0' && c <= '9'; });
}

// "layers.3.mlp.experts.7.up.weight" -> "mlp.experts.up.weight"
std::string role_of(std::string_view name) {
  std::string role;
  for (size_t begin = 0; begin <= name.size();) {
    const size_t end = std::min(name.find('.', begin), name.size());
    const std::string_view part = name.substr(begin, end - begin);
    begin = end + 1;
    if (part == "layers" || is_number(part)) continue;
    if (!role.empty()) role += '.';
    role += part;
  }
  return role;
}

void add_tensor(WeightGroup& group, const Sizes& shape) {
  const int64_t columns = shape.back();
  int64_t elements = 1;
  for (const int64_t size : shape) elements *= size;
  ++group.tensors;
  group.elements += elements;
  group.rows += elements / columns;
  group.groups += elements / columns * ((columns + kGroupColumns - 1) / kGroupColumns);
}

// Parameters of the experts that a token does not reach.
int64_t idle_parameters(const DecoderSpec& spec) {
  int64_t idle = 0;
  for (const LayerSpec& layer : spec.layers)
    if (const Moe* moe = std::get_if<Moe>(&layer.mlp)) {
      const int64_t F = moe->expert.hidden, C = spec.hidden_size;
      idle += (moe->experts - moe->experts_per_token) * (3 * F * C + (moe->expert.bias ? 2 * F + C : 0));
    }
  return idle;
}

// Gqa of the layers; null where attention keeps latents.
const Gqa* grouped_attention(const DecoderSpec& spec) { return std::get_if<Gqa>(&spec.layers.front().attention); }

// Devices among which a group's elements are shared.
int64_t shares(const DecoderSpec& spec, const WeightGroup& group, int64_t devices) {
  if (group.cut == Cut::kWhole) return 1;
  const Gqa* gqa = grouped_attention(spec);
  return group.cut == Cut::kKvHeads && gqa ? std::min(devices, gqa->kv_heads) : devices;
}

int64_t stored_bytes(const WeightGroup& group, Precision precision) {
  if (!group.quantized || precision == Precision::kFloat32 || precision == Precision::kBfloat16)
    return group.elements * activation_bytes(precision);
  if (precision == Precision::kInt8) return group.elements + 8 * group.rows;
  return group.groups * kGroupBytes;
}

bool splits_width(const LayerSpec& layer, int64_t devices) {
  if (const Moe* moe = std::get_if<Moe>(&layer.mlp))
    return moe->expert.hidden % devices == 0 && moe->shared.hidden % devices == 0;
  if (const Mlp* mlp = std::get_if<Mlp>(&layer.mlp)) return mlp->hidden % devices == 0;
  return std::get<Glu>(layer.mlp).hidden % devices == 0;
}

bool splits_heads(const LayerSpec& layer, int64_t devices) {
  if (const Mla* mla = std::get_if<Mla>(&layer.attention)) return mla->heads % devices == 0;
  const Gqa& gqa = std::get<Gqa>(layer.attention);
  return gqa.heads % devices == 0 && (gqa.kv_heads % devices == 0 || devices % gqa.kv_heads == 0);
}

// Elements that one of `devices` keeps of a token in this layer.
int64_t kv_elements(const LayerSpec& layer, int64_t devices) {
  if (const Mla* mla = std::get_if<Mla>(&layer.attention)) return mla->cache_dim();
  const Gqa& gqa = std::get<Gqa>(layer.attention);
  return 2 * std::max<int64_t>(1, gqa.kv_heads / devices) * gqa.head_dim;
}

// Heads whose keys, and whose values, one of `devices` keeps of a token in this layer.
int64_t kv_heads(const LayerSpec& layer, int64_t devices) {
  const Gqa* gqa = std::get_if<Gqa>(&layer.attention);
  return gqa ? 2 * std::max<int64_t>(1, gqa->kv_heads / devices) : 0;
}

struct Planner {
  const DecoderSpec& spec;
  const ModelSize& size;
  const PlanRequest& request;
  int64_t wanted_length;

  int64_t kv_bytes(Precision precision, int64_t devices) const {
    if (request.kv == KvPrecision::kAuto) return kv_bytes_per_token(spec, activation_bytes(precision), devices);
    return kv_bytes_per_token(spec, 1, devices, request.kv == KvPrecision::kInt8Dynamic ? 4 : 0);
  }

  // What `devices` hold of the model.
  PrecisionPlan on(Precision precision, int64_t devices) const {
    PrecisionPlan plan{.precision = precision, .devices = devices};
    plan.device_weight_bytes = weight_bytes(spec, size, precision, devices);
    plan.device_kv_bytes_per_token = kv_bytes(precision, devices);
    plan.cache_bytes =
        std::max<int64_t>(0, cache_budget_bytes(request.memory_bytes, request.utilization, plan.device_weight_bytes));
    plan.device_kv_block_bytes = kv_block_bytes(spec, plan.device_kv_bytes_per_token, request.block_size);
    plan.cache_tokens = plan.cache_bytes / plan.device_kv_block_bytes * request.block_size;
    plan.max_model_len = std::min(plan.cache_tokens, std::max(spec.max_positions, wanted_length));
    return plan;
  }

  int64_t fewest_devices(Precision precision) const {
    for (int64_t devices = 1; devices <= kMostDevices; ++devices)
      if (can_split(spec, devices) && on(precision, devices).max_model_len >= wanted_length) return devices;
    return 0;
  }

  // Of those offered, as many as divide the model.
  int64_t usable_devices() const {
    int64_t devices = std::min(request.devices, kMostDevices);
    while (devices > 1 && !can_split(spec, devices)) --devices;
    return devices;
  }

  PrecisionPlan plan(Precision precision) const {
    const int64_t fewest = fewest_devices(precision);
    const int64_t devices = request.devices > 0 ? usable_devices() : fewest;
    PrecisionPlan plan = devices > 0 ? on(precision, devices) : PrecisionPlan{.precision = precision};
    plan.fewest_devices = fewest;
    plan.weight_bytes = weight_bytes(spec, size, precision);
    plan.kv_bytes_per_token = kv_bytes(precision, 1);
    return plan;
  }
};

}  // namespace

std::string_view precision_name(Precision precision) {
  constexpr std::string_view kNames[] = {"float32", "bfloat16", "int8", "int4"};
  return kNames[static_cast<size_t>(precision)];
}

std::string_view kv_precision_name(KvPrecision kv) {
  constexpr std::string_view kNames[] = {"auto", "int8", "int8-dynamic"};
  return kNames[static_cast<size_t>(kv)];
}

int64_t activation_bytes(Precision precision) { return precision == Precision::kFloat32 ? 4 : 2; }

ModelSize model_size(const DecoderSpec& spec) {
  ModelSize size;
  std::map<std::string, size_t> places;
  for (const TensorNeed& need : needed_tensors(spec)) {
    std::string role = role_of(need.name);
    const auto [place, is_new] = places.try_emplace(role, size.groups.size());
    if (is_new) {
      const RoleRule& rule = rule_of(role);
      const bool quantized = rule.quantized && role.ends_with(".weight");
      size.groups.push_back({.role = std::move(role), .cut = rule.cut, .quantized = quantized});
    }
    add_tensor(size.groups[place->second], need.shape);
  }
  for (const WeightGroup& group : size.groups) size.parameters += group.elements;
  size.active_parameters = size.parameters - idle_parameters(spec);
  return size;
}

int64_t weight_bytes(const DecoderSpec& spec, const ModelSize& size, Precision precision, int64_t devices) {
  int64_t bytes = 0;
  for (const WeightGroup& group : size.groups) {
    const int64_t among = shares(spec, group, devices);
    bytes += (stored_bytes(group, precision) + among - 1) / among;
  }
  return bytes;
}

int64_t kv_bytes_per_token(const DecoderSpec& spec, int64_t element_bytes, int64_t devices, int64_t head_bytes) {
  int64_t bytes = 0;
  for (const LayerSpec& layer : spec.layers)
    bytes += kv_elements(layer, devices) * element_bytes + kv_heads(layer, devices) * head_bytes;
  return bytes;
}

int64_t kv_block_bytes(const DecoderSpec& spec, int64_t bytes_per_token, int64_t block_size) {
  constexpr int64_t kPageBytes = 4096, kLineBytes = 64;
  const int64_t bytes = bytes_per_token * block_size, halves = 2 * static_cast<int64_t>(spec.layers.size());
  return grouped_attention(spec) && bytes / halves % kPageBytes == 0 ? bytes + halves * kLineBytes : bytes;
}

bool can_split(const DecoderSpec& spec, int64_t devices) {
  return std::ranges::all_of(spec.layers, [devices](const LayerSpec& layer) {
    return splits_heads(layer, devices) && splits_width(layer, devices);
  });
}

int64_t cache_budget_bytes(int64_t memory_bytes, double utilization, int64_t weight_bytes) {
  return static_cast<int64_t>(utilization * static_cast<double>(memory_bytes)) - weight_bytes - kRuntimeBytes;
}

Result<ModelPlan> plan_model(const DecoderSpec& spec, const PlanRequest& request) {
  if (request.max_model_len > spec.max_positions && !spec.length_unbounded)
    return invalid_argument("--max-model-len is {}, but the checkpoint was made for {} tokens", request.max_model_len,
                            spec.max_positions);
  if (request.kv != KvPrecision::kAuto && !grouped_attention(spec))
    return unimplemented("--kv-cache-dtype is {}, but {} has latent attention, whose cache is served only as auto",
                         kv_precision_name(request.kv), spec.architecture);
  ModelPlan plan{.size = model_size(spec)};
  plan.wanted_length = request.max_model_len > 0 ? request.max_model_len : std::min(kDefaultLength, spec.max_positions);
  const Planner planner{spec, plan.size, request, plan.wanted_length};
  for (const Precision precision : kPrecisions) plan.precisions.push_back(planner.plan(precision));
  return plan;
}

}  // namespace millrace
