#include "engine/local/local_engine.h"

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>

#include "base/cpu.h"
#include "base/file.h"
#include "base/log.h"
#include "base/progress.h"
#include "base/text.h"
#include "engine/local/decoder_runner.h"
#include "engine/local/kv_choice.h"
#include "engine/local/memory_plan.h"
#include "engine/local/model_text.h"
#include "kernels/parallel.h"
#include "models/families/names.h"

namespace millrace {
namespace {

constexpr int64_t kLogitsBytes = int64_t{32} << 20;

Result<ModelFolder> open_folder(const EngineArgs& args) {
  ModelFolderOptions options;
  options.spec.rope_theta = args.rope_theta;
  if (!args.rope_scaling.empty()) {
    Result<Json> scaling = parse_json(args.rope_scaling);
    if (!scaling.ok()) return scaling.status().at("--rope-scaling");
    options.spec.rope_scaling = std::move(*scaling);
  }
  if (!is_directory(args.model))
    return not_found(
        "{}: no such folder. --model takes a folder with config.json and weights; 'millrace init DIR' makes one",
        args.model);
  return open_model_folder(args.model, options);
}

void report_oddities(const ModelFolder& model) {
  for (const std::string& note : model.notes) log_warning("{}", note);
  for (const std::string& key : model.unknown_keys)
    warn_once(key, fmt::format("config.json: '{}' is not known here and not read", key));
}

Status open_text(const EngineArgs& args, LocalEngine& local) {
  if (args.skip_tokenizer_init) return {};
  const Family& family = *local.model.family;
  MR_ASSIGN_OR_RETURN(local.tokenizer, load_tokenizer(args.tokenizer.empty() ? args.model : args.tokenizer, family));
  local.chat_format = family_chat_format(family, *local.tokenizer);
  std::vector<int32_t>& stops = local.model.spec.eos_token_ids;
  for (const int32_t id :
       family_stop_ids(family, *local.tokenizer, local.chat_format, !local.model.generation_config.is_null()))
    if (std::ranges::find(stops, id) == stops.end()) stops.push_back(id);
  return {};
}

// Without the window every key is seen; within its length that is the same.
void drop_windows(DecoderSpec& spec) {
  for (LayerSpec& layer : spec.layers) {
    Gqa* attention = std::get_if<Gqa>(&layer.attention);
    if (!attention || attention->window == 0) continue;
    spec.max_positions = std::min(spec.max_positions, attention->window);
    attention->window = 0;
  }
}

struct TypeChoice {
  DType dtype;
  const char* reason;
};
TypeChoice choose_dtype(const EngineArgs& args, const DecoderSpec& spec) {
  if (args.dtype != "auto") return {*dtype_from_name(args.dtype), "--dtype"};
  if (spec.dtype == DType::kF64) return {DType::kF32, "the checkpoint's float64 is rounded"};
  return {spec.dtype, "the checkpoint's"};
}

// What dense matrices become. --quantization must agree with what the checkpoint is.
Result<LinearFormat> choose_format(const EngineArgs& args, const ModelFolder& model) {
  using Method = QuantizationConfig::Method;
  const Method method = model.quantization.method;
  const std::string_view found = method == Method::kNone ? "" : method_name(method);
  if (args.quantization.empty() || (method != Method::kNone && args.quantization == found)) return LinearFormat::kDense;
  const bool while_loading = args.quantization == "w8a8" || args.quantization == "w8a16";
  if (method != Method::kNone)
    return invalid_argument("--quantization is {}, but {} says the weights are {}; leave the flag out",
                            args.quantization, model.quantization.source, found);
  if (!while_loading)
    return invalid_argument(
        "--quantization is {}, but {} has no quantised weights; w8a8 and w8a16 quantise dense ones while loading",
        args.quantization, model.path);
  return args.quantization == "w8a8" ? LinearFormat::kW8A8 : LinearFormat::kW8A16;
}

Result<DecoderTensors> load(const EngineArgs& args, ModelFolder& model) {
  LoadOptions options{.seed = static_cast<uint64_t>(args.seed)};
  MR_ASSIGN_OR_RETURN(options.format, load_format_from_name(args.load_format));
  const DType wanted = choose_dtype(args, model.spec).dtype;
  options.dummy_dtype = wanted;
  QuantizedWeights quantized;
  MappedFiles files;
  MR_ASSIGN_OR_RETURN(DecoderWeights dense, load_weights(model, options, &quantized, &files));
  return DecoderTensors(std::move(dense), std::move(quantized), std::move(files));
}

// config.json and the side files that say how weights are quantised.
Result<Json> files_that_describe(const ModelFolder& model) {
  Json all = {{"config.json", model.config}};
  for (const char* name : {"quantize_config.json", "quant_config.json"}) {
    const std::string path = join_path(model.path, name);
    if (!file_exists(path)) continue;
    MR_ASSIGN_OR_RETURN(all[name], read_json_file(path));
  }
  return all;
}

// Null where no folder is given, or the weights come from no file.
Result<std::unique_ptr<PackedWeights>> open_cache(const EngineArgs& args, const ModelFolder& model,
                                                  const DecoderTensors& weights, DType dtype, LinearFormat format) {
  if (args.packed_weights_cache.empty() || weights.files.empty()) return std::unique_ptr<PackedWeights>();
  MR_ASSIGN_OR_RETURN(const Json config, files_that_describe(model));
  return std::make_unique<PackedWeights>(args.packed_weights_cache,
                                         packed_weights_key(weights.files, config, dtype, format));
}

// A cache that cannot be written costs time at the next start, nothing else.
void write_cache(PackedWeights& cache) {
  const bool found = cache.found();
  if (const Status status = cache.write(); !status.ok())
    log_warning("packed weights are not kept: {}", status.message());
  else if (!found)
    log_info("packed weights are kept in {}", cache.path());
}

Result<EngineConfig> engine_config(const EngineArgs& args, const ModelFolder& model, const MemoryPlan& plan) {
  EngineConfig config;
  config.block_size = static_cast<int32_t>(args.block_size);
  config.max_num_seqs = static_cast<int32_t>(args.max_num_seqs);
  config.max_num_batched_tokens = args.max_num_batched_tokens;
  config.max_model_len = plan.max_model_len;
  config.enable_chunked_prefill = args.enable_chunked_prefill;
  config.enable_prefix_caching = args.enable_prefix_caching;
  config.long_prefill_token_threshold = args.long_prefill_token_threshold;
  config.scheduling_policy =
      args.scheduling_policy == "priority" ? SchedulingPolicy::kPriority : SchedulingPolicy::kFcfs;
  config.num_scheduler_steps = static_cast<int32_t>(args.num_scheduler_steps);
  config.multi_step_stream_outputs = args.multi_step_stream_outputs;
  config.seed = args.seed;
  config.max_logprobs = static_cast<int>(args.max_logprobs);
  config.skip_tokenizer_init = args.skip_tokenizer_init;
  config.logits_bytes = kLogitsBytes;
  config.eos_token_ids = model.spec.eos_token_ids;
  return resolve(config, {.vocab_size = model.spec.vocab_size,
                          .max_positions = plan.max_model_len,
                          .num_blocks = static_cast<int32_t>(plan.num_blocks),
                          .block_tokens = static_cast<int32_t>(args.block_size)});
}

Result<std::unique_ptr<Decoder>> make_decoder(const EngineArgs& args, DecoderSpec spec, DecoderTensors weights,
                                              DType dtype, LinearFormat format, int64_t max_context,
                                              PackedWeights* kept) {
  Progress progress("Packing weights", static_cast<int64_t>(spec.layers.size()), "layers");
  const DecoderOptions options{.dtype = dtype,
                               .quantization = format,
                               .max_context = max_context,
                               .batch_invariant = args.batch_invariant,
                               .kept = kept};
  return Decoder::create(std::move(spec), std::move(weights), options, [&](int64_t) { progress.advance(); });
}

const char* on_off(bool on) { return on ? "on" : "off"; }

std::string quantization_words(const EngineArgs& args, const ModelFolder& model) {
  if (model.quantization.method != QuantizationConfig::Method::kNone)
    return fmt::format(", {} ({})", method_name(model.quantization.method), model.quantization.source);
  return args.quantization.empty() ? "" : fmt::format(", {} (--quantization)", args.quantization);
}

std::vector<std::string> describe(const EngineArgs& args, const ModelFolder& model, const TypeChoice& type,
                                  const std::string& kv_words, const MemoryPlan& plan, const EngineConfig& config,
                                  int64_t weight_bytes, int64_t block_bytes, double seconds) {
  const DecoderSpec& spec = model.spec;
  return {
      fmt::format("model         {} ({}), {} layers, {} parameters, from {}", spec.architecture, spec.family,
                  spec.layers.size(), format_count(parameter_count(spec)),
                  args.load_format == "dummy" ? "random numbers" : model.path),
      fmt::format("dtype         {} ({}), weights {}{}, ready in {:.1f} s", dtype_name(type.dtype), type.reason,
                  format_bytes(weight_bytes), quantization_words(args, model), seconds),
      fmt::format("compute       {} threads, isa {}", compute_threads(), isa_name(best_isa())),
      fmt::format("max_model_len {} ({})", plan.max_model_len, plan.length_reason),
      fmt::format("KV cache      {} tokens in {} blocks of {}, {} ({}){}",
                  format_count(plan.num_blocks * args.block_size), format_count(plan.num_blocks), args.block_size,
                  format_bytes(plan.num_blocks * block_bytes), plan.blocks_reason, kv_words),
      fmt::format("scheduling    {} sequences, {} tokens a step, {}, prefix caching {}, chunked prefill {}",
                  config.max_num_seqs, config.max_num_batched_tokens, args.scheduling_policy,
                  on_off(args.enable_prefix_caching), on_off(args.enable_chunked_prefill)),
  };
}

// Bits of an element of a layer's matrix. Four-bit records hold 32 bits of scale and zero for each group, 128 k at
// most.
double matrix_bits(const EngineArgs& args, const QuantizationConfig& config, DType dtype) {
  using Method = QuantizationConfig::Method;
  const bool packed = config.method == Method::kAwq || config.method == Method::kGptq;
  if (packed && config.bits == 4)
    return 4 + 32.0 / static_cast<double>(config.group > 0 && config.group < 128 ? config.group : 128);
  return args.quantization.empty() && config.method == Method::kNone ? 8.0 * static_cast<double>(dtype_bytes(dtype))
                                                                     : 8;
}

int64_t weight_bytes_of(const EngineArgs& args, const ModelFolder& model, DType dtype) {
  const double matrix_bytes = matrix_bits(args, model.quantization, dtype) / 8;
  const char* const head = model.spec.tie_word_embeddings ? "embed.weight" : "lm_head.weight";
  const bool while_loading =
      model.quantization.method == QuantizationConfig::Method::kNone && !args.quantization.empty();
  double bytes = 0;
  for (const TensorNeed& need : needed_tensors(model.spec)) {
    double elements = 1;
    for (const int64_t size : need.shape) elements *= static_cast<double>(size);
    const bool matrix = need.shape.size() == 2 && need.name.starts_with("layers.");
    const bool narrow_head = while_loading && need.name == head;
    bytes += elements * (matrix || narrow_head ? matrix_bytes : static_cast<double>(dtype_bytes(dtype)));
  }
  return static_cast<int64_t>(bytes);
}

int64_t block_bytes_of(const EngineArgs& args, const DecoderSpec& spec, KvType type) {
  return KvCache::bytes_per_block(Decoder::cache_config(spec, type, 1, args.block_size));
}

}  // namespace

Result<EngineNeeds> engine_needs(const EngineArgs& args) {
  MR_ASSIGN_OR_RETURN(ModelFolder model, open_folder(args));
  if (args.disable_sliding_window) drop_windows(model.spec);
  const DType dtype = choose_dtype(args, model.spec).dtype;
  MR_ASSIGN_OR_RETURN(const KvType kv, choose_kv_type(args, model, dtype));
  const int64_t weight_bytes = weight_bytes_of(args, model, dtype), block_bytes = block_bytes_of(args, model.spec, kv);
  return EngineNeeds{std::move(model.spec), weight_bytes, block_bytes};
}

Result<LocalEngine> start_local_engine(const EngineArgs& args) {
  const auto start = std::chrono::steady_clock::now();
  LocalEngine local;
  MR_ASSIGN_OR_RETURN(local.model, open_folder(args));
  report_oddities(local.model);
  MR_RETURN_IF_ERROR(open_text(args, local));
  MR_ASSIGN_OR_RETURN(const LinearFormat format, choose_format(args, local.model));
  MR_ASSIGN_OR_RETURN(KvScaleChoice kv, choose_kv_scales(args, local.model));
  MR_ASSIGN_OR_RETURN(DecoderTensors weights, load(args, local.model));
  DecoderSpec& spec = local.model.spec;
  if (args.disable_sliding_window) drop_windows(spec);
  const TypeChoice type = choose_dtype(args, spec);
  MR_ASSIGN_OR_RETURN(const KvType kv_type, choose_kv_type(args, local.model, type.dtype));
  const int64_t weight_bytes = weight_bytes_of(args, local.model, type.dtype);
  const int64_t block_bytes = block_bytes_of(args, spec, kv_type);
  MR_ASSIGN_OR_RETURN(const MemoryPlan plan, plan_memory(args, spec, weight_bytes, block_bytes, machine_info()));
  MR_ASSIGN_OR_RETURN(const EngineConfig config, engine_config(args, local.model, plan));
  MR_ASSIGN_OR_RETURN(const auto cache, open_cache(args, local.model, weights, type.dtype, format));
  MR_ASSIGN_OR_RETURN(std::unique_ptr<Decoder> decoder, make_decoder(args, spec, std::move(weights), type.dtype, format,
                                                                     plan.max_model_len, cache.get()));
  if (cache) write_cache(*cache);
  KvCache kv_cache(Decoder::cache_config(spec, kv_type, plan.num_blocks, args.block_size), std::move(kv.scales));
  auto runner = std::make_unique<DecoderRunner>(std::move(decoder), std::move(kv_cache), plan.max_model_len,
                                                config.max_num_batched_tokens);
  MR_ASSIGN_OR_RETURN(local.engine,
                      Engine::create(config, std::move(runner),
                                     local.tokenizer ? text_decoders(local.tokenizer) : TextDecoderFactory{}));
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  local.choices = describe(args, local.model, type, kv.words, plan, config, weight_bytes, block_bytes, seconds);
  if (cache && cache->found()) local.choices.push_back(fmt::format("packed weights {}", cache->path()));
  return local;
}

}  // namespace millrace
