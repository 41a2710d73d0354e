// Gated linear unit on Vec.

struct Silu {
  static Vec apply(Vec x) { return x / (Vec::set(1.0f) + exp(Vec::zero() - x)); }
};
struct Gelu {
  static Vec apply(Vec x) { return Vec::set(0.5f) * x * (Vec::set(1.0f) + erf(x * Vec::set(0.70710678118654752f))); }
};
struct GeluTanh {
  static Vec apply(Vec x) {
    const Vec cubic = Vec::fma(x * x * x, Vec::set(0.044715f), x);
    return Vec::set(0.5f) * x * (Vec::set(1.0f) + tanh(Vec::set(0.79788456080286536f) * cubic));
  }
};
struct Relu {
  static Vec apply(Vec x) { return Vec::max(x, Vec::zero()); }
};

template <class Act, class Y>
inline void glu_rows(const GluArgs& a) {
  for (int64_t t = 0; t < a.T; ++t) {
    const float *gate = a.gate + t * a.x_stride, *up = a.up + t * a.x_stride;
    Y* y = static_cast<Y*>(a.y) + t * a.y_stride;
    for (int64_t f = 0; f < a.F; f += 16) {
      const int64_t n = lanes_left(f, a.F);
      (Act::apply(Vec::load_n(gate + f, n)) * Vec::load_n(up + f, n)).store_n(y + f, n);
    }
  }
}

template <class Act>
inline void glu_as(const GluArgs& a) {
  if (a.y_dtype == DType::kBf16)
    glu_rows<Act, bf16>(a);
  else
    glu_rows<Act, float>(a);
}

void glu(const GluArgs& a) {
  switch (a.activation) {
    case GluActivation::kSilu:
      return glu_as<Silu>(a);
    case GluActivation::kGelu:
      return glu_as<Gelu>(a);
    case GluActivation::kGeluTanh:
      return glu_as<GeluTanh>(a);
    case GluActivation::kRelu:
      return glu_as<Relu>(a);
  }
}
