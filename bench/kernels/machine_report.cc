// Prints this machine's ceilings.
#include <fmt/format.h>

#include "base/cpu.h"
#include "kernels/machine.h"
#include "kernels/parallel.h"

int main() {
  const millrace::MachineCeilings c = millrace::measure_machine();
  fmt::print("{}, {} threads, {}\n", millrace::machine_info().model_name, millrace::compute_threads(),
             millrace::isa_name(millrace::best_isa()));
  fmt::print("read    {:8.1f} GB/s, one thread {:.1f}\n", c.read_bytes_per_s / 1e9, c.read_bytes_per_s_one / 1e9);
  fmt::print("f32     {:8.1f} GFLOP/s\n", c.f32_flops / 1e9);
  fmt::print("bf16    {:8.1f} GFLOP/s in vectors, {:.1f} in tiles\n", c.bf16_vector_flops / 1e9,
             c.bf16_tile_flops / 1e9);
  fmt::print("int8    {:8.1f} GOP/s in vectors, {:.1f} in tiles\n", c.int8_vector_ops / 1e9, c.int8_tile_ops / 1e9);
  fmt::print("region  {:8.2f} us\n", c.region_us);
}
