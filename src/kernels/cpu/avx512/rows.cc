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
  constexpr __mmask16 kEven = 0x5555, kOdd = 0xaaaa;
  high = _mm512_mask_shuffle_epi32(odd, kEven, even, static_cast<_MM_PERM_ENUM>(0xf5));
  low = _mm512_mask_shuffle_epi32(even, kOdd, odd, static_cast<_MM_PERM_ENUM>(0xa0));
}

inline __m512i all_lanes(uint64_t word) { return _mm512_set1_epi32(static_cast<int>(word)); }

// a ^ b ^ c
inline __m512i xor_all(__m512i a, __m512i b, __m512i c) { return _mm512_ternarylogic_epi32(a, b, c, 0x96); }

// The keys of each round of Philox4x32-10.
struct PhiloxKeys {
  explicit PhiloxKeys(uint64_t seed) {
    auto k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
    for (auto& round : of) {
      round[0] = k0, round[1] = k1;
      k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
    }
  }
  uint32_t of[10][2];
};

constexpr int kTwo =
    2;  // sets of sixteen counters at once: while one waits for its products, the other one's are under way

// The words of 128 neighbouring tokens; the counter of the first is a multiple of 32.
inline void philox_words(const PhiloxKeys& keys, uint64_t position, uint64_t first, __m512i words[4 * kTwo]) {
  // So ordered that a transposition within quarters of the registers puts the words of four counters in a row.
  const __m512i order = _mm512_set_epi32(15, 11, 7, 3, 14, 10, 6, 2, 13, 9, 5, 1, 12, 8, 4, 0);
  __m512i x[kTwo][4];
  for (int set = 0; set < kTwo; ++set) {
    x[set][0] = _mm512_add_epi32(all_lanes(first + static_cast<uint64_t>(16 * set)), order);
    x[set][1] = all_lanes(first >> 32), x[set][2] = all_lanes(position), x[set][3] = all_lanes(position >> 32);
  }
#pragma GCC unroll 10
  for (const auto& round : keys.of) {
    const __m512i k0 = all_lanes(round[0]), k1 = all_lanes(round[1]);
#pragma GCC unroll 2
    for (auto& y : x) {
      __m512i high0, low0, high1, low1;
      multiply_wide(y[0], 0xD2511F53u, high0, low0);
      multiply_wide(y[2], 0xCD9E8D57u, high1, low1);
      y[0] = xor_all(high1, y[1], k0), y[1] = low1;
      y[2] = xor_all(high0, y[3], k1), y[3] = low0;
    }
  }
  for (int set = 0; set < kTwo; ++set, words += 4) {
    const auto& y = x[set];
    const __m512i low01 = _mm512_unpacklo_epi32(y[0], y[1]), high01 = _mm512_unpackhi_epi32(y[0], y[1]);
    const __m512i low23 = _mm512_unpacklo_epi32(y[2], y[3]), high23 = _mm512_unpackhi_epi32(y[2], y[3]);
    words[0] = _mm512_unpacklo_epi64(low01, low23), words[1] = _mm512_unpackhi_epi64(low01, low23);
    words[2] = _mm512_unpacklo_epi64(high01, high23), words[3] = _mm512_unpackhi_epi64(high01, high23);
  }
}

inline __m512 gumbel_bounds(__m512i bits) {
  const __m512i rest = _mm512_ternarylogic_epi32(bits, all_lanes(~511u), all_lanes(256), 0xae);
  return _mm512_fnmadd_ps(_mm512_cvtepi32_ps(_mm512_castps_si512(_mm512_cvtepu32_ps(rest))),
                          _mm512_set1_ps(kGumbelSlope), _mm512_set1_ps(kGumbelMost));
}

int64_t contenders(const float* x, int64_t n, float best, const NoiseKey& key, int64_t from, int32_t* indices,
                   uint32_t* bits, int64_t most, int64_t* next) {
  constexpr int kVecs = 4 * kTwo, kGroup = 16 * kVecs;
  const PhiloxKeys keys(key.seed);
  const __m512 wanted = _mm512_set1_ps(best), lowest = _mm512_set1_ps(-__builtin_inff());
  float room[kGroup];
  int64_t count = 0, i = from;
  for (; i < n && count + kGroup <= most; i += kGroup) {
    const float* at = x + i;
    if (n - i < kGroup) {
      std::fill_n(room, kGroup, -__builtin_inff());
      at = std::copy_n(at, n - i, room) - (n - i);
    }
    __m512 top = lowest, reached[kVecs];
#pragma GCC unroll 8
    for (int v = 0; v < kVecs; ++v) top = _mm512_max_ps(_mm512_loadu_ps(at + 16 * v), top);  // NaN is passed over
    if (!_mm512_cmp_ps_mask(_mm512_add_ps(top, _mm512_set1_ps(kMostNoise)), wanted, _CMP_GE_OQ)) continue;
    for (int v = 0; v < kVecs; ++v) __builtin_prefetch(at + kLogitBlock + 16 * v);  // what is looked at next
    __m512i words[kVecs];
    philox_words(keys, key.position, static_cast<uint64_t>(i) / 4, words);
    // In each lane, at most what its largest logit and its largest noise, which need not meet, add up to.
    __m512i most_bits = words[0];
#pragma GCC unroll 8
    for (int v = 1; v < kVecs; ++v) most_bits = _mm512_max_epu32(words[v], most_bits);
    if (!_mm512_cmp_ps_mask(_mm512_add_ps(top, gumbel_bounds(most_bits)), wanted, _CMP_GE_OQ)) continue;
    for (int v = 0; v < kVecs; ++v) reached[v] = _mm512_add_ps(_mm512_loadu_ps(at + 16 * v), gumbel_bounds(words[v]));
    for (int v = 0; v < kVecs; ++v) {
      const __mmask16 hits = _mm512_cmp_ps_mask(reached[v], wanted, _CMP_GE_OQ);
      _mm512_storeu_si512(bits + count, _mm512_maskz_compress_epi32(hits, words[v]));
      for (uint32_t left = hits; left; left &= left - 1)
        indices[count++] = static_cast<int32_t>(i + 16 * v + __builtin_ctz(left));
    }
  }
  *next = i;
  return count;
}

// sum + terms where value >= bound, else sum; never for NaN.
inline Vec add_where_at_least(Vec sum, Vec terms, Vec value, Vec bound) {
  return {_mm512_mask_add_ps(sum.v, _mm512_cmp_ps_mask(value.v, bound.v, _CMP_GE_OQ), sum.v, terms.v)};
}

// The lanes that `hits` names, together, and their ids: ids[lane], or first + lane.
inline void store_hits(uint32_t hits, Vec values, const int32_t* ids, int64_t first, float* to, int32_t* ids_to) {
  const auto lanes = static_cast<__mmask16>(hits);
  const auto places = static_cast<__mmask16>((1u << __builtin_popcount(hits)) - 1);
  const __m512i own =
      ids ? _mm512_maskz_loadu_epi32(lanes, ids)
          : _mm512_add_epi32(all_lanes(static_cast<uint64_t>(first)), _mm512_cvtps_epi32(Vec::lanes().v));
  _mm512_mask_storeu_ps(to, places, _mm512_maskz_compress_ps(lanes, values.v));
  _mm512_mask_storeu_epi32(ids_to, places, _mm512_maskz_compress_epi32(lanes, own));
}

}  // namespace

#include "kernels/cpu/simd/math.inl"

namespace {

#include "kernels/cpu/avx512/power.inl"

}  // namespace

#include "kernels/cpu/simd/activations.inl"
#include "kernels/cpu/simd/cast_rows.inl"
#include "kernels/cpu/simd/expert_rows.inl"
#include "kernels/cpu/simd/glu.inl"
#include "kernels/cpu/simd/logits.inl"
#include "kernels/cpu/simd/norm.inl"
#include "kernels/cpu/simd/rope.inl"
}  // namespace millrace::avx512
#pragma GCC pop_options
