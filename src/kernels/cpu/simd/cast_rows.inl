// Rows of float32 to another type, on Vec.

template <class To>
void cast_rows_to(const CastRowsArgs& a) {
  const int64_t end = std::max(a.width, a.padded);
  for (int64_t i = 0; i < a.n; ++i) {
    const float* from = a.from + i * a.from_stride;
    To* to = static_cast<To*>(a.to) + (a.slots ? a.slots[i] : i) * a.to_stride;
    for (int64_t c = 0; c < end; c += 16) {
      const int64_t n = lanes_left(c, a.width);
      (n > 0 ? Vec::load_n(from + c, n) : Vec::zero()).store_n(to + c, lanes_left(c, end));
    }
  }
}

void cast_rows(const CastRowsArgs& a) {
  if (a.to_dtype == DType::kF32) return cast_rows_to<float>(a);
  if (a.to_dtype == DType::kBf16) return cast_rows_to<bf16>(a);
  cast_rows_to<f16>(a);
}
