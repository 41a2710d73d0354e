// The tile products over an int8 cache, whose integers go to tiles as they are. A query is 128 * high + low with high
// and low int8, times its step, which keeps fifteen bits of it. A row's weights in a tile, the values' scales included,
// are 256 * high + low with high and low unsigned, times a step, which keeps sixteen bits of the largest. Sums are
// exact within a tile.

constexpr int64_t kInt8TileDims = 64;  // of a head, in one tile of queries or keys
constexpr int kLowBits = 7;
constexpr int64_t kSubtiles = kTilePositions / kKvLanes;  // of sixteen positions

inline TileShapes shapes_for(int rows) {
  TileShapes shapes = TileShapes::full();
  if (rows < 16)
    for (const int i : {0, 1, 2, 3, 4, 5}) shapes.set(i, rows, 64);
  return shapes;
}

struct Int8Work : AttentionWork {
  Int8Work(const AttentionArgs& args, const AttentionItem& item)
      : AttentionWork(args, item), int8_tiles((padded + kInt8TileDims - 1) / kInt8TileDims), use(shapes_for(rows)) {}
  const int64_t int8_tiles;
  const TileUse use;
  alignas(64) int8_t keys[kSubtiles][kMaxHeadDim * 16];  // copies, where Dp is not a multiple of 64
  alignas(64) int8_t high[kMaxRows][kMaxHeadDim], low[kMaxRows][kMaxHeadDim];  // zero beyond rows and Dp
  alignas(64) int32_t low_products[kMaxRows][kTilePositions];                  // those of `high` are in weights
  float step[kMaxRows];
  const int8_t* int8_keys[kSubtiles];
  alignas(64) int8_t int8_values[kTilePositions * kMaxHeadDim];                                     // [16][Dp][4]
  alignas(64) uint8_t weight_high[kMaxRows][kTilePositions], weight_low[kMaxRows][kTilePositions];  // zero beyond rows
  float weight_step[kMaxRows], keep[kMaxRows];  // what a weight's unit counts; what earlier sums shrink to
  alignas(64) float peaks[16][16];
  alignas(64) int32_t high_sums[kMaxRows][kMaxHeadDim], low_sums[kMaxRows][kMaxHeadDim];
};

inline void clear16(int8_t* to) { _mm_store_si128(reinterpret_cast<__m128i*>(to), _mm_setzero_si128()); }

// A row that is not finite has no finite products.
inline void split_query(Int8Work& w, int r) {
  Vec largest = Vec::zero(), poison = Vec::zero();
  for (int64_t d = 0; d < w.padded; d += 16) {
    const Vec q = Vec::load(w.q[r] + d);
    largest = Vec::max(largest, Vec::abs(q));
    poison = Vec::fma(q, Vec::zero(), poison);
  }
  constexpr float kMost = 127 << kLowBits;
  const float most = largest.largest(), inverse = most >= kLeastKvMax ? kMost / most : 0;
  w.step[r] = most / kMost + poison.sum();
  for (int64_t d = 0; d < w.padded; d += 16) {
    const __m512i q = _mm512_cvtps_epi32((Vec::load(w.q[r] + d) * Vec::set(inverse)).v);
    const __m512i high = _mm512_srai_epi32(_mm512_add_epi32(q, _mm512_set1_epi32(1 << (kLowBits - 1))), kLowBits);
    const __m512i low = _mm512_sub_epi32(q, _mm512_slli_epi32(high, kLowBits));
    _mm_store_si128(reinterpret_cast<__m128i*>(w.high[r] + d), _mm512_cvtepi32_epi8(high));
    _mm_store_si128(reinterpret_cast<__m128i*>(w.low[r] + d), _mm512_cvtepi32_epi8(low));
  }
}

inline void prepare_queries(Int8Work& w) {
  const int rows = (w.rows + 15) / 16 * 16;
  for (int r = 0; r < rows; ++r) {
    for (int64_t d = w.padded; d < w.int8_tiles * kInt8TileDims; d += 16) clear16(w.high[r] + d), clear16(w.low[r] + d);
    if (r < w.rows)
      split_query(w, r);
    else
      for (int64_t d = 0; d < w.padded; d += 16) clear16(w.high[r] + d), clear16(w.low[r] + d);
  }
  for (int r = w.rows; r < rows; ++r)
    for (uint8_t* weights : {w.weight_high[r], w.weight_low[r]}) _mm512_store_si512(weights, _mm512_setzero_si512());
}

// Points int8_keys at the sixteen positions of each subtile that somebody sees, padded to whole tiles.
inline void find_keys(Int8Work& w, int64_t tile, int first, int end) {
  const KvLayout& kv = w.a.layout;
  load_scales(w, tile, first, end);
  for (int i = first; i < end; ++i) {
    const int64_t position = tile + i * kKvLanes;
    const int8_t* keys =
        static_cast<const int8_t*>(w.a.k_cache) + block_at(w, position) + kv.group_at(w.g, position % kv.block_tokens);
    w.int8_keys[i] = keys;
    if (w.padded % kInt8TileDims == 0) continue;
    int8_t* const copy = w.keys[i];
    const int64_t vectors = w.padded / 4;
    for (int64_t v = 0; v < w.int8_tiles * 16; ++v)
      _mm512_store_si512(copy + 64 * v, v < vectors ? _mm512_loadu_si512(keys + 64 * v) : _mm512_setzero_si512());
    w.int8_keys[i] = copy;
  }
}

// Products of the sixteen rows from `row` on with two subtiles (which may be the same).
inline void score_rows(Int8Work& w, int row, int first, int second) {
  tile_zero<0>(), tile_zero<1>(), tile_zero<2>(), tile_zero<3>();
  for (int64_t d = 0; d < w.int8_tiles; ++d) {
    tile_load<4>(w.high[row] + d * kInt8TileDims, kMaxHeadDim);
    tile_load<6>(w.int8_keys[first] + d * kInt8TileDims * 16, 64);
    tile_multiply_int8<0, 4, 6>();
    tile_load<7>(w.int8_keys[second] + d * kInt8TileDims * 16, 64);
    tile_multiply_int8<1, 4, 7>();
    tile_load<5>(w.low[row] + d * kInt8TileDims, kMaxHeadDim);
    tile_multiply_int8<2, 5, 6>(), tile_multiply_int8<3, 5, 7>();
  }
  constexpr int64_t kRowBytes = kTilePositions * 4;
  tile_store<0>(w.weights[row] + 16 * first, kRowBytes), tile_store<1>(w.weights[row] + 16 * second, kRowBytes);
  tile_store<2>(w.low_products[row] + 16 * first, kRowBytes);
  tile_store<3>(w.low_products[row] + 16 * second, kRowBytes);
}
template <int kTileRowCount>
inline void score_pair(Int8Work& w, int first, int second) {
  for (int row = 0; row < 16 * kTileRowCount; row += 16) score_rows(w, row, first, second);
}

// Row r's q.k with the sixteen positions from `at` on in the tile.
inline Vec raw_product(const Int8Work& w, int r, int at) {
  const __m512i high = _mm512_load_si512(w.weights[r] + at), low = _mm512_load_si512(w.low_products[r] + at);
  const Vec sum{_mm512_cvtepi32_ps(_mm512_add_epi32(_mm512_slli_epi32(high, kLowBits), low))};
  return sum * (Vec::load(w.key_scales + at) * Vec::set(w.step[r]));
}

// ---- weights and values ----

// Copies the subtiles that somebody sees; the others' weights are zero.
inline void gather_values(Int8Work& w, int64_t tile, const Visible& span) {
  const KvLayout& kv = w.a.layout;
  for (int64_t p = span.begin / kKvLanes * kKvLanes; p < span.end; p += kKvLanes) {
    int8_t* to = w.int8_values + (p - tile) * w.padded;
    const int8_t* from =
        static_cast<const int8_t*>(w.a.v_cache) + block_at(w, p) + kv.group_at(w.g, p % kv.block_tokens);
    for (int64_t i = 0; i < kKvLanes * w.padded; i += 64) _mm512_store_si512(to + i, _mm512_loadu_si512(from + i));
  }
}

// Weights of the values' integers, in float32 where the scores were.
inline void keep_weights(Int8Work& w, int r, uint64_t seen, const __m512 (&weight)[kTileVecs]) {
  __m512i peak = _mm512_setzero_si512();
  for (int i = 0; i < kTileVecs; ++i) {
    const __m512 scale = _mm512_load_ps(w.value_scales + 16 * i);
    const __m512 scaled = _mm512_maskz_mul_ps(static_cast<__mmask16>(seen >> (16 * i)), weight[i], scale);
    _mm512_store_ps(w.weights[r] + 16 * i, scaled);
    peak = _mm512_max_epu32(peak, _mm512_castps_si512(scaled));  // NaN is the largest
  }
  _mm512_store_si512(w.peaks[r % 16], peak);
}

// A row's weights, times `inverse`, as the high and the low bytes of sixteen bits.
inline void split_weights(Int8Work& w, int r, float inverse) {
  const auto load = [&](int i) {
    return _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_load_ps(w.weights[r] + 16 * i), _mm512_set1_ps(inverse)));
  };
  const __m512i ab = _mm512_packus_epi32(load(0), load(1)), cd = _mm512_packus_epi32(load(2), load(3));
  const __m512i low_byte = _mm512_set1_epi16(0xff);
  _mm512_store_si512(w.weight_high[r],
                     avx512::packed_unsigned_bytes(_mm512_srli_epi16(ab, 8), _mm512_srli_epi16(cd, 8)));
  _mm512_store_si512(w.weight_low[r],
                     avx512::packed_unsigned_bytes(_mm512_and_si512(ab, low_byte), _mm512_and_si512(cd, low_byte)));
}

// The sixteen rows from `first` on, of which `rows` exist.
struct RowGroup {
  int first, rows;
  uint64_t seen[16];
};

// Each row's weights relative to its largest in the tile.
inline void finish_weights(Int8Work& w, const RowGroup& g) {
  constexpr float kMost = 65535;
  __m512 peaks[16];
  for (int r = 0; r < 16; ++r) peaks[r] = r < g.rows ? _mm512_load_ps(w.peaks[r]) : _mm512_setzero_ps();
  const __m512 peak = reduce_each(peaks, [](__m512 a, __m512 b) {
    return _mm512_castsi512_ps(_mm512_max_epu32(_mm512_castps_si512(a), _mm512_castps_si512(b)));
  });
  const __mmask16 some = _mm512_cmp_ps_mask(peak, _mm512_set1_ps(kLeastKvMax), _CMP_GE_OQ);
  alignas(64) float inverse[16];
  _mm512_store_ps(inverse, _mm512_maskz_div_ps(some, _mm512_set1_ps(kMost), peak));
  _mm512_storeu_ps(w.weight_step + g.first, _mm512_mul_ps(peak, _mm512_set1_ps(1 / kMost)));
  for (int r = 0; r < g.rows; ++r) split_weights(w, g.first + r, inverse[r]);
}

inline void shrink_sums(Int8Work& w, int r, float keep) { w.keep[r] = keep; }

// Weighted integers of the sixteen rows from `row` on.
inline void multiply_values(Int8Work& w, int row) {
  const int64_t four_bytes = w.padded * 4;
  constexpr int64_t kRowBytes = kMaxHeadDim * 4;
  tile_load<4>(w.weight_high[row], kTilePositions), tile_load<5>(w.weight_low[row], kTilePositions);
  for (int64_t d = 0; d < w.padded; d += 32) {
    const int64_t other = d + 16 < w.padded ? d + 16 : d;
    tile_zero<0>(), tile_zero<1>(), tile_zero<2>(), tile_zero<3>();
    tile_load<6>(w.int8_values + d * 4, four_bytes);
    tile_multiply_uint8<0, 4, 6>(), tile_multiply_uint8<1, 5, 6>();
    tile_load<7>(w.int8_values + other * 4, four_bytes);
    tile_multiply_uint8<2, 4, 7>(), tile_multiply_uint8<3, 5, 7>();
    tile_store<0>(w.high_sums[row] + d, kRowBytes), tile_store<1>(w.low_sums[row] + d, kRowBytes);
    tile_store<2>(w.high_sums[row] + other, kRowBytes), tile_store<3>(w.low_sums[row] + other, kRowBytes);
  }
}

template <int kTileRowCount, class Fetch>
inline void add_all_values(Int8Work& w, const Fetch& fetch) {
  for (int row = 0; row < 16 * kTileRowCount; row += 16) multiply_values(w, row);
  fetch(), fetch();
  for (int r = 0; r < w.rows; ++r) {
    const Vec keep = Vec::set(w.keep[r]), step = Vec::set(w.weight_step[r]);
    for (int64_t d = 0; d < w.padded; d += 16) {
      const __m512i high = _mm512_slli_epi32(_mm512_load_si512(w.high_sums[r] + d), 8);
      const Vec sum{_mm512_cvtepi32_ps(_mm512_add_epi32(high, _mm512_load_si512(w.low_sums[r] + d)))};
      Vec::fma(sum, step, Vec::load(w.sums[r] + d) * keep).store(w.sums[r] + d);
    }
  }
}

// ---- scores to weights, sixteen rows at a time ----

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

// The highest raw product of each row, or score, where that is more than a scaled product. They replace the integers.
inline __m512 highest_of(Int8Work& w, const RowGroup& g, int64_t tile) {
  const bool finish = w.a.soft_cap > 0 || w.a.alibi_slopes;
  __m512 highest[16];
  for (int r = 0; r < 16; ++r) {
    highest[r] = _mm512_set1_ps(-__builtin_inff());
    if (r >= g.rows) continue;
    float* at = w.weights[g.first + r];
    for (int i = 0; i < kTileVecs; ++i) {
      Vec raw = raw_product(w, g.first + r, 16 * i);
      if (finish) raw = finished_score(w.a, w.row[g.first + r], raw, tile + 16 * i);
      raw.store(at + 16 * i);
      const auto seen = static_cast<__mmask16>(g.seen[r] >> (16 * i));
      highest[r] = _mm512_mask_max_ps(highest[r], seen, highest[r], raw.v);
    }
  }
  return reduce_each(highest, [](__m512 a, __m512 b) { return _mm512_max_ps(a, b); });
}

// Scores to weights 2^(factor * score - base), in the form of the products. Returns each row's sum of them.
inline __m512 weigh_group(Int8Work& w, const RowGroup& g, float factor, __m512 base) {
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
inline void weigh_rows(Int8Work& w, int first, int64_t tile) {
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

template <int kTileRowCount>
inline void run_tile(Int8Work& w, int64_t tile) {
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

struct Int8Tiles {
  using Work = Int8Work;
  static void prepare(Int8Work& w) { prepare_queries(w); }
  static void run(Int8Work& w, int64_t tile) {
    if (w.rows <= 16)
      run_tile<1>(w, tile);
    else
      run_tile<2>(w, tile);
  }
};
