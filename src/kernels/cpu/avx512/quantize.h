// Rows of x as int8 (kernels/gemm_w8a8.h).
#pragma once
#include <immintrin.h>

#include "kernels/cpu/avx512/vec.h"
#include "kernels/cpu/gemm_w8a8_impls.h"

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")
namespace millrace::avx512 {

// Sixteen elements of a row from k on, zero from K on.
inline __m512 load_activations(const GemmW8A8Args& a, int64_t row, int64_t k) {
  const int64_t left = a.K - k, at = row * a.x_stride + k;
  const auto mask = static_cast<__mmask16>(left >= 16 ? 0xffff : left <= 0 ? 0 : (1u << left) - 1);
  if (a.x_dtype == DType::kF32) return _mm512_maskz_loadu_ps(mask, static_cast<const float*>(a.x) + at);
  const __m256i words = _mm256_maskz_loadu_epi16(mask, static_cast<const bf16*>(a.x) + at);
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(words), 16));
}

inline RowScale row_scale(const GemmW8A8Args& a, int64_t row) {
  if (a.x_scale > 0) return RowScale::of(a, 0);
  __m512i largest = _mm512_setzero_si512();
  for (int64_t k = 0; k < a.K; k += 16)
    largest = _mm512_max_epu32(
        largest, _mm512_and_si512(_mm512_castps_si512(load_activations(a, row, k)), _mm512_set1_epi32(0x7fffffff)));
  return RowScale::of(a, _mm512_reduce_max_epu32(largest));
}

// store(k, sixteen int8) for k from 0 to padded_k; returns the row's scale.
template <class Store>
inline float quantize_row(const GemmW8A8Args& a, int64_t row, int64_t padded_k, const Store& store) {
  const RowScale scale = row_scale(a, row);
  const __m512 factor = _mm512_set1_ps(scale.factor), low = _mm512_set1_ps(-128), high = _mm512_set1_ps(127);
  for (int64_t k = 0; k < padded_k; k += 16) {
    const __m512 x = scale.factor == 0 ? _mm512_setzero_ps() : load_activations(a, row, k);
    const __m512 p = _mm512_max_ps(_mm512_min_ps(_mm512_mul_ps(x, factor), high), low);
    store(k, _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(p)));
  }
  return scale.scale;
}

}  // namespace millrace::avx512
#pragma GCC pop_options
