// gemm_a16 on AMX tiles. Integers become tiles of bf16 shortly before they are multiplied: for few rows in a ring in
// the first-level cache, so far ahead that their stores are done when the tile is loaded; for many rows beside the
// products of the tiles before them. Each output is summed over k from 0 up, tile after tile, whatever the number of
// rows.
#include "kernels/cpu/amx/gemm_a16.h"

#include <immintrin.h>

#include <algorithm>

#include "kernels/cpu/avx512/transpose.h"
#include "kernels/cpu/gemm_grouped_impls.h"
#include "kernels/parallel.h"

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx2,fma,f16c")
namespace millrace::amx {
namespace {

using avx512::Vec;
#include "kernels/cpu/simd/math.inl"

#include "kernels/cpu/simd/activations.inl"

#include "kernels/cpu/amx/product_ends.inl"

// ---- few rows: every panel is read once, straight through ----
//
// A thread goes through two runs of panels at a time, so that a tile of x is loaded for two tiles of weights:
// neighbours, or gates and their ups. Chunks of weights are unpacked while earlier ones are multiplied, and fetched
// long before that, across the ends of runs.

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
  TileShapes shapes() const {
    TileShapes shapes = TileShapes::full();
    for (const int tile : {0, 1, 4}) shapes.set(tile, 16, 4 * width(0));
    if (kXTiles == 2)
      for (const int tile : {2, 3, 5}) shapes.set(tile, 16, 4 * width(1));
    return shapes;
  }
  template <int kRegister>
  inline __attribute__((always_inline)) void load(int64_t step) const {
    tile_load<kRegister>(at(kRegister - 4, step), 4 * width(kRegister - 4));
  }
  template <int kSum, int kW, int kX>
  static void multiply() {
    tile_multiply<kSum, kW, kX>();
  }
  // The sums in a register, of rows of tile `tile`: [width][16].
  template <int kSum>
  void take(std::byte* sums) const {
    if (a_.M == 1) return tile_store<kSum>(sums, 4);
    tile_store<kSum>(sums, 64);
    __m512i rows[16];
    for (int i = 0; i < 16; ++i) rows[i] = _mm512_load_si512(sums + i * 64);
    avx512::transpose(rows);
    for (int i = 0; i < 16; ++i) _mm512_store_si512(sums + i * 64, rows[i]);
  }
  // Rows of a tile that there are.
  int64_t width(int64_t tile) const { return std::min<int64_t>(16, a_.M - tile * 16); }

 private:
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

  using Tables = Int4Tables<kScales>;
  // What a chunk's products and the work beside them need.
  struct Chunk {
    const std::byte* tiles;  // of the chunk
    std::byte* to;           // tiles of the next one
    const Tables* tables;    // that it is unpacked with
    Tables* made;            // of the one after that
    const std::byte *from, *scales, *ahead;
  };
  inline __attribute__((always_inline)) Chunk at(int64_t c) {
    const int64_t odd = c & 1;
    return {.tiles = tiles[odd],
            .to = tiles[1 - odd],
            .tables = &tables[1 - odd],
            .made = &tables[odd],
            .from = chunks.at(c + 1) + kScales * 64,
            .scales = chunks.at(c + 2),
            .ahead = chunks.at(c + 1 + chunks.kAhead)};
  }

  void start() {
    tables[0].make(chunks.at(0)), tables[1].make(chunks.at(1));
    const Chunk first = at(-1);
    unpack<0>(first), unpack<1>(first), unpack<2>(first), unpack<3>(first);
  }
  template <int kUnit>
  static inline __attribute__((always_inline)) void advance(const Chunk& c) {
    if constexpr (kUnit == 0) c.made->start(c.scales);
    c.made->template make_columns<kUnit * 4, kUnit * 4 + 4>();
    unpack<kUnit>(c);
  }
  template <int kQuarter>
  static inline __attribute__((always_inline)) void unpack(const Chunk& c) {
    if constexpr (kQuarter < kScales) fetch_line(c.ahead + kQuarter * 64);
#pragma GCC unroll 4
    for (int n = kQuarter * 4; n < kQuarter * 4 + 4; ++n) {
      fetch_line(c.ahead + (kScales + n) * 64);
      __m512i units[kInt4Units];
      unpack_int4_units(c.from + n * 64, *c.tables, n, units);
#pragma GCC unroll 4
      for (int i = 0; i < kInt4Units; ++i) _mm512_store_si512(c.to + i * kTileBytes + n * 64, units[i]);
    }
  }

  Chunks<kChunkBytes> chunks;
  Tables tables[2];
  alignas(64) std::byte tiles[2][kInt4Units * kTileBytes];
};

// Panels [first, first + count) and [second, second + count), and whether an odd last panel comes after them.
struct Runs {
  int64_t first, second, count;
  bool odd;
};

// A product of few rows and the items it falls into: pairs of panels, an odd last panel with the last of them. Where it
// is alone the last items are small, for threads wait for who has the last one.
class FewRows {
 public:
  explicit FewRows(const GemmA16Args& args, const GatedGemmA16Args* gates = nullptr, bool alone = false)
      : a(args),
        gates(gates),
        layout(args),
        pairs_(layout.panels / 2),
        least_(least_pairs(layout)),
        each_(item_pairs()),
        large_(alone ? std::max<int64_t>(0, pairs_ - each_ * compute_threads()) / each_ : pairs_ / each_) {}
  explicit FewRows(const GatedGemmA16Args& gated) : FewRows(gated.product, &gated) {}

  const std::byte* panel_at(int64_t panel) const { return a.w + panel * layout.panel_bytes; }
  int64_t chunks() const { return layout.padded_k / kA16ChunkK; }  // of a panel
  int64_t items() const { return std::max<int64_t>(1, large_ + (pairs_ - large_ * each_ + least_ - 1) / least_); }
  Runs runs(int64_t item) const {
    const bool large = item < large_;
    const int64_t begin = large ? item * each_ : large_ * each_ + (item - large_) * least_;
    const int64_t count = std::min(large ? each_ : least_, pairs_ - begin), first = gates ? begin : 2 * begin;
    return {first, gates ? begin + pairs_ : first + count, count, item + 1 == items() && layout.panels % 2 == 1};
  }
  void fetch_first(const Runs& runs) const {
    for (const int64_t panel : {runs.first, runs.second})
      for (int64_t i = 0; i < kFetchAhead; i += 64) fetch_line(panel_at(panel) + i);
  }

  const GemmA16Args& a;
  const GatedGemmA16Args* const gates;  // or null
  const A16Layout layout;

 private:
  // An item has its price, and streams look two chunks ahead.
  static int64_t least_pairs(const A16Layout& layout) {
    constexpr int64_t kBytes = 16 << 10, kChunks = 4;  // of a run
    return std::max(kChunks * layout.chunk_bytes / layout.panel_bytes + 1, kBytes / layout.panel_bytes);
  }
  // Enough to stream, little to wait for.
  int64_t item_pairs() const {
    constexpr int64_t kBytes = 64 << 10;  // of a run
    return std::max(least_, std::min(kBytes / layout.panel_bytes, layout.panels / (8 * compute_threads())));
  }
  const int64_t pairs_;
  const int64_t least_, each_;  // pairs of small items and of large ones
  const int64_t large_;         // items
};

// What a thread keeps from item to item.
template <int kScales>
struct Streams {
  void enter(const FewRows& product, const Runs& runs) {
    of[0].chunks.start(product.panel_at(runs.first), runs.count * product.chunks());
    of[1].chunks.start(product.panel_at(runs.second), runs.count * product.chunks());
    chunk = 0;
  }
  // What follows the runs that were entered.
  void announce(const FewRows& product, const Runs& runs) {
    of[0].chunks.announce(product.panel_at(runs.first), runs.count * product.chunks());
    of[1].chunks.announce(product.panel_at(runs.second), runs.count * product.chunks());
  }
  void start() { of[0].start(), of[1].start(); }
  void enter_announced(const FewRows& product, const Runs& runs) {
    for (auto& stream : of) stream.chunks.enter_next(runs.count * product.chunks());
  }

  Int4Stream<kScales> of[2];
  int64_t chunk = 0;  // that comes next in both
  alignas(64) std::byte sums[2 * kTileBytes] = {};
};

// The gated unit on sixteen gates and ups of each of `rows` rows.
template <class Act>
void store_gated(const FewRows& product, int64_t pair, int64_t row, int64_t rows, const std::byte* sums) {
  const float* const bias = product.a.bias;
  const GatedRows to(*product.gates, pair * 16);
  for (int64_t r = 0; r < rows; ++r, sums += 64) {
    Vec gate = Vec::load(reinterpret_cast<const float*>(sums));
    Vec up = Vec::load(reinterpret_cast<const float*>(sums + kTileBytes));
    if (bias) gate = gate + Vec::load(bias + pair * 16), up = up + Vec::load(bias + product.a.N / 2 + pair * 16);
    to.store(row + r, Act::apply(gate) * up);
  }
}

template <int kScales, int kXTiles>
struct Thin {
  Thin(const FewRows& product, Streams<kScales>& streams, std::byte* memory)
      : product(product), streams(streams), x(product.a, memory), steps(x.steps()), chunks(product.chunks()) {}

  using Chunk = typename Int4Stream<kScales>::Chunk;
  // One tile of run kRun, which lies at `step` of k.
  template <int kRun, int kUnit>
  inline __attribute__((always_inline)) void turn(const Chunk& c, int64_t step) {
    if (step < steps) {
      tile_load<6 + kRun>(c.tiles + kUnit * kTileBytes, 64);
      if constexpr (kRun == 0) x.template load<4>(step);
      PairTiles<kXTiles>::template multiply<kRun, 6 + kRun, 4>();
      if constexpr (kXTiles == 2) {
        if constexpr (kRun == 0) x.template load<5>(step);
        PairTiles<kXTiles>::template multiply<2 + kRun, 6 + kRun, 5>();
      }
    }
    Int4Stream<kScales>::template advance<kUnit>(c);
  }
  template <int kRuns, int kUnit>
  inline __attribute__((always_inline)) void turns(const Chunk (&c)[2], int64_t step) {
    turn<0, kUnit>(c[0], step);
    if constexpr (kRuns == 2) turn<1, kUnit>(c[1], step);
  }
  // A panel of each run, whose chunks are c and those that follow.
  template <int kRuns>
  inline __attribute__((always_inline)) void multiply(int64_t c) {
    tile_zero<0>(), tile_zero<1>(), tile_zero<2>(), tile_zero<3>();
    for (int64_t i = 0; i < chunks; ++i, ++c) {
      const int64_t step = i * kInt4Units;
      const Chunk now[2] = {streams.of[0].at(c), streams.of[kRuns - 1].at(c)};
      turns<kRuns, 0>(now, step), turns<kRuns, 1>(now, step + 1);
      turns<kRuns, 2>(now, step + 2), turns<kRuns, 3>(now, step + 3);
    }
  }

  template <int kSum>
  void store_panel(int64_t panel, int64_t tile) {
    x.template take<kSum>(streams.sums);
    const PlainColumns columns(product.a, panel * 16);
    for (int64_t r = 0; r < x.width(tile); ++r) columns.store(tile * 16 + r, streams.sums + r * 64);
  }
  template <int kTile>
  void store_pair(int64_t first, int64_t second) {
    if (!product.gates) return store_panel<2 * kTile>(first, kTile), store_panel<2 * kTile + 1>(second, kTile);
    x.template take<2 * kTile>(streams.sums);
    x.template take<2 * kTile + 1>(streams.sums + kTileBytes);
    with_activation(product.gates->activation, product.gates->y_dtype,
                    [&]<class Act>() { store_gated<Act>(product, first, kTile * 16, x.width(kTile), streams.sums); });
  }

  void run(const Runs& now) {
    for (int64_t p = 0; p < now.count; ++p, streams.chunk += chunks) {
      multiply<2>(streams.chunk);
      store_pair<0>(now.first + p, now.second + p);
      if constexpr (kXTiles == 2) store_pair<1>(now.first + p, now.second + p);
    }
  }
  void run_last(int64_t panel) {
    streams.of[0].chunks.start(product.panel_at(panel), chunks);
    streams.of[0].start();
    multiply<1>(0);
    store_panel<0>(panel, 0);
    if constexpr (kXTiles == 2) store_panel<2>(panel, 1);
  }

  const FewRows& product;
  Streams<kScales>& streams;
  const PairTiles<kXTiles> x;
  const int64_t steps, chunks;
};

// An item of `product` and, if there is one, the item that comes after it.
struct Neighbours {
  const FewRows& product;
  Runs now;
  const FewRows* next = nullptr;
  Runs then = {};
};

// Packed rows are in `memory`, tiles have the product's shapes. `under_way`: the item is in the streams; returns
// whether the next one is.
template <int kScales, int kXTiles>
bool run_item(const Neighbours& items, bool under_way, Streams<kScales>& streams, std::byte* memory) {
  Thin<kScales, kXTiles> thin(items.product, streams, memory);
  const bool follows = items.next && items.then.count > 0;
  if (items.now.count > 0) {
    if (!under_way) streams.enter(items.product, items.now);
    if (follows) streams.announce(*items.next, items.then);
    if (!under_way) streams.start();
    thin.run(items.now);
  }
  if (items.now.odd) thin.run_last(items.product.layout.panels - 1);
  // A stream looks two chunks ahead, and heard of the next item at the beginning of this one.
  if (!follows || items.now.odd || items.now.count * items.product.chunks() < 2) return false;
  streams.enter_announced(*items.next, items.then);
  return true;
}

// ---- alone ----

template <int kScales, int kXTiles>
void run_thin(const FewRows& product) {
  const GemmA16Args& a = product.a;
  WorkQueue queue(product.items());
  // Few rows of little K are packed by every thread for itself: sooner done than waited for.
  const bool apart = a.M <= 4 && PairTiles<kXTiles>(a, nullptr).bytes() <= kOwnBytes;
  const auto work = [&](const TeamMember& me) {
    std::byte* const memory = a.scratch + (apart ? me.index * kOwnBytes : 0);
    const PairTiles<kXTiles> x(a, memory);
    int64_t now = queue.next();
    if (now >= 0) product.fetch_first(product.runs(now));
    if (apart) {
      x.pack(0, 1);
    } else {
      x.pack(me.index, me.size);
      me.barrier();
    }
    const TileUse use(x.shapes());
    Streams<kScales> streams;
    for (bool under_way = false; now >= 0;) {
      const int64_t next = queue.next();
      Neighbours items{product, product.runs(now)};
      if (next >= 0) items.next = &product, items.then = product.runs(next);
      under_way = run_item<kScales, kXTiles>(items, under_way, streams, memory);
      now = next;
    }
  };
  parallel_team(work, gemm_a16_threads(a));
}

void run_few_rows(const FewRows& product) {
  with_scales(product.a, [&]<int kScales>() {
    product.a.M <= kTileRows ? run_thin<kScales, 1>(product) : run_thin<kScales, 2>(product);
  });
}

bool is_few(const GemmA16Args& a) { return is_thin(a.M); }
bool is_few(const GatedGemmA16Args& gated) { return is_few(gated.product); }

// ---- as one of many products: few rows are prepared as one step ----

const GemmA16Args& plain(const GemmA16Args& a) { return a; }
const GemmA16Args& plain(const GatedGemmA16Args& gated) { return gated.product; }

void pack_few_rows(const GemmA16Args& a) {
  a.M <= kTileRows ? PairTiles<1>(a, a.scratch).pack(0, 1) : PairTiles<2>(a, a.scratch).pack(0, 1);
}

template <class Args>
constexpr GemmSteps<Args> kSteps{
    .preparations = [](const Args& a) { return is_few(a) ? 1 : many_row_steps(a).preparations(a); },
    .prepare = [](const Args& a, int64_t i) { is_few(a) ? pack_few_rows(plain(a)) : many_row_steps(a).prepare(a, i); },
    .items = [](const Args& a) { return is_few(a) ? FewRows(a).items() : many_row_steps(a).items(a); },
    .run = [](const Args& a, int64_t item, std::byte* own) { many_row_steps(a).run(a, item, own); },
    .own_bytes = kMakingBytes};

template <int kScales, int kXTiles>
bool run_item_of_many(const Neighbours& items, bool under_way, Streams<kScales>& streams) {
  const GemmA16Args& a = items.product.a;
  const TileUse use(PairTiles<kXTiles>(a, a.scratch).shapes());
  return run_item<kScales, kXTiles>(items, under_way, streams, a.scratch);
}

// The items of a thread: it asks for the next one before it begins one of few rows.
template <int kScales, class Args>
void run_items(GroupSteps<Args>& group, const TeamMember& me) {
  auto now = group.next();
  if (now.product && is_few(*now.product)) {
    const FewRows product(*now.product);
    product.fetch_first(product.runs(now.index));
  }
  group.prepare(me);
  Streams<kScales> streams;
  for (bool under_way = false; now.product;) {
    if (!is_few(*now.product)) {
      group.run(now, me);
      under_way = false, now = group.next();
      continue;
    }
    const auto next = group.next();
    const FewRows product(*now.product), after(next.product ? *next.product : *now.product);
    Neighbours items{product, product.runs(now.index)};
    if (next.product && is_few(*next.product)) items.next = &after, items.then = after.runs(next.index);
    under_way = product.a.M <= kTileRows ? run_item_of_many<kScales, 1>(items, under_way, streams)
                                         : run_item_of_many<kScales, 2>(items, under_way, streams);
    now = next;
  }
}

template <class Args>
void run_many(std::span<Args> products, std::byte* scratch) {
  GroupSteps<Args> group(products, scratch, kSteps<Args>);
  with_scales(plain(products[0]), [&]<int kScales>() {
    parallel_team([&](const TeamMember& me) { run_items<kScales>(group, me); }, group.threads());
  });
}

}  // namespace

void gemm_a16(const GemmA16Args& a) {
  is_few(a) ? run_few_rows(FewRows(a, nullptr, /*alone=*/true)) : gemm_a16_many_rows(a);
}

void gemm_gated_a16(const GatedGemmA16Args& gated) {
  if (is_ragged(gated)) return gemm_a16_then_glu(gated);
  is_few(gated) ? run_few_rows(FewRows(gated.product, &gated, /*alone=*/true)) : gemm_gated_a16_many_rows(gated);
}

void gemm_a16_grouped(const GroupedA16Args& a) { run_many(a.products, a.scratch); }

void gemm_gated_a16_grouped(const GroupedGatedA16Args& a) {
  any_ragged(a.products) ? gemm_a16_then_glu_grouped(a) : run_many(a.products, a.scratch);
}

int64_t gemm_a16_own_bytes() { return kMakingBytes; }

bool gemm_gated_a16_packs(int64_t M, int64_t N) { return gated_packs(M, N); }

int64_t gemm_a16_scratch_bytes(int64_t max_rows, int64_t K) {
  const int64_t row_bytes = a16_padded_k(K) / kTileK * kTileBytes;  // of sixteen
  return (max_rows + 15) / 16 * row_bytes + compute_threads() * gemm_a16_own_bytes();
}

}  // namespace millrace::amx
#pragma GCC pop_options
