// Paged attention over an int8 cache with vpdpbusd. A query is 256 * high + low - 32768 with high and low of eight
// bits, times its step; a row's weights in a tile, the values' scales included, are 256 * high + low, times a step that
// keeps sixteen bits of the largest. Sums are exact within a tile.
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
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")
namespace millrace::avx512 {
namespace {
#include "kernels/cpu/simd/math.inl"

#include "kernels/cpu/avx512/power.inl"

#include "kernels/cpu/simd/attention.inl"

#include "kernels/cpu/avx512/attention_dwords.inl"

// Fours of int8. Products are int32; those of `high` come first, then those of `low`.
struct Fours {
  using Element = int8_t;
  struct More {
    float step[kMaxRows];         // of queries
    float weight_step[kMaxRows];  // of the tile's weights
  };
  using Work = DwordWork<Fours>;
  static constexpr int kDigits = 2, kMoreQueries = 1;  // a query of ones: what 32768 is taken off with

  static __m512i product(__m512i sums, uint32_t four, __m512i line) {
    return _mm512_dpbusd_epi32(sums, _mm512_set1_epi32(static_cast<int>(four)), line);
  }
  // 256 * high + low of the sums of both.
  static __m512i joined(__m512i high, __m512i low) { return _mm512_add_epi32(_mm512_slli_epi32(high, 8), low); }

  static void prepare(Work& w) {
    for (int r = 0; r < w.rows; ++r) split_query(w, r);
    for (int64_t d = 0; d < w.padded; d += 4) w.queries[2 * w.rows][d / 4] = 0x01010101;
  }
  // A row that is not finite has no finite products.
  static void split_query(Work& w, int r) {
    constexpr float kMost = 32767;
    Vec largest = Vec::zero(), poison = Vec::zero();
    for (int64_t d = 0; d < w.padded; d += 16) {
      const Vec q = Vec::load(w.q[r] + d);
      largest = Vec::max(largest, Vec::abs(q));
      poison = Vec::fma(q, Vec::zero(), poison);
    }
    const float most = largest.largest(), inverse = most >= kLeastKvMax ? kMost / most : 0;
    w.more.step[r] = most / kMost + poison.sum();
    for (int64_t d = 0; d < w.padded; d += 16) {
      const __m512i q = _mm512_cvtps_epi32((Vec::load(w.q[r] + d) * Vec::set(inverse)).v);
      const __m512i all = _mm512_add_epi32(q, _mm512_set1_epi32(32768));
      store_bytes(_mm512_srli_epi32(all, 8), w.queries[2 * r] + d / 4);
      store_bytes(all, w.queries[2 * r + 1] + d / 4);
    }
  }
  static void store_bytes(__m512i dwords, uint32_t* to) {
    _mm_store_si128(reinterpret_cast<__m128i*>(to), _mm512_cvtepi32_epi8(dwords));
  }

  static void weigh(Work& w, int64_t tile) {
    for (int r = 0; r < w.rows; ++r)
      w.keep[r] = weigh_row(
          w, r, tile, [&](int i) { return raw_product(w, r, 16 * i); },
          [](Vec x) { return power_of_two(x * Vec::set(kLog2E)); },
          [&](const Vec(&weights)[kTileVecs]) { return keep_weights(w, r, weights); });
  }
  static Vec raw_product(const Work& w, int r, int at) {
    const auto load = [&](int query) { return _mm512_load_si512(w.products[query] + at); };
    const __m512i off = _mm512_slli_epi32(load(2 * w.rows), 15);
    const Vec sum{_mm512_cvtepi32_ps(_mm512_sub_epi32(joined(load(2 * r), load(2 * r + 1)), off))};
    return sum * (Vec::load(w.key_scales + at) * Vec::set(w.more.step[r]));
  }
  static Vec keep_weights(Work& w, int r, const Vec (&weights)[kTileVecs]) {
    constexpr float kMost = 65535;
    Vec total = Vec::zero(), peak = Vec::zero(), scaled[kTileVecs];
#pragma GCC unroll 4
    for (int i = 0; i < kTileVecs; ++i) {
      total = total + weights[i];
      // What is not seen has a weight of zero, and perhaps a scale that nobody wrote.
      const __mmask16 some = _mm512_cmp_ps_mask(weights[i].v, _mm512_setzero_ps(), _CMP_NEQ_UQ);
      scaled[i] = {_mm512_maskz_mul_ps(some, weights[i].v, _mm512_load_ps(w.value_scales + 16 * i))};
      peak = Vec::max_bits(peak, scaled[i]);
    }
    const float most = std::bit_cast<float>(peak.largest_bits());  // NaN is the largest
    w.more.weight_step[r] = most * (1 / kMost);
    split_weights(w, r, scaled, Vec::set(most >= kLeastKvMax ? kMost / most : 0));
    return total;
  }
  // Times `inverse`, as the high and the low bytes of sixteen bits.
  static void split_weights(Work& w, int r, const Vec (&weights)[kTileVecs], Vec inverse) {
    const auto integers = [&](int i) { return _mm512_cvtps_epi32((weights[i] * inverse).v); };
    const __m512i ab = _mm512_packus_epi32(integers(0), integers(1)), low_byte = _mm512_set1_epi16(0xff);
    const __m512i cd = _mm512_packus_epi32(integers(2), integers(3));
    _mm512_store_si512(w.weight_dwords[2 * r],
                       packed_unsigned_bytes(_mm512_srli_epi16(ab, 8), _mm512_srli_epi16(cd, 8)));
    _mm512_store_si512(w.weight_dwords[2 * r + 1],
                       packed_unsigned_bytes(_mm512_and_si512(ab, low_byte), _mm512_and_si512(cd, low_byte)));
  }

  static __m512i seen(__m512i fours, int64_t, const Visible&) { return fours; }
  static __m512i start(const Work&, int, int64_t) { return _mm512_setzero_si512(); }
  template <int kSums, int kCount>
  static bool finish(Work& w, int row, int64_t d, bool, const __m512i (&sums)[kSums][kCount]) {
#pragma GCC unroll 16
    for (int i = 0; i < kSums / 2 * kCount; ++i) {
      const int r = i / kCount, n = i % kCount;
      float* const at = w.sums[row + r] + d + 16 * n;
      const Vec sum{_mm512_cvtepi32_ps(joined(sums[2 * r][n], sums[2 * r + 1][n]))};
      Vec::fma(sum, Vec::set(w.more.weight_step[row + r]), Vec::load(at) * Vec::set(w.keep[row + r])).store(at);
    }
    return true;
  }
};
}  // namespace

void paged_attention_fours(const AttentionArgs& a) { attend_with<DwordTiles<Fours>>(a); }

}  // namespace millrace::avx512
#pragma GCC pop_options
