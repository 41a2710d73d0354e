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

// y[c] = w[c] * (x[c] - shift) * scale + b[c]
template <class Y>
inline void write_normed(const NormArgs& a, int64_t t, float shift, float scale) {
  const float* x = a.x + t * a.x_stride;
  Y* y = static_cast<Y*>(a.y) + t * a.y_stride;
  const Vec offset = Vec::set(shift), factor = Vec::set(scale);
  for (int64_t c = 0; c < a.C; c += 16) {
    const int64_t n = lanes_left(c, a.C);
    Vec value = (Vec::load_n(x + c, n) - offset) * factor * Vec::load_n(a.w + c, n);
    if (a.b) value = value + Vec::load_n(a.b + c, n);
    value.store_n(y + c, n);
  }
}

inline void write_normed_as(const NormArgs& a, int64_t t, float shift, float scale) {
  if (a.y_dtype == DType::kBf16)
    write_normed<bf16>(a, t, shift, scale);
  else
    write_normed<float>(a, t, shift, scale);
}

void rms_norm(const NormArgs& a) {
  for (int64_t t = 0; t < a.T; ++t) {
    if (a.residual) add_residual(a, t);
    const float mean_square = sum_of_squares(a.x + t * a.x_stride, a.C, 0.0f) / static_cast<float>(a.C);
    write_normed_as(a, t, 0.0f, 1.0f / std::sqrt(mean_square + a.eps));
  }
}

void layer_norm(const NormArgs& a) {
  for (int64_t t = 0; t < a.T; ++t) {
    if (a.residual) add_residual(a, t);
    const float* x = a.x + t * a.x_stride;
    const float mean = sum_of(x, a.C) / static_cast<float>(a.C);
    const float variance = sum_of_squares(x, a.C, mean) / static_cast<float>(a.C);
    write_normed_as(a, t, mean, 1.0f / std::sqrt(variance + a.eps));
  }
}
