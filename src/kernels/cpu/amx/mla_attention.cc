// Attention over bf16 rows on AMX tiles: queries and weights are rounded to bf16, products summed in float32. Scores
// are computed transposed, sixteen positions by sixteen query rows, so that keys are multiplied as they lie in memory
// and the softmax runs with query rows in the lanes. A row's sums do not depend on the other rows.
#include <immintrin.h>

#include <algorithm>
#include <cmath>

#include "kernels/cpu/amx/tiles.h"
#include "kernels/cpu/avx512/transpose.h"
#include "kernels/cpu/avx512/vec.h"
#include "kernels/cpu/mla_impls.h"

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx2,fma,f16c")
namespace millrace::amx {
namespace {

using avx512::transpose;
using avx512::Vec;
constexpr int kDotRows = 4, kDotPositions = 4, kSumRows = 4, kSumVecs = 4;
#include "kernels/cpu/simd/math.inl"

#include "kernels/cpu/simd/mla_attention.inl"

constexpr int64_t kRun = 16;                       // positions in one tile of scores
constexpr int64_t kRuns = kMlaPartition / kRun;    // of a partition
constexpr int64_t kTileElements = kTileBytes / 2;  // bf16

inline __m512i pairs_of(Vec even_or_low, Vec odd_or_high) {  // low half, then high half
  return reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(odd_or_high.v, even_or_low.v));
}

// e^x for x <= 0 to within 2^-18, which is plenty for what is rounded to bf16: 2^-126 at least.
inline Vec weight_of(Vec x) {
  const Vec t = Vec::max(Vec::set(-126.0f), x * Vec::set(1.44269504f));
  const Vec n = Vec::round(t), f = t - n;
  Vec p = Vec::set(0.009666368515f);  // interpolates 2^f on [-1/2, 1/2]
  p = Vec::fma(p, f, Vec::set(0.055921975842f));
  p = Vec::fma(p, f, Vec::set(0.240223490380f));
  p = Vec::fma(p, f, Vec::set(0.693121045203f));
  p = Vec::fma(p, f, Vec::set(1.0f));
  return Vec::scale_by_power(p, n);
}

struct TileForm {
  struct Thread {
    TileUse use{TileShapes::full()};
  };

  static int groups(const MlaWork& w) { return (w.rows + 15) / 16; }
  static int64_t key_tiles(const MlaWork& w) { return w.memory.key_padded / kTileK; }

  // Where things lie: queries [group][Kp/32] tiles of pairs of k by rows, scores [group][runs] tiles of positions by
  // rows, weights [group][partition/32] tiles of rows by positions, sums [group][Vp/16] tiles of rows by dimensions.
  static bf16* query_tile(const MlaWork& w, int group, int64_t k) {
    return reinterpret_cast<bf16*>(w.queries) + (group * key_tiles(w) + k) * kTileElements;
  }
  static float* score_tile(const MlaWork& w, int group, int64_t run) {
    return w.scores + (group * kRuns + run) * kRun * 16;
  }
  static bf16* weight_tile(const MlaWork& w, int group, int64_t pair_of_runs) {
    return w.weights + (group * kRuns / 2 + pair_of_runs) * kTileElements;
  }
  static float* sum_tile(const MlaWork& w, const MlaPart& part, int group, int64_t tile) {
    return part.sums + (group * w.memory.value_padded / 16 + tile) * 256;
  }
  static float* sums(const MlaWork& w, const MlaPart& part, int r, int64_t d) {
    return sum_tile(w, part, r / 16, d / 16) + r % 16 * 16;
  }

  static void prepare(MlaWork& w) {
    for (int group = 0; group < groups(w); ++group)
      for (int64_t k = 0; k < key_tiles(w); ++k) {
        __m512i x[16];
        for (int r = 0; r < 16; ++r) x[r] = query_pairs(w, 16 * group + r, k * kTileK);
        transpose(x);
        for (int r = 0; r < 16; ++r) _mm512_store_si512(query_tile(w, group, k) + r * 32, x[r]);
      }
  }
  static __m512i query_pairs(const MlaWork& w, int r, int64_t d) {
    if (r >= w.rows) return _mm512_setzero_si512();
    const float* q = w.query(r) + d;
    const int64_t left = w.a.key_dim - d;
    return pairs_of(Vec::load_n(q, std::min<int64_t>(16, left)),
                    left > 16 ? Vec::load_n(q + 16, std::min<int64_t>(16, left - 16)) : Vec::zero());
  }

  static const bf16* rows_at(const MlaWork& w, const MlaRows& rows, int64_t position) {
    return static_cast<const bf16*>(rows.data) + mla_row_at(w.a, rows, w.item.s, w.item.g, position);
  }

  // ---- scores ----

  // One or two runs of keys against one or two groups of queries. Meanwhile the keys at `next` (null: none) come
  // nearer: as many as are multiplied here.
  template <int kKeyRuns, int kGroups>
  static void score(MlaWork& w, const bf16* const* keys, int64_t run, int group, const bf16* const* next) {
    const int64_t row_bytes = w.a.keys.row_stride * 2;
    tile_zero<0>();
    if constexpr (kGroups == 2) tile_zero<1>();
    if constexpr (kKeyRuns == 2) tile_zero<2>();
    if constexpr (kKeyRuns == 2 && kGroups == 2) tile_zero<3>();
    const int64_t tiles = key_tiles(w);
    const bf16 *q0 = query_tile(w, group, 0), *q1 = q0 + tiles * kTileElements, *k0 = keys[0], *k1 = keys[kKeyRuns - 1];
    for (int64_t k = 0; k < tiles; ++k) {
      if (next)
        for (int i = 0; i < kKeyRuns; ++i)
          for (int r = 0; r < kRun; ++r)
            _mm_prefetch(reinterpret_cast<const char*>(next[i]) + r * row_bytes + k * 64, _MM_HINT_T0);
      tile_load<4>(k0 + k * kTileK, row_bytes);
      tile_load_passing<6>(q0 + k * kTileElements, 64);
      tile_multiply<0, 4, 6>();
      if constexpr (kGroups == 2) {
        tile_load_passing<7>(q1 + k * kTileElements, 64);
        tile_multiply<1, 4, 7>();
      }
      if constexpr (kKeyRuns == 2) {
        tile_load<5>(k1 + k * kTileK, row_bytes);
        tile_multiply<2, 5, 6>();
        if constexpr (kGroups == 2) tile_multiply<3, 5, 7>();
      }
    }
    tile_store<0>(score_tile(w, group, run), 64);
    if constexpr (kGroups == 2) tile_store<1>(score_tile(w, group + 1, run), 64);
    if constexpr (kKeyRuns == 2) tile_store<2>(score_tile(w, group, run + 1), 64);
    if constexpr (kKeyRuns == 2 && kGroups == 2) tile_store<3>(score_tile(w, group + 1, run + 1), 64);
  }

  template <int kKeyRuns>
  static void score_groups(MlaWork& w, const bf16* const* keys, int64_t run, const bf16* const* next) {
    const int count = groups(w);
    int group = 0;
    for (; group + 2 <= count; group += 2) score<kKeyRuns, 2>(w, keys, run, group, group == 0 ? next : nullptr);
    if (group < count) score<kKeyRuns, 1>(w, keys, run, group, group == 0 ? next : nullptr);
  }

  static void score_all(MlaWork& w, int64_t begin, int64_t n) {
    const bf16* keys[kRuns];
    const int64_t runs = (n + kRun - 1) / kRun;
    for (int64_t i = 0; i < runs; ++i) keys[i] = rows_at(w, w.a.keys, begin + i * kRun);
    int64_t run = 0;
    for (; run + 2 <= runs; run += 2) score_groups<2>(w, keys + run, run, run + 4 <= runs ? keys + run + 2 : nullptr);
    if (run < runs) score_groups<1>(w, keys + run, run, nullptr);
  }

  // ---- weights ----

  // Which of sixteen rows see position `at` of the partition.
  template <bool kMasked>
  static __mmask16 seen_by(const MlaWork& w, int group, int64_t begin, int64_t at) {
    if constexpr (!kMasked) return 0xffff;
    const __m512i end = _mm512_load_si512(w.end + 16 * group);
    return _mm512_cmpgt_epi32_mask(end, _mm512_set1_epi32(static_cast<int>(begin + at)));
  }
  static Vec score_of(const MlaWork& w, int group, int64_t at) {
    return Vec::load(score_tile(w, group, 0) + at * 16) * Vec::set(w.a.scale);
  }

  template <bool kMasked>
  static void weigh(MlaWork& w, int group, int64_t begin, int64_t n) {
    const __m512i interleave = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22,
                                                6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    Vec top = Vec::set(-__builtin_inff()), total = Vec::zero();
    for (int64_t p = 0; p < n; ++p) {
      const Vec score = score_of(w, group, p);
      top.v = _mm512_mask_max_ps(top.v, seen_by<kMasked>(w, group, begin, p), top.v, score.v);
    }
    const auto weight = [&](int64_t p) {
      const Vec value = weight_of(score_of(w, group, p) - top);
      return Vec{_mm512_maskz_mov_ps(seen_by<kMasked>(w, group, begin, p), value.v)};
    };
    for (int64_t p = 0; p < n; p += 32) {
      __m512i x[16];
      for (int i = 0; i < 16; ++i) {
        const Vec even = weight(p + 2 * i), odd = weight(p + 2 * i + 1);
        total = total + even;
        total = total + odd;
        x[i] = _mm512_permutexvar_epi16(interleave, pairs_of(even, odd));
      }
      transpose(x);
      for (int r = 0; r < 16; ++r) _mm512_store_si512(weight_tile(w, group, p / 32) + r * 32, x[r]);
    }
    top.store(w.part.top + 16 * group);
    total.store(w.part.total + 16 * group);
  }

  // ---- weighted values ----

  // Values of dimensions [d, d + 32), two tiles for each 32 positions: pairs of positions by sixteen dimensions. What
  // `unpack` puts together, four of each eight dimensions, shares a tile: `write` puts them in order again.
  static void gather_values(MlaWork& w, const bf16* const* values, int64_t d, int64_t n) {
    const int64_t stride = w.a.values.row_stride;
    for (int64_t p = 0; p < (n + 31) / 32 * 32; p += 2) {
      const bf16* row = p < n ? values[p / kRun] + p % kRun * stride + d : nullptr;
      const __m512i even = row ? _mm512_loadu_si512(row) : _mm512_setzero_si512();
      const __m512i odd = p + 1 < n ? _mm512_loadu_si512(row + stride) : _mm512_setzero_si512();
      bf16* to = w.slice + p / 32 * 2 * kTileElements + p % 32 / 2 * 32;
      _mm512_store_si512(to, _mm512_unpacklo_epi16(even, odd));
      _mm512_store_si512(to + kTileElements, _mm512_unpackhi_epi16(even, odd));
    }
  }

  template <int kGroups>
  static void add_values(MlaWork& w, int group, int64_t tile, int64_t n) {
    tile_zero<0>(), tile_zero<1>();
    if constexpr (kGroups == 2) tile_zero<2>(), tile_zero<3>();
    for (int64_t i = 0; i < (n + 31) / 32; ++i) {
      const bf16* values = w.slice + i * 2 * kTileElements;
      tile_load_passing<4>(weight_tile(w, group, i), 64);
      tile_load<6>(values, 64);
      tile_multiply<0, 4, 6>();
      tile_load<7>(values + kTileElements, 64);
      tile_multiply<1, 4, 7>();
      if constexpr (kGroups == 2) {
        tile_load_passing<5>(weight_tile(w, group + 1, i), 64);
        tile_multiply<2, 5, 6>();
        tile_multiply<3, 5, 7>();
      }
    }
    tile_store<0>(sum_tile(w, w.part, group, tile), 64);
    tile_store<1>(sum_tile(w, w.part, group, tile + 1), 64);
    if constexpr (kGroups == 2) tile_store<2>(sum_tile(w, w.part, group + 1, tile), 64);
    if constexpr (kGroups == 2) tile_store<3>(sum_tile(w, w.part, group + 1, tile + 1), 64);
  }

  static void run(MlaWork& w, int64_t begin, int64_t n) {
    score_all(w, begin, n);
    for (int group = 0; group < groups(w); ++group) {
      const int32_t* end = w.end + 16 * group;
      if (*std::min_element(end, end + 16) >= begin + (n + 31) / 32 * 32)
        weigh<false>(w, group, begin, n);
      else
        weigh<true>(w, group, begin, n);
    }
    const bf16* values[kRuns];
    for (int64_t i = 0; i < (n + kRun - 1) / kRun; ++i) values[i] = rows_at(w, w.a.values, begin + i * kRun);
    for (int64_t d = 0; d < w.memory.value_padded; d += 32) {
      gather_values(w, values, d, n);
      int group = 0;
      for (; group + 2 <= groups(w); group += 2) add_values<2>(w, group, d / 16, n);
      if (group < groups(w)) add_values<1>(w, group, d / 16, n);
    }
  }

  static void write(const MlaWork& w, const MlaPart& part, int r) {
    const __m512i low = _mm512_set_epi32(23, 22, 21, 20, 7, 6, 5, 4, 19, 18, 17, 16, 3, 2, 1, 0);
    const __m512i high = _mm512_set_epi32(31, 30, 29, 28, 15, 14, 13, 12, 27, 26, 25, 24, 11, 10, 9, 8);
    const Vec inverse = Vec::set(1.0f / part.total[r]);
    for (int64_t d = 0; d < w.a.value_dim; d += 32) {
      const Vec first = Vec::load(sums(w, part, r, d)), second = Vec::load(sums(w, part, r, d + 16));
      store_mla(w, r, d, Vec{_mm512_permutex2var_ps(first.v, low, second.v)} * inverse);
      store_mla(w, r, d + 16, Vec{_mm512_permutex2var_ps(first.v, high, second.v)} * inverse);
    }
  }
};

}  // namespace

void mla_attention(const MlaAttentionArgs& a) {
  if (a.dtype == DType::kBf16) return mla_attend_with<TileForm>(a);
  avx512::mla_attention(a);
}

}  // namespace millrace::amx
#pragma GCC pop_options
