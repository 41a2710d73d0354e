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

inline __attribute__((always_inline)) void prefetch(const std::byte* at) {
  _mm_prefetch(reinterpret_cast<const char*>(at), _MM_HINT_T1);
}

// Chunks of a panel become tiles of 32 k: [chunk_k/32][16 columns][32]. Tables are what unpacking a chunk needs beside
// the chunk.
template <A16Format kFormat, int kScales>
struct Unpacker;

template <>
struct Unpacker<A16Format::kInt8, 0> {
  struct Tables {
    void make(const std::byte*) {}
  };
  template <int kBegin, int kEnd, int64_t kAhead = 0>
  static inline __attribute__((always_inline)) void columns(const std::byte* chunk, const Tables&, std::byte* tiles) {
#pragma GCC unroll 16
    for (int n = kBegin; n < kEnd; ++n) {
      if constexpr (kAhead > 0) prefetch(chunk + n * 64 + kAhead);
      _mm512_store_si512(tiles + n * 64, avx512::unpack_int8_unit(chunk + n * 64));
      _mm512_store_si512(tiles + kTileBytes + n * 64, avx512::unpack_int8_unit(chunk + n * 64 + 32));
    }
  }
};

template <int kScales>
struct Unpacker<A16Format::kInt4, kScales> {
  using Tables = avx512::Int4Tables<kScales>;
  template <int kBegin, int kEnd, int64_t kAhead = 0>
  static inline __attribute__((always_inline)) void columns(const std::byte* chunk, const Tables& tables,
                                                            std::byte* tiles) {
#pragma GCC unroll 16
    for (int n = kBegin; n < kEnd; ++n) {
      if constexpr (kAhead > 0) prefetch(chunk + kScales * 64 + n * 64 + kAhead);
      if (kAhead > 0 && n % 4 == 0 && n / 4 < kScales) prefetch(chunk + n / 4 * 64 + kAhead);
      __m512i units[4];
      avx512::unpack_int4_units(chunk + kScales * 64 + n * 64, tables, n, units);
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) _mm512_store_si512(tiles + i * kTileBytes + n * 64, units[i]);
    }
  }
};

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

  // One step of a chunk's tiles, of one panel or two, against x.
  template <bool kTwoX, bool kTwo>
  inline __attribute__((always_inline)) void multiply(int64_t step, const std::byte* first,
                                                      const std::byte* second) const {
    tile_load<6>(first, 64);
    if constexpr (kTwo) tile_load<7>(second, 64);
    tile_load<4>(x_tile(0, step), 4 * width(0));
    tile_multiply<0, 6, 4>();
    if constexpr (kTwo) tile_multiply<1, 7, 4>();
    if constexpr (kTwoX) {
      tile_load<5>(x_tile(1, step), 4 * width(1));
      tile_multiply<2, 6, 5>();
      if constexpr (kTwo) tile_multiply<3, 7, 5>();
    }
  }

  // Panels on their way, one chunk after the other: a chunk's tiles are multiplied while the next chunk is unpacked and
  // the tables of the one after it are made.
  struct Stream {
    using Use = Unpacker<kFormat, kScales>;
    Stream(const std::byte* panels, int64_t chunks) : at(panels), last(chunks - 1) {
      tables[0].make(chunk(0));
      tables[1].make(chunk(1));
      Use::template columns<0, 16>(chunk(0), tables[0], tiles[0]);
    }
    const std::byte* chunk(int64_t c) const { return at + std::min(c, last) * kChunkBytes; }
    void start_turns(int64_t c) { tables[c % 2].make(chunk(c + 2)); }
    // Unpacks a share of chunk c + 1, short enough for the processor to multiply meanwhile.
    template <int kTurn>
    inline __attribute__((always_inline)) void turn(int64_t c) {
      constexpr int kColumns = 16 / kChunkSteps, kBegin = kTurn * kColumns;
      Use::template columns<kBegin, kBegin + kColumns, kAhead * kChunkBytes>(chunk(c + 1), tables[(c + 1) % 2],
                                                                             tiles[(c + 1) % 2]);
    }
    const std::byte* tile(int64_t c, int64_t step) const { return tiles[c % 2] + step * kTileBytes; }

    const std::byte* const at;
    const int64_t last;
    typename Use::Tables tables[2];
    alignas(64) std::byte tiles[2][kChunkSteps * kTileBytes];
  };

  // Panels [first, first + count), and as many from `second` on where kTwo.
  template <bool kTwoX, bool kTwo>
  void run_panels(int64_t first, int64_t second, int64_t count) const {
    const int64_t chunks = steps() / kChunkSteps;
    Stream one(a.w + first * layout.panel_bytes, count * chunks),
        two(a.w + second * layout.panel_bytes, count * chunks);
    for (int64_t panel = 0, c = 0; panel < count; ++panel) {
      tile_zero<0>(), tile_zero<1>(), tile_zero<2>(), tile_zero<3>();
      for (int64_t step = 0; step < steps(); step += kChunkSteps, ++c) {
        one.start_turns(c);
        if constexpr (kTwo) two.start_turns(c);
        const auto turn = [&]<int kTurn>(std::integral_constant<int, kTurn>) {
          one.template turn<kTurn>(c);
          if constexpr (kTwo) two.template turn<kTurn>(c);
          multiply<kTwoX, kTwo>(step + kTurn, one.tile(c, kTurn), two.tile(c, kTurn));
        };
        turn(std::integral_constant<int, 0>()), turn(std::integral_constant<int, 1>());
        if constexpr (kChunkSteps == 4) turn(std::integral_constant<int, 2>()), turn(std::integral_constant<int, 3>());
      }
      store<kTwoX, kTwo>(first + panel, second + panel);
    }
  }

  template <bool kTwoX, bool kTwo>
  void store(int64_t first, int64_t second) const {
    alignas(64) std::byte sums[4][kTileBytes] = {};
    tile_store<0>(sums[0], 64);
    if constexpr (kTwo) tile_store<1>(sums[1], 64);
    if constexpr (kTwoX) tile_store<2>(sums[2], 64);
    if constexpr (kTwoX && kTwo) tile_store<3>(sums[3], 64);
    for (int64_t t = 0; t < (kTwoX ? 2 : 1); ++t) {
      store_rows(a, t * 16, width(t), first, sums[2 * t]);
      if constexpr (kTwo) store_rows(a, t * 16, width(t), second, sums[2 * t + 1]);
    }
  }

  template <bool kTwoX>
  void run_queue(WorkQueue& queue, int64_t panels_each) const {
    const TileUse use(shapes());
    for (int64_t item = queue.next(); item >= 0; item = queue.next()) {
      const int64_t first = item * panels_each, count = std::min(panels_each, layout.panels - first);
      if (count / 2 > 0) run_panels<kTwoX, true>(first, first + count / 2, count / 2);
      if (count % 2 == 1) run_panels<kTwoX, false>(first + count - 1, first + count - 1, 1);
    }
  }

  void run() const {
    constexpr int64_t kItemBytes = 256 << 10;  // what a thread takes at a time: enough to stream, little to wait for
    const int64_t panels_each = std::max<int64_t>(2, kItemBytes / layout.panel_bytes / 2 * 2);
    WorkQueue queue((layout.panels + panels_each - 1) / panels_each);
    const auto work = [&](const TeamMember& me) {
      pack_x(me);
      me.barrier();
      x_tiles() == 2 ? run_queue<true>(queue, panels_each) : run_queue<false>(queue, panels_each);
    };
    parallel_team(work, gemm_a16_threads(a));
  }

  const GemmA16Args& a;
  const A16Layout layout;
};

// ---- many rows ----

template <A16Format kFormat, int kScales>
struct Thick {
  using Use = Unpacker<kFormat, kScales>;
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
    typename Use::Tables tables[2];
    for (int i = 0; i < 2; ++i) {
      std::byte* tiles = memory + i * kStretchBytes;
      const std::byte* chunk = chunk_at(panel_of[i], from);
      tables[0].make(chunk);
      for (int64_t s = 0; s < count; s += chunk_steps, chunk += layout.chunk_bytes) {
        const int64_t turn = s / chunk_steps % 2;
        if (s + chunk_steps < count) tables[1 - turn].make(chunk + layout.chunk_bytes);
        Use::template columns<0, 16>(chunk, tables[turn], tiles + s * kTileBytes);
      }
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
