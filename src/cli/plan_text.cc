#include "cli/plan_text.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "base/text.h"
#include "report/table.h"

namespace millrace::cli {
namespace {

using report::Align;
using report::Column;
using report::Table;
using Row = std::vector<std::string>;

// A first column of names and others of numbers.
std::vector<Column> columns(const Row& titles) {
  std::vector<Column> columns;
  for (const std::string& title : titles) columns.push_back({title, columns.empty() ? Align::kLeft : Align::kRight});
  return columns;
}

std::string count_or_dash(int64_t count) { return count > 0 ? format_count(count) : "-"; }
std::string bytes_or_dash(int64_t bytes) { return bytes > 0 ? format_bytes(bytes) : "-"; }
// "135 M", "7.62 B", "406 B"
std::string short_count(int64_t count) {
  const bool billions = count >= 1'000'000'000;
  const double value = static_cast<double>(count) / (billions ? 1e9 : 1e6);
  const int digits = value < 10 ? 2 : value < 100 ? 1 : 0;
  return fmt::format("{:.{}f} {}", value, digits, billions ? 'B' : 'M');
}

std::string headline(const PlannedModel& model) {
  const ModelSize& size = model.plan.size;
  const std::string active = size.active_parameters < size.parameters
                                 ? fmt::format(" ({} for one token)", format_count(size.active_parameters))
                                 : "";
  return fmt::format("{}: {} ({}), {} layers, {} parameters{}, made for {} tokens\n", model.name,
                     model.spec.architecture, model.spec.family, model.spec.layers.size(),
                     format_count(size.parameters), active, format_count(model.spec.max_positions));
}

std::string what_was_asked(const PlanRequest& request) {
  return fmt::format("{} a device, gpu-memory-utilization {:g}", format_bytes(request.memory_bytes),
                     request.utilization);
}

std::string what_fewest_means(const PlanRequest& request) {
  const bool given = request.max_model_len > 0;
  return fmt::format("devices: the fewest that hold the weights and one sequence of {} tokens{}.\n",
                     format_count(given ? request.max_model_len : kDefaultLength),
                     given ? "" : ", or of the checkpoint's length if that is less");
}

// What the columns after `devices` are about.
std::string what_the_rest_means(const PlanRequest& request) {
  if (request.devices == 0) return "max-model-len: the longest sequence on that many devices.\n";
  return fmt::format("used: as many of {} devices as divide the model; max-model-len: the longest sequence on those.\n",
                     request.devices);
}

Row precision_header(const PlanRequest& request) {
  Row row = {"precision", "weights", "KV/token", "devices"};
  if (request.devices > 0) row.push_back("used");
  row.insert(row.end(), {"weights/device", "KV cache/device", "cached tokens", "max-model-len"});
  return row;
}

Row precision_row(const PrecisionPlan& plan, const PlanRequest& request) {
  Row row = {std::string(precision_name(plan.precision)), format_bytes(plan.weight_bytes),
             format_bytes(plan.kv_bytes_per_token), count_or_dash(plan.fewest_devices)};
  if (request.devices > 0) row.push_back(count_or_dash(plan.devices));
  row.insert(row.end(), {bytes_or_dash(plan.device_weight_bytes), bytes_or_dash(plan.cache_bytes),
                         count_or_dash(plan.cache_tokens), count_or_dash(plan.max_model_len)});
  return row;
}

const PrecisionPlan& in_precision(const ModelPlan& plan, Precision precision) {
  return *std::ranges::find(plan.precisions, precision, &PrecisionPlan::precision);
}

Row list_row(const PlannedModel& model, Precision precision, bool with_used) {
  const ModelSize& size = model.plan.size;
  const PrecisionPlan& chosen = in_precision(model.plan, precision);
  Row row = {model.name, short_count(size.parameters),
             size.active_parameters < size.parameters ? short_count(size.active_parameters) : ""};
  for (const PrecisionPlan& plan : model.plan.precisions) row.push_back(format_bytes(plan.weight_bytes));
  row.push_back(format_bytes(chosen.kv_bytes_per_token));
  row.push_back(count_or_dash(chosen.fewest_devices));
  if (with_used) row.push_back(count_or_dash(chosen.devices));
  row.push_back(count_or_dash(chosen.max_model_len));
  return row;
}

const char* cut_words(Cut cut) {
  switch (cut) {
    case Cut::kWhole:
      return "whole on every device";
    case Cut::kOutputs:
      return "rows are shared";
    case Cut::kInputs:
      return "columns are shared";
    case Cut::kKvHeads:
      return "rows of whole key/value heads are shared";
  }
  return "";
}

std::string parameters_reasons(const ModelSize& size) {
  std::vector<Column> titles = columns({"  tensors", "count", "parameters", "narrow in", "several devices"});
  titles[3].align = titles[4].align = Align::kLeft;
  Table table(std::move(titles));
  for (const WeightGroup& group : size.groups)
    table.add_row({"  " + group.role, format_count(group.tensors), format_count(group.elements),
                   group.quantized ? "int8, int4" : "", cut_words(group.cut)});
  return fmt::format("Parameters\n{}  in all {}\n", to_text(table), format_count(size.parameters));
}

std::string layer_elements(const LayerSpec& layer) {
  if (const Mla* mla = std::get_if<Mla>(&layer.attention))
    return fmt::format("(latent of {} + {} rotary elements)", mla->kv_lora_rank, mla->rope_dim);
  const Gqa& gqa = std::get<Gqa>(layer.attention);
  return fmt::format("2 (k and v) x {} heads x {} elements", gqa.kv_heads, gqa.head_dim);
}

const char* kv_element_words(KvPrecision kv) {
  switch (kv) {
    case KvPrecision::kAuto:
      return "2 bytes, 4 in float32";
    case KvPrecision::kInt8:
      return "1 byte";
    case KvPrecision::kInt8Dynamic:
      return "1 byte, and a scale of 4 for the keys and for the values of each head";
  }
  return "";
}

std::string kv_reasons(const DecoderSpec& spec, KvPrecision kv) {
  std::string out = "KV cache of a token\n";
  for (size_t begin = 0; begin < spec.layers.size();) {
    size_t end = begin;
    const std::string elements = layer_elements(spec.layers[begin]);
    while (end < spec.layers.size() && layer_elements(spec.layers[end]) == elements) ++end;
    out += fmt::format("  {} layers x {}\n", end - begin, elements);
    begin = end;
  }
  return out + fmt::format("  in all {} elements of {}; windows do not shorten it\n",
                           format_count(kv_bytes_per_token(spec, 1)), kv_element_words(kv));
}

std::string device_reasons(const DecoderSpec& spec) {
  std::vector<int64_t> counts;
  for (int64_t devices = 1; devices <= kMostDevices; ++devices)
    if (can_split(spec, devices)) counts.push_back(devices);
  return fmt::format(
      "Devices\n  {} can share it: they divide the query heads and the feed-forward width, and divide the key/value "
      "heads or are divided by them\n",
      fmt::join(counts, ", "));
}

std::string precision_reasons(const PrecisionPlan& plan, const PlanRequest& request) {
  const std::string name(precision_name(plan.precision));
  if (plan.devices == 0) return fmt::format("{}\n  no number of such devices holds it\n", name);
  const auto share = static_cast<int64_t>(request.utilization * static_cast<double>(request.memory_bytes));
  std::string out = fmt::format(
      "{} on {} device{}\n  {:g} x {} = {}; less weights of {} and {} for activations and buffers: {} for the cache\n",
      name, plan.devices, plan.devices == 1 ? "" : "s", request.utilization, format_bytes(request.memory_bytes),
      format_bytes(share), format_bytes(plan.device_weight_bytes), format_bytes(kRuntimeBytes),
      plan.cache_bytes > 0 ? format_bytes(plan.cache_bytes) : "nothing");
  out += fmt::format("  blocks of {} tokens take {}: {} blocks, {} tokens\n", request.block_size,
                     format_bytes(plan.device_kv_block_bytes), format_count(plan.cache_tokens / request.block_size),
                     format_count(plan.cache_tokens));
  return out + fmt::format("  max-model-len {}: {}\n", format_count(plan.max_model_len),
                           plan.max_model_len < plan.cache_tokens
                               ? fmt::format("the checkpoint's, {:.1f} times in the cache",
                                             static_cast<double>(plan.cache_tokens) / plan.max_model_len)
                               : "what the cache holds");
}

OrderedJson number_or_null(int64_t number) { return number > 0 ? OrderedJson(number) : OrderedJson(nullptr); }

OrderedJson precision_json(const PrecisionPlan& plan) {
  return {{"precision", precision_name(plan.precision)},
          {"weight_bytes", plan.weight_bytes},
          {"kv_bytes_per_token", plan.kv_bytes_per_token},
          {"fewest_devices", number_or_null(plan.fewest_devices)},
          {"devices", number_or_null(plan.devices)},
          {"device_weight_bytes", number_or_null(plan.device_weight_bytes)},
          {"device_kv_bytes_per_token", number_or_null(plan.device_kv_bytes_per_token)},
          {"device_kv_cache_bytes", number_or_null(plan.cache_bytes)},
          {"kv_cache_tokens", number_or_null(plan.cache_tokens)},
          {"max_model_len", number_or_null(plan.max_model_len)}};
}

}  // namespace

std::string plan_table(const PlannedModel& model, const PlanRequest& request) {
  Table table(columns(precision_header(request)));
  for (const PrecisionPlan& plan : model.plan.precisions) table.add_row(precision_row(plan, request));
  return fmt::format("{}{}\n{}\n{}{}", headline(model), what_was_asked(request), to_text(table),
                     what_fewest_means(request), what_the_rest_means(request));
}

std::string plan_list(std::span<const PlannedModel> models, const PlanRequest& request, Precision precision) {
  const bool with_used = request.devices > 0;
  Row header = {"model", "parameters", "active"};
  for (const Precision p : kPrecisions) header.emplace_back(precision_name(p));
  header.insert(header.end(), {"KV/token", "devices"});
  if (with_used) header.push_back("used");
  header.push_back("max-model-len");
  Table table(columns(header));
  for (const PlannedModel& model : models) table.add_row(list_row(model, precision, with_used));
  return fmt::format("{}\n{}; KV/token, devices and max-model-len for {} weights.\n{}{}", to_text(table),
                     what_was_asked(request), precision_name(precision), what_fewest_means(request),
                     what_the_rest_means(request));
}

std::string plan_reasons(const PlannedModel& model, const PlanRequest& request) {
  std::string out =
      parameters_reasons(model.plan.size) + kv_reasons(model.spec, request.kv) + device_reasons(model.spec);
  for (const PrecisionPlan& plan : model.plan.precisions) out += precision_reasons(plan, request);
  return out;
}

OrderedJson request_json(const PlanRequest& request) {
  return {{"memory_bytes", request.memory_bytes},       {"gpu_memory_utilization", request.utilization},
          {"devices", number_or_null(request.devices)}, {"max_model_len", number_or_null(request.max_model_len)},
          {"block_size", request.block_size},           {"kv_cache_dtype", kv_precision_name(request.kv)}};
}

OrderedJson plan_json(const PlannedModel& model) {
  OrderedJson precisions = OrderedJson::array();
  for (const PrecisionPlan& plan : model.plan.precisions) precisions.push_back(precision_json(plan));
  return {{"model", model.name},
          {"architecture", model.spec.architecture},
          {"family", model.spec.family},
          {"layers", model.spec.layers.size()},
          {"parameters", model.plan.size.parameters},
          {"active_parameters", model.plan.size.active_parameters},
          {"max_positions", model.spec.max_positions},
          {"wanted_length", model.plan.wanted_length},
          {"precisions", precisions}};
}

}  // namespace millrace::cli
