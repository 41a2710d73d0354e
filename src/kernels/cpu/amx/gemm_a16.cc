// gemm_a16 on AMX tiles. Integers become tiles of bf16 shortly before they are multiplied: for few rows in a ring in
// the first-level cache, so far ahead that their stores are done when the tile is loaded; for many rows beside the
// products of the tiles before them. Each output is summed over k from 0 up, tile after tile, whatever the number of
// rows.
#include "kernels/cpu/amx/gemm_a16.h"

#include <immintrin.h>

#include <algorithm>

#include "kernels/cpu/avx512/transpose.h"
#include "kernels/parallel.h"

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx2,fma,f16c")
namespace millrace::amx {
namespace {

// ---- few rows: every panel is read once, straight through ----
//
// A thread goes through two runs of panels at a time, so that a tile of x is loaded for two tiles of weights. Chunks of
// weights are unpacked while earlier ones are multiplied, and fetched long before that, across the ends of runs.

// Chunks of panels that lie one after the other, run after run. Chunks are counted through all runs.
template <int64_t kBytes>
class Chunks {
 public:
  static constexpr int64_t kAhead = kFetchAhead / kBytes;

  void start(const std::byte* at, int64_t count) { here_ = next_ = at, begin_ = 0, end_ = count, last_ = count - 1; }
  // The run after this one.
  void announce(const std::byte* at, int64_t count) { next_ = at, last_ = count - 1; }
  void enter_next(int64_t count) { here_ = next_, begin_ = end_, end_ += count; }
  // Beyond the run announced (or, without one, this run again): its last chunk.
  const std::byte* at(int64_t c) const {
    return c < end_ ? here_ + (c - begin_) * kBytes : next_ + std::min(c - end_, last_) * kBytes;
  }

 private:
  const std::byte *here_ = nullptr, *next_ = nullptr;
  int64_t begin_ = 0, end_ = 0, last_ = 0;  // the last: of the run at next_
};

// Rows of x as pairs of k, [16 pairs][up to 16 rows][2]: the second operand. The tiles of sums are y transposed.
template <int kXTiles>
class PairTiles {
 public:
  PairTiles(const GemmA16Args& a, std::byte* memory) : a_(a), memory_(memory), steps_((a.K + kTileK - 1) / kTileK) {}
  int64_t steps() const { return steps_; }
  int64_t bytes() const { return kXTiles * steps_ * kTileBytes; }
  void pack(int64_t index, int64_t size) const {
    for (int64_t t = 0; t < kXTiles; ++t)
      for (int64_t s = index; s < steps_; s += size) pack_tile(t, s);
  }
  void shape(TileShapes& shapes) const {
    for (const int tile : {0, 1, 4}) shapes.set(tile, 16, 4 * width(0));
    if (kXTiles == 2)
      for (const int tile : {2, 3, 5}) shapes.set(tile, 16, 4 * width(1));
  }
  template <int kRegister>
  inline __attribute__((always_inline)) void load(int64_t step) const {
    tile_load<kRegister>(at(kRegister - 4, step), 4 * width(kRegister - 4));
  }
  template <int kSum, int kW, int kX>
  static void multiply() {
    tile_multiply<kSum, kW, kX>();
  }
  template <int kSum>
  void store(const A16Columns& columns, int64_t tile, std::byte* sums) const {
    if (a_.M == 1) {
      tile_store<kSum>(sums, 4);
      return columns.store(0, sums);
    }
    tile_store<kSum>(sums, 64);
    __m512i rows[16];
    for (int i = 0; i < 16; ++i) rows[i] = _mm512_load_si512(sums + i * 64);
    avx512::transpose(rows);
    for (int i = 0; i < 16; ++i) _mm512_store_si512(sums + i * 64, rows[i]);
    for (int64_t r = 0; r < width(tile); ++r) columns.store(tile * 16 + r, sums + r * 64);
  }

 private:
  int64_t width(int64_t tile) const { return std::min<int64_t>(16, a_.M - tile * 16); }
  std::byte* at(int64_t tile, int64_t step) const {
    return memory_ + (tile * steps_ + step) * kTileBytes * width(0) / 16;
  }
  void pack_tile(int64_t t, int64_t s) const {
    __m512i tile[16];
    for (int64_t r = 0; r < 16; ++r)
      tile[r] = r < width(t) ? load_row(a_, t * 16 + r, s * kTileK) : _mm512_setzero_si512();
    if (a_.M == 1) return _mm512_store_si512(at(t, s), tile[0]);
    avx512::transpose(tile);
    for (int64_t pair = 0; pair < 16; ++pair)
      _mm512_mask_storeu_epi32(at(t, s) + pair * width(t) * 4, lanes_below(width(t)), tile[pair]);
  }

  const GemmA16Args& a_;
  std::byte* const memory_;
  const int64_t steps_;
};

// While a chunk is multiplied the next one is unpacked, column by column, and the one after that has its tables made. A
// tile is the first operand, [16 columns][32 of k].
template <int kScales>
struct Int4Stream {
  static constexpr int64_t kChunkBytes = 1024 + 64 * kScales;

  void start() {
    tables[0].make(chunks.at(0)), tables[1].make(chunks.at(1));
    unpack<0>(0), unpack<1>(0), unpack<2>(0), unpack<3>(0);
  }
  template <int kUnit>
  std::byte* tile(int64_t c) {
    return tiles[c % 2] + kUnit * kTileBytes;
  }
  template <int kUnit>
  inline __attribute__((always_inline)) void advance(int64_t c) {
    if constexpr (kUnit == 0) tables[c % 2].start(chunks.at(c + 2));
    tables[c % 2].template make_columns<kUnit * 4, kUnit * 4 + 4>();
    unpack<kUnit>(c + 1);
  }
  template <int kQuarter>
  inline __attribute__((always_inline)) void unpack(int64_t c) {
    const std::byte* const from = chunks.at(c) + kScales * 64;
    const std::byte* const ahead = chunks.at(c + chunks.kAhead);
    if constexpr (kQuarter < kScales) fetch_line(ahead + kQuarter * 64);
#pragma GCC unroll 4
    for (int n = kQuarter * 4; n < kQuarter * 4 + 4; ++n) {
      fetch_line(ahead + (kScales + n) * 64);
      __m512i units[kInt4Units];
      avx512::unpack_int4_units(from + n * 64, tables[c % 2], n, units);
#pragma GCC unroll 4
      for (int i = 0; i < kInt4Units; ++i) _mm512_store_si512(tiles[c % 2] + i * kTileBytes + n * 64, units[i]);
    }
  }

  Chunks<kChunkBytes> chunks;
  avx512::Int4Tables<kScales> tables[2];
  alignas(64) std::byte tiles[2][kInt4Units * kTileBytes];
};

// Panels [first, first + count) and [first + count, first + 2 count).
struct Runs {
  int64_t first, count;
};

// How panels are dealt to threads: in items of an even number, the last of what is left.
struct Items {
  Items(const A16Layout& layout, int64_t threads)
      : panels(layout.panels), each(item_panels(layout, threads)), queue((panels + each - 1) / each) {}
  // No panels when all are dealt. An odd last panel belongs to nobody.
  Runs next() {
    const int64_t item = queue.next();
    return item < 0 ? Runs{0, 0} : Runs{item * each, std::min(each, panels - item * each) / 2};
  }

 private:
  // Enough to stream, little to wait for, and runs of at least the chunks that streams look ahead.
  static int64_t item_panels(const A16Layout& layout, int64_t threads) {
    constexpr int64_t kBytes = 128 << 10, kLeastChunks = 4;
    const int64_t least = 2 * (kLeastChunks * layout.chunk_bytes / layout.panel_bytes + 1);
    return std::max(least, std::min(kBytes / layout.panel_bytes, layout.panels / (4 * threads)) / 2 * 2);
  }

  const int64_t panels, each;
  WorkQueue queue;
};

template <int kScales, int kXTiles>
struct Thin {
  using Stream = Int4Stream<kScales>;
  using Rows = PairTiles<kXTiles>;

  Thin(const GemmA16Args& args, const A16Layout& layout, std::byte* memory)
      : a(args), layout(layout), x(args, memory), steps(x.steps()), chunks((steps + kInt4Units - 1) / kInt4Units) {}

  TileShapes shapes() const {
    TileShapes shapes = TileShapes::full();
    x.shape(shapes);
    return shapes;
  }
  const std::byte* panel_at(int64_t panel) const { return a.w + panel * layout.panel_bytes; }

  // One tile of run kRun, which lies at `step` of k.
  template <int kRun, int kUnit>
  inline __attribute__((always_inline)) void turn(int64_t c, int64_t step) {
    if (step < steps) {
      tile_load<6 + kRun>(streams[kRun].template tile<kUnit>(c), 64);
      if constexpr (kRun == 0) x.template load<4>(step);
      Rows::template multiply<kRun, 6 + kRun, 4>();
      if constexpr (kXTiles == 2) {
        if constexpr (kRun == 0) x.template load<5>(step);
        Rows::template multiply<2 + kRun, 6 + kRun, 5>();
      }
    }
    streams[kRun].template advance<kUnit>(c);
  }
  template <int kRuns, int kUnit>
  inline __attribute__((always_inline)) void turns(int64_t c, int64_t step) {
    turn<0, kUnit>(c, step);
    if constexpr (kRuns == 2) turn<1, kUnit>(c, step);
  }
  // A panel of each run, whose chunks are c and those that follow.
  template <int kRuns>
  inline __attribute__((always_inline)) void multiply(int64_t c) {
    tile_zero<0>(), tile_zero<1>(), tile_zero<2>(), tile_zero<3>();
    for (int64_t i = 0; i < chunks; ++i, ++c) {
      const int64_t step = i * kInt4Units;
      turns<kRuns, 0>(c, step), turns<kRuns, 1>(c, step + 1);
      turns<kRuns, 2>(c, step + 2), turns<kRuns, 3>(c, step + 3);
    }
  }
  template <int kRun>
  void store(int64_t panel) {
    const A16Columns columns(a, panel);
    x.template store<kRun>(columns, 0, sums);
    if constexpr (kXTiles == 2) x.template store<kRun + 2>(columns, 1, sums);
  }

  void fetch_first(const Runs& runs) {
    for (const int64_t panel : {runs.first, runs.first + runs.count})
      for (int64_t i = 0; i < kFetchAhead; i += 64) fetch_line(panel_at(panel) + i);
  }
  Runs next_runs(Items& items) {
    const Runs next = items.next();
    if (next.count > 0) {
      streams[0].chunks.announce(panel_at(next.first), next.count * chunks);
      streams[1].chunks.announce(panel_at(next.first + next.count), next.count * chunks);
    }
    return next;
  }
  void run(Runs now, Items& items) {
    streams[0].chunks.start(panel_at(now.first), now.count * chunks);
    streams[1].chunks.start(panel_at(now.first + now.count), now.count * chunks);
    Runs next = next_runs(items);
    streams[0].start(), streams[1].start();
    for (int64_t c = 0; now.count > 0; next = next_runs(items)) {
      for (int64_t p = now.first; p < now.first + now.count; ++p, c += chunks) {
        multiply<2>(c);
        store<0>(p);
        store<1>(p + now.count);
      }
      now = next;
      for (Stream& stream : streams) stream.chunks.enter_next(now.count * chunks);
    }
  }
  void run_last(int64_t panel) {
    streams[0].chunks.start(panel_at(panel), chunks);
    streams[0].start();
    multiply<1>(0);
    store<0>(panel);
  }

  const GemmA16Args& a;
  const A16Layout& layout;
  const Rows x;
  const int64_t steps, chunks;
  Stream streams[2];
  alignas(64) std::byte sums[kTileBytes] = {};
};

template <int kScales, int kXTiles>
void run_thin(const GemmA16Args& a) {
  const A16Layout layout(a);
  Items items(layout, compute_threads());
  // Few rows of little K are packed by every thread for itself: sooner done than waited for.
  const bool apart = a.M <= 4 && Thin<kScales, kXTiles>(a, layout, a.scratch).x.bytes() <= kOwnBytes;
  const auto work = [&](const TeamMember& me) {
    Thin<kScales, kXTiles> thin(a, layout, a.scratch + (apart ? me.index * kOwnBytes : 0));
    const Runs first = items.next();
    if (first.count > 0) thin.fetch_first(first);
    if (apart) {
      thin.x.pack(0, 1);
    } else {
      thin.x.pack(me.index, me.size);
      me.barrier();
    }
    const TileUse use(thin.shapes());
    if (first.count > 0) thin.run(first, items);
    if (layout.panels % 2 == 1 && me.index == 0) thin.run_last(layout.panels - 1);
  };
  parallel_team(work, gemm_a16_threads(a));
}

}  // namespace

void gemm_a16(const GemmA16Args& a) {
  if (a.M > kThinTileRows * kTileRows) return gemm_a16_many_rows(a);
  with_scales(a, [&]<int kScales>() { a.M <= kTileRows ? run_thin<kScales, 1>(a) : run_thin<kScales, 2>(a); });
}

int64_t gemm_a16_scratch_bytes(int64_t max_rows, int64_t K) {
  const int64_t row_bytes = a16_padded_k(K) / kTileK * kTileBytes;  // of sixteen
  return (max_rows + 15) / 16 * row_bytes + compute_threads() * gemm_a16_own_bytes();
}

}  // namespace millrace::amx
#pragma GCC pop_options
