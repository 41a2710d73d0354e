#include "engine/local/kv_choice.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/log.h"
#include "weights/kv_scales.h"

namespace millrace {
namespace {

bool has_latents(const DecoderSpec& spec) {
  return std::ranges::any_of(spec.layers,
                             [](const LayerSpec& layer) { return std::holds_alternative<Mla>(layer.attention); });
}

KvScaleShape shape_of(const ModelFolder& model) {
  const DecoderSpec& spec = model.spec;
  return {.model_type = model.config.value("model_type", ""),
          .layers = static_cast<int64_t>(spec.layers.size()),
          .heads = std::get<Gqa>(spec.layers.front().attention).kv_heads};
}

// Empty where the checkpoint has none.
Result<KvScaleTable> scales_of_checkpoint(const EngineArgs& args, const ModelFolder& model) {
  MR_ASSIGN_OR_RETURN(const LoadFormat format, load_format_from_name(args.load_format));
  if (format == LoadFormat::kDummy) return KvScaleTable{};
  if (!model.quantization.kv_unserved.empty())
    return unimplemented(
        "{}. --quantization-param-path gives other scales, and --kv-cache-dtype int8-dynamic needs none",
        model.quantization.kv_unserved);
  MR_ASSIGN_OR_RETURN(const Checkpoint checkpoint, Checkpoint::open(model.path, format));
  return checkpoint_kv_scales(checkpoint, shape_of(model));
}

struct FoundScales {
  KvScaleTable table;
  std::string source;
};

Result<FoundScales> find_scales(const EngineArgs& args, const ModelFolder& model) {
  const std::string& path = args.quantization_param_path;
  FoundScales found{{}, path.empty() ? "the checkpoint's scales" : "scales from " + path};
  if (path.empty()) {
    MR_ASSIGN_OR_RETURN(found.table, scales_of_checkpoint(args, model));
  } else {
    MR_ASSIGN_OR_RETURN(found.table, read_kv_scales(path, shape_of(model)));
  }
  return found;
}

FoundScales ones(const ModelFolder& model) {
  log_warning(
      "--kv-cache-dtype int8 without --quantization-param-path, and the checkpoint has no scales: keys and values are "
      "rounded to whole numbers (scale 1), which costs accuracy; int8-dynamic needs no scales");
  const KvScaleShape shape = shape_of(model);
  const std::vector<float> all(shape.layers * shape.heads, 1.0f);
  return {{all, all, {}}, "scale 1"};
}

}  // namespace

Result<KvType> choose_kv_type(const EngineArgs& args, const ModelFolder& model, DType dtype) {
  if (!args.quantization_param_path.empty() && args.kv_cache_dtype != "int8")
    return invalid_argument("--quantization-param-path has scales for --kv-cache-dtype int8, but that is {}",
                            args.kv_cache_dtype);
  if (args.kv_cache_dtype == "auto") return KvType(dtype);
  if (has_latents(model.spec))
    return unimplemented("--kv-cache-dtype is {}, but {} has latent attention, whose cache is served only as auto",
                         args.kv_cache_dtype, model.spec.architecture);
  return KvType(DType::kI8, args.kv_cache_dtype == "int8-dynamic");
}

Result<KvScaleChoice> choose_kv_scales(const EngineArgs& args, const ModelFolder& model) {
  MR_RETURN_IF_ERROR(choose_kv_type(args, model, model.spec.dtype).status());
  if (args.kv_cache_dtype == "int8-dynamic") return KvScaleChoice{{}, ", int8 with a scale for each token and head"};
  if (args.kv_cache_dtype != "int8") {
    if (model.quantization.kv_int8)
      log_info("{}: there are scales of an int8 KV cache; --kv-cache-dtype int8 uses them", model.quantization.source);
    return KvScaleChoice{};
  }
  MR_ASSIGN_OR_RETURN(FoundScales found, find_scales(args, model));
  for (const std::string& note : found.table.notes) log_warning("{}", note);
  if (found.table.keys.empty()) found = ones(model);
  return KvScaleChoice{{std::move(found.table.keys), std::move(found.table.values)}, ", int8 with " + found.source};
}

}  // namespace millrace
