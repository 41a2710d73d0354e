// gemm_a16 on AMX tiles. A panel's columns are the rows of the first operand: 32 of k of sixteen columns, unpacked to
// bf16 in the first-level cache. x is the second operand, as pairs of k: [16 pairs][up to 16 rows of x][2]. The tiles
// of sums are y transposed. Each output is summed over k from 0 up, tile after tile, whatever the number of rows.
#include <immintrin.h>

#include <algorithm>

#include "kernels/cpu/amx/blocks.h"
#include "kernels/cpu/amx/tiles.h"
#include "kernels/cpu/avx512/transpose.h"
#include "kernels/cpu/avx512/unpack.h"
#include "kernels/cpu/avx512/vec.h"
#include "kernels/cpu/gemm_a16_impls.h"
#include "kernels/parallel.h"

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx2,fma,f16c")
namespace millrace::amx {
namespace {

using avx512::Vec;
#include "kernels/cpu/simd/math.inl"

// ---- weights ----

// One chunk of a panel as tiles of 32 k: [chunk_k/32][16 columns][32].
template <A16Format kFormat, int kScales>
inline void unpack_chunk(const std::byte* chunk, std::byte* tiles) {
#pragma GCC unroll 2
  for (int n = 0; n < 16; ++n) {
    std::byte* row = tiles + n * 64;
    if constexpr (kFormat == A16Format::kInt8) {
      _mm512_store_si512(row, avx512::unpack_int8_unit(chunk + n * 64));
      _mm512_store_si512(row + kTileBytes, avx512::unpack_int8_unit(chunk + n * 64 + 32));
    } else {
      __m512i units[4];
      avx512::unpack_int4_units<kScales>(chunk + kScales * 64 + n * 64, chunk + n * 4, units);
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) _mm512_store_si512(row + i * kTileBytes, units[i]);
    }
  }
}

inline void prefetch_chunk(const std::byte* at, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += 64) _mm_prefetch(reinterpret_cast<const char*>(at + i), _MM_HINT_T0);
}

// ---- x ----

inline __mmask16 lanes_below(int64_t n) {
  return static_cast<__mmask16>(n >= 16 ? 0xffff : n <= 0 ? 0 : (1u << n) - 1);
}

// 32 elements of a row from k on, zero from K on.
inline __m512i load_row(const GemmA16Args& a, int64_t row, int64_t k) {
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

// 32 of k of rows [first, first + rows) as [16 pairs][width][2], zero beyond the rows.
inline void pack_tile(const GemmA16Args& a, int64_t first, int64_t rows, int64_t k, int64_t width, std::byte* to) {
  __m512i tile[16];
  for (int64_t r = 0; r < 16; ++r) tile[r] = r < rows ? load_row(a, first + r, k) : _mm512_setzero_si512();
  avx512::transpose(tile);
  for (int64_t pair = 0; pair < 16; ++pair)
    _mm512_mask_storeu_epi32(to + pair * width * 4, lanes_below(width), tile[pair]);
}

// ---- y ----

// Rows of y from sixteen columns of sums, each with its rows of y as lanes.
inline void store_rows(const GemmA16Args& a, int64_t first, int64_t rows, int64_t panel, const std::byte* sums) {
  const int64_t column = panel * 16, n = lanes_left(column, a.N);
  __m512i tile[16];
  for (int i = 0; i < 16; ++i) tile[i] = _mm512_load_si512(sums + i * 64);
  avx512::transpose(tile);
  const Vec scale = a.scales ? Vec::load_n(a.scales + column, n) : Vec::zero();
  const Vec bias = a.bias ? Vec::load_n(a.bias + column, n) : Vec::zero();
  for (int64_t r = 0; r < rows; ++r) {
    Vec y{_mm512_castsi512_ps(tile[r])};
    if (a.scales) y = y * scale;
    if (a.bias) y = y + bias;
    y.store_n(a.y + (first + r) * a.y_stride + column, n);
  }
}

// ---- up to 32 rows: every panel is read once, straight through ----

template <A16Format kFormat, int kScales>
struct Thin {
  static constexpr int64_t kChunkSteps = kFormat == A16Format::kInt8 ? 2 : 4;
  static constexpr int64_t kChunkBytes = 1024 + 64 * kScales;
  static constexpr int64_t kAhead = 8;  // chunks that are fetched ahead of use

  explicit Thin(const GemmA16Args& args) : a(args), layout(args) {}
  int64_t steps() const { return layout.padded_k / kTileK; }
  int64_t x_tiles() const { return (a.M + 15) / 16; }
  int64_t width(int64_t tile) const { return std::min<int64_t>(16, a.M - tile * 16); }
  std::byte* x_tile(int64_t tile, int64_t step) const {
    return a.scratch + (tile * steps() + step) * kTileBytes * width(0) / 16;
  }
  void pack_x(const TeamMember& me) const {
    for (int64_t t = 0; t < x_tiles(); ++t)
      for (int64_t s = me.index; s < steps(); s += me.size)
        pack_tile(a, t * 16, width(t), s * kTileK, width(t), x_tile(t, s));
  }
  TileShapes shapes() const {
    TileShapes shapes = TileShapes::full();
    for (const int tile : {0, 1, 4}) shapes.set(tile, 16, 4 * width(0));
    if (x_tiles() == 2)
      for (const int tile : {2, 3, 5}) shapes.set(tile, 16, 4 * width(1));
    return shapes;
  }

  // One chunk's tiles of one panel, or of two, against x.
  template <bool kTwoX, bool kTwo>
  inline void multiply(int64_t step, const std::byte* tiles) const {
#pragma GCC unroll 4
    for (int64_t s = 0; s < kChunkSteps; ++s) {
      tile_load<6>(tiles + s * kTileBytes, 64);
      if constexpr (kTwo) tile_load<7>(tiles + (kChunkSteps + s) * kTileBytes, 64);
      tile_load<4>(x_tile(0, step + s), 4 * width(0));
      tile_multiply<0, 6, 4>();
      if constexpr (kTwo) tile_multiply<1, 7, 4>();
      if constexpr (kTwoX) {
        tile_load<5>(x_tile(1, step + s), 4 * width(1));
        tile_multiply<2, 6, 5>();
        if constexpr (kTwo) tile_multiply<3, 7, 5>();
      }
    }
  }

  // The tiles of a chunk are multiplied while the next chunk is unpacked.
  template <bool kTwoX, bool kTwo>
  void run_panels(int64_t panel) const {
    alignas(64) std::byte tiles[2][2 * kChunkSteps * kTileBytes];
    const std::byte* first = a.w + panel * layout.panel_bytes;
    const std::byte* second = first + layout.panel_bytes;
    const auto unpack = [&](int64_t chunk) {
      std::byte* to = tiles[chunk % 2];
      const int64_t at = chunk * kChunkBytes;
      prefetch_chunk(first + at + kAhead * kChunkBytes, kChunkBytes);
      unpack_chunk<kFormat, kScales>(first + at, to);
      if constexpr (kTwo) {
        prefetch_chunk(second + at + kAhead * kChunkBytes, kChunkBytes);
        unpack_chunk<kFormat, kScales>(second + at, to + kChunkSteps * kTileBytes);
      }
    };
    tile_zero<0>(), tile_zero<1>(), tile_zero<2>(), tile_zero<3>();
    const int64_t chunks = steps() / kChunkSteps;
    unpack(0);
    for (int64_t c = 0; c < chunks; ++c) {
      if (c + 1 < chunks) unpack(c + 1);
      multiply<kTwoX, kTwo>(c * kChunkSteps, tiles[c % 2]);
    }
    store<kTwoX, kTwo>(panel);
  }

  template <bool kTwoX, bool kTwo>
  void store(int64_t panel) const {
    alignas(64) std::byte sums[4][kTileBytes] = {};
    tile_store<0>(sums[0], 64);
    if constexpr (kTwo) tile_store<1>(sums[1], 64);
    if constexpr (kTwoX) tile_store<2>(sums[2], 64);
    if constexpr (kTwoX && kTwo) tile_store<3>(sums[3], 64);
    for (int64_t t = 0; t < (kTwoX ? 2 : 1); ++t)
      for (int64_t p = 0; p < (kTwo ? 2 : 1); ++p) store_rows(a, t * 16, width(t), panel + p, sums[2 * t + p]);
  }

  template <bool kTwoX>
  void run_queue(WorkQueue& queue, int64_t pairs_each) const {
    const TileUse use(shapes());
    for (int64_t item = queue.next(); item >= 0; item = queue.next()) {
      const int64_t end = std::min(layout.panels, (item + 1) * pairs_each * 2);
      for (int64_t panel = item * pairs_each * 2; panel < end; panel += 2)
        if (panel + 1 < end)
          run_panels<kTwoX, true>(panel);
        else
          run_panels<kTwoX, false>(panel);
    }
  }

  void run() const {
    constexpr int64_t kItemBytes = 256 << 10;  // what a thread takes at a time: enough to stream, little to wait for
    const int64_t pairs_each = std::max<int64_t>(1, kItemBytes / (2 * layout.panel_bytes));
    WorkQueue queue((layout.panels + 2 * pairs_each - 1) / (2 * pairs_each));
    const auto work = [&](const TeamMember& me) {
      pack_x(me);
      me.barrier();
      x_tiles() == 2 ? run_queue<true>(queue, pairs_each) : run_queue<false>(queue, pairs_each);
    };
    parallel_team(work, gemm_a16_threads(a));
  }

  const GemmA16Args& a;
  const A16Layout layout;
};

// ---- many rows ----

template <A16Format kFormat, int kScales>
struct Thick {
  explicit Thick(const GemmA16Args& args)
      : a(args),
        layout(args),
        steps(layout.padded_k / kTileK),
        tile_rows((args.M + 15) / 16),
        panels(layout.panels),
        rows{args.scratch, tile_rows, steps} {}

  const std::byte* row_tile(int64_t tile_row, int64_t step) const { return rows.at(tile_row, step); }
  const std::byte* chunk_at(int64_t panel, int64_t step) const {
    return a.w + panel * layout.panel_bytes + step * kTileK / layout.chunk_k * layout.chunk_bytes;
  }
  int64_t second_panel(int64_t pair) const { return std::min(2 * pair + 1, panels - 1); }
  void weights(int64_t pair, int64_t from, int64_t count, std::byte* memory, const std::byte* (&at)[2]) const {
    const int64_t panel_of[2] = {2 * pair, second_panel(pair)}, chunk_steps = layout.chunk_k / kTileK;
    for (int i = 0; i < 2; ++i) {
      std::byte* tiles = memory + i * kStretchBytes;
      const std::byte* chunk = chunk_at(panel_of[i], from);
      for (int64_t s = 0; s < count; s += chunk_steps, chunk += layout.chunk_bytes)
        unpack_chunk<kFormat, kScales>(chunk, tiles + s * kTileBytes);
      at[i] = tiles;
    }
  }
  Ahead packed(int64_t pair, int64_t step) const {
    return {chunk_at(2 * pair, step), chunk_at(second_panel(pair), step),
            kStretchSteps * kTileK / layout.chunk_k * layout.chunk_bytes};
  }
  template <int kSum, int kX, int kW>
  static void multiply() {
    tile_multiply<kSum, kW, kX>();
  }
  void store(int64_t tile_row, int64_t panel, const std::byte* sums) const {
    store_rows(a, tile_row * 16, std::min<int64_t>(16, a.M - tile_row * 16), panel, sums);
  }
  void pack_tile_row(int64_t t) const {
    for (int64_t s = 0; s < steps; ++s)
      pack_tile(a, t * 16, std::min<int64_t>(16, a.M - t * 16), s * kTileK, 16, rows.at(t, s));
  }
  void run() const {
    WorkQueue queue(block_count(*this));
    parallel_team([&](const TeamMember& me) {
      for (int64_t t = me.index; t < tile_rows; t += me.size) pack_tile_row(t);
      me.barrier();
      run_blocks(*this, queue, a.scratch + tile_rows * steps * kTileBytes + me.index * kBlockBytes);
    });
  }

  const GemmA16Args& a;
  const A16Layout layout;
  const int64_t steps, tile_rows, panels;
  const PackedRows rows;
};

constexpr int64_t kMostThinRows = 32;

template <A16Format kFormat, int kScales>
void run(const GemmA16Args& a) {
  if (a.M <= kMostThinRows)
    Thin<kFormat, kScales>(a).run();
  else
    Thick<kFormat, kScales>(a).run();
}

}  // namespace

void gemm_a16(const GemmA16Args& a) {
  switch (a16_chunk_scales(a.format, a.group, a.K)) {
    case 0:
      return run<A16Format::kInt8, 0>(a);
    case 1:
      return run<A16Format::kInt4, 1>(a);
    case 2:
      return run<A16Format::kInt4, 2>(a);
    default:
      return run<A16Format::kInt4, 4>(a);
  }
}

int64_t gemm_a16_scratch_bytes(int64_t max_rows, int64_t K, A16Format format) {
  return (max_rows + 15) / 16 * (a16_padded_k(K, format) / kTileK) * kTileBytes + compute_threads() * kBlockBytes;
}

}  // namespace millrace::amx
#pragma GCC pop_options
