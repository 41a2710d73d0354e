// Paged attention over a bf16 cache by groups of up to sixteen query rows, the rows of a tile. Queries and weights are
// rounded to bf16, products summed in float32. A group's work with a tile of positions, a unit, has three
// stages: products with keys, weights, products with values. While vectors turn a unit's products into weights, tiles
// do the last stage of the unit before and the first of the unit after.

constexpr int kGroupRows = 16;
constexpr int kMaxGroups = 16;                      // of an item; half as many where Weave does not take its heads
constexpr int64_t kMaxGroupDims = 8 * kMaxHeadDim;  // of all groups of an item
constexpr int kSpan = 64;                           // positions of a unit
constexpr int kPair = 32;                           // positions of two subtiles, which one tile of weights spans
constexpr int kSpanPairs = kSpan / kPair, kSpanSubtiles = kSpan / 16;
constexpr int kPartitionSubtiles = static_cast<int>(kPartitionPositions / kKvLanes);
constexpr int64_t kTileFloats = kTileBytes / 4, kTileElements = kTileBytes / 2;

// Rows [row, row + rows) of each of the kv heads [g, g + heads) of sequence s, counted as in AttentionItem.
struct GroupItem {
  int64_t s, g, heads, row, rows;
};

// Rows of one kv head, in rising order of what they see.
struct Group {
  int64_t g;
  int rows, filled;    // asked for, and computed
  int sharing, after;  // how many groups before and after this one have the same head
  Visible seen;        // by any of them
  Row row[kGroupRows];
};

// The unfinished softmax of a group's rows: sums over j of e^(s_j - top) v_j and of e^(s_j - top), times 2^-47. `top`
// is the highest score of the first tile of the partition that the row sees, to the nearest 1/512 of a power of two:
// any number will do that leaves no score 48 powers of two above it. Where the total shows that one did, the partition
// is done again with tops that rise with every tile.
struct GroupState {
  alignas(64) float top[kGroupRows], total[kGroupRows];
  float* sums;  // [Dp/16] tiles
};
constexpr float kMostTotal = 1;  // of a row whose top stays; the largest weight is almost 2

// A group's visit to a tile, where its rows see something of the pairs [first, end) of subtiles.
struct Unit {
  int group, first, end;
  int64_t tile;
  Visible seen;  // of the tile
};

// What a visit leaves for its next stage.
struct UnitMemory {
  alignas(64) float scores[kSpanSubtiles][kGroupRows][16];
  alignas(64) bf16 weights[kSpanPairs][kGroupRows][kPair];
};

inline bool can_weave(const AttentionArgs& a) { return a.layout.padded_dim() == 64 || a.layout.padded_dim() == 128; }

struct GroupWork {
  GroupWork(const AttentionArgs& args, const GroupItem& item)
      : a(args),
        s(item.s),
        padded(args.layout.padded_dim()),
        dim_tiles(static_cast<int>((padded + 31) / 32)),
        value_tiles(static_cast<int>(padded / 16)),
        sixteens(can_weave(args) && item.rows > 4 * kGroupRows) {}
  const AttentionArgs& a;
  const int64_t s, padded;           // sequence, Dp
  const int dim_tiles, value_tiles;  // of queries and keys, of values
  const bool sixteens;               // groups are filled up to sixteen rows, for Weave
  int groups = 0;
  Group group[kMaxGroups];
  __mmask16 rising[kMaxGroups];                             // the rows whose tops rise with every tile
  alignas(64) float base[kMaxGroups][kGroupRows];           // kPowerMagic - 512 * log2(e) * top, of the partition
  GroupState part[kMaxGroups], whole[kMaxGroups];           // of the partition under way, of those before
  int64_t partition = 0;                                    // first position
  int64_t subtile_at[kPartitionSubtiles + kSpanSubtiles];   // elements before head 0's, where somebody looks
  alignas(64) float totals[kMaxGroups][2][kGroupRows][16];  // of the partition, by pair of positions: before and after
                                                            // a unit in turn
  int now[kMaxGroups];                                      // which of the two
  alignas(64) float sums[2 * kGroupRows * kMaxGroupDims];   // of part and whole
  alignas(64) bf16 queries[kGroupRows * kMaxGroupDims];     // [groups][dim_tiles]
  UnitMemory memory[2];
  alignas(64) bf16 values[kPartitionPositions * kMaxHeadDim / 2];  // of a unit or the partition: [pairs][Dp/16] tiles;
                                                                   // zero where no group looks
  alignas(64) float idle[kGroupRows * kMaxHeadDim / 2];            // sums of nothing
};

// ---- before the first partition ----

constexpr int64_t kTileDims = 32;  // of a head, in one tile of queries or keys

inline void store_rounded(Vec low, Vec high, bf16* to) {
  _mm512_storeu_si512(to, reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high.v, low.v)));
}

// Tiles 5 and 7 are for the last sixteen of a head's elements, where Dp is no multiple of 32.
inline TileShapes group_shapes(int rows) {
  TileShapes shapes;
  for (const int i : {0, 1, 2, 3, 4}) shapes.set(i, rows, 64);
  shapes.set(5, rows, 32), shapes.set(6, 16, 64), shapes.set(7, 8, 64);
  return shapes;
}

inline bf16* query_tiles(GroupWork& w, int group) { return w.queries + group * w.dim_tiles * kTileElements; }

// Row r's query, rounded before, into the group's tiles.
inline void copy_query(const GroupWork& w, const Row& row, bf16* tiles, int r) {
  const int64_t D = w.a.layout.head_dim;
  const auto* q = static_cast<const bf16*>(w.a.q) + row.token * w.a.q_stride + row.head * D;
  const auto sixteen = [&](int64_t d) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(q + query_place(d, D)));
  };
  for (int64_t d = 0; d < D; d += kTileDims)
    _mm512_store_si512(tiles + d / kTileDims * kTileElements + r * kTileDims,
                       _mm512_inserti64x4(_mm512_castsi256_si512(sixteen(d)), sixteen(d + 16), 1));
}
// Rounds row r's query into the group's tiles.
inline void place_query(GroupWork& w, const Row& row, bf16* tiles, int r) {
  const int64_t D = w.a.layout.head_dim;
  if (w.a.q_dtype == DType::kBf16 && !w.a.q_factors) return copy_query(w, row, tiles, r);
  const auto load = [&](int64_t d) { return d < D ? query_at(w.a, row, d) : Vec::zero(); };
  for (int64_t d = 0; d < w.padded; d += kTileDims)
    store_rounded(load(d), load(d + 16), tiles + d / kTileDims * kTileElements + r * kTileDims);
}
// Adds rows that nobody asked for, with queries of zeros.
inline void fill_up(const GroupWork& w, Group& group, bf16* tiles) {
  for (; group.filled < kGroupRows; ++group.filled) {
    group.row[group.filled] = group.row[group.rows - 1];
    for (int i = 0; i < w.dim_tiles; ++i)
      _mm512_store_si512(tiles + i * kTileElements + group.filled * kTileDims, _mm512_setzero_si512());
  }
}
inline void add_group(GroupWork& w, int64_t g, int64_t first, int64_t rows, int sharing) {
  const int index = w.groups++;
  Group& group = w.group[index];
  group.g = g, group.rows = group.filled = static_cast<int>(rows), group.sharing = sharing, group.after = 0;
  for (int i = index - sharing; i < index; ++i) ++w.group[i].after;
  const int64_t heads = w.a.H / w.a.layout.kv_heads;
  bf16* const tiles = query_tiles(w, index);
  int64_t token = w.a.query_start[w.s] + first / heads, head = first % heads;
  Visible seen = visible(w.a, w.s, token);
  for (int r = 0; r < rows; ++r, ++head) {
    if (head == heads) head = 0, seen = visible(w.a, w.s, ++token);
    Row& row = group.row[r];
    row.token = token, row.head = g * heads + head, row.seen = seen;
    row.slope = w.a.alibi_slopes ? w.a.alibi_slopes[row.head] : 0.0f;
    row.position = static_cast<float>(row.seen.end - 1);
    place_query(w, row, tiles, r);
  }
  group.seen = {group.row[0].seen.begin, group.row[rows - 1].seen.end};
  if (w.sixteens) fill_up(w, group, tiles);
}
// Asks for the queries of `rows` rows of head g.
inline void ask_for_queries(const GroupWork& w, int64_t g, int64_t first, int64_t rows) {
  const AttentionArgs& a = w.a;
  const int64_t heads = a.H / a.layout.kv_heads, each = dtype_bytes(a.q_dtype);
  const int64_t bytes = heads * a.layout.head_dim * each;
  for (int64_t t = first / heads; t <= (first + rows - 1) / heads; ++t) {
    const auto* const q = static_cast<const char*>(a.q) + (a.query_start[w.s] + t) * a.q_stride * each + g * bytes;
    for (int64_t i = 0; i < bytes; i += 64) _mm_prefetch(q + i, _MM_HINT_T0);
  }
}
inline void add_groups(GroupWork& w, const GroupItem& item) {
  for (int64_t g = item.g; g < item.g + item.heads; ++g) ask_for_queries(w, g, item.row, item.rows);
  for (int64_t g = item.g; g < item.g + item.heads; ++g)
    for (int64_t r = 0; r < item.rows; r += kGroupRows)
      add_group(w, g, item.row + r, std::min<int64_t>(kGroupRows, item.rows - r), static_cast<int>(r / kGroupRows));
  for (int i = 0; i < w.groups; ++i) {
    w.part[i].sums = w.sums + 2 * i * w.value_tiles * kTileFloats;
    w.whole[i].sums = w.part[i].sums + w.value_tiles * kTileFloats;
  }
}
inline Visible partitions_of(const GroupWork& w) {
  const Visible& first = w.group[0].seen;
  const Visible& last = w.group[w.groups - 1].seen;
  return {first.begin / kPartitionPositions, (last.end - 1) / kPartitionPositions + 1};
}
inline void clear_sums(const GroupWork& w, GroupState& state) {
  for (int64_t i = 0; i < w.value_tiles * kTileFloats; i += 16) Vec::zero().store(state.sums + i);
}

// ---- which units there are ----

inline Visible within(const Visible& seen, int64_t begin, int64_t end) {
  return {std::max(seen.begin, begin), std::min(seen.end, end)};
}

// The visit of the group's, if it sees something of the tile.
inline bool visits(const GroupWork& w, Unit& unit) {
  unit.seen = within(w.group[unit.group].seen, unit.tile, unit.tile + kSpan);
  if (unit.seen.begin >= unit.seen.end) return false;
  unit.first = static_cast<int>((unit.seen.begin - unit.tile) / kPair);
  unit.end = static_cast<int>((unit.seen.end - unit.tile + kPair - 1) / kPair);
  return true;
}
// Goes on to the partition's next unit, tile by tile; false where there is none.
inline bool advance(const GroupWork& w, Unit& unit) {
  do {
    if (++unit.group == w.groups) unit.group = 0, unit.tile += kSpan;
    if (unit.tile >= w.partition + kPartitionPositions || unit.tile >= w.group[w.groups - 1].seen.end) return false;
  } while (!visits(w, unit));
  return true;
}

// Elements from head 0's part of a subtile to the group's.
inline int64_t head_offset(const GroupWork& w, const Group& group) {
  return group.g * (w.a.layout.block_tokens / kKvLanes) * w.a.layout.group_elements();
}
inline int64_t group_offset(const GroupWork& w, const Unit& unit, int subtile) {
  return w.subtile_at[(unit.tile - w.partition) / kKvLanes + subtile] + head_offset(w, w.group[unit.group]);
}
inline void find_subtiles(GroupWork& w) {
  const KvLayout& kv = w.a.layout;
  const Visible seen = within({w.group[0].seen.begin, w.group[w.groups - 1].seen.end}, w.partition,
                              w.partition + kPartitionPositions + kSpan);
  for (int64_t p = seen.begin / kKvLanes * kKvLanes; p < seen.end; p += kKvLanes) {
    const int64_t block = w.a.block_table[w.s * w.a.max_blocks + p / kv.block_tokens];
    w.subtile_at[(p - w.partition) / kKvLanes] = block * kv.block_elements() + kv.group_at(0, p % kv.block_tokens);
  }
}

// ---- products ----

// The tile products of two units, a few at a time: the keys' of `next` and the values' of `before` (or null).
class Products {
 public:
  Products(GroupWork& work, const Unit* next, float* scores, const Unit* before, const bf16* weights,
           const bf16* values)
      : w_(work) {
    if (next) plan_keys(*next, scores);
    if (before) plan_values(*before, weights, values);
    left_ = key_pairs_ * key_steps_ + value_pairs_ * value_steps_;
  }
  int left() const { return left_; }
  inline __attribute__((always_inline)) void step() {
    --left_;
    if (key_pairs_ > 0)
      key_step();
    else
      value_step();
  }

 private:
  void plan_keys(const Unit& unit, float* scores) {
    low_ = static_cast<int>((unit.seen.begin - unit.tile) / kKvLanes);
    high_ = static_cast<int>((unit.seen.end - 1 - unit.tile) / kKvLanes);
    subtiles_ = w_.subtile_at + (unit.tile - w_.partition) / kKvLanes;
    keys_ = static_cast<const bf16*>(w_.a.k_cache) + head_offset(w_, w_.group[unit.group]);
    queries_ = query_tiles(w_, unit.group);
    key_steps_ = w_.dim_tiles;
    half_ = w_.padded % kTileDims != 0;
    pair_ = unit.first;
    key_pairs_ = unit.end - unit.first;
    scores_ = scores;
  }
  void plan_values(const Unit& unit, const bf16* weights, const bf16* values) {
    sums_ = w_.part[unit.group].sums;
    weights_ = weights + unit.first * kTileElements;
    values_ = values + unit.first * w_.value_tiles * kTileElements;
    value_steps_ = unit.end - unit.first;
    value_pairs_ = (w_.value_tiles + 1) / 2;
    odd_ = w_.value_tiles % 2 != 0;
  }
  // Raw q.k of a pair of subtiles. Where the rows see only one of them, it stands for both.
  inline __attribute__((always_inline)) void key_step() {
    if (key_step_ == 0) {
      tile_zero<0>(), tile_zero<1>();
      first_ = keys_ + subtiles_[std::max(2 * pair_, low_)],
      second_ = keys_ + subtiles_[std::min(2 * pair_ + 1, high_)];
    }
    const bf16* query = queries_ + key_step_ * kTileElements;
    if (half_ && key_step_ + 1 == key_steps_) {
      tile_load<5>(query, 64);
      tile_load<7>(first_ + key_step_ * kTileElements, 64);
      tile_multiply<0, 5, 7>();
      tile_load<7>(second_ + key_step_ * kTileElements, 64);
      tile_multiply<1, 5, 7>();
    } else {
      tile_load<4>(query, 64);
      tile_load<6>(first_ + key_step_ * kTileElements, 64);
      tile_multiply<0, 4, 6>();
      tile_load<6>(second_ + key_step_ * kTileElements, 64);
      tile_multiply<1, 4, 6>();
    }
    if (++key_step_ < key_steps_) return;
    float* const to = scores_ + 2 * pair_ * kTileFloats;
    tile_store<0>(to, 64), tile_store<1>(to + kTileFloats, 64);
    key_step_ = 0, ++pair_, --key_pairs_;
  }
  // Weighted values of two tiles of dimensions, of the last one perhaps, added to the sums.
  inline __attribute__((always_inline)) void value_step() {
    const bool two = value_pairs_ > 1 || !odd_;
    if (value_step_ == 0) {
      tile_load<2>(sums_, 64);
      if (two) tile_load<3>(sums_ + kTileFloats, 64);
    }
    const bf16* values = values_ + value_step_ * w_.value_tiles * kTileElements;
    tile_load<4>(weights_ + value_step_ * kTileElements, 64);
    tile_load<6>(values, 64);
    tile_multiply<2, 4, 6>();
    if (two) {
      tile_load<6>(values + kTileElements, 64);
      tile_multiply<3, 4, 6>();
    }
    if (++value_step_ < value_steps_) return;
    tile_store<2>(sums_, 64);
    if (two) tile_store<3>(sums_ + kTileFloats, 64);
    value_step_ = 0, --value_pairs_;
    values_ += 2 * kTileElements, sums_ += 2 * kTileFloats;
  }

  GroupWork& w_;
  int left_, key_pairs_ = 0, key_steps_ = 0, key_step_ = 0, value_pairs_ = 0, value_steps_ = 0, value_step_ = 0;
  int pair_, low_, high_;
  bool half_, odd_;
  const int64_t* subtiles_;
  const bf16 *keys_, *queries_, *first_, *second_, *weights_, *values_;
  float *scores_, *sums_;
};

// Brings the keys and values of the next visit to a head nearer, a few lines at each step of its work: blocks lie
// apart, so nothing else foresees them, and a core that asks for more lines than it can await stands still.
class Ahead {
 public:
  static constexpr int kGatherSteps = 4 * kSpanSubtiles;  // while a whole tile of values is copied

  // Starts with the visit after that of the unit's head.
  void aim(const GroupWork& w, const Unit& unit) {
    const KvLayout& kv = w.a.layout;
    const Group& now = w.group[unit.group];
    const bool last = unit.group + now.after + 1 == w.groups;
    const Group& then = w.group[last ? 0 : unit.group + now.after + 1];
    const int64_t tile = last ? unit.tile + kSpan : unit.tile;
    const Visible seen = within({w.group[0].seen.begin, w.group[w.groups - 1].seen.end}, tile, tile + kSpan);
    piece_ = pieces_;
    end_ = pieces_;
    for (int64_t p = seen.begin / kKvLanes * kKvLanes; p < seen.end; p += kKvLanes)
      for (const void* cache : {w.a.k_cache, w.a.v_cache})
        *end_++ = reinterpret_cast<const char*>(static_cast<const bf16*>(cache) +
                                                w.subtile_at[(p - w.partition) / kKvLanes] + head_offset(w, then));
    bytes_ = kv.group_elements() * 2;
    const int64_t products = kSpanPairs * (w.dim_tiles + (w.value_tiles + 1) / 2);
    const int64_t steps = (now.after + 1) * (now.rows + products) + kGatherSteps;
    share_ = ((end_ - pieces_) * bytes_ / steps + 127) / 128 * 128;
    at_ = 0;
  }
  inline __attribute__((always_inline)) void step() {
    for (int64_t left = share_; left > 0 && piece_ != end_; left -= 128) {
      _mm_prefetch(*piece_ + at_, _MM_HINT_T1);
      _mm_prefetch(*piece_ + at_ + 64, _MM_HINT_T1);
      at_ += 128;
      if (at_ >= bytes_) at_ = 0, ++piece_;
    }
  }

 private:
  const char* pieces_[2 * kSpanSubtiles];
  const char **piece_ = pieces_, **end_ = pieces_;
  int64_t bytes_ = 0, share_ = 0, at_ = 0;
};

// Where the weights of two neighbouring positions, of the sixteen such pairs of two subtiles, lie in a row of a tile,
// and their values among its rows: as packing leaves them.
inline int64_t row_of_pair(int64_t pair) { return pair % 8 / 2 * 4 + pair / 8 * 2 + pair % 2; }

// Copies the values of a pair of subtiles that groups of the head see; zero for the others.
inline void gather_pair(const GroupWork& w, const Unit& unit, const Visible& seen, int pair, bf16* to) {
  const __m512i even = _mm512_set1_epi32(0xffff), odd = _mm512_set1_epi32(-65536);
  const auto* const cache = static_cast<const bf16*>(w.a.v_cache);
  for (int64_t p = pair * kPair; p < (pair + 1) * kPair; p += 2) {
    const int64_t at = unit.tile + p;
    bf16* row = to + p / kPair * w.value_tiles * kTileElements + row_of_pair(p % kPair / 2) * kPair;
    const bool sees_even = at >= seen.begin && at < seen.end, sees_odd = at + 1 >= seen.begin && at + 1 < seen.end;
    if (!sees_even && !sees_odd) {
      for (int i = 0; i < w.value_tiles; ++i) _mm512_store_si512(row + i * kTileElements, _mm512_setzero_si512());
      continue;
    }
    const bf16* from = cache + group_offset(w, unit, static_cast<int>(p / kKvLanes)) + p % kKvLanes * w.padded;
    const __m512i keep = sees_even && sees_odd ? _mm512_set1_epi32(-1) : sees_even ? even : odd;
    for (int i = 0; i < w.value_tiles; ++i)
      _mm512_store_si512(row + i * kTileElements, _mm512_and_si512(keep, _mm512_loadu_si512(from + 32 * i)));
  }
}
inline void copy_pair(const GroupWork& w, const Unit& unit, int pair, bf16* to, Ahead& ahead) {
  const auto* const cache = static_cast<const bf16*>(w.a.v_cache);
  for (int half = 0; half < 2; ++half) {
    const bf16* from = cache + group_offset(w, unit, 2 * pair + half);
    for (int r = 0; r < 8; ++r) {
      bf16* const row = to + pair * w.value_tiles * kTileElements + row_of_pair(8 * half + r) * kPair;
      if (r % 2 == 0) ahead.step();
      for (int i = 0; i < w.value_tiles; ++i, from += 32)
        _mm512_store_si512(row + i * kTileElements, _mm512_loadu_si512(from));
    }
  }
}
// All values of the unit's tile that groups of the head see; zero for the others.
inline void gather_values(const GroupWork& w, const Unit& unit, bf16* to, Ahead& ahead) {
  const Group& group = w.group[unit.group];
  const Visible seen =
      within({w.group[unit.group - group.sharing].seen.begin, w.group[unit.group + group.after].seen.end}, unit.tile,
             unit.tile + kSpan);
  for (int64_t p = 0; p < kSpanPairs; ++p) {
    const int64_t at = unit.tile + p * kPair;
    if (at >= seen.begin && at + kPair <= seen.end)
      copy_pair(w, unit, static_cast<int>(p), to, ahead);
    else
      gather_pair(w, unit, seen, static_cast<int>(p), to);
  }
}

// ---- weights ----

// The positions of a unit that a row sees, as bits.
inline uint64_t seen_bits64(const Visible& seen, int64_t tile) {
  const int64_t begin = std::max<int64_t>(0, seen.begin - tile), end = std::min<int64_t>(kSpan, seen.end - tile);
  return begin < end ? ~uint64_t{0} >> (kSpan - (end - begin)) << begin : 0;
}
inline __mmask16 sixteen_of(uint64_t seen, int subtile) { return static_cast<__mmask16>(seen >> (16 * subtile)); }

inline void finish_scores(const GroupWork& w, const Unit& unit, UnitMemory& memory) {
  const Group& group = w.group[unit.group];
  for (int i = 2 * unit.first; i < 2 * unit.end; ++i)
    for (int r = 0; r < group.filled; ++r)
      finished_score(w.a, group.row[r], Vec::load(memory.scores[i][r]), unit.tile + 16 * i).store(memory.scores[i][r]);
}

// The highest score of each row.
template <bool kWhole>
__attribute__((noinline)) __m512 highest_of(const Unit& unit, int rows, const uint64_t* seen,
                                            const UnitMemory& memory) {
  __m512 highest[kGroupRows];
  for (int r = 0; r < kGroupRows; ++r) {
    highest[r] = _mm512_set1_ps(-__builtin_inff());
    if (r >= rows) continue;
    const int begin = kWhole ? 0 : 2 * unit.first, end = kWhole ? kSpanSubtiles : 2 * unit.end;
#pragma GCC unroll 4
    for (int i = begin; i < end; ++i) {
      const __mmask16 sees = kWhole ? 0xffff : sixteen_of(seen[r], i);
      highest[r] = _mm512_mask_max_ps(highest[r], sees, highest[r], _mm512_load_ps(memory.scores[i][r]));
    }
  }
  return reduce_each(highest, [](__m512 a, __m512 b) { return _mm512_max_ps(a, b); });
}

// What all rows of a unit have in common.
struct Weighing {
  __m512 factor;              // of a raw product, for kPowerUnits
  const float* base;          // [rows]
  const float (*before)[16];  // totals
  float (*after)[16];
  uint32_t shrinking = 0;  // the rows whose earlier sums are to be multiplied with `keep`
  uint64_t seen[kGroupRows];
  alignas(64) float keep[kGroupRows];
};

constexpr float kUnitsPerScore = 1.44269504f * kPowerUnits;

// Tops of the rows that have none so far, and of those that rise.
template <bool kWhole>
inline void raise_tops(GroupWork& w, const Unit& unit, __mmask16 which, float scale, const UnitMemory& memory,
                       Weighing& how) {
  const int rows = w.group[unit.group].filled;
  GroupState& state = w.part[unit.group];
  float* const bases = w.base[unit.group];
  const Vec top = Vec::load(state.top), magic = Vec::set(kPowerMagic);
  const Vec highest = Vec{highest_of<kWhole>(unit, rows, how.seen, memory)} * Vec::set(scale);
  const __mmask16 higher = _mm512_mask_cmp_ps_mask(which, highest.v, top.v, _CMP_NLE_UQ);
  const Vec base = magic - Vec::round(highest * Vec::set(kUnitsPerScore));
  const Vec raised{_mm512_mask_mov_ps(top.v, higher, ((magic - base) * Vec::set(1 / kUnitsPerScore)).v)};
  raised.store(state.top);
  _mm512_store_ps(bases, _mm512_mask_mov_ps(_mm512_load_ps(bases), higher, base.v));
  const __mmask16 begun = _mm512_cmp_ps_mask(top.v, _mm512_set1_ps(-__builtin_inff()), _CMP_NEQ_UQ);
  how.shrinking = begun & higher & ((1u << rows) - 1);
  if (how.shrinking != 0) exp(top - raised).store(how.keep);
}

inline void shrink_sums(GroupWork& w, int group, const Weighing& how) {
  for (uint32_t rows = how.shrinking; rows != 0; rows &= rows - 1) {
    const int r = __builtin_ctz(rows);
    const Vec factor = Vec::set(how.keep[r]);
    float* sums = w.part[group].sums + 16 * r;
    for (int i = 0; i < w.value_tiles; ++i, sums += kTileFloats) (Vec::load(sums) * factor).store(sums);
  }
}
inline void shrink_totals(GroupWork& w, int group, const Weighing& how) {
  for (uint32_t rows = how.shrinking; rows != 0; rows &= rows - 1) {
    const int r = __builtin_ctz(rows);
    float* const total = w.totals[group][w.now[group]][r];
    (Vec::load(total) * Vec::set(how.keep[r])).store(total);
  }
}

// Finds what the unit's rows see, unless all see all of it, and their tops.
template <bool kWhole>
inline void prepare_weighing(GroupWork& w, const Unit& unit, UnitMemory& memory, Weighing& how) {
  const Group& group = w.group[unit.group];
  const bool finish = w.a.soft_cap > 0 || w.a.alibi_slopes;
  if (finish) finish_scores(w, unit, memory);
  const float scale = finish ? 1.0f : w.a.scale;
  how.factor = _mm512_set1_ps(scale * kUnitsPerScore);
  how.base = w.base[unit.group];
  int& now = w.now[unit.group];
  how.before = w.totals[unit.group][now], how.after = w.totals[unit.group][now ^ 1];
  const __mmask16 fresh =
      _mm512_cmp_ps_mask(_mm512_load_ps(w.part[unit.group].top), _mm512_set1_ps(-__builtin_inff()), _CMP_EQ_OQ);
  const uint32_t which = (fresh | w.rising[unit.group]) & ((1u << group.filled) - 1);
  if (!kWhole)
    for (int r = 0; r < group.filled; ++r) how.seen[r] = seen_bits64(group.row[r].seen, unit.tile);
  if (which) {
    raise_tops<kWhole>(w, unit, static_cast<__mmask16>(which), scale, memory, how);
    shrink_totals(w, unit.group, how);
  }
  now ^= 1;
}

// NaN where a lane of a pair's exponents is.
inline __m512i with_nans(__m512i weights, __m512 low, __m512 high) {
  const __mmask32 nans =
      power_mask(_mm512_cmp_ps_mask(low, low, _CMP_UNORD_Q), _mm512_cmp_ps_mask(high, high, _CMP_UNORD_Q));
  return _mm512_mask_mov_epi16(weights, nans, _mm512_set1_epi16(0x7fc0));
}

enum class See { kAll, kSome, kAny };  // of a unit's positions; kAny: with scores of any size

// Row r's scores to weights 2^(score - top - 47), whose sum is added to its total; of all pairs or the unit's. A sign
// in `signs` tells that a score is too far below the top for all but kAny, or NaN.
template <See kSee, bool kAllPairs>
inline __attribute__((always_inline)) void weigh_row(const Unit& unit, int r, const Weighing& how, UnitMemory& memory,
                                                     __m512i& signs) {
  constexpr int kAnyOfThree = 0xfe;
  const __m512 base = _mm512_set1_ps(how.base[r]);
  const auto ones = reinterpret_cast<__m512bh>(_mm512_set1_epi16(0x3f80));
  const auto exponent = [&](int i) __attribute__((always_inline)) {
    const __m512 score = _mm512_load_ps(memory.scores[i][r]);
    if constexpr (kSee == See::kAll) return _mm512_fmadd_ps(score, how.factor, base);
    return _mm512_maskz_fmadd_ps(sixteen_of(how.seen[r], i), score, how.factor, base);  // 0 becomes a weight of 0
  };
  __m512 total = _mm512_load_ps(how.before[r]);
  const int begin = kAllPairs ? 0 : unit.first, end = kAllPairs ? kSpanPairs : unit.end;
#pragma GCC unroll 4
  for (int i = begin; i < end; ++i) {
    const __m512 low = exponent(2 * i), high = exponent(2 * i + 1);
    __m512i weights;
    if constexpr (kSee == See::kAny) {
      weights = with_nans(powers_of_words(power_words_of_any(low, high)), low, high);
    } else {
      weights = powers_of_words(power_words(low, high));
      signs = _mm512_ternarylogic_epi32(signs, _mm512_castps_si512(low), _mm512_castps_si512(high), kAnyOfThree);
    }
    _mm512_store_si512(memory.weights[i][r], weights);
    total = _mm512_dpbf16_ps(total, reinterpret_cast<__m512bh>(weights), ones);
  }
  _mm512_store_ps(how.after[r], total);
}

// Weighs all rows again where `signs` tells so.
template <See kSee, bool kAllPairs>
inline void weigh_far_rows(const Unit& unit, int rows, Weighing& how, UnitMemory& memory, __m512i signs) {
  if (__builtin_expect(_mm512_movepi32_mask(signs) == 0, 1)) return;
  if (kSee == See::kAll) std::fill_n(how.seen, kGroupRows, ~uint64_t{0});
  for (int r = 0; r < rows; ++r) weigh_row<See::kAny, kAllPairs>(unit, r, how, memory, signs);
}

template <See kSee>
inline void weigh_unit(GroupWork& w, const Unit& unit, UnitMemory& memory, Products& products, Ahead& ahead) {
  Weighing how;
  prepare_weighing<kSee == See::kAll>(w, unit, memory, how);
  __m512i signs = _mm512_setzero_si512();
  const int rows = w.group[unit.group].rows, all = products.left();
  for (int r = 0; r < rows; ++r) {
    while (products.left() > all * (rows - 1 - r) / rows) products.step(), ahead.step();
    ahead.step();
    weigh_row<kSee, kSee == See::kAll>(unit, r, how, memory, signs);
  }
  weigh_far_rows<kSee, kSee == See::kAll>(unit, rows, how, memory, signs);
  shrink_sums(w, unit.group, how);  // which now hold all before this unit
}

// ---- units of sixteen rows with heads of 64 or 128 ----

// What tiles do while vectors weigh a unit: products of the next one's queries with keys, of the one before's weights
// with values.
struct TileWork {
  const bf16 *keys[kSpanSubtiles], *queries, *weights, *values;
  float *scores, *sums;
};
// Subtiles that no row of the unit sees stand for others.
inline void aim_keys(GroupWork& w, const Unit& unit, UnitMemory& memory, TileWork& t) {
  const auto* const keys = static_cast<const bf16*>(w.a.k_cache) + head_offset(w, w.group[unit.group]);
  const int64_t* const subtiles = w.subtile_at + (unit.tile - w.partition) / kKvLanes;
  const int64_t low = (unit.seen.begin - unit.tile) / kKvLanes, high = (unit.seen.end - 1 - unit.tile) / kKvLanes;
  for (int64_t i = 0; i < kSpanSubtiles; ++i) t.keys[i] = keys + subtiles[std::clamp(i, low, high)];
  t.queries = query_tiles(w, unit.group);
  t.scores = memory.scores[0][0];
}
inline bf16* tile_values(GroupWork& w, int64_t tile) { return w.values + (tile - w.partition) * w.padded; }
inline void aim_values(GroupWork& w, const Unit& unit, const UnitMemory& memory, TileWork& t) {
  t.weights = memory.weights[0][0];
  t.values = tile_values(w, unit.tile);
  t.sums = w.part[unit.group].sums;
}

template <int... kStep>
using Steps = std::integer_sequence<int, kStep...>;

// Sums of heads of 64 stay in tiles 0 to 3 while a group goes through the partition, those of 128 in memory.
template <int kDimTiles>
struct Weave {
  static constexpr bool kHeld = kDimTiles == 2;
  static constexpr int kValueTiles = 2 * kDimTiles;
  static constexpr int kKeySteps = kSpanSubtiles * kDimTiles, kSteps = kKeySteps + kSpanPairs * kValueTiles;

  // One product of each step: of a subtile's 32 dimensions.
  template <int kStep>
  static inline __attribute__((always_inline)) void key_step(const TileWork& t) {
    constexpr int pair = kStep / (2 * kDimTiles), d = kStep / 2 % kDimTiles, i = kStep % 2, sum = 4 + i;
    if constexpr (d == 0) tile_zero<sum>();
    if constexpr (i == 0) tile_load<6>(t.queries + d * kTileElements, 64);
    tile_load_passing<7>(t.keys[2 * pair + i] + d * kTileElements, 64);
    tile_multiply<sum, 6, 7>();
    if constexpr (d + 1 == kDimTiles) tile_store<sum>(t.scores + (2 * pair + i) * kTileFloats, 64);
  }
  // Of a pair of subtiles and sixteen dimensions.
  template <int kStep>
  static inline __attribute__((always_inline)) void value_step(const TileWork& t) {
    constexpr int pair = kStep / 4 % kSpanPairs, i = kStep % 4, to = kStep / 8 * 4 + i;
    if constexpr (!kHeld && pair == 0) tile_load<i>(t.sums + to * kTileFloats, 64);
    if constexpr (i == 0) tile_load<6>(t.weights + pair * kTileElements, 64);
    tile_load_passing<7>(t.values + (pair * kValueTiles + to) * kTileElements, 64);
    tile_multiply<i, 6, 7>();
    if constexpr (!kHeld && pair + 1 == kSpanPairs) tile_store<i>(t.sums + to * kTileFloats, 64);
  }
  template <int kStep>
  static inline __attribute__((always_inline)) void step(const TileWork& t) {
    if constexpr (kStep < kKeySteps)
      key_step<kStep>(t);
    else
      value_step<kStep - kKeySteps>(t);
  }
  template <int kFirst, int... kStep>
  static inline __attribute__((always_inline)) void steps(const TileWork& t, Steps<kStep...>) {
    (step<kFirst + kStep>(t), ...);
  }
  template <See kSee, int... kRow>
  static inline __attribute__((always_inline)) void rows(const TileWork& t, const Unit& unit, const Weighing& how,
                                                         UnitMemory& memory, __m512i& signs, Steps<kRow...>) {
    constexpr int kEach = kSteps / kGroupRows;
    ((steps<kRow * kEach>(t, std::make_integer_sequence<int, kEach>()),
      weigh_row<kSee, true>(unit, kRow, how, memory, signs)),
     ...);
  }
  template <See kSee>
  static void run(GroupWork& w, const Unit& unit, UnitMemory& memory, const TileWork& t) {
    Weighing how;
    prepare_weighing<kSee == See::kAll>(w, unit, memory, how);
    __m512i signs = _mm512_setzero_si512();
    rows<kSee>(t, unit, how, memory, signs, std::make_integer_sequence<int, kGroupRows>());
    weigh_far_rows<kSee, true>(unit, kGroupRows, how, memory, signs);
  }
  static void find_scores(const TileWork& t) { steps<0>(t, std::make_integer_sequence<int, kKeySteps>()); }
  static void add_values(const TileWork& t) {
    steps<kKeySteps>(t, std::make_integer_sequence<int, kSteps - kKeySteps>());
  }
  static void begin_sums() {
    if constexpr (kHeld) tile_zero<0>(), tile_zero<1>(), tile_zero<2>(), tile_zero<3>();
  }
  static void end_sums(float* sums) {
    if constexpr (!kHeld) return;
    tile_store<0>(sums, 64), tile_store<1>(sums + kTileFloats, 64);
    tile_store<2>(sums + 2 * kTileFloats, 64), tile_store<3>(sums + 3 * kTileFloats, 64);
  }
};

// ---- partitions ----

inline void finish_totals(GroupWork& w, int group) {
  __m512 totals[kGroupRows];
#pragma GCC unroll 16
  for (int r = 0; r < kGroupRows; ++r) totals[r] = _mm512_load_ps(w.totals[group][w.now[group]][r]);
  _mm512_store_ps(w.part[group].total, reduce_each(totals, [](__m512 a, __m512 b) { return _mm512_add_ps(a, b); }));
}

inline bool sees_all(const Group& group, int64_t tile) {
  return group.row[0].seen.end >= tile + kSpan && group.row[group.rows - 1].seen.begin <= tile;
}

// `held`: sums are stored at the end of the groups that see something.
inline void begin_partition(GroupWork& w, int64_t partition, bool held) {
  w.partition = partition * kPartitionPositions;
  find_subtiles(w);
  for (int i = 0; i < w.groups; ++i) {
    const Visible seen = within(w.group[i].seen, w.partition, w.partition + kPartitionPositions);
    if (!held || seen.begin >= seen.end) clear_sums(w, w.part[i]);
    Vec::set(-__builtin_inff()).store(w.part[i].top);
    Vec::set(__builtin_inff()).store(w.base[i]);
    for (float(&total)[16] : w.totals[i][0]) Vec::zero().store(total);
    w.now[i] = 0;
  }
}
inline bool same_tile(const GroupWork& w, const Unit& a, const Unit& b) {
  return w.group[a.group].g == w.group[b.group].g && a.tile == b.tile;
}

// All groups over the partition, any number of rows and dimensions: their states in w.part. `far`: with scores of any
// size, or NaN.
inline void visit_units(GroupWork& w, bool far) {
  Unit before{}, unit{.group = -1, .tile = w.partition}, next;
  if (!advance(w, unit)) return;
  Products first(w, &unit, w.memory[0].scores[0][0], nullptr, nullptr, nullptr);
  while (first.left() > 0) first.step();
  int now = 0;
  Ahead ahead;
  bool more = true;
  for (bool started = false; more; started = true) {
    next = unit;
    more = advance(w, next);
    Products products(w, more ? &next : nullptr, w.memory[now ^ 1].scores[0][0], started ? &before : nullptr,
                      w.memory[now ^ 1].weights[0][0], w.values);
    const bool enters = !started || !same_tile(w, unit, before);
    if (enters) ahead.aim(w, unit);
    if (far)
      weigh_unit<See::kAny>(w, unit, w.memory[now], products, ahead);
    else if (sees_all(w.group[unit.group], unit.tile))
      weigh_unit<See::kAll>(w, unit, w.memory[now], products, ahead);
    else
      weigh_unit<See::kSome>(w, unit, w.memory[now], products, ahead);
    if (enters) gather_values(w, unit, w.values, ahead);
    before = unit, unit = next, now ^= 1;
  }
  Products last(w, nullptr, nullptr, &before, w.memory[now ^ 1].weights[0][0], w.values);
  while (last.left() > 0) last.step();
}

// Goes on to the partition's next unit, group by group; false where there is none.
inline bool advance_group(const GroupWork& w, Unit& unit) {
  for (;;) {
    unit.tile += kSpan;
    if (unit.tile >= w.partition + kPartitionPositions || unit.tile >= w.group[unit.group].seen.end) {
      if (++unit.group == w.groups) return false;
      unit.tile = std::max(w.partition, w.group[unit.group].seen.begin / kSpan * kSpan);
      if (unit.tile >= w.partition + kPartitionPositions) return false;  // later groups begin no earlier
    }
    if (visits(w, unit)) return true;
  }
}
inline void gather_partition(GroupWork& w, const Visible& seen) {
  Ahead ahead;
  Unit unit{};
  for (unit.tile = seen.begin / kSpan * kSpan; unit.tile < seen.end; unit.tile += kSpan)
    gather_values(w, unit, tile_values(w, unit.tile), ahead);
}

inline void bring_near_for_writing(const void* line) {
  asm volatile("prefetchw %0" : : "m"(*static_cast<const char*>(line)));
}
// Where the group's rows will be written.
inline void await_output(const GroupWork& w, const Group& group) {
  const int64_t D = w.a.layout.head_dim, width = dtype_bytes(w.a.out_dtype);
  for (int r = 0; r < group.rows; ++r) {
    const char* const at =
        static_cast<const char*>(w.a.out) + (group.row[r].token * w.a.out_stride + group.row[r].head * D) * width;
    for (int64_t i = 0; i < D * width; i += 64) bring_near_for_writing(at + i);
  }
}

// The same for groups of sixteen rows of one head, group by group.
template <int kDimTiles>
inline void weave_units(GroupWork& w) {
  using Woven = Weave<kDimTiles>;
  Unit before{}, unit{.group = 0, .tile = w.partition - kSpan}, next;
  if (!advance_group(w, unit)) return;
  gather_partition(w, within({w.group[0].seen.begin, w.group[w.groups - 1].seen.end}, w.partition,
                             w.partition + kPartitionPositions));
  const bool last = w.partition + kPartitionPositions >= w.group[0].seen.end;
  TileWork t;
  aim_keys(w, unit, w.memory[0], t);
  Woven::find_scores(t);
  int now = 0;
  for (bool started = false, more = true; more; started = true) {
    next = unit;
    more = advance_group(w, next);
    aim_keys(w, more ? next : unit, w.memory[now ^ 1], t);
    aim_values(w, started ? before : unit, w.memory[now ^ 1], t);
    if (!started) t.sums = w.idle;
    if (last && (!started || before.group != unit.group)) await_output(w, w.group[unit.group]);
    if (sees_all(w.group[unit.group], unit.tile))
      Woven::template run<See::kAll>(w, unit, w.memory[now], t);
    else
      Woven::template run<See::kSome>(w, unit, w.memory[now], t);
    if (started && before.group != unit.group) Woven::end_sums(w.part[before.group].sums);
    if (!started || before.group != unit.group) Woven::begin_sums();
    before = unit, unit = next, now ^= 1;
  }
  aim_values(w, before, w.memory[now ^ 1], t);
  Woven::add_values(t);
  Woven::end_sums(w.part[before.group].sums);
}

inline void run_partition_once(GroupWork& w, int64_t partition, bool rising) {
  const bool weaves = w.sixteens && !rising;
  begin_partition(w, partition, weaves && Weave<2>::kHeld && w.dim_tiles == 2);
  if (!weaves)
    visit_units(w, rising);
  else if (w.dim_tiles == 2)
    weave_units<2>(w);
  else
    weave_units<4>(w);
  for (int i = 0; i < w.groups; ++i) finish_totals(w, i);
}

// Lets the tops of rows rise whose sums have become too large without; whether there are any.
inline bool find_rising(GroupWork& w) {
  uint32_t any = 0;
  for (int i = 0; i < w.groups; ++i) {
    const __mmask16 beyond =
        _mm512_cmp_ps_mask(_mm512_load_ps(w.part[i].total), _mm512_set1_ps(kMostTotal), _CMP_NLE_UQ);
    const uint32_t found = beyond & ~w.rising[i] & ((1u << w.group[i].rows) - 1);
    w.rising[i] |= static_cast<__mmask16>(found), any |= found;
  }
  return any != 0;
}

// All groups over the partition: their states in w.part.
inline void run_partition(GroupWork& w, int64_t partition) {
  const bool rising = w.a.alibi_slopes != nullptr;  // scores rise with the position
  for (int i = 0; i < w.groups; ++i) w.rising[i] = rising ? 0xffff : 0;
  run_partition_once(w, partition, rising);
  if (find_rising(w)) run_partition_once(w, partition, true);
}

// Adds a partition's state of a group to that of the partitions before it. A row that saw nothing has total 0.
inline void merge_state(const GroupWork& w, int rows, GroupState& whole, const GroupState& part) {
  const Vec total = Vec::load(whole.total), part_total = Vec::load(part.total);
  const Vec whole_top = Vec::load(whole.top), part_top = Vec::load(part.top);
  const __mmask16 none = _mm512_cmp_ps_mask(part_total.v, _mm512_setzero_ps(), _CMP_EQ_OQ);
  const __mmask16 first = _mm512_cmp_ps_mask(total.v, _mm512_setzero_ps(), _CMP_EQ_OQ);
  const Vec top{_mm512_mask_mov_ps(Vec::max(whole_top, part_top).v, none, whole_top.v)};
  const Vec one = Vec::set(1.0f);
  const Vec keep{_mm512_mask_mov_ps(_mm512_maskz_mov_ps(~first, exp(whole_top - top).v), none, one.v)};
  const Vec scale{_mm512_maskz_mov_ps(~none, exp(part_top - top).v)};
  top.store(whole.top);
  Vec::fma(part_total, scale, total * keep).store(whole.total);
  alignas(64) float keeps[16], scales[16];
  keep.store(keeps), scale.store(scales);
  for (int r = 0; r < rows; ++r)
    for (int64_t i = 16 * r; i < w.value_tiles * kTileFloats; i += kTileFloats) {
      const Vec kept = Vec::load(whole.sums + i) * Vec::set(keeps[r]);
      Vec::fma(Vec::load(part.sums + i), Vec::set(scales[r]), kept).store(whole.sums + i);
    }
}

inline void take_partition(GroupWork& w, bool first) {
  for (int i = 0; i < w.groups; ++i)
    if (first)
      std::swap(w.whole[i], w.part[i]);
    else
      merge_state(w, w.group[i].rows, w.whole[i], w.part[i]);
}

inline void write_group(const GroupWork& w, int index) {
  const Group& group = w.group[index];
  const GroupState& state = w.whole[index];
  const int64_t D = w.a.layout.head_dim;
  alignas(64) float inverse[kGroupRows];
  (Vec::set(1.0f) / Vec::load(state.total)).store(inverse);
  for (int r = 0; r < group.rows; ++r) {
    const int64_t at = group.row[r].token * w.a.out_stride + group.row[r].head * D;
    const auto value = [&](int64_t d) {
      return Vec::load(state.sums + d / 16 * kTileFloats + 16 * r) * Vec::set(inverse[r]);
    };
    if (w.a.out_dtype != DType::kBf16) {
      for (int64_t d = 0; d < D; d += 16) value(d).store_n(static_cast<float*>(w.a.out) + at + d, lanes_left(d, D));
      continue;
    }
    bf16* const to = static_cast<bf16*>(w.a.out) + at;
    int64_t d = 0;
    for (; d + 32 <= D; d += 32) store_rounded(value(d), value(d + 16), to + d);
    for (; d < D; d += 16) value(d).store_n(to + d, lanes_left(d, D));
  }
}

inline int tile_rows(const GroupItem& item) { return static_cast<int>(std::min<int64_t>(item.rows, kGroupRows)); }

inline void run_item(const AttentionArgs& a, const GroupItem& item) {
  GroupWork w(a, item);
  const TileUse use(w.sixteens ? TileShapes::full() : group_shapes(tile_rows(item)));
  add_groups(w, item);
  const Visible partitions = partitions_of(w);
  for (int64_t p = partitions.begin; p < partitions.end; ++p) {
    run_partition(w, p);
    take_partition(w, p == partitions.begin);
  }
  for (int i = 0; i < w.groups; ++i) write_group(w, i);
}

// ---- items ----

// How a sequence's rows are cut into items: `heads` kv heads and `rows` rows of each at a time.
struct GroupCut {
  int64_t heads, rows;
};
inline GroupCut cut_of(const AttentionArgs& a, int64_t s, int64_t most_heads) {
  const int64_t most_groups = can_weave(a) ? kMaxGroups : kMaxGroups / 2, most_rows = most_groups * kGroupRows;
  const int64_t rows = (a.query_start[s + 1] - a.query_start[s]) * (a.H / a.layout.kv_heads);
  const int64_t groups = (rows + kGroupRows - 1) / kGroupRows;
  if (rows > most_rows || groups == 0) return {1, most_rows};
  return {std::max<int64_t>(1, std::min({most_heads, kMaxGroups / 2 / groups, a.layout.kv_heads})), rows};
}
inline int64_t items_of(const AttentionArgs& a, int64_t s, const GroupCut& cut) {
  const int64_t rows = (a.query_start[s + 1] - a.query_start[s]) * (a.H / a.layout.kv_heads);
  return (a.layout.kv_heads + cut.heads - 1) / cut.heads * ((rows + cut.rows - 1) / cut.rows);
}
inline int64_t count_group_items(const AttentionArgs& a, int64_t most_heads) {
  int64_t items = 0;
  for (int64_t s = 0; s < a.S; ++s) items += items_of(a, s, cut_of(a, s, most_heads));
  return items;
}
inline GroupItem group_item_at(const AttentionArgs& a, int64_t most_heads, int64_t index) {
  int64_t s = 0;
  GroupCut cut = cut_of(a, s, most_heads);
  for (int64_t n = items_of(a, s, cut); index >= n; n = items_of(a, s, cut)) {
    index -= n;
    cut = cut_of(a, ++s, most_heads);
  }
  const int64_t all = (a.query_start[s + 1] - a.query_start[s]) * (a.H / a.layout.kv_heads);
  const int64_t blocks = (all + cut.rows - 1) / cut.rows;
  const int64_t g = index / blocks * cut.heads;
  const int64_t row = (blocks - 1 - index % blocks) * cut.rows;  // those that see most first, so that short ones end
  return {s, g, std::min(cut.heads, a.layout.kv_heads - g), row, std::min(cut.rows, all - row)};
}

// Partitions as work of their own, for when items are too few to keep all threads busy. What they leave is kept in the
// scratch: [items][partitions][rows] of Dp sums, top, total and padding.
struct GroupSplit {
  int64_t heads, items, partitions, rows, row_floats;
  float* at(const AttentionArgs& a, int64_t item, int64_t partition, int64_t row) const {
    return reinterpret_cast<float*>(a.scratch) + ((item * partitions + partition) * rows + row) * row_floats;
  }
  int64_t bytes() const { return items * partitions * rows * row_floats * 4; }
};

inline GroupSplit plan_groups(const AttentionArgs& a, int64_t heads) {
  GroupSplit plan{heads, count_group_items(a, heads), 1, 1, a.layout.padded_dim() + 16};
  for (int64_t s = 0; s < a.S; ++s)
    plan.partitions = std::max(plan.partitions, (a.context_len[s] + kPartitionPositions - 1) / kPartitionPositions);
  for (int64_t i = 0; i < plan.items; ++i) {
    const GroupItem item = group_item_at(a, heads, i);
    plan.rows = std::max(plan.rows, item.heads * item.rows);
  }
  return plan;
}

// Calls visit(state's row, scratch's row) for all rows of the item.
template <class Visit>
inline void for_each_part(const AttentionArgs& a, GroupWork& w, const GroupSplit& plan, int64_t item, int64_t partition,
                          const Visit& visit) {
  int64_t row = 0;
  for (int i = 0; i < w.groups; ++i)
    for (int r = 0; r < w.group[i].rows; ++r) visit(w.part[i], r, plan.at(a, item, partition, row++));
}

inline void run_part(const AttentionArgs& a, const GroupSplit& plan, int64_t index, int64_t partition) {
  const GroupItem item = group_item_at(a, plan.heads, index);
  GroupWork w(a, item);
  const TileUse use(w.sixteens ? TileShapes::full() : group_shapes(tile_rows(item)));
  add_groups(w, item);
  const Visible partitions = partitions_of(w);
  if (partition < partitions.begin || partition >= partitions.end) return;
  run_partition(w, partition);
  for_each_part(a, w, plan, index, partition, [&](const GroupState& state, int r, float* to) {
    for (int64_t d = 0; d < w.padded; d += 16) Vec::load(state.sums + 16 * (d + r)).store(to + d);
    to[w.padded] = state.top[r], to[w.padded + 1] = state.total[r];
  });
}

inline void merge_parts(const AttentionArgs& a, const GroupSplit& plan, int64_t index) {
  const GroupItem item = group_item_at(a, plan.heads, index);
  GroupWork w(a, item);
  add_groups(w, item);
  const Visible partitions = partitions_of(w);
  for (int64_t p = partitions.begin; p < partitions.end; ++p) {
    for_each_part(a, w, plan, index, p, [&](GroupState& state, int r, const float* from) {
      for (int64_t d = 0; d < w.padded; d += 16) Vec::load(from + d).store(state.sums + 16 * (d + r));
      state.top[r] = from[w.padded], state.total[r] = from[w.padded + 1];
    });
    take_partition(w, p == partitions.begin);
  }
  for (int i = 0; i < w.groups; ++i) write_group(w, i);
}

inline void attend_bf16(const AttentionArgs& a) {
  const int64_t enough = 4 * compute_threads();  // from here on the last item's end is little waited for
  int64_t heads = kMaxGroups / 2;
  while (heads > 1 && count_group_items(a, heads) < enough) heads /= 2;
  const int64_t items = count_group_items(a, heads);
  if (compute_threads() > 1 && items < enough) {
    const GroupSplit plan = plan_groups(a, heads);
    if (plan.partitions > 1 && plan.bytes() <= a.scratch_bytes) {
      parallel_items(items * plan.partitions,
                     [&](int64_t i) { run_part(a, plan, i / plan.partitions, i % plan.partitions); });
      return parallel_items(items, [&](int64_t i) { merge_parts(a, plan, i); });
    }
  }
  parallel_items(items, [&](int64_t index) { run_item(a, group_item_at(a, heads, index)); });
}
