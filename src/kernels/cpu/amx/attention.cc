// Paged attention for bf16 and int8 caches on AMX tiles. Sixteen query rows are a tile's rows; a row's sums do not
// depend on the other fifteen, so decode and prefill agree.
#include <immintrin.h>

#include <algorithm>
#include <cmath>

#include "kernels/cpu/amx/tiles.h"
#include "kernels/cpu/attention_impls.h"
#include "kernels/cpu/avx512/vec.h"
#include "kernels/parallel.h"

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx2,bmi2,fma,f16c")
namespace millrace::amx {
namespace {

using avx512::Vec;
#include "kernels/cpu/amx/power.inl"

#include "kernels/cpu/simd/math.inl"

#include "kernels/cpu/simd/attention.inl"

// Lane r of the result combines the sixteen lanes of values[r], in the same order for every r.
template <class Combine>
inline __m512 reduce_each(const __m512 (&values)[16], const Combine& combine) {
  __m512 quads[4];  // lane i of four: row 4q + i
  for (int q = 0; q < 4; ++q) {
    const __m512* v = values + 4 * q;
    const __m512 ab = combine(_mm512_unpacklo_ps(v[0], v[1]), _mm512_unpackhi_ps(v[0], v[1]));
    const __m512 cd = combine(_mm512_unpacklo_ps(v[2], v[3]), _mm512_unpackhi_ps(v[2], v[3]));
    quads[q] = combine(_mm512_shuffle_ps(ab, cd, 0x44), _mm512_shuffle_ps(ab, cd, 0xee));
  }
  const auto halves = [&](__m512 a, __m512 b) {
    return combine(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd));
  };
  return halves(halves(quads[0], quads[1]), halves(quads[2], quads[3]));
}

#include "kernels/cpu/amx/attention_bf16.inl"

#include "kernels/cpu/amx/attention_int8.inl"

}  // namespace

void paged_attention(const AttentionArgs& a) {
  if (a.layout.dtype == DType::kBf16) return attend_bf16(a);
  if (a.layout.dtype == DType::kI8) return attend_with<Int8Tiles>(a);
  avx512::paged_attention(a);
}

}  // namespace millrace::amx
#pragma GCC pop_options
