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

#include "kernels/cpu/simd/attention.inl"

constexpr int kGroupRows = 6, kVecs = 4;  // 24 sums, four vectors of pairs and a pair in 32 registers

struct PairWork : AttentionWork {
  using AttentionWork::AttentionWork;
  alignas(64) uint32_t q_pairs[kMaxRows][kMaxHeadDim / 2];
  alignas(64) uint32_t weight_pairs[kMaxRows][kTilePositions / 2];
};

// Where the sixteens of positions of a tile lie in one of the caches; what is multiplied now is a line of such a
// sixteen, and the same line of another's is fetched meanwhile.
using Sixteens = std::array<const char*, kTileVecs>;

inline void fetch(const char* at) { _mm_prefetch(at, _MM_HINT_T0); }

inline __m256i rounded(Vec x) { return reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(x.v)); }
inline Vec product(Vec sum, uint32_t pair, __m512i pairs) {
  const __m512i all = _mm512_set1_epi32(static_cast<int>(pair));
  return {_mm512_dpbf16_ps(sum.v, reinterpret_cast<__m512bh>(all), reinterpret_cast<__m512bh>(pairs))};
}

// Raw q.k of kRows rows with the positions of kCount sixteens.
template <int kRows, int kCount>
inline void score_rows(PairWork& w, int row, int vec, const bf16* const* keys, const char* const* ahead) {
  Vec sums[kRows][kCount];
#pragma GCC unroll 32
  for (int i = 0; i < kRows * kCount; ++i) sums[i / kCount][i % kCount] = Vec::zero();
  for (int64_t pair = 0; pair < w.padded / 2; ++pair) {
    __m512i k[kCount];
#pragma GCC unroll 4
    for (int i = 0; i < kCount; ++i) {
      fetch(ahead[i] + pair * 64);
      k[i] = _mm512_loadu_si512(keys[i] + pair * 32);
    }
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 4
      for (int i = 0; i < kCount; ++i) sums[r][i] = product(sums[r][i], w.q_pairs[row + r][pair], k[i]);
  }
#pragma GCC unroll 32
  for (int i = 0; i < kRows * kCount; ++i)
    sums[i / kCount][i % kCount].store(w.weights[row + i / kCount] + 16 * (vec + i % kCount));
}

inline void score_tile(PairWork& w, const TileKeys<bf16>& keys, const Sixteens& ahead) {
  in_groups<kGroupRows>(w.rows, [&]<int kRows>(int row) {
    int i = keys.first;
    for (; i + kVecs <= keys.end; i += kVecs) score_rows<kRows, kVecs>(w, row, i, keys.at + i, &ahead[i]);
    for (; i < keys.end; ++i) score_rows<kRows, 1>(w, row, i, keys.at + i, &ahead[i]);
  });
}

// A pair of positions' values, those outside the span as zeros: nobody need have written them.
inline __m512i values_at(const bf16* at, int64_t position, Visible span) {
  const __m512i pairs = _mm512_loadu_si512(at);
  if (position < span.begin) return _mm512_and_si512(pairs, _mm512_set1_epi32(-65536));
  if (position + 1 == span.end) return _mm512_and_si512(pairs, _mm512_set1_epi32(65535));
  return pairs;
}

// sums = sums * keep + p.v for kRows rows and kCount sixteens of elements from d on. False, and nothing done, where
// they are to be checked and not finite.
template <int kRows, int kCount>
inline bool add_values(PairWork& w, int row, int64_t d, int64_t tile, Visible span, bool checked, const float* keep,
                       const Sixteens& ahead) {
  Vec sums[kRows][kCount];
#pragma GCC unroll 32
  for (int i = 0; i < kRows * kCount; ++i) {
    const int r = row + i / kCount;
    sums[i / kCount][i % kCount] = Vec::load(w.sums[r] + d + 16 * (i % kCount)) * Vec::set(keep[r]);
  }
  const KvLayout& kv = w.a.layout;
  for (int64_t p = span.begin / 2 * 2; p < span.end;) {
    const int64_t end = std::min(span.end, p / kKvLanes * kKvLanes + kKvLanes);
    const int64_t sixteen = p / kKvLanes * kKvLanes, line = (p - sixteen) * w.padded + 2 * d;
    const bf16* values =
        static_cast<const bf16*>(w.a.v_cache) + block_at(w, p) + kv.group_at(w.g, sixteen % kv.block_tokens) + line;
    const char* fetched = ahead[(sixteen - tile) / kKvLanes] + line * 2;
    for (; p < end; p += 2, values += 2 * w.padded, fetched += 4 * w.padded) {
      __m512i v[kCount];
#pragma GCC unroll 4
      for (int i = 0; i < kCount; ++i) {
        fetch(fetched + 64 * i);
        v[i] = values_at(values + 32 * i, p, span);
      }
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 4
        for (int i = 0; i < kCount; ++i)
          sums[r][i] = product(sums[r][i], w.weight_pairs[row + r][(p - tile) / 2], v[i]);
    }
  }
  if (checked && !all_finite(sums)) return false;
#pragma GCC unroll 32
  for (int i = 0; i < kRows * kCount; ++i)
    sums[i / kCount][i % kCount].store(w.sums[row + i / kCount] + d + 16 * (i % kCount));
  return true;
}

// The sixteens of the tile at `tile` in a cache; where it ends behind what rows see, the last they see.
inline Sixteens sixteens_of(const PairWork& w, const void* cache, int64_t tile) {
  Sixteens all;
  const KvLayout& kv = w.a.layout;
  const int64_t last = (w.row[w.rows - 1].seen.end - 1) / kKvLanes * kKvLanes;
  for (int64_t i = 0; i < kTileVecs; ++i) {
    const int64_t position = std::min(tile + i * kKvLanes, last);
    all[i] = static_cast<const char*>(cache) +
             (block_at(w, position) + kv.group_at(w.g, position % kv.block_tokens)) * dtype_bytes(kv.dtype);
  }
  return all;
}

struct PairTiles {
  using Work = PairWork;
  static void prepare(Work& w) {
    for (int r = 0; r < w.rows; ++r)
      for (int64_t d = 0; d < w.padded; d += 16)
        _mm256_store_si256(reinterpret_cast<__m256i*>(w.q_pairs[r] + d / 2), rounded(Vec::load(w.q[r] + d)));
  }
  static void run(Work& w, int64_t tile) {
    score_tile(w, TileKeys<bf16>(w, tile), sixteens_of(w, w.a.v_cache, tile));
    const Sixteens next = sixteens_of(w, w.a.k_cache, tile + kTilePositions);
    float keep[kMaxRows];
    for (int r = 0; r < w.rows; ++r)
      keep[r] = weigh_row(w, r, tile, [&](int i, Vec weights) {
        const __m256i pairs = rounded(weights);
        _mm256_store_si256(reinterpret_cast<__m256i*>(w.weight_pairs[r] + 8 * i), pairs);
        return Vec{_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(pairs), 16))};
      });
    const auto add = [&]<int kCount>(int64_t d) {
      add_by_groups<kGroupRows>(w, tile, [&]<int kRows>(int row, Visible span, bool checked) {
        return add_values<kRows, kCount>(w, row, d, tile, span, checked, keep, next);
      });
    };
    int64_t d = 0;
    for (; d + 16 * kVecs <= w.padded; d += 16 * kVecs) add.template operator()<kVecs>(d);
    for (; d < w.padded; d += 16) add.template operator()<1>(d);
  }
};
}  // namespace

void paged_attention_pairs(const AttentionArgs& a) {
  if (a.layout.dtype != DType::kBf16) return avx512::paged_attention(a);
  attend_with<PairTiles>(a);
}

}  // namespace millrace::avx512
#pragma GCC pop_options
