// Combining experts' rows on Vec.

inline float base_scale(const CombineRowsArgs& a, int64_t t) {
  return !a.adds ? 0.0f : a.gate ? 1 / (1 + std::exp(-a.gate[t])) : 1.0f;
}

void combine_rows(const CombineRowsArgs& a) {
  for (int64_t t = 0; t < a.T; ++t) {
    const Vec base = Vec::set(base_scale(a, t));
    float* y = a.y + t * a.y_stride;
    for (int64_t c = 0; c < a.C; c += 16) {
      const int64_t n = lanes_left(c, a.C);
      Vec sum = a.adds ? base * Vec::load_n(y + c, n) : Vec::zero();
      for (int64_t k = t * a.K; k < (t + 1) * a.K; ++k)
        sum = Vec::fma(Vec::set(a.weights[k]), Vec::load_n(a.x + a.row_of[k] * a.C + c, n), sum);
      sum.store_n(y + c, n);
    }
  }
}
