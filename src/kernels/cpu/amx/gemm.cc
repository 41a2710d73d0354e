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

// What is computed, in pairs of panels that are multiplied together: neighbours, or a gate and its up panel.
struct Job {
  explicit Job(const GemmArgs& args, const GatedGemmArgs* gates = nullptr)
      : a(args),
        gated(gates),
        steps(gemm_padded_k(args.K, DType::kBf16) / kTileK),
        panel_bytes(steps * kStepBytes),
        tile_rows((args.M + kTileRows - 1) / kTileRows),
        panels((args.N + kPanelColumns - 1) / kPanelColumns),
        pairs(gates ? panels / 2 : (panels + 1) / 2) {}

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
};

// ---- x, packed ----
//
// Tiles of sixteen rows and 32 of k, zero beyond M and K, stretch after stretch of k: [K/stretch][M/16][steps][16][32].
// What a block of outputs needs at a time is contiguous; at the strides of whole rows it would fall into few cache
// sets.

constexpr int64_t kStretchSteps = 16;

// Where the tile of `step` lies.
inline std::byte* row_tile(const Job& job, int64_t tile_row, int64_t step) {
  const int64_t from = step / kStretchSteps * kStretchSteps, count = std::min(kStretchSteps, job.steps - from);
  return job.a.scratch + (from * job.tile_rows + tile_row * count + step - from) * kStepBytes;
}

inline __mmask16 lanes_below(int64_t n) { return static_cast<__mmask16>(n >= 16 ? 0xffff : (1u << n) - 1); }

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
  for (int64_t s = 0; s < job.steps; ++s) {
    std::byte* tile = row_tile(job, tile_row, s);
    for (int64_t r = 0; r < kTileRows; ++r)
      _mm512_store_si512(tile + r * 64, r < rows ? load_row(job.a, first + r, s * kTileK) : _mm512_setzero_si512());
  }
}

// ---- sums to y ----

inline Vec with_bias(const GemmArgs& a, int64_t column, Vec sum) {
  return a.bias ? sum + Vec::load_n(a.bias + column, lanes_left(column, a.N)) : sum;
}

inline void store_plain(const GemmArgs& a, int64_t row, int64_t panel, Vec sum) {
  const int64_t column = panel * kPanelColumns;
  with_bias(a, column, sum).store_n(a.y + row * a.y_stride + column, lanes_left(column, a.N));
}

template <class Act>
inline void store_gated_as(const Job& job, int64_t row, int64_t pair, Vec gate, Vec up) {
  const int64_t column = pair * kPanelColumns, at = row * job.gated->y_stride + column;
  const Vec y = Act::apply(with_bias(job.a, column, gate)) * with_bias(job.a, job.a.N / 2 + column, up);
  if (job.gated->y_dtype == DType::kBf16)
    y.store(static_cast<bf16*>(job.gated->y) + at);
  else
    y.store(static_cast<float*>(job.gated->y) + at);
}

inline void store_pair(const Job& job, int64_t row, int64_t pair, const std::byte* first, const std::byte* second) {
  const Vec low = Vec::load(reinterpret_cast<const float*>(first));
  const Vec high = Vec::load(reinterpret_cast<const float*>(second));
  if (!job.gated) {
    store_plain(job.a, row, 2 * pair, low);
    if (2 * pair + 1 < job.panels) store_plain(job.a, row, 2 * pair + 1, high);
    return;
  }
  switch (job.gated->activation) {
    case GluActivation::kSilu:
      return store_gated_as<Silu>(job, row, pair, low, high);
    case GluActivation::kGelu:
      return store_gated_as<Gelu>(job, row, pair, low, high);
    case GluActivation::kGeluTanh:
      return store_gated_as<GeluTanh>(job, row, pair, low, high);
    case GluActivation::kRelu:
      return store_gated_as<Relu>(job, row, pair, low, high);
  }
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
  for (int64_t s = 0; s < job.steps; ++s) {
    const int64_t at = s * kStepBytes;
    prefetch_step(first + at + kAhead * kStepBytes);
    tile_load<6>(first + at, 64);
    tile_load<4>(row_tile(job, 0, s), 64);
    tile_multiply<0, 4, 6>();
    if constexpr (kTwo) {
      prefetch_step(second + at + kAhead * kStepBytes);
      tile_load<7>(second + at, 64);
      tile_multiply<1, 4, 7>();
    }
    if constexpr (kTileRowCount == 2) {
      tile_load<5>(row_tile(job, 1, s), 64);
      tile_multiply<2, 5, 6>();
      if constexpr (kTwo) tile_multiply<3, 5, 7>();
    }
  }
  tile_store<0>(sums, 64);
  if constexpr (kTwo) tile_store<1>(sums + kTileBytes, 64);
  if constexpr (kTileRowCount == 2) tile_store<2>(sums + 2 * kTileBytes, 64);
  if constexpr (kTileRowCount == 2 && kTwo) tile_store<3>(sums + 3 * kTileBytes, 64);
}

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

template <int kTileRowCount>
void run_thin_chunk(const Job& job, int64_t item) {
  alignas(64) std::byte sums[4 * kTileBytes];
  const int64_t chunk = thin_chunk(job), end = std::min(job.pairs, (item + 1) * chunk);
  for (int64_t pair = item * chunk; pair < end; ++pair) {
    if (const std::byte* second = job.second(pair))
      multiply_panels<kTileRowCount, true>(job, job.first(pair), second, sums);
    else
      multiply_panels<kTileRowCount, false>(job, job.first(pair), nullptr, sums);
    for (int64_t row = 0; row < job.a.M; ++row) {
      const std::byte* tile = sums + row / kTileRows * 2 * kTileBytes + row % kTileRows * 64;
      store_pair(job, row, pair, tile, tile + kTileBytes);
    }
  }
}

void run_thin_item(const Job& job, int64_t item) {
  if (job.tile_rows == 1)
    run_thin_chunk<1>(job, item);
  else
    run_thin_chunk<2>(job, item);
}

void gemm_thin(const Job& job) {
  WorkQueue queue(thin_items(job));
  const auto work = [&](const TeamMember& me) {
    for (int64_t t = me.index; t < job.tile_rows; t += me.size) pack_rows(job, t);
    me.barrier();
    const TileUse use(thin_shapes(job));
    for (int64_t item = queue.next(); item >= 0; item = queue.next()) run_thin_item(job, item);
  };
  parallel_team(work, gemm_threads(job.a));
}

// ---- many rows: blocks that stay in the second-level cache ----
//
// A thread takes a block of kBlockTileRows x kBlockPairs outputs, whose sums lie in its scratch. For each stretch of k
// it walks the block: a pair of panels' stretch (32 KiB) stays in the first-level cache while the rows' stretch
// (512 KiB) streams from the second; meanwhile the next pair's stretch is fetched from memory.

constexpr int64_t kBlockTileRows = 32, kBlockPairs = 8;
constexpr int64_t kBlockBytes = kBlockTileRows * kBlockPairs * 2 * kTileBytes;

struct Block {
  int64_t tile_row, tile_rows, pair, pairs;
  int64_t row_pairs() const { return (tile_rows + 1) / 2; }
};

// The four tiles of 32 rows x 32 columns lie together: [row pair's tile row][pair's panel].
inline std::byte* sums_at(const Block& b, std::byte* sums, int64_t pair, int64_t row_pair) {
  return sums + (pair * b.row_pairs() + row_pair) * 4 * kTileBytes;
}

// What will be needed next, brought to the second-level cache a little with every step of work at hand.
class Fetch {
 public:
  // The whole will be spread over `parts` calls.
  explicit Fetch(int64_t parts) : parts_(parts) {}
  void add(const std::byte* at, int64_t bytes) {
    ranges_[count_] = at;
    lines_[count_++] = (bytes / 64 + parts_ - 1) / parts_;
  }
  inline __attribute__((always_inline)) void operator()(int64_t part) const {
    for (int r = 0; r < kRanges; ++r)
      for (int64_t line = part * lines_[r], end = line + lines_[r]; line < end; ++line)
        _mm_prefetch(reinterpret_cast<const char*>(ranges_[r] + line * 64), _MM_HINT_T1);
  }

 private:
  static constexpr int kRanges = 3;
  const int64_t parts_;
  int count_ = 0;
  const std::byte* ranges_[kRanges] = {};
  int64_t lines_[kRanges] = {};
};

// Two tile rows (the second may be the first again) against two panels (likewise), `steps` of k.
inline void multiply_stretch(const std::byte* const x[2], const std::byte* const w[2], int64_t steps, bool fresh,
                             std::byte* sums, const Fetch& fetch, int64_t fetch_part) {
  if (fresh) {
    tile_zero<0>(), tile_zero<1>(), tile_zero<2>(), tile_zero<3>();
  } else {
    tile_load<0>(sums, 64), tile_load<1>(sums + kTileBytes, 64);
    tile_load<2>(sums + 2 * kTileBytes, 64), tile_load<3>(sums + 3 * kTileBytes, 64);
  }
  for (int64_t s = 0; s < steps; ++s) {
    const int64_t at = s * kStepBytes;
    fetch(fetch_part + s);
    tile_load_passing<4>(x[0] + at, 64);
    tile_load<6>(w[0] + at, 64);
    tile_multiply<0, 4, 6>();
    tile_load<7>(w[1] + at, 64);
    tile_multiply<1, 4, 7>();
    tile_load_passing<5>(x[1] + at, 64);
    tile_multiply<2, 5, 6>();
    tile_multiply<3, 5, 7>();
  }
  tile_store<0>(sums, 64), tile_store<1>(sums + kTileBytes, 64);
  tile_store<2>(sums + 2 * kTileBytes, 64), tile_store<3>(sums + 3 * kTileBytes, 64);
}

void finish_block(const Job& job, const Block& b, std::byte* sums) {
  for (int64_t t = 0; t < b.tile_rows; ++t) {
    const int64_t first = (b.tile_row + t) * kTileRows, rows = std::min(kTileRows, job.a.M - first);
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t pair = 0; pair < b.pairs; ++pair) {
        const std::byte* tile = sums_at(b, sums, pair, t / 2) + t % 2 * 2 * kTileBytes + r * 64;
        store_pair(job, first + r, b.pair + pair, tile, tile + kTileBytes);
      }
    }
  }
}

// While a pair of panels is worked on: the stretch of the next pair, and a share of the rows' next stretch.
Fetch next_needs(const Job& job, const Block& b, int64_t from, int64_t count, int64_t pair) {
  const bool same_stretch = pair + 1 < b.pairs;
  const int64_t next_pair = b.pair + (same_stretch ? pair + 1 : 0);
  const int64_t panel_at = (same_stretch ? from : from + count) * kStepBytes;
  const int64_t next_from = from + count < job.steps ? from + count : 0;
  const int64_t row_bytes = b.tile_rows * std::min(kStretchSteps, job.steps - next_from) * kStepBytes;
  const int64_t share = (row_bytes / b.pairs + 63) / 64 * 64;
  const std::byte* second = job.second(next_pair);
  Fetch fetch(b.row_pairs() * count);
  fetch.add(job.first(next_pair) + panel_at, count * kStepBytes);
  if (second) fetch.add(second + panel_at, count * kStepBytes);
  fetch.add(row_tile(job, b.tile_row, next_from) + pair * share, share);
  return fetch;
}

void run_block(const Job& job, const Block& b, std::byte* sums) {
  for (int64_t from = 0; from < job.steps; from += kStretchSteps) {
    const int64_t count = std::min(kStretchSteps, job.steps - from);
    for (int64_t pair = 0; pair < b.pairs; ++pair) {
      const std::byte* first = job.first(b.pair + pair) + from * kStepBytes;
      const std::byte* second = job.second(b.pair + pair);
      const std::byte* w[2] = {first, second ? second + from * kStepBytes : first};
      const Fetch fetch = next_needs(job, b, from, count, pair);
      for (int64_t row_pair = 0; row_pair < b.row_pairs(); ++row_pair) {
        const bool single = 2 * row_pair + 1 == b.tile_rows;
        const std::byte* row = row_tile(job, b.tile_row + 2 * row_pair, from);
        const std::byte* x[2] = {row, single ? row : row + count * kStepBytes};
        multiply_stretch(x, w, count, from == 0, sums_at(b, sums, pair, row_pair), fetch, row_pair * count);
      }
    }
  }
  finish_block(job, b, sums);
}

int64_t packed_rows_bytes(int64_t M, int64_t K) {
  return (M + kTileRows - 1) / kTileRows * gemm_panel_bytes(K, DType::kBf16);
}

int64_t row_blocks(const Job& job) { return (job.tile_rows + kBlockTileRows - 1) / kBlockTileRows; }
int64_t thick_items(const Job& job) { return row_blocks(job) * ((job.pairs + kBlockPairs - 1) / kBlockPairs); }

void run_thick_item(const Job& job, int64_t item, std::byte* sums) {
  const int64_t tile_row = item % row_blocks(job) * kBlockTileRows, pair = item / row_blocks(job) * kBlockPairs;
  const Block block{tile_row, std::min(kBlockTileRows, job.tile_rows - tile_row), pair,
                    std::min(kBlockPairs, job.pairs - pair)};
  run_block(job, block, sums);
}

void gemm_thick(const Job& job) {
  WorkQueue queue(thick_items(job));
  parallel_team([&](const TeamMember& me) {
    for (int64_t t = me.index; t < job.tile_rows; t += me.size) pack_rows(job, t);
    me.barrier();
    const TileUse use(TileShapes::full());
    std::byte* sums = job.a.scratch + packed_rows_bytes(job.a.M, job.a.K) + me.index * kBlockBytes;
    for (int64_t item = queue.next(); item >= 0; item = queue.next()) run_thick_item(job, item, sums);
  });
}

bool is_thin(const Job& job) { return job.tile_rows <= 2; }

void run(const Job& job) {
  if (is_thin(job))
    gemm_thin(job);
  else
    gemm_thick(job);
}

// ---- many products at once ----

Job job_of(const GemmArgs& a) { return Job(a); }
Job job_of(const GatedGemmArgs& gated) { return Job(gated.product, &gated); }

template <class Args>
int64_t items_of(const Args& args) {
  const Job job = job_of(args);
  return is_thin(job) ? thin_items(job) : thick_items(job);
}

template <class Args>
void run_item(const Args& args, int64_t item, std::byte* own) {
  const Job job = job_of(args);
  const TileUse use(is_thin(job) ? thin_shapes(job) : TileShapes::full());
  if (is_thin(job))
    run_thin_item(job, item);
  else
    run_thick_item(job, item, own);
}

template <class Args>
constexpr GemmSteps<Args> kSteps{.preparations = [](const Args& args) { return job_of(args).tile_rows; },
                                 .prepare = [](const Args& args, int64_t i) { pack_rows(job_of(args), i); },
                                 .items = items_of<Args>,
                                 .run = run_item<Args>,
                                 .own_bytes = kBlockBytes};

}  // namespace

void gemm_bf16(const GemmArgs& a) { run(Job(a)); }

void gemm_gated_bf16(const GatedGemmArgs& gated) {
  if (gated.product.N % (2 * kPanelColumns) != 0) return gemm_then_glu(gated);
  run(Job(gated.product, &gated));
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
