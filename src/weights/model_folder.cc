#include "weights/model_folder.h"

#include <algorithm>

#include "base/cpu.h"
#include "base/file.h"
#include "base/text.h"
#include "models/families/names.h"
#include "models/families/presets.h"
#include "weights/random_weights.h"

namespace millrace {
namespace {

Result<Json> read_object(const std::string& path) {
  MR_ASSIGN_OR_RETURN(Json json, read_json_file(path, {.max_bytes = size_t{16} << 20}));
  if (!json.is_object()) return invalid_argument("{}: holds {}; it must be an object", path, json_kind(json));
  return json;
}

// Weights made from a spec, not from a file, must fit into memory.
Status check_memory(const DecoderSpec& spec, DType dtype) {
  const int64_t wanted = parameter_count(spec) * dtype_bytes(dtype);
  const int64_t available = machine_info().memory_available_bytes;
  if (wanted <= available) return {};
  return resource_exhausted("random weights of {} parameters as {} take {}; {} of memory are available",
                            format_count(parameter_count(spec)), dtype_name(dtype), format_bytes(wanted),
                            format_bytes(available));
}

// generation_config.json may name more ids that end a text; the model's own stay in front.
Status add_generation_config(ModelFolder& model) {
  const std::string path = join_path(model.path, "generation_config.json");
  if (!file_exists(path)) return {};
  MR_ASSIGN_OR_RETURN(model.generation_config, read_object(path));
  const auto it = model.generation_config.find("eos_token_id");
  if (it == model.generation_config.end()) return {};
  MR_ASSIGN_OR_RETURN(const auto ids, read_token_ids(*it, "generation_config.json: eos_token_id"));
  auto& known = model.spec.eos_token_ids;
  for (const int32_t id : ids)
    if (std::ranges::find(known, id) == known.end()) known.push_back(id);
  return {};
}

Status check_new_folder(const std::string& folder) {
  MR_RETURN_IF_ERROR(make_directories(folder));
  const std::string config = join_path(folder, "config.json");
  if (file_exists(config)) return already_exists("{}: there is a model already", config);
  return {};
}

Json generation_config_of(const Json& config) {
  Json out = {{"_from_model_config", true}};
  for (const char* key : {"bos_token_id", "eos_token_id", "pad_token_id"})
    if (config.contains(key)) out[key] = config[key];
  return out;
}

}  // namespace

Result<ModelFolder> open_model_folder(const std::string& path, const ModelFolderOptions& options) {
  if (!is_directory(path)) return not_found("{}: no such folder", path);
  const std::string config = join_path(path, "config.json");
  if (!file_exists(config)) return not_found("{}: no config.json; a Hugging Face model folder has one", path);
  ModelFolder model{.path = path};
  MR_ASSIGN_OR_RETURN(model.config, read_object(config));
  MR_ASSIGN_OR_RETURN(SpecReading reading, read_spec(model.config, options.spec));
  model.spec = std::move(reading.spec);
  model.family = reading.family;
  model.unknown_keys = std::move(reading.unknown_keys);
  model.notes = std::move(reading.notes);
  model.dtype_stated = reading.dtype_stated;
  MR_ASSIGN_OR_RETURN(model.quantization, read_quantization_config(path, model.config));
  model.notes.insert(model.notes.end(), model.quantization.notes.begin(), model.quantization.notes.end());
  MR_RETURN_IF_ERROR(add_generation_config(model));
  return model;
}

Result<DecoderWeights> load_weights(ModelFolder& model, const LoadOptions& options, QuantizedWeights* quantized,
                                    MappedFiles* files) {
  if (options.format == LoadFormat::kDummy) {
    MR_RETURN_IF_ERROR(check_memory(model.spec, options.dummy_dtype));
    return dummy_weights(model.spec, options.dummy_dtype, options.seed);
  }
  MR_ASSIGN_OR_RETURN(const Checkpoint checkpoint, Checkpoint::open(model.path, options.format));
  if (model.quantization.method != QuantizationConfig::Method::kNone && !quantized)
    return unimplemented("{} says {}: dense weights are wanted here", model.quantization.source,
                         method_name(model.quantization.method));
  MR_ASSIGN_OR_RETURN(DecoderWeights weights,
                      load_decoder_weights(checkpoint, *model.family, model.spec, model.quantization, quantized));
  if (!model.dtype_stated) model.spec.dtype = weights.at("embed.weight").dtype();
  if (files) *files = checkpoint.mappings();
  return weights;
}

Result<Json> new_config(const InitOptions& options) {
  MR_ASSIGN_OR_RETURN(Json config, preset_config(options.family, options.size));
  if (!options.overrides.is_object())
    return invalid_argument("sizes are {}; they must be an object of config.json keys", json_kind(options.overrides));
  for (const auto& [key, value] : options.overrides.items()) config[key] = value;
  config["torch_dtype"] = dtype_name(options.dtype);
  MR_ASSIGN_OR_RETURN(const SpecReading reading, read_spec(config));
  if (reading.unknown_keys.empty()) return config;
  return invalid_argument("config.json has no key '{}' in family {}", reading.unknown_keys.front(), options.family);
}

Status init_checkpoint(const std::string& folder, const InitOptions& options) {
  if (options.dtype != DType::kF32 && options.dtype != DType::kBf16 && options.dtype != DType::kF16)
    return invalid_argument("dtype is {}; it must be float32, bfloat16 or float16", dtype_name(options.dtype));
  MR_ASSIGN_OR_RETURN(const Json config, new_config(options));
  MR_ASSIGN_OR_RETURN(const SpecReading reading, read_spec(config));
  MR_RETURN_IF_ERROR(check_new_folder(folder));
  MR_RETURN_IF_ERROR(check_memory(reading.spec, options.dtype));
  const DecoderWeights weights = initial_weights(reading.spec, options.dtype, options.seed);
  MR_RETURN_IF_ERROR(save_decoder_weights(folder, reading.spec, weights));
  MR_RETURN_IF_ERROR(
      write_file(join_path(folder, "generation_config.json"), dump_json(generation_config_of(config), 2) + "\n"));
  return write_file(join_path(folder, "config.json"), dump_json(config, 2) + "\n");
}

}  // namespace millrace
