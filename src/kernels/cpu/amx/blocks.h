// Products of many rows on AMX tiles, for any format of the weights: blocks of outputs that stay in the second-level
// cache. A thread takes a block of kBlockTileRows x kBlockPairs outputs, whose sums lie in memory of its own. For each
// stretch of k it walks the block: a pair of panels' stretch (32 KiB) stays in the first-level cache while the rows'
// stretch (512 KiB) streams from the second.
//
// A format is a class with
//   steps, tile_rows, panels                            a step is 64 bytes of k of a row of x
//   const std::byte* row_tile(tile_row, step)           see PackedRows
//   void weights(pair, from, count, std::byte* memory, const std::byte* (&panels)[2])
//                                                       where the tiles of `count` steps of a pair of panels lie,
//                                                       unpacked into 32 KiB of memory where need be
//   Ahead packed(pair, step)                            memory that weights(pair, step, ...) will read
//   static void multiply<kSum, kX, kW>()                on tile registers
//   void store(tile_row, panel, const std::byte* sums)  16 x 16 finished sums
#pragma once
#include <immintrin.h>

#include <algorithm>

#include "kernels/cpu/amx/tiles.h"
#include "kernels/parallel.h"

namespace millrace::amx {

constexpr int64_t kStretchSteps = 16, kBlockTileRows = 32, kBlockPairs = 8;
constexpr int64_t kStretchBytes = kStretchSteps * kTileBytes;  // of a panel or of a tile row
constexpr int64_t kBlockSumBytes = kBlockTileRows * kBlockPairs * 2 * kTileBytes;
constexpr int64_t kBlockBytes = kBlockSumBytes + 2 * kStretchBytes;  // of a thread's own memory

// Tiles of sixteen rows of x, stretch after stretch of k: [steps/16][tile_rows][16][1 KiB]. What a block of outputs
// needs at a time is contiguous; at the strides of whole rows it would fall into few cache sets.
struct PackedRows {
  std::byte* at(int64_t tile_row, int64_t step) const {
    const int64_t from = step / kStretchSteps * kStretchSteps, count = std::min(kStretchSteps, steps - from);
    return memory + (from * tile_rows + tile_row * count + step - from) * kTileBytes;
  }
  std::byte* memory;
  int64_t tile_rows, steps;
};

struct Block {
  int64_t tile_row, tile_rows, pair, pairs;
  int64_t row_pairs() const { return (tile_rows + 1) / 2; }
  // The four tiles of 32 rows x 32 columns lie together: [row pair's tile row][pair's panel].
  std::byte* sums(std::byte* memory, int64_t in_pair, int64_t row_pair) const {
    return memory + (in_pair * row_pairs() + row_pair) * 4 * kTileBytes;
  }
};

// Memory of a pair of panels that will be wanted next.
struct Ahead {
  const std::byte* first;
  const std::byte* second;
  int64_t bytes = 0;  // of each
};

// Two tile rows (the second may be the first again) against two panels (likewise), `steps` of k. Meanwhile lines of
// `ahead` are fetched into the second-level cache, as many a step as `lines`.
template <class Format>
inline void multiply_stretch(const std::byte* const x[2], const std::byte* const w[2], int64_t steps, bool fresh,
                             std::byte* sums, Ahead ahead, int64_t lines) {
  if (fresh) {
    tile_zero<0>(), tile_zero<1>(), tile_zero<2>(), tile_zero<3>();
  } else {
    tile_load<0>(sums, 64), tile_load<1>(sums + kTileBytes, 64);
    tile_load<2>(sums + 2 * kTileBytes, 64), tile_load<3>(sums + 3 * kTileBytes, 64);
  }
  for (int64_t s = 0; s < steps; ++s) {
    const int64_t at = s * kTileBytes;
    for (int64_t line = s * lines; line < (s + 1) * lines; ++line) {
      _mm_prefetch(reinterpret_cast<const char*>(ahead.first + line * 64), _MM_HINT_T1);
      _mm_prefetch(reinterpret_cast<const char*>(ahead.second + line * 64), _MM_HINT_T1);
    }
    tile_load_passing<4>(x[0] + at, 64);
    tile_load<6>(w[0] + at, 64);
    Format::template multiply<0, 4, 6>();
    tile_load<7>(w[1] + at, 64);
    Format::template multiply<1, 4, 7>();
    tile_load_passing<5>(x[1] + at, 64);
    Format::template multiply<2, 5, 6>();
    Format::template multiply<3, 5, 7>();
  }
  tile_store<0>(sums, 64), tile_store<1>(sums + kTileBytes, 64);
  tile_store<2>(sums + 2 * kTileBytes, 64), tile_store<3>(sums + 3 * kTileBytes, 64);
}

template <class Format>
void run_stretch(const Format& format, const Block& b, int64_t in_pair, int64_t from, int64_t count,
                 std::byte* memory) {
  const std::byte* w[2];
  format.weights(b.pair + in_pair, from, count, memory + kBlockSumBytes, w);
  const int64_t calls = b.row_pairs() * count;
  const bool same_stretch = in_pair + 1 < b.pairs;
  const Ahead ahead = format.packed(same_stretch ? b.pair + in_pair + 1 : b.pair, same_stretch ? from : from + count);
  const int64_t lines = (ahead.bytes / 64 + calls - 1) / calls;
  for (int64_t row_pair = 0; row_pair < b.row_pairs(); ++row_pair) {
    const int64_t tile_row = b.tile_row + 2 * row_pair;
    const std::byte* row = format.row_tile(tile_row, from);
    const std::byte* x[2] = {row, 2 * row_pair + 1 == b.tile_rows ? row : format.row_tile(tile_row + 1, from)};
    const int64_t fetched = row_pair * count * lines * 64;
    multiply_stretch<Format>(x, w, count, from == 0, b.sums(memory, in_pair, row_pair),
                             {ahead.first + fetched, ahead.second + fetched}, lines);
  }
}

template <class Format>
void finish_block(const Format& format, const Block& b, std::byte* memory) {
  for (int64_t t = 0; t < b.tile_rows; ++t)
    for (int64_t p = 0; p < 2 * b.pairs && 2 * b.pair + p < format.panels; ++p)
      format.store(b.tile_row + t, 2 * b.pair + p, b.sums(memory, p / 2, t / 2) + (t % 2 * 2 + p % 2) * kTileBytes);
}

// The blocks that a thread takes from the queue; `memory`: kBlockBytes, its own.
template <class Format>
void run_blocks(const Format& format, WorkQueue& queue, std::byte* memory) {
  const TileUse use(TileShapes::full());
  const int64_t row_blocks = (format.tile_rows + kBlockTileRows - 1) / kBlockTileRows;
  const int64_t all_pairs = (format.panels + 1) / 2;
  for (int64_t item = queue.next(); item >= 0; item = queue.next()) {
    const int64_t tile_row = item % row_blocks * kBlockTileRows, pair = item / row_blocks * kBlockPairs;
    const Block b{tile_row, std::min(kBlockTileRows, format.tile_rows - tile_row), pair,
                  std::min(kBlockPairs, all_pairs - pair)};
    for (int64_t from = 0; from < format.steps; from += kStretchSteps)
      for (int64_t in_pair = 0; in_pair < b.pairs; ++in_pair)
        run_stretch(format, b, in_pair, from, std::min(kStretchSteps, format.steps - from), memory);
    finish_block(format, b, memory);
  }
}

template <class Format>
int64_t block_count(const Format& format) {
  return (format.tile_rows + kBlockTileRows - 1) / kBlockTileRows *
         (((format.panels + 1) / 2 + kBlockPairs - 1) / kBlockPairs);
}

}  // namespace millrace::amx
