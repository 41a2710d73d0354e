#include <cstring>

#include "kernels/cpu/machine_loops.h"

namespace millrace::portable {
namespace {

uint64_t read_memory(const std::byte* at, int64_t bytes) {
  uint64_t sums[4] = {};
  for (int64_t i = 0; i < bytes; i += 32)
    for (int j = 0; j < 4; ++j) {
      uint64_t word;
      std::memcpy(&word, at + i + 8 * j, 8);
      sums[j] += word;
    }
  return sums[0] + sums[1] + sums[2] + sums[3];
}

int64_t multiply_f32(int64_t rounds) {
  float sums[8] = {};
  for (int64_t i = 0; i < rounds; ++i)
    for (float& sum : sums) sum = sum * 0.5f + 1.0f;
  float all = 0;
  for (const float sum : sums) all += sum;
  return rounds * 16 + (all < 0);
}

}  // namespace

MachineLoops machine_loops() { return {read_memory, multiply_f32, nullptr, nullptr, nullptr, nullptr}; }

}  // namespace millrace::portable
