// Paged attention on Vec: all but the two products, which a Tiles type provides:
//   Tiles::Work              AttentionWork, or more
//   Tiles::prepare(Work&)    after the rows' queries are in Work::q
//   Tiles::run(Work&, tile)  scores of the tile's positions, weigh_row, weighted values added to Work::sums

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
      : a(args),
        s(item.s),
        g(item.g),
        padded(args.layout.padded_dim()),
        rows(static_cast<int>(item.rows)),
        scaled(args.layout.dtype == DType::kI8) {}
  const AttentionArgs& a;
  const int64_t s, g, padded;  // sequence, kv head, Dp
  const int rows;
  const bool scaled;  // keys and values are integers
  Row row[kMaxRows];
  alignas(64) float q[kMaxRows][kMaxHeadDim];
  alignas(64) float sums[kMaxRows][kMaxHeadDim];  // of the partition under way
  alignas(64) float weights[kMaxRows][kTilePositions];
  alignas(64) float key_scales[kTilePositions], value_scales[kTilePositions];  // of the tile under way, where scaled
  RowState state[kMaxRows];
};

// Sixteen elements of the row's query.
inline Vec query_at(const AttentionArgs& a, const Row& row, int64_t d) {
  const int64_t D = a.layout.head_dim, at = row.token * a.q_stride + row.head * D;
  const Vec factor = Vec::set(a.q_factors ? a.q_factors[row.token] : 1.0f);
  if (a.q_dtype == DType::kBf16) return Vec::load(static_cast<const bf16*>(a.q) + at + query_place(d, D)) * factor;
  return Vec::load_n(static_cast<const float*>(a.q) + at + d, lanes_left(d, D)) * factor;
}

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
    for (int64_t d = 0; d < D; d += 16) query_at(a, row, d).store(w.q[r] + d);
  }
}

// First element of kv head g's part of the block of `position`; -1 where no row looks there and no block is kept.
inline int64_t block_at(const AttentionWork& w, int64_t position) {
  const int64_t block = w.a.block_table[w.s * w.a.max_blocks + position / w.a.layout.block_tokens];
  return block < 0 ? -1 : block * w.a.layout.block_elements();
}

// Scales of the positions of subtiles [first, end) of the tile.
inline void load_scales(AttentionWork& w, int64_t tile, int first, int end) {
  const KvLayout& kv = w.a.layout;
  const auto load = [&](const void* cache, const float* scales, int64_t position) {
    if (scales) return Vec::set(scales[w.g]);
    const int64_t at = block_at(w, position) + kv.scale_at(w.g, position % kv.block_tokens);
    return Vec::load(reinterpret_cast<const float*>(static_cast<const int8_t*>(cache) + at));
  };
  for (int i = first; i < end; ++i) {
    const int64_t position = tile + i * kKvLanes;
    load(w.a.k_cache, w.a.k_scales, position).store(w.key_scales + i * kKvLanes);
    load(w.a.v_cache, w.a.v_scales, position).store(w.value_scales + i * kKvLanes);
  }
}

// Raw products to scores: scale, cap, slope; minus infinity where the row does not look.
inline Vec finished_score(const AttentionArgs& a, const Row& row, Vec raw, int64_t position) {
  Vec score = raw * Vec::set(a.scale);
  if (a.soft_cap > 0) score = Vec::set(a.soft_cap) * tanh(score / Vec::set(a.soft_cap));
  if (a.alibi_bf16) {
    alignas(64) float bias[kKvLanes];
    for (int i = 0; i < kKvLanes; ++i) bias[i] = bf16_bias(row.slope, position + i);
    score = Vec::fma(Vec::load(bias), Vec::set(a.scale), score);
  } else if (a.alibi_slopes) {
    const Vec distance = Vec::lanes() + Vec::set(static_cast<float>(position) - row.position);
    score = Vec::fma(Vec::set(row.slope), distance, score);
  }
  if (row.seen.begin <= position && row.seen.end >= position + kKvLanes) return score;
  return Vec::keep_between(score, position, row.seen.begin, row.seen.end, Vec::set(-__builtin_inff()));
}

// Turns row r's raw products with the tile at `tile`, raw(i) for the i-th sixteen positions, into weights
// e^(score - top) and folds them into its state. power(x) is e^x for no x above 0; keep(weights) keeps them and returns
// what they count, lanes added. Returns what earlier sums must be multiplied with.
template <class Raw, class Power, class Keep>
inline float weigh_row(AttentionWork& w, int r, int64_t tile, const Raw& raw, const Power& power, const Keep& keep) {
  const Row& row = w.row[r];
  Vec weights[kTileVecs];
  if (row.seen.end <= tile || row.seen.begin >= tile + kTilePositions) {  // sees nothing here
    for (Vec& weight : weights) weight = Vec::zero();
    keep(weights);
    return 1.0f;
  }
  Vec highest = Vec::set(-__builtin_inff());
#pragma GCC unroll 4
  for (int i = 0; i < kTileVecs; ++i) {
    weights[i] = finished_score(w.a, row, raw(i), tile + 16 * i);
    highest = Vec::max(highest, weights[i]);
  }
  RowState& state = w.state[r];
  const float top = std::max(state.top, highest.largest());
#pragma GCC unroll 4
  for (int i = 0; i < kTileVecs; ++i) weights[i] = power(weights[i] - Vec::set(top));
  const float kept = state.top == top ? 1.0f : std::exp(state.top - top);
  state.total = state.total * kept + keep(weights).sum();
  state.top = top;
  return kept;
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

// Where a tile's keys lie, by sixteen positions: those of [first, end) are looked at, `span` altogether.
template <class Kv>
struct TileKeys {
  TileKeys(const AttentionWork& w, int64_t tile)
      : span(seen_of_tile(w, 0, w.rows, tile)),
        first(static_cast<int>((span.begin - tile) / kKvLanes)),
        end(static_cast<int>((span.end - tile + kKvLanes - 1) / kKvLanes)) {
    const KvLayout& kv = w.a.layout;
    for (int i = first; i < end; ++i) {
      const int64_t position = tile + i * kKvLanes;
      at[i] = static_cast<const Kv*>(w.a.k_cache) + block_at(w, position) + kv.group_at(w.g, position % kv.block_tokens);
    }
  }
  const Visible span;
  const int first, end;
  const Kv* at[kTileVecs];
};

// run<kRows>(row) for `rows` rows in groups of at most kMost, as even as they can be.
template <int kMost, class Run>
inline void in_groups(int rows, const Run& run) {
  const int groups = (rows + kMost - 1) / kMost;
  for (int row = 0, group = 0; group < groups; ++group) {
    const int count = (rows - row + groups - group - 1) / (groups - group);
    [&]<int... kIndex>(std::integer_sequence<int, kIndex...>) {
      (void)((count == kIndex + 1 && (run.template operator()<kIndex + 1>(row), true)) || ...);
    }(std::make_integer_sequence<int, kMost>());
    row += count;
  }
}

// All rows over the partition's positions: state and sums afresh.
template <class Tiles>
inline void run_partition(typename Tiles::Work& w, int64_t partition) {
  for (int r = 0; r < w.rows; ++r) {
    w.state[r] = {-__builtin_inff(), 0.0f};
    for (int64_t d = 0; d < w.padded; d += 16) Vec::zero().store(w.sums[r] + d);
  }
  const int64_t from = partition * kPartitionPositions, to = from + kPartitionPositions;
  for (int64_t tile = from; tile < to; tile += kTilePositions) {
    const Visible span = seen_of_tile(w, 0, w.rows, tile);
    if (span.begin < span.end) Tiles::run(w, tile);
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

inline void clear_row(RowState& state, float* sums, int64_t padded) {
  state = {-__builtin_inff(), 0.0f};
  for (int64_t d = 0; d < padded; d += 16) Vec::zero().store(sums + d);
}

// An item from its first to its last partition.
template <class Tiles>
void run_item(const AttentionArgs& a, const AttentionItem& item) {
  typename Tiles::Work w(a, item);
  load_rows(w, item);
  Tiles::prepare(w);
  alignas(64) float sums[kMaxRows][kMaxHeadDim];
  RowState state[kMaxRows];
  for (int r = 0; r < w.rows; ++r) clear_row(state[r], sums[r], w.padded);
  const Visible partitions = partitions_of(w);
  for (int64_t p = partitions.begin; p < partitions.end; ++p) {
    run_partition<Tiles>(w, p);
    for (int r = 0; r < w.rows; ++r) merge_row(state[r], sums[r], w.state[r], w.sums[r], w.padded);
  }
  for (int r = 0; r < w.rows; ++r) write_row(a, w.row[r], state[r], sums[r]);
}

// Partitions as work of their own, for when items are too few to keep all threads busy. What they leave is kept in the
// scratch: [items][partitions][rows] of Dp sums, top, total and padding.
struct SplitPlan {
  int64_t items, partitions, rows, row_floats;
  float* at(const AttentionArgs& a, int64_t item, int64_t partition, int64_t row) const {
    return reinterpret_cast<float*>(a.scratch) + ((item * partitions + partition) * rows + row) * row_floats;
  }
  int64_t bytes() const { return items * partitions * rows * row_floats * 4; }
};

inline SplitPlan plan_split(const AttentionArgs& a) {
  SplitPlan plan{count_items(a, kMaxRows), 1, 1, a.layout.padded_dim() + 16};
  for (int64_t s = 0; s < a.S; ++s)
    plan.partitions = std::max(plan.partitions, (a.context_len[s] + kPartitionPositions - 1) / kPartitionPositions);
  for (int64_t i = 0; i < plan.items; ++i) plan.rows = std::max(plan.rows, item_at(a, kMaxRows, i).rows);
  return plan;
}

template <class Tiles>
void run_part(const AttentionArgs& a, const SplitPlan& plan, int64_t index, int64_t partition) {
  const AttentionItem item = item_at(a, kMaxRows, index);
  typename Tiles::Work w(a, item);
  load_rows(w, item);
  const Visible partitions = partitions_of(w);
  if (partition < partitions.begin || partition >= partitions.end) return;
  Tiles::prepare(w);
  run_partition<Tiles>(w, partition);
  for (int r = 0; r < w.rows; ++r) {
    float* to = plan.at(a, index, partition, r);
    for (int64_t d = 0; d < w.padded; d += 16) Vec::load(w.sums[r] + d).store(to + d);
    to[w.padded] = w.state[r].top, to[w.padded + 1] = w.state[r].total;
  }
}

inline void merge_parts(const AttentionArgs& a, const SplitPlan& plan, int64_t index) {
  const AttentionItem item = item_at(a, kMaxRows, index);
  AttentionWork w(a, item);
  load_rows(w, item);
  const Visible partitions = partitions_of(w);
  for (int r = 0; r < w.rows; ++r) {
    clear_row(w.state[r], w.sums[r], w.padded);
    for (int64_t p = partitions.begin; p < partitions.end; ++p) {
      const float* part = plan.at(a, index, p, r);
      merge_row(w.state[r], w.sums[r], {part[w.padded], part[w.padded + 1]}, part, w.padded);
    }
    write_row(a, w.row[r], w.state[r], w.sums[r]);
  }
}

template <class Tiles>
void attend_with(const AttentionArgs& a) {
  const int64_t items = count_items(a, kMaxRows);
  constexpr int kItemsPerThread = 4;  // from here on the last item's end is little waited for
  constexpr int64_t kRun = 4;         // heads of a sequence lie beside each other, but those of a long one are shared
  if (compute_threads() > 1 && items < kItemsPerThread * compute_threads()) {
    const SplitPlan plan = plan_split(a);
    if (plan.partitions > 1 && plan.bytes() <= a.scratch_bytes) {
      parallel_runs(items * plan.partitions, kRun,
                    [&](int64_t i) { run_part<Tiles>(a, plan, i / plan.partitions, i % plan.partitions); });
      return parallel_items(items, [&](int64_t i) { merge_parts(a, plan, i); });
    }
  }
  parallel_runs(items, kRun, [&](int64_t index) { run_item<Tiles>(a, item_at(a, kMaxRows, index)); });
}

// A group's rows may see different parts of the tile, and a weight of zero does not make zero of a value that is not
// finite: where these sums are not all finite, each row's had better be made of what it sees alone.
template <int kRows, int kVecs>
inline bool all_finite(const Vec (&sums)[kRows][kVecs]) {
  Vec all = Vec::zero();
#pragma GCC unroll 32
  for (int i = 0; i < kRows * kVecs; ++i) all = Vec::fma(sums[i / kVecs][i % kVecs], Vec::zero(), all);
  return all.sum() == 0;
}
inline bool see_alike(const AttentionWork& w, int row, int rows, int64_t tile) {
  const Visible first = seen_of_tile(w, row, 1, tile);
  for (int r = row + 1; r < row + rows; ++r) {
    const Visible seen = seen_of_tile(w, r, 1, tile);
    if (seen.begin != first.begin || seen.end != first.end) return false;
  }
  return true;
}

// add<kRows>(row, span, checked) for all rows in groups of at most kMost; the span is what a group's rows see together.
// Where it is to check its sums and says that they are not finite, add<1> is called for each row and what that sees.
template <int kMost, class Add>
inline void add_by_groups(const AttentionWork& w, int64_t tile, const Add& add) {
  in_groups<kMost>(w.rows, [&]<int kRows>(int row) {
    const Visible span = seen_of_tile(w, row, kRows, tile);
    if (span.begin >= span.end || add.template operator()<kRows>(row, span, !see_alike(w, row, kRows, tile))) return;
    for (int r = row; r < row + kRows; ++r)
      if (const Visible own = seen_of_tile(w, r, 1, tile); own.begin < own.end)
        add.template operator()<1>(r, own, false);
  });
}
