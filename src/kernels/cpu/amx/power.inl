// The exponential of weights that become bf16.

// 2^x, relative error below 2^-13.5, exact at 0; 0 from about -149 down, infinity from 128 up.
inline __m512 power_for_bf16(__m512 x) {
  const __m512 f = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);  // x - floor(x)
  __m512 p = _mm512_set1_ps(7.706704200e-2f);  // least largest relative error on [0, 1] of those that are 1 at 0
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(2.276449912e-1f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(6.951167864e-1f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.0f));
  return _mm512_scalef_ps(p, x);  // p * 2^floor(x)
}

// ---- thirty-two at a time, in integers of sixteen bits ----
//
// Beside a tile product multiplications and shifts run on one port, additions, logic and permutations on another, so
// the work is shared: t = y * 512 + kPowerMagic is float32 whose lowest bits hold y in units of 1/512 (relative error
// of 2^y at most 2^-10.5); two vectors of t become words of seven bits of floor(y) and nine of the rest. The upper five
// of those pick 2^f from a table, the lower four, next to 736, are 1 + f ln 2 times 738; the product is rounded to the
// eight bits of a bf16. Its relative error before that is 8.2e-5, in the last 1/32 below a power of two 6.4e-4, where
// the table's entry is a little less, so that no product rounds up to the next power. Together that is less than three
// eighths of half a step of a bf16 elsewhere, seven tenths of it there; 2^0 is exact.

constexpr float kPowerUnits = 512;
constexpr float kPowerMagic = 0x1.8p23f;  // a float32 from 2^23 to 2^24 has an integer in its lowest bits
constexpr int kPowerZero = 80;            // of the seven bits, where y = 0: powers are 2^(y - 47), for y in [-79, 48)

// (2^(i / 32) * 128 + 1/2) / 736 * 2^16, the best for all sixteen products with 736 to 751.
struct PowerConstants {
  alignas(64) uint16_t table[32];
};
constexpr PowerConstants kPowers = {{11442, 11692, 11947, 12208, 12474, 12746, 13024, 13308, 13599, 13896, 14199,
                                     14509, 14826, 15149, 15480, 15818, 16164, 16517, 16877, 17246, 17623, 18007,
                                     18401, 18803, 19214, 19633, 20062, 20501, 20949, 21406, 21874, 22339}};

// The words of two t: lanes 4i to 4i + 3 of each in turn. Requires: no lane's sign bit is set.
inline __m512i power_words(__m512 low, __m512 high) {
  const __m512i least = _mm512_set1_epi32(0x4b400000 - (kPowerZero << 9));
  return _mm512_packus_epi32(_mm512_sub_epi32(_mm512_castps_si512(low), least),
                             _mm512_sub_epi32(_mm512_castps_si512(high), least));
}
// The same for all t; NaN is anything.
inline __m512i power_words_of_any(__m512 low, __m512 high) {
  const __m512i least = _mm512_set1_epi32(0x4b400000 - (kPowerZero << 9));
  const auto above = [&](__m512 t) {
    const __m512i bits = _mm512_castps_si512(t);
    return _mm512_maskz_sub_epi32(_mm512_cmpgt_epi32_mask(bits, least), bits, least);
  };
  return _mm512_packus_epi32(above(low), above(high));
}
// The bits of sixteen lanes of `low` and of `high`, in the order of their words.
inline __mmask32 power_mask(uint32_t low, uint32_t high) {
  return _pdep_u32(low, 0x0f0f0f0f) | _pdep_u32(high, 0xf0f0f0f0);
}
// bf16 whose exponent is a word's upper seven bits: a word below 512 is less than the smallest normal, and counts as 0
// in products.
inline __m512i powers_of_words(__m512i words) {
  constexpr int kMaskedOr = 0xea, kSelect = 0xca;
  const __m512i table = _mm512_permutexvar_epi16(_mm512_srli_epi16(words, 4), _mm512_load_si512(kPowers.table));
  const __m512i factor = _mm512_ternarylogic_epi32(words, _mm512_set1_epi16(15), _mm512_set1_epi16(736), kMaskedOr);
  return _mm512_ternarylogic_epi32(_mm512_set1_epi16(0x3f80), _mm512_srli_epi16(words, 2),
                                   _mm512_mulhi_epu16(table, factor), kSelect);
}
