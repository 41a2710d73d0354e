#include "kernels/cpu/amx/tiles.h"
#include "kernels/cpu/machine_loops.h"

namespace millrace::amx {
namespace {

// Operands like those of real products: zeros would draw less power and be multiplied at a higher clock.
void load_noise() {
  alignas(64) uint16_t noise[4][kTileBytes / 2];
  uint32_t state = 1;
  for (auto& tile : noise)
    for (uint16_t& x : tile) {
      state = state * 1664525u + 1013904223u;
      x = static_cast<uint16_t>(0x3f00 | (state >> 16 & 0x80ff));  // bf16 of magnitude 1/2 to 2
    }
  tile_load<4>(noise[0], 64), tile_load<5>(noise[1], 64);
  tile_load<6>(noise[2], 64), tile_load<7>(noise[3], 64);
}

}  // namespace

int64_t multiply_bf16_tiles(int64_t rounds) {
  const TileUse use(TileShapes::full());
  load_noise();
  for (int64_t i = 0; i < rounds; ++i) {
    tile_multiply<0, 4, 6>(), tile_multiply<1, 4, 7>();
    tile_multiply<2, 5, 6>(), tile_multiply<3, 5, 7>();
  }
  return rounds * 4 * 2 * 16 * 16 * 32;
}

int64_t multiply_int8_tiles(int64_t rounds) {
  const TileUse use(TileShapes::full());
  load_noise();
  for (int64_t i = 0; i < rounds; ++i) {
    tile_multiply_int8<0, 4, 6>(), tile_multiply_int8<1, 4, 7>();
    tile_multiply_int8<2, 5, 6>(), tile_multiply_int8<3, 5, 7>();
  }
  return rounds * 4 * 2 * 16 * 16 * 64;
}

}  // namespace millrace::amx
