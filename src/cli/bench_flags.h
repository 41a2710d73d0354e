// What the `millrace bench` commands that send load share: flags, the server they speak of, and what is written when
// the load has ended.
#pragma once
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "bench/outputs.h"
#include "bench/requests.h"
#include "cli/command.h"

namespace millrace::cli {

// The flags of the Python load scripts and of `vllm bench serve` that say where the load goes.
struct TargetFlags {
  std::string backend = "openai", host = "localhost", url, base_url, endpoint, app_code, tokenizer, model;
  std::string served_model_name, extra_body, ca_file;
  std::vector<std::string> headers, lora_modules;
  int port = 8000;
  int loops = 0;
  int64_t timeout_s = 3 * 3600;
  std::optional<bool> ignore_eos;
  double temperature = 0;
  std::vector<bench::ServerAddress> others = {};  // beside host and port, used in turn; no flag of its own
  std::optional<double> top_p;
  std::optional<int64_t> top_k;
  int64_t best_of = 1, idle_timeout_s = 60;
  double point_pause_s = 1;
  bool insecure = false, use_beam_search = false, reset_prefix_cache = false, verify_prompts = true;
};
void add_target_flags(App& app, TargetFlags& flags);

struct OutputFlags {
  std::string benchmark_csv, csv_dialect = "gen2", output_json, output_html, save_baseline, against, label;
  std::vector<std::string> goodput;
  std::vector<std::string> metadata;
  std::string percentile_metrics = "ttft,tpot,itl", metric_percentiles = "99";
  bool save_result = false, save_detailed = false, append_result = false, plot_timeline = false;
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
// `images` go with it.
Result<LoadSetup> open_load(const std::string& command, const TargetFlags& target, const OutputFlags& output,
                            const std::vector<std::string>& images = {});
const std::atomic<bool>& interrupted();

// Random requests that warm the server up without filling its cache with what is measured.
Result<std::vector<bench::LoadRequest>> warmup_requests(const LoadSetup& setup, int64_t count, int64_t input_tokens,
                                                        uint64_t seed);

// What the terminal shows of the points: vLLM's table and all metrics of each, and one row per point when there are
// several.
void print_points(const LoadSetup& setup, const std::vector<bench::Point>& points);
// Holds text prompts to the server's own /tokenize (bench/prompt_check.h); what it found goes into `labels`.
Status verify_prompts(const LoadSetup& setup, const TargetFlags& flags, bool synthetic, bench::Requests& made,
                      bench::RunRecord& labels);
// One of --lora-modules for each request, by chance.
void choose_adapters(const TargetFlags& flags, uint64_t seed, std::vector<bench::LoadRequest>& requests);
// "inf" or a number above 0.
Result<double> parse_rate(const std::string& text);
// A flag of other tools that nothing here can stand for: given, it ends the command with `instead`.
void add_refused(App& app, const std::string& name, const std::string& instead);

// Of a command that measured these points, at least one: 1 when no request of the last was answered, 128 and the signal
// after an interrupt.
int exit_code(const std::vector<bench::Point>& points);
// Prints and writes what the flags ask for. The exit code is exit_code()'s; with --against 3 when a figure is worse, 4
// when that cannot be told.
Result<int> finish_load(const LoadSetup& setup, const OutputFlags& flags, const std::vector<bench::Point>& points,
                        bool is_static, int64_t num_speculative_tokens);

}  // namespace millrace::cli
