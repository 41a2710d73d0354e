// The tile products over an int8 cache. Keys go from the cache to tiles as they are; a query is 128 * high + low with
// high and low int8, times its step, which keeps fifteen bits of it, and the sums are exact. Values become bf16 pairs,
// the weights the values' scales included bf16 too.

constexpr int64_t kInt8TileDims = 64;  // of a head, in one tile of queries or keys
constexpr int kLowBits = 7;

struct Int8Work : TileWork {
  Int8Work(const AttentionArgs& args, const AttentionItem& item)
      : TileWork(args, item), int8_tiles((padded + kInt8TileDims - 1) / kInt8TileDims) {}
  const int64_t int8_tiles;
  alignas(64) int8_t high[kMaxRows][kMaxHeadDim], low[kMaxRows][kMaxHeadDim];  // zero beyond rows and Dp
  alignas(64) int32_t low_products[kMaxRows][kTilePositions];                  // those of `high` are in weights
  float step[kMaxRows];
  const int8_t* int8_keys[kSubtiles];
};

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
  clear_spare_weights(w, rows);
}

// As for bf16. Copies are where Dp is not a multiple of 64.
inline void find_keys(Int8Work& w, int64_t tile, int first, int end) {
  const KvLayout& kv = w.a.layout;
  load_scales(w, tile, first, end);
  for (int i = first; i < end; ++i) {
    const int64_t position = tile + i * kKvLanes;
    const int8_t* keys = static_cast<const int8_t*>(w.a.k_cache) + block_at(w, position) +
                         kv.group_at(w.g, position % kv.block_tokens);
    w.int8_keys[i] = keys;
    if (w.padded % kInt8TileDims == 0) continue;
    auto* const copy = reinterpret_cast<int8_t*>(w.keys[i]);
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
inline __m512 value_weight(const Int8Work& w, int at, __mmask16 seen, __m512 weight) {
  return _mm512_maskz_mul_ps(seen, weight, _mm512_load_ps(w.value_scales + at));
}

// Sixteen elements of two positions as bf16 pairs. Eight bits are exact in bf16.
inline __m512i widened_pair(const int8_t* even, const int8_t* odd) {
  const __m512i low = _mm512_srli_epi32(_mm512_castps_si512(Vec::load(even).v), 16);
  constexpr int kSelect = 0xea;  // (odd & mask) | low
  return _mm512_ternarylogic_epi32(_mm512_castps_si512(Vec::load(odd).v), _mm512_set1_epi32(-65536), low, kSelect);
}

// Widens the subtiles that somebody sees; the others become zero.
inline void gather_values(Int8Work& w, int64_t tile, const Visible& span) {
  const KvLayout& kv = w.a.layout;
  for (int64_t p = tile; p < tile + kTilePositions; p += kKvLanes) {
    bf16* to = w.values + (p - tile) * w.padded;
    if (p + kKvLanes <= span.begin || p >= span.end) {
      std::memset(to, 0, static_cast<size_t>(kKvLanes * w.padded) * sizeof(bf16));
      continue;
    }
    const int8_t* from =
        static_cast<const int8_t*>(w.a.v_cache) + block_at(w, p) + kv.group_at(w.g, p % kv.block_tokens);
    for (int64_t i = 0; i < kKvLanes; i += 2, from += 2 * w.padded, to += 2 * w.padded)
      for (int64_t d = 0; d < w.padded; d += 16)
        _mm512_store_si512(to + 2 * d, widened_pair(from + d, from + w.padded + d));
  }
}
