// millrace bench <what>: finds the measurement and hands it the arguments.
#include <fmt/format.h>

#include <string_view>

#include "base/text.h"
#include "cli/command.h"

namespace millrace::cli {

int bench_parallel(const Arguments& arguments);
int bench_speculative(const Arguments& arguments);
int bench_modal(const Arguments& arguments);
int bench_serving(const Arguments& arguments);
int bench_dataset(const Arguments& arguments);
int bench_machine(const Arguments& arguments);
int bench_all(const Arguments& arguments);
int bench_pd(const Arguments& arguments);
int bench_plot(const Arguments& arguments);

namespace {

struct Measurement {
  const char* name;
  const char* summary;
  int (*run)(const Arguments&);
};
constexpr Measurement kMeasurements[] = {
    {"parallel", "static load on a server: rounds of equal requests", bench_parallel},
    {"serving", "dynamic load on a server: random arrivals, traces, the largest rate", bench_serving},
    {"serve", "the same, under vLLM's name", bench_serving},
    {"all", "dynamic and static load with the usual settings", bench_all},
    {"pd", "a sweep of request rates with fixed lengths, for 'plot'", bench_pd},
    {"speculative", "static load on a server that speculates: acceptance, with and without", bench_speculative},
    {"modal", "static load with pictures", bench_modal},
    {"dataset", "write a data set of texts with exact token counts", bench_dataset},
    {"plot", "draw results of several rates and systems", bench_plot},
    {"machine", "measure what bounds this machine", bench_machine},
};

void print_usage(std::FILE* out) {
  fmt::print(out, "Usage: millrace bench <what> [arguments]\n\n");
  for (const Measurement& m : kMeasurements) fmt::print(out, "  {:<12} {}\n", m.name, m.summary);
  fmt::print(out, "\n  millrace bench <what> --help   what it takes, with examples\n");
}

}  // namespace

int bench(const Arguments& arguments) {
  if (arguments.empty()) return print_usage(stderr), 2;
  const std::string& name = arguments[0];
  if (name == "--help" || name == "-h" || name == "help") return print_usage(stdout), 0;
  std::vector<std::string> names;
  for (const Measurement& m : kMeasurements) {
    if (name == m.name) return m.run({arguments.begin() + 1, arguments.end()});
    names.emplace_back(m.name);
  }
  fmt::print(stderr, "millrace bench: unknown measurement '{}'{}\n\n", name, did_you_mean(name, names));
  return print_usage(stderr), 2;
}

}  // namespace millrace::cli
