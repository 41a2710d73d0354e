// A product as its tiles lie: packed rows, panels in pairs, and how much of it is worked on at once.
#pragma once
#include <immintrin.h>

#include <algorithm>

#include "base/dtype.h"
#include "kernels/cpu/amx/tiles.h"
#include "kernels/rotated_heads.h"

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx2,fma,f16c")
namespace millrace::amx {

constexpr int64_t kStepBytes = kTileBytes;  // of a panel or of packed rows, per tile's depth of k

constexpr int64_t kThinTileRows = 2;       // up to here every panel is read once, straight through
constexpr int64_t kResidentSteps = 16;     // of a pair of panels (32 KiB) stay in the first-level cache
constexpr int64_t kMostStretchSteps = 32;  // of K that is one stretch; longer ones have stretches that stay
constexpr int64_t most_stretch_steps(int64_t steps) {
  return steps <= kMostStretchSteps ? kMostStretchSteps : kResidentSteps;
}

// The first n of sixteen lanes.
inline __mmask16 lanes_below(int64_t n) {
  return static_cast<__mmask16>(n >= 16 ? 0xffff : n <= 0 ? 0 : (1u << n) - 1);
}

// 32 elements of a row of x (kF32 or kBf16) as bf16 from k on, zero from K on.
template <class Args>
inline __m512i load_row(const Args& a, int64_t row, int64_t k) {
  const int64_t left = std::max<int64_t>(0, a.K - k), at = row * a.x_stride + k;
  if (a.x_dtype == DType::kBf16) {
    const __mmask32 mask = left >= 32 ? 0xffffffffu : (1u << left) - 1;
    return _mm512_maskz_loadu_epi16(mask, static_cast<const bf16*>(a.x) + at);
  }
  const float* x = static_cast<const float*>(a.x) + at;
  const __m512 low = _mm512_maskz_loadu_ps(lanes_below(left), x);
  const __m512 high = left > 16 ? _mm512_maskz_loadu_ps(lanes_below(left - 16), x + 16) : _mm512_setzero_ps();
  return reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high, low));
}

// The size of n's equal parts of at most `most`, a multiple of `times` of them.
constexpr int64_t balanced(int64_t n, int64_t most, int64_t times = 1) {
  const int64_t parts = (n + most * times - 1) / (most * times) * times;
  return (n + parts - 1) / parts;
}

class StoredPanels;

// Memory of a thread's own: the sums of a block.
constexpr int64_t kOwnBytes = 1 << 20;
// Tiles of a panel's stretch where they are made on the way, and a thread's memory then: those of two panels, or of a
// panel's two parts, follow the sums.
constexpr int64_t kStretchBytes = kMostStretchSteps * kTileBytes, kMakingBytes = kOwnBytes + 2 * kStretchBytes;

// How much of a product of many rows is worked on at once (below).
struct Blocking {
  int64_t tile_rows = 16;                      // of a group
  int64_t most_tile_rows = tile_rows * 3 / 2;  // up to here a group is not divided
  int64_t pairs = 32;                          // of a block, at most
  int64_t resident_tiles = 1024;               // of packed rows, beside what else the second-level cache holds
};

// A gated product's groups are twice as high where such rows stay over the whole of K: half as many weights come with
// every step. Rows of plain ones are read next by the thread that has them.
inline Blocking blocking_of(int64_t steps, bool gated) {
  const Blocking usual;
  if (!gated) return usual;
  const int64_t high = 2 * usual.tile_rows, most = usual.resident_tiles / std::max<int64_t>(steps, 1);
  if (most < high) return usual;
  return {.tile_rows = high, .most_tile_rows = std::min(most, high * 3 / 2)};
}

// Packed rows are tiles of sixteen rows, stretch after stretch of k: [K/stretch][M/16][steps][16][64 bytes]. What a
// block of outputs needs at a time is contiguous; at the strides of whole rows it would fall into few cache sets. A
// single tile is as high as there are rows.
struct PackedTiles {
  // The tile row's stretch that begins at step `from`.
  std::byte* row_stretch(int64_t tile_row, int64_t from) const {
    const int64_t count = std::min(stretch, steps - from);
    return memory + (from * tile_rows + tile_row * count) * step_bytes;
  }
  // Where the 64 bytes of a row at step `step` lie.
  std::byte* packed_row(int64_t row, int64_t step) const {
    const int64_t from = step / stretch * stretch;
    return row_stretch(row / kTileRows, from) + (step - from) * step_bytes + row % kTileRows * 64;
  }
  int64_t tiles_bytes() const { return tile_rows * steps * step_bytes; }

  std::byte* memory;
  int64_t tile_rows, steps;
  int64_t stretch;     // steps that are worked on at a time
  int64_t step_bytes;  // of a tile row, per tile's depth of k
};

constexpr int64_t bf16_steps(int64_t K) { return (K + kTileK - 1) / kTileK; }
constexpr int64_t tile_rows_of(int64_t M) { return (M + kTileRows - 1) / kTileRows; }

// Packed rows of many rows of x, whose stretches are `stretch` steps.
inline PackedTiles thick_tiles(std::byte* memory, int64_t M, int64_t steps, int64_t stretch) {
  return {.memory = memory, .tile_rows = tile_rows_of(M), .steps = steps, .stretch = stretch, .step_bytes = kStepBytes};
}
// Those of stored panels: equal stretches.
inline PackedTiles thick_tiles(std::byte* memory, int64_t M, int64_t steps) {
  return thick_tiles(memory, M, steps, balanced(steps, most_stretch_steps(steps)));
}
// Of few rows, whose tiles are as high as there are rows and one stretch each.
inline PackedTiles thin_tiles(std::byte* memory, int64_t M, int64_t steps) {
  PackedTiles tiles = thick_tiles(memory, M, steps, steps);
  if (tiles.tile_rows == 1) tiles.step_bytes = M * 64;
  return tiles;
}
constexpr bool is_thin(int64_t M) { return tile_rows_of(M) <= kThinTileRows; }

// Where a pair of gated panels leaves its outputs in packed rows of bf16: half of every tile row's tile.
class PackedHalf {
 public:
  // `half_bytes`: from a tile's first half to its second.
  PackedHalf(const PackedTiles& to, int64_t pair, int64_t pairs, int64_t half_bytes)
      : first_(to.packed_row(0, pair / 2) + pair % 2 * half_bytes),
        tile_row_bytes_(to.row_stretch(1, stretch_of(to, pair)) - to.row_stretch(0, stretch_of(to, pair))),
        closes_(pair + 1 == pairs && pair % 2 == 0) {}
  std::byte* of_tile_row(int64_t tile_row) const { return first_ + tile_row * tile_row_bytes_; }
  // Whether the tile's other half lies beyond K.
  bool closes() const { return closes_; }

 private:
  static int64_t stretch_of(const PackedTiles& to, int64_t pair) { return pair / 2 / to.stretch * to.stretch; }
  std::byte* const first_;
  const int64_t tile_row_bytes_;
  const bool closes_;
};

// Where tiles of panels are made on the way: once for 512 rows of tiles. Rows stay over the whole of K where they fit,
// else for a stretch beside the sums of as many pairs as there is memory for: a block's rows come from the third-level
// cache once.
inline Blocking blocking_of_made(const PackedTiles& rows) {
  const bool fit = std::min<int64_t>(rows.tile_rows, 32) * rows.steps <= 1024;
  return {.tile_rows = 32, .resident_tiles = fit ? 1024 : 512};
}

// In pairs of panels that are multiplied together: neighbours, a gate and its up panel, or halves of a head.
struct TileProduct : PackedTiles {
  using Panels = StoredPanels;
  static constexpr int kDigits = 1;
  static constexpr int64_t kOwn = kOwnBytes;  // of a thread's own memory

  // M: rows of tiles. `heads`: null where outputs are none.
  TileProduct(const void* w, std::byte* memory, int64_t M, int64_t N, int64_t steps, bool gated,
              const RotatedHeads* heads)
      : PackedTiles(is_thin(M) ? thin_tiles(memory, M, steps) : thick_tiles(memory, M, steps)),
        w(static_cast<const std::byte*>(w)),
        M(M),
        N(N),
        panel_bytes(steps * kStepBytes),
        panels((N + 15) / 16),
        pairs((panels + 1) / 2),
        apart(gated   ? panels / 2
              : heads ? heads->head_dim / 32
                      : 1),
        thin(is_thin(M)),
        blocking(blocking_of(steps, gated)) {}

  int64_t first_panel(int64_t pair) const { return pair / apart * 2 * apart + pair % apart; }
  int64_t second_panel(int64_t pair) const { return first_panel(pair) + apart; }
  bool has_second(int64_t pair) const { return second_panel(pair) < panels; }
  const std::byte* first(int64_t pair) const { return panel(first_panel(pair)); }
  // Null where the last pair is a single panel.
  const std::byte* second(int64_t pair) const { return has_second(pair) ? panel(second_panel(pair)) : nullptr; }
  const std::byte* panel(int64_t p) const { return w + p * panel_bytes; }

  int64_t rows_to_pack() const { return tile_rows == 1 ? M : tile_rows * kTileRows; }

  const std::byte* w;
  int64_t M, N, panel_bytes, panels, pairs;
  int64_t apart;  // panels from a pair's first to its second
  bool thin;      // few rows: every panel is read once, straight through
  Blocking blocking;
};

// Sums lie in tiles: [row pair][tile row][panel].
constexpr int64_t kSumsBytes = 4 * kTileBytes;

template <class Byte>
Byte* sums_of_row(Byte* sums, int64_t row) {
  const auto at = static_cast<uint64_t>(row);
  return sums + at / kTileRows * 2 * kTileBytes + at % kTileRows * 64;
}

}  // namespace millrace::amx
#pragma GCC pop_options
