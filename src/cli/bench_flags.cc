#include "cli/bench_flags.h"

#include <chrono>
#include <csignal>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/log.h"
#include "base/random.h"
#include "base/text.h"
#include "bench/csv.h"
#include "bench/html.h"
#include "bench/prompt_check.h"
#include "net/tls.h"

namespace millrace::cli {
namespace {

using Clock = std::chrono::steady_clock;

std::atomic<bool> g_interrupted{false};
std::atomic<int> g_interrupted_by{0};
std::atomic<Clock::time_point> g_interrupted_at{Clock::time_point{}};
static_assert(decltype(g_interrupted_at)::is_always_lock_free);

// `timeout` and other wrappers signal their child and then its whole group: what follows so soon is no second wish.
constexpr std::chrono::seconds kSameInterrupt{1};

// The first Ctrl-C ends the load and keeps its results, the second ends the program.
void on_interrupt(int signal) {
  if (!g_interrupted) {
    g_interrupted_by = signal;
    g_interrupted_at = Clock::now();
    g_interrupted = true;
  } else if (Clock::now() - g_interrupted_at.load() >= kSameInterrupt) {
    std::signal(signal, SIG_DFL);
    std::raise(signal);  // taken when this handler has returned
  }
}

struct Address {
  std::string host, path;
  int port = 80;
  bool tls = false;
};

Result<int> parse_port(const std::string& text, const std::string& url, const char* flag) {
  char* end = nullptr;
  const long port = std::strtol(text.c_str(), &end, 10);
  if (text.empty() || *end != '\0' || port < 1 || port > 65535)
    return invalid_argument("{} '{}': the port is no number from 1 to 65535", flag, url);
  return static_cast<int>(port);
}

// "http://host:port/path" or https; the port and the path may be missing, the host may be an IPv6 address in brackets.
Result<Address> parse_url(const std::string& url, const char* flag) {
  Address address{.tls = url.starts_with("https://")};
  if (!address.tls && !url.starts_with("http://"))
    return invalid_argument("{} '{}': http://HOST:PORT/PATH or https:// is wanted", flag, url);
  const std::string rest = url.substr(address.tls ? 8 : 7);
  const size_t slash = std::min(rest.find('/'), rest.size());
  const std::string authority = rest.substr(0, slash);
  const size_t bracket = authority.starts_with('[') ? authority.find(']') : std::string::npos;
  const size_t colon = authority.find(':', bracket == std::string::npos ? 0 : bracket);
  address.host = bracket == std::string::npos ? authority.substr(0, colon) : authority.substr(1, bracket - 1);
  address.path = rest.substr(slash);
  address.port = address.tls ? 443 : 80;
  if (colon != std::string::npos) {
    MR_ASSIGN_OR_RETURN(address.port, parse_port(authority.substr(colon + 1), url, flag));
  }
  if (address.host.empty()) return invalid_argument("{} '{}' names no host", flag, url);
  return address;
}

Status set_tls(const TargetFlags& flags, bool tls, bench::LoadTarget& target) {
  if (!tls && (flags.insecure || !flags.ca_file.empty()))
    return invalid_argument("{} is for https; give an https:// address with --url or --base-url",
                            flags.insecure ? "--insecure" : "--ca-file");
  if (!tls) return {};
  if (!flags.ca_file.empty() && !file_exists(flags.ca_file))
    return not_found("--ca-file {}: there is no such file", flags.ca_file);
  MR_ASSIGN_OR_RETURN(target.tls, TlsContext::make({.verify = !flags.insecure, .ca_file = flags.ca_file}));
  return {};
}

Status set_address(const TargetFlags& flags, bench::LoadTarget& target) {
  Address address{.host = flags.host, .port = flags.port};
  if (!flags.url.empty()) {
    MR_ASSIGN_OR_RETURN(address, parse_url(flags.url, "--url"));
  } else if (!flags.base_url.empty()) {
    MR_ASSIGN_OR_RETURN(address, parse_url(flags.base_url, "--base-url"));
    while (address.path.ends_with('/')) address.path.pop_back();
    if (!address.path.empty())
      return invalid_argument("--base-url '{}' has a path; give it with --endpoint", flags.base_url);
  }
  target.host = address.host;
  target.port = address.port;
  target.others = flags.others;
  target.path = !address.path.empty() ? address.path : !flags.endpoint.empty() ? flags.endpoint : target.back_end->path;
  if (!target.path.starts_with('/')) return invalid_argument("--endpoint '{}' does not begin with /", target.path);
  return set_tls(flags, address.tls, target);
}

bool has_line_break(const std::string& text) { return text.find_first_of("\r\n") != std::string::npos; }

Status set_headers(const TargetFlags& flags, bench::LoadTarget& target) {
  target.headers = {{"Content-Type", "application/json"}, {"User-Agent", "Benchmark Client"}};
  if (const char* key = std::getenv("OPENAI_API_KEY"))
    target.headers.push_back({"Authorization", fmt::format("Bearer {}", key)});
  if (!flags.app_code.empty()) target.headers.push_back({"X-Apig-AppCode", flags.app_code});
  for (const std::string& text : flags.headers) {
    const size_t equals = text.find('=');
    if (equals == std::string::npos || equals == 0) return invalid_argument("--header '{}': KEY=VALUE is wanted", text);
    target.headers.push_back({text.substr(0, equals), text.substr(equals + 1)});
  }
  for (const HttpHeader& header : target.headers)
    if (has_line_break(header.name) || has_line_break(header.value))
      return invalid_argument("a header holds a line break");
  return {};
}

// `vllm bench serve` calls the OpenAI paths of its own server "vllm" too.
std::string protocol_of(const TargetFlags& flags) {
  if (flags.backend != "vllm" || !flags.endpoint.ends_with("/completions")) return flags.backend;
  return flags.endpoint.ends_with("/chat/completions") ? "openai-chat" : "openai";
}

Result<bench::LoadTarget> make_target(const TargetFlags& flags) {
  bench::LoadTarget target;
  MR_ASSIGN_OR_RETURN(target.back_end, bench::find_back_end(protocol_of(flags)));
  MR_RETURN_IF_ERROR(set_address(flags, target));
  MR_RETURN_IF_ERROR(set_headers(flags, target));
  target.timeout = std::chrono::seconds(flags.timeout_s);
  target.options.temperature = flags.temperature;
  target.options.ignore_eos = flags.ignore_eos.value_or(true);
  target.options.top_p = flags.top_p;
  target.options.top_k = flags.top_k;
  target.options.best_of = flags.best_of;
  target.options.use_beam_search = flags.use_beam_search;
  if (!flags.extra_body.empty()) {
    const Result<Json> body = parse_json(flags.extra_body);
    if (!body.ok()) return body.status().at("--extra-body");
    if (!body->is_object()) return invalid_argument("--extra-body must be a JSON object");
    target.options.extra_body = *body;
  }
  return target;
}

Status set_model(const TargetFlags& flags, bench::LoadTarget& target) {
  std::string& model = target.options.model;
  model = !flags.served_model_name.empty() ? flags.served_model_name : flags.model;
  const bool asks = target.back_end->takes_ids || target.back_end->takes_images;  // the OpenAI paths
  if (!model.empty() || !asks) return {};
  model = bench::served_model(target);
  if (model.empty()) model = flags.tokenizer;
  return {};
}

Status parse_shown(const OutputFlags& flags, bench::ShownMetrics& shown) {
  shown.metrics.clear(), shown.percentiles.clear();
  for (const std::string& name : split(flags.percentile_metrics, ',')) {
    const Result<bench::Metric> metric = bench::find_metric(std::string(trim(name)));
    if (!metric.ok()) return metric.status().at("--percentile-metrics");
    shown.metrics.push_back(*metric);
  }
  for (const std::string& text : split(flags.metric_percentiles, ',')) {
    char* end = nullptr;
    const double percent = std::strtod(text.c_str(), &end);
    if (end == text.c_str() || *end != '\0' || !(percent >= 0 && percent <= 100))
      return invalid_argument("--metric-percentiles: '{}' is no number from 0 to 100", text);
    shown.percentiles.push_back(percent);
  }
  return {};
}

Status check_outputs(const OutputFlags& flags) {
  MR_RETURN_IF_ERROR(bench::find_csv_dialect(flags.csv_dialect).status());
  for (const std::string& path : {flags.benchmark_csv, flags.output_json, flags.output_html, flags.save_baseline}) {
    const size_t slash = path.rfind('/');
    if (slash != std::string::npos && slash > 0 && !is_directory(path.substr(0, slash)))
      return not_found("{}: there is no folder {}", path, path.substr(0, slash));
  }
  if (!flags.against.empty() && !file_exists(flags.against))
    return not_found("--against {}: there is no such file", flags.against);
  if (flags.append_result && flags.result_filename.empty())
    return invalid_argument("--append-result needs --result-filename");
  return {};
}

Result<std::vector<std::pair<std::string, std::string>>> parse_metadata(const std::vector<std::string>& items) {
  std::vector<std::pair<std::string, std::string>> metadata;
  for (const std::string& item : items) {
    const size_t equals = item.find('=');
    if (equals == std::string::npos || equals == 0)
      return invalid_argument("--metadata '{}': KEY=VALUE is wanted", item);
    metadata.emplace_back(item.substr(0, equals), item.substr(equals + 1));
  }
  return metadata;
}

}  // namespace

void add_target_flags(App& app, TargetFlags& f) {
  app.add_option("--backend,--endpoint-type", f.backend,
                 "protocol: openai, openai-chat, vllm (/generate), tgi, mindspore, base, trt or embedding");
  app.add_option("--host", f.host, "of the server");
  app.add_option("--port", f.port, "of the server")->check(CLI::Range(1, 65535));
  app.add_option("--url", f.url, "whole address, instead of host, port and the back end's path");
  app.add_option("--base-url", f.base_url, "http://HOST:PORT or https://HOST, instead of host and port");
  app.add_flag("--insecure", f.insecure, "https: take any certificate");
  app.add_option("--ca-file", f.ca_file, "https: believe the signers in this PEM file, not the system's");
  app.add_option("--endpoint", f.endpoint, "path, instead of the back end's");
  app.add_option("--app-code", f.app_code, "sent as header X-Apig-AppCode");
  app.add_option("--header", f.headers, "KEY=VALUE headers to add")->expected(1, -1);
  app.add_option("--tokenizer", f.tokenizer,
                 "folder or file: makes text prompts of exact lengths, counts what the "
                 "server does not count");
  app.add_option("--model", f.model, "name of the model in requests (default: the first of /v1/models)");
  app.add_option("--served-model-name", f.served_model_name, "the same, counts before --model");
  app.add_option("--extra-body", f.extra_body, "JSON object merged into every request");
  app.add_option("--temperature", f.temperature, "of the requests");
  app.add_option("--top-p", f.top_p, "of the requests")->check(CLI::Range(0.0, 1.0));
  app.add_option("--top-k", f.top_k, "of the requests");
  app.add_option("--best-of", f.best_of, "sequences per prompt, of which the best is returned")
      ->check(CLI::Range(1, 1024));
  add_switch(app, "use-beam-search", f.use_beam_search, "search with --best-of beams");
  app.add_option("--lora-modules", f.lora_modules, "adapters' names, one for each request by chance")->expected(1, -1);
  add_switch(app, "verify-prompts", f.verify_prompts, "hold text prompts to the server's /tokenize (default true)");
  app.add_option("--idle-timeout-s", f.idle_timeout_s, "before a point, wait so long for /metrics to show no requests")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--point-pause-s", f.point_pause_s, "between points, if /metrics does not say")
      ->check(CLI::Range(0.0, 86400.0));
  add_switch(app, "reset-prefix-cache", f.reset_prefix_cache, "empty the server's prefix cache before each point");
  app.add_option("--timeout-s", f.timeout_s, "of one request, seconds")->check(CLI::PositiveNumber);
  app.add_option("--client-loops", f.loops, "event loops of the client (default: one per core)")
      ->check(CLI::Range(0, 256));
}

void add_output_flags(App& app, OutputFlags& f) {
  app.add_option("--benchmark-csv", f.benchmark_csv,
                 "write the result table; ours goes beside it as NAME.millrace.csv");
  app.add_option("--csv-dialect", f.csv_dialect, "gen1 (Chinese titles, ms), gen2 (English titles, s) or millrace");
  app.add_option("--output-json", f.output_json, "write all figures and every request");
  app.add_option("--output-html", f.output_html, "write a report with charts, one file that opens offline");
  app.add_option("--goodput", f.goodput, "limits ttft:MS tpot:MS e2el:MS that a good request meets")->expected(1, 3);
  app.add_option("--percentile-metrics", f.percentile_metrics, "metrics of the table, with commas");
  app.add_option("--metric-percentiles", f.metric_percentiles, "percentiles of the table, with commas");
  app.add_option("--metadata", f.metadata, "KEY=VALUE pairs kept in the results")->expected(1, -1);
  app.add_option("--save-baseline", f.save_baseline, "keep these figures to compare with later");
  app.add_option("--against", f.against, "compare with a baseline; exit code 3 when something is worse");
}

const std::atomic<bool>& interrupted() { return g_interrupted; }

Result<LoadSetup> open_load(const std::string& command, const TargetFlags& flags, const OutputFlags& output,
                            const std::vector<std::string>& images) {
  LoadSetup setup;
  MR_RETURN_IF_ERROR(check_outputs(output));
  MR_RETURN_IF_ERROR(parse_shown(output, setup.shown));
  bench::SessionConfig config{.loops = flags.loops,
                              .idle_patience_ms = flags.idle_timeout_s * 1000,
                              .pause_ms = static_cast<int64_t>(flags.point_pause_s * 1000),
                              .reset_prefix_cache = flags.reset_prefix_cache};
  for (const std::string& text : output.goodput) {
    const Result<bench::Limit> limit = bench::parse_limit(text);
    if (!limit.ok()) return limit.status().at("--goodput");
    config.limits.push_back(*limit);
  }
  MR_ASSIGN_OR_RETURN(config.target, make_target(flags));
  if (!flags.tokenizer.empty()) {
    MR_ASSIGN_OR_RETURN(setup.tokenizer, Tokenizer::load(flags.tokenizer));
  }
  config.target.tokenizer = setup.tokenizer;
  config.target.keep_text = output.save_detailed;
  MR_RETURN_IF_ERROR(set_model(flags, config.target));
  setup.back_end = config.target.back_end;
  if (!setup.back_end->generates) setup.shown.metrics = {bench::Metric::kE2el};
  setup.labels = {.command = command,
                  .backend = flags.backend,
                  .endpoint = config.target.endpoint(),
                  .model = config.target.options.model,
                  .tokenizer = flags.tokenizer,
                  .temperature = flags.temperature,
                  .top_p = flags.top_p.value_or(1),
                  .top_k = flags.top_k.value_or(-1)};
  MR_ASSIGN_OR_RETURN(setup.labels.metadata, parse_metadata(output.metadata));
  std::signal(SIGINT, on_interrupt);
  std::signal(SIGTERM, on_interrupt);
  bench::LoadRequest first{.prompt = "Hello", .image_urls = images, .output_tokens = 2};
  if (setup.back_end->takes_ids) first.prompt_ids = {72, 73, 74, 75};
  MR_ASSIGN_OR_RETURN(setup.session, bench::Session::open(std::move(config), first, g_interrupted));
  return setup;
}

Result<std::vector<bench::LoadRequest>> warmup_requests(const LoadSetup& setup, int64_t count, int64_t input_tokens,
                                                        uint64_t seed) {
  if (count <= 0) return std::vector<bench::LoadRequest>();
  if (!setup.back_end->takes_ids && !setup.tokenizer)
    return std::vector<bench::LoadRequest>(static_cast<size_t>(count),
                                           {.prompt = "Say something.", .output_tokens = 4});
  const bench::RandomLoad load{.input_tokens = input_tokens, .output_tokens = 4};
  MR_ASSIGN_OR_RETURN(bench::Requests made,
                      bench::random_requests(load, count, *setup.back_end, setup.tokenizer, seed ^ 0xC0FFEE));
  return std::move(made.requests);
}

Status verify_prompts(const LoadSetup& setup, const TargetFlags& flags, bool synthetic, bench::Requests& made,
                      bench::RunRecord& labels) {
  labels.inexact_prompts = made.inexact;
  if (!flags.verify_prompts) return {};
  MR_ASSIGN_OR_RETURN(const bench::PromptCheck check, bench::check_prompts(setup.session->config().target, synthetic,
                                                                           made.shared_bytes, made.requests));
  labels.prompt_note = check.note;
  if (check.recreated > 0) labels.inexact_prompts = check.inexact;
  if (!check.note.empty()) log_warning("{}", check.note);
  return {};
}

void choose_adapters(const TargetFlags& flags, uint64_t seed, std::vector<bench::LoadRequest>& requests) {
  if (flags.lora_modules.empty()) return;
  Random random(seed ^ 0x10AA);
  for (bench::LoadRequest& request : requests)
    request.model = flags.lora_modules[random.below(static_cast<uint32_t>(flags.lora_modules.size()))];
}

Result<double> parse_rate(const std::string& text) {
  if (text == "inf") return INFINITY;
  char* end = nullptr;
  const double rate = std::strtod(text.c_str(), &end);
  if (end == text.c_str() || *end != '\0' || !(rate > 0))
    return invalid_argument("--request-rate '{}': a number above 0 or inf is wanted", text);
  return rate;
}

void add_refused(App& app, const std::string& name, const std::string& instead) {
  app.add_option_function<std::vector<std::string>>(
         "--" + name,
         [name, instead](const std::vector<std::string>&) {
           throw CLI::ValidationError("--" + name, "is not spoken here; " + instead);
         },
         "refused: " + instead)
      ->expected(0, -1)
      ->group("");
}

namespace {

Status write_csv_files(const OutputFlags& flags, const std::vector<bench::Point>& points, bool is_static,
                       int64_t drafts) {
  const auto table = [&](bench::CsvDialect dialect) {
    return is_static ? bench::static_table(dialect, points, drafts) : bench::dynamic_table(dialect, points);
  };
  const bench::CsvDialect dialect = *bench::find_csv_dialect(flags.csv_dialect);
  MR_ASSIGN_OR_RETURN(const std::string path, bench::write_csv(flags.benchmark_csv, table(dialect)));
  fmt::print("wrote {}\n", path);
  if (dialect == bench::CsvDialect::kMillrace) return {};
  const std::string stem = path.ends_with(".csv") ? path.substr(0, path.size() - 4) : path;
  MR_ASSIGN_OR_RETURN(const std::string ours,
                      bench::write_csv(stem + ".millrace.csv", table(bench::CsvDialect::kMillrace)));
  return fmt::print("wrote {}\n", ours), Status();
}

Status write_vllm_result(const LoadSetup& setup, const OutputFlags& flags, const bench::Point& point) {
  const OrderedJson result =
      bench::vllm_result(point, {.shown = setup.shown, .detailed = flags.save_detailed, .label = flags.label});
  const std::string name =
      flags.result_filename.empty() ? bench::vllm_result_name(point, flags.label) : flags.result_filename;
  const std::string path = join_path(flags.result_dir, name);
  std::string text = dump_json(result);
  if (flags.append_result && file_exists(path)) {
    MR_ASSIGN_OR_RETURN(const std::string before, read_file(path));
    text = before + "\n" + text;
  }
  MR_RETURN_IF_ERROR(make_directories(flags.result_dir));
  MR_RETURN_IF_ERROR(write_file(path, text));
  fmt::print("wrote {}\n", path);
  if (!flags.plot_timeline) return {};
  const std::string stem = path.ends_with(".json") ? path.substr(0, path.size() - 5) : path;
  MR_RETURN_IF_ERROR(bench::html_report("Timeline of " + name, {point}).write(stem + ".timeline.html"));
  return fmt::print("wrote {}.timeline.html\n", stem), Status();
}

Result<int> compare(const OutputFlags& flags, const std::vector<bench::Point>& points) {
  const Result<Json> baseline = read_json_file(flags.against);
  if (!baseline.ok()) return baseline.status();
  Result<bench::Against> against = bench::compare_with(*baseline, points);
  if (!against.ok()) return against.status().at(flags.against);
  fmt::print("\n{}", report::to_text(against->table, report::style_for(1)));
  return against->worse ? 3 : against->invalid_because.empty() ? 0 : 4;
}

}  // namespace

void print_points(const LoadSetup& setup, const std::vector<bench::Point>& points) {
  for (const bench::Point& point : points) {
    fmt::print("\n{}\n{}", bench::point_name(point.run), bench::vllm_text(point, setup.shown));
    fmt::print("\n{}", report::to_text(bench::metrics_table(point), report::style_for(1)));
  }
  if (points.size() > 1) fmt::print("\n{}", report::to_text(bench::summary_table(points), report::style_for(1)));
}

int exit_code(const std::vector<bench::Point>& points) {
  if (interrupted()) return 128 + g_interrupted_by;
  return points.back().measures.completed > 0 ? 0 : 1;
}

Result<int> finish_load(const LoadSetup& setup, const OutputFlags& flags, const std::vector<bench::Point>& points,
                        bool is_static, int64_t num_speculative_tokens) {
  if (points.empty()) return cancelled("interrupted before anything was measured");
  print_points(setup, points);
  if (!flags.benchmark_csv.empty())
    MR_RETURN_IF_ERROR(write_csv_files(flags, points, is_static, num_speculative_tokens));
  if (!flags.output_json.empty()) {
    MR_RETURN_IF_ERROR(write_file(flags.output_json, dump_json(bench::full_result(points))));
    fmt::print("wrote {}\n", flags.output_json);
  }
  if (!flags.output_html.empty()) {
    MR_RETURN_IF_ERROR(bench::html_report("millrace bench " + setup.labels.command, points).write(flags.output_html));
    fmt::print("wrote {}\n", flags.output_html);
  }
  if (flags.save_result || flags.append_result || flags.plot_timeline)
    for (const bench::Point& point : points) MR_RETURN_IF_ERROR(write_vllm_result(setup, flags, point));
  if (!flags.save_baseline.empty()) {
    MR_RETURN_IF_ERROR(write_file(flags.save_baseline, dump_json(bench::baseline_of(points))));
    fmt::print("wrote {}\n", flags.save_baseline);
  }
  if (flags.against.empty()) return exit_code(points);
  MR_ASSIGN_OR_RETURN(const int verdict, compare(flags, points));
  return interrupted() ? exit_code(points) : verdict;
}

}  // namespace millrace::cli
