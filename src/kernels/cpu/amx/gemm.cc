// Matrix product on AMX tiles for bf16 panels. A tile of w is 32 of k for the sixteen columns of a panel, as it lies in
// memory; x is packed once into tiles of sixteen rows. Each output is summed over k from 0 up, tile after tile,
// whatever the number of rows.
#include <immintrin.h>

#include "kernels/cpu/amx/tiles.h"
#include "kernels/cpu/avx512/vec.h"
#include "kernels/cpu/gemm_grouped_impls.h"
#include "kernels/parallel.h"

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx2,fma,f16c")
namespace millrace::amx {
namespace {

using avx512::Vec;
#include "kernels/cpu/simd/math.inl"

#include "kernels/cpu/simd/activations.inl"

constexpr int64_t kStepBytes = kTileBytes;  // of a panel or of packed rows, per 32 of k

constexpr int64_t kThinTileRows = 2;       // up to here every panel is read once, straight through
constexpr int64_t kMostStretchSteps = 16;  // a pair of panels' stretch (32 KiB) stays in the first-level cache

// The size of n's equal parts of at most `most`, a multiple of `times` of them.
constexpr int64_t balanced(int64_t n, int64_t most, int64_t times = 1) {
  const int64_t parts = (n + most * times - 1) / (most * times) * times;
  return (n + parts - 1) / parts;
}

// What is computed, in pairs of panels that are multiplied together: neighbours, or a gate and its up panel.
struct Job {
  explicit Job(const GemmArgs& args, const GatedGemmArgs* gates = nullptr)
      : a(args),
        gated(gates),
        steps(gemm_padded_k(args.K, DType::kBf16) / kTileK),
        panel_bytes(steps * kStepBytes),
        tile_rows((args.M + kTileRows - 1) / kTileRows),
        panels((args.N + kPanelColumns - 1) / kPanelColumns),
        pairs(gates ? panels / 2 : (panels + 1) / 2),
        stretch(tile_rows <= kThinTileRows ? steps : balanced(steps, kMostStretchSteps)) {}

  const std::byte* first(int64_t pair) const { return panel(gated ? pair : 2 * pair); }
  // Null where the last pair is a single panel.
  const std::byte* second(int64_t pair) const {
    if (gated) return panel(pair + panels / 2);
    return 2 * pair + 1 < panels ? panel(2 * pair + 1) : nullptr;
  }
  const std::byte* panel(int64_t p) const { return static_cast<const std::byte*>(a.w) + p * panel_bytes; }

  const GemmArgs& a;
  const GatedGemmArgs* const gated;
  const int64_t steps, panel_bytes, tile_rows, panels, pairs;
  const int64_t stretch;  // steps that are worked on at a time
};

// ---- x, packed ----
//
// Tiles of sixteen rows and 32 of k, zero beyond M and K, stretch after stretch of k: [K/stretch][M/16][steps][16][32].
// What a block of outputs needs at a time is contiguous; at the strides of whole rows it would fall into few cache
// sets.

// The tile row's stretch that begins at step `from`.
inline std::byte* row_stretch(const Job& job, int64_t tile_row, int64_t from) {
  const int64_t count = std::min(job.stretch, job.steps - from);
  return job.a.scratch + (from * job.tile_rows + tile_row * count) * kStepBytes;
}

int64_t packed_rows_bytes(int64_t M, int64_t K) {
  return (M + kTileRows - 1) / kTileRows * gemm_panel_bytes(K, DType::kBf16);
}

inline __mmask16 lanes_below(int64_t n) {
  return static_cast<__mmask16>(n >= 16 ? 0xffff : n <= 0 ? 0 : (1u << n) - 1);
}

// 32 elements of a row from k on, zero from K on.
inline __m512i load_row(const GemmArgs& a, int64_t row, int64_t k) {
  const int64_t left = a.K - k, at = row * a.x_stride + k;
  if (a.x_dtype == DType::kBf16) {
    const __mmask32 mask = left >= 32 ? 0xffffffffu : (1u << left) - 1;
    return _mm512_maskz_loadu_epi16(mask, static_cast<const bf16*>(a.x) + at);
  }
  const float* x = static_cast<const float*>(a.x) + at;
  const __m512 low = _mm512_maskz_loadu_ps(lanes_below(left), x);
  const __m512 high = left > 16 ? _mm512_maskz_loadu_ps(lanes_below(left - 16), x + 16) : _mm512_setzero_ps();
  return reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high, low));
}

// Packs the rows of tile row `tile_row`.
void pack_rows(const Job& job, int64_t tile_row) {
  const int64_t first = tile_row * kTileRows, rows = std::min(kTileRows, job.a.M - first);
  const int64_t written = job.tile_rows == 1 ? rows : kTileRows;  // a single tile is as high as there are rows
  for (int64_t from = 0; from < job.steps; from += job.stretch) {
    std::byte* to = row_stretch(job, tile_row, from);
    for (int64_t s = from; s < std::min(job.steps, from + job.stretch); ++s, to += kStepBytes)
      for (int64_t r = 0; r < written; ++r)
        _mm512_store_si512(to + r * 64, r < rows ? load_row(job.a, first + r, s * kTileK) : _mm512_setzero_si512());
  }
}

// ---- sums to y ----
//
// Ends say what becomes of the sums of a row with the two panels of a pair.

inline Vec bias_at(const GemmArgs& a, int64_t column) {
  return a.bias && column < a.N ? Vec::load_n(a.bias + column, lanes_left(column, a.N)) : Vec::zero();
}

class PlainEnds {
 public:
  PlainEnds(const Job& job, int64_t pair)
      : bias_{bias_at(job.a, column_of(pair)), bias_at(job.a, column_of(pair) + kPanelColumns)},
        y_(job.a.y + column_of(pair)),
        stride_(job.a.y_stride),
        low_(lanes_below(job.a.N - column_of(pair))),
        high_(lanes_below(job.a.N - column_of(pair) - kPanelColumns)) {}
  void store(int64_t row, Vec low, Vec high) const {
    float* y = y_ + row * stride_;
    _mm512_mask_storeu_ps(y, low_, (low + bias_[0]).v);
    _mm512_mask_storeu_ps(y + kPanelColumns, high_, (high + bias_[1]).v);
  }

 private:
  static int64_t column_of(int64_t pair) { return 2 * pair * kPanelColumns; }
  const Vec bias_[2];
  float* const y_;
  const int64_t stride_;
  const __mmask16 low_, high_;
};

template <class Act>
class GatedEnds {
 public:
  GatedEnds(const Job& job, int64_t pair)
      : bias_{bias_at(job.a, pair * kPanelColumns), bias_at(job.a, job.a.N / 2 + pair * kPanelColumns)},
        rounds_(job.gated->y_dtype == DType::kBf16),
        y_(static_cast<std::byte*>(job.gated->y) + pair * kPanelColumns * dtype_bytes(job.gated->y_dtype)),
        stride_(job.gated->y_stride * dtype_bytes(job.gated->y_dtype)) {}
  void store(int64_t row, Vec gate, Vec up) const {
    const Vec value = Act::apply(gate + bias_[0]) * (up + bias_[1]);
    std::byte* y = y_ + row * stride_;
    if (rounds_)
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(y), reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(value.v)));
    else
      value.store(reinterpret_cast<float*>(y));
  }

 private:
  const Vec bias_[2];
  const bool rounds_;
  std::byte* const y_;
  const int64_t stride_;  // bytes
};

// Sums lie in tiles: [row pair][tile row][panel].
constexpr int64_t kSumsBytes = 4 * kTileBytes;
// Memory of a thread's own: the sums of a block.
constexpr int64_t kGroupTileRows = 16, kBlockPairs = 14;
constexpr int64_t kBlockBytes = kGroupTileRows / 2 * kBlockPairs * kSumsBytes;

inline const std::byte* sums_of_row(const std::byte* sums, int64_t row) {
  return sums + row / kTileRows * 2 * kTileBytes + row % kTileRows * 64;
}

// `sums`: the row of the first panel's tile, the second panel's tile follows it.
template <class Ends>
inline void store_pair(const Ends& ends, int64_t row, const std::byte* sums) {
  ends.store(row, Vec::load(reinterpret_cast<const float*>(sums)),
             Vec::load(reinterpret_cast<const float*>(sums + kTileBytes)));
}

// ---- few rows: every panel is read once, straight through ----

inline void prefetch_step(const std::byte* at) {
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) _mm_prefetch(reinterpret_cast<const char*>(at + 64 * i), _MM_HINT_T0);
}

constexpr int64_t kAhead = 8;  // steps of a panel that are fetched ahead of use

// A pair of panels (or one, `second` null) against all rows, which are kTileRowCount tile rows. Sums: [tile row][panel]
// tiles.
template <int kTileRowCount, bool kTwo>
inline void multiply_panels(const Job& job, const std::byte* first, const std::byte* second, std::byte* sums) {
  tile_zero<0>();
  if constexpr (kTwo) tile_zero<1>();
  if constexpr (kTileRowCount == 2) tile_zero<2>();
  if constexpr (kTileRowCount == 2 && kTwo) tile_zero<3>();
  const std::byte* const x[2] = {row_stretch(job, 0, 0), row_stretch(job, kTileRowCount - 1, 0)};
  for (int64_t s = 0; s < job.steps; ++s) {
    const int64_t at = s * kStepBytes;
    prefetch_step(first + at + kAhead * kStepBytes);
    tile_load<6>(first + at, 64);
    tile_load<4>(x[0] + at, 64);
    tile_multiply<0, 4, 6>();
    if constexpr (kTwo) {
      prefetch_step(second + at + kAhead * kStepBytes);
      tile_load<7>(second + at, 64);
      tile_multiply<1, 4, 7>();
    }
    if constexpr (kTileRowCount == 2) {
      tile_load<5>(x[1] + at, 64);
      tile_multiply<2, 5, 6>();
      if constexpr (kTwo) tile_multiply<3, 5, 7>();
    }
  }
  tile_store<0>(sums, 64);
  if constexpr (kTwo) tile_store<1>(sums + kTileBytes, 64);
  if constexpr (kTileRowCount == 2) tile_store<2>(sums + 2 * kTileBytes, 64);
  if constexpr (kTileRowCount == 2 && kTwo) tile_store<3>(sums + 3 * kTileBytes, 64);
}

// Few rows of little K are packed by every thread for itself: sooner done than waited for.
bool packs_apart(const Job& job) { return job.a.M <= 4 && job.steps * kStepBytes <= kBlockBytes; }

TileShapes thin_shapes(const Job& job) {
  TileShapes shapes = TileShapes::full();
  if (job.tile_rows == 1)
    for (const int tile : {0, 1, 4}) shapes.set(tile, job.a.M, 64);
  return shapes;
}

// Pairs that a thread takes at a time: enough to stream, little to wait for.
int64_t thin_chunk(const Job& job) {
  constexpr int64_t kChunkBytes = 256 << 10;
  return std::max<int64_t>(1, kChunkBytes / (2 * job.panel_bytes));
}
int64_t thin_items(const Job& job) { return (job.pairs + thin_chunk(job) - 1) / thin_chunk(job); }

template <class Ends, int kTileRowCount>
void run_thin_chunk(const Job& job, int64_t item) {
  alignas(64) std::byte sums[4 * kTileBytes];
  const int64_t chunk = thin_chunk(job), end = std::min(job.pairs, (item + 1) * chunk);
  for (int64_t pair = item * chunk; pair < end; ++pair) {
    if (const std::byte* second = job.second(pair))
      multiply_panels<kTileRowCount, true>(job, job.first(pair), second, sums);
    else
      multiply_panels<kTileRowCount, false>(job, job.first(pair), nullptr, sums);
    const Ends ends(job, pair);
    for (int64_t row = 0; row < job.a.M; ++row) store_pair(ends, row, sums_of_row(sums, row));
  }
}

template <class Ends>
void run_thin_item(const Job& job, int64_t item) {
  if (job.tile_rows == 1)
    run_thin_chunk<Ends, 1>(job, item);
  else
    run_thin_chunk<Ends, 2>(job, item);
}

template <class Ends>
void gemm_thin(const Job& job) {
  WorkQueue queue(thin_items(job));
  const bool apart = packs_apart(job);
  const auto work = [&](const TeamMember& me) {
    GemmArgs own = job.a;
    if (apart) {
      own.scratch += packed_rows_bytes(job.a.M, job.a.K) + me.index * kBlockBytes;
      pack_rows(Job(own), 0);
    } else {
      for (int64_t t = me.index; t < job.tile_rows; t += me.size) pack_rows(job, t);
      me.barrier();
    }
    const Job mine(own, job.gated);
    const TileUse use(thin_shapes(mine));
    for (int64_t item = queue.next(); item >= 0; item = queue.next()) run_thin_item<Ends>(mine, item);
  };
  parallel_team(work, gemm_threads(job.a));
}

// ---- many rows: blocks that stay in the second-level cache ----
//
// A thread takes a block of up to kGroupTileRows x kBlockPairs outputs and walks it stretch of k by stretch: a pair of
// panels' stretch (32 KiB) stays in the first-level cache while the rows' stretch streams from the second. Where the
// second holds all of the rows' K, a pair of panels runs through its stretches at once; else all pairs go through one
// stretch before the next. Sums wait between stretches in the thread's scratch. They are finished while the tiles are
// busy with the next pair.

constexpr int64_t kResidentTiles = 1024;  // of packed rows, beside what else the second-level cache holds

struct Block {
  int64_t tile_row, tile_rows, pair, pairs;
  int64_t row_pairs() const { return (tile_rows + 1) / 2; }
};

// Memory that will be needed next, brought nearer a little with every step of work at hand.
template <int kHint>
class Fetch {
 public:
  Fetch() = default;
  // The whole is spread over `parts` calls.
  Fetch(const std::byte* at, int64_t bytes, int64_t parts) : at_(at), lines_((bytes / 64 + parts - 1) / parts) {}
  inline __attribute__((always_inline)) void operator()() {
    for (int64_t line = 0; line < lines_; ++line, at_ += 64)
      _mm_prefetch(reinterpret_cast<const char*>(at_), static_cast<_mm_hint>(kHint));
  }

 private:
  const std::byte* at_ = nullptr;
  int64_t lines_ = 0;
};

// A pair's sums that wait to be finished, and what happens to them with every step of work at hand.
struct Unfinished {
  const std::byte* sums = nullptr;
  int64_t pair = 0, row = 0, rows = 0, done = 0;
  int64_t share = 0;  // rows per step, in 1/1024
};

template <class Ends>
inline void finish_rows(const Ends& ends, Unfinished& u, int64_t end) {
  for (; u.done < end; ++u.done) store_pair(ends, u.row + u.done, sums_of_row(u.sums, u.done));
}

// Two tile rows (or one) against two panels (the same twice where there is one), `steps` of k. Sums start from zero or
// as they are.
struct Stretch {
  const std::byte *x[2], *w[2];
  int64_t steps;
  bool fresh;
  std::byte* sums;
};

// Beside the tiles' work, `panels` come to the second-level cache, the next sums to the first, and rows are finished.
template <class Ends, int kTileRowCount>
inline void multiply_stretch(const Job& job, const Stretch& t, Fetch<_MM_HINT_T1> (&panels)[2], Unfinished& waiting) {
  if (t.fresh) {
    tile_zero<0>(), tile_zero<1>(), tile_zero<2>(), tile_zero<3>();
  } else {
    tile_load<0>(t.sums, 64), tile_load<1>(t.sums + kTileBytes, 64);
    if constexpr (kTileRowCount == 2)
      tile_load<2>(t.sums + 2 * kTileBytes, 64), tile_load<3>(t.sums + 3 * kTileBytes, 64);
  }
  Fetch<_MM_HINT_T0> sums(t.sums + kSumsBytes, t.fresh ? 0 : kSumsBytes, t.steps);
  const Ends ends(job, waiting.pair);
  int64_t due = waiting.done * 1024;
  for (int64_t s = 0; s < t.steps; ++s) {
    const int64_t at = s * kStepBytes;
    tile_load_passing<4>(t.x[0] + at, 64);
    if constexpr (kTileRowCount == 2) tile_load_passing<5>(t.x[1] + at, 64);
    tile_load<6>(t.w[0] + at, 64);
    tile_load<7>(t.w[1] + at, 64);
    tile_multiply<0, 4, 6>();
    if constexpr (kTileRowCount == 2) tile_multiply<2, 5, 6>();
    panels[0](), panels[1](), sums();
    tile_multiply<1, 4, 7>();
    if constexpr (kTileRowCount == 2) tile_multiply<3, 5, 7>();
    due += waiting.share;
    finish_rows(ends, waiting, std::min(waiting.rows, due / 1024));
  }
  tile_store<0>(t.sums, 64), tile_store<1>(t.sums + kTileBytes, 64);
  if constexpr (kTileRowCount == 2)
    tile_store<2>(t.sums + 2 * kTileBytes, 64), tile_store<3>(t.sums + 3 * kTileBytes, 64);
}

// A thread's way through a block.
template <class Ends>
class BlockRun {
 public:
  BlockRun(const Job& job, const Block& block, std::byte* sums)
      : job_(job), b_(block), resident_(job.steps * block.tile_rows <= kResidentTiles), sums_(sums) {}

  void run() {
    if (b_.tile_rows == 0) return;
    if (resident_) {
      for (int64_t pair = 0; pair < b_.pairs; ++pair)
        for (int64_t from = 0; from < job_.steps; from += job_.stretch) run_pair(pair, from);
    } else {
      for (int64_t from = 0; from < job_.steps; from += job_.stretch)
        for (int64_t pair = 0; pair < b_.pairs; ++pair) run_pair(pair, from);
    }
    finish();
  }

 private:
  int64_t count(int64_t from) const { return std::min(job_.stretch, job_.steps - from); }
  bool is_last(int64_t from) const { return from + job_.stretch >= job_.steps; }
  int64_t pair_bytes() const { return b_.row_pairs() * kSumsBytes; }
  std::byte* sums_of(int64_t pair) const { return sums_ + (resident_ ? pair % 2 : pair) * pair_bytes(); }

  // All rows with a pair's stretch.
  void run_pair(int64_t pair, int64_t from) {
    const std::byte* first = job_.first(b_.pair + pair) + from * kStepBytes;
    const std::byte* second = job_.second(b_.pair + pair);
    std::byte* sums = sums_of(pair);
    fetch_next(pair, from);
    waiting_.share = resident_ || is_last(from) ? share() : 0;
    for (int64_t row_pair = 0; row_pair < b_.row_pairs(); ++row_pair, sums += kSumsBytes) {
      const int64_t tile_row = b_.tile_row + 2 * row_pair;
      const bool single = 2 * row_pair + 1 == b_.tile_rows;
      const Stretch stretch{.x = {row_stretch(job_, tile_row, from), row_stretch(job_, tile_row + !single, from)},
                            .w = {first, second ? second + from * kStepBytes : first},
                            .steps = count(from),
                            .fresh = from == 0,
                            .sums = sums};
      if (single)
        multiply_stretch<Ends, 1>(job_, stretch, panels_, waiting_);
      else
        multiply_stretch<Ends, 2>(job_, stretch, panels_, waiting_);
    }
    if (is_last(from)) await_finish(pair);
  }

  void await_finish(int64_t pair) {
    finish();
    const int64_t row = b_.tile_row * kTileRows;
    waiting_ = {sums_of(pair), b_.pair + pair, row, std::min(b_.tile_rows * kTileRows, job_.a.M - row), 0, 0};
  }
  void finish() { finish_rows(Ends(job_, waiting_.pair), waiting_, waiting_.rows); }
  // Of the waiting rows, per step until the next pair is complete.
  int64_t share() const {
    const int64_t steps = b_.row_pairs() * (resident_ ? job_.steps : job_.stretch);
    return (waiting_.rows * 1024 + steps - 1) / steps;
  }

  // While a pair's stretch is worked on: the stretch that follows.
  void fetch_next(int64_t pair, int64_t from) {
    int64_t next_pair = b_.pair + pair, next_from = from;
    const bool last_pair = pair + 1 == b_.pairs;
    if (resident_ ? !is_last(from) : last_pair && !is_last(from)) {
      next_from += job_.stretch;
      if (!resident_) next_pair = b_.pair;
    } else {
      ++next_pair;
      if (resident_ || last_pair) next_from = 0;
    }
    next_pair = std::min(next_pair, job_.pairs - 1);
    const int64_t bytes = count(next_from) * kStepBytes, parts = b_.row_pairs() * count(from);
    const std::byte* second = job_.second(next_pair);
    panels_[0] = {job_.first(next_pair) + next_from * kStepBytes, bytes, parts};
    if (second) panels_[1] = {second + next_from * kStepBytes, bytes, parts};
  }

  const Job& job_;
  const Block b_;
  const bool resident_;
  std::byte* const sums_;
  Fetch<_MM_HINT_T1> panels_[2];
  Unfinished waiting_;
};

// How outputs are cut: groups of rows, each of blocks.
struct Grid {
  // With as many blocks of columns as keep `threads` equally busy.
  Grid(const Job& job, int64_t threads)
      : job(job),
        group_rows(balanced(job.tile_rows, std::max(kGroupTileRows, (job.tile_rows + kMostGroups - 1) / kMostGroups))),
        groups((job.tile_rows + group_rows - 1) / group_rows),
        block_rows(balanced(group_rows, kGroupTileRows)),
        row_blocks((group_rows + block_rows - 1) / block_rows),
        block_pairs(balanced(job.pairs, kBlockPairs, threads)),
        pair_blocks((job.pairs + block_pairs - 1) / block_pairs) {}

  int64_t group_items() const { return row_blocks * pair_blocks; }
  Block block(int64_t group, int64_t item) const {
    const int64_t begin = group * group_rows, tile_row = begin + item % row_blocks * block_rows;
    const int64_t end = std::min({job.tile_rows, begin + group_rows, tile_row + block_rows});
    const int64_t pair = item / row_blocks * block_pairs;
    return {tile_row, std::max<int64_t>(0, end - tile_row), pair, std::min(block_pairs, job.pairs - pair)};
  }

  static constexpr int64_t kMostGroups = 64;
  const Job& job;
  const int64_t group_rows, groups, block_rows, row_blocks, block_pairs, pair_blocks;
};

// A thread begins with a group of its own, so that its caches have the group's rows; then it helps with others.
template <class Ends>
void gemm_thick(const Job& job) {
  const Grid grid(job, compute_threads());
  std::atomic<int64_t> begun[Grid::kMostGroups] = {};
  parallel_team([&](const TeamMember& me) {
    const int64_t end = job.tile_rows * (me.index + 1) / me.size;
    for (int64_t t = job.tile_rows * me.index / me.size; t < end; ++t) pack_rows(job, t);
    me.barrier();
    const TileUse use(TileShapes::full());
    std::byte* sums = job.a.scratch + packed_rows_bytes(job.a.M, job.a.K) + me.index * kBlockBytes;
    for (int64_t i = 0; i < grid.groups; ++i) {
      const int64_t group = (me.index * grid.groups / me.size + i) % grid.groups;
      for (int64_t item; (item = begun[group].fetch_add(1, std::memory_order_relaxed)) < grid.group_items();)
        BlockRun<Ends>(job, grid.block(group, item), sums).run();
    }
  });
}

bool is_thin(const Job& job) { return job.tile_rows <= kThinTileRows; }

template <class Ends>
void run(const Job& job) {
  if (is_thin(job))
    gemm_thin<Ends>(job);
  else
    gemm_thick<Ends>(job);
}

// run.operator()<Ends>(job) with the Ends of the arguments.
template <class Run>
void with_ends(const GemmArgs& a, const Run& run) {
  run.template operator()<PlainEnds>(Job(a));
}
template <class Run>
void with_ends(const GatedGemmArgs& gated, const Run& run) {
  const Job job(gated.product, &gated);
  switch (gated.activation) {
    case GluActivation::kSilu:
      return run.template operator()<GatedEnds<Silu>>(job);
    case GluActivation::kGelu:
      return run.template operator()<GatedEnds<Gelu>>(job);
    case GluActivation::kGeluTanh:
      return run.template operator()<GatedEnds<GeluTanh>>(job);
    case GluActivation::kRelu:
      return run.template operator()<GatedEnds<Relu>>(job);
  }
}

// ---- many products at once ----

Job job_of(const GemmArgs& a) { return Job(a); }
Job job_of(const GatedGemmArgs& gated) { return Job(gated.product, &gated); }

template <class Args>
int64_t items_of(const Args& args) {
  const Job job = job_of(args);
  if (is_thin(job)) return thin_items(job);
  const Grid grid(job, 1);
  return grid.groups * grid.group_items();
}

template <class Ends>
void run_job_item(const Job& job, int64_t item, std::byte* own) {
  if (is_thin(job)) {
    const TileUse use(thin_shapes(job));
    return run_thin_item<Ends>(job, item);
  }
  const TileUse use(TileShapes::full());
  const Grid grid(job, 1);
  BlockRun<Ends>(job, grid.block(item % grid.groups, item / grid.groups), own).run();
}

template <class Args>
void run_item(const Args& args, int64_t item, std::byte* own) {
  with_ends(args, [&]<class Ends>(const Job& job) { run_job_item<Ends>(job, item, own); });
}

template <class Args>
constexpr GemmSteps<Args> kSteps{.preparations = [](const Args& args) { return job_of(args).tile_rows; },
                                 .prepare = [](const Args& args, int64_t i) { pack_rows(job_of(args), i); },
                                 .items = items_of<Args>,
                                 .run = run_item<Args>,
                                 .own_bytes = kBlockBytes};

}  // namespace

void gemm_bf16(const GemmArgs& a) { run<PlainEnds>(Job(a)); }

void gemm_gated_bf16(const GatedGemmArgs& gated) {
  if (gated.product.N % (2 * kPanelColumns) != 0) return gemm_then_glu(gated);
  with_ends(gated, []<class Ends>(const Job& job) { run<Ends>(job); });
}

void gemm_grouped_bf16(const GroupedGemmArgs& a) { run_grouped(a.products, a.scratch, kSteps<GemmArgs>); }

void gemm_gated_grouped_bf16(const GroupedGatedGemmArgs& a) {
  const auto ragged = [](const GatedGemmArgs& p) { return p.product.N % (2 * kPanelColumns) != 0; };
  if (std::any_of(a.products.begin(), a.products.end(), ragged)) return gemm_then_glu_grouped(a);
  run_grouped(a.products, a.scratch, kSteps<GatedGemmArgs>);
}

int64_t gemm_own_bytes() { return kBlockBytes; }

int64_t gemm_bf16_scratch_bytes(int64_t max_rows, int64_t K) {
  return packed_rows_bytes(max_rows, K) + compute_threads() * kBlockBytes;
}

}  // namespace millrace::amx
#pragma GCC pop_options
