// The products of paged attention by instructions that multiply what four bytes hold: keys lie in lines of sixteen
// positions' dwords, values in lines of sixteen elements' dwords (kernels/kv_layout.h). A Format says what they are:
//   Element        of the cache
//   kDigits        how many dwords of a query or of weights meet each dword of the cache
//   kMoreQueries   rows of dwords behind those of queries that meet the keys, too
//   product()      sums + dword * line
//   prepare(), weigh(), start(), finish(): see where they are called

constexpr int kVecs = 4, kMostSums = 24;  // sums; with them four lines and a dword are in the 32 registers
constexpr float kLog2E = 1.44269504f;

template <class Format>
struct DwordWork : AttentionWork {
  using AttentionWork::AttentionWork;
  static constexpr int kQueries = kMaxRows * Format::kDigits + Format::kMoreQueries;
  static constexpr int64_t kEach = 4 / sizeof(typename Format::Element);  // elements of a dword
  int64_t lines() const { return padded / kEach; }                        // of a sixteen of positions
  alignas(64) uint32_t queries[kQueries][kMaxHeadDim / kEach];
  alignas(64) int32_t products[kQueries][kTilePositions];  // with keys
  alignas(64) uint32_t weight_dwords[kMaxRows * Format::kDigits][kTilePositions / kEach];
  float keep[kMaxRows];  // what earlier sums are multiplied with
  typename Format::More more;
};

// Where the sixteens of positions of a tile lie in one of the caches; what is multiplied now is a line of such a
// sixteen, and the same line of another's is fetched meanwhile. Into the second-level cache: the first awaits few lines
// at once.
using Sixteens = std::array<const char*, kTileVecs>;
inline void fetch(const char* at) { _mm_prefetch(at, _MM_HINT_T1); }

// Of the tile at `tile`, or of the first tile of the head that comes next where this one ends before.
inline Sixteens sixteens_of(const AttentionWork& w, const void* cache, int64_t tile) {
  Sixteens all;
  const KvLayout& kv = w.a.layout;
  int64_t last = (w.row[w.rows - 1].seen.end - 1) / kKvLanes * kKvLanes, g = w.g;
  if (tile > last && g + 1 < kv.kv_heads) tile = w.row[0].seen.begin / kTilePositions * kTilePositions, ++g;
  for (int64_t i = 0; i < kTileVecs; ++i) {
    const int64_t position = std::min(tile + i * kKvLanes, last);
    all[i] = static_cast<const char*>(cache) +
             (block_at(w, position) + kv.group_at(g, position % kv.block_tokens)) * dtype_bytes(kv.dtype);
  }
  return all;
}

template <class Format>
using Keys = TileKeys<typename Format::Element>;

// kRows rows of queries from `row` on with the positions of kCount sixteens.
template <class Format, int kRows, int kCount>
inline void score_rows(DwordWork<Format>& w, int row, int vec, const typename Format::Element* const* keys,
                       const char* const* ahead) {
  __m512i sums[kRows][kCount];
#pragma GCC unroll 32
  for (int i = 0; i < kRows * kCount; ++i) sums[i / kCount][i % kCount] = _mm512_setzero_si512();
  const int64_t lines = w.lines();
  for (int64_t line = 0; line < lines; ++line) {
    __m512i k[kCount];
#pragma GCC unroll 4
    for (int i = 0; i < kCount; ++i) {
      fetch(ahead[i] + line * 64);
      k[i] = _mm512_loadu_si512(reinterpret_cast<const char*>(keys[i]) + line * 64);
    }
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 4
      for (int i = 0; i < kCount; ++i) sums[r][i] = Format::product(sums[r][i], w.queries[row + r][line], k[i]);
  }
#pragma GCC unroll 32
  for (int i = 0; i < kRows * kCount; ++i)
    _mm512_store_si512(w.products[row + i / kCount] + 16 * (vec + i % kCount), sums[i / kCount][i % kCount]);
}

template <class Format>
inline void score_tile(DwordWork<Format>& w, const Keys<Format>& keys, const Sixteens& ahead) {
  in_groups<kMostSums / kVecs>(w.rows * Format::kDigits + Format::kMoreQueries, [&]<int kRows>(int row) {
    int i = keys.first;
    for (; i + kVecs <= keys.end; i += kVecs) score_rows<Format, kRows, kVecs>(w, row, i, keys.at + i, &ahead[i]);
    for (; i < keys.end; ++i) score_rows<Format, kRows, 1>(w, row, i, keys.at + i, &ahead[i]);
  });
}

// sums = sums * keep + p.v for kRows rows and kCount sixteens of elements from d on. False, and nothing done, where
// they are to be checked and not finite.
template <class Format, int kRows, int kCount>
inline bool add_values(DwordWork<Format>& w, int row, int64_t d, int64_t tile, Visible span, bool checked,
                       const Sixteens& ahead) {
  constexpr int kDigits = Format::kDigits, kSums = kRows * kDigits * kCount;
  constexpr int64_t kEach = DwordWork<Format>::kEach;
  __m512i sums[kRows * kDigits][kCount];
#pragma GCC unroll 32
  for (int i = 0; i < kSums; ++i)
    sums[i / kCount][i % kCount] = Format::start(w, row + i / kCount / kDigits, d + 16 * (i % kCount));
  const KvLayout& kv = w.a.layout;
  for (int64_t p = span.begin / kEach * kEach; p < span.end;) {
    const int64_t end = std::min(span.end, p / kKvLanes * kKvLanes + kKvLanes);
    const int64_t sixteen = p / kKvLanes * kKvLanes, first = ((p - sixteen) * w.padded + kEach * d) * (4 / kEach);
    const char* values = static_cast<const char*>(w.a.v_cache) +
                         (block_at(w, p) + kv.group_at(w.g, sixteen % kv.block_tokens)) * (4 / kEach) + first;
    const char* fetched = ahead[(sixteen - tile) / kKvLanes] + first;
    for (; p < end; p += kEach, values += 4 * w.padded, fetched += 4 * w.padded) {
      __m512i v[kCount];
#pragma GCC unroll 4
      for (int i = 0; i < kCount; ++i) {
        fetch(fetched + 64 * i);
        v[i] = Format::seen(_mm512_loadu_si512(values + 64 * i), p, span);
      }
      const uint32_t* weights = &w.weight_dwords[row * kDigits][(p - tile) / kEach];
#pragma GCC unroll 8
      for (int r = 0; r < kRows * kDigits; ++r)
#pragma GCC unroll 4
        for (int i = 0; i < kCount; ++i)
          sums[r][i] = Format::product(sums[r][i], weights[r * (kTilePositions / kEach)], v[i]);
    }
  }
  return Format::finish(w, row, d, checked, sums);
}

template <class Format>
struct DwordTiles {
  using Work = DwordWork<Format>;
  static void prepare(Work& w) { Format::prepare(w); }
  static void run(Work& w, int64_t tile) {
    const Keys<Format> keys(w, tile);
    if (w.scaled) load_scales(w, tile, keys.first, keys.end);
    score_tile(w, keys, sixteens_of(w, w.a.v_cache, tile));
    const Sixteens next = sixteens_of(w, w.a.k_cache, tile + kTilePositions);
    Format::weigh(w, tile);
    const auto add = [&]<int kCount>(int64_t d) {
      add_by_groups<kMostSums / kVecs / Format::kDigits>(
          w, tile, [&]<int kRows>(int row, Visible span, bool checked) {
            return add_values<Format, kRows, kCount>(w, row, d, tile, span, checked, next);
          });
    };
    int64_t d = 0;
    for (; d + 16 * kVecs <= w.padded; d += 16 * kVecs) add.template operator()<kVecs>(d);
    for (; d < w.padded; d += 16) add.template operator()<1>(d);
  }
};
