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

inline void exps(const float* x, int64_t n, float shift, float* to) {
  const Vec offset = Vec::set(shift);
  for (int64_t i = 0; i < n; i += 16) {
    const int64_t lanes = lanes_left(i, n);
    exp(Vec::load_n(x + i, lanes) - offset).store_n(to + i, lanes);
  }
}

inline void scale(float* x, int64_t n, float factor) {
  const Vec by = Vec::set(factor);
  for (int64_t i = 0; i < n; i += 16) {
    const int64_t lanes = lanes_left(i, n);
    (Vec::load_n(x + i, lanes) * by).store_n(x + i, lanes);
  }
}

inline void ban_below(float* x, int64_t n, float bound) {
  const Vec least = Vec::set(bound), lowest = Vec::set(-__builtin_inff());
  for (int64_t i = 0; i < n; i += 16) {
    const int64_t lanes = lanes_left(i, n);
    const Vec value = Vec::max(Vec::load_n(x + i, lanes), lowest);  // NaN is the lowest too
    Vec::where_less(value, least, lowest, value).store_n(x + i, lanes);
  }
}

inline double sum_from(const float* x, const float* terms, int64_t n, float bound) {
  constexpr int64_t kBlock = 4096;
  const Vec least = Vec::set(bound), lowest = Vec::set(-__builtin_inff());
  double total = 0;
  for (int64_t block = 0; block < n; block += kBlock) {
    const int64_t end = n - block < kBlock ? n : block + kBlock;
    Vec sum = Vec::zero();
    for (int64_t i = block; i < end; i += 16) {
      const int64_t lanes = lanes_left(i, end);
      const Vec value = Vec::max(Vec::load_n(x + i, lanes), lowest);
      sum = sum + Vec::where_less(value, least, Vec::zero(), Vec::load_n(terms + i, lanes));
    }
    total += static_cast<double>(sum.sum());
  }
  return total;
}

LogitKernels logit_kernels() { return {largest, find, sum_exp, count_larger, collect, exps, scale, ban_below, sum_from, noise}; }
