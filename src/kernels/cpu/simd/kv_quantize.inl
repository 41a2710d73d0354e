// One head as int8 (kernels/kv_write.h), sixteen elements at a time.

// What the elements of x are multiplied with; 0 where all become 0. `scale` is given, or 0 and found here.
inline float kv_inverse(const float* x, int64_t n, float& scale) {
  if (scale != 0) return 1 / scale;
  Vec largest = Vec::zero();
  for (int64_t d = 0; d < n; d += 16)
    largest = Vec::max_bits(largest, Vec::abs(Vec::load_n(x + d, lanes_left(d, n))));
  const float most = std::bit_cast<float>(largest.largest_bits());
  const bool finite = std::isfinite(most);
  scale = finite ? most / 127 : __builtin_nanf("");
  return finite && most >= kLeastKvMax ? 127 / most : 0;
}

float kv_quantize(const float* x, int64_t n, float scale, int8_t* to) {
  const float inverse = kv_inverse(x, n, scale);
  for (int64_t d = 0; d < n; d += 16) {
    const int64_t lanes = lanes_left(d, n);
    const Vec q = inverse == 0 ? Vec::zero() : Vec::load_n(x + d, lanes) * Vec::set(inverse);
    Vec::min(Vec::max(q, Vec::set(-127)), Vec::set(127)).store_n(to + d, lanes);
  }
  return scale;
}
