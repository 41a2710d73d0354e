// Paged attention over a bf16 cache with vdpbf16ps: queries and weights are rounded to bf16, pairs of elements and
// pairs of positions are multiplied, sums are float32. What a row's weights are divided by is the sum of the rounded
// ones.
#include <immintrin.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <utility>

#include "kernels/cpu/attention_impls.h"
#include "kernels/cpu/avx512/vec.h"
#include "kernels/parallel.h"

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx2,fma,f16c")
namespace millrace::avx512 {
namespace {
#include "kernels/cpu/simd/math.inl"

#include "kernels/cpu/avx512/power.inl"

#include "kernels/cpu/simd/attention.inl"

#include "kernels/cpu/avx512/attention_dwords.inl"

// Pairs of bf16. Sums and products are float32.
struct Pairs {
  using Element = bf16;
  struct More {};
  using Work = DwordWork<Pairs>;
  static constexpr int kDigits = 1, kMoreQueries = 0;

  static __m512i product(__m512i sums, uint32_t pair, __m512i line) {
    const __m512i all = _mm512_set1_epi32(static_cast<int>(pair));
    return _mm512_castps_si512(
        _mm512_dpbf16_ps(_mm512_castsi512_ps(sums), reinterpret_cast<__m512bh>(all), reinterpret_cast<__m512bh>(line)));
  }
  static __m256i rounded(Vec x) { return reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(x.v)); }

  static void prepare(Work& w) {
    for (int r = 0; r < w.rows; ++r)
      for (int64_t d = 0; d < w.padded; d += 16)
        _mm256_store_si256(reinterpret_cast<__m256i*>(w.queries[r] + d / 2), rounded(Vec::load(w.q[r] + d)));
  }
  static void weigh(Work& w, int64_t tile) {
    for (int r = 0; r < w.rows; ++r) w.keep[r] = weigh_one(w, r, tile);
  }
  static float weigh_one(Work& w, int r, int64_t tile) {
    return weigh_row(
        w, r, tile, [&](int i) { return Vec::load(reinterpret_cast<const float*>(w.products[r]) + 16 * i); },
        [](Vec x) { return power_of_two<nearly_power_within_one>(x * Vec::set(kLog2E)); },
        [&](const Vec(&weights)[kTileVecs]) {
          Vec total = Vec::zero();
#pragma GCC unroll 4
          for (int i = 0; i < kTileVecs; ++i) {
            const __m256i pairs = rounded(weights[i]);
            _mm256_store_si256(reinterpret_cast<__m256i*>(w.weight_dwords[r] + 8 * i), pairs);
            total = total + Vec{_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(pairs), 16))};
          }
          return total;
        });
  }

  // A pair of positions' values, those outside the span as zeros: nobody need have written them.
  static __m512i seen(__m512i pairs, int64_t position, Visible span) {
    if (position < span.begin) return _mm512_and_si512(pairs, _mm512_set1_epi32(-65536));
    if (position + 1 == span.end) return _mm512_and_si512(pairs, _mm512_set1_epi32(65535));
    return pairs;
  }
  static __m512i start(const Work& w, int r, int64_t d) {
    return _mm512_castps_si512((Vec::load(w.sums[r] + d) * Vec::set(w.keep[r])).v);
  }
  template <int kRows, int kCount>
  static bool finish(Work& w, int row, int64_t d, bool checked, const __m512i (&sums)[kRows][kCount]) {
    Vec all[kRows][kCount];
#pragma GCC unroll 32
    for (int i = 0; i < kRows * kCount; ++i)
      all[i / kCount][i % kCount] = {_mm512_castsi512_ps(sums[i / kCount][i % kCount])};
    if (checked && !all_finite(all)) return false;
#pragma GCC unroll 32
    for (int i = 0; i < kRows * kCount; ++i)
      all[i / kCount][i % kCount].store(w.sums[row + i / kCount] + d + 16 * (i % kCount));
    return true;
  }
};
}  // namespace

void paged_attention_pairs(const AttentionArgs& a) {
  if (a.layout.dtype != DType::kBf16) return avx512::paged_attention(a);
  attend_with<DwordTiles<Pairs>>(a);
}

}  // namespace millrace::avx512
#pragma GCC pop_options
