// millrace bench machine
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "base/cpu.h"
#include "cli/command.h"
#include "kernels/machine.h"
#include "kernels/parallel.h"

namespace millrace::cli {
namespace {

void print_json(const MachineCeilings& c) {
  const nlohmann::ordered_json json = {{"cpu", machine_info().model_name},
                                       {"isa", isa_name(best_isa())},
                                       {"threads", compute_threads()},
                                       {"read_bytes_per_s", c.read_bytes_per_s},
                                       {"read_bytes_per_s_one_thread", c.read_bytes_per_s_one},
                                       {"float32_flops", c.f32_flops},
                                       {"bfloat16_vector_flops", c.bf16_vector_flops},
                                       {"int8_vector_ops", c.int8_vector_ops},
                                       {"bfloat16_tile_flops", c.bf16_tile_flops},
                                       {"int8_tile_ops", c.int8_tile_ops},
                                       {"parallel_region_us", c.region_us}};
  fmt::print("{}\n", json.dump(2));
}

void print_rate(const char* what, double per_s, const char* unit, const std::string& note) {
  if (per_s > 0)
    fmt::print("{:<18} {:>8.1f} {:<10} {}\n", what, per_s / 1e9, unit, note);
  else
    fmt::print("{:<18} {:>8}\n", what, "none");
}

void print_table(const MachineCeilings& c) {
  const int threads = compute_threads();
  fmt::print("{}, {} thread{}, {}\n", machine_info().model_name, threads, threads == 1 ? "" : "s",
             isa_name(best_isa()));
  print_rate("memory reads", c.read_bytes_per_s, "GB/s",
             fmt::format("(one thread {:.1f})", c.read_bytes_per_s_one / 1e9));
  print_rate("float32", c.f32_flops, "GFLOP/s", "");
  print_rate("bfloat16 vectors", c.bf16_vector_flops, "GFLOP/s", "");
  print_rate("int8 vectors", c.int8_vector_ops, "GOP/s", "");
  print_rate("bfloat16 tiles", c.bf16_tile_flops, "GFLOP/s", "");
  print_rate("int8 tiles", c.int8_tile_ops, "GOP/s", "");
  fmt::print("{:<18} {:>8.2f} us\n", "parallel region", c.region_us);
}

}  // namespace

int bench_machine(const Arguments& arguments) {
  App app("Measures what bounds this machine: reads from memory, multiplications, starting all threads.",
          "bench machine");
  bool json = false;
  app.add_flag("--json", json, "numbers in bytes, operations and microseconds");
  app.footer("Examples:\n  millrace bench machine\n  MILLRACE_MAX_ISA=avx2 millrace bench machine --json");
  if (const int code = parse(app, arguments); code >= 0) return code;
  const MachineCeilings ceilings = measure_machine();
  if (json)
    print_json(ceilings);
  else
    print_table(ceilings);
  return 0;
}

}  // namespace millrace::cli
