// Paged attention for bf16 and int8 caches on AMX tiles. bf16: queries and weights are rounded to bf16, products summed
// in float32; int8: attention_int8.inl. Sixteen query rows are a tile's rows; a row's sums do not depend on the other
// fifteen, so decode and prefill agree.
#include <immintrin.h>

#include <algorithm>
#include <cmath>

#include "kernels/cpu/amx/tiles.h"
#include "kernels/cpu/attention_impls.h"
#include "kernels/cpu/avx512/vec.h"
#include "kernels/parallel.h"

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx2,fma,f16c")
namespace millrace::amx {
namespace {

using avx512::Vec;
#include "kernels/cpu/simd/math.inl"

#include "kernels/cpu/simd/attention.inl"

constexpr int64_t kSubtiles = kTilePositions / kKvLanes;  // of sixteen positions
constexpr int64_t kTileDims = 32;                         // of a head, in one tile of queries or keys

inline TileShapes shapes_for(int rows) {
  TileShapes shapes = TileShapes::full();
  if (rows < 16)
    for (const int i : {0, 1, 2, 3, 4, 5}) shapes.set(i, rows, 64);
  return shapes;
}

struct TileWork : AttentionWork {
  TileWork(const AttentionArgs& args, const AttentionItem& item)
      : AttentionWork(args, item), dim_tiles((padded + kTileDims - 1) / kTileDims), use(shapes_for(rows)) {}
  const int64_t dim_tiles;
  const TileUse use;
  alignas(64) bf16 query[kMaxRows][kMaxHeadDim];          // zero beyond rows and Dp
  alignas(64) bf16 weight[kMaxRows][kTilePositions];      // zero beyond rows
  alignas(64) bf16 keys[kSubtiles][kMaxHeadDim * 16];     // copies, where Dp is not a multiple of 32
  alignas(64) bf16 values[kTilePositions * kMaxHeadDim];  // [32][Dp][2], zero where no row looks
  const bf16* key_tiles[kSubtiles];
};

inline void store_rounded(Vec low, Vec high, bf16* to) {
  _mm512_storeu_si512(to, reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high.v, low.v)));
}

inline void prepare_queries(TileWork& w) {
  const int rows = (w.rows + 15) / 16 * 16;
  for (int r = 0; r < rows; ++r)
    for (int64_t d = 0; d < w.dim_tiles * kTileDims; d += kTileDims) {
      const bool low = r < w.rows, high = low && d + 16 < w.padded;
      store_rounded(low ? Vec::load(w.q[r] + d) : Vec::zero(), high ? Vec::load(w.q[r] + d + 16) : Vec::zero(),
                    w.query[r] + d);
    }
  for (int r = w.rows; r < rows; ++r)
    for (int i = 0; i < 2; ++i) store_rounded(Vec::zero(), Vec::zero(), w.weight[r] + 32 * i);
}

// Points key_tiles at the sixteen positions of each subtile that somebody sees, padded to whole tiles.
inline void find_keys(TileWork& w, int64_t tile, int first, int end) {
  const KvLayout& kv = w.a.layout;
  for (int i = first; i < end; ++i) {
    const int64_t position = tile + i * kKvLanes;
    const bf16* keys =
        static_cast<const bf16*>(w.a.k_cache) + block_at(w, position) + kv.group_at(w.g, position % kv.block_tokens);
    w.key_tiles[i] = keys;
    if (w.padded % kTileDims == 0) continue;
    const int64_t vectors = w.padded / 2;
    for (int64_t v = 0; v < w.dim_tiles * 16; ++v)
      _mm512_store_si512(w.keys[i] + 32 * v, v < vectors ? _mm512_loadu_si512(keys + 32 * v) : _mm512_setzero_si512());
    w.key_tiles[i] = w.keys[i];
  }
}

// Copies the pairs of positions that somebody sees; the others, and the unseen one of a pair, become zero.
inline void gather_values(TileWork& w, int64_t tile, const Visible& span) {
  const KvLayout& kv = w.a.layout;
  const __m512i even = _mm512_set1_epi32(0xffff), odd = _mm512_set1_epi32(-65536);
  for (int64_t p = tile; p < tile + kTilePositions; p += 2) {
    bf16* to = w.values + (p - tile) * w.padded;
    const bool sees_even = p >= span.begin && p < span.end, sees_odd = p + 1 >= span.begin && p + 1 < span.end;
    if (!sees_even && !sees_odd) {
      for (int64_t d = 0; d < w.padded; d += 16) _mm512_store_si512(to + 2 * d, _mm512_setzero_si512());
      continue;
    }
    const __m512i keep = sees_even && sees_odd ? _mm512_set1_epi32(-1) : sees_even ? even : odd;
    const bf16* from =
        static_cast<const bf16*>(w.a.v_cache) + block_at(w, p) + kv.value_at(w.g, p % kv.block_tokens, 0);
    for (int64_t d = 0; d < w.padded; d += 16)
      _mm512_store_si512(to + 2 * d, _mm512_and_si512(keep, _mm512_loadu_si512(from + 2 * d)));
  }
}

// Raw q.k of kTileRowCount tile rows with two subtiles (which may be the same).
template <int kTileRowCount>
inline void score_pair(TileWork& w, int first, int second) {
  tile_zero<0>(), tile_zero<1>();
  if constexpr (kTileRowCount == 2) tile_zero<2>(), tile_zero<3>();
  for (int64_t d = 0; d < w.dim_tiles; ++d) {
    constexpr int64_t kRowBytes = kMaxHeadDim * 2;
    tile_load<4>(w.query[0] + d * kTileDims, kRowBytes);
    tile_load<6>(w.key_tiles[first] + d * kTileDims * 16, 64);
    tile_multiply<0, 4, 6>();
    tile_load<7>(w.key_tiles[second] + d * kTileDims * 16, 64);
    tile_multiply<1, 4, 7>();
    if constexpr (kTileRowCount == 2) {
      tile_load<5>(w.query[16] + d * kTileDims, kRowBytes);
      tile_multiply<2, 5, 6>(), tile_multiply<3, 5, 7>();
    }
  }
  constexpr int64_t kRowBytes = kTilePositions * 4;
  tile_store<0>(w.weights[0] + 16 * first, kRowBytes), tile_store<1>(w.weights[0] + 16 * second, kRowBytes);
  if constexpr (kTileRowCount == 2)
    tile_store<2>(w.weights[16] + 16 * first, kRowBytes), tile_store<3>(w.weights[16] + 16 * second, kRowBytes);
}

// Weighted values of dimensions [d, d + 16) and, if kTwo, the next sixteen, added to the sums.
template <int kTileRowCount, bool kTwo>
inline void add_values(TileWork& w, int64_t d) {
  constexpr int64_t kRowBytes = kMaxHeadDim * 4, kWeightBytes = kTilePositions * 2;
  const int64_t pair_bytes = w.padded * 4;
  tile_load<0>(w.sums[0] + d, kRowBytes);
  if constexpr (kTwo) tile_load<1>(w.sums[0] + d + 16, kRowBytes);
  if constexpr (kTileRowCount == 2) tile_load<2>(w.sums[16] + d, kRowBytes);
  if constexpr (kTileRowCount == 2 && kTwo) tile_load<3>(w.sums[16] + d + 16, kRowBytes);
  for (int64_t p = 0; p < kTilePositions; p += 32) {
    tile_load<4>(w.weight[0] + p, kWeightBytes);
    tile_load<6>(w.values + p * w.padded + 2 * d, pair_bytes);
    tile_multiply<0, 4, 6>();
    if constexpr (kTwo) {
      tile_load<7>(w.values + p * w.padded + 2 * d + 32, pair_bytes);
      tile_multiply<1, 4, 7>();
    }
    if constexpr (kTileRowCount == 2) {
      tile_load<5>(w.weight[16] + p, kWeightBytes);
      tile_multiply<2, 5, 6>();
      if constexpr (kTwo) tile_multiply<3, 5, 7>();
    }
  }
  tile_store<0>(w.sums[0] + d, kRowBytes);
  if constexpr (kTwo) tile_store<1>(w.sums[0] + d + 16, kRowBytes);
  if constexpr (kTileRowCount == 2) tile_store<2>(w.sums[16] + d, kRowBytes);
  if constexpr (kTileRowCount == 2 && kTwo) tile_store<3>(w.sums[16] + d + 16, kRowBytes);
}

inline Vec raw_product(const TileWork& w, int r, int at) { return Vec::load(w.weights[r] + at); }
template <int kTileRowCount, class Fetch>
inline void add_all_values(TileWork& w, const Fetch& fetch) {
  int64_t d = 0;
  for (; d + 32 <= w.padded; d += 32) {
    fetch();
    add_values<kTileRowCount, true>(w, d);
  }
  if (d < w.padded) add_values<kTileRowCount, false>(w, d);
}

// ---- scores to weights, sixteen rows at a time ----

// Lane r of the result combines the sixteen lanes of values[r], in the same order for every r.
template <class Combine>
inline __m512 reduce_each(const __m512 (&values)[16], const Combine& combine) {
  __m512 quads[4];  // lane i of four: row 4q + i
  for (int q = 0; q < 4; ++q) {
    const __m512* v = values + 4 * q;
    const __m512 ab = combine(_mm512_unpacklo_ps(v[0], v[1]), _mm512_unpackhi_ps(v[0], v[1]));
    const __m512 cd = combine(_mm512_unpacklo_ps(v[2], v[3]), _mm512_unpackhi_ps(v[2], v[3]));
    quads[q] = combine(_mm512_shuffle_ps(ab, cd, 0x44), _mm512_shuffle_ps(ab, cd, 0xee));
  }
  const auto halves = [&](__m512 a, __m512 b) {
    return combine(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd));
  };
  return halves(halves(quads[0], quads[1]), halves(quads[2], quads[3]));
}

// The positions of the tile that a row sees, as bits.
inline uint64_t seen_bits(const Visible& seen, int64_t tile) {
  const int64_t begin = std::max<int64_t>(0, seen.begin - tile), end = std::min(kTilePositions, seen.end - tile);
  if (begin >= end) return 0;
  return ~uint64_t{0} >> (kTilePositions - (end - begin)) << begin;
}

// 2^x for x <= 0, relative error below 2e-7; lanes outside `keep`, and results below the smallest normal, are zero.
inline __m512 power_of_two(__m512 x, __mmask16 keep) {
  const __m512 n = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC), r = _mm512_sub_ps(x, n);
  __m512 p = _mm512_set1_ps(1.32647261e-3f);  // least largest relative error on [-1/2, 1/2]
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(9.67151299e-3f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(5.55073358e-2f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(2.40222424e-1f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(6.93147004e-1f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
  return _mm512_maskz_scalef_ps(_mm512_mask_cmp_ps_mask(keep, x, _mm512_set1_ps(-125.0f), _CMP_GE_OQ), p, n);
}

// The sixteen rows from `first` on, of which `rows` exist.
struct RowGroup {
  int first, rows;
  uint64_t seen[16];
};

inline void keep_weights(TileWork& w, int r, uint64_t, const __m512 (&weight)[kTileVecs]) {
  for (int i = 0; i < kTileVecs; i += 2) store_rounded({weight[i]}, {weight[i + 1]}, w.weight[r] + 16 * i);
}
inline void finish_weights(TileWork&, const RowGroup&) {}
inline void shrink_sums(TileWork& w, int r, float keep) {
  if (keep == 1.0f) return;
  for (int64_t d = 0; d < w.padded; d += 16) (Vec::load(w.sums[r] + d) * Vec::set(keep)).store(w.sums[r] + d);
}

inline void clear16(int8_t* to) { _mm_store_si128(reinterpret_cast<__m128i*>(to), _mm_setzero_si128()); }
#include "kernels/cpu/amx/attention_int8.inl"

// The highest raw product of each row. Where scores are more than scaled products, they replace them.
template <class Work>
inline __m512 highest_of(Work& w, const RowGroup& g, int64_t tile) {
  const bool finish = w.a.soft_cap > 0 || w.a.alibi_slopes;
  __m512 highest[16];
  for (int r = 0; r < 16; ++r) {
    highest[r] = _mm512_set1_ps(-__builtin_inff());
    if (r >= g.rows) continue;
    float* at = w.weights[g.first + r];
    for (int i = 0; i < kTileVecs; ++i) {
      Vec raw = raw_product(w, g.first + r, 16 * i);
      if (finish) raw = finished_score(w, w.row[g.first + r], raw, tile + 16 * i);
      if (finish || w.scaled) raw.store(at + 16 * i);
      const auto seen = static_cast<__mmask16>(g.seen[r] >> (16 * i));
      highest[r] = _mm512_mask_max_ps(highest[r], seen, highest[r], raw.v);
    }
  }
  return reduce_each(highest, [](__m512 a, __m512 b) { return _mm512_max_ps(a, b); });
}

// Scores to weights 2^(factor * score - base), in the form of the products. Returns each row's sum of them.
template <class Work>
inline __m512 weigh_group(Work& w, const RowGroup& g, float factor, __m512 base) {
  alignas(64) float bases[16];
  _mm512_store_ps(bases, base);
  __m512 totals[16];
  for (int r = 0; r < 16; ++r) {
    totals[r] = _mm512_setzero_ps();
    if (r >= g.rows) continue;
    __m512 weight[kTileVecs];
    for (int i = 0; i < kTileVecs; ++i) {
      const __m512 score = _mm512_loadu_ps(w.weights[g.first + r] + 16 * i);
      const auto seen = static_cast<__mmask16>(g.seen[r] >> (16 * i));
      weight[i] = power_of_two(_mm512_fmsub_ps(score, _mm512_set1_ps(factor), _mm512_set1_ps(bases[r])), seen);
      totals[r] = _mm512_add_ps(totals[r], weight[i]);
    }
    keep_weights(w, g.first + r, g.seen[r], weight);
  }
  finish_weights(w, g);
  return reduce_each(totals, [](__m512 a, __m512 b) { return _mm512_add_ps(a, b); });
}

// Rows' raw products with the tile to weights, folded into the rows' states; their sums shrink to the new tops.
template <class Work>
inline void weigh_rows(Work& w, int first, int64_t tile) {
  constexpr float kLog2E = 1.44269504f;
  RowGroup g{first, std::min(16, w.rows - first), {}};
  for (int r = 0; r < g.rows; ++r) g.seen[r] = seen_bits(w.row[first + r].seen, tile);
  const float scale = w.a.soft_cap > 0 || w.a.alibi_slopes ? 1.0f : w.a.scale;
  float* const states = &w.state[first].top;
  Vec top, total;
  Vec::split_pairs(Vec::load(states), Vec::load(states + 16), top, total);
  const Vec raised = Vec::max(top, Vec{highest_of(w, g, tile)} * Vec::set(scale));
  const Vec sums{weigh_group(w, g, scale * kLog2E, (raised * Vec::set(kLog2E)).v)};
  const __mmask16 same = _mm512_cmp_ps_mask(top.v, raised.v, _CMP_EQ_OQ);  // also where nothing was seen so far
  const Vec keep{_mm512_mask_blend_ps(same, exp(top - raised).v, _mm512_set1_ps(1.0f))};
  Vec low, high;
  Vec::join_pairs(raised, Vec::fma(total, keep, sums), low, high);
  low.store(states), high.store(states + 16);
  alignas(64) float keeps[16];
  keep.store(keeps);
  for (int r = 0; r < g.rows; ++r) shrink_sums(w, first + r, keeps[r]);
}

// The keys and values of the tile after this one, asked for a piece at a time between products: blocks lie apart, so
// nothing else foresees them, and a core that asks for more lines than it can await stands still.
class NextTile {
 public:
  NextTile(const AttentionWork& w, int64_t tile) {
    const KvLayout& kv = w.a.layout;
    const Visible& seen = w.row[w.rows - 1].seen;
    const int64_t width = dtype_bytes(kv.dtype);
    bytes_ = kv.group_elements() * width;
    for (int64_t p = tile + kTilePositions; p < std::min(tile + 2 * kTilePositions, seen.end); p += kKvLanes) {
      if (p + kKvLanes <= w.row[0].seen.begin) continue;  // perhaps no block
      const int64_t at = (block_at(w, p) + kv.group_at(w.g, p % kv.block_tokens)) * width;
      pieces_[count_++] = static_cast<const char*>(w.a.k_cache) + at;
      pieces_[count_++] = static_cast<const char*>(w.a.v_cache) + at;
    }
  }
  void fetch_piece() {
    if (next_ == count_) return;
    for (int64_t i = 0; i < bytes_; i += 64) _mm_prefetch(pieces_[next_] + i, _MM_HINT_T1);
    ++next_;
  }

 private:
  const char* pieces_[2 * kSubtiles];
  int64_t bytes_;
  int count_ = 0, next_ = 0;
};

template <int kTileRowCount, class Work>
inline void run_tile(Work& w, int64_t tile) {
  const Visible span = seen_of_tile(w, 0, w.rows, tile);
  const int first = static_cast<int>((span.begin - tile) / kKvLanes);
  const int end = static_cast<int>((span.end - tile + kKvLanes - 1) / kKvLanes);
  find_keys(w, tile, first, end);
  NextTile next(w, tile);
  const auto fetch = [&] {
    if constexpr (kTileRowCount == 1) next.fetch_piece();  // more rows multiply longer than they read
  };
  for (int i = first; i < end; i += 2) {
    fetch();
    score_pair<kTileRowCount>(w, i, std::min(i + 1, end - 1));
  }
  fetch(), fetch();
  for (int r = 0; r < w.rows; r += 16) weigh_rows(w, r, tile);
  fetch();
  gather_values(w, tile, span);
  fetch();
  add_all_values<kTileRowCount>(w, fetch);
}

template <class W>
struct Tiles {
  using Work = W;
  static void prepare(W& w) { prepare_queries(w); }
  static void run(W& w, int64_t tile) {
    if (w.rows <= 16)
      run_tile<1>(w, tile);
    else
      run_tile<2>(w, tile);
  }
};

}  // namespace

void paged_attention(const AttentionArgs& a) {
  if (a.layout.dtype == DType::kBf16) return attend_with<Tiles<TileWork>>(a);
  if (a.layout.dtype == DType::kI8) return attend_with<Tiles<Int8Work>>(a);
  avx512::paged_attention(a);
}

}  // namespace millrace::amx
#pragma GCC pop_options
