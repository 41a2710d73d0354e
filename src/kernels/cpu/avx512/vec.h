// Sixteen floats in one AVX-512 register. Same interface as avx2/vec.h, for the bodies in simd/.
#pragma once
#include <immintrin.h>

#include <cstdint>

#include "base/dtype.h"

// gcc warns about its own headers (bug 105593) and about vectors passed between functions that raise the ISA alike.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wpsabi"
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")
namespace millrace::avx512 {

// Four times sixteen bytes that were packed from dwords to words and from words to bytes, in their order.
inline __m512i in_order(__m512i packed) {
  return _mm512_permutexvar_epi32(_mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15), packed);
}

// 64 bytes, those of four times sixteen words that were packed in pairs; signed ones saturate.
inline __m512i packed_bytes(__m512i low_words, __m512i high_words) {
  return in_order(_mm512_packs_epi16(low_words, high_words));
}
inline __m512i packed_unsigned_bytes(__m512i low_words, __m512i high_words) {
  return in_order(_mm512_packus_epi16(low_words, high_words));
}

// 64 floats to int8, nearest even, saturating; NaN becomes the largest.
inline __m512i saturated_bytes(__m512 a, __m512 b, __m512 c, __m512 d) {
  const auto integers = [](__m512 x) { return _mm512_cvtps_epi32(_mm512_min_ps(x, _mm512_set1_ps(127))); };
  return packed_bytes(_mm512_packs_epi32(integers(a), integers(b)), _mm512_packs_epi32(integers(c), integers(d)));
}

struct Vec {
  __m512 v;

  static Vec zero() { return {_mm512_setzero_ps()}; }
  static Vec set(float x) { return {_mm512_set1_ps(x)}; }
  static Vec load(const float* p) { return {_mm512_loadu_ps(p)}; }
  static Vec load(const f16* p) { return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))}; }
  static Vec load(const bf16* p) {
    const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
    return {_mm512_castsi512_ps(_mm512_slli_epi32(wide, 16))};
  }
  // Element kWhich of each of sixteen fours.
  template <int kWhich>
  static Vec load_of_four(const int8_t* p) {
    const __m512i low = _mm512_slli_epi32(_mm512_loadu_si512(p), 24 - 8 * kWhich);
    return {_mm512_cvtepi32_ps(_mm512_srai_epi32(low, 24))};
  }
  // The first and the second of sixteen bf16 pairs.
  static Vec load_even(const bf16* p) { return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_loadu_si512(p), 16))}; }
  static Vec load_odd(const bf16* p) {
    return {_mm512_castsi512_ps(_mm512_and_si512(_mm512_loadu_si512(p), _mm512_set1_epi32(-65536)))};
  }
  // The first n (0 to 16) values, zero beyond; memory beyond is not touched.
  static Vec load_n(const float* p, int64_t n) { return {_mm512_maskz_loadu_ps(mask_of(n), p)}; }

  void store(float* p) const { _mm512_storeu_ps(p, v); }
  void store(bf16* p) const { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), rounded()); }
  // To f16, nearest even.
  void store_n(f16* p, int64_t n) const {
    const __m256i half = _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    _mm256_mask_storeu_epi16(p, mask_of(n), half);
  }
  // To int8, nearest even. Requires: lanes within its range.
  void store_n(int8_t* p, int64_t n) const {
    _mm_mask_storeu_epi8(p, mask_of(n), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(v)));
  }
  void store_n(float* p, int64_t n) const { _mm512_mask_storeu_ps(p, mask_of(n), v); }
  void store_n(bf16* p, int64_t n) const { _mm256_mask_storeu_epi16(p, mask_of(n), rounded()); }

  static Vec fma(Vec a, Vec b, Vec c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
  static Vec max(Vec a, Vec b) { return {_mm512_max_ps(a.v, b.v)}; }
  static Vec min(Vec a, Vec b) { return {_mm512_min_ps(a.v, b.v)}; }
  static Vec round(Vec a) { return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }
  // 1 / a for normal a with a normal reciprocal, within one unit in the last place.
  static Vec reciprocal(Vec a) {
    const __m512 near = _mm512_rcp14_ps(a.v);
    return {_mm512_fmadd_ps(near, _mm512_fnmadd_ps(a.v, near, _mm512_set1_ps(1.0f)), near)};
  }
  // a between -bound and bound; anything for NaN.
  static Vec bounded(Vec a, float bound) {
    constexpr int kSmallerWithSignOfFirst = 2;
    return {_mm512_range_ps(a.v, _mm512_set1_ps(bound), kSmallerWithSignOfFirst)};
  }
  // 1 / a for normal a with a normal reciprocal, relative error below 2^-14.
  static Vec nearly_reciprocal(Vec a) { return {_mm512_rcp14_ps(a.v)}; }
  // x - floor(x), and a * 2^floor(x) for a near 1.
  static Vec above_floor(Vec x) { return {_mm512_reduce_ps(x.v, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC)}; }
  static Vec scale_by_floor(Vec a, Vec x) { return {_mm512_scalef_ps(a.v, x.v)}; }
  // a * 2^n for integral n in [-126, 128], a near 1.
  static Vec scale_by_power(Vec a, Vec n) { return {_mm512_scalef_ps(a.v, n.v)}; }
  // Lane i of a where low <= first + i < high, else `other`.
  static Vec keep_between(Vec a, int64_t first, int64_t low, int64_t high, Vec other) {
    return {_mm512_mask_blend_ps(static_cast<__mmask16>(mask_of(clamp(high - first)) & ~mask_of(clamp(low - first))),
                                 other.v, a.v)};
  }
  // a where |x| is below `bound` (false for NaN), else b.
  static Vec where_less(Vec x, Vec bound, Vec a, Vec b) {
    return {_mm512_mask_blend_ps(_mm512_cmp_ps_mask(x.v, bound.v, _CMP_LT_OQ), b.v, a.v)};
  }
  static Vec abs(Vec a) { return {_mm512_abs_ps(a.v)}; }
  static Vec lanes() {  // 0, 1, ... 15
    return {_mm512_set_ps(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0)};
  }
  // Eight pairs of `low` and eight of `high` taken apart.
  static void split_pairs(Vec low, Vec high, Vec& even, Vec& odd) {
    const __m512i pick_even = _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
    const __m512i pick_odd = _mm512_set_epi32(31, 29, 27, 25, 23, 21, 19, 17, 15, 13, 11, 9, 7, 5, 3, 1);
    even = {_mm512_permutex2var_ps(low.v, pick_even, high.v)};
    odd = {_mm512_permutex2var_ps(low.v, pick_odd, high.v)};
  }
  static void join_pairs(Vec even, Vec odd, Vec& low, Vec& high) {
    const __m512i first = _mm512_set_epi32(23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    const __m512i second = _mm512_set_epi32(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8);
    low = {_mm512_permutex2var_ps(even.v, first, odd.v)};
    high = {_mm512_permutex2var_ps(even.v, second, odd.v)};
  }
  // Bit i is set where the comparison holds for lane i; never for NaN.
  static uint32_t equal(Vec a, Vec b) { return _mm512_cmp_ps_mask(a.v, b.v, _CMP_EQ_OQ); }
  static uint32_t larger(Vec a, Vec b) { return _mm512_cmp_ps_mask(a.v, b.v, _CMP_GT_OQ); }
  static uint32_t at_least(Vec a, Vec b) { return _mm512_cmp_ps_mask(a.v, b.v, _CMP_GE_OQ); }
  // Lane by lane the one whose bits are the larger number: of magnitudes NaN, then infinity, are the largest.
  static Vec max_bits(Vec a, Vec b) {
    return {_mm512_castsi512_ps(_mm512_max_epu32(_mm512_castps_si512(a.v), _mm512_castps_si512(b.v)))};
  }
  uint32_t largest_bits() const { return _mm512_reduce_max_epu32(_mm512_castps_si512(v)); }
  // To 64 int8, nearest even, saturating; NaN becomes the largest.
  static void store_saturated(const Vec (&all)[4], int8_t* p) {
    _mm512_storeu_si512(p, saturated_bytes(all[0].v, all[1].v, all[2].v, all[3].v));
  }
  float sum() const { return _mm512_reduce_add_ps(v); }
  float largest() const { return _mm512_reduce_max_ps(v); }

 private:
  static int64_t clamp(int64_t n) { return n < 0 ? 0 : n > 16 ? 16 : n; }
  static __mmask16 mask_of(int64_t n) { return static_cast<__mmask16>((1u << n) - 1); }
  __m256i rounded() const {  // to bf16, nearest even; NaN stays NaN
    const __m512i bits = _mm512_castps_si512(v);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i up = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    const __mmask16 nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
    const __m512i quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x400000));
    return _mm512_cvtepi32_epi16(_mm512_srli_epi32(_mm512_mask_blend_epi32(nan, up, quiet), 16));
  }
};

inline Vec operator+(Vec a, Vec b) { return {_mm512_add_ps(a.v, b.v)}; }
inline Vec operator-(Vec a, Vec b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline Vec operator*(Vec a, Vec b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline Vec operator/(Vec a, Vec b) { return {_mm512_div_ps(a.v, b.v)}; }

}  // namespace millrace::avx512
#pragma GCC pop_options
