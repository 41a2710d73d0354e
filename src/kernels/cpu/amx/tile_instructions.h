// Tile instructions as inline assembly. The compiler's own intrinsics do not tell it which memory a tile load or a
// configuration reads; these do, at the price of a barrier for memory accesses around each.
//   tile_load_passing: for what passes through once while something else is to stay in the first-level cache
//   tile_multiply: sum += a * b of bf16 pairs, float32 sums; _int8: of fours, int32 sums; _uint8: a's are unsigned
#pragma once
#include <cstdint>

namespace millrace::amx {

// `shapes`: the 64 bytes that ldtilecfg reads.
template <class Shapes>
inline __attribute__((always_inline)) void tile_configure(const Shapes& shapes) {
  asm volatile("ldtilecfg %0" : : "m"(shapes) : "memory");
}
inline __attribute__((always_inline)) void tile_release() { asm volatile("tilerelease" : : : "memory"); }

template <int kTile>
inline __attribute__((always_inline)) void tile_zero() {
  asm volatile("tilezero %%tmm%c0" : : "i"(kTile));
}
template <int kTile>
inline __attribute__((always_inline)) void tile_load(const void* at, int64_t stride) {
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(at), "r"(stride), "i"(kTile) : "memory");
}
template <int kTile>
inline __attribute__((always_inline)) void tile_load_passing(const void* at, int64_t stride) {
  asm volatile("tileloaddt1 (%0,%1,1), %%tmm%c2" : : "r"(at), "r"(stride), "i"(kTile) : "memory");
}
template <int kTile>
inline __attribute__((always_inline)) void tile_store(void* at, int64_t stride) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(at), "r"(stride), "i"(kTile) : "memory");
}
template <int kSum, int kA, int kB>
inline __attribute__((always_inline)) void tile_multiply() {
  asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kSum), "i"(kA), "i"(kB));
}
template <int kSum, int kA, int kB>
inline __attribute__((always_inline)) void tile_multiply_int8() {
  asm volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kSum), "i"(kA), "i"(kB));
}
template <int kSum, int kA, int kB>
inline __attribute__((always_inline)) void tile_multiply_uint8() {
  asm volatile("tdpbusd %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kSum), "i"(kA), "i"(kB));
}

}  // namespace millrace::amx
