// millrace bench serving, in the dialect of the Python load scripts and in that of `vllm bench serve`.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/file.h"
#include "base/log.h"
#include "base/text.h"
#include "bench/arrivals.h"
#include "bench/requests.h"
#include "cli/bench_flags.h"
#include "cli/bench_loads.h"
#include "data/trace.h"

namespace millrace::cli {
namespace {

struct ServingArgs {
  TargetFlags target;
  OutputFlags output;
  // Both.
  std::vector<std::string> request_rate;
  std::vector<int64_t> num_prompts;
  uint64_t seed = 0;
  double burstiness = 1;
  int64_t max_concurrency = 0, num_warmups = 1;
  std::string ramp_strategy, trace;
  double ramp_start = 0, ramp_end = 0;
  // The Python load scripts'.
  std::string dataset, dataset_type;
  int64_t max_tokens = 1024, max_prompt_tokens = 900, concurrent_num = 1, max_requests = 3000;
  double request_time = 300;
  bool evenly = false;
  // vLLM's.
  std::string dataset_name, dataset_path;
  int64_t random_input = 1024, random_output = 128, random_prefix = 0;
  std::optional<int64_t> sharegpt_output, custom_output;
  double random_range = 0;
  bool ignore_eos = false;
  // The largest rate.
  std::string find;
  std::vector<std::string> slo;
  double rate_tolerance = 0.05;
};

struct Objective {
  bench::Metric metric;
  double percent, ms;
};

// "ttft:p90:2000"
Result<Objective> parse_objective(const std::string& text) {
  const std::vector<std::string> parts = split(text, ':');
  const Status wrong = invalid_argument("--slo '{}': METRIC:pNN:MS is wanted, such as ttft:p90:2000", text);
  if (parts.size() != 3 || !parts[1].starts_with('p')) return wrong;
  MR_ASSIGN_OR_RETURN(const bench::Metric metric, bench::find_metric(parts[0]));
  char *end_percent = nullptr, *end_ms = nullptr;
  const double percent = std::strtod(parts[1].c_str() + 1, &end_percent), ms = std::strtod(parts[2].c_str(), &end_ms);
  if (*end_percent != '\0' || *end_ms != '\0' || !(percent > 0 && percent <= 100) || !(ms > 0)) return wrong;
  return Objective{metric, percent, ms};
}

// The limits of the search are those of attainment and goodput, unless there are others.
Status take_objectives(ServingArgs& args) {
  const bool own = args.output.goodput.empty();
  for (const std::string& text : args.slo) {
    MR_ASSIGN_OR_RETURN(const Objective objective, parse_objective(text));
    const std::string limit =
        fmt::format("{}:{}", bench::kMetricNames[static_cast<size_t>(objective.metric)], objective.ms);
    if (own && bench::parse_limit(limit).ok()) args.output.goodput.push_back(limit);
  }
  return {};
}

bool own_dialect(const ServingArgs& args) { return !args.dataset.empty() || !args.dataset_type.empty(); }

// Without --num-prompts: what arrives in --request-time seconds, --max-requests at most; vLLM's 1000 otherwise.
Status complete_counts(ServingArgs& args) {
  if (args.request_time <= 0 || args.max_requests < 1)
    return invalid_argument("--request-time {} and --max-requests {} must be above 0", args.request_time,
                            args.max_requests);
  if (!args.num_prompts.empty()) return {};
  for (const std::string& text : args.request_rate) {
    MR_ASSIGN_OR_RETURN(const double rate, parse_rate(text));
    const double most = static_cast<double>(args.max_requests);
    const double arrive = rate * static_cast<double>(args.concurrent_num) * args.request_time;
    args.num_prompts.push_back(own_dialect(args) ? static_cast<int64_t>(std::clamp(arrive, 1.0, most)) : 1000);
  }
  return {};
}

// The lists as long as each other, and defaults by dialect.
Status complete(ServingArgs& args) {
  if (args.request_rate.empty()) args.request_rate = {"inf"};
  MR_RETURN_IF_ERROR(complete_counts(args));
  if (args.num_prompts.size() == 1) args.num_prompts.resize(args.request_rate.size(), args.num_prompts[0]);
  if (args.num_prompts.size() != args.request_rate.size())
    return invalid_argument("--request-rate has {} values and --num-prompts {}; as many are wanted",
                            args.request_rate.size(), args.num_prompts.size());
  for (const int64_t n : args.num_prompts)
    if (n < 1 || n > 10'000'000) return invalid_argument("--num-prompts {}: 1 to 10000000 is wanted", n);
  return {};
}

Status check_dataset(ServingArgs& args) {
  if (own_dialect(args)) {
    if (!args.dataset_name.empty() || !args.dataset_path.empty())
      return invalid_argument("--dataset belongs to one dialect and --dataset-name and --dataset-path to the other");
    if (args.dataset.empty()) return invalid_argument("--dataset-type {} needs --dataset", args.dataset_type);
    if (args.dataset_type.empty()) args.dataset_type = "alpaca";
  } else {
    if (args.dataset_name.empty()) args.dataset_name = args.dataset_path.empty() ? "random" : "sharegpt";
    if (args.dataset_name == "random" && !args.dataset_path.empty())
      return invalid_argument("--dataset-path is given, but --dataset-name is random");
    if (args.dataset_name != "random" && args.dataset_path.empty())
      return invalid_argument("--dataset-name {} needs --dataset-path", args.dataset_name);
  }
  const bool random = !own_dialect(args) && args.dataset_name == "random";
  if (!random && args.target.tokenizer.empty()) args.target.tokenizer = args.target.model;
  if (!random && args.target.tokenizer.empty())
    return invalid_argument("a data set needs --tokenizer, which counts its tokens");
  if (!random && !args.trace.empty())
    return invalid_argument("--trace has its own lengths; it goes with random prompts only");
  return {};
}

Status check_arrivals(const ServingArgs& args) {
  const bool ramp = !args.ramp_strategy.empty();
  if (ramp && !(args.ramp_start > 0 && args.ramp_end > 0))
    return invalid_argument("--ramp-up-strategy needs --ramp-up-start-rps and --ramp-up-end-rps above 0");
  if (!ramp && (args.ramp_start > 0 || args.ramp_end > 0))
    return invalid_argument("--ramp-up-start-rps and --ramp-up-end-rps need --ramp-up-strategy");
  if (ramp && args.request_rate != std::vector<std::string>{"inf"})
    return invalid_argument("--ramp-up-strategy and --request-rate exclude each other");
  if (!args.trace.empty() && (ramp || args.request_rate != std::vector<std::string>{"inf"}))
    return invalid_argument("--trace has its own times; --request-rate and --ramp-up-strategy do not go with it");
  if (args.evenly && args.burstiness != 1)
    return invalid_argument("--is-evenly-rate and --burstiness exclude each other");
  if (!args.find.empty() && args.find != "max-rate")
    return invalid_argument("--find '{}': max-rate is known", args.find);
  if (args.find.empty() != args.slo.empty()) return invalid_argument("--find max-rate and --slo go together");
  if (!args.find.empty() && (ramp || !args.trace.empty() || args.request_rate.size() > 1))
    return invalid_argument("--find max-rate chooses the rates itself; give one --request-rate to start from, or none");
  return {};
}

std::vector<data::TraceRow> cut(std::vector<data::TraceRow> rows, int64_t count) {
  if (static_cast<int64_t>(rows.size()) > count) rows.resize(static_cast<size_t>(count));
  return rows;
}

// What makes the requests of each point.
struct Source {
  const ServingArgs& args;
  LoadSetup* setup = nullptr;  // set once the server has answered
  std::vector<data::TextPair> pairs = {};
  std::vector<data::TraceRow> trace = {};

  Status read() {
    if (!args.trace.empty()) {
      MR_ASSIGN_OR_RETURN(trace, data::read_trace(args.trace));
    }
    if (!own_dialect(args) && args.dataset_name == "random") return {};
    const bool own = own_dialect(args);
    MR_ASSIGN_OR_RETURN(const data::PairFormat format,
                        data::find_pair_format(own ? args.dataset_type : args.dataset_name));
    MR_ASSIGN_OR_RETURN(pairs, data::read_pairs(own ? args.dataset : args.dataset_path, format));
    return {};
  }
  Result<bench::Requests> requests(int64_t count, uint64_t seed) const {
    if (!trace.empty()) return trace_requests(count, seed);
    if (!pairs.empty()) return bench::pair_requests(pairs, pair_load(), count, *setup->tokenizer, seed);
    return bench::random_requests({.input_tokens = args.random_input + args.random_prefix,
                                   .output_tokens = args.random_output,
                                   .prefix_tokens = args.random_prefix,
                                   .range_ratio = args.random_range},
                                  count, *setup->back_end, setup->tokenizer, seed);
  }
  bench::PairLoad pair_load() const {
    if (own_dialect(args))
      return {.max_prompt_tokens = args.max_prompt_tokens, .max_total_tokens = args.max_tokens, .cut_to_total = true};
    bench::PairLoad load{.output_tokens = args.dataset_name == "sharegpt" ? args.sharegpt_output : args.custom_output};
    if (args.dataset_name == "custom") load.min_tokens = 1, load.max_prompt_tokens = load.max_total_tokens = 1 << 24;
    return load;
  }
  Result<bench::Requests> trace_requests(int64_t count, uint64_t seed) const {
    bench::Requests all;
    for (const data::TraceRow& row : cut(trace, count)) {
      const bench::RandomLoad load{.input_tokens = row.input_tokens, .output_tokens = row.output_tokens};
      MR_ASSIGN_OR_RETURN(bench::Requests one, bench::random_requests(load, 1, *setup->back_end, setup->tokenizer,
                                                                      seed * 7919 + all.requests.size()));
      all.requests.push_back(std::move(one.requests[0]));
      all.inexact += one.inexact;
    }
    return all;
  }
  std::string name() const {
    if (!args.trace.empty()) return args.trace;
    if (own_dialect(args)) return args.dataset_type;
    return args.dataset_name;
  }
};

bench::Arrivals arrivals_of(const ServingArgs& args, double rate) {
  bench::Arrivals a{
      .rate = rate, .burstiness = args.burstiness, .start_rate = args.ramp_start, .end_rate = args.ramp_end};
  a.per_tick = args.concurrent_num;
  if (args.burstiness != 1) a.kind = bench::ArrivalKind::kGamma;
  if (args.evenly) a.kind = bench::ArrivalKind::kConstant;
  if (args.ramp_strategy == "linear") a.kind = bench::ArrivalKind::kRampLinear;
  if (args.ramp_strategy == "exponential") a.kind = bench::ArrivalKind::kRampExponential;
  return a;
}

std::string arrival_name(const ServingArgs& args) {
  if (!args.trace.empty()) return "trace";
  if (!args.ramp_strategy.empty()) return "ramp";
  return args.evenly ? "constant" : args.burstiness != 1 ? "gamma" : "exponential";
}

Result<std::vector<double>> due_times(const ServingArgs& args, const Source& source, double rate, int64_t count,
                                      uint64_t seed) {
  if (args.trace.empty()) return bench::arrival_times(arrivals_of(args, rate), count, seed + 17);
  std::vector<double> times;
  for (const data::TraceRow& row : cut(source.trace, count)) times.push_back(row.at_s);
  return times;
}

bench::RunRecord labels_of(const ServingArgs& args, const Source& source, double rate) {
  bench::RunRecord labels = source.setup->labels;
  labels.dataset = source.name();
  labels.arrival = arrival_name(args);
  labels.request_rate = rate * static_cast<double>(args.concurrent_num);
  labels.burstiness = args.burstiness;
  labels.max_concurrency = args.max_concurrency;
  labels.seed = args.seed;
  if (source.pairs.empty() && source.trace.empty() && args.random_range == 0) {
    labels.input_tokens = args.random_input + args.random_prefix;
    labels.output_tokens = args.random_output;
  }
  return labels;
}

Result<bench::Point> measure_point(const ServingArgs& args, const Source& source, double rate, int64_t count,
                                   uint64_t seed) {
  MR_ASSIGN_OR_RETURN(bench::Requests made, source.requests(count, seed));
  if (made.repeated > 0) log_warning("the data set has too few rows: {} requests repeat earlier ones", made.repeated);
  const auto sent = static_cast<int64_t>(made.requests.size());
  MR_ASSIGN_OR_RETURN(std::vector<double> due, due_times(args, source, rate, sent, seed));
  if (args.trace.empty() && args.ramp_strategy.empty() && std::isinf(rate) && args.max_concurrency > 0) due.clear();
  bench::RunRecord labels = labels_of(args, source, rate);
  if (due.empty()) labels.request_rate = -1, labels.arrival = "closed";
  if (!args.trace.empty() || !args.ramp_strategy.empty())
    labels.request_rate = due.back() > 0 ? static_cast<double>(sent) / due.back() : INFINITY;
  const bool synthetic = source.pairs.empty();
  MR_RETURN_IF_ERROR(verify_prompts(*source.setup, args.target, synthetic, made, labels));
  choose_adapters(args.target, seed, made.requests);
  MR_ASSIGN_OR_RETURN(const auto warmups, warmup_requests(*source.setup, args.num_warmups, 32, seed));
  const bench::LoadPlan plan{
      .requests = std::move(made.requests), .due_s = std::move(due), .max_concurrency = args.max_concurrency};
  return source.setup->session->run(plan, labels, warmups);
}

// A queue that grows for as long as the run lasts has no percentiles to speak of.
bool saturated(const bench::Point& point) {
  return std::any_of(point.checks.begin(), point.checks.end(), [](const bench::Check& check) {
    return check.name == "saturation" && check.level == bench::Level::kInvalid;
  });
}

bool meets_all(const std::vector<Objective>& objectives, const bench::Point& point) {
  if (point.measures.failed > 0 || saturated(point)) return false;
  return std::all_of(objectives.begin(), objectives.end(), [&](const Objective& o) {
    const report::Sample& sample = point.measures.sample(o.metric);
    return !sample.empty() && sample.percentile(o.percent) <= o.ms;
  });
}

Result<std::vector<bench::Point>> search_rate(const ServingArgs& args, const Source& source) {
  std::vector<Objective> objectives;
  for (const std::string& text : args.slo) {
    MR_ASSIGN_OR_RETURN(const Objective objective, parse_objective(text));
    objectives.push_back(objective);
  }
  std::vector<bench::Point> points;
  size_t invalid_runs = 0;
  MR_ASSIGN_OR_RETURN(const double start, parse_rate(args.request_rate[0]));
  const auto meets = [&](double rate) -> Result<bool> {
    if (interrupted()) return cancelled("interrupted");
    MR_ASSIGN_OR_RETURN(bench::Point point, measure_point(args, source, rate, args.num_prompts[0],
                                                          args.seed * 1'000'003 + points.size() + 1));
    const bool good = meets_all(objectives, point);
    const std::string invalid = bench::invalid_because(point.checks);
    points.push_back(std::move(point));
    if (interrupted()) return cancelled("interrupted");
    fmt::print("{:>10.3f} requests/s: {}{}\n", rate, good ? "meets the limits" : "misses them",
               invalid.empty() ? "" : "; INVALID: " + invalid);
    std::fflush(stdout);
    if (!invalid.empty()) invalid_runs += 1;
    return good;
  };
  const double first = std::isinf(start) ? 1 : start;
  const Result<bench::RateFound> found =
      bench::find_max_rate({.start = first, .lowest = first / 128, .tolerance = args.rate_tolerance}, meets);
  if (!found.ok() && found.status().code() != Code::kCancelled) return found.status();
  if (!found.ok())
    fmt::print("The search was interrupted.\n");
  else if (found->rate == 0)
    fmt::print("No rate meets the limits down to {:.4g} requests/s.\n", first / 128);
  else
    fmt::print("Largest rate that meets the limits: {}{:.3f} requests/s\n", found->bounded ? "" : "at least ",
               found->rate);
  if (invalid_runs > 0)
    fmt::print("INVALID: {} of the {} runs that this rests on have invalid figures.\n", invalid_runs, points.size());
  return points;
}

Result<std::vector<bench::Point>> measure_all(const ServingArgs& args, const Source& source) {
  std::vector<bench::Point> points;
  for (size_t i = 0; i < args.request_rate.size() && !interrupted(); ++i) {
    MR_ASSIGN_OR_RETURN(const double rate, parse_rate(args.request_rate[i]));
    MR_ASSIGN_OR_RETURN(bench::Point point, measure_point(args, source, rate, args.num_prompts[i],
                                                          args.seed * 1'000'003 + points.size() + 1));
    points.push_back(std::move(point));
  }
  return points;
}

Result<int> run(ServingArgs& args) {
  MR_RETURN_IF_ERROR(complete(args));
  MR_RETURN_IF_ERROR(check_arrivals(args));
  MR_RETURN_IF_ERROR(check_dataset(args));
  for (const std::string& rate : args.request_rate) MR_RETURN_IF_ERROR(parse_rate(rate).status());
  MR_RETURN_IF_ERROR(take_objectives(args));
  // vLLM ends answers where the model does, except with random prompts.
  if (!own_dialect(args)) args.target.ignore_eos = args.ignore_eos || args.dataset_name == "random";
  Source source{.args = args};
  MR_RETURN_IF_ERROR(source.read());  // a missing file is said before the server is asked
  MR_ASSIGN_OR_RETURN(LoadSetup setup, open_load("serving", args.target, args.output));
  source.setup = &setup;
  MR_ASSIGN_OR_RETURN(const std::vector<bench::Point> points,
                      args.find.empty() ? measure_all(args, source) : search_rate(args, source));
  return finish_load(setup, args.output, points, /*is_static=*/false, 0);
}

void add_own_flags(App& app, ServingArgs& args) {
  const std::string group = "Data set (Python load scripts)";
  app.add_option("--dataset", args.dataset, "file of the data set")->group(group);
  app.add_option("--dataset-type", args.dataset_type, "its format")
      ->check(CLI::IsMember({"alpaca", "sharegpt", "custom"}))
      ->group(group);
  app.add_option("--max-tokens", args.max_tokens, "prompt and output together; outputs are cut to fit")->group(group);
  app.add_option("--max-prompt-tokens", args.max_prompt_tokens, "longer prompts are left out")->group(group);
  app.add_option("--concurrent-num", args.concurrent_num, "requests at each arrival")
      ->check(CLI::PositiveNumber)
      ->group(group);
  add_switch(app, "is-evenly-rate", args.evenly, "constant gaps");
  add_switch(app, "use-pd-separate", args.evenly, "the same");
  app.add_option("--request-time", args.request_time, "without --num-prompts: requests that arrive in so many seconds")
      ->group(group);
  app.add_option("--max-requests", args.max_requests, "but not more than so many")->group(group);
}

void add_vllm_flags(App& app, ServingArgs& args) {
  const std::string group = "Data set (vllm bench serve)";
  app.add_option("--dataset-name", args.dataset_name, "where prompts come from")
      ->check(CLI::IsMember({"random", "sharegpt", "custom"}))
      ->group(group);
  app.add_option("--dataset-path", args.dataset_path, "file of the data set")->group(group);
  app.add_option("--random-input-len", args.random_input, "tokens")->group(group);
  app.add_option("--random-output-len", args.random_output, "tokens")->group(group);
  app.add_option("--random-prefix-len", args.random_prefix, "tokens that all prompts share, in front")->group(group);
  app.add_option("--random-range-ratio", args.random_range, "lengths from n(1-r) to n(1+r)")->group(group);
  app.add_option("--sharegpt-output-len", args.sharegpt_output, "instead of the answers' lengths")->group(group);
  app.add_option("--custom-output-len", args.custom_output, "instead of the answers' lengths")->group(group);
  add_switch(app, "ignore-eos", args.ignore_eos, "go on after the end of the answer");
  app.add_flag("--save-result", args.output.save_result, "write vLLM's result file")->group(group);
  app.add_flag("--save-detailed", args.output.save_detailed, "with every request")->group(group);
  app.add_flag("--append-result", args.output.append_result, "add to the result file")->group(group);
  app.add_flag("--plot-timeline", args.output.plot_timeline, "write the result file and a page of its requests in time")
      ->group(group);
  app.add_option("--result-dir", args.output.result_dir, "folder of the result file")->group(group);
  app.add_option("--result-filename", args.output.result_filename, "its name")->group(group);
  add_no_effect(app, "trust-remote-code", false, "no code of a model is run");
  add_no_effect(app, "disable-tqdm", false, "progress is drawn on a terminal only");
  add_no_effect(app, "tokenizer-mode", true, "tokenizers are read from their files");
  add_no_effect(app, "skip-chat-template", false, "prompts are sent as they are");
  add_refused(app, "profile", "start the server's own profiler");
  app.add_option("--label", args.output.label, "first part of its name")->group(group);
}

void add_load_flags(App& app, ServingArgs& args) {
  app.add_option("--request-rate", args.request_rate, "requests per second, one point each; inf: all at once")
      ->expected(1, -1);
  app.add_option("--num-prompts", args.num_prompts, "requests of each point (one value counts for all)")
      ->expected(1, -1);
  app.add_option("--burstiness", args.burstiness, "of gamma gaps: 1 exponential, less: bursts, more: even")
      ->check(CLI::PositiveNumber);
  app.add_option("--max-concurrency", args.max_concurrency, "requests beyond so many wait in the client")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--ramp-up-strategy", args.ramp_strategy, "")->check(CLI::IsMember({"linear", "exponential"}));
  app.add_option("--ramp-up-start-rps", args.ramp_start, "rate of the first request");
  app.add_option("--ramp-up-end-rps", args.ramp_end, "rate of the last request");
  app.add_option("--trace", args.trace, "replay times and lengths of a Mooncake JSONL or BurstGPT CSV file");
  app.add_option("--num-warmups", args.num_warmups, "requests before each point that do not count");
  app.add_option("--seed", args.seed, "of prompts and gaps");
  app.add_option("--find", args.find, "max-rate: search the largest rate that meets --slo");
  app.add_option("--slo", args.slo, "METRIC:pNN:MS")->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  app.add_option("--rate-tolerance", args.rate_tolerance, "of the search, relative")->check(CLI::Range(0.001, 1.0));
}

ServingArgs args_of(const ServingLoad& load) {
  ServingArgs args;
  args.request_rate = load.request_rate, args.num_prompts = load.num_prompts;
  args.dataset = load.dataset, args.dataset_type = load.dataset_type;
  args.max_tokens = load.max_tokens, args.max_prompt_tokens = load.max_prompt_tokens;
  args.random_input = load.random_input_tokens, args.random_output = load.random_output_tokens;
  args.seed = load.seed, args.num_warmups = load.num_warmups;
  if (load.dataset.empty()) args.dataset_name = "random";
  return args;
}

}  // namespace

Status check_serving_load(const ServingLoad& load) {
  ServingArgs args = args_of(load);
  MR_RETURN_IF_ERROR(complete(args));
  for (const std::string& rate : args.request_rate) MR_RETURN_IF_ERROR(parse_rate(rate).status());
  if (!load.dataset.empty() && !file_exists(load.dataset)) return not_found("{}: there is no such file", load.dataset);
  return {};
}

Result<std::vector<bench::Point>> run_serving_load(const ServingLoad& load, LoadSetup& setup) {
  ServingArgs args = args_of(load);
  MR_RETURN_IF_ERROR(complete(args));
  Source source{.args = args, .setup = &setup};
  MR_RETURN_IF_ERROR(source.read());
  return measure_all(args, source);
}

int bench_serving(const Arguments& arguments) {
  ServingArgs args;
  App app("Dynamic load: requests that arrive at random times and do not wait for the server.", "bench serving");
  add_target_flags(app, args.target);
  add_load_flags(app, args);
  add_own_flags(app, args);
  add_vllm_flags(app, args);
  add_output_flags(app, args.output);
  app.footer(
      "Examples:\n"
      "  millrace bench serving --dataset alpaca_data.json --dataset-type alpaca --tokenizer /models/Qwen2.5-0.5B \\\n"
      "      --request-rate 0.5 1 2 --num-prompts 100 200 400 --benchmark-csv serving.csv\n"
      "  millrace bench serving --base-url http://localhost:8000 --dataset-name random --random-input-len 512 \\\n"
      "      --num-prompts 200 --request-rate 4 --goodput ttft:500 tpot:50 --save-result\n"
      "  millrace bench serving --num-prompts 100 --find max-rate --slo ttft:p90:2000 --slo tpot:p90:50");
  if (const int code = parse(app, arguments); code >= 0) return code;
  const Result<int> code = run(args);
  return code.ok() ? *code : fail(code.status());
}

}  // namespace millrace::cli
