#include "weights/kv_scales.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/file.h"

namespace millrace {
namespace {

constexpr size_t kMaxBytes = size_t{16} << 20;
constexpr JsonLimits kLimits = {.max_bytes = kMaxBytes, .max_depth = 8};
constexpr int64_t kMaxRanks = 4096;

// ---- the file ----

// An object and where it lies in the file.
struct Place {
  const Json& json;
  std::string name;

  Status wrong(const char* key, const Json& value, const std::string& wanted) const {
    return invalid_argument("{}{} is {}; it must be {}", name, key, json_excerpt(value), wanted);
  }
  Result<Place> object(const char* key) const {
    const auto it = json.find(key);
    if (it == json.end()) return invalid_argument("{}{} is missing", name, key);
    if (!it->is_object()) return wrong(key, *it, "an object");
    return Place{*it, name + key + "."};
  }
  Status only(std::initializer_list<std::string_view> known) const {
    for (const auto& [key, value] : json.items())
      if (std::ranges::find(known, key) == known.end())
        return invalid_argument("{}{} is not known; here may stand {}", name, key, fmt::join(known, ", "));
    return {};
  }
};

Status check_model_type(const Place& top, const std::string& wanted) {
  const auto it = top.json.find("model_type");
  if (it == top.json.end() || it->is_null()) return {};
  if (!it->is_string()) return top.wrong("model_type", *it, "a string or null");
  if (*it == wanted) return {};
  return top.wrong("model_type", *it, fmt::format("\"{}\", as in config.json, or null", wanted));
}

Status check_dtype(const Place& cache, std::vector<std::string>& notes) {
  const auto it = cache.json.find("dtype");
  if (it == cache.json.end() || !it->is_string())
    return invalid_argument("{}dtype is {}; it must be a string such as \"int8\"", cache.name,
                            it == cache.json.end() ? "missing" : json_excerpt(*it));
  if (*it != "int8")
    notes.push_back(
        fmt::format("{}dtype is {}; the numbers are taken as scales of int8", cache.name, json_excerpt(*it)));
  return {};
}

// The numbers of `place` under the keys "0", "1", ... `count` - 1, no more and no less.
Result<std::vector<const Json*>> numbered(const Place& place, int64_t count, const char* what) {
  std::vector<const Json*> found;
  for (int64_t i = 0; i < count; ++i) {
    const auto it = place.json.find(fmt::to_string(i));
    if (it == place.json.end())
      return invalid_argument("{}{} is missing: there are {} of {} {}s", place.name, i, place.json.size(), count, what);
    found.push_back(&*it);
  }
  if (static_cast<int64_t>(place.json.size()) == count) return found;
  for (const auto& [key, value] : place.json.items()) {
    int64_t number = -1;
    std::from_chars(key.data(), key.data() + key.size(), number);
    if (number < 0 || number >= count || key != fmt::to_string(number))
      return invalid_argument("{}{} is not known; {}s are 0 to {}", place.name, key, what, count - 1);
  }
  return found;
}

bool is_scale(double value) { return std::isnormal(static_cast<float>(value)) && value > 0; }

// scaling_factor's largest number of each layer.
Result<std::vector<float>> largest_factors(const Place& ranks, int64_t layers) {
  const auto count = static_cast<int64_t>(ranks.json.size());
  if (count < 1 || count > kMaxRanks)
    return invalid_argument("{} has {} ranks; 1 to {} are served", ranks.name, count, kMaxRanks);
  MR_ASSIGN_OR_RETURN(const std::vector<const Json*> each, numbered(ranks, count, "rank"));
  std::vector<float> largest(layers, 0);
  for (int64_t rank = 0; rank < count; ++rank) {
    const Place place{*each[rank], fmt::format("{}{}.", ranks.name, rank)};
    if (!place.json.is_object()) return ranks.wrong(fmt::to_string(rank).c_str(), place.json, "an object of layers");
    MR_ASSIGN_OR_RETURN(const std::vector<const Json*> factors, numbered(place, layers, "layer"));
    for (int64_t layer = 0; layer < layers; ++layer) {
      const Json& value = *factors[layer];
      if (!value.is_number() || !is_scale(value.get<double>()))
        return place.wrong(fmt::to_string(layer).c_str(), value, "a finite number above 0");
      largest[layer] = std::max(largest[layer], value.get<float>());
    }
  }
  return largest;
}

Result<KvScaleTable> table_of(const Json& json, const KvScaleShape& shape) {
  if (!json.is_object()) return invalid_argument("the file holds {}; it must be an object", json_kind(json));
  const Place top{json, ""};
  MR_RETURN_IF_ERROR(top.only({"model_type", "kv_cache"}));
  MR_RETURN_IF_ERROR(check_model_type(top, shape.model_type));
  MR_ASSIGN_OR_RETURN(const Place cache, top.object("kv_cache"));
  MR_RETURN_IF_ERROR(cache.only({"dtype", "scaling_factor"}));
  KvScaleTable table;
  MR_RETURN_IF_ERROR(check_dtype(cache, table.notes));
  MR_ASSIGN_OR_RETURN(const Place ranks, cache.object("scaling_factor"));
  MR_ASSIGN_OR_RETURN(const std::vector<float> factors, largest_factors(ranks, shape.layers));
  for (const float factor : factors) table.keys.insert(table.keys.end(), shape.heads, factor);
  table.values = table.keys;
  return table;
}

// ---- the checkpoint ----

// What a scale is of, in the order in which they count.
enum Kind { kKey, kValue, kBoth, kKeyOutput, kValueOutput, kKinds };
constexpr std::string_view kEnds[kKinds] = {".k_scale", ".v_scale", ".kv_scale", ".k_proj.output_scale",
                                            ".v_proj.output_scale"};

std::optional<Kind> kind_of(std::string_view name) {
  for (int kind = 0; kind < kKinds; ++kind)
    if (name.ends_with(kEnds[kind])) return static_cast<Kind>(kind);
  return std::nullopt;
}

// The one whole number among the parts of a dotted name; -1 where there is none, or several.
int64_t number_in(std::string_view name) {
  int64_t found = -1;
  for (size_t begin = 0; begin <= name.size();) {
    const size_t end = std::min(name.find('.', begin), name.size());
    int64_t number = 0;
    const auto [rest, error] = std::from_chars(name.data() + begin, name.data() + end, number);
    if (error == std::errc() && rest == name.data() + end && end > begin) {
      if (found >= 0) return -1;
      found = number;
    }
    begin = end + 1;
  }
  return found;
}

using Scales = std::vector<float>;  // one, or one for each head; empty: none
using LayerScales = std::array<Scales, kKinds>;

Result<Scales> scales_of(const std::string& name, const Tensor& tensor, int64_t heads) {
  if (!is_floating(tensor.dtype()) || (tensor.numel() != 1 && tensor.numel() != heads))
    return unimplemented("{} has {} elements of {}; scales of keys and values have one, or one for each of {} heads",
                         name, tensor.numel(), dtype_name(tensor.dtype()), heads);
  const Tensor flat = tensor.to_contiguous();
  Scales scales;
  for (int64_t i = 0; i < flat.numel(); ++i) {
    const float scale = element_as_float(flat, i);
    if (scale <= 0) return Scales{};
    if (!is_scale(scale)) return invalid_argument("{} has {}; a finite number above 0 is wanted", name, scale);
    scales.push_back(scale);
  }
  return scales;
}

Result<std::vector<LayerScales>> scales_of_layers(const Checkpoint& checkpoint, const KvScaleShape& shape) {
  std::vector<LayerScales> layers(shape.layers);
  for (const std::string& name : checkpoint.names()) {
    const std::optional<Kind> kind = kind_of(name);
    if (!kind) continue;
    const int64_t layer = number_in(name);
    if (layer < 0 || layer >= shape.layers)
      return invalid_argument("{}: its name must hold the number of one of {} layers, and no other number", name,
                              shape.layers);
    MR_ASSIGN_OR_RETURN(const Tensor tensor, checkpoint.tensor(name));
    MR_ASSIGN_OR_RETURN(layers[layer][*kind], scales_of(name, tensor, shape.heads));
  }
  return layers;
}

const Scales& first_of(std::initializer_list<const Scales*> choices) {
  for (const Scales* scales : choices)
    if (!scales->empty()) return *scales;
  return **(choices.end() - 1);
}

void append(const Scales& scales, int64_t heads, std::vector<float>& to) {
  for (int64_t g = 0; g < heads; ++g) to.push_back(scales[scales.size() == 1 ? 0 : g]);
}

}  // namespace

Result<KvScaleTable> parse_kv_scales(std::string_view text, const KvScaleShape& shape, const std::string& name) {
  Result<Json> json = parse_json(text, kLimits);
  if (!json.ok()) return json.status().at(name);
  Result<KvScaleTable> table = table_of(*json, shape);
  if (!table.ok()) return table.status().at(name);
  for (std::string& note : table->notes) note = name + ": " + note;
  return table;
}

Result<KvScaleTable> read_kv_scales(const std::string& path, const KvScaleShape& shape) {
  MR_ASSIGN_OR_RETURN(const std::string text, read_file(path, kMaxBytes));
  return parse_kv_scales(text, shape, path);
}

bool is_kv_scale_tensor(std::string_view name) { return kind_of(name).has_value(); }

Result<KvScaleTable> checkpoint_kv_scales(const Checkpoint& checkpoint, const KvScaleShape& shape) {
  MR_ASSIGN_OR_RETURN(const std::vector<LayerScales> layers, scales_of_layers(checkpoint, shape));
  KvScaleTable table;
  std::optional<size_t> without;
  for (size_t i = 0; i < layers.size(); ++i) {
    const LayerScales& s = layers[i];
    const Scales& keys = first_of({&s[kKey], &s[kBoth], &s[kKeyOutput]});
    const Scales& values = first_of({&s[kValue], &s[kBoth], &s[kValueOutput], &keys});
    if (keys.empty()) {
      without = i;
      continue;
    }
    append(keys, shape.heads, table.keys);
    append(values, shape.heads, table.values);
  }
  if (without && !table.keys.empty())
    return invalid_argument("layer {} has no scale of its keys (k_scale), but other layers have", *without);
  return table;
}

}  // namespace millrace
