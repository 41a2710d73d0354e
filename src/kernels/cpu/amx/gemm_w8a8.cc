// gemm_w8a8 on AMX tiles. A tile of w is 64 of k for the sixteen columns of a panel, as it lies in memory; x is
// quantised once into tiles of sixteen rows.
#include <immintrin.h>

#include <algorithm>

#include "kernels/cpu/amx/blocks.h"
#include "kernels/cpu/amx/tiles.h"
#include "kernels/cpu/avx512/quantize.h"
#include "kernels/cpu/avx512/vec.h"
#include "kernels/cpu/gemm_w8a8_impls.h"
#include "kernels/parallel.h"

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")
namespace millrace::amx {
namespace {

using avx512::Vec;
#include "kernels/cpu/simd/math.inl"

constexpr int64_t kStepK = 64;  // of k in a tile

// Scratch: packed rows, their scales, blocks.
struct Format {
  explicit Format(const GemmW8A8Args& args)
      : a(args),
        layout(args),
        steps(layout.padded_k / kStepK),
        tile_rows((args.M + 15) / 16),
        panels(layout.panels),
        rows{args.scratch, tile_rows, steps},
        scales(reinterpret_cast<float*>(args.scratch + tile_rows * steps * kTileBytes)) {}
  std::byte* blocks() const { return reinterpret_cast<std::byte*>(scales + tile_rows * 16); }

  // Rows of a tile beyond M stay as they are: their sums are not looked at.
  void pack_row(int64_t row) const {
    std::byte* to = nullptr;
    scales[row] = avx512::quantize_row(a, row, layout.padded_k, [&](int64_t k, __m128i bytes) {
      if (k % kStepK == 0) to = rows.at(row / 16, k / kStepK) + row % 16 * 64;
      _mm_store_si128(reinterpret_cast<__m128i*>(to + k % kStepK), bytes);
    });
  }

  const std::byte* row_tile(int64_t tile_row, int64_t step) const { return rows.at(tile_row, step); }
  const std::byte* panel(int64_t p) const { return layout.panel(a, p); }
  int64_t second_panel(int64_t pair) const { return std::min(2 * pair + 1, panels - 1); }
  void weights(int64_t pair, int64_t from, int64_t, std::byte*, const std::byte* (&at)[2]) const {
    at[0] = panel(2 * pair) + from * kTileBytes;
    at[1] = panel(second_panel(pair)) + from * kTileBytes;
  }
  Ahead packed(int64_t pair, int64_t step) const {
    return {panel(2 * pair) + step * kTileBytes, panel(second_panel(pair)) + step * kTileBytes, kStretchBytes};
  }
  template <int kSum, int kX, int kW>
  static void multiply() {
    tile_multiply_int8<kSum, kX, kW>();
  }
  void store_row(int64_t row, int64_t p, const std::byte* sums) const {
    const int64_t column = p * 16, n = lanes_left(column, a.N);
    Vec y{_mm512_cvtepi32_ps(_mm512_load_si512(sums))};
    y = y * Vec::load_n(a.scales + column, n) * Vec::set(scales[row]);
    if (a.bias) y = y + Vec::load_n(a.bias + column, n);
    y.store_n(a.y + row * a.y_stride + column, n);
  }
  void store(int64_t tile_row, int64_t p, const std::byte* sums) const {
    for (int64_t r = 0; r < std::min<int64_t>(16, a.M - tile_row * 16); ++r)
      store_row(tile_row * 16 + r, p, sums + r * 64);
  }

  const GemmW8A8Args& a;
  const W8A8Layout layout;
  const int64_t steps, tile_rows, panels;
  const PackedRows rows;
  float* const scales;
};

// ---- up to 32 rows: every panel is read once, straight through ----

inline __attribute__((always_inline)) void prefetch_step(const std::byte* at) {
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) _mm_prefetch(reinterpret_cast<const char*>(at + 64 * i), _MM_HINT_T0);
}

constexpr int64_t kAheadBytes = 8 << 10;

template <bool kTwoX, bool kTwo>
void multiply_panels(const Format& f, int64_t p) {
  const std::byte *first = f.panel(p), *second = f.panel(kTwo ? p + 1 : p);
  tile_zero<0>(), tile_zero<1>(), tile_zero<2>(), tile_zero<3>();
  for (int64_t s = 0; s < f.steps; ++s) {
    const int64_t at = s * kTileBytes;
    prefetch_step(first + at + kAheadBytes);
    tile_load<6>(first + at, 64);
    tile_load<4>(f.row_tile(0, s), 64);
    tile_multiply_int8<0, 4, 6>();
    if constexpr (kTwo) {
      prefetch_step(second + at + kAheadBytes);
      tile_load<7>(second + at, 64);
      tile_multiply_int8<1, 4, 7>();
    }
    if constexpr (kTwoX) {
      tile_load<5>(f.row_tile(1, s), 64);
      tile_multiply_int8<2, 5, 6>();
      if constexpr (kTwo) tile_multiply_int8<3, 5, 7>();
    }
  }
  alignas(64) std::byte sums[4][kTileBytes];
  tile_store<0>(sums[0], 64), tile_store<1>(sums[1], 64), tile_store<2>(sums[2], 64), tile_store<3>(sums[3], 64);
  for (int t = 0; t < (kTwoX ? 2 : 1); ++t)
    for (int i = 0; i < (kTwo ? 2 : 1); ++i) f.store(t, p + i, sums[2 * t + i]);
}

template <bool kTwoX>
void run_thin(const Format& f, WorkQueue& queue, int64_t panels_each) {
  TileShapes shapes = TileShapes::full();
  for (const int tile : {0, 1, 4}) shapes.set(tile, std::min<int64_t>(16, f.a.M), 64);
  const TileUse use(shapes);
  for (int64_t item = queue.next(); item >= 0; item = queue.next()) {
    const int64_t end = std::min(f.panels, (item + 1) * panels_each);
    for (int64_t p = item * panels_each; p < end; p += 2)
      p + 1 < end ? multiply_panels<kTwoX, true>(f, p) : multiply_panels<kTwoX, false>(f, p);
  }
}

void gemm_thin(const Format& f) {
  constexpr int64_t kItemBytes = 256 << 10;  // what a thread takes at a time: enough to stream, little to wait for
  const int64_t panels_each = std::max<int64_t>(2, kItemBytes / f.layout.panel_bytes / 2 * 2);
  WorkQueue queue((f.panels + panels_each - 1) / panels_each);
  const auto work = [&](const TeamMember& me) {
    for (int64_t m = me.index; m < f.a.M; m += me.size) f.pack_row(m);
    me.barrier();
    f.tile_rows == 2 ? run_thin<true>(f, queue, panels_each) : run_thin<false>(f, queue, panels_each);
  };
  parallel_team(work, gemm_w8a8_threads(f.a));
}

void gemm_thick(const Format& f) {
  WorkQueue queue(block_count(f));
  parallel_team([&](const TeamMember& me) {
    for (int64_t m = me.index; m < f.a.M; m += me.size) f.pack_row(m);
    me.barrier();
    run_blocks(f, queue, f.blocks() + me.index * kBlockBytes);
  });
}

}  // namespace

void gemm_w8a8(const GemmW8A8Args& a) {
  const Format format(a);
  a.M <= 32 ? gemm_thin(format) : gemm_thick(format);
}

int64_t gemm_w8a8_scratch_bytes(int64_t max_rows, int64_t K) {
  const int64_t tile_rows = (max_rows + 15) / 16;
  return tile_rows * (w8a8_padded_k(K) / kStepK * kTileBytes + 64) + compute_threads() * kBlockBytes;
}

}  // namespace millrace::amx
#pragma GCC pop_options
