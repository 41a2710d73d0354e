// Row operations for this instruction set: the bodies of simd/ compiled with its Vec.
#include "kernels/cpu/rows.h"

#include <immintrin.h>

#include <cmath>
#include <cstring>

#include "kernels/cpu/avx512/vec.h"
#include "kernels/cpu/gemm_w8a8_impls.h"

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")
namespace millrace::avx512 {
namespace {

// Sixteen 64-bit products of 32-bit lanes, as their high and low words.
inline void multiply_wide(__m512i x, uint32_t by, __m512i& high, __m512i& low) {
  const __m512i factor = _mm512_set1_epi64(by);
  const __m512i even = _mm512_mul_epu32(x, factor), odd = _mm512_mul_epu32(_mm512_srli_epi64(x, 32), factor);
  constexpr __mmask16 kOdd = 0xaaaa;
  high = _mm512_mask_blend_epi32(kOdd, _mm512_srli_epi64(even, 32), odd);
  low = _mm512_mask_blend_epi32(kOdd, even, _mm512_slli_epi64(odd, 32));
}

// Philox4x32-10 of sixteen neighbouring counters at a time; the first of a multiple of sixteen.
void noise(uint64_t seed, uint64_t position, int64_t first, int64_t n, uint32_t* bits) {
  const __m512i lanes = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
  for (int64_t i = 0; i < n; i += 64) {
    const auto counter = static_cast<uint64_t>(first + i) / 4;  // its low word does not overflow within sixteen
    __m512i x[4] = {_mm512_add_epi32(_mm512_set1_epi32(static_cast<int>(counter)), lanes),
                    _mm512_set1_epi32(static_cast<int>(counter >> 32)), _mm512_set1_epi32(static_cast<int>(position)),
                    _mm512_set1_epi32(static_cast<int>(position >> 32))};
    auto k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
    for (int round = 0; round < 10; ++round) {
      __m512i high0, low0, high1, low1;
      multiply_wide(x[0], 0xD2511F53u, high0, low0);
      multiply_wide(x[2], 0xCD9E8D57u, high1, low1);
      x[0] = _mm512_xor_si512(_mm512_xor_si512(high1, x[1]), _mm512_set1_epi32(static_cast<int>(k0)));
      x[1] = low1;
      x[2] = _mm512_xor_si512(_mm512_xor_si512(high0, x[3]), _mm512_set1_epi32(static_cast<int>(k1)));
      x[3] = low0;
      k0 += 0x9E3779B9u;
      k1 += 0xBB67AE85u;
    }
    for (int word = 0; word < 4; ++word)
      _mm512_i32scatter_epi32(bits + i + word, _mm512_slli_epi32(lanes, 2), x[word], 4);
  }
}

}  // namespace

#include "kernels/cpu/simd/math.inl"

#include "kernels/cpu/simd/activations.inl"
#include "kernels/cpu/simd/cast_rows.inl"
#include "kernels/cpu/simd/expert_rows.inl"
#include "kernels/cpu/simd/glu.inl"
#include "kernels/cpu/simd/logits.inl"
#include "kernels/cpu/simd/norm.inl"
#include "kernels/cpu/simd/rope.inl"
}  // namespace millrace::avx512
#pragma GCC pop_options
