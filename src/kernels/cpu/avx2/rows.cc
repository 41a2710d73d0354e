// Row operations for this instruction set: the bodies of simd/ compiled with its Vec.
#include "kernels/cpu/rows.h"

#include <immintrin.h>

#include <cmath>
#include <cstring>

#include "kernels/cpu/avx2/vec.h"
#include "kernels/cpu/gemm_w8a8_impls.h"

#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
namespace millrace::avx2 {
namespace {

using portable::contenders;

// sum + terms where value >= bound, else sum; never for NaN.
inline Vec add_where_at_least(Vec sum, Vec terms, Vec value, Vec bound) {
  const auto part = [](__m256 total, __m256 term, __m256 x, __m256 least) {
    return _mm256_add_ps(total, _mm256_and_ps(term, _mm256_cmp_ps(x, least, _CMP_GE_OQ)));
  };
  return {part(sum.a, terms.a, value.a, bound.a), part(sum.b, terms.b, value.b, bound.b)};
}

// The lanes that `hits` names, together, and their ids: ids[lane], or first + lane.
inline void store_hits(uint32_t hits, Vec values, const int32_t* ids, int64_t first, float* to, int32_t* ids_to) {
  float lanes[16];
  int32_t lane_ids[16];
  values.store(lanes);
  for (int lane = 0; lane < 16; ++lane) lane_ids[lane] = static_cast<int32_t>(first) + lane;
  for (int64_t i = 0; hits; hits &= hits - 1, ++i) {
    const int lane = __builtin_ctz(hits);
    to[i] = lanes[lane];
    ids_to[i] = ids ? ids[lane] : lane_ids[lane];
  }
}

}  // namespace

#include "kernels/cpu/simd/math.inl"

namespace {

// 2^x for x <= 0; 0 below -126: as exact as the function for [0, 1], by default about two units in the last place.
template <Vec (*kWithinOne)(Vec) = power_within_one>
inline Vec power_of_two(Vec x) {
  const Vec bounded = Vec::max(x, Vec::set(-126.0f));
  const Vec n = Vec::round(bounded - Vec::set(0.5f));  // x - n in [0, 1]
  return Vec::where_less(x, Vec::set(-126.0f), Vec::zero(), Vec::scale_by_power(kWithinOne(bounded - n), n));
}

}  // namespace

#include "kernels/cpu/simd/activations.inl"
#include "kernels/cpu/simd/cast_rows.inl"
#include "kernels/cpu/simd/expert_rows.inl"
#include "kernels/cpu/simd/glu.inl"
#include "kernels/cpu/simd/logits.inl"
#include "kernels/cpu/simd/norm.inl"
#include "kernels/cpu/simd/rope.inl"
}  // namespace millrace::avx2
#pragma GCC pop_options
