// What the `millrace bench` commands that send load share: flags, the server they speak of, and what is written when
// the load has ended.
#pragma once
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "bench/outputs.h"
#include "cli/command.h"

namespace millrace::cli {

// The flags of the Python load scripts and of `vllm bench serve` that say where the load goes.
struct TargetFlags {
  std::string backend = "openai", host = "localhost", url, base_url, endpoint, app_code, tokenizer, model;
  std::string served_model_name, extra_body;
  std::vector<std::string> headers;
  int port = 8000;
  int loops = 0;
  int64_t timeout_s = 3 * 3600;
  std::optional<bool> ignore_eos;
  double temperature = 0;
  std::vector<bench::ServerAddress> others = {};  // beside host and port, used in turn; no flag of its own
};
void add_target_flags(App& app, TargetFlags& flags);

struct OutputFlags {
  std::string benchmark_csv, csv_dialect = "gen2", output_json, output_html, save_baseline, against, label;
  std::vector<std::string> goodput;
  std::vector<std::string> metadata;
  std::string percentile_metrics = "ttft,tpot,itl", metric_percentiles = "99";
  bool save_result = false, save_detailed = false, append_result = false;
  std::string result_dir = ".", result_filename;
};
void add_output_flags(App& app, OutputFlags& flags);

// A server that answered, and what is needed to make requests for it.
struct LoadSetup {
  std::unique_ptr<bench::Session> session;
  std::shared_ptr<const Tokenizer> tokenizer;
  const bench::BackEnd* back_end = nullptr;
  bench::RunRecord labels;
  bench::ShownMetrics shown;
};
// Loads the tokenizer, checks the flags and asks the server for a first short answer. Ctrl-C sets interrupted().
Result<LoadSetup> open_load(const std::string& command, const TargetFlags& target, const OutputFlags& output);
const std::atomic<bool>& interrupted();

// Random requests that warm the server up without filling its cache with what is measured.
Result<std::vector<bench::LoadRequest>> warmup_requests(const LoadSetup& setup, int64_t count, int64_t input_tokens,
                                                        uint64_t seed);

// What the terminal shows of the points: vLLM's table and all metrics of each, and one row per point when there are
// several.
void print_points(const LoadSetup& setup, const std::vector<bench::Point>& points);
// Prints and writes what the flags ask for. The exit code: 3 when --against finds a figure worse, 4 when it cannot
// tell, 128 and the signal after an interrupt.
Result<int> finish_load(const LoadSetup& setup, const OutputFlags& flags, const std::vector<bench::Point>& points,
                        bool is_static, int64_t num_speculative_tokens);

}  // namespace millrace::cli
