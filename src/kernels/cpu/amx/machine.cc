#include "kernels/cpu/amx/tiles.h"
#include "kernels/cpu/machine_loops.h"

namespace millrace::amx {

int64_t multiply_bf16_tiles(int64_t rounds) {
  const TileUse use(TileShapes::full());
  for (int64_t i = 0; i < rounds; ++i) {
    tile_multiply<0, 4, 6>(), tile_multiply<1, 4, 7>();
    tile_multiply<2, 5, 6>(), tile_multiply<3, 5, 7>();
  }
  return rounds * 4 * 2 * 16 * 16 * 32;
}

int64_t multiply_int8_tiles(int64_t rounds) {
  const TileUse use(TileShapes::full());
  for (int64_t i = 0; i < rounds; ++i) {
    tile_multiply_int8<0, 4, 6>(), tile_multiply_int8<1, 4, 7>();
    tile_multiply_int8<2, 5, 6>(), tile_multiply_int8<3, 5, 7>();
  }
  return rounds * 4 * 2 * 16 * 16 * 64;
}

}  // namespace millrace::amx
