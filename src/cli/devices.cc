// millrace devices
#include <fmt/format.h>

#include <filesystem>
#include <fstream>

#include "base/cpu.h"
#include "base/text.h"
#include "cli/command.h"

namespace millrace::cli {
namespace {

std::string isa_list() {
  std::string list;
  for (int isa = 0; isa <= static_cast<int>(best_isa()); ++isa)
    list += fmt::format("{}{}", isa ? ", " : "", isa_name(static_cast<Isa>(isa)));
  return list;
}

// Model names of the NVIDIA GPUs that the kernel driver reports; empty without driver.
std::vector<std::string> gpu_names() {
  std::vector<std::string> names;
  std::error_code error;
  for (std::filesystem::directory_iterator it("/proc/driver/nvidia/gpus", error), end; !error && it != end;
       it.increment(error)) {
    std::ifstream file(it->path() / "information");
    for (std::string line; std::getline(file, line);)
      if (line.starts_with("Model:")) names.emplace_back(trim(line.substr(6)));
  }
  return names;
}

}  // namespace

int devices(const Arguments& arguments) {
  App app("Shows what this machine offers: cores, instruction sets, NUMA nodes, caches, memory, GPUs.", "devices");
  app.footer(
      "Examples:\n  millrace devices\n  MILLRACE_MAX_ISA=avx2 millrace devices    what runs under a lower instruction "
      "set");
  if (const int code = parse(app, arguments); code >= 0) return code;
  const MachineInfo info = machine_info();
  fmt::print("cpu            {}\n", info.model_name);
  fmt::print("cores          {}\n", info.cores);
  fmt::print("numa nodes     {}\n", info.numa_nodes);
  fmt::print("isa            {}\n", isa_list());
  fmt::print("caches         L1d {}, L2 {}, L3 {}\n", format_bytes(info.l1d_bytes), format_bytes(info.l2_bytes),
             format_bytes(info.l3_bytes));
  fmt::print("memory         {} ({} available)\n", format_bytes(info.memory_bytes),
             format_bytes(info.memory_available_bytes));
  const std::vector<std::string> gpus = gpu_names();
  if (gpus.empty()) fmt::print("gpus           none\n");
  for (size_t i = 0; i < gpus.size(); ++i) fmt::print("gpu {:<10} {}\n", i, gpus[i]);
  return 0;
}

}  // namespace millrace::cli
