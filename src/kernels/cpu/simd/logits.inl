// Passes over a row of logits on Vec.

inline float largest(const float* x, int64_t n) {
  const Vec lowest = Vec::set(-__builtin_inff());
  Vec best = lowest;
  // The second operand wins where either is NaN.
  for (int64_t i = 0; i < n; i += 16)
    best = Vec::max(Vec::keep_between(Vec::load_n(x + i, lanes_left(i, n)), i, 0, n, lowest), best);
  return best.largest();
}

inline int64_t find(const float* x, int64_t n, float value) {
  const Vec wanted = Vec::set(value);
  int64_t i = 0;
  for (; i + 16 <= n; i += 16)
    if (const uint32_t hits = Vec::equal(Vec::load(x + i), wanted)) return i + __builtin_ctz(hits);
  for (; i < n; ++i)
    if (x[i] == value) return i;
  return n;
}

inline double sum_exp(const float* x, int64_t n, float shift) {
  constexpr int64_t kBlock = 4096;
  const Vec offset = Vec::set(shift), lowest = Vec::set(-__builtin_inff());
  double total = 0;
  for (int64_t block = 0; block < n; block += kBlock) {
    const int64_t end = n - block < kBlock ? n : block + kBlock;
    Vec sum = Vec::zero();
    for (int64_t i = block; i < end; i += 16) {
      const Vec value = Vec::keep_between(Vec::load_n(x + i, lanes_left(i, end)), i, 0, end, lowest);
      sum = sum + exp(Vec::max(value - offset, lowest));
    }
    total += static_cast<double>(sum.sum());
  }
  return total;
}

inline int64_t count_larger(const float* x, int64_t n, float bound) {
  const Vec least = Vec::set(bound);
  int64_t count = 0, i = 0;
  for (; i + 16 <= n; i += 16) count += __builtin_popcount(Vec::larger(Vec::load(x + i), least));
  for (; i < n; ++i) count += x[i] > bound;
  return count;
}

inline int64_t collect(const float* x, int64_t n, float bound, int64_t from, int32_t* indices, int64_t most,
                       int64_t* next) {
  const Vec least = Vec::set(bound);
  int64_t count = 0, i = from;
  for (; i + 16 <= n && count + 16 <= most; i += 16)
    for (uint32_t hits = Vec::at_least(Vec::load(x + i), least); hits; hits &= hits - 1)
      indices[count++] = static_cast<int32_t>(i + __builtin_ctz(hits));
  for (; i < n && count < most; ++i)
    if (x[i] >= bound) indices[count++] = static_cast<int32_t>(i);
  *next = i;
  return count;
}

inline void masses(const float* x, int64_t n, float shift, const float* bounds, double* masses) {
  constexpr int64_t kBlock = 4096;
  constexpr float kLog2E = 1.44269504f;
  const Vec to_log2 = Vec::set(kLog2E), offset = Vec::set(shift), lowest = Vec::set(-__builtin_inff());
  Vec least[kMassBounds];
  for (int b = 0; b < kMassBounds; ++b) least[b] = Vec::set(bounds[b]), masses[b] = 0;
  for (int64_t block = 0; block < n; block += kBlock) {
    const int64_t end = n - block < kBlock ? n : block + kBlock;
    Vec sums[kMassBounds] = {};
    const auto add = [&](Vec value) __attribute__((always_inline)) {
      const Vec mass = power_of_two((value - offset) * to_log2);
#pragma GCC unroll 8
      for (int b = 0; b < kMassBounds; ++b) sums[b] = add_where_at_least(sums[b], mass, value, least[b]);
    };
    int64_t i = block;
    for (; i + 16 <= end; i += 16) add(Vec::load(x + i));
    if (i < end) add(Vec::keep_between(Vec::load_n(x + i, end - i), i, 0, end, lowest));
    for (int b = 0; b < kMassBounds; ++b) masses[b] += static_cast<double>(sums[b].sum());
  }
}

inline float exponentials(const float* x, int64_t n, float shift, float* to) {
  constexpr float kLog2E = 1.44269504f;
  const Vec to_log2 = Vec::set(kLog2E), offset = Vec::set(shift), lowest = Vec::set(-__builtin_inff());
  // The second operand wins where either is NaN.
  const auto of = [&](Vec value) __attribute__((always_inline)) {
    return power_of_two<nearly_power_within_one>(Vec::max((value - offset) * to_log2, lowest));
  };
  Vec sums[4] = {};
  int64_t i = 0;
  for (; i + 64 <= n; i += 64)
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) {
      const Vec mass = of(Vec::load(x + i + 16 * v));
      mass.store(to + i + 16 * v);
      sums[v] = sums[v] + mass;
    }
  for (; i < n; i += 16) {
    const int64_t lanes = lanes_left(i, n);
    const Vec mass = of(Vec::keep_between(Vec::load_n(x + i, lanes), i, 0, n, lowest));
    mass.store_n(to + i, lanes);
    sums[0] = sums[0] + mass;
  }
  return ((sums[0] + sums[1]) + (sums[2] + sums[3])).sum();
}

inline float sum_at_least(const float* x, int64_t n, float bound) {
  const Vec least = Vec::set(bound);
  Vec sums[4] = {};
  int64_t i = 0;
  for (; i + 64 <= n; i += 64)
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) {
      const Vec value = Vec::load(x + i + 16 * v);
      sums[v] = add_where_at_least(sums[v], value, value, least);
    }
  float rest = 0;
  for (; i < n; ++i) rest += x[i] >= bound ? x[i] : 0;
  return ((sums[0] + sums[1]) + (sums[2] + sums[3])).sum() + rest;
}

inline int64_t between(const float* x, const int32_t* ids, int64_t n, float low, float high, float* values,
                       int32_t* values_ids) {
  const Vec from = Vec::set(low), to = Vec::set(high), lowest = Vec::set(-__builtin_inff());
  int64_t count = 0, i = 0;
  const auto look_at = [&](Vec value) __attribute__((always_inline)) {
    const uint32_t hits = Vec::at_least(value, from) & Vec::larger(to, value);
    store_hits(hits, value, ids ? ids + i : nullptr, i, values + count, values_ids + count);
    count += __builtin_popcount(hits);
  };
  for (; i + 16 <= n; i += 16) look_at(Vec::load(x + i));
  if (i < n) look_at(Vec::keep_between(Vec::load_n(x + i, n - i), i, 0, n, lowest));
  return count;
}

inline float scale(float* x, int64_t n, float factor) {
  const Vec by = Vec::set(factor), lowest = Vec::set(-__builtin_inff());
  Vec best[4] = {lowest, lowest, lowest, lowest};
  int64_t i = 0;
  for (; i + 64 <= n; i += 64)
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) {
      const Vec value = Vec::load(x + i + 16 * v) * by;
      value.store(x + i + 16 * v);
      best[v] = Vec::max(value, best[v]);
    }
  for (; i < n; i += 16) {
    const int64_t lanes = lanes_left(i, n);
    const Vec value = Vec::load_n(x + i, lanes) * by;
    value.store_n(x + i, lanes);
    best[0] = Vec::max(Vec::keep_between(value, i, 0, n, lowest), best[0]);
  }
  return Vec::max(Vec::max(best[0], best[1]), Vec::max(best[2], best[3])).largest();
}

inline void ban_below(float* x, int64_t n, float bound) {
  const Vec least = Vec::set(bound), lowest = Vec::set(-__builtin_inff());
  for (int64_t i = 0; i < n; i += 16) {
    const int64_t lanes = lanes_left(i, n);
    const Vec value = Vec::max(Vec::load_n(x + i, lanes), lowest);  // NaN is the lowest too
    Vec::where_less(value, least, lowest, value).store_n(x + i, lanes);
  }
}

LogitKernels logit_kernels() {
  return {largest, find, sum_exp, count_larger, collect, masses, exponentials, sum_at_least, between, scale, ban_below, contenders};
}
