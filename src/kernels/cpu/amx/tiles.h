// AMX tiles as inline assembly. The compiler's own intrinsics do not tell it which memory a tile load or a
// configuration reads; these do, at the price of a barrier for memory accesses around each.
#pragma once
#include <cstdint>
#include <cstring>

namespace millrace::amx {

constexpr int64_t kTileRows = 16, kTileBytes = 1024;
constexpr int64_t kTileK = 32;  // bf16 elements in a row of a tile

// Shapes of the eight tile registers, in the form ldtilecfg reads.
struct alignas(64) TileShapes {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};

  void set(int tile, int64_t tile_rows, int64_t bytes) {
    rows[tile] = static_cast<uint8_t>(tile_rows);
    row_bytes[tile] = static_cast<uint16_t>(bytes);
  }
  static TileShapes full() {
    TileShapes shapes;
    for (int i = 0; i < 8; ++i) shapes.set(i, kTileRows, 64);
    return shapes;
  }
};
static_assert(sizeof(TileShapes) == 64);

// Shapes the tiles of the calling thread and zeroes them; the destructor gives them back, so that context switches need
// not save them.
class TileUse {
 public:
  explicit TileUse(const TileShapes& shapes) { asm volatile("ldtilecfg %0" : : "m"(shapes) : "memory"); }
  ~TileUse() { asm volatile("tilerelease" : : : "memory"); }
  TileUse(const TileUse&) = delete;
  TileUse& operator=(const TileUse&) = delete;
};

template <int kTile>
inline __attribute__((always_inline)) void tile_zero() {
  asm volatile("tilezero %%tmm%c0" : : "i"(kTile));
}
template <int kTile>
inline __attribute__((always_inline)) void tile_load(const void* at, int64_t stride) {
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(at), "r"(stride), "i"(kTile) : "memory");
}
// For what passes through once while something else is to stay in the first-level cache.
template <int kTile>
inline __attribute__((always_inline)) void tile_load_passing(const void* at, int64_t stride) {
  asm volatile("tileloaddt1 (%0,%1,1), %%tmm%c2" : : "r"(at), "r"(stride), "i"(kTile) : "memory");
}
template <int kTile>
inline __attribute__((always_inline)) void tile_store(void* at, int64_t stride) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(at), "r"(stride), "i"(kTile) : "memory");
}
// sum += a * b: bf16 pairs, float32 sums.
template <int kSum, int kA, int kB>
inline __attribute__((always_inline)) void tile_multiply() {
  asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kSum), "i"(kA), "i"(kB));
}
template <int kSum, int kA, int kB>
inline __attribute__((always_inline)) void tile_multiply_int8() {
  asm volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kSum), "i"(kA), "i"(kB));
}
// The same with a's elements unsigned.
template <int kSum, int kA, int kB>
inline __attribute__((always_inline)) void tile_multiply_uint8() {
  asm volatile("tdpbusd %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kSum), "i"(kA), "i"(kB));
}

}  // namespace millrace::amx
