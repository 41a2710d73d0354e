// millrace bench pd: a sweep of request rates with fixed lengths, into the folders that `bench plot` reads. Takes the
// fifteen arguments of pd_benchmark_fixed_length.sh by place or by name.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/text.h"
#include "bench/csv.h"
#include "bench/rate_sweep.h"
#include "cli/bench_loads.h"

namespace millrace::cli {
namespace {

struct PdArgs {
  std::string pd_scale = "1p3d", tp_num = "tp2", request_rate = "1,2,3,4,5", backend = "openai", host = "127.0.0.1",
              port = "8080", request_num = "800", model_path, served_model_name, input_len = "1024", output_len = "512",
              save_root = "./result", epochs = "1", ascend_version = "901", use_pd_separate = "true";
  std::vector<std::string> by_place;
  TargetFlags target;
  OutputFlags output;
  uint64_t seed = 0;
  int64_t num_warmups = 1;
};

struct Place {
  const char *flag, *help;
  std::string PdArgs::*value;
};
constexpr Place kPlaces[] = {
    {"pd-scale", "prefill and decode instances, part of the folder's name", &PdArgs::pd_scale},
    {"tp-num", "tensor parallelism, part of the folder's name", &PdArgs::tp_num},
    {"request-rate", "requests per second, with commas", &PdArgs::request_rate},
    {"backend", "protocol: openai, openai-chat, vllm, tgi, mindspore", &PdArgs::backend},
    {"host", "of the servers, with commas; one counts for all ports", &PdArgs::host},
    {"port", "of the servers, with commas; requests go to them in turn", &PdArgs::port},
    {"request-num", "requests at each rate", &PdArgs::request_num},
    {"model-path", "tokenizer: where prompts must be text", &PdArgs::model_path},
    {"served-model-name", "in requests, and part of the folder's name (default: the first of /v1/models)",
     &PdArgs::served_model_name},
    {"input-len", "tokens of each prompt", &PdArgs::input_len},
    {"output-len", "tokens of each answer", &PdArgs::output_len},
    {"save-root", "folder of all results", &PdArgs::save_root},
    {"epochs", "repeats of each rate", &PdArgs::epochs},
    {"ascend-version", "of the system, part of the folder's name", &PdArgs::ascend_version},
    {"use-pd-separate", "true or false; kept in the results", &PdArgs::use_pd_separate},
};

// The values by place, unless a flag gives the same one.
Status take_places(const App& app, PdArgs& args) {
  if (args.by_place.size() > std::size(kPlaces))
    return invalid_argument("{} values by place; {} at most: pd_scale tp_num request_rate ...", args.by_place.size(),
                            std::size(kPlaces));
  for (size_t i = 0; i < args.by_place.size(); ++i) {
    if (app.count(fmt::format("--{}", kPlaces[i].flag)) > 0)
      return invalid_argument("value {} by place is --{}, which is also given by name", i + 1, kPlaces[i].flag);
    args.*kPlaces[i].value = args.by_place[i];
  }
  return {};
}

Result<int64_t> whole(const std::string& text, const char* flag, int64_t most) {
  char* end = nullptr;
  const long long value = std::strtoll(text.c_str(), &end, 10);
  if (end == text.c_str() || *end != '\0' || value < 1 || value > most)
    return invalid_argument("--{} '{}': a whole number from 1 to {} is wanted", flag, text, most);
  return static_cast<int64_t>(value);
}

Result<std::vector<bench::ServerAddress>> servers_of(const PdArgs& args) {
  const std::vector<std::string> hosts = split(args.host, ','), ports = split(args.port, ',');
  if (hosts.size() != 1 && hosts.size() != ports.size())
    return invalid_argument("--host has {} values and --port {}; one host or as many are wanted", hosts.size(),
                            ports.size());
  std::vector<bench::ServerAddress> servers;
  for (size_t i = 0; i < ports.size(); ++i) {
    const std::string& host = hosts[hosts.size() == 1 ? 0 : i];
    if (host.empty()) return invalid_argument("--host '{}' has an empty name", args.host);
    MR_ASSIGN_OR_RETURN(const int64_t port, whole(ports[i], "port", 65535));
    servers.push_back({host, static_cast<int>(port)});
  }
  return servers;
}

// What the flags say, as numbers.
struct Sweep {
  std::vector<std::string> rates;
  std::vector<bench::ServerAddress> servers;
  int64_t requests = 0, input_tokens = 0, output_tokens = 0, epochs = 0;
};

Result<Sweep> sweep_of(const PdArgs& args) {
  Sweep sweep{.rates = split(args.request_rate, ',')};
  MR_ASSIGN_OR_RETURN(sweep.servers, servers_of(args));
  MR_ASSIGN_OR_RETURN(sweep.requests, whole(args.request_num, "request-num", 10'000'000));
  MR_ASSIGN_OR_RETURN(sweep.input_tokens, whole(args.input_len, "input-len", 1 << 24));
  MR_ASSIGN_OR_RETURN(sweep.output_tokens, whole(args.output_len, "output-len", 1 << 24));
  MR_ASSIGN_OR_RETURN(sweep.epochs, whole(args.epochs, "epochs", 1000));
  if (args.use_pd_separate != "true" && args.use_pd_separate != "false")
    return invalid_argument("--use-pd-separate '{}': true or false is wanted", args.use_pd_separate);
  MR_RETURN_IF_ERROR(check_serving_load({.request_rate = sweep.rates, .num_prompts = {sweep.requests}}));
  return sweep;
}

// Fit to be a part of a folder's name.
std::string name_part(std::string text) {
  for (char& c : text)
    if (c == '/' || c == '\\' || static_cast<unsigned char>(c) < 0x20) c = '_';
  return text;
}

// "<save_root>/1024-512/1p3d-qwen-tp2-901"
std::string folder_of(const PdArgs& args, const Sweep& sweep, const std::string& model) {
  const std::string lengths = fmt::format("{}-{}", sweep.input_tokens, sweep.output_tokens);
  return join_path(join_path(args.save_root, lengths),
                   fmt::format("{}-{}-{}-{}", name_part(args.pd_scale), name_part(model), name_part(args.tp_num),
                               name_part(args.ascend_version)));
}

// Sends one short request to every server, so that a wrong address is said before the load.
Result<LoadSetup> open_servers(PdArgs& args, const Sweep& sweep) {
  args.target.backend = args.backend, args.target.tokenizer = args.model_path;
  args.target.served_model_name = args.served_model_name;
  for (size_t i = sweep.servers.size(); i-- > 1;) {
    args.target.host = sweep.servers[i].host, args.target.port = sweep.servers[i].port;
    MR_RETURN_IF_ERROR(open_load("pd", args.target, args.output).status());
  }
  args.target.host = sweep.servers[0].host, args.target.port = sweep.servers[0].port;
  args.target.others.assign(sweep.servers.begin() + 1, sweep.servers.end());
  MR_ASSIGN_OR_RETURN(LoadSetup setup, open_load("pd", args.target, args.output));
  for (const auto& [key, value] : {std::pair{"pd_scale", args.pd_scale},
                                   {"tp_num", args.tp_num},
                                   {"ascend_version", args.ascend_version},
                                   {"use_pd_separate", args.use_pd_separate}})
    setup.labels.metadata.emplace_back(key, value);
  return setup;
}

// The repeats of one rate.
Result<std::vector<bench::Point>> measure_rate(const PdArgs& args, const Sweep& sweep, size_t rate, LoadSetup& setup) {
  std::vector<bench::Point> points;
  for (int64_t epoch = 0; epoch < sweep.epochs && !interrupted(); ++epoch) {
    const ServingLoad load{.request_rate = {sweep.rates[rate]},
                           .num_prompts = {sweep.requests},
                           .random_input_tokens = sweep.input_tokens,
                           .random_output_tokens = sweep.output_tokens,
                           .seed = args.seed * 9973 + rate * 1009 + static_cast<uint64_t>(epoch),
                           .num_warmups = args.num_warmups};
    MR_ASSIGN_OR_RETURN(std::vector<bench::Point> one, run_serving_load(load, setup));
    std::move(one.begin(), one.end(), std::back_inserter(points));
  }
  return points;
}

// "<folder>/1024-512-300-0.5.csv", and beside it a JSON with every request.
Status write_rate(const std::string& folder, const PdArgs& args, const std::string& rate,
                  const std::vector<bench::Point>& points) {
  const std::string name = fmt::format("{}-{}-{}-{}.csv", args.input_len, args.output_len, args.request_num, rate);
  const bench::CsvDialect dialect = *bench::find_csv_dialect(args.output.csv_dialect);
  MR_ASSIGN_OR_RETURN(const std::string path,
                      bench::write_csv(join_path(folder, name), bench::static_table(dialect, points, 0)));
  const std::string json = path.substr(0, path.size() - 4) + ".json";
  MR_RETURN_IF_ERROR(write_file(json, dump_json(bench::full_result(points))));
  return fmt::print("wrote {}\nwrote {}\n", path, json), Status();
}

Status report_sweep(const std::string& folder, const LoadSetup& setup, const std::vector<bench::Point>& points) {
  print_points(setup, points);
  std::vector<bench::SweepSystem> systems = bench::sweep_systems(points);
  for (bench::SweepSystem& system : systems) MR_RETURN_IF_ERROR(bench::merge_equal_rates(system));
  const bench::SweepLimits limits = bench::sweep_limits(points.front().measures.limits);
  if (!systems.empty()) fmt::print("\n{}", report::to_text(bench::sweep_table(systems, limits), report::style_for(1)));
  return fmt::print("\nDraw it: millrace bench plot --data-paths {}\n", folder), Status();
}

Result<int> run(PdArgs& args) {
  MR_ASSIGN_OR_RETURN(const Sweep sweep, sweep_of(args));
  MR_ASSIGN_OR_RETURN(LoadSetup setup, open_servers(args, sweep));
  const std::string folder = folder_of(args, sweep, setup.labels.model.empty() ? "server" : setup.labels.model);
  MR_RETURN_IF_ERROR(make_directories(folder));
  std::vector<bench::Point> all;
  for (size_t i = 0; i < sweep.rates.size() && !interrupted(); ++i) {
    MR_ASSIGN_OR_RETURN(std::vector<bench::Point> points, measure_rate(args, sweep, i, setup));
    if (points.empty()) break;
    MR_RETURN_IF_ERROR(write_rate(folder, args, sweep.rates[i], points));
    std::move(points.begin(), points.end(), std::back_inserter(all));
  }
  if (all.empty()) return cancelled("interrupted before anything was measured");
  MR_RETURN_IF_ERROR(report_sweep(folder, setup, all));
  return exit_code(all);
}

void add_flags(App& app, PdArgs& args) {
  app.add_option("values", args.by_place, "the values of the flags below, in their order")->expected(0, -1);
  for (const Place& place : kPlaces) app.add_option(fmt::format("--{}", place.flag), args.*place.value, place.help);
  app.add_option("--seed", args.seed, "of prompts and gaps");
  app.add_option("--num-warmups", args.num_warmups, "requests before each rate that do not count");
  app.add_option("--goodput", args.output.goodput, "limits ttft:MS tpot:MS e2el:MS that a good request meets")
      ->expected(1, 3);
  app.add_option("--csv-dialect", args.output.csv_dialect, "gen1 (Chinese titles, ms) or gen2 (English titles, s)")
      ->check(CLI::IsMember({"gen1", "gen2"}));
  app.add_option("--app-code", args.target.app_code, "sent as header X-Apig-AppCode");
  app.add_option("--header", args.target.headers, "KEY=VALUE headers to add")->expected(1, -1);
  app.add_option("--timeout-s", args.target.timeout_s, "of one request, seconds")->check(CLI::PositiveNumber);
  app.add_option("--client-loops", args.target.loops, "event loops of the client (default: one per core)")
      ->check(CLI::Range(0, 256));
}

}  // namespace

int bench_pd(const Arguments& arguments) {
  PdArgs args;
  App app(
      "A sweep of request rates with fixed lengths, for one system of several: writes "
      "SAVE_ROOT/IN-OUT/SCALE-MODEL-TP-VERSION/IN-OUT-NUM-RATE.csv and .json for each rate, which 'bench plot' draws. "
      "Gaps are exponential.",
      "bench pd");
  add_flags(app, args);
  app.footer(
      "Examples:\n"
      "  millrace bench pd 0p0d4m tp2 0.5,1,1.5 openai 127.0.0.1 8088,8089,8090,8091 300 '' qwen 1024 512 ./result\n"
      "  millrace bench pd --pd-scale 1p3d --request-rate 0.5,1,1.5 --port 9000 --request-num 300\n"
      "  millrace bench plot --ttft-threshold 2s --tpot-threshold 50 --requests-num 300 --data-root result/1024-512 "
      "\\\n"
      "      --data-paths 0p0d4m-qwen-tp2-901 1p3d-qwen-tp2-901");
  if (const int code = parse(app, arguments); code >= 0) return code;
  const Status places = take_places(app, args);
  const Result<int> code = places.ok() ? run(args) : Result<int>(places);
  return code.ok() ? *code : fail(code.status());
}

}  // namespace millrace::cli
