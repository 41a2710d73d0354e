// millrace plan
#include <fmt/format.h>

#include <map>
#include <nlohmann/json.hpp>

#include "base/byte_size.h"
#include "base/cpu.h"
#include "base/file.h"
#include "base/log.h"
#include "base/text.h"
#include "cli/command.h"
#include "cli/plan_measure.h"
#include "cli/plan_text.h"
#include "models/families/read_spec.h"
#include "models/families/well_known.h"

namespace millrace::cli {
namespace {

constexpr const char* kMeasuring = "With --measure";
constexpr int64_t kLeastMemory = int64_t{1} << 20;  // less is a unit forgotten

struct PlanArgs {
  std::string model, memory, precision = "bfloat16", rope_scaling;
  std::optional<double> rope_theta;
  PlanRequest request;
  MeasureArgs measuring;
  bool explain = false, json = false, measure = false;
  std::string only_measuring;  // a flag that was given and means nothing without --measure
};

Result<SpecOptions> spec_options(const PlanArgs& args) {
  SpecOptions options{.rope_theta = args.rope_theta};
  if (args.rope_scaling.empty()) return options;
  Result<Json> scaling = parse_json(args.rope_scaling);
  if (!scaling.ok()) return scaling.status().at("--rope-scaling");
  options.rope_scaling = std::move(*scaling);
  return options;
}

void report_oddities(const SpecReading& reading) {
  for (const std::string& note : reading.notes) log_warning("{}", note);
  for (const std::string& key : reading.unknown_keys)
    warn_once(key, fmt::format("config.json: '{}' is not known here and not read", key));
}

Result<PlannedModel> plan_one(const PlanArgs& args) {
  MR_ASSIGN_OR_RETURN(const Json config, find_config(args.model));
  MR_ASSIGN_OR_RETURN(const SpecOptions options, spec_options(args));
  MR_ASSIGN_OR_RETURN(SpecReading reading, read_spec(config, options));
  report_oddities(reading);
  MR_ASSIGN_OR_RETURN(ModelPlan plan, plan_model(reading.spec, args.request));
  const WellKnownModel* known = find_well_known(args.model);
  return PlannedModel{known ? known->name : args.model, std::move(reading.spec), std::move(plan)};
}

// A model that was made for less than --max-model-len is planned for as much as it was made for.
Result<std::vector<PlannedModel>> plan_all(const PlanArgs& args) {
  std::vector<PlannedModel> models;
  for (const WellKnownModel& known : well_known_models()) {
    MR_ASSIGN_OR_RETURN(SpecReading reading, read_spec(known.config));
    PlanRequest request = args.request;
    request.max_model_len = std::min(request.max_model_len, reading.spec.max_positions);
    if (std::holds_alternative<Mla>(reading.spec.layers.front().attention)) request.kv = KvPrecision::kAuto;
    MR_ASSIGN_OR_RETURN(ModelPlan plan, plan_model(reading.spec, request));
    models.push_back({known.name, std::move(reading.spec), std::move(plan)});
  }
  return models;
}

void print_json(const PlanArgs& args, std::span<const PlannedModel> models) {
  OrderedJson all = OrderedJson::array();
  for (const PlannedModel& model : models) all.push_back(plan_json(model));
  const OrderedJson out = {{"request", request_json(args.request)}, {"models", std::move(all)}};
  fmt::print("{}\n", dump_json(out, 2));
}

Precision precision_named(std::string_view name) {
  return *std::ranges::find(kPrecisions, name, [](Precision p) { return precision_name(p); });
}

Status print_list(const PlanArgs& args) {
  MR_ASSIGN_OR_RETURN(const std::vector<PlannedModel> models, plan_all(args));
  if (args.json)
    print_json(args, models);
  else
    fmt::print("{}", plan_list(models, args.request, precision_named(args.precision)));
  return {};
}

Status print_model(const PlanArgs& args) {
  MR_ASSIGN_OR_RETURN(const PlannedModel model, plan_one(args));
  if (args.json) return print_json(args, {&model, 1}), Status();
  fmt::print("{}", plan_table(model, args.request));
  if (args.explain) fmt::print("\n{}", plan_reasons(model, args.request));
  return {};
}

Status run_measure(PlanArgs& args) {
  if (args.model.empty()) return invalid_argument("--measure is about one model: name it");
  if (!args.memory.empty() || args.request.devices > 0)
    return invalid_argument("--measure serves on this machine: --memory and --devices say nothing about it");
  EngineArgs& engine = args.measuring.engine;
  engine.model = args.model;
  engine.rope_scaling = args.rope_scaling;
  engine.rope_theta = args.rope_theta;
  engine.block_size = args.request.block_size;
  engine.gpu_memory_utilization = args.request.utilization;
  if (args.request.max_model_len > 0) engine.max_model_len = args.request.max_model_len;
  args.measuring.json = args.json;
  return measure_lengths(args.measuring);
}

Status read_memory(PlanArgs& args) {
  args.request.memory_bytes = machine_info().memory_bytes;
  if (args.memory.empty()) return {};
  Result<int64_t> bytes = parse_byte_size(args.memory);
  if (!bytes.ok()) return bytes.status().at("--memory");
  if (*bytes < kLeastMemory) return invalid_argument("--memory is {} bytes; write the unit too, as in 32GiB", *bytes);
  args.request.memory_bytes = *bytes;
  return {};
}

Status run(PlanArgs& args) {
  if (args.measure) return run_measure(args);
  if (!args.only_measuring.empty())
    return invalid_argument("{} is about --measure, which is not given", args.only_measuring);
  MR_RETURN_IF_ERROR(read_memory(args));
  if (!args.model.empty()) return print_model(args);
  if (args.explain) return invalid_argument("--explain is about one model: name it");
  if (!args.rope_scaling.empty() || args.rope_theta)
    return invalid_argument("--rope-scaling and --rope-theta are about one model: name it");
  return print_list(args);
}

void add_measure_flags(App& app, MeasureArgs& args) {
  app.add_option("--dtype", args.engine.dtype, "auto: what the checkpoint is stored in")
      ->check(CLI::IsMember({"auto", "half", "float16", "bfloat16", "float", "float32"}))
      ->group(kMeasuring);
  app.add_option("--load-format", args.engine.load_format, "dummy: random weights; config.json is enough")
      ->check(CLI::IsMember({"auto", "safetensors", "pt", "dummy"}))
      ->group(kMeasuring);
  app.add_option("--batch-size", args.load.sequences, "sequences at a time, all of the full length")
      ->check(CLI::Range(1, 65536))
      ->group(kMeasuring);
  app.add_option("--output-len", args.load.output_tokens, "tokens to generate; the prompt fills the rest")
      ->check(CLI::Range(1, 1 << 20))
      ->group(kMeasuring);
  app.add_option("--time-limit", args.time_limit_s, "seconds after which nothing more is tried; 0: none")
      ->check(CLI::NonNegativeNumber)
      ->group(kMeasuring);
}

void add_flags(App& app, PlanArgs& args) {
  app.add_option("model,--model", args.model,
                 "folder with config.json, a config.json, or a name of the built-in list; without one, the whole list");
  app.add_option("--memory", args.memory, "memory of one device, such as 80GiB; this machine's if not given");
  app.add_option("--devices", args.request.devices, "devices at hand; 0: as few as do")->check(CLI::Range(0, 1024));
  app.add_option("--gpu-memory-utilization", args.request.utilization, "share of the memory to use at most")
      ->check(CLI::Range(0.01, 1.0));
  app.add_option("--max-model-len", args.request.max_model_len,
                 "prompt + output in tokens that must fit; 0: 4096, or the checkpoint's if that is less")
      ->check(CLI::Range(int64_t{0}, int64_t{0x7fffffff}));
  app.add_option("--block-size", args.request.block_size, "tokens of a KV block")
      ->check(CLI::IsMember({16, 32, 64, 128}));
  app.add_option("--kv-cache-dtype", args.request.kv,
                 "auto, int8 or int8-dynamic; the list keeps auto for models with latent attention")
      ->transform(CLI::CheckedTransformer(std::map<std::string, KvPrecision>{
          {"auto", KvPrecision::kAuto}, {"int8", KvPrecision::kInt8}, {"int8-dynamic", KvPrecision::kInt8Dynamic}}));
  app.add_option("--rope-scaling", args.rope_scaling, R"(JSON, e.g. {"rope_type":"dynamic","factor":2.0})");
  app.add_option("--rope-theta", args.rope_theta, "base of the rotary embedding")->check(CLI::PositiveNumber);
  app.add_option("--precision", args.precision, "of the weights that the list's devices and lengths are for")
      ->check(CLI::IsMember({"float32", "bfloat16", "int8", "int4"}));
  app.add_flag("--explain", args.explain, "also say where every number comes from");
  app.add_flag("--json", args.json, "numbers in bytes, tokens and elements, as JSON");
  app.add_flag("--measure", args.measure,
               "find the longest length that really serves on this machine: 4096, then twice as much each time");
  add_measure_flags(app, args.measuring);
}

}  // namespace

Result<Json> find_config(const std::string& model) {
  if (is_directory(model)) return read_json_file(join_path(model, "config.json"));
  if (file_exists(model)) return read_json_file(model);
  if (const WellKnownModel* known = find_well_known(model)) return known->config;
  return not_found("{}: no folder, no config.json and no model of the built-in list ('millrace plan' shows it){}",
                   model, nearest_well_known(model));
}

int plan(const Arguments& arguments) {
  PlanArgs args;
  App app("Says how much memory a model takes, how many devices hold it and how long a sequence may be.", "plan");
  add_flags(app, args);
  app.footer(
      "Examples:\n"
      "  millrace plan Qwen/Qwen2.5-7B --memory 24GiB\n"
      "  millrace plan llama-3.1-70b --memory 80GiB --devices 4 --explain\n"
      "  millrace plan /models/my-finetune --max-model-len 32768 --json\n"
      "  millrace plan --memory 32GiB --precision int4        the built-in list\n"
      "  millrace plan --measure /models/Qwen2.5-0.5B --time-limit 600");
  if (const int code = parse(app, arguments); code >= 0) return code;
  for (const CLI::Option* option : app.get_options())
    if (option->get_group() == kMeasuring && option->count() > 0) args.only_measuring = option->get_name();
  const Status status = run(args);
  return status.ok() ? 0 : fail(status);
}

}  // namespace millrace::cli
