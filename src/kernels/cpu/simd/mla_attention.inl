// Attention over rows on Vec: all but scores, weights and weighted sums of a partition, which a Form type provides:
//   Form::Thread              lives while a thread works
//   Form::prepare(w)          once the work's rows are known
//   Form::run(w, begin, n)    positions [begin, begin + n), n <= kMlaPartition: sums, tops and totals into w.part
//   Form::sums(w, part, r, d) the sixteen sums of row r from dimension d on (a multiple of 16), in the form's own order
//   Form::write(w, part, r)   row r's sums, divided by its total, to the output

// The unfinished softmax of up to kMlaRows rows: sum over j of e^(s_j - top) v_j and of e^(s_j - top). A row that saw
// nothing has total 0.
struct MlaPart {
  float *sums, *top, *total;
};

// How the scratch is used. Each thread has queries, scores and two parts: of the partition at hand, and of those before
// it. Behind them lie the parts of split items.
struct MlaMemory {
  explicit MlaMemory(const MlaAttentionArgs& args)
      : a(args),
        key_padded(mla_padded(args.key_dim)),
        value_padded(mla_padded(args.value_dim)),
        threads(mla_threads(args.threads)),
        work_bytes(kMlaRows * (key_padded + kMlaPartition) * 4),
        part_floats(kMlaRows * value_padded + 2 * kMlaRows) {}
  std::byte* work(int64_t thread) const { return a.scratch + thread * work_bytes; }
  MlaPart part(int64_t index) const {
    float* sums = reinterpret_cast<float*>(a.scratch + threads * work_bytes) + index * part_floats;
    return {sums, sums + kMlaRows * value_padded, sums + kMlaRows * value_padded + kMlaRows};
  }
  MlaPart part_of(int64_t thread) const { return part(2 * thread); }
  MlaPart running_of(int64_t thread) const { return part(2 * thread + 1); }
  MlaPart split(int64_t index) const { return part(2 * threads + index); }
  int64_t splits() const { return (kMlaPartsPerThread - 2) * threads; }

  const MlaAttentionArgs& a;
  const int64_t key_padded, value_padded, threads, work_bytes, part_floats;
};

struct MlaWork {
  MlaWork(const MlaMemory& m, const MlaItem& its, int64_t thread, const MlaPart& target)
      : memory(m), a(m.a), item(its), part(target), rows(static_cast<int>(its.rows)) {
    std::byte* at = m.work(thread);
    queries = reinterpret_cast<float*>(at);
    scores = queries + kMlaRows * m.key_padded;
    const int64_t group = a.H / a.G;
    for (int r = 0; r < rows; ++r) {
      token[r] = static_cast<int32_t>(a.query_start[item.s] + (item.row + r) / group);
      head[r] = static_cast<int32_t>(item.g * group + (item.row + r) % group);
      end[r] = static_cast<int32_t>(mla_seen_end(a, item.s, item.row + r));
    }
    for (int r = rows; r < (rows + 15) / 16 * 16; ++r) end[r] = 0;
  }
  const float* query(int r) const { return a.q + token[r] * a.q_stride + head[r] * a.key_dim; }
  int64_t seen_end() const { return end[rows - 1]; }  // rows look the further the later they come
  int64_t partitions() const { return (seen_end() + kMlaPartition - 1) / kMlaPartition; }

  const MlaMemory& memory;
  const MlaAttentionArgs& a;
  const MlaItem item;
  MlaPart part;
  const int rows;
  float* queries;  // [rows][Kp]
  float* scores;   // [kMlaRows][kMlaPartition]
  alignas(64) int32_t end[kMlaRows];
  int32_t token[kMlaRows], head[kMlaRows];
};

template <class Form>
void run_mla_partition(MlaWork& w, int64_t partition) {
  const int64_t begin = partition * kMlaPartition;
  Form::run(w, begin, std::min(kMlaPartition, w.seen_end() - begin));
}

template <class Form>
void clear_mla_row(const MlaWork& w, const MlaPart& part, int r) {
  for (int64_t d = 0; d < w.memory.value_padded; d += 16) Vec::zero().store(Form::sums(w, part, r, d));
  part.top[r] = -__builtin_inff(), part.total[r] = 0;
}

// Adds row r of a partition to those before it.
template <class Form>
void merge_mla_row(const MlaWork& w, const MlaPart& to, const MlaPart& part, int r) {
  if (part.total[r] == 0.0f) return;
  const float top = std::max(to.top[r], part.top[r]);
  const float keep = to.total[r] == 0.0f ? 0.0f : std::exp(to.top[r] - top), scale = std::exp(part.top[r] - top);
  for (int64_t d = 0; d < w.memory.value_padded; d += 16) {
    float* sums = Form::sums(w, to, r, d);
    const Vec kept = Vec::load(sums) * Vec::set(keep);
    Vec::fma(Vec::load(Form::sums(w, part, r, d)), Vec::set(scale), kept).store(sums);
  }
  to.top[r] = top;
  to.total[r] = to.total[r] * keep + part.total[r] * scale;
}

// Sixteen finished elements of row r from `d` on, as many as there are.
inline void store_mla(const MlaWork& w, int r, int64_t d, Vec value) {
  const int64_t n = lanes_left(d, w.a.value_dim), at = w.token[r] * w.a.out_stride + w.head[r] * w.a.value_dim + d;
  if (n <= 0) return;
  if (w.a.out_dtype == DType::kBf16)
    value.store_n(static_cast<bf16*>(w.a.out) + at, n);
  else
    value.store_n(static_cast<float*>(w.a.out) + at, n);
}

// An item from its first to its last partition.
template <class Form>
void run_mla_item(const MlaMemory& memory, int64_t index, int64_t thread) {
  MlaWork w(memory, mla_item_at(memory.a, index), thread, memory.part_of(thread));
  const MlaPart running = memory.running_of(thread);
  Form::prepare(w);
  for (int r = 0; r < w.rows; ++r) clear_mla_row<Form>(w, running, r);
  for (int64_t p = 0; p < w.partitions(); ++p) {
    run_mla_partition<Form>(w, p);
    for (int r = 0; r < w.rows; ++r) merge_mla_row<Form>(w, running, w.part, r);
  }
  for (int r = 0; r < w.rows; ++r) Form::write(w, running, r);
}

// The partitions of few items, as work of their own: wave after wave of as many as there is room for.
template <class Form>
void split_mla(const MlaMemory& memory, int64_t items, int64_t partitions) {
  const int64_t wave = std::min(partitions, (memory.splits() - items) / items);
  const auto running = [&](int64_t item) { return memory.split(item); };
  const auto part = [&](int64_t item, int64_t i) { return memory.split(items + item * wave + i); };
  for (int64_t first = 0; first < partitions; first += wave) {
    WorkQueue queue(items * wave);
    parallel_team([&](const TeamMember& me) {
      const typename Form::Thread use;
      for (int64_t i = queue.next(); i >= 0; i = queue.next()) {
        MlaWork w(memory, mla_item_at(memory.a, i / wave), me.index, part(i / wave, i % wave));
        if (first + i % wave >= w.partitions()) continue;
        Form::prepare(w);
        run_mla_partition<Form>(w, first + i % wave);
      }
    });
    constexpr int64_t kShare = 16;  // rows that a thread merges at a time
    parallel_items(items * (kMlaRows / kShare), [&](int64_t i) {
      const int64_t item = i / (kMlaRows / kShare), row = i % (kMlaRows / kShare) * kShare;
      const MlaWork w(memory, mla_item_at(memory.a, item), 0, running(item));
      for (int64_t r = row; r < std::min<int64_t>(row + kShare, w.rows); ++r) {
        if (first == 0) clear_mla_row<Form>(w, w.part, r);
        for (int64_t p = 0; p < std::min(wave, w.partitions() - first); ++p)
          merge_mla_row<Form>(w, w.part, part(item, p), r);
        if (first < w.partitions() && first + wave >= w.partitions()) Form::write(w, w.part, r);
      }
    });
  }
}

template <class Form>
void mla_attend_with(const MlaAttentionArgs& a) {
  const MlaMemory memory(a);
  const int64_t items = count_mla_items(a);
  int64_t partitions = 0;
  for (int64_t s = 0; s < a.S; ++s)
    if (a.query_start[s + 1] > a.query_start[s])
      partitions = std::max(partitions, (a.context_len[s] + kMlaPartition - 1) / kMlaPartition);
  // From four items a thread on, the last item's end is little waited for.
  if (memory.threads > 1 && items < 4 * memory.threads && partitions > 1)
    return split_mla<Form>(memory, items, partitions);
  WorkQueue queue(items);
  parallel_team(
      [&](const TeamMember& me) {
        const typename Form::Thread use;
        for (int64_t i = queue.next(); i >= 0; i = queue.next()) run_mla_item<Form>(memory, i, me.index);
      },
      static_cast<int>(std::min<int64_t>(items, INT32_MAX)));
}

// ---- the form on Vec, multiplying in float32 ----

template <class Kv>
struct MlaVecForm {
  struct Thread {
    Thread() {}
  };

  static float* sums(const MlaWork& w, const MlaPart& part, int r, int64_t d) {
    return part.sums + r * w.memory.value_padded + d;
  }
  static void prepare(MlaWork& w) {
    for (int r = 0; r < w.rows; ++r)
      for (int64_t d = 0; d < w.memory.key_padded; d += 16)
        Vec::load_n(w.query(r) + d, std::max<int64_t>(0, lanes_left(d, w.a.key_dim)))
            .store(w.queries + r * w.memory.key_padded + d);
  }
  static void write(const MlaWork& w, const MlaPart& part, int r) {
    const Vec inverse = Vec::set(1.0f / part.total[r]);
    for (int64_t d = 0; d < w.a.value_dim; d += 16) store_mla(w, r, d, Vec::load(sums(w, part, r, d)) * inverse);
  }

  // Raw q.k of kRows rows from `row` on with kPositions neighbouring keys; each is summed lane by lane, then across.
  template <int kRows, int kPositions>
  static void score_tile(MlaWork& w, int row, int64_t p, const Kv* keys) {
    Vec sums[kRows][kPositions];
    for (int r = 0; r < kRows; ++r)
      for (int i = 0; i < kPositions; ++i) sums[r][i] = Vec::zero();
    const float* q = w.queries + row * w.memory.key_padded;
    for (int64_t d = 0; d < w.a.key_dim; d += 16) {
      Vec k[kPositions];
      for (int i = 0; i < kPositions; ++i) k[i] = Vec::load(keys + i * w.a.keys.row_stride + d);
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r) {
        const Vec x = Vec::load(q + r * w.memory.key_padded + d);
#pragma GCC unroll 4
        for (int i = 0; i < kPositions; ++i) sums[r][i] = Vec::fma(x, k[i], sums[r][i]);
      }
    }
    for (int r = 0; r < kRows; ++r)
      for (int i = 0; i < kPositions; ++i) w.scores[(row + r) * kMlaPartition + p + i] = sums[r][i].sum();
  }

  template <int kPositions>
  static void score_rows(MlaWork& w, int64_t p, const Kv* keys) {
    int row = 0;
    for (; row + kDotRows <= w.rows; row += kDotRows) score_tile<kDotRows, kPositions>(w, row, p, keys);
    for (; row < w.rows; ++row) score_tile<1, kPositions>(w, row, p, keys);
  }

  // Row r's raw products with n positions to weights; 0 for those it does not see.
  static void weigh(MlaWork& w, int r, int64_t begin, int64_t n) {
    float* at = w.scores + r * kMlaPartition;
    const int64_t seen = std::min<int64_t>(n, w.end[r] - begin);
    w.part.top[r] = -__builtin_inff(), w.part.total[r] = 0;
    Vec highest = Vec::set(-__builtin_inff()), total = Vec::zero();
    const auto score = [&](int64_t p) {
      return Vec::keep_between(Vec::load(at + p) * Vec::set(w.a.scale), p, 0, std::max<int64_t>(0, seen),
                               Vec::set(-__builtin_inff()));
    };
    for (int64_t p = 0; p < seen; p += 16) highest = Vec::max(highest, score(p));
    if (seen > 0) w.part.top[r] = highest.largest();
    for (int64_t p = 0; p < n; p += 16) {
      const Vec weight = p < seen ? exp(score(p) - Vec::set(w.part.top[r])) : Vec::zero();
      weight.store(at + p);
      total = total + weight;
    }
    if (seen > 0) w.part.total[r] = total.sum();
  }

  // Weighted values of kVecs vectors from dimension d on, for kRows rows, added to the sums.
  template <int kRows, int kVecs>
  static void add_tile(MlaWork& w, int row, int64_t d, int64_t p, int64_t count, const Kv* values) {
    Vec sums[kRows][kVecs];
    for (int r = 0; r < kRows; ++r)
      for (int i = 0; i < kVecs; ++i) sums[r][i] = Vec::load(MlaVecForm::sums(w, w.part, row + r, d + 16 * i));
    for (int64_t j = 0; j < count; ++j) {
      Vec v[kVecs];
      for (int i = 0; i < kVecs; ++i) v[i] = Vec::load(values + j * w.a.values.row_stride + 16 * i);
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r) {
        const Vec weight = Vec::set(w.scores[(row + r) * kMlaPartition + p + j]);
#pragma GCC unroll 4
        for (int i = 0; i < kVecs; ++i) sums[r][i] = Vec::fma(weight, v[i], sums[r][i]);
      }
    }
    for (int r = 0; r < kRows; ++r)
      for (int i = 0; i < kVecs; ++i) sums[r][i].store(MlaVecForm::sums(w, w.part, row + r, d + 16 * i));
  }

  template <int kVecs>
  static void add_rows(MlaWork& w, int64_t d, int64_t p, int64_t count, const Kv* values) {
    int row = 0;
    for (; row + kSumRows <= w.rows; row += kSumRows) add_tile<kSumRows, kVecs>(w, row, d, p, count, values);
    for (; row < w.rows; ++row) add_tile<1, kVecs>(w, row, d, p, count, values);
  }

  // The row of `position`, and of up to fifteen positions behind it.
  static const Kv* rows_at(const MlaWork& w, const MlaRows& rows, int64_t position) {
    return static_cast<const Kv*>(rows.data) + mla_row_at(w.a, rows, w.item.s, w.item.g, position);
  }

  static void run(MlaWork& w, int64_t begin, int64_t n) {
    for (int64_t p = 0; p < n; p += 16) {
      const Kv* keys = rows_at(w, w.a.keys, begin + p);
      const int64_t count = std::min<int64_t>(16, n - p), stride = w.a.keys.row_stride;
      int64_t i = 0;
      for (; i + kDotPositions <= count; i += kDotPositions) score_rows<kDotPositions>(w, p + i, keys + i * stride);
      for (; i < count; ++i) score_rows<1>(w, p + i, keys + i * stride);
    }
    for (int r = 0; r < w.rows; ++r) weigh(w, r, begin, n);
    for (int64_t i = 0; i < w.rows * w.memory.value_padded; i += 16) Vec::zero().store(w.part.sums + i);
    for (int64_t p = 0; p < n; p += 16) {
      const Kv* values = rows_at(w, w.a.values, begin + p);
      const int64_t count = std::min<int64_t>(16, n - p);
      int64_t d = 0;
      for (; d + 16 * kSumVecs <= w.memory.value_padded; d += 16 * kSumVecs)
        add_rows<kSumVecs>(w, d, p, count, values + d);
      for (; d < w.memory.value_padded; d += 16) add_rows<1>(w, d, p, count, values + d);
    }
  }
};

inline void mla_attend(const MlaAttentionArgs& a) {
  if (a.dtype == DType::kF32) return mla_attend_with<MlaVecForm<float>>(a);
  if (a.dtype == DType::kBf16) return mla_attend_with<MlaVecForm<bf16>>(a);
  mla_attend_with<MlaVecForm<f16>>(a);
}
