// Products of integers of sixteen bits, with panels of sixteen columns. x lies in blocks of rows; a dword is two of k.

#include "kernels/cpu/simd/word_rows.inl"

constexpr int kTileRows = 6;  // twelve sums, two vectors of weights and a dword of x in sixteen registers

// sum += x * w of pairs. The compiler is kept from adding two steps' products first, for which registers are too few.
inline __attribute__((always_inline)) void add_product(__m256i& sum, __m256i x, __m256i w) {
  __m256i all = _mm256_add_epi32(sum, _mm256_madd_epi16(x, w));
  asm("" : "+x"(all));
  sum = all;
}
// Sixteen integers, nearest even. Requires: |x| < 32768.
inline __m256i words_of(Vec x) {
  const __m256i pairs = _mm256_packs_epi32(_mm256_cvtps_epi32(x.a), _mm256_cvtps_epi32(x.b));
  return _mm256_permute4x64_epi64(pairs, 0xd8);
}
