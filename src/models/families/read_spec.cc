#include "models/families/read_spec.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "models/families/families.h"
#include "models/families/rope_config.h"

namespace millrace {
namespace {

// Bounds on sizes: far above any model, and low enough that the bytes of all tensors fit 63 bits.
constexpr int64_t kMaxVocab = int64_t{1} << 28, kMaxHidden = int64_t{1} << 20, kMaxLayers = 10'000,
                  kMaxHeads = int64_t{1} << 16, kMaxHeadDim = int64_t{1} << 14, kMaxAttention = int64_t{1} << 22,
                  kMaxMlpHidden = int64_t{1} << 24, kMaxLength = 0x7fffffff;

// What the family's rows made of a config.json: per field, a value and the words that name it in messages.
class Fields {
 public:
  struct Entry {
    Json value;
    std::string name;     // "config.json: hidden_size"
    bool stated = false;  // the key is in the file
  };

  static Result<Fields> read(const Json& config, const Family& family) {
    Fields fields;
    for (const ConfigRow* row : config_rows(family)) MR_RETURN_IF_ERROR(fields.add(config, *row));
    for (const FixedRow* row : fixed_rows(family))
      fields.entries_[row->field] = {row->value, fmt::format("family {}", family.name), false};
    for (const auto& [field, entry] : fields.entries_)
      if (entry.value.is_discarded())
        return invalid_argument("{} is missing; the model cannot be built without it", entry.name);
    return fields;
  }

  const Entry* find(Field field) const {
    const auto it = entries_.find(field);
    return it == entries_.end() || it->second.value.is_null() ? nullptr : &it->second;
  }
  bool stated(Field field) const {
    const Entry* entry = find(field);
    return entry && entry->stated;
  }
  std::string name(Field field) const { return entries_.contains(field) ? entries_.at(field).name : "config.json"; }

  // A whole number from 1 to `most`; `null_value` where the field is null or no row knows it.
  Result<int64_t> size(Field field, int64_t most, int64_t null_value = 0) const {
    const Entry* entry = find(field);
    if (!entry && null_value > 0) return null_value;
    if (!entry) return invalid_argument("{} is null; it must be a whole number from 1 to {}", name(field), most);
    const Json& value = entry->value;
    const bool whole = value.is_number() && std::floor(value.get<double>()) == value.get<double>();
    if (!whole || value.get<double>() < 1 || value.get<double>() > static_cast<double>(most))
      return invalid_argument("{} is {}; it must be a whole number from 1 to {}", entry->name, json_excerpt(value),
                              most);
    return static_cast<int64_t>(value.get<double>());
  }

  Result<double> number_above(Field field, double least) const {
    const Entry* entry = find(field);
    if (!entry || !entry->value.is_number() || !(entry->value.get<double>() > least) ||
        !std::isfinite(entry->value.get<double>()))
      return invalid_argument("{} is {}; it must be a number above {}", name(field),
                              entry ? json_excerpt(entry->value) : "null", least);
    return entry->value.get<double>();
  }

  Result<bool> flag(Field field, bool null_value) const {
    const Entry* entry = find(field);
    if (!entry) return null_value;
    if (!entry->value.is_boolean())
      return invalid_argument("{} is {}; it must be true or false", entry->name, json_excerpt(entry->value));
    return entry->value.get<bool>();
  }

 private:
  // A discarded value stands for "required, not seen yet".
  Status add(const Json& config, const ConfigRow& row) {
    const std::string name = "config.json: " + row.key;
    const auto it = config.find(row.key);
    const bool present = it != config.end();
    const auto known = entries_.find(row.field);
    if (known == entries_.end()) {
      Json value = present ? *it : row.fallback.value_or(Json(Json::value_t::discarded));
      entries_[row.field] = {std::move(value), name, present};
      return {};
    }
    if (!present || it->is_null()) return {};
    Entry& entry = known->second;
    if (entry.stated && !entry.value.is_null() && entry.value != *it)
      return invalid_argument("{} is {} but {} is {}; they must agree", entry.name, json_excerpt(entry.value), row.key,
                              json_excerpt(*it));
    entry = {*it, name, true};
    return {};
  }

  std::map<Field, Entry> entries_;
};

Result<Activation> read_activation(const Fields& fields) {
  static const std::map<std::string, Activation> kNames = {
      {"silu", Activation::kSilu},          {"swish", Activation::kSilu},
      {"gelu", Activation::kGelu},          {"gelu_new", Activation::kGeluTanh},
      {"gelu_fast", Activation::kGeluTanh}, {"gelu_pytorch_tanh", Activation::kGeluTanh},
      {"relu", Activation::kRelu},
  };
  const Fields::Entry* entry = fields.find(Field::kActivation);
  if (entry && entry->value.is_string()) {
    const auto it = kNames.find(entry->value.get<std::string>());
    if (it != kNames.end()) return it->second;
  }
  std::vector<std::string> known;
  for (const auto& [name, activation] : kNames) known.push_back(name);
  return unimplemented("{} is {}; it must be one of {}", fields.name(Field::kActivation),
                       entry ? json_excerpt(entry->value) : "null", fmt::join(known, ", "));
}

Status read_dtype(const Fields& fields, SpecReading& out) {
  const Fields::Entry* entry = fields.find(Field::kDType);
  if (!entry) return {};
  std::optional<DType> dtype;
  if (entry->value.is_string()) dtype = dtype_from_name(entry->value.get<std::string>());
  if (!dtype || !is_floating(*dtype))
    return unimplemented("{} is {}; it must be float32, float16 or bfloat16", entry->name, json_excerpt(entry->value));
  out.spec.dtype = *dtype;
  out.dtype_stated = true;
  return {};
}

Status read_end_tokens(const Fields& fields, DecoderSpec& spec) {
  const Fields::Entry* eos = fields.find(Field::kEosTokens);
  MR_ASSIGN_OR_RETURN(spec.eos_token_ids, read_token_ids(eos ? eos->value : Json(), fields.name(Field::kEosTokens)));
  const Fields::Entry* bos = fields.find(Field::kBosToken);
  MR_ASSIGN_OR_RETURN(const auto ids, read_token_ids(bos ? bos->value : Json(), fields.name(Field::kBosToken)));
  spec.bos_token_id = ids.empty() ? -1 : ids.front();
  return {};
}

// Layers whose queries see only the last keys.
Result<std::vector<bool>> windowed_layers(const Fields& fields, int64_t layers, bool has_window) {
  const Fields::Entry* entry = fields.find(Field::kLayerTypes);
  if (!entry) return std::vector<bool>(layers, has_window);
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
Result<std::vector<int64_t>> read_windows(const Fields& fields, int64_t layers, std::vector<std::string>& notes) {
  MR_ASSIGN_OR_RETURN(const bool used, fields.flag(Field::kUseWindow, true));
  int64_t window = 0;
  if (used && fields.find(Field::kWindow)) {
    MR_ASSIGN_OR_RETURN(window, fields.size(Field::kWindow, kMaxLength));
  }
  MR_ASSIGN_OR_RETURN(const auto windowed, windowed_layers(fields, layers, window > 0));
  std::vector<int64_t> windows;
  for (const bool has_window : windowed) windows.push_back(has_window ? window : 0);
  const Fields::Entry* first = fields.find(Field::kFirstWindowLayer);
  if (window > 0 && first && first->value != 0 && !fields.find(Field::kLayerTypes))
    notes.push_back(
        fmt::format("{} is {}: the sliding window applies to every layer all the same, as in the reference; "
                    "layer_types would choose layers",
                    first->name, json_excerpt(first->value)));
  return windows;
}

Result<Gqa> read_attention(const Fields& fields, int64_t hidden_size) {
  Gqa gqa;
  MR_ASSIGN_OR_RETURN(gqa.heads, fields.size(Field::kHeads, kMaxHeads));
  MR_ASSIGN_OR_RETURN(gqa.kv_heads, fields.size(Field::kKvHeads, kMaxHeads, gqa.heads));
  if (gqa.heads % gqa.kv_heads != 0)
    return invalid_argument("{} ({}) is not divisible by num_key_value_heads ({})", fields.name(Field::kHeads),
                            gqa.heads, gqa.kv_heads);
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
  MR_ASSIGN_OR_RETURN(gqa.qkv_bias, fields.flag(Field::kQkvBias, false));
  MR_ASSIGN_OR_RETURN(gqa.out_bias, fields.flag(Field::kOutBias, false));
  return gqa;
}

Result<Glu> read_mlp(const Fields& fields) {
  Glu glu;
  MR_ASSIGN_OR_RETURN(glu.hidden, fields.size(Field::kMlpHidden, kMaxMlpHidden));
  MR_ASSIGN_OR_RETURN(glu.activation, read_activation(fields));
  MR_ASSIGN_OR_RETURN(glu.bias, fields.flag(Field::kMlpBias, false));
  return glu;
}

Status read_layers(const Fields& fields, SpecReading& out) {
  MR_ASSIGN_OR_RETURN(const int64_t layers, fields.size(Field::kLayers, kMaxLayers));
  MR_ASSIGN_OR_RETURN(Gqa attention, read_attention(fields, out.spec.hidden_size));
  MR_ASSIGN_OR_RETURN(const Glu mlp, read_mlp(fields));
  MR_ASSIGN_OR_RETURN(const auto windows, read_windows(fields, layers, out.notes));
  for (const int64_t window : windows) {
    attention.window = window;
    out.spec.layers.push_back({attention, mlp});
  }
  return {};
}

Status read_positions(const Json& config, const Fields& fields, const SpecOptions& options, SpecReading& out) {
  RopeRequest request;
  request.dims = std::get<Gqa>(out.spec.layers.front().attention).head_dim;
  MR_ASSIGN_OR_RETURN(request.max_position_embeddings, fields.size(Field::kMaxPositions, kMaxLength));
  MR_ASSIGN_OR_RETURN(request.theta, fields.number_above(Field::kRopeTheta, 1));
  request.theta_stated = fields.stated(Field::kRopeTheta);
  request.scaling_override = options.rope_scaling ? &*options.rope_scaling : nullptr;
  request.theta_override = options.rope_theta;
  MR_ASSIGN_OR_RETURN(RopeReading reading, read_rope(config, request));
  out.spec.rope = std::move(reading.rope);
  out.spec.max_positions = reading.max_positions;
  out.spec.length_unbounded = reading.length_unbounded;
  out.unknown_keys = std::move(reading.unknown_keys);
  out.notes.insert(out.notes.end(), reading.notes.begin(), reading.notes.end());
  return {};
}

Status refuse_keys(const Json& config, const Family& family, const std::set<std::string>& mapped) {
  for (const RefusedRow* row : refused_rows(family)) {
    const auto it = config.find(row->key);
    if (it == config.end() || it->is_null() || mapped.contains(row->key)) continue;
    if (std::ranges::find(row->neutral, *it) != row->neutral.end()) continue;
    return unimplemented("config.json: {} is {}: {}", row->key, json_excerpt(*it), row->reason);
  }
  return {};
}

std::set<std::string> mapped_keys(const Family& family) {
  std::set<std::string> keys = {"rope_scaling", "rope_parameters", "original_max_position_embeddings"};
  for (const ConfigRow* row : config_rows(family)) keys.insert(row->key);
  for (const RefusedRow* row : refused_rows(family)) keys.insert(row->key);
  return keys;
}

void collect_unknown_keys(const Json& config, const Family& family, SpecReading& out) {
  const std::set<std::string> mapped = mapped_keys(family);
  for (const auto& [key, value] : config.items())
    if (!mapped.contains(key) && !is_harmless_key(family, key)) out.unknown_keys.push_back(key);
}

std::set<std::string> config_keys(const Family& family) {
  std::set<std::string> keys;
  for (const ConfigRow* row : config_rows(family)) keys.insert(row->key);
  return keys;
}

}  // namespace

Result<std::vector<int32_t>> read_token_ids(const Json& value, const std::string& where) {
  std::vector<int32_t> ids;
  if (value.is_null()) return ids;
  if (value.is_array() && value.size() > 10'000)
    return invalid_argument("{} lists {} ids; at most 10000 are read", where, value.size());
  for (const Json& id : value.is_array() ? value : Json::array({value})) {
    if (!id.is_number_integer() || id.get<double>() < 0 || id.get<double>() >= static_cast<double>(kMaxVocab))
      return invalid_argument("{} is {}; it must be a token id, a list of token ids or null", where,
                              json_excerpt(value));
    ids.push_back(id.get<int32_t>());
  }
  return ids;
}

Result<SpecReading> read_spec(const Json& config, const SpecOptions& options) {
  SpecReading out;
  DecoderSpec& spec = out.spec;
  MR_ASSIGN_OR_RETURN(out.family, family_of_config(config, &spec.architecture));
  spec.family = out.family->name;
  MR_RETURN_IF_ERROR(refuse_keys(config, *out.family, config_keys(*out.family)));
  MR_ASSIGN_OR_RETURN(const Fields fields, Fields::read(config, *out.family));
  MR_ASSIGN_OR_RETURN(spec.vocab_size, fields.size(Field::kVocabSize, kMaxVocab));
  MR_ASSIGN_OR_RETURN(spec.hidden_size, fields.size(Field::kHiddenSize, kMaxHidden));
  MR_RETURN_IF_ERROR(read_layers(fields, out));
  MR_RETURN_IF_ERROR(read_positions(config, fields, options, out));
  MR_ASSIGN_OR_RETURN(spec.norm_eps, fields.number_above(Field::kNormEps, 0));
  MR_ASSIGN_OR_RETURN(spec.tie_word_embeddings, fields.flag(Field::kTieEmbeddings, false));
  MR_RETURN_IF_ERROR(read_dtype(fields, out));
  MR_RETURN_IF_ERROR(read_end_tokens(fields, spec));
  collect_unknown_keys(config, *out.family, out);
  return out;
}

}  // namespace millrace
