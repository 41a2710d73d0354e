#include "models/families/rope_config.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>

#include "base/text.h"

namespace millrace {
namespace {

using Scaling = Rope::Scaling;

const std::set<std::string> kSharedKeys = {"rope_type", "type", "rope_theta", "partial_rotary_factor"};
struct Kind {
  const char* name;
  Scaling scaling;
  std::set<std::string> keys;  // read for this kind, besides kSharedKeys
};
const std::vector<Kind>& kinds() {
  static const std::vector<Kind> list = {
      {"default", Scaling::kNone, {}},
      {"linear", Scaling::kLinear, {"factor"}},
      {"dynamic", Scaling::kDynamic, {"factor", "original_max_position_embeddings"}},
      {"yarn",
       Scaling::kYarn,
       {"factor", "original_max_position_embeddings", "attention_factor", "beta_fast", "beta_slow", "mscale",
        "mscale_all_dim", "truncate"}},
      {"longrope",
       Scaling::kLongRope,
       {"factor", "original_max_position_embeddings", "attention_factor", "short_factor", "long_factor"}},
      {"llama3",
       Scaling::kLlama3,
       {"factor", "original_max_position_embeddings", "low_freq_factor", "high_freq_factor"}},
  };
  return list;
}

// One scaling object with the words that name it in messages.
struct Source {
  enum class Layout { kNone, kScaling, kParameters, kOverride };
  Layout layout = Layout::kNone;
  const Json* json = nullptr;
  std::string name;  // "config.json: rope_scaling"

  const Json* find(const std::string& key) const {
    const auto it = json->find(key);
    return it == json->end() || it->is_null() ? nullptr : &*it;
  }
  Result<double> number(const std::string& key, double least, double fallback) const {
    const Json* value = find(key);
    if (!value) return fallback;
    if (!value->is_number())
      return invalid_argument("{}.{} is {}; it must be a number", name, key, json_excerpt(*value));
    const double number = value->get<double>();
    if (!std::isfinite(number) || number < least)
      return invalid_argument("{}.{} is {}; it must be {} or more", name, key, json_excerpt(*value), least);
    return number;
  }
  Result<double> factor() const {
    if (!find("factor")) return invalid_argument("{} has no factor; it must be a number of 1 or more", name);
    return number("factor", 1, 1);
  }
  Result<int64_t> length(const std::string& key, int64_t fallback) const {
    const Json* value = find(key);
    if (!value) return fallback;
    if (!value->is_number_integer() || value->get<double>() < 1 || value->get<double>() > 0x7fffffff)
      return invalid_argument("{}.{} is {}; it must be an integer from 1 to 2147483647", name, key,
                              json_excerpt(*value));
    return value->get<int64_t>();
  }
  Result<std::vector<double>> factors(const std::string& key, size_t count) const {
    const Json* value = find(key);
    if (!value || !value->is_array() || value->size() != count)
      return invalid_argument("{}.{} is {}; it must be a list of {} numbers, one per rotated pair", name, key,
                              value ? json_excerpt(*value) : "missing", count);
    std::vector<double> numbers;
    for (const Json& entry : *value) {
      if (!entry.is_number() || !std::isfinite(entry.get<double>()) || entry.get<double>() <= 0)
        return invalid_argument("{}.{} holds {}; every entry must be a number above 0", name, key, json_excerpt(entry));
      numbers.push_back(entry.get<double>());
    }
    return numbers;
  }
};

Status check_object(const Json& value, const std::string& name) {
  if (value.is_object()) return {};
  return invalid_argument("{} is {}; it must be an object or null", name, json_excerpt(value));
}

// rope_scaling and rope_parameters of one file must say the same, apart from theta and the old spelling of the type.
Status check_same(const Json& scaling, const Json& parameters) {
  for (const auto& [key, value] : scaling.items()) {
    if (key == "type" || key == "rope_theta") continue;
    if (!parameters.contains(key) || parameters[key] != value)
      return invalid_argument("config.json: rope_scaling.{} is {} but rope_parameters.{} is {}; they must agree", key,
                              json_excerpt(value), key,
                              parameters.contains(key) ? json_excerpt(parameters[key]) : "missing");
  }
  return {};
}

Result<const Json*> object_of(const Json& config, const char* key) {
  const auto it = config.find(key);
  if (it == config.end() || it->is_null()) return static_cast<const Json*>(nullptr);
  MR_RETURN_IF_ERROR(check_object(*it, fmt::format("config.json: {}", key)));
  return &*it;
}

Result<Source> choose_source(const Json& config, const Json* scaling_override) {
  if (scaling_override) {
    if (scaling_override->is_null()) return Source{};
    MR_RETURN_IF_ERROR(check_object(*scaling_override, "--rope-scaling"));
    return Source{Source::Layout::kOverride, scaling_override, "--rope-scaling"};
  }
  MR_ASSIGN_OR_RETURN(const Json* scaling, object_of(config, "rope_scaling"));
  MR_ASSIGN_OR_RETURN(const Json* parameters, object_of(config, "rope_parameters"));
  if (parameters && scaling) MR_RETURN_IF_ERROR(check_same(*scaling, *parameters));
  if (parameters) return Source{Source::Layout::kParameters, parameters, "config.json: rope_parameters"};
  if (scaling) return Source{Source::Layout::kScaling, scaling, "config.json: rope_scaling"};
  return Source{};
}

// The type as stated, "su" being an older name of longrope; "" where the key is absent.
Result<std::string> stated_type(const Source& source, const std::string& key) {
  const Json* value = source.find(key);
  if (!value) return std::string();
  if (!value->is_string())
    return invalid_argument("{}.{} is {}; it must be a string", source.name, key, json_excerpt(*value));
  const std::string type = value->get<std::string>();
  return type == "su" ? "longrope" : type;
}

std::vector<std::string> kind_names() {
  std::vector<std::string> names;
  for (const Kind& kind : kinds()) names.push_back(kind.name);
  return names;
}

Result<const Kind*> kind_of(const Source& source) {
  MR_ASSIGN_OR_RETURN(std::string type, stated_type(source, "rope_type"));
  MR_ASSIGN_OR_RETURN(const std::string old_type, stated_type(source, "type"));
  if (!type.empty() && !old_type.empty() && type != old_type)
    return invalid_argument("{}: rope_type is {} but type is {}; they must agree", source.name, type, old_type);
  if (type.empty()) type = old_type;
  if (type.empty() && source.layout == Source::Layout::kParameters) type = "default";
  if (type.empty())
    return invalid_argument("{} has no rope_type; it must be one of {}", source.name, fmt::join(kind_names(), ", "));
  for (const Kind& kind : kinds())
    if (kind.name == type) return &kind;
  return unimplemented("{}: rope_type is {}; it must be one of {}{}", source.name, type, fmt::join(kind_names(), ", "),
                       did_you_mean(type, kind_names()));
}

// The length the model was trained at, where the rules of the source read it from the scaling object.
Result<int64_t> yarn_original(const Source& source, const RopeRequest& request, RopeReading& out) {
  const int64_t max_position_embeddings = request.max_position_embeddings;
  MR_ASSIGN_OR_RETURN(const int64_t stated, source.length("original_max_position_embeddings", max_position_embeddings));
  if (source.layout != Source::Layout::kScaling || stated == max_position_embeddings || request.yarn_stated_length)
    return stated;
  out.notes.push_back(
      fmt::format("{}.original_max_position_embeddings is {} but max_position_embeddings is {}: yarn is computed from "
                  "the latter, as transformers 4.46 does; --rope-scaling computes it from the former",
                  source.name, stated, max_position_embeddings));
  return max_position_embeddings;
}

Status read_attention_factor(const Source& source, Rope& rope) {
  MR_ASSIGN_OR_RETURN(rope.attention_factor, source.number("attention_factor", 0, 0));
  if (source.find("attention_factor") && rope.attention_factor == 0)
    return invalid_argument("{}.attention_factor is 0; it must be above 0", source.name);
  return {};
}

Status read_linear(const Source& source, const RopeRequest& request, RopeReading& out) {
  MR_ASSIGN_OR_RETURN(out.rope.factor, source.factor());
  out.rope.original_max_positions = request.max_position_embeddings;
  return {};
}

Status read_dynamic(const Source& source, const RopeRequest& request, RopeReading& out) {
  if (request.dims < 4)
    return invalid_argument("{}: dynamic needs 4 rotated elements per head; there are {}", source.name, request.dims);
  MR_ASSIGN_OR_RETURN(const int64_t stated,
                      source.length("original_max_position_embeddings", request.max_position_embeddings));
  if (stated != request.max_position_embeddings)
    out.notes.push_back(
        fmt::format("{}.original_max_position_embeddings is {}: dynamic scaling begins at "
                    "max_position_embeddings ({}), as in transformers",
                    source.name, stated, request.max_position_embeddings));
  return read_linear(source, request, out);
}

double yarn_mscale(double factor, double mscale) { return factor <= 1 ? 1 : 0.1 * mscale * std::log(factor) + 1; }

// DeepSeek-V2: mscale (1 where it is not given) enlarges the rotated part, mscale_all_dim (0) every element of q and k,
// so that the former is divided by the latter and the scores take its square.
Status read_score_scale(const Source& source, RopeReading& out) {
  MR_ASSIGN_OR_RETURN(const double mscale, source.number("mscale", 0, 1));
  MR_ASSIGN_OR_RETURN(const double all_dim, source.number("mscale_all_dim", 0, 0));
  const double whole = yarn_mscale(out.rope.factor, all_dim);
  if (out.rope.attention_factor == 0) out.rope.attention_factor = yarn_mscale(out.rope.factor, mscale) / whole;
  out.score_scale = whole * whole;
  return {};
}

Status read_yarn(const Source& source, const RopeRequest& request, RopeReading& out) {
  Rope& rope = out.rope;
  MR_ASSIGN_OR_RETURN(rope.original_max_positions, yarn_original(source, request, out));
  MR_ASSIGN_OR_RETURN(rope.factor, source.factor());
  MR_RETURN_IF_ERROR(read_attention_factor(source, rope));
  MR_ASSIGN_OR_RETURN(rope.beta_fast, source.number("beta_fast", 0, 32));
  MR_ASSIGN_OR_RETURN(rope.beta_slow, source.number("beta_slow", 0, 1));
  if (rope.beta_fast == 0) rope.beta_fast = 32;  // the reference takes 0 for "not given"
  if (rope.beta_slow == 0) rope.beta_slow = 1;
  if (rope.beta_fast < rope.beta_slow)
    return invalid_argument("{}: beta_fast ({}) is below beta_slow ({})", source.name, rope.beta_fast, rope.beta_slow);
  MR_ASSIGN_OR_RETURN(rope.mscale, source.number("mscale", 0, 0));
  MR_ASSIGN_OR_RETURN(rope.mscale_all_dim, source.number("mscale_all_dim", 0, 0));
  if (const Json* truncate = source.find("truncate")) {
    if (!truncate->is_boolean())
      return invalid_argument("{}.truncate is {}; it must be true or false", source.name, json_excerpt(*truncate));
    rope.truncate = truncate->get<bool>();
  }
  if (request.yarn_score_scale) return read_score_scale(source, out);
  return {};
}

Status read_longrope(const Source& source, const Json& config, const RopeRequest& request, RopeReading& out) {
  Rope& rope = out.rope;
  const auto pairs = static_cast<size_t>(request.dims / 2);
  MR_ASSIGN_OR_RETURN(rope.short_factor, source.factors("short_factor", pairs));
  MR_ASSIGN_OR_RETURN(rope.long_factor, source.factors("long_factor", pairs));
  MR_RETURN_IF_ERROR(read_attention_factor(source, rope));
  const Source top{Source::Layout::kScaling, &config, "config.json"};
  const bool in_object = source.layout == Source::Layout::kParameters || !source.find("factor");
  const bool has_original =
      top.find("original_max_position_embeddings") || (in_object && source.find("original_max_position_embeddings"));
  MR_ASSIGN_OR_RETURN(int64_t original, top.length("original_max_position_embeddings", 0));
  if (original == 0 && has_original) {
    MR_ASSIGN_OR_RETURN(original, source.length("original_max_position_embeddings", 0));
  }
  if (has_original) {
    rope.original_max_positions = original;
    rope.factor = static_cast<double>(request.max_position_embeddings) / static_cast<double>(original);
  } else {
    rope.original_max_positions = request.max_position_embeddings;
    MR_ASSIGN_OR_RETURN(rope.factor, source.factor());
  }
  if (rope.original_max_positions < 2)
    return invalid_argument("{}: original_max_position_embeddings is {}; longrope needs 2 or more", source.name,
                            rope.original_max_positions);
  rope.switches_at_original = source.layout == Source::Layout::kParameters || request.longrope_switches;
  return {};
}

Status read_llama3(const Source& source, const RopeRequest& request, RopeReading& out) {
  Rope& rope = out.rope;
  MR_ASSIGN_OR_RETURN(rope.factor, source.factor());
  MR_ASSIGN_OR_RETURN(rope.original_max_positions,
                      source.length("original_max_position_embeddings", request.max_position_embeddings));
  for (const char* key : {"low_freq_factor", "high_freq_factor"})
    if (!source.find(key)) return invalid_argument("{} has no {}; llama3 scaling needs it", source.name, key);
  MR_ASSIGN_OR_RETURN(rope.low_freq_factor, source.number("low_freq_factor", 1e-6, 1));
  MR_ASSIGN_OR_RETURN(rope.high_freq_factor, source.number("high_freq_factor", 1e-6, 4));
  if (rope.high_freq_factor <= rope.low_freq_factor)
    return invalid_argument("{}: high_freq_factor ({}) must be above low_freq_factor ({})", source.name,
                            rope.high_freq_factor, rope.low_freq_factor);
  return {};
}

Status read_kind(const Source& source, const Json& config, const RopeRequest& request, RopeReading& out) {
  switch (out.rope.scaling) {
    case Scaling::kNone:
      return {};
    case Scaling::kLinear:
      return read_linear(source, request, out);
    case Scaling::kDynamic:
      return read_dynamic(source, request, out);
    case Scaling::kYarn:
      return read_yarn(source, request, out);
    case Scaling::kLongRope:
      return read_longrope(source, config, request, out);
    case Scaling::kLlama3:
      return read_llama3(source, request, out);
    case Scaling::kQwenNtk:
      break;  // no rope_scaling states it
  }
  return {};
}

void collect_unknown_keys(const Source& source, const Kind& kind, RopeReading& out) {
  const std::string object = source.name.substr(source.name.rfind(' ') + 1);
  for (const auto& [key, value] : source.json->items())
    if (!kSharedKeys.contains(key) && !value.is_null() && !kind.keys.contains(key))
      out.unknown_keys.push_back(fmt::format("{}.{}", object, key));
}

// Keys of rope_parameters that would need an arithmetic of their own.
Status refuse_parameters(const Source& source, double rotary_fraction) {
  for (const auto& [key, value] : source.json->items())
    if (value.is_object())
      return unimplemented("{}.{} is an object; rotations that differ by layer are not built", source.name, key);
  MR_ASSIGN_OR_RETURN(const double partial, source.number("partial_rotary_factor", 0, rotary_fraction));
  if (partial != rotary_fraction)
    return unimplemented("{}.partial_rotary_factor is {}; {} of each head is known to turn", source.name, partial,
                         rotary_fraction);
  return {};
}

Result<double> theta_of(const Json& config, const RopeRequest& request) {
  if (request.theta_override) {
    if (!(*request.theta_override > 1) || !std::isfinite(*request.theta_override))
      return invalid_argument("--rope-theta is {}; it must be above 1", *request.theta_override);
    return *request.theta_override;
  }
  for (const char* key : {"rope_parameters", "rope_scaling"}) {
    MR_ASSIGN_OR_RETURN(const Json* object, object_of(config, key));
    if (!object || !object->contains("rope_theta")) continue;
    const Source source{Source::Layout::kParameters, object, fmt::format("config.json: {}", key)};
    MR_ASSIGN_OR_RETURN(const double theta, source.number("rope_theta", 0, request.theta));
    if (!(theta > 1)) return invalid_argument("{}.rope_theta is {}; it must be above 1", source.name, theta);
    if (request.theta_stated && theta != request.theta)
      return invalid_argument("config.json: rope_theta is {} but {}.rope_theta is {}; they must agree", request.theta,
                              key, theta);
    return theta;
  }
  return request.theta;
}

// As far as the scaling stretches what the checkpoint promises.
int64_t longest(const Source& source, const RopeRequest& request, const Rope& rope) {
  const int64_t stated = request.max_position_embeddings;
  const auto stretched = [&](int64_t length) {
    return static_cast<int64_t>(
        std::min(static_cast<double>(length) * rope.factor, double{std::numeric_limits<int32_t>::max()}));
  };
  switch (rope.scaling) {
    case Scaling::kLinear:
      return stretched(stated);
    case Scaling::kDynamic:
      return std::max<int64_t>(2048, stretched(stated));
    case Scaling::kYarn:
      if (request.yarn_stated_length) return std::max(stated, stretched(rope.original_max_positions));
      return rope.original_max_positions == stated || source.layout == Source::Layout::kOverride
                 ? stretched(rope.original_max_positions)
                 : stated;
    default:
      return stated;
  }
}

}  // namespace

Result<RopeReading> read_rope(const Json& config, const RopeRequest& request) {
  RopeReading out;
  out.rope.dims = request.dims;
  out.rope.original_max_positions = request.max_position_embeddings;
  out.max_positions = request.max_position_embeddings;
  MR_ASSIGN_OR_RETURN(out.rope.theta, theta_of(config, request));
  MR_ASSIGN_OR_RETURN(const Source source, choose_source(config, request.scaling_override));
  if (source.layout == Source::Layout::kNone) return out;
  MR_RETURN_IF_ERROR(refuse_parameters(source, request.rotary_fraction));
  MR_ASSIGN_OR_RETURN(const Kind* kind, kind_of(source));
  out.rope.scaling = kind->scaling;
  MR_RETURN_IF_ERROR(read_kind(source, config, request, out));
  collect_unknown_keys(source, *kind, out);
  out.max_positions = longest(source, request, out.rope);
  out.length_unbounded = out.rope.scaling == Scaling::kDynamic;
  return out;
}

}  // namespace millrace
