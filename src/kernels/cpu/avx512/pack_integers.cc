#include <immintrin.h>

#include "kernels/cpu/avx512/transpose.h"
#include "kernels/cpu/avx512/vec.h"
#include "kernels/cpu/pack_impls.h"

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")
namespace millrace::avx512 {
namespace {

template <class W>
__m512i largest_of(const W* w, int64_t end) {
  __m512i largest = _mm512_setzero_si512();
  for (int64_t k = 0; k < end; k += 16) {
    const __m512i bits = _mm512_castps_si512(Vec::load(w + k).v);
    largest = _mm512_max_epu32(largest, _mm512_and_si512(bits, _mm512_set1_epi32(0x7fffffff)));
  }
  return largest;
}

template <class W>
uint32_t largest_in(const W* w, int64_t K) {
  const int64_t end = K / 16 * 16;
  uint32_t largest = _mm512_reduce_max_epu32(largest_of(w, end));
  for (int64_t k = end; k < K; ++k) {
    const uint32_t bits = std::bit_cast<uint32_t>(to_float(w[k])) & 0x7fffffff;
    if (bits > largest) largest = bits;
  }
  return largest;
}

template <class W>
void scale(const W* w, int64_t end, float factor, int8_t* values) {
  for (int64_t k = 0; k < end; k += 16) {
    const __m512i q = _mm512_cvtps_epi32(_mm512_mul_ps(Vec::load(w + k).v, _mm512_set1_ps(factor)));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(values + k), _mm512_cvtepi32_epi8(q));
  }
}

// 64 values of sixteen rows, K apart; afterwards rows[i] has values 4 i to 4 i + 3 of each row.
inline __attribute__((always_inline)) void load_transposed(const int8_t* values, int64_t K, __m512i (&rows)[16]) {
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) rows[i] = _mm512_loadu_si512(values + i * K);
  transpose(rows);
}

inline __m512i words(const uint8_t* values) {
  const __m512i wide = _mm512_cvtepu8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(values)));
  return _mm512_and_si512(wide, _mm512_set1_epi16(15));
}

}  // namespace

uint32_t largest_magnitude(const void* w, DType dtype, int64_t K) {
  if (dtype == DType::kF32) return largest_in(static_cast<const float*>(w), K);
  if (dtype == DType::kBf16) return largest_in(static_cast<const bf16*>(w), K);
  return largest_in(static_cast<const f16*>(w), K);
}

int64_t scale_to_int8(const void* w, DType dtype, int64_t K, float factor, int8_t* values) {
  const int64_t end = K / 16 * 16;
  if (dtype == DType::kF32)
    scale(static_cast<const float*>(w), end, factor, values);
  else if (dtype == DType::kBf16)
    scale(static_cast<const bf16*>(w), end, factor, values);
  else
    scale(static_cast<const f16*>(w), end, factor, values);
  return end;
}

int64_t pack_w8a8_panel(const int8_t* values, int64_t K, std::byte* panel, int32_t* sums) {
  const int64_t end = K / 64 * 64;
  __m512i sum = _mm512_setzero_si512();
  for (int64_t k = 0; k < end; k += 64) {
    __m512i rows[16];
    load_transposed(values + k, K, rows);
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) {
      _mm512_storeu_si512(panel + k * 16 + i * 64, rows[i]);
      sum = _mm512_dpbusd_epi32(sum, _mm512_set1_epi8(1), rows[i]);
    }
  }
  _mm512_storeu_si512(sums, sum);
  return end;
}

void pack_int4_chunk(const uint8_t* values, std::byte* to) {
  const __m512i low = _mm512_or_si512(words(values), _mm512_slli_epi16(words(values + 32), 4));
  const __m512i high =
      _mm512_or_si512(_mm512_slli_epi16(words(values + 64), 8), _mm512_slli_epi16(words(values + 96), 12));
  _mm512_storeu_si512(to, _mm512_or_si512(low, high));
}

}  // namespace millrace::avx512
#pragma GCC pop_options
