// The loops behind measure_machine, one set per instruction set.
#pragma once
#include <cstddef>
#include <cstdint>

namespace millrace {

struct MachineLoops {
  // Reads all of [at, at + bytes); bytes is a multiple of 1024. The result depends on every byte.
  uint64_t (*read)(const std::byte* at, int64_t bytes);
  // Register-only fused multiply-adds; returns how many float operations that were.
  int64_t (*multiply_f32)(int64_t rounds);
  // Register-only products of whole vectors (vdpbf16ps, vpdpbusd) and of tiles: operations; null without.
  int64_t (*multiply_bf16)(int64_t rounds);
  int64_t (*multiply_int8)(int64_t rounds);
  int64_t (*multiply_bf16_tiles)(int64_t rounds);
  int64_t (*multiply_int8_tiles)(int64_t rounds);
};
namespace portable {
MachineLoops machine_loops();
}
namespace avx2 {
MachineLoops machine_loops();
}
namespace avx512 {
MachineLoops machine_loops();
}
namespace avx512 {
int64_t multiply_bf16_pairs(int64_t rounds);  // requires Isa::kAvx512Bf16
}
namespace amx {
int64_t multiply_bf16_tiles(int64_t rounds);
int64_t multiply_int8_tiles(int64_t rounds);
}  // namespace amx

}  // namespace millrace
