// AMX tiles: their shapes, and their instructions or what stands for those where tests emulate them.
#pragma once
#include <cstdint>
#include <cstring>

#ifdef MILLRACE_EMULATE_TILES
#include "kernels/cpu/amx/emulated_tiles.h"
#else
#include "kernels/cpu/amx/tile_instructions.h"
#endif

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
  explicit TileUse(const TileShapes& shapes) { tile_configure(shapes); }
  ~TileUse() { tile_release(); }
  TileUse(const TileUse&) = delete;
  TileUse& operator=(const TileUse&) = delete;
};

}  // namespace millrace::amx
