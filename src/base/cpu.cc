#include "base/cpu.h"

#include <cpuid.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <fstream>
#include <sstream>

#include "base/log.h"

namespace millrace {
namespace {

constexpr std::array<std::string_view, 5> kNames = {"portable", "avx2", "avx512", "avx512_bf16", "amx"};

uint64_t enabled_states() {
  uint32_t low, high;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (static_cast<uint64_t>(high) << 32) | low;
}

bool amx_permitted() {
  constexpr int kRequestPermission = 0x1023, kTileData = 18;
  return ::syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

Isa detect() {
  uint32_t a, b, c, d;
  if (!__get_cpuid(1, &a, &b, &c, &d)) return Isa::kPortable;
  const bool xsave = (c >> 27) & 1, fma = (c >> 12) & 1, f16c = (c >> 29) & 1;
  if (!xsave || !__get_cpuid_count(7, 0, &a, &b, &c, &d)) return Isa::kPortable;
  const uint64_t states = enabled_states();
  const bool avx2 = ((b >> 5) & 1) && fma && f16c && (states & 0x6) == 0x6;
  if (!avx2) return Isa::kPortable;
  const bool f = (b >> 16) & 1, dq = (b >> 17) & 1, bw = (b >> 30) & 1, vl = (b >> 31) & 1, vnni = (c >> 11) & 1;
  if (!(f && dq && bw && vl && vnni && (states & 0xe6) == 0xe6)) return Isa::kAvx2;
  const bool amx_bf16 = (d >> 22) & 1, amx_tile = (d >> 24) & 1, amx_int8 = (d >> 25) & 1;
  if (!__get_cpuid_count(7, 1, &a, &b, &c, &d) || !((a >> 5) & 1)) return Isa::kAvx512;
#ifdef MILLRACE_EMULATE_TILES
  return Isa::kAmx;
#endif
  const bool tiles = amx_bf16 && amx_tile && amx_int8 && (states & 0x60000) == 0x60000;
  return tiles && amx_permitted() ? Isa::kAmx : Isa::kAvx512Bf16;
}

Isa capped() {
  const Isa found = detect();
  const char* text = std::getenv("MILLRACE_MAX_ISA");
  if (!text || !*text) return found;
  const std::string_view name = text;
  if (name == "avx512") return std::min(found, Isa::kAvx512Bf16);
  const auto it = std::find(kNames.begin(), kNames.end(), name);
  if (it == kNames.end()) {
    log_warning("MILLRACE_MAX_ISA is '{}'; it must be portable, avx2, avx512 or amx. Nothing is capped.", name);
    return found;
  }
  return std::min(found, static_cast<Isa>(it - kNames.begin()));
}

std::string first_line(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

// The value in bytes of "Key:   123 kB" in a /proc file; 0 if absent.
int64_t proc_kib(const std::string& path, const std::string& key) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with(key)) continue;
    std::istringstream rest(line.substr(key.size()));
    int64_t kib = 0;
    rest >> kib;
    return kib * 1024;
  }
  return 0;
}

std::string cpu_model_name() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);)
    if (line.starts_with("model name")) return line.substr(std::min(line.size(), line.find(':') + 2));
  return "unknown";
}

int64_t cgroup_limit() {
  const std::string text = first_line("/sys/fs/cgroup/memory.max");
  if (text.empty() || text == "max") return INT64_MAX;
  return std::strtoll(text.c_str(), nullptr, 10);
}

int count_numa_nodes() {
  int nodes = 0;
  while (::access(("/sys/devices/system/node/node" + std::to_string(nodes)).c_str(), F_OK) == 0) ++nodes;
  return std::max(nodes, 1);
}

}  // namespace

std::string_view isa_name(Isa isa) { return kNames[static_cast<size_t>(isa)]; }

Isa best_isa() {
  static const Isa isa = capped();
  return isa;
}

MachineInfo machine_info() {
  MachineInfo info;
  info.model_name = cpu_model_name();
  cpu_set_t set;
  info.cores = ::sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
  info.numa_nodes = count_numa_nodes();
  info.l1d_bytes = std::max(0L, ::sysconf(_SC_LEVEL1_DCACHE_SIZE));
  info.l2_bytes = std::max(0L, ::sysconf(_SC_LEVEL2_CACHE_SIZE));
  info.l3_bytes = std::max(0L, ::sysconf(_SC_LEVEL3_CACHE_SIZE));
  const int64_t limit = cgroup_limit();
  info.memory_bytes = std::min(proc_kib("/proc/meminfo", "MemTotal:"), limit);
  info.memory_available_bytes = std::min(proc_kib("/proc/meminfo", "MemAvailable:"), limit);
  return info;
}

int64_t resident_bytes() { return proc_kib("/proc/self/status", "VmRSS:"); }

}  // namespace millrace
