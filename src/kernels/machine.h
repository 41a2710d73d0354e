// What bounds this machine, measured: every performance figure is a fraction of one of these.
#pragma once
#include <algorithm>

#include "base/dtype.h"

namespace millrace {

struct MachineCeilings {
  double read_bytes_per_s_one = 0;  // streaming reads from memory, one thread
  double read_bytes_per_s = 0;      // the same, all compute threads
  double f32_flops = 0;             // fused multiply-adds, all compute threads, two operations each
  double bf16_vector_flops = 0;     // vdpbf16ps, all compute threads; 0 without
  double int8_vector_ops = 0;       // vpdpbusd of 512 bits
  double bf16_tile_flops = 0;       // AMX, all compute threads; 0 without
  double int8_tile_ops = 0;
  double region_us = 0;  // an empty parallel region on all compute threads

  // What bounds products of bf16 and of int8 by the best instructions there are.
  double bf16_flops() const { return std::max({f32_flops, bf16_vector_flops, bf16_tile_flops}); }
  double int8_ops() const { return std::max({f32_flops, int8_vector_ops, int8_tile_ops}); }
  // What bounds products with weights of a floating type; float16 takes four products of bf16 tiles.
  double product_flops(DType weight) const {
    if (weight == DType::kBf16) return bf16_flops();
    return weight == DType::kF16 && bf16_tile_flops > 0 ? bf16_tile_flops / 4 : f32_flops;
  }
};
// Takes about a second and half a gigabyte for that time.
MachineCeilings measure_machine();

}  // namespace millrace
