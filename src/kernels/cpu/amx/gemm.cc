// Matrix product on AMX tiles for bf16 panels. A tile of w is 32 of k for the sixteen columns of a panel, as it lies in
// memory; x is packed once into tiles of sixteen rows. Each output is summed over k from 0 up, tile after tile,
// whatever the number of rows.
#include <immintrin.h>

#include "kernels/cpu/amx/tiles.h"
#include "kernels/cpu/gemm_impls.h"
#include "kernels/parallel.h"

// gcc warns about its own headers (bug 105593).
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")
namespace millrace::amx {
namespace {

constexpr int64_t kStepBytes = kTileBytes;  // of a panel or of packed rows, per 32 of k

// ---- x, packed ----
//
// Tiles of sixteen rows and 32 of k, zero beyond M and K, stretch after stretch of k: [K/stretch][M/16][steps][16][32].
// What a block of outputs needs at a time is contiguous; at the strides of whole rows it would fall into few cache
// sets.

constexpr int64_t kStretchSteps = 8;

// Where the tile of `step` lies.
inline std::byte* row_tile(std::byte* packed, int64_t tile_rows, int64_t steps, int64_t tile_row, int64_t step) {
  const int64_t from = step / kStretchSteps * kStretchSteps, count = std::min(kStretchSteps, steps - from);
  return packed + (from * tile_rows + tile_row * count + step - from) * kStepBytes;
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
void pack_rows(const GemmArgs& a, int64_t tile_row, int64_t steps, std::byte* packed) {
  const int64_t tile_rows = (a.M + kTileRows - 1) / kTileRows;
  const int64_t first = tile_row * kTileRows, rows = std::min(kTileRows, a.M - first);
  for (int64_t r = 0; r < kTileRows; ++r)
    for (int64_t s = 0; s < steps; ++s) {
      const __m512i values = r < rows ? load_row(a, first + r, s * kTileK) : _mm512_setzero_si512();
      _mm512_store_si512(row_tile(packed, tile_rows, steps, tile_row, s) + r * 64, values);
    }
}

// ---- few rows: every panel is read once, straight through ----

inline void store_row(const GemmArgs& a, int64_t row, int64_t panel, __m512 sum) {
  const int64_t column = panel * kPanelColumns;
  const __mmask16 mask = lanes_below(a.N - column);
  if (a.bias) sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(mask, a.bias + column));
  _mm512_mask_storeu_ps(a.y + row * a.y_stride + column, mask, sum);
}

inline void prefetch_step(const std::byte* at) {
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) _mm_prefetch(reinterpret_cast<const char*>(at + 64 * i), _MM_HINT_T0);
}

constexpr int64_t kAhead = 8;  // steps of a panel that are fetched ahead of use

// kPanels panels against the first kTileRowCount tile rows; sums to `sums` [kTileRowCount][kPanels] tiles.
template <int kTileRowCount, int kPanels>
inline void multiply_panels(std::byte* x, const std::byte* w, int64_t steps, std::byte* sums) {
  const int64_t panel_bytes = steps * kStepBytes;
  tile_zero<0>();
  if constexpr (kPanels == 2) tile_zero<1>();
  if constexpr (kTileRowCount == 2) tile_zero<2>();
  if constexpr (kTileRowCount == 2 && kPanels == 2) tile_zero<3>();
  for (int64_t s = 0; s < steps; ++s) {
    const int64_t at = s * kStepBytes;
    prefetch_step(w + at + kAhead * kStepBytes);
    tile_load<6>(w + at, 64);
    tile_load<4>(row_tile(x, kTileRowCount, steps, 0, s), 64);
    tile_multiply<0, 4, 6>();
    if constexpr (kPanels == 2) {
      prefetch_step(w + panel_bytes + at + kAhead * kStepBytes);
      tile_load<7>(w + panel_bytes + at, 64);
      tile_multiply<1, 4, 7>();
    }
    if constexpr (kTileRowCount == 2) {
      tile_load<5>(row_tile(x, kTileRowCount, steps, 1, s), 64);
      tile_multiply<2, 5, 6>();
      if constexpr (kPanels == 2) tile_multiply<3, 5, 7>();
    }
  }
  tile_store<0>(sums, 64);
  if constexpr (kPanels == 2) tile_store<1>(sums + kTileBytes, 64);
  if constexpr (kTileRowCount == 2) tile_store<2>(sums + kPanels * kTileBytes, 64);
  if constexpr (kTileRowCount == 2 && kPanels == 2) tile_store<3>(sums + 3 * kTileBytes, 64);
}

template <int kTileRowCount>
void run_thin(const GemmArgs& a, const TeamMember& me, WorkQueue& queue, int64_t chunk) {
  const int64_t steps = gemm_padded_k(a.K, DType::kBf16) / kTileK, panels = (a.N + 15) / 16;
  for (int64_t tile_row = me.index; tile_row < kTileRowCount; tile_row += me.size)
    pack_rows(a, tile_row, steps, a.scratch);
  me.barrier();
  TileShapes shapes = TileShapes::full();
  if (kTileRowCount == 1)
    for (const int tile : {0, 1, 4}) shapes.set(tile, a.M, 64);
  const TileUse use(shapes);
  alignas(64) std::byte sums[4 * kTileBytes];
  const auto finish = [&](int64_t panel, int count) {
    for (int64_t row = 0; row < a.M; ++row)
      for (int p = 0; p < count; ++p)
        store_row(a, row, panel + p,
                  _mm512_load_ps(sums + (row / kTileRows * count + p) * kTileBytes + row % kTileRows * 64));
  };
  for (int64_t item = queue.next(); item >= 0; item = queue.next()) {
    const int64_t end = std::min(panels, (item + 1) * chunk);
    int64_t panel = item * chunk;
    const auto* w = static_cast<const std::byte*>(a.w);
    for (; panel + 2 <= end; panel += 2) {
      multiply_panels<kTileRowCount, 2>(a.scratch, w + panel * steps * kStepBytes, steps, sums);
      finish(panel, 2);
    }
    if (panel < end) {
      multiply_panels<kTileRowCount, 1>(a.scratch, w + panel * steps * kStepBytes, steps, sums);
      finish(panel, 1);
    }
  }
}

void gemm_thin(const GemmArgs& a) {
  const int64_t panels = (a.N + 15) / 16, panel_bytes = gemm_panel_bytes(a.K, DType::kBf16);
  const int64_t chunk = std::max<int64_t>(1, (int64_t{256} << 10) / panel_bytes / 2) * 2;
  WorkQueue queue((panels + chunk - 1) / chunk);
  parallel_team(
      [&](const TeamMember& me) {
        if (a.M <= kTileRows)
          run_thin<1>(a, me, queue, chunk);
        else
          run_thin<2>(a, me, queue, chunk);
      },
      gemm_threads(a));
}

// ---- many rows: blocks that stay in the second-level cache ----
//
// A thread takes a block of kBlockRows x kBlockPanels outputs, whose sums lie in its scratch. For each stretch of
// kStretchSteps of k it walks the block: two panels' stretch (16 KiB) stays in the first-level cache while the rows'
// stretch (256 KiB) streams from the second; the next two panels' stretch is fetched from memory meanwhile.

constexpr int64_t kBlockTileRows = 32, kBlockPanels = 16;
constexpr int64_t kBlockBytes = kBlockTileRows * kBlockPanels * kTileBytes;

struct Block {
  int64_t tile_row, tile_rows, panel, panels;
};

// Sums of 32 rows x 32 columns lie together: four tiles.
inline std::byte* sums_at(std::byte* sums, int64_t pair, int64_t row_pairs, int64_t row_pair) {
  return sums + (pair * row_pairs + row_pair) * 4 * kTileBytes;
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

inline void multiply_stretch(const std::byte* x, int64_t x_row_bytes, const std::byte* w, int64_t w_panel_bytes,
                             int64_t steps, bool fresh, std::byte* sums, const Fetch& fetch, int64_t fetch_part) {
  if (fresh) {
    tile_zero<0>(), tile_zero<1>(), tile_zero<2>(), tile_zero<3>();
  } else {
    tile_load<0>(sums, 64), tile_load<1>(sums + kTileBytes, 64);
    tile_load<2>(sums + 2 * kTileBytes, 64), tile_load<3>(sums + 3 * kTileBytes, 64);
  }
  for (int64_t s = 0; s < steps; ++s) {
    const int64_t at = s * kStepBytes;
    fetch(fetch_part + s);
    tile_load<4>(x + at, 64);
    tile_load<6>(w + at, 64);
    tile_multiply<0, 4, 6>();
    tile_load<7>(w + w_panel_bytes + at, 64);
    tile_multiply<1, 4, 7>();
    tile_load<5>(x + x_row_bytes + at, 64);
    tile_multiply<2, 5, 6>();
    tile_multiply<3, 5, 7>();
  }
  tile_store<0>(sums, 64), tile_store<1>(sums + kTileBytes, 64);
  tile_store<2>(sums + 2 * kTileBytes, 64), tile_store<3>(sums + 3 * kTileBytes, 64);
}

void finish_block(const GemmArgs& a, const Block& b, std::byte* sums) {
  const int64_t row_pairs = (b.tile_rows + 1) / 2;
  for (int64_t t = 0; t < b.tile_rows; ++t) {
    const int64_t first = (b.tile_row + t) * kTileRows, rows = std::min(kTileRows, a.M - first);
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t p = 0; p < b.panels; ++p) {
        const std::byte* tile = sums_at(sums, p / 2, row_pairs, t / 2) + (t % 2 * 2 + p % 2) * kTileBytes;
        store_row(a, first + r, b.panel + p, _mm512_load_ps(tile + r * 64));
      }
  }
}

// While one pair of panels is worked on: the stretch of the next pair, and a share of the rows' next stretch.
Fetch next_needs(const GemmArgs& a, const Block& b, int64_t from, int64_t count, int64_t pair) {
  const int64_t steps = gemm_padded_k(a.K, DType::kBf16) / kTileK, panel_bytes = steps * kStepBytes;
  const int64_t row_pairs = (b.tile_rows + 1) / 2, panel_pairs = (b.panels + 1) / 2;
  const int64_t tile_rows = (a.M + kTileRows - 1) / kTileRows;
  const bool same_stretch = pair + 1 < panel_pairs;
  const std::byte* panel = static_cast<const std::byte*>(a.w) +
                           (b.panel + (same_stretch ? 2 * pair + 2 : 0)) * panel_bytes +
                           (same_stretch ? from : from + count) * kStepBytes;
  const int64_t next_from = from + count < steps ? from + count : 0;
  const int64_t row_bytes = b.tile_rows * std::min(kStretchSteps, steps - next_from) * kStepBytes;
  const int64_t share = (row_bytes / panel_pairs + 63) / 64 * 64;
  Fetch fetch(row_pairs * count);
  fetch.add(panel, count * kStepBytes);
  fetch.add(panel + panel_bytes, count * kStepBytes);
  fetch.add(row_tile(a.scratch, tile_rows, steps, b.tile_row, next_from) + pair * share, share);
  return fetch;
}

void run_block(const GemmArgs& a, const Block& b, std::byte* sums) {
  const int64_t steps = gemm_padded_k(a.K, DType::kBf16) / kTileK, panel_bytes = steps * kStepBytes;
  const int64_t row_pairs = (b.tile_rows + 1) / 2, panel_pairs = (b.panels + 1) / 2;
  const int64_t tile_rows = (a.M + kTileRows - 1) / kTileRows;
  for (int64_t from = 0; from < steps; from += kStretchSteps) {
    const int64_t count = std::min(kStretchSteps, steps - from);
    for (int64_t pair = 0; pair < panel_pairs; ++pair) {
      const std::byte* panel =
          static_cast<const std::byte*>(a.w) + (b.panel + 2 * pair) * panel_bytes + from * kStepBytes;
      const bool single = 2 * pair + 1 == b.panels;  // the pair's second panel does not exist: the first, again
      const Fetch fetch = next_needs(a, b, from, count, pair);
      for (int64_t row_pair = 0; row_pair < row_pairs; ++row_pair) {
        const bool single_row = 2 * row_pair + 1 == b.tile_rows;
        multiply_stretch(row_tile(a.scratch, tile_rows, steps, b.tile_row + 2 * row_pair, from),
                         single_row ? 0 : count * kStepBytes, panel, single ? 0 : panel_bytes, count, from == 0,
                         sums_at(sums, pair, row_pairs, row_pair), fetch, row_pair * count);
      }
    }
  }
  finish_block(a, b, sums);
}

int64_t packed_rows_bytes(int64_t M, int64_t K) {
  return (M + kTileRows - 1) / kTileRows * gemm_panel_bytes(K, DType::kBf16);
}

void gemm_thick(const GemmArgs& a) {
  const int64_t steps = gemm_padded_k(a.K, DType::kBf16) / kTileK;
  const int64_t tile_rows = (a.M + kTileRows - 1) / kTileRows, panels = (a.N + 15) / 16;
  const int64_t row_blocks = (tile_rows + kBlockTileRows - 1) / kBlockTileRows;
  const int64_t column_blocks = (panels + kBlockPanels - 1) / kBlockPanels;
  WorkQueue queue(row_blocks * column_blocks);
  parallel_team([&](const TeamMember& me) {
    for (int64_t t = me.index; t < tile_rows; t += me.size) pack_rows(a, t, steps, a.scratch);
    me.barrier();
    const TileUse use(TileShapes::full());
    std::byte* sums = a.scratch + packed_rows_bytes(a.M, a.K) + me.index * kBlockBytes;
    for (int64_t item = queue.next(); item >= 0; item = queue.next()) {
      const int64_t tile_row = item % row_blocks * kBlockTileRows, panel = item / row_blocks * kBlockPanels;
      run_block(
          a, {tile_row, std::min(kBlockTileRows, tile_rows - tile_row), panel, std::min(kBlockPanels, panels - panel)},
          sums);
    }
  });
}

}  // namespace

void gemm_bf16(const GemmArgs& a) {
  if (a.M <= 2 * kTileRows)
    gemm_thin(a);
  else
    gemm_thick(a);
}

int64_t gemm_bf16_scratch_bytes(int64_t max_rows, int64_t K) {
  return packed_rows_bytes(max_rows, K) + compute_threads() * kBlockBytes;
}

}  // namespace millrace::amx
#pragma GCC pop_options
