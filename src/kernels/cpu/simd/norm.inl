// Norms on Vec. A row is summed lane by lane in one order, so its result does not depend on the rows around it.

inline void add_residual(const NormArgs& a, int64_t t) {
  float* x = a.x + t * a.x_stride;
  const float* residual = a.residual + t * a.C;
  const Vec scale = Vec::set(a.residual_scale);
  for (int64_t c = 0; c < a.C; c += 16) {
    const int64_t n = lanes_left(c, a.C);
    Vec::fma(scale, Vec::load_n(residual + c, n), Vec::load_n(x + c, n)).store_n(x + c, n);
  }
}

// Sum over c of (x[c] - shift)^2.
inline float sum_of_squares(const float* x, int64_t C, float shift) {
  Vec sums[4] = {Vec::zero(), Vec::zero(), Vec::zero(), Vec::zero()};
  const Vec offset = Vec::set(shift);
  int64_t c = 0;
  for (; c + 64 <= C; c += 64)
    for (int i = 0; i < 4; ++i) {
      const Vec value = Vec::load(x + c + 16 * i) - offset;
      sums[i] = Vec::fma(value, value, sums[i]);
    }
  for (; c < C; c += 16) {
    const int64_t n = lanes_left(c, C);
    const Vec value = Vec::keep_between(Vec::load_n(x + c, n) - offset, 0, 0, n, Vec::zero());
    sums[0] = Vec::fma(value, value, sums[0]);
  }
  return ((sums[0] + sums[1]) + (sums[2] + sums[3])).sum();
}

inline float sum_of(const float* x, int64_t C) {
  Vec sum = Vec::zero();
  for (int64_t c = 0; c < C; c += 16) sum = sum + Vec::load_n(x + c, lanes_left(c, C));
  return sum.sum();
}

// w[c] * (x[c] - shift) * scale + b[c] for sixteen c from a multiple of sixteen on; shift is 0 where not kShifts.
template <bool kShifts>
struct NormedRow {
  inline Vec operator()(int64_t c, int64_t n) const {
    return normed(Vec::load_n(x + c, n), Vec::load_n(w + c, n), c, n);
  }
  inline Vec whole(int64_t c) const { return normed(Vec::load(x + c), Vec::load(w + c), c, 16); }
  inline Vec normed(Vec value, Vec weight, int64_t c, int64_t n) const {
    if constexpr (kShifts) value = value - Vec::set(shift);
    value = value * Vec::set(scale) * weight;
    return b ? value + Vec::load_n(b + c, n) : value;
  }
  const float *x, *w, *b;
  float shift, scale;
  int64_t next;  // from x to the row that follows, or 0: it comes nearer meanwhile
};

template <class Row, class Y>
inline void write_normed(const Row& row, int64_t C, Y* y) {
  for (int64_t c = 0; c < C; c += 16) {
    const int64_t n = lanes_left(c, C);
    row(c, n).store_n(y + c, n);
  }
}

// Of the largest magnitude.
template <class Row>
inline uint32_t largest_bits(const Row& row, int64_t C) {
  Vec largest[2] = {Vec::zero(), Vec::zero()};
  int64_t c = 0;
  for (; c + 32 <= C; c += 32)
    for (int i = 0; i < 2; ++i) {
      __builtin_prefetch(row.x + row.next + c + 16 * i);
      largest[i] = Vec::max_bits(largest[i], Vec::abs(row.whole(c + 16 * i)));
    }
  for (; c < C; c += 16) largest[0] = Vec::max_bits(largest[0], Vec::abs(row(c, lanes_left(c, C))));
  return Vec::max_bits(largest[0], largest[1]).largest_bits();
}

template <class Row>
inline void write_integers(const Row& row, int64_t C, float tensor_scale, int8_t* y) {
  const RowScale scale = RowScale::of(tensor_scale, tensor_scale > 0 ? 0 : largest_bits(row, C));
  set_made_scale(y, C, scale.scale);
  if (scale.factor == 0) return static_cast<void>(std::memset(y, 0, static_cast<size_t>(w8a8_padded_k(C))));
  const Vec factor = Vec::set(scale.factor);
  int64_t c = 0;
  for (; c + 64 <= C; c += 64) {
    const Vec all[] = {row.whole(c) * factor, row.whole(c + 16) * factor, row.whole(c + 32) * factor,
                       row.whole(c + 48) * factor};
    Vec::store_saturated(all, y + c);
  }
  std::memset(y + c, 0, static_cast<size_t>(w8a8_padded_k(C) - c));
  for (; c < C; c += 16) {
    const int64_t n = lanes_left(c, C);
    Vec::max(Vec::min(row(c, n) * factor, Vec::set(127)), Vec::set(-128)).store_n(y + c, n);
  }
}

template <bool kShifts>
inline void write_normed_as(const NormArgs& a, int64_t t, float shift, float scale) {
  const int64_t next = t + 1 < a.T ? a.x_stride : 0;
  const NormedRow<kShifts> row{a.x + t * a.x_stride, a.w, a.b, shift, scale, next};
  const int64_t at = t * a.y_stride;
  if (a.y_dtype == DType::kI8)
    write_integers(row, a.C, a.y_scale, static_cast<int8_t*>(a.y) + at);
  else if (a.y_dtype == DType::kBf16)
    write_normed(row, a.C, static_cast<bf16*>(a.y) + at);
  else
    write_normed(row, a.C, static_cast<float*>(a.y) + at);
}

void rms_norm(const NormArgs& a) {
  for (int64_t t = 0; t < a.T; ++t) {
    if (a.residual) add_residual(a, t);
    const float mean_square = sum_of_squares(a.x + t * a.x_stride, a.C, 0.0f) / static_cast<float>(a.C);
    write_normed_as<false>(a, t, 0.0f, 1.0f / std::sqrt(mean_square + a.eps));
  }
}

void layer_norm(const NormArgs& a) {
  for (int64_t t = 0; t < a.T; ++t) {
    if (a.residual) add_residual(a, t);
    const float* x = a.x + t * a.x_stride;
    const float mean = sum_of(x, a.C) / static_cast<float>(a.C);
    const float variance = sum_of_squares(x, a.C, mean) / static_cast<float>(a.C);
    write_normed_as<true>(a, t, mean, 1.0f / std::sqrt(variance + a.eps));
  }
}
