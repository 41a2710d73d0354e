// Rows of x as int8 (kernels/gemm_w8a8.h).
#pragma once
#include <immintrin.h>

#include <algorithm>

#include "kernels/cpu/avx512/vec.h"
#include "kernels/cpu/gemm_w8a8_impls.h"

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")
namespace millrace::avx512 {

// Sixteen bf16 as floats, zero outside the mask.
inline __m512 widened(const void* at, __mmask16 mask) {
  const __m256i words = _mm256_maskz_loadu_epi16(mask, at);
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(words), 16));
}

// Sixteen elements of a row from k on, zero from K on.
inline __m512 load_activations(const GemmW8A8Args& a, int64_t row, int64_t k) {
  const int64_t left = a.K - k, at = row * a.x_stride + k;
  const auto mask = static_cast<__mmask16>(left >= 16 ? 0xffff : left <= 0 ? 0 : (1u << left) - 1);
  if (a.x_dtype == DType::kF32) return _mm512_maskz_loadu_ps(mask, static_cast<const float*>(a.x) + at);
  return widened(static_cast<const bf16*>(a.x) + at, mask);
}

// The largest |x| of a row as the bits of a float.
inline uint32_t largest_bits(const float* x, int64_t K) {
  __m512i largest[2] = {};
  for (int64_t k = 0; k < K; k += 32)
    for (int i = 0; i < 2; ++i) {
      const int64_t left = K - k - 16 * i;
      const auto mask = static_cast<__mmask16>(left >= 16 ? 0xffff : left <= 0 ? 0 : (1u << left) - 1);
      const __m512i bits = _mm512_maskz_loadu_epi32(mask, x + k + 16 * i);
      largest[i] = _mm512_max_epu32(largest[i], _mm512_and_si512(bits, _mm512_set1_epi32(0x7fffffff)));
    }
  return _mm512_reduce_max_epu32(_mm512_max_epu32(largest[0], largest[1]));
}
inline uint32_t largest_bits(const bf16* x, int64_t K) {
  __m512i largest[2] = {};
  for (int64_t k = 0; k < K; k += 64)
    for (int i = 0; i < 2; ++i) {
      const int64_t left = K - k - 32 * i;
      const auto mask = static_cast<__mmask32>(left >= 32 ? 0xffffffffu : left <= 0 ? 0 : (1u << left) - 1);
      const __m512i bits = _mm512_maskz_loadu_epi16(mask, x + k + 32 * i);
      largest[i] = _mm512_max_epu16(largest[i], _mm512_and_si512(bits, _mm512_set1_epi16(0x7fff)));
    }
  const __m512i pairs = _mm512_max_epu16(largest[0], largest[1]);
  return _mm512_reduce_max_epu32(
      _mm512_max_epu32(_mm512_slli_epi32(pairs, 16), _mm512_and_si512(pairs, _mm512_set1_epi32(-65536))));
}

inline RowScale row_scale(const GemmW8A8Args& a, int64_t row) {
  if (a.x_scale > 0) return RowScale::of(a.x_scale, 0);
  const int64_t at = row * a.x_stride;
  const uint32_t largest = a.x_dtype == DType::kF32 ? largest_bits(static_cast<const float*>(a.x) + at, a.K)
                                                    : largest_bits(static_cast<const bf16*>(a.x) + at, a.K);
  return RowScale::of(0, largest, a.x_digits);
}

// 64 elements of a row.
struct Elements {
  __m512 x[4];
};
// From k on.
inline Elements elements(const GemmW8A8Args& a, int64_t row, int64_t k) {
  return {load_activations(a, row, k), load_activations(a, row, k + 16), load_activations(a, row, k + 32),
          load_activations(a, row, k + 48)};
}

// Their bytes; zeros where the row has no factor.
inline __m512i quantized(const Elements& row, float factor) {
  if (factor == 0) return _mm512_setzero_si512();
  const __m512 factors = _mm512_set1_ps(factor);
  return saturated_bytes(_mm512_mul_ps(row.x[0], factors), _mm512_mul_ps(row.x[1], factors),
                         _mm512_mul_ps(row.x[2], factors), _mm512_mul_ps(row.x[3], factors));
}

// Their two digits.
struct TwoDigits {
  __m512i high, low;
};
inline TwoDigits two_digits(const Elements& row, float factor) {
  if (factor == 0) return TwoDigits{};
  __m512i p[4];
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) p[i] = _mm512_cvtps_epi32(_mm512_mul_ps(row.x[i], _mm512_set1_ps(factor)));
  const __m512i words[] = {_mm512_packs_epi32(p[0], p[1]), _mm512_packs_epi32(p[2], p[3])};
  const auto high = [](__m512i w) { return _mm512_srai_epi16(_mm512_add_epi16(w, _mm512_set1_epi16(128)), 8); };
  const auto low = [](__m512i w) { return _mm512_srai_epi16(_mm512_slli_epi16(w, 8), 8); };
  return {packed_bytes(high(words[0]), high(words[1])), packed_bytes(low(words[0]), low(words[1]))};
}

// The row after `row`, 64 elements from k on: its largest is looked for next.
inline __attribute__((always_inline)) void fetch_next(const GemmW8A8Args& a, int64_t row, int64_t k) {
  const int64_t bytes = dtype_bytes(a.x_dtype);
  const auto* next = static_cast<const char*>(a.x) + (std::min(row + 1, a.M - 1) * a.x_stride + k) * bytes;
  for (int64_t line = 0; line < bytes; ++line) _mm_prefetch(next + 64 * line, _MM_HINT_T0);
}

// store(k, 64 int8) for k from 0 to padded_k; returns the row's scale.
template <class Store>
inline float quantize_row(const GemmW8A8Args& a, int64_t row, int64_t padded_k, const Store& store) {
  if (a.x_dtype == DType::kI8) {
    const auto* x = static_cast<const int8_t*>(a.x) + row * a.x_stride;
    for (int64_t k = 0; k < padded_k; k += 64) store(k, _mm512_loadu_si512(x + k));
    return made_scale(x, a.K);
  }
  const RowScale scale = row_scale(a, row);
  for (int64_t k = 0; k < padded_k; k += 64) {
    fetch_next(a, row, k);
    store(k, quantized(elements(a, row, k), scale.factor));
  }
  return scale.scale;
}

// store(k, 64 high digits, 64 low digits) for k from 0 to padded_k; returns the row's scale.
template <class Store>
inline float quantize_row_to_digits(const GemmW8A8Args& a, int64_t row, int64_t padded_k, const Store& store) {
  const RowScale scale = row_scale(a, row);
  for (int64_t k = 0; k < padded_k; k += 64) {
    fetch_next(a, row, k);
    const TwoDigits p = two_digits(elements(a, row, k), scale.factor);
    store(k, p.high, p.low);
  }
  return scale.scale;
}

}  // namespace millrace::avx512
#pragma GCC pop_options
