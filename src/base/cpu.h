// What this machine can do: instruction sets, cores, caches, NUMA nodes, memory. Read once; any thread.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace millrace {

// Levels in rising order; each includes those before it. kAmx needs tile, bf16 and int8.
enum class Isa : uint8_t { kPortable, kAvx2, kAvx512, kAvx512Bf16, kAmx };
std::string_view isa_name(Isa isa);  // "portable", "avx2", "avx512", "avx512_bf16", "amx"

// The best level of this CPU, capped by MILLRACE_MAX_ISA (an isa_name; "avx512" means kAvx512Bf16 where present).
// kAvx2 asks for AVX2+FMA+F16C; kAvx512 for F/BW/DQ/VL/VNNI; kAmx also for the kernel's permission, asked here once.
Isa best_isa();
// Whether `isa` may run here under the cap.
inline bool cpu_has(Isa isa) { return isa <= best_isa(); }

struct MachineInfo {
  std::string model_name;
  int cores = 1;  // that this process may run on
  int numa_nodes = 1;
  int64_t l1d_bytes = 0, l2_bytes = 0, l3_bytes = 0;  // per instance; 0 where unknown
  int64_t memory_bytes = 0;                           // total, or the cgroup's limit where that is smaller
  int64_t memory_available_bytes = 0;                 // free for new allocations right now
};
MachineInfo machine_info();
// Resident memory of this process in bytes.
int64_t resident_bytes();

}  // namespace millrace
