// Paged attention on Vec, multiplying in float32. Positions lie in the lanes for q.k, elements of a head for p.v.
// kScoreRows x kScoreVecs and kValueRows x kValueVecs say how large a tile the registers hold.

constexpr int kMaxRows = 32;  // query rows of one item: they share each read of keys and values
constexpr int kTileVecs = static_cast<int>(kTilePositions / kKvLanes);

// The unfinished softmax of a row: sum over j of e^(s_j - top) v_j and of e^(s_j - top).
struct RowState {
  float top, total;
};

// A row's query and what it sees.
struct Row {
  int64_t token, head;
  Visible seen;
  float slope, position;
};

struct AttentionWork {
  AttentionWork(const AttentionArgs& args, const AttentionItem& item)
      : a(args), s(item.s), g(item.g), padded(args.layout.padded_dim()), rows(static_cast<int>(item.rows)) {}
  const AttentionArgs& a;
  const int64_t s, g, padded;  // sequence, kv head, Dp
  const int rows;
  Row row[kMaxRows];
  alignas(64) float q[kMaxRows][kMaxHeadDim];
  alignas(64) float sums[kMaxRows][kMaxHeadDim];  // of the partition under way
  alignas(64) float weights[kMaxRows][kTilePositions];
  RowState state[kMaxRows];
};

inline void load_rows(AttentionWork& w, const AttentionItem& item) {
  const AttentionArgs& a = w.a;
  const int64_t group = a.H / a.layout.kv_heads, D = a.layout.head_dim;
  for (int r = 0; r < w.rows; ++r) {
    Row& row = w.row[r];
    row.token = a.query_start[item.s] + (item.row + r) / group;
    row.head = item.g * group + (item.row + r) % group;
    row.seen = visible(a, item.s, row.token);
    row.slope = a.alibi_slopes ? a.alibi_slopes[row.head] : 0.0f;
    row.position = static_cast<float>(row.seen.end - 1);
    const float* q = a.q + row.token * a.q_stride + row.head * D;
    for (int64_t d = 0; d < w.padded; ++d) w.q[r][d] = d < D ? q[d] : 0.0f;
  }
}

// First element of kv head g's part of the block of `position`; -1 where no row looks there and no block is kept.
inline int64_t block_at(const AttentionWork& w, int64_t position) {
  const int64_t block = w.a.block_table[w.s * w.a.max_blocks + position / w.a.layout.block_tokens];
  return block < 0 ? -1 : block * w.a.layout.block_elements();
}

template <class Kv, int kRows, int kVecs>
inline void score_rows(AttentionWork& w, int row, int vec, const Kv* const* keys) {
  Vec sums[kRows][kVecs];
  for (int r = 0; r < kRows; ++r)
    for (int i = 0; i < kVecs; ++i) sums[r][i] = Vec::zero();
  const auto step = [&](int64_t d, const Vec(&k)[kVecs]) __attribute__((always_inline)) {
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const Vec q = Vec::set(w.q[row + r][d]);
#pragma GCC unroll 4
      for (int i = 0; i < kVecs; ++i) sums[r][i] = Vec::fma(q, k[i], sums[r][i]);
    }
  };
  Vec k[kVecs];
  if constexpr (std::is_same_v<Kv, bf16>) {
    for (int64_t d = 0; d < w.padded; d += 2) {
      for (int i = 0; i < kVecs; ++i) k[i] = Vec::load_even(keys[i] + d * 16);
      step(d, k);
      for (int i = 0; i < kVecs; ++i) k[i] = Vec::load_odd(keys[i] + d * 16);
      step(d + 1, k);
    }
  } else {
    for (int64_t d = 0; d < w.padded; ++d) {
      for (int i = 0; i < kVecs; ++i) k[i] = Vec::load(keys[i] + d * 16);
      step(d, k);
    }
  }
  for (int r = 0; r < kRows; ++r)
    for (int i = 0; i < kVecs; ++i) sums[r][i].store(w.weights[row + r] + 16 * (vec + i));
}

// Raw q.k of all rows with the sixteen positions from each of `count` places on.
template <class Kv>
inline void score_tile(AttentionWork& w, int vec, int count, const Kv* const* keys) {
  int row = 0;
  for (; row + kScoreRows <= w.rows; row += kScoreRows) {
    int i = 0;
    for (; i + kScoreVecs <= count; i += kScoreVecs) score_rows<Kv, kScoreRows, kScoreVecs>(w, row, vec + i, keys + i);
    for (; i < count; ++i) score_rows<Kv, kScoreRows, 1>(w, row, vec + i, keys + i);
  }
  for (; row < w.rows; ++row) {
    int i = 0;
    for (; i + kScoreVecs <= count; i += kScoreVecs) score_rows<Kv, 1, kScoreVecs>(w, row, vec + i, keys + i);
    for (; i < count; ++i) score_rows<Kv, 1, 1>(w, row, vec + i, keys + i);
  }
}

// Raw products to scores: scale, cap, slope; minus infinity where the row does not look.
inline Vec finished_score(const AttentionWork& w, const Row& row, Vec raw, int64_t position) {
  Vec score = raw * Vec::set(w.a.scale);
  if (w.a.soft_cap > 0) score = Vec::set(w.a.soft_cap) * tanh(score / Vec::set(w.a.soft_cap));
  if (w.a.alibi_slopes) {
    const Vec distance = Vec::lanes() + Vec::set(static_cast<float>(position) - row.position);
    score = Vec::fma(Vec::set(row.slope), distance, score);
  }
  return Vec::keep_between(score, position, row.seen.begin, row.seen.end, Vec::set(-__builtin_inff()));
}

// Turns row r's raw products with the tile at `tile` into weights e^(score - top) and folds them into its state.
// Returns what earlier sums must be multiplied with.
inline float weigh_row(AttentionWork& w, int r, int64_t tile) {
  const Row& row = w.row[r];
  float* at = w.weights[r];
  if (row.seen.end <= tile || row.seen.begin >= tile + kTilePositions) {  // sees nothing here
    for (int i = 0; i < kTileVecs; ++i) Vec::zero().store(at + 16 * i);
    return 1.0f;
  }
  Vec score[kTileVecs], highest = Vec::set(-__builtin_inff());
  for (int i = 0; i < kTileVecs; ++i) {
    score[i] = finished_score(w, row, Vec::load(at + 16 * i), tile + 16 * i);
    highest = Vec::max(highest, score[i]);
  }
  RowState& state = w.state[r];
  const float top = std::max(state.top, highest.largest());
  Vec total = Vec::zero();
  for (int i = 0; i < kTileVecs; ++i) {
    const Vec weight = exp(score[i] - Vec::set(top));
    weight.store(at + 16 * i);
    total = total + weight;
  }
  const float keep = std::exp(state.top - top);
  state.total = state.total * keep + total.sum();
  state.top = top;
  return keep;
}

template <class Kv, int kRows, int kVecs>
inline void add_values(AttentionWork& w, int row, int64_t d, int64_t tile, Visible span, const float* keep) {
  Vec sums[kRows][kVecs];
  for (int r = 0; r < kRows; ++r)
    for (int i = 0; i < kVecs; ++i) sums[r][i] = Vec::load(w.sums[row + r] + d + 16 * i) * Vec::set(keep[row + r]);
  const auto add = [&](int64_t position, const Vec(&v)[kVecs]) __attribute__((always_inline)) {
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const Vec weight = Vec::set(w.weights[row + r][position - tile]);
#pragma GCC unroll 8
      for (int i = 0; i < kVecs; ++i) sums[r][i] = Vec::fma(weight, v[i], sums[r][i]);
    }
  };
  const KvLayout& kv = w.a.layout;
  Vec v[kVecs];
  for (int64_t p = span.begin; p < span.end;) {
    const int64_t within = p % kv.block_tokens;
    const int64_t end = std::min(span.end, p - within + kv.block_tokens);
    const Kv* values = static_cast<const Kv*>(w.a.v_cache) + block_at(w, p) + kv.value_at(w.g, 0, d);
    const int64_t start = p - within;
    if constexpr (std::is_same_v<Kv, bf16>) {
      for (; p < end; ++p) {
        const Kv* pair = values + (p - start) / 2 * 2 * w.padded;
        if ((p - start) % 2 == 0) {
          for (int i = 0; i < kVecs; ++i) v[i] = Vec::load_even(pair + 32 * i);
        } else {
          for (int i = 0; i < kVecs; ++i) v[i] = Vec::load_odd(pair + 32 * i);
        }
        add(p, v);
      }
    } else {
      for (; p < end; ++p) {
        for (int i = 0; i < kVecs; ++i) v[i] = Vec::load(values + (p - start) * w.padded + 16 * i);
        add(p, v);
      }
    }
  }
  for (int r = 0; r < kRows; ++r)
    for (int i = 0; i < kVecs; ++i) sums[r][i].store(w.sums[row + r] + d + 16 * i);
}

template <class Kv, int kRows>
inline void add_values_to(AttentionWork& w, int row, int64_t tile, Visible span, const float* keep) {
  int64_t d = 0;
  for (; d + 16 * kValueVecs <= w.padded; d += 16 * kValueVecs)
    add_values<Kv, kRows, kValueVecs>(w, row, d, tile, span, keep);
  for (; d < w.padded; d += 16) add_values<Kv, kRows, 1>(w, row, d, tile, span, keep);
}

// What rows [row, row + n) see of the tile, together.
inline Visible seen_of_tile(const AttentionWork& w, int row, int n, int64_t tile) {
  Visible span{tile + kTilePositions, tile};
  for (int r = row; r < row + n; ++r) {
    const Visible& seen = w.row[r].seen;
    if (seen.end <= tile || seen.begin >= tile + kTilePositions) continue;
    span.begin = std::min(span.begin, std::max(seen.begin, tile));
    span.end = std::max(span.end, std::min(seen.end, tile + kTilePositions));
  }
  return span;
}

template <class Kv>
inline void run_tile(AttentionWork& w, int64_t tile) {
  const KvLayout& kv = w.a.layout;
  const Visible span = seen_of_tile(w, 0, w.rows, tile);
  const Kv* keys[kTileVecs];
  const int first = static_cast<int>((span.begin - tile) / kKvLanes);
  const int end = static_cast<int>((span.end - tile + kKvLanes - 1) / kKvLanes);
  for (int i = first; i < end; ++i) {
    const int64_t position = tile + i * kKvLanes;
    keys[i] =
        static_cast<const Kv*>(w.a.k_cache) + block_at(w, position) + kv.key_lanes_at(w.g, position % kv.block_tokens);
  }
  score_tile<Kv>(w, first, end - first, keys + first);
  float keep[kMaxRows];
  for (int r = 0; r < w.rows; ++r) keep[r] = weigh_row(w, r, tile);
  int row = 0;
  for (; row + kValueRows <= w.rows; row += kValueRows) {
    const Visible seen = seen_of_tile(w, row, kValueRows, tile);
    if (seen.begin < seen.end) add_values_to<Kv, kValueRows>(w, row, tile, seen, keep);
  }
  for (; row < w.rows; ++row) {
    const Visible seen = seen_of_tile(w, row, 1, tile);
    if (seen.begin < seen.end) add_values_to<Kv, 1>(w, row, tile, seen, keep);
  }
}

// All rows over the partition's positions: state and sums afresh.
template <class Kv>
inline void run_partition(AttentionWork& w, int64_t partition) {
  for (int r = 0; r < w.rows; ++r) {
    w.state[r] = {-__builtin_inff(), 0.0f};
    for (int64_t d = 0; d < w.padded; d += 16) Vec::zero().store(w.sums[r] + d);
  }
  const int64_t from = partition * kPartitionPositions, to = from + kPartitionPositions;
  for (int64_t tile = from; tile < to; tile += kTilePositions) {
    const Visible span = seen_of_tile(w, 0, w.rows, tile);
    if (span.begin < span.end) run_tile<Kv>(w, tile);
  }
}

// Adds a partition's state and sums to those of the partitions before it.
inline void merge_row(RowState& state, float* sums, const RowState& part, const float* part_sums, int64_t padded) {
  if (part.total == 0.0f) return;  // the row saw nothing of it
  const float top = std::max(state.top, part.top);
  const float keep = state.total == 0.0f ? 0.0f : std::exp(state.top - top), scale = std::exp(part.top - top);
  for (int64_t d = 0; d < padded; d += 16) {
    const Vec kept = Vec::load(sums + d) * Vec::set(keep);
    Vec::fma(Vec::load(part_sums + d), Vec::set(scale), kept).store(sums + d);
  }
  state = {top, state.total * keep + part.total * scale};
}

inline void write_row(const AttentionArgs& a, const Row& row, const RowState& state, const float* sums) {
  const int64_t D = a.layout.head_dim, at = row.token * a.out_stride + row.head * D;
  const Vec inverse = Vec::set(1.0f / state.total);
  for (int64_t d = 0; d < D; d += 16) {
    const int64_t n = D - d < 16 ? D - d : 16;
    const Vec value = Vec::load(sums + d) * inverse;
    if (a.out_dtype == DType::kBf16)
      value.store_n(static_cast<bf16*>(a.out) + at + d, n);
    else
      value.store_n(static_cast<float*>(a.out) + at + d, n);
  }
}

// Partitions that any row of the work looks at.
inline Visible partitions_of(const AttentionWork& w) {
  return {w.row[0].seen.begin / kPartitionPositions, (w.row[w.rows - 1].seen.end - 1) / kPartitionPositions + 1};
}

template <class Kv>
void run_item(const AttentionArgs& a, const AttentionItem& item) {
  AttentionWork w(a, item);
  load_rows(w, item);
  alignas(64) float sums[kMaxRows][kMaxHeadDim];
  RowState state[kMaxRows];
  for (int r = 0; r < w.rows; ++r) {
    state[r] = {-__builtin_inff(), 0.0f};
    for (int64_t d = 0; d < w.padded; d += 16) Vec::zero().store(sums[r] + d);
  }
  const Visible partitions = partitions_of(w);
  for (int64_t p = partitions.begin; p < partitions.end; ++p) {
    run_partition<Kv>(w, p);
    for (int r = 0; r < w.rows; ++r) merge_row(state[r], sums[r], w.state[r], w.sums[r], w.padded);
  }
  for (int r = 0; r < w.rows; ++r) write_row(a, w.row[r], state[r], sums[r]);
}

template <class Kv>
void attention_of(const AttentionArgs& a) {
  parallel_items(count_items(a, kMaxRows), [&](int64_t index) { run_item<Kv>(a, item_at(a, kMaxRows, index)); });
}

void attend(const AttentionArgs& a) {
  if (a.layout.dtype == DType::kF32) return attention_of<float>(a);
  if (a.layout.dtype == DType::kBf16) return attention_of<bf16>(a);
  attention_of<f16>(a);
}
