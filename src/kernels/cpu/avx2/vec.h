// Sixteen floats in two AVX2 registers. Same interface as avx512/vec.h, for the bodies in simd/.
#pragma once
#include <immintrin.h>

#include <algorithm>
#include <cstdint>

#include "base/dtype.h"

// gcc warns about its own headers (bug 105593) and about vectors passed between functions that raise the ISA alike.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wpsabi"
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
namespace millrace::avx2 {

struct Vec {
  __m256 a, b;

  static Vec zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
  static Vec set(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
  static Vec load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
  static Vec load(const f16* p) { return {_mm256_cvtph_ps(half(p)), _mm256_cvtph_ps(half(p + 8))}; }
  static Vec load(const bf16* p) { return {widen(half(p)), widen(half(p + 8))}; }
  // Element kWhich of each of sixteen fours.
  template <int kWhich>
  static Vec load_of_four(const int8_t* p) {
    return {of_four<kWhich>(whole(p)), of_four<kWhich>(whole(p + 32))};
  }
  // The first and the second of sixteen bf16 pairs.
  static Vec load_even(const bf16* p) { return {shifted(p), shifted(p + 16)}; }
  static Vec load_odd(const bf16* p) { return {masked(p), masked(p + 16)}; }
  // The first n (0 to 16) values, zero beyond; memory beyond is not touched.
  static Vec load_n(const float* p, int64_t n) {
    return {_mm256_maskload_ps(p, mask_of(n)), _mm256_maskload_ps(p + 8, mask_of(n - 8))};
  }

  void store(float* p) const {
    _mm256_storeu_ps(p, a);
    _mm256_storeu_ps(p + 8, b);
  }
  void store(bf16* p) const { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), rounded()); }
  void store_n(float* p, int64_t n) const {
    _mm256_maskstore_ps(p, mask_of(n), a);
    _mm256_maskstore_ps(p + 8, mask_of(n - 8), b);
  }
  // To f16, nearest even.
  void store_n(f16* p, int64_t n) const {
    f16 all[16];
    constexpr int kNearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
    _mm_storeu_si128(reinterpret_cast<__m128i*>(all), _mm256_cvtps_ph(a, kNearest));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(all + 8), _mm256_cvtps_ph(b, kNearest));
    for (int64_t i = 0; i < n; ++i) p[i] = all[i];
  }
  // To int8, nearest even. Requires: lanes within its range.
  void store_n(int8_t* p, int64_t n) const {
    alignas(16) int8_t all[16];
    const __m256i words = _mm256_packs_epi32(_mm256_cvtps_epi32(a), _mm256_cvtps_epi32(b));
    const __m256i ordered = _mm256_permute4x64_epi64(words, 0xd8);
    _mm_store_si128(reinterpret_cast<__m128i*>(all),
                    _mm_packs_epi16(_mm256_castsi256_si128(ordered), _mm256_extracti128_si256(ordered, 1)));
    for (int64_t i = 0; i < n; ++i) p[i] = all[i];
  }
  void store_n(bf16* p, int64_t n) const {
    alignas(32) bf16 all[16];
    store(all);
    for (int64_t i = 0; i < n; ++i) p[i] = all[i];
  }

  static Vec fma(Vec x, Vec y, Vec z) { return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)}; }
  static Vec max(Vec x, Vec y) { return {_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)}; }
  static Vec min(Vec x, Vec y) { return {_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b)}; }
  static Vec round(Vec x) {
    constexpr int kNearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
    return {_mm256_round_ps(x.a, kNearest), _mm256_round_ps(x.b, kNearest)};
  }
  // 1 / x for normal x with a normal reciprocal.
  static Vec reciprocal(Vec x) {
    const __m256 one = _mm256_set1_ps(1.0f);
    return {_mm256_div_ps(one, x.a), _mm256_div_ps(one, x.b)};
  }
  // x between -bound and bound.
  static Vec bounded(Vec x, float bound) { return max(set(-bound), min(set(bound), x)); }
  static Vec nearly_reciprocal(Vec x) { return reciprocal(x); }
  // x - floor(x), and y * 2^floor(x) for floor(x) in [-126, 128], y near 1.
  static Vec above_floor(Vec x) {
    return {_mm256_sub_ps(x.a, _mm256_floor_ps(x.a)), _mm256_sub_ps(x.b, _mm256_floor_ps(x.b))};
  }
  static Vec scale_by_floor(Vec y, Vec x) { return scale_by_power(y, {_mm256_floor_ps(x.a), _mm256_floor_ps(x.b)}); }
  // x * 2^n for integral n in [-126, 128], x near 1.
  static Vec scale_by_power(Vec x, Vec n) { return {scaled(x.a, n.a), scaled(x.b, n.b)}; }
  // Lane i of x where low <= first + i < high, else `other`.
  static Vec keep_between(Vec x, int64_t first, int64_t low, int64_t high, Vec other) {
    const Vec position = lanes(), from = set(static_cast<float>(clamp(low - first))),
              to = set(static_cast<float>(clamp(high - first)));
    const auto pick = [](__m256 at, __m256 begin, __m256 end, __m256 inside, __m256 outside) {
      const __m256 in = _mm256_and_ps(_mm256_cmp_ps(at, begin, _CMP_GE_OQ), _mm256_cmp_ps(at, end, _CMP_LT_OQ));
      return _mm256_blendv_ps(outside, inside, in);
    };
    return {pick(position.a, from.a, to.a, x.a, other.a), pick(position.b, from.b, to.b, x.b, other.b)};
  }
  // a where x < bound (false for NaN), else b.
  static Vec where_less(Vec x, Vec bound, Vec yes, Vec no) {
    return {_mm256_blendv_ps(no.a, yes.a, _mm256_cmp_ps(x.a, bound.a, _CMP_LT_OQ)),
            _mm256_blendv_ps(no.b, yes.b, _mm256_cmp_ps(x.b, bound.b, _CMP_LT_OQ))};
  }
  static Vec abs(Vec x) {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    return {_mm256_andnot_ps(sign, x.a), _mm256_andnot_ps(sign, x.b)};
  }
  static Vec lanes() {  // 0, 1, ... 15
    return {_mm256_set_ps(7, 6, 5, 4, 3, 2, 1, 0), _mm256_set_ps(15, 14, 13, 12, 11, 10, 9, 8)};
  }
  // Eight pairs of `low` and eight of `high` taken apart.
  static void split_pairs(Vec low, Vec high, Vec& even, Vec& odd) {
    even = {every_other<0x88>(low.a, low.b), every_other<0x88>(high.a, high.b)};
    odd = {every_other<0xdd>(low.a, low.b), every_other<0xdd>(high.a, high.b)};
  }
  static void join_pairs(Vec even, Vec odd, Vec& low, Vec& high) {
    low = interleaved(even.a, odd.a);
    high = interleaved(even.b, odd.b);
  }
  // Bit i is set where the comparison holds for lane i; never for NaN.
  static uint32_t equal(Vec x, Vec y) { return compared<_CMP_EQ_OQ>(x, y); }
  static uint32_t larger(Vec x, Vec y) { return compared<_CMP_GT_OQ>(x, y); }
  static uint32_t at_least(Vec x, Vec y) { return compared<_CMP_GE_OQ>(x, y); }
  // Lane by lane the one whose bits are the larger number: of magnitudes NaN, then infinity, are the largest.
  static Vec max_bits(Vec x, Vec y) { return {larger_of(x.a, y.a), larger_of(x.b, y.b)}; }
  uint32_t largest_bits() const {
    alignas(32) uint32_t bits[8];
    _mm256_store_si256(reinterpret_cast<__m256i*>(bits), _mm256_castps_si256(larger_of(a, b)));
    return *std::max_element(bits, bits + 8);
  }
  // To 64 int8, nearest even, saturating; NaN becomes the largest.
  static void store_saturated(const Vec (&all)[4], int8_t* p) {
    for (int i = 0; i < 4; ++i) max(min(all[i], set(127)), set(-128)).store_n(p + 16 * i, 16);
  }
  float sum() const {
    const __m256 eight = _mm256_add_ps(a, b);
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    four = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(four, _mm_movehdup_ps(four)));
  }
  float largest() const {
    const __m256 eight = _mm256_max_ps(a, b);
    __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    four = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(four, _mm_movehdup_ps(four)));
  }

 private:
  static __m256 larger_of(__m256 x, __m256 y) {
    return _mm256_castsi256_ps(_mm256_max_epu32(_mm256_castps_si256(x), _mm256_castps_si256(y)));
  }
  static int64_t clamp(int64_t n) { return n < 0 ? 0 : n > 16 ? 16 : n; }
  static __m128i half(const void* p) { return _mm_loadu_si128(static_cast<const __m128i*>(p)); }
  static __m256 widen(__m128i x) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(x), 16)); }
  static __m256i whole(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
  template <int kWhich>
  static __m256 of_four(__m256i x) {
    return _mm256_cvtepi32_ps(_mm256_srai_epi32(_mm256_slli_epi32(x, 24 - 8 * kWhich), 24));
  }
  static __m256 shifted(const void* p) { return _mm256_castsi256_ps(_mm256_slli_epi32(whole(p), 16)); }
  static __m256 masked(const void* p) {
    return _mm256_castsi256_ps(_mm256_and_si256(whole(p), _mm256_set1_epi32(-65536)));
  }
  static __m256i mask_of(int64_t n) {  // lanes below n
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)), _mm256_set_epi32(7, 6, 5, 4, 3, 2, 1, 0));
  }
  static __m256 power_of_two(__m256i n) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(n, _mm256_set1_epi32(127)), 23));
  }
  static __m256 scaled(__m256 x, __m256 n) {  // in two halves: 2^128 and 2^-127 themselves are not normal floats
    const __m256i whole = _mm256_cvtps_epi32(n), half = _mm256_srai_epi32(whole, 1);
    return _mm256_mul_ps(_mm256_mul_ps(x, power_of_two(half)), power_of_two(_mm256_sub_epi32(whole, half)));
  }
  template <int kHow>
  static uint32_t compared(Vec x, Vec y) {
    const int low = _mm256_movemask_ps(_mm256_cmp_ps(x.a, y.a, kHow));
    const int high = _mm256_movemask_ps(_mm256_cmp_ps(x.b, y.b, kHow));
    return static_cast<uint32_t>(low | high << 8);
  }
  template <int kPick>
  static __m256 every_other(__m256 x, __m256 y) {
    const __m256 mixed = _mm256_shuffle_ps(x, y, kPick);  // x0 x2 y0 y2 | x4 x6 y4 y6
    return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(mixed), 0xd8));
  }
  static Vec interleaved(__m256 x, __m256 y) {
    const __m256 low = _mm256_unpacklo_ps(x, y), high = _mm256_unpackhi_ps(x, y);
    return {_mm256_permute2f128_ps(low, high, 0x20), _mm256_permute2f128_ps(low, high, 0x31)};
  }
  static __m256i rounded_bits(__m256 x) {  // bf16 in the low half of each lane, nearest even; NaN stays NaN
    const __m256i bits = _mm256_castps_si256(x);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i up = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
    const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
    const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
    return _mm256_srli_epi32(_mm256_blendv_epi8(up, quiet, nan), 16);
  }
  __m256i rounded() const {
    return _mm256_permute4x64_epi64(_mm256_packus_epi32(rounded_bits(a), rounded_bits(b)), 0xd8);
  }
};

inline Vec operator+(Vec x, Vec y) { return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)}; }
inline Vec operator-(Vec x, Vec y) { return {_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)}; }
inline Vec operator*(Vec x, Vec y) { return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)}; }
inline Vec operator/(Vec x, Vec y) { return {_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)}; }

}  // namespace millrace::avx2
#pragma GCC pop_options
