// Gated linear unit on Vec.

template <class Act, class Y>
inline void glu_rows(const GluArgs& a) {
  for (int64_t t = 0; t < a.T; ++t) {
    const float *gate = a.gate + t * a.x_stride, *up = a.up ? a.up + t * a.x_stride : nullptr;
    Y* y = static_cast<Y*>(a.y) + t * a.y_stride;
    for (int64_t f = 0; f < a.F; f += 16) {
      const int64_t n = lanes_left(f, a.F);
      Vec value = Act::apply(Vec::load_n(gate + f, n));
      if (up) value = value * Vec::load_n(up + f, n);
      value.store_n(y + f, n);
    }
  }
}

void glu(const GluArgs& a) {
  with_activation(a.activation, a.y_dtype, [&]<class Act>() {
    a.y_dtype == DType::kBf16 ? glu_rows<Act, bf16>(a) : glu_rows<Act, float>(a);
  });
}
