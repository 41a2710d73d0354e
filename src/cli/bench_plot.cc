// millrace bench plot
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>

#include "base/file.h"
#include "base/log.h"
#include "bench/result_files.h"
#include "cli/command.h"
#include "report/html_report.h"

namespace millrace::cli {
namespace {

constexpr size_t kMaxSystems = 8;  // as many as there are colours

struct PlotArgs {
  std::string ttft_threshold, tpot_threshold, data_root = ".", output_html = "bench_plot.html", output_svg, title;
  std::vector<std::string> data_paths, names;
  int64_t requests_num = 0;
};

// "2000", "2000ms" or "2s", in ms.
Result<double> parse_threshold(const std::string& text, const char* flag) {
  if (text.empty()) return 0;
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  const std::string unit = end;
  const double factor = unit == "s" ? 1000 : unit.empty() || unit == "ms" ? 1 : 0;
  if (end == text.c_str() || factor == 0 || !(value > 0 && value < 1e9))
    return invalid_argument("{} '{}': milliseconds above 0 are wanted, or seconds such as 2s", flag, text);
  return value * factor;
}

Status check(const PlotArgs& args) {
  if (args.data_paths.empty())
    return invalid_argument("--data-paths names no results; a folder of 'bench pd' is wanted");
  if (args.data_paths.size() > kMaxSystems)
    return invalid_argument("--data-paths has {} values; {} at most", args.data_paths.size(), kMaxSystems);
  if (!args.names.empty() && args.names.size() != args.data_paths.size())
    return invalid_argument("--data-paths has {} values and --names {}; as many are wanted", args.data_paths.size(),
                            args.names.size());
  for (const std::string& path : {args.output_html, args.output_svg}) {
    const size_t slash = path.rfind('/');
    if (slash != std::string::npos && slash > 0 && !is_directory(path.substr(0, slash)))
      return not_found("{}: there is no folder {}", path, path.substr(0, slash));
  }
  return {};
}

std::string last_part(std::string path) {
  while (path.size() > 1 && path.ends_with('/')) path.pop_back();
  return path.substr(path.rfind('/') + 1);
}

// The last parts of the paths where they differ, else the paths.
std::vector<std::string> names_of(const PlotArgs& args) {
  if (!args.names.empty()) return args.names;
  std::vector<std::string> names;
  for (const std::string& path : args.data_paths) names.push_back(last_part(path));
  std::vector<std::string> sorted = names;
  std::sort(sorted.begin(), sorted.end());
  return std::adjacent_find(sorted.begin(), sorted.end()) == sorted.end() ? names : args.data_paths;
}

Result<std::vector<bench::SweepSystem>> read_systems(const PlotArgs& args) {
  std::vector<bench::SweepSystem> systems;
  const std::vector<std::string> names = names_of(args);
  for (size_t i = 0; i < names.size(); ++i) {
    const std::string& path = args.data_paths[i];
    MR_ASSIGN_OR_RETURN(bench::SweepSystem system,
                        bench::read_system(names[i], path.starts_with('/') ? path : join_path(args.data_root, path),
                                           args.requests_num));
    for (const bench::SweepSystem& other : systems)
      if (other.name == system.name)
        return invalid_argument("two systems are named '{}'; --names tells them apart", other.name);
    log_info("{}: {} rates", system.name, system.points.size());
    systems.push_back(std::move(system));
  }
  return systems;
}

report::Validity validity_of(const std::vector<bench::SweepSystem>& systems) {
  report::Validity validity;
  for (const bench::SweepSystem& system : systems)
    for (const bench::SweepPoint& point : system.points)
      validity.add({.name = fmt::format("{} at {:g} requests/s", system.name, point.rate),
                    .found = !point.problem.empty() ? "invalid: " + point.problem
                             : point.judged         ? "valid"
                                                    : "its file does not say",
                    .wanted = "",
                    .mark = !point.problem.empty() ? report::Mark::kBad
                            : point.judged         ? report::Mark::kGood
                                                   : report::Mark::kUnknown});
  return validity;
}

Json data_of(const std::vector<bench::SweepSystem>& systems) {
  Json list = Json::array();
  for (const bench::SweepSystem& system : systems) {
    std::vector<double> rate, ttft, tpot, output;
    for (const bench::SweepPoint& point : system.points)
      rate.push_back(point.rate), ttft.push_back(point.ttft_p90_ms), tpot.push_back(point.tpot_p90_ms),
          output.push_back(point.output_throughput);
    list.push_back({{"name", system.name},
                    {"request_rate", report::number_column(rate)},
                    {"ttft_p90_ms", report::number_column(ttft)},
                    {"tpot_p90_ms", report::number_column(tpot)},
                    {"output_throughput", report::number_column(output)}});
  }
  return {{"systems", std::move(list)}};
}

Status write_page(const PlotArgs& args, const report::Sweep& sweep, const std::vector<bench::SweepSystem>& systems,
                  const bench::SweepLimits& limits) {
  report::HtmlReport page(sweep.title, validity_of(systems));
  if (limits.ttft_ms > 0) page.add_fact("TTFT limit", fmt::format("{:g} ms", limits.ttft_ms));
  if (limits.tpot_ms > 0) page.add_fact("TPOT limit", fmt::format("{:g} ms", limits.tpot_ms));
  report::add_sweep(page, sweep);
  if (const std::string text = bench::sustained_text(sweep); !text.empty()) page.add_text(text);
  page.begin_panel("Points");
  page.add_table(bench::sweep_table(systems, limits));
  page.set_data(data_of(systems));
  MR_RETURN_IF_ERROR(page.write(args.output_html));
  return fmt::print("wrote {}\n", args.output_html), Status();
}

std::string title_of(const PlotArgs& args, const std::vector<bench::SweepSystem>& systems) {
  if (!args.title.empty()) return args.title;
  std::string title;
  for (const bench::SweepSystem& system : systems) title += (title.empty() ? "" : " and ") + system.name;
  return title + " against the request rate";
}

Status run(const PlotArgs& args) {
  MR_RETURN_IF_ERROR(check(args));
  bench::SweepLimits limits;
  MR_ASSIGN_OR_RETURN(limits.ttft_ms, parse_threshold(args.ttft_threshold, "--ttft-threshold"));
  MR_ASSIGN_OR_RETURN(limits.tpot_ms, parse_threshold(args.tpot_threshold, "--tpot-threshold"));
  MR_ASSIGN_OR_RETURN(const std::vector<bench::SweepSystem> systems, read_systems(args));
  const report::Sweep sweep = bench::rate_sweep(title_of(args, systems), systems, limits);
  fmt::print("{}\n", report::to_text(bench::sweep_table(systems, limits), report::style_for(1)));
  if (const std::string text = bench::sustained_text(sweep); !text.empty())
    fmt::print("{}\n{}\n", report::to_text(report::crossing_table(sweep), report::style_for(1)), text);
  if (!args.output_svg.empty()) {
    MR_RETURN_IF_ERROR(write_file(args.output_svg, report::sweep_file(sweep)));
    fmt::print("wrote {}\n", args.output_svg);
  }
  return write_page(args, sweep, systems, limits);
}

}  // namespace

int bench_plot(const Arguments& arguments) {
  PlotArgs args;
  App app(
      "One or several systems against the request rate: P90 TTFT and P90 TPOT with their limits, the share of requests "
      "within them, output throughput and goodput; and the rates at which limits are crossed. Reads our JSON results, "
      "those of 'vllm bench serve' and DistServe's, and the tables of 'bench pd'.",
      "bench plot");
  app.add_option("--ttft-threshold", args.ttft_threshold, "limit of the time to first token, ms (or 2s)");
  app.add_option("--tpot-threshold", args.tpot_threshold, "limit of the time per output token, ms");
  app.add_option("--requests-num", args.requests_num, "only results of so many requests")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--data-root", args.data_root, "folder that --data-paths are in");
  app.add_option("--data-paths", args.data_paths, "a folder of results, or one file, for each system")->expected(1, -1);
  app.add_option("--names", args.names, "of the systems (default: the last parts of their paths)")->expected(1, -1);
  app.add_option("--title", args.title, "of the page");
  app.add_option("--output-html", args.output_html, "the page, one file that opens offline");
  app.add_option("--output-svg", args.output_svg, "the panels as an SVG file");
  app.footer(
      "Examples:\n"
      "  millrace bench plot --ttft-threshold 2000 --tpot-threshold 50 --requests-num 300 --data-root result/1024-512 "
      "\\\n"
      "      --data-paths 0p0d4m-qwen-tp2-901 1p3d-qwen-tp2-901\n"
      "  millrace bench plot --ttft-threshold 2s --data-paths ours.json vllm-results/ --names ours vllm");
  if (const int code = parse(app, arguments); code >= 0) return code;
  const Status status = run(args);
  return status.ok() ? 0 : fail(status);
}

}  // namespace millrace::cli
