// millrace bench speculative
#include <fmt/format.h>

#include "base/log.h"
#include "cli/bench_rounds.h"
#include "report/comparison.h"

namespace millrace::cli {
namespace {

struct SpeculativeArgs {
  RoundsArgs rounds;
  std::string baseline_url;
};

std::string figure(double value) { return std::isfinite(value) ? fmt::format("{:.2f}", value) : "-"; }

// Without over with: how many times faster speculation makes it, with a 95 % interval where there is one.
std::string speedup(const report::Sample& with, const report::Sample& without) {
  const report::Comparison found = report::compare(with, without, {.percent = 50});
  if (!found.ratio_interval) return figure(found.ratio);
  return fmt::format("{} [{}, {}]", figure(found.ratio), figure(found.ratio_interval->low),
                     figure(found.ratio_interval->high));
}

report::Table acceptance_table(const std::vector<bench::Point>& points, int64_t num_speculative_tokens) {
  report::Table table({{"point", report::Align::kLeft, ""},
                       {"acceptance %", report::Align::kRight, "accepted / drafted"},
                       {"tokens per step", report::Align::kRight, "1 + accepted / drafts"},
                       {"P90 %", report::Align::kRight, "of the requests' rates, by their events"},
                       {"P99 %", report::Align::kRight, "of the requests' rates, by their events"},
                       {"max %"},
                       {"min %"},
                       {"avg %"},
                       {"from", report::Align::kLeft, ""}});
  for (const bench::Point& p : points) {
    const auto found = bench::acceptance(p.run, num_speculative_tokens);
    if (!found) continue;
    const report::Sample& rates = found->per_request;
    table.add_row({bench::point_name(p.run), figure(100 * found->rate), figure(found->length),
                   figure(100 * rates.percentile(90)), figure(100 * rates.percentile(99)), figure(100 * rates.max()),
                   figure(100 * rates.min()), figure(100 * rates.mean()),
                   found->estimated ? "events (estimated)" : "server counters"});
  }
  return table;
}

report::Table side_by_side(const std::vector<bench::Point>& with, const std::vector<bench::Point>& without) {
  report::Table table({{"point", report::Align::kLeft, ""},
                       {"out tok/s with"},
                       {"without"},
                       {"times"},
                       {"TPOT p50 with"},
                       {"without"},
                       {"times faster [95 %]"},
                       {"TTFT p50 with"},
                       {"without"},
                       {"times faster [95 %]"}});
  for (size_t i = 0; i < std::min(with.size(), without.size()); ++i) {
    const bench::Measures &a = with[i].measures, &b = without[i].measures;
    std::vector<std::string> row = {bench::point_name(with[i].run), figure(a.output_throughput),
                                    figure(b.output_throughput), figure(a.output_throughput / b.output_throughput)};
    for (const bench::Metric metric : {bench::Metric::kTpot, bench::Metric::kTtft}) {
      const report::Sample &x = a.sample(metric), &y = b.sample(metric);
      row.insert(row.end(), {figure(x.percentile(50)), figure(y.percentile(50)), speedup(x, y)});
    }
    table.add_row(std::move(row));
  }
  return table;
}

// "a.csv" -> "a.baseline.csv"
void rename(std::string& path) {
  if (path.empty()) return;
  const size_t slash = path.rfind('/'), dot = path.rfind('.');
  const bool extension = dot != std::string::npos && (slash == std::string::npos || dot > slash);
  path.insert(extension ? dot : path.size(), ".baseline");
}

OutputFlags baseline_outputs(OutputFlags flags) {
  for (std::string* path : {&flags.benchmark_csv, &flags.output_json, &flags.output_html, &flags.result_filename})
    rename(*path);
  flags.save_baseline.clear(), flags.against.clear();
  return flags;
}

void print_acceptance(const std::vector<bench::Point>& points, int64_t num_speculative_tokens) {
  const report::Table table = acceptance_table(points, num_speculative_tokens);
  if (table.rows().empty())
    return log_warning(
        "the acceptance is not known: /metrics has no vllm:spec_decode_* counters, and without "
        "--num-speculative-tokens "
        "the events tell nothing");
  fmt::print("\nAcceptance\n{}", report::to_text(table, report::style_for(1)));
}

Result<int> run(SpeculativeArgs& args) {
  RoundsArgs& rounds = args.rounds;
  MR_RETURN_IF_ERROR(check_rounds(rounds));
  MR_ASSIGN_OR_RETURN(LoadSetup setup, open_load("speculative", rounds.target, rounds.output));
  setup.labels.num_speculative_tokens = std::max<int64_t>(rounds.num_speculative_tokens, 0);
  std::optional<LoadSetup> baseline;
  if (!args.baseline_url.empty()) {
    TargetFlags other = rounds.target;
    other.url.clear(), other.base_url = args.baseline_url;
    Result<LoadSetup> opened = open_load("speculative", other, baseline_outputs(rounds.output));
    if (!opened.ok()) return opened.status().at("--baseline-url");
    baseline = std::move(*opened);
  }
  std::vector<const LoadSetup*> servers = {&setup};
  if (baseline) servers.push_back(&*baseline);
  MR_ASSIGN_OR_RETURN(const auto points, measure_rounds(rounds, servers));
  MR_ASSIGN_OR_RETURN(const int code, finish_load(setup, rounds.output, points[0], /*is_static=*/true,
                                                  setup.labels.num_speculative_tokens));
  print_acceptance(points[0], rounds.num_speculative_tokens);
  if (!baseline || points[1].empty()) return code;
  fmt::print("\nWithout speculation, {}\n", baseline->labels.endpoint);
  MR_ASSIGN_OR_RETURN(const int other_code, finish_load(*baseline, baseline_outputs(rounds.output), points[1],
                                                        /*is_static=*/true, 0));
  fmt::print("\nWith and without speculation\n{}",
             report::to_text(side_by_side(points[0], points[1]), report::style_for(1)));
  return code != 0 ? code : other_code;
}

}  // namespace

int bench_speculative(const Arguments& arguments) {
  SpeculativeArgs args;
  args.rounds.spec_decode = true;
  args.rounds.dataset_type = "human-eval";
  args.rounds.prompt_tokens = {512}, args.rounds.output_tokens = {256};
  App app(
      "Static load on a server that speculates, with texts that drafts can foresee, and how many draft tokens were "
      "accepted: by the server's /metrics where it counts, else estimated from the tokens of each event.",
      "bench speculative");
  add_rounds_flags(app, args.rounds);
  app.add_option("--baseline-url", args.baseline_url,
                 "http://HOST:PORT of the same model without speculation, measured beside it");
  app.footer(
      "Example:\n"
      "  millrace bench speculative --port 8000 --tokenizer /models/Qwen2.5-7B --dataset-path HumanEval.jsonl \\\n"
      "      --num-speculative-tokens 3 --parallel-num 1 8 --output-tokens 256 \\\n"
      "      --baseline-url http://localhost:8001 --benchmark-csv speculative.csv");
  if (const int code = parse(app, arguments); code >= 0) return code;
  const Result<int> code = run(args);
  return code.ok() ? *code : fail(code.status());
}

}  // namespace millrace::cli
