// Activation functions on Vec.

struct Silu {
  // Beyond 80 either way the quotient is x or nothing.
  static Vec apply(Vec x) {
    const Vec bounded = Vec::max(Vec::set(-80.0f), Vec::min(Vec::set(80.0f), Vec::zero() - x));
    return x * Vec::reciprocal(Vec::set(1.0f) + exp_within(bounded));
  }
};
// The same for y that becomes bf16: relative error below 1.5e-4, a 26th of what rounding adds at most. Beyond 83
// either way it is x or nothing, without numbers so small that they take the processor long.
struct NearlySilu {
  static Vec apply(Vec x) { return end(x, begin(x)); }
  // In two halves of about as many dependent operations: 1 + e^-x, and the quotient.
  static inline __attribute__((always_inline)) Vec begin(Vec x) {
    const Vec exponent = Vec::bounded(x * Vec::set(-1.44269504f), 120.0f), one = Vec::set(1.0f);
    return Vec::fma(nearly_power_within_one(Vec::above_floor(exponent)), Vec::scale_by_floor(one, exponent), one);
  }
  static inline __attribute__((always_inline)) Vec end(Vec x, Vec begun) { return x * Vec::nearly_reciprocal(begun); }
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

// The halves of any of them: of one that has none the whole, and nothing.
template <class Act>
inline __attribute__((always_inline)) Vec begin_of(Vec x) {
  if constexpr (requires { Act::begin(x); })
    return Act::begin(x);
  else
    return Act::apply(x);
}
template <class Act>
inline __attribute__((always_inline)) Vec end_of(Vec x, Vec begun) {
  if constexpr (requires { Act::begin(x); })
    return Act::end(x, begun);
  else
    return begun;
}

// run.operator()<Act>() with the function of that name for outputs of type `y`.
template <class Run>
inline void with_activation(GluActivation activation, DType y, const Run& run) {
  switch (activation) {
    case GluActivation::kSilu:
      return y == DType::kBf16 ? run.template operator()<NearlySilu>() : run.template operator()<Silu>();
    case GluActivation::kGelu:
      return run.template operator()<Gelu>();
    case GluActivation::kGeluTanh:
      return run.template operator()<GeluTanh>();
    case GluActivation::kRelu:
      return run.template operator()<Relu>();
  }
}
