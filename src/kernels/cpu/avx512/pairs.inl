// Rows of x in bf16. Included into the anonymous namespace of a product, under an instruction set with vcvtne2ps2bf16.

// Sixteen pairs of row `row`, from k = 32 * i on, zero from K on.
template <class Args>
inline __m512i pairs_of(const Args& a, int64_t row, int64_t i) {
  const int64_t left = std::clamp<int64_t>(a.K - 32 * i, 0, 32), at = row * a.x_stride + 32 * i;
  const auto mask = static_cast<__mmask32>((uint64_t{1} << left) - 1);
  if (a.x_dtype == DType::kBf16) return _mm512_maskz_loadu_epi16(mask, static_cast<const bf16*>(a.x) + at);
  const auto* x = static_cast<const float*>(a.x) + at;
  const __m512 low = _mm512_maskz_loadu_ps(static_cast<__mmask16>(mask), x),
               high = _mm512_maskz_loadu_ps(static_cast<__mmask16>(mask >> 16), x + 16);
  return reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high, low));
}
