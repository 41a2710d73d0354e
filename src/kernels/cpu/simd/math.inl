// Elementary functions on Vec. Included inside a namespace that has Vec, with the instruction set raised.

// How many of the sixteen lanes from `at` on lie below n.
inline int64_t lanes_left(int64_t at, int64_t n) { return n - at < 16 ? n - at : 16; }

// e^x for x in [-88, 89], about one unit in the last place; NaN stays NaN. Cody and Waite's reduction, then the
// polynomial of Cephes' expf.
inline Vec exp_within(Vec x) {
  const Vec n = Vec::round(x * Vec::set(1.44269504f));
  Vec r = Vec::fma(n, Vec::set(-0.693359375f), x);
  r = Vec::fma(n, Vec::set(2.12194440e-4f), r);
  Vec p = Vec::set(1.9875691500e-4f);
  p = Vec::fma(p, r, Vec::set(1.3981999507e-3f));
  p = Vec::fma(p, r, Vec::set(8.3334519073e-3f));
  p = Vec::fma(p, r, Vec::set(4.1665795894e-2f));
  p = Vec::fma(p, r, Vec::set(1.6666665459e-1f));
  p = Vec::fma(p, r, Vec::set(5.0000001201e-1f));
  p = Vec::fma(p, r * r, r) + Vec::set(1.0f);
  return Vec::scale_by_power(p, n);
}

// e^x; 0 below -87.3, infinity from 88.73 on.
inline Vec exp(Vec x) {
  const Vec bounded = Vec::max(Vec::set(-88.0f), Vec::min(Vec::set(89.0f), x));
  return Vec::where_less(x, Vec::set(-87.3f), Vec::zero(), exp_within(bounded));
}

// 2^x for x in [0, 1], relative error 7.5e-8 before rounding: the polynomial of the fifth degree whose largest is
// least.
inline Vec power_within_one(Vec x) {
  Vec p = Vec::set(1.87757667e-3f);
  p = Vec::fma(p, x, Vec::set(8.98934009e-3f));
  p = Vec::fma(p, x, Vec::set(5.58263181e-2f));
  p = Vec::fma(p, x, Vec::set(2.40153617e-1f));
  p = Vec::fma(p, x, Vec::set(6.93153073e-1f));
  return Vec::fma(p, x, Vec::set(9.99999925e-1f));
}

// 2^x for x in [0, 1], relative error 1e-4: interpolated at the Chebyshev points.
inline Vec nearly_power_within_one(Vec x) {
  const Vec high = Vec::fma(Vec::set(7.8967257e-2f), x, Vec::set(2.24693156e-1f));
  const Vec low = Vec::fma(Vec::set(6.96324771e-1f), x, Vec::set(9.99900288e-1f));
  return Vec::fma(high, x * x, low);
}

// Both ends are exact: 1 - 2 / (e^2x + 1) is off by cancellation near zero only, where x - x^3/3 takes over.
inline Vec tanh(Vec x) {
  const Vec one = Vec::set(1.0f), two = Vec::set(2.0f);
  const Vec far = one - two / (exp(two * x) + one);
  const Vec s = x * x;
  Vec p = Vec::set(-5.70498872745e-3f);
  p = Vec::fma(p, s, Vec::set(2.06390887954e-2f));
  p = Vec::fma(p, s, Vec::set(-5.37397155531e-2f));
  p = Vec::fma(p, s, Vec::set(1.33314422036e-1f));
  p = Vec::fma(p, s, Vec::set(-3.33332819422e-1f));
  const Vec near = Vec::fma(p * s, x, x);
  return Vec::where_less(Vec::abs(x), Vec::set(0.625f), near, far);
}

// Error function by Abramowitz and Stegun 7.1.26, absolute error 1.5e-7.
inline Vec erf(Vec x) {
  const Vec one = Vec::set(1.0f), magnitude = Vec::abs(x);
  const Vec t = one / Vec::fma(Vec::set(0.3275911f), magnitude, one);
  Vec p = Vec::set(1.061405429f);
  p = Vec::fma(p, t, Vec::set(-1.453152027f));
  p = Vec::fma(p, t, Vec::set(1.421413741f));
  p = Vec::fma(p, t, Vec::set(-0.284496736f));
  p = Vec::fma(p, t, Vec::set(0.254829592f));
  const Vec y = one - p * t * exp(Vec::zero() - magnitude * magnitude);
  return Vec::where_less(x, Vec::zero(), Vec::zero() - y, y);
}

// (a, b) -> (a cos - b sin, b cos + a sin), sixteen pairs at a time.
inline void rotate(Vec& a, Vec& b, Vec cos, Vec sin) {
  const Vec turned = a * cos - b * sin;
  b = b * cos + a * sin;
  a = turned;
}
