// Integer weights to bf16 along k, in registers (layouts: kernels/gemm_a16.h).
#pragma once
#include <immintrin.h>

#include <cstring>

#include "kernels/cpu/avx512/vec.h"
#include "kernels/cpu/gemm_a16_impls.h"

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx2,fma,f16c")
namespace millrace::avx512 {

// 32 of k of a column: bf16 pairs from sixteen even and sixteen odd int8. Eight bits are exact in bf16.
inline __m512i unpack_int8_unit(const std::byte* at) {
  const auto* bytes = reinterpret_cast<const __m128i*>(at);
  const __m512 even = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(bytes)));
  const __m512 odd = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(bytes + 1)));
  const __m512i low = _mm512_srli_epi32(_mm512_castps_si512(even), 16);
  constexpr int kSelect = 0xea;  // (odd & mask) | low
  return _mm512_ternarylogic_epi32(_mm512_castps_si512(odd), _mm512_set1_epi32(-65536), low, kSelect);
}

// What the sixteen nibbles of a column stand for under one scale, twice.
inline __m512i int4_table(const std::byte* scale_word) {
  int word;
  std::memcpy(&word, scale_word, 4);
  const __m512i all = _mm512_set1_epi32(word);
  const __m512i zero_mask = _mm512_set1_epi32(static_cast<int>(kZeroMask));
  const __m512 scale = _mm512_castsi512_ps(_mm512_andnot_si512(zero_mask, all));
  const __m512 zero = _mm512_cvtepi32_ps(_mm512_and_si512(all, zero_mask));
  const __m256bh half = _mm512_cvtneps_pbh(_mm512_mul_ps(_mm512_sub_ps(Vec::lanes().v, zero), scale));
  return _mm512_broadcast_i64x4(reinterpret_cast<__m256i>(half));
}

// 128 of k of a column as four units; `scales` words, 64 bytes apart.
template <int kScales>
inline void unpack_int4_units(const std::byte* column, const std::byte* scale_words, __m512i (&units)[4]) {
  __m512i words = _mm512_loadu_si512(column), table = int4_table(scale_words);
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    if (i > 0 && i * kScales % 4 == 0) table = int4_table(scale_words + i * kScales / 4 * 64);
    units[i] = _mm512_permutexvar_epi16(i > 0 ? _mm512_srli_epi16(words, 4 * i) : words, table);
  }
}

}  // namespace millrace::avx512
#pragma GCC pop_options
