#include "weights/quantization_config.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "base/file.h"
#include "base/text.h"
#include "models/families/families.h"

namespace millrace {
namespace {

using Method = QuantizationConfig::Method;

// One object with the words that name it in messages.
struct Source {
  const Json& json;
  std::string name;

  const Json* find(const char* key) const {
    const auto it = json.find(key);
    return it == json.end() || it->is_null() ? nullptr : &*it;
  }
  // The first of two spellings that is there.
  const Json* find(const char* key, const char* other) const { return find(key) ? find(key) : find(other); }

  Result<int64_t> integer(const Json* value, const char* key, int64_t fallback) const {
    if (!value) return fallback;
    if (!value->is_number_integer()) return wrong(key, *value, "a whole number");
    return value->get<int64_t>();
  }
  Result<bool> flag(const char* key, bool fallback) const {
    const Json* value = find(key);
    if (!value) return fallback;
    if (!value->is_boolean()) return wrong(key, *value, "true or false");
    return value->get<bool>();
  }
  Result<std::string> text(const char* key, const std::string& fallback) const {
    const Json* value = find(key);
    if (!value) return fallback;
    if (!value->is_string()) return wrong(key, *value, "a string");
    return value->get<std::string>();
  }
  Result<std::vector<std::string>> names(const char* key) const {
    const Json* value = find(key);
    std::vector<std::string> out;
    if (!value) return out;
    if (!value->is_array() || value->size() > 100'000) return wrong(key, *value, "a list of names");
    for (const Json& name : *value) {
      if (!name.is_string()) return wrong(key, name, "a name");
      out.push_back(name.get<std::string>());
    }
    return out;
  }
  Status wrong(const char* key, const Json& value, const char* wanted) const {
    return invalid_argument("{}.{} is {}; it must be {}", name, key, json_excerpt(value), wanted);
  }
  Status unserved(const char* key, const std::string& value, const char* wanted) const {
    return unimplemented("{}.{} is {}; served is {}", name, key, value, wanted);
  }
  void note_unknown(const std::set<std::string>& known, QuantizationConfig& out) const {
    for (const auto& [key, value] : json.items())
      if (!known.contains(key)) out.notes.push_back(fmt::format("{}.{} is not known and not used", name, key));
  }
};

Status read_group(const Source& source, const Json* value, QuantizationConfig& out) {
  MR_ASSIGN_OR_RETURN(const int64_t group, source.integer(value, "group_size", 128));
  if (group != -1 && (group <= 0 || group > (1 << 24)))
    return source.wrong("group_size", *value, "-1 (one group) or a number above 0");
  out.group = group == -1 ? 0 : group;
  return {};
}

Status read_awq(const Source& source, QuantizationConfig& out) {
  out.method = Method::kAwq;
  MR_ASSIGN_OR_RETURN(const int64_t bits, source.integer(source.find("bits", "w_bit"), "bits", 4));
  if (bits != 4) return source.unserved("bits", fmt::to_string(bits), "4");
  MR_RETURN_IF_ERROR(read_group(source, source.find("group_size", "q_group_size"), out));
  MR_ASSIGN_OR_RETURN(const std::string version, source.text("version", "gemm"));
  if (version != "gemm" && version != "GEMM")
    return source.unserved("version", version, "gemm; AutoAWQ can convert the others");
  MR_ASSIGN_OR_RETURN(out.dense, source.names("modules_to_not_convert"));
  source.note_unknown(
      {"quant_method", "bits", "w_bit", "group_size", "q_group_size", "version", "zero_point", "modules_to_not_convert",
       "backend", "do_fuse", "exllama_config", "fuse_max_seq_len", "modules_to_fuse"},
      out);
  return {};
}

Status check_gptq_format(const Source& source, QuantizationConfig& out) {
  MR_ASSIGN_OR_RETURN(const std::string format, source.text("checkpoint_format", "gptq"));
  MR_ASSIGN_OR_RETURN(const bool marlin, source.flag("is_marlin_format", false));
  if (marlin || (format != "gptq" && format != "gptq_v2"))
    return source.unserved("checkpoint_format", marlin ? "marlin" : format, "gptq or gptq_v2");
  out.zeros_less_one = format == "gptq";
  const Json* dynamic = source.find("dynamic");
  if (dynamic && !dynamic->empty()) return source.unserved("dynamic", json_excerpt(*dynamic), "one setting for all");
  MR_ASSIGN_OR_RETURN(const std::string pack, source.text("pack_dtype", "int32"));
  if (pack != "int32") return source.unserved("pack_dtype", pack, "int32");
  return {};
}

Status read_gptq(const Source& source, QuantizationConfig& out) {
  out.method = Method::kGptq;
  MR_ASSIGN_OR_RETURN(const int64_t bits, source.integer(source.find("bits"), "bits", 4));
  if (bits != 4 && bits != 8) return source.unserved("bits", fmt::to_string(bits), "4 or 8");
  out.bits = static_cast<int>(bits);
  MR_RETURN_IF_ERROR(read_group(source, source.find("group_size"), out));
  MR_RETURN_IF_ERROR(check_gptq_format(source, out));
  MR_ASSIGN_OR_RETURN(out.dense, source.names("modules_to_not_convert"));
  source.note_unknown({"quant_method",
                       "bits",
                       "group_size",
                       "checkpoint_format",
                       "is_marlin_format",
                       "dynamic",
                       "pack_dtype",
                       "lm_head",
                       "desc_act",
                       "sym",
                       "damp_percent",
                       "static_groups",
                       "meta",
                       "true_sequential",
                       "model_name_or_path",
                       "model_file_base_name",
                       "quantizer",
                       "damp_auto_increment",
                       "tokenizer",
                       "dataset",
                       "batch_size",
                       "block_name_to_quantize",
                       "cache_block_outputs",
                       "exllama_config",
                       "max_input_length",
                       "model_seqlen",
                       "module_name_preceding_first_block",
                       "modules_in_block_to_quantize",
                       "pad_token_id",
                       "use_cuda_fp16",
                       "use_exllama",
                       "disable_exllama",
                       "backend",
                       "modules_to_not_convert"},
                      out);
  return {};
}

// `what` is a scheme of config_groups: numbers that are not served are refused by name.
Status check_scheme(const Source& what, std::initializer_list<int64_t> bits,
                    std::initializer_list<const char*> strategies) {
  MR_ASSIGN_OR_RETURN(const int64_t stated, what.integer(what.find("num_bits"), "num_bits", 8));
  if (std::ranges::find(bits, stated) == bits.end())
    return what.unserved("num_bits", fmt::to_string(stated), bits.size() == 1 ? "8" : "4 or 8");
  MR_ASSIGN_OR_RETURN(const std::string type, what.text("type", "int"));
  if (type != "int") return what.unserved("type", type, "int");
  MR_ASSIGN_OR_RETURN(const std::string strategy, what.text("strategy", *strategies.begin()));
  const auto is_it = [&](const char* s) { return strategy == s; };
  if (std::ranges::none_of(strategies, is_it))
    return unimplemented("{}.strategy is {}; served is {}", what.name, strategy, fmt::join(strategies, " or "));
  return {};
}

Status check_activations(const Source& group, bool& activations) {
  const Json* stated = group.find("input_activations");
  activations = stated != nullptr;
  if (!stated) return {};
  if (!stated->is_object()) return group.wrong("input_activations", *stated, "an object");
  const Source what{*stated, group.name + ".input_activations"};
  MR_RETURN_IF_ERROR(check_scheme(what, {8}, {"token", "tensor"}));
  MR_ASSIGN_OR_RETURN(const bool symmetric, what.flag("symmetric", true));
  if (!symmetric) return what.unserved("symmetric", "false", "true");
  return {};
}

Status read_groups(const Source& source, const Json& groups, QuantizationConfig& out) {
  bool first = true;
  for (const auto& [key, value] : groups.items()) {
    const Source group{value, fmt::format("{}.config_groups.{}", source.name, key)};
    if (!value.is_object()) return invalid_argument("{} is {}; it must be an object", group.name, json_excerpt(value));
    const Json* weights = group.find("weights");
    if (!weights || !weights->is_object())
      return invalid_argument("{}.weights is missing; it says how weights are stored", group.name);
    MR_RETURN_IF_ERROR(check_scheme({*weights, group.name + ".weights"}, {4, 8}, {"channel", "tensor", "group"}));
    bool activations = false;
    MR_RETURN_IF_ERROR(check_activations(group, activations));
    if (!first && activations != out.activations)
      return unimplemented("{}: some groups round activations and others do not", source.name);
    out.activations = activations;
    first = false;
  }
  return {};
}

// What is not served matters only to who asks for it.
Status read_cache_scheme(const Source& source, QuantizationConfig& out) {
  const Json* stated = source.find("kv_cache_scheme");
  if (!stated) return {};
  if (!stated->is_object()) return source.wrong("kv_cache_scheme", *stated, "an object");
  const Source what{*stated, source.name + ".kv_cache_scheme"};
  MR_ASSIGN_OR_RETURN(const bool symmetric, what.flag("symmetric", true));
  MR_ASSIGN_OR_RETURN(const bool dynamic, what.flag("dynamic", false));
  Status served = check_scheme(what, {8}, {"tensor", "attn_head"});
  if (served.ok() && !symmetric) served = what.unserved("symmetric", "false", "true");
  if (served.ok() && dynamic)
    served = what.unserved("dynamic", "true", "false; --kv-cache-dtype int8-dynamic needs no scales");
  out.kv_int8 = served.ok();
  out.kv_unserved = served.message();
  return {};
}

Status read_compressed_tensors(const Source& source, QuantizationConfig& out) {
  out.method = Method::kCompressedTensors;
  MR_ASSIGN_OR_RETURN(const std::string format, source.text("format", "int-quantized"));
  if (format != "int-quantized" && format != "pack-quantized" && format != "naive-quantized")
    return source.unserved("format", format, "int-quantized, naive-quantized or pack-quantized");
  const Json* groups = source.find("config_groups");
  if (!groups || !groups->is_object() || groups->empty())
    return invalid_argument("{}.config_groups is missing; it says how weights are stored", source.name);
  MR_RETURN_IF_ERROR(read_groups(source, *groups, out));
  MR_ASSIGN_OR_RETURN(out.dense, source.names("ignore"));
  source.note_unknown({"quant_method", "format", "config_groups", "ignore", "quantization_status", "kv_cache_scheme",
                       "global_compression_ratio", "version", "sparsity_config", "transform_config"},
                      out);
  return read_cache_scheme(source, out);
}

Status read_smoothquant(const Source& source, QuantizationConfig& out) {
  out.method = Method::kSmoothQuant;
  out.activations = true;
  MR_ASSIGN_OR_RETURN(const std::string type, source.text("type", "int8"));
  if (type != "int8") return source.unserved("type", type, "int8");
  for (const char* key : {"qkv", "out", "fc1", "fc2", "qkv_proj", "o_proj", "gate_up_proj", "down_proj"}) {
    MR_ASSIGN_OR_RETURN(const std::string mode, source.text(key, "per-token"));
    if (mode != "per-token" && mode != "per-tensor") return source.unserved(key, mode, "per-token or per-tensor");
    if (mode == "per-tensor" && (key[0] == 'q')) out.static_qkv = true;
    if (mode == "per-tensor" && (key[0] == 'g' || std::string_view(key) == "fc1")) out.static_gate_up = true;
  }
  return {};
}

Status read_method(const Source& source, const std::string& method, QuantizationConfig& out) {
  if (!source.json.is_object())
    return invalid_argument("{} is {}; it must be an object", source.name, json_excerpt(source.json));
  out.source = source.name;
  if (method == "awq") return read_awq(source, out);
  if (method == "gptq") return read_gptq(source, out);
  if (method == "compressed-tensors" || method == "compressed_tensors") return read_compressed_tensors(source, out);
  return unimplemented("{}.quant_method is {}; served are awq, gptq and compressed-tensors{}", source.name, method,
                       did_you_mean(method, std::vector<std::string>{"awq", "gptq", "compressed-tensors"}));
}

Result<std::string> stated_method(const Source& source, const char* fallback) {
  if (!source.json.is_object()) return std::string(fallback);
  return source.text("quant_method", fallback);
}

// quant_config.json is AutoAWQ's or AutoSmoothQuant's.
Status read_quant_config_file(const Source& source, QuantizationConfig& out) {
  out.source = source.name;
  if (source.json.is_object() && (source.find("qkv", "qkv_proj") || source.find("fc1", "gate_up_proj")))
    return read_smoothquant(source, out);
  MR_ASSIGN_OR_RETURN(const std::string method, stated_method(source, "awq"));
  return read_method(source, method, out);
}

Result<Json> read_side_file(const std::string& path) { return read_json_file(path, {.max_bytes = size_t{16} << 20}); }

Status read_side_files(const std::string& folder, QuantizationConfig& out) {
  const std::string gptq = join_path(folder, "quantize_config.json"), other = join_path(folder, "quant_config.json");
  if (file_exists(gptq)) {
    MR_ASSIGN_OR_RETURN(const Json json, read_side_file(gptq));
    const Source source{json, "quantize_config.json"};
    MR_ASSIGN_OR_RETURN(const std::string method, stated_method(source, "gptq"));
    return read_method(source, method, out);
  }
  if (file_exists(other)) {
    MR_ASSIGN_OR_RETURN(const Json json, read_side_file(other));
    return read_quant_config_file({json, "quant_config.json"}, out);
  }
  if (file_exists(join_path(folder, "quant_model_description.json")))
    return unimplemented("quant_model_description.json: checkpoints of msmodelslim are not served");
  return {};
}

bool names_module(const std::string& entry, std::string_view module) {
  if (!entry.starts_with("re:")) return module.find(entry) != std::string_view::npos;
  // Only ".*" and escaped dots are read; any other pattern is taken to name the module.
  std::string pattern = "*";
  for (size_t i = 3; i < entry.size(); ++i) {
    if (entry.compare(i, 2, ".*") == 0) {
      pattern += '*', ++i;
    } else if (entry.compare(i, 2, "\\.") == 0) {
      pattern += '.', ++i;
    } else if (std::string_view("^$").find(entry[i]) == std::string_view::npos) {
      if (std::string_view("[](){}|+?\\*").find(entry[i]) != std::string_view::npos) return true;
      pattern += entry[i];
    }
  }
  return matches_pattern(pattern + "*", module);
}

}  // namespace

bool QuantizationConfig::may_be_dense(std::string_view module) const {
  return std::ranges::any_of(dense, [&](const std::string& entry) { return names_module(entry, module); });
}

std::string_view method_name(Method method) {
  switch (method) {
    case Method::kNone:
      return "none";
    case Method::kAwq:
      return "awq";
    case Method::kGptq:
      return "gptq";
    case Method::kCompressedTensors:
      return "compressed-tensors";
    case Method::kSmoothQuant:
      return "smoothquant";
  }
  return "none";
}

Result<QuantizationConfig> read_quantization_config(const std::string& folder, const Json& config) {
  QuantizationConfig out;
  for (const char* key : {"quantization_config", "compression_config"}) {
    const auto it = config.find(key);
    if (it == config.end() || it->is_null()) continue;
    const Source source{*it, fmt::format("config.json: {}", key)};
    MR_ASSIGN_OR_RETURN(const std::string method, stated_method(source, "compressed-tensors"));
    MR_RETURN_IF_ERROR(read_method(source, method, out));
    return out;
  }
  MR_RETURN_IF_ERROR(read_side_files(folder, out));
  return out;
}

}  // namespace millrace
