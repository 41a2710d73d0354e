#include "cli/plan_measure.h"

#include <fmt/format.h>
#include <signal.h>

#include <atomic>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/text.h"
#include "engine/local/local_engine.h"

namespace millrace::cli {
namespace {

std::atomic<bool> interrupted = false;

void note_interrupts() {
  struct sigaction action = {};
  action.sa_handler = [](int) { interrupted = true; };
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

// A folder for a model that is a config alone: it gets random weights.
Status stand_in(EngineArgs& engine, const TemporaryDirectory& folder) {
  if (is_directory(engine.model)) return {};
  MR_ASSIGN_OR_RETURN(const Json config, find_config(engine.model));
  MR_RETURN_IF_ERROR(write_file(folder.file("config.json"), dump_json(config)));
  engine.model = folder.path();
  engine.load_format = "dummy";
  if (engine.dtype == "auto" && !config.contains("torch_dtype")) engine.dtype = "bfloat16";
  return {};
}

void print_header() {
  fmt::print("{:>13}  {:>10}  {:>10}  {:>8}  {:>16}  {:>16}\n", "max-model-len", "KV cache", "resident", "start",
             "prompt", "output");
}

void print_line(const LengthServed& served, const LengthOptions& load) {
  const auto rate = [&](int64_t tokens, double seconds) {
    return fmt::format("{:.1f} tokens/s", static_cast<double>(load.sequences * tokens) / std::max(seconds, 1e-9));
  };
  fmt::print("{:>13}  {:>10}  {:>10}  {:>6.1f} s  {:>16}  {:>16}\n", format_count(served.max_model_len),
             format_bytes(served.kv_cache_bytes), format_bytes(served.resident_bytes), served.start_seconds,
             rate(served.max_model_len - load.output_tokens, served.times.prompt_seconds),
             rate(load.output_tokens - 1, served.times.output_seconds));
  std::fflush(stdout);
}

// Why nothing longer was tried.
std::string reason_to_end(const LongestLength& found, bool limited) {
  if (found.failed_length == 0) return limited ? "--max-model-len" : "the checkpoint's own";
  return fmt::format("{} did not serve: {}", format_count(found.failed_length), found.reason.message());
}

OrderedJson to_json(const std::string& model, const MeasureArgs& args, const LongestLength& found, bool limited) {
  OrderedJson lengths = OrderedJson::array();
  for (const LengthServed& served : found.served)
    lengths.push_back({{"max_model_len", served.max_model_len},
                       {"kv_cache_bytes", served.kv_cache_bytes},
                       {"resident_bytes", served.resident_bytes},
                       {"start_seconds", served.start_seconds},
                       {"prompt_seconds", served.times.prompt_seconds},
                       {"output_seconds", served.times.output_seconds}});
  return {{"model", model},
          {"batch_size", args.load.sequences},
          {"output_len", args.load.output_tokens},
          {"longest", found.served.empty() ? OrderedJson() : OrderedJson(found.served.back().max_model_len)},
          {"end", reason_to_end(found, limited)},
          {"lengths", std::move(lengths)}};
}

// Up to the checkpoint's length, or to the one asked for.
Result<std::vector<int64_t>> lengths_for(const EngineArgs& engine) {
  if (engine.max_model_len) return lengths_to_try(*engine.max_model_len);
  MR_ASSIGN_OR_RETURN(const EngineNeeds needs, engine_needs(engine));
  return lengths_to_try(needs.spec.max_positions);
}

ApartOptions limits(const MeasureArgs& args) {
  ApartOptions options{.cancelled = &interrupted};
  if (args.time_limit_s > 0)
    options.deadline =
        std::chrono::steady_clock::now() + std::chrono::duration_cast<std::chrono::steady_clock::duration>(
                                               std::chrono::duration<double>(args.time_limit_s));
  return options;
}

}  // namespace

Status measure_lengths(MeasureArgs args) {
  const std::string model = args.engine.model;
  const bool limited = args.engine.max_model_len.has_value();
  const TemporaryDirectory folder;
  MR_RETURN_IF_ERROR(stand_in(args.engine, folder));
  MR_ASSIGN_OR_RETURN(const std::vector<int64_t> lengths, lengths_for(args.engine));
  note_interrupts();
  const auto probe = [&, apart = limits(args)](int64_t length) {
    Result<LengthServed> served = serve_length_apart(args.engine, length, args.load, apart);
    if (served.ok() && !args.json) {
      if (length == lengths.front()) print_header();
      print_line(*served, args.load);
    }
    return served;
  };
  const LongestLength found = find_longest_length(lengths, probe);
  if (args.json) fmt::print("{}\n", dump_json(to_json(model, args, found, limited), 2));
  if (found.served.empty()) return found.reason.at(fmt::format("{} tokens", format_count(found.failed_length)));
  if (!args.json)
    fmt::print("longest that served: {} tokens ({})\n", format_count(found.served.back().max_model_len),
               reason_to_end(found, limited));
  return found.reason.code() == Code::kCancelled ? found.reason : Status();
}

}  // namespace millrace::cli
