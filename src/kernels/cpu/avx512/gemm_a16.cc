// gemm_a16 in float32; nibbles with vdpbf16ps where there is one.
#include <immintrin.h>

#include <algorithm>
#include <cstring>

#include "kernels/cpu/avx512/unpack.h"
#include "kernels/cpu/avx512/vec.h"
#include "kernels/cpu/gemm_grouped_impls.h"
#include "kernels/parallel.h"

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx2,fma,f16c")
namespace millrace::avx512 {
namespace {

#include "kernels/cpu/simd/math.inl"

// ---- sums of lanes, of several vectors at once: (((0 + 2) + (1 + 3)) of each four, then (I + II) + (III + IV) ----

inline __m512 added_pairs(__m512 a, __m512 b) {
  return _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
}
// Lane i of each four: what is in that four of vector i.
inline __m512 added_fours(const Vec& a, const Vec& b, const Vec& c, const Vec& d) {
  const __m512d ab = _mm512_castps_pd(added_pairs(a.v, b.v)), cd = _mm512_castps_pd(added_pairs(c.v, d.v));
  return _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(ab, cd)), _mm512_castpd_ps(_mm512_unpackhi_pd(ab, cd)));
}
// Neighbouring fours of both.
inline __m512 added_neighbours(__m512 a, __m512 b) {
  return _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd));
}
inline void add_four(__m128 sums, bool fresh, float* to) {
  _mm_storeu_ps(to, fresh ? sums : _mm_add_ps(_mm_loadu_ps(to), sums));
}
inline void add_two(__m128 sums, bool fresh, float* to) {  // the lower two lanes
  auto* const at = reinterpret_cast<__m64*>(to);
  _mm_storel_pi(at, fresh ? sums : _mm_add_ps(_mm_loadl_pi(_mm_setzero_ps(), at), sums));
}

// to[r][n] = or += the lanes of sums[r][n], rows 16 apart. Four sums at a time, or sixteen where they are as many.
template <int kRows, int kColumns>
inline __attribute__((always_inline)) void add_sums(const Vec (&sums)[kRows][kColumns], bool fresh, float* to) {
  constexpr int kFours = kRows * kColumns / 4;
  __m512 fours[kFours];
#pragma GCC unroll 8
  for (int i = 0; i < kFours; ++i) {
    const int a = 4 * i, b = a + 1, c = a + 2, d = a + 3;
    fours[i] = added_fours(sums[a / kColumns][a % kColumns], sums[b / kColumns][b % kColumns],
                           sums[c / kColumns][c % kColumns], sums[d / kColumns][d % kColumns]);
  }
  __m128 done[kFours];
  if constexpr (kFours == 4) {
    const __m512 all = added_neighbours(added_neighbours(fours[0], fours[1]), added_neighbours(fours[2], fours[3]));
    done[0] = _mm512_castps512_ps128(all), done[1] = _mm512_extractf32x4_ps(all, 1);
    done[2] = _mm512_extractf32x4_ps(all, 2), done[3] = _mm512_extractf32x4_ps(all, 3);
  } else {
#pragma GCC unroll 8
    for (int i = 0; i < kFours; ++i) {
      const __m512 pairs = added_neighbours(fours[i], fours[i]);
      done[i] = _mm512_castps512_ps128(added_neighbours(pairs, pairs));
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < kFours; ++i) {
    const int r = 4 * i / kColumns;
    if constexpr (kColumns >= 4) {
      add_four(done[i], fresh, to + r * 16 + 4 * i % kColumns);
    } else {
      add_two(done[i], fresh, to + r * 16);
      add_two(_mm_movehl_ps(done[i], done[i]), fresh, to + (r + 1) * 16);
    }
  }
}

#include "kernels/cpu/simd/gemm_a16.inl"

#include "kernels/cpu/avx512/pairs.inl"

// ---- in float32 ----

struct Nibbles {
  explicit Nibbles(const std::byte* at) : words(_mm512_loadu_si512(at)) {}
  __m512i words;
};
struct NibbleTable {
  explicit NibbleTable(Vec values) : values(values) {}
  Vec at(const Nibbles& nibbles, int shift) const {
    const __m512i index = _mm512_srl_epi32(nibbles.words, _mm_cvtsi32_si128(shift));
    return {_mm512_permutexvar_ps(index, values.v)};
  }
  Vec values;
};

// 32 of k: the sixteen even ones, then the sixteen odd ones.
struct FloatDot : FloatElements {
  static constexpr int kMostRows = 4, kMostThinRows = 0;

  static void prepare(const GemmA16Args& a, int64_t row, int64_t padded_k, float* x) {
    prepare_row(a, row, padded_k, x, [](int64_t k) { return k / 32 * 32 + k % 2 * 16 + k % 32 / 2; });
  }
  static void unpack(const std::byte* chunk, int64_t scales, int64_t first, float* to) {
    for (int64_t n = first; n < first + kDotColumns; ++n, to += kStretch) {
      const Nibbles nibbles(chunk + scales * 64 + n * 64);
      for (int64_t s = 0; s < scales; ++s) {
        const NibbleTable table(rounded_weights(chunk + s * 64 + n * 4));
        for (int64_t i = s * 4 / scales; i < (s + 1) * 4 / scales; ++i) {
          table.at(nibbles, static_cast<int>(4 * i)).store(to + 32 * i);
          table.at(nibbles, static_cast<int>(4 * i) + 16).store(to + 32 * i + 16);
        }
      }
    }
  }
  // What the sixteen nibbles stand for.
  static Vec rounded_weights(const std::byte* word) {
    uint32_t scale;
    std::memcpy(&scale, word, 4);
    alignas(32) bf16 rounded[16];
    ((Vec::lanes() - Vec::set(static_cast<float>(int4_zero(scale)))) * Vec::set(int4_scale(scale))).store(rounded);
    return Vec::load(rounded);
  }
};

// ---- as pairs of bf16 ----

// How a thin product looks up the nibbles of two columns: unit<kUnit>(words, i) is 32 of k of column n + i, unit kUnit
// of four. Shifts, where unpack_int4_unit multiplies: here the ports that multiply are the ones of the products.

// One scale: from tables in memory.
class ThinTable : public Int4Tables<1> {
 public:
  struct Lookups {
    const ThinTable& tables;
    const int64_t n;
    template <int kUnit>
    inline __attribute__((always_inline)) __m512i unit(__m512i words, int i) const {
      return _mm512_permutexvar_epi16(_mm512_srli_epi16(words, 4 * kUnit), tables.at(0, n + i));
    }
  };
  Lookups lookups(int64_t n) const { return {*this, n}; }
};

// Several: from registers that hold the tables of two scales each; bit 4 of an index chooses.
template <int kScales>
class ThinRegisters : public Int4Scales<kScales> {
 public:
  struct Lookups {
    __m512i tables[2][kScales / 2];  // of each column
    template <int kUnit>
    inline __attribute__((always_inline)) __m512i unit(__m512i words, int i) const {
      constexpr int kScale = kScales * kUnit / 4;
      const __m512i shifted = _mm512_srli_epi16(words, 4 * kUnit);
      const __m512i index = kScale % 2 ? _mm512_or_si512(shifted, _mm512_set1_epi16(16))
                                       : _mm512_and_si512(shifted, _mm512_set1_epi16(15));
      return _mm512_permutexvar_epi16(index, tables[i][kScale / 2]);
    }
  };
  inline __attribute__((always_inline)) Lookups lookups(int64_t n) const {
    Lookups all;
#pragma GCC unroll 4
    for (int i = 0; i < kScales; ++i)
      all.tables[i % 2][i / 2] = this->values_of_two(i / 2 * 2, n + i % 2, i / 2 * 2 + 1, n + i % 2);
    return all;
  }
  void make_two_columns(int64_t) {}  // only scales are made ahead
};
template <int kScales>
using ThinTables = std::conditional_t<kScales == 1, ThinTable, ThinRegisters<kScales>>;

// 32 of k as sixteen bf16 pairs.
struct PairDot {
  using Element = bf16;
  using W = __m512bh;
  using X = __m512bh;
  static constexpr int64_t kStretch = kA16DotStretchBytes / kDotColumns / sizeof(bf16);
  static constexpr int kMostRows = 4, kMostThinRows = 16;

  static W load_w(const bf16* at) { return reinterpret_cast<__m512bh>(_mm512_loadu_si512(at)); }
  static X load_x(const bf16* at) { return load_w(at); }
  static Vec step(Vec sum, X x, W w) { return {_mm512_dpbf16_ps(sum.v, x, w)}; }

  static void prepare(const GemmA16Args& a, int64_t row, int64_t padded_k, bf16* x) {
    for (int64_t i = 0; i < padded_k / 32; ++i) _mm512_storeu_si512(x + row * padded_k + 32 * i, pairs_of(a, row, i));
  }
  // 32 of k: unit kUnit of four. Shifts, where unpack_int4_unit multiplies: here the ports that multiply are the ones
  // of the products.
  template <int kUnit, int kScales>
  static inline __attribute__((always_inline)) __m512i unit(__m512i words, const Int4Tables<kScales>& tables,
                                                            int64_t n) {
    return _mm512_permutexvar_epi16(_mm512_srli_epi16(words, 4 * kUnit), tables.at(kScales * kUnit / 4, n));
  }
  template <int kScales>
  static void unpack_int4_of(const std::byte* chunk, int64_t first, bf16* to) {
    Int4Tables<kScales> tables;
    tables.start(chunk);
    for (int64_t n = first; n < first + kDotColumns; n += 2) tables.make_two_columns(n);
    for (int64_t n = first; n < first + kDotColumns; ++n, to += kStretch) {
      const __m512i words = _mm512_loadu_si512(chunk + kScales * 64 + n * 64);
      _mm512_storeu_si512(to, unit<0>(words, tables, n));
      _mm512_storeu_si512(to + 32, unit<1>(words, tables, n));
      _mm512_storeu_si512(to + 64, unit<2>(words, tables, n));
      _mm512_storeu_si512(to + 96, unit<3>(words, tables, n));
    }
  }
  static void unpack(const std::byte* chunk, int64_t scales, int64_t first, bf16* to) {
    if (scales == 1) return unpack_int4_of<1>(chunk, first, to);
    if (scales == 2) return unpack_int4_of<2>(chunk, first, to);
    unpack_int4_of<4>(chunk, first, to);
  }

  // The first `rows` of kRows rows, the others being whatever: as many columns at a time as have sums in registers.
  template <int kScales, int kRows>
  static void thin(const std::byte* chunk, int64_t count, const bf16* x, int64_t x_stride, int64_t rows, bool fresh,
                   float* sums) {
    constexpr int kColumns = kRows <= 2 ? 16 / kRows : kRows <= 6 ? 4 : 2;
    for (int64_t first = 0; first < 16; first += kColumns)
      thin_columns<kScales, kRows, kColumns>(chunk, first, count, x, x_stride, rows, fresh, sums + first);
  }
  // Unit kUnit of columns n and n + 1 of those from `first` on.
  template <int kUnit, int kRows, int kColumns, class Lookups>
  static inline __attribute__((always_inline)) void multiply_unit(Vec (&acc)[kRows][kColumns], int n,
                                                                  const bf16* const (&row)[kRows], int64_t k,
                                                                  const __m512i (&words)[2], const Lookups& lookups) {
    const W a = reinterpret_cast<W>(lookups.template unit<kUnit>(words[0], 0)),
            b = reinterpret_cast<W>(lookups.template unit<kUnit>(words[1], 1));
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      const X each = load_x(row[r] + k + 32 * kUnit);
      acc[r][n] = step(acc[r][n], each, a);
      acc[r][n + 1] = step(acc[r][n + 1], each, b);
    }
  }
  template <int kScales, int kRows, int kColumns>
  static void thin_columns(const std::byte* chunk, int64_t first, int64_t count, const bf16* x, int64_t x_stride,
                           int64_t rows, bool fresh, float* sums) {
    constexpr int64_t kChunkBytes = 1024 + 64 * kScales;
    Vec acc[kRows][kColumns];
#pragma GCC unroll 32
    for (int i = 0; i < kRows * kColumns; ++i) acc[i / kColumns][i % kColumns] = Vec::zero();
    const bf16* row[kRows];
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) row[r] = x + std::min<int64_t>(r, rows - 1) * x_stride;
    // With one row, a little; with more, which come back to these chunks, to the same place of the next stretch.
    const int64_t ahead = kRows == 1 ? 2048 : count / kA16ChunkK * kChunkBytes;
    constexpr _mm_hint kHint = kRows <= 4 ? _MM_HINT_T0 : _MM_HINT_T1;  // the first-level cache is full of x
    ThinTables<kScales> tables[2];                                      // of this chunk and of the next
    tables[0].start(chunk);
#pragma GCC unroll 8
    for (int n = 0; n < kColumns; n += 2) tables[0].make_two_columns(first + n);
    for (int64_t k = 0; k < count; k += kA16ChunkK, chunk += kChunkBytes) {
      ThinTables<kScales>&now = tables[k / kA16ChunkK % 2], &next = tables[1 - k / kA16ChunkK % 2];
      next.start(k + kA16ChunkK < count ? chunk + kChunkBytes : chunk);
#pragma GCC unroll 4
      for (int i = 0; i < kScales; ++i) _mm_prefetch(reinterpret_cast<const char*>(chunk + i * 64 + ahead), kHint);
#pragma GCC unroll 8
      for (int n = 0; n < kColumns; n += 2) {
        next.make_two_columns(first + n);
        const std::byte* columns = chunk + kScales * 64 + (first + n) * 64;
        _mm_prefetch(reinterpret_cast<const char*>(columns + ahead), kHint);
        _mm_prefetch(reinterpret_cast<const char*>(columns + 64 + ahead), kHint);
        const __m512i words[2] = {_mm512_loadu_si512(columns), _mm512_loadu_si512(columns + 64)};
        const auto lookups = now.lookups(first + n);
        multiply_unit<0>(acc, n, row, k, words, lookups);
        multiply_unit<1>(acc, n, row, k, words, lookups);
        multiply_unit<2>(acc, n, row, k, words, lookups);
        multiply_unit<3>(acc, n, row, k, words, lookups);
      }
    }
    add_sums(acc, fresh, sums);
  }
};

}  // namespace

void gemm_a16(const GemmA16Args& a) { gemm_a16_of<FloatDot>(a); }
void gemm_a16_pairs(const GemmA16Args& a) { gemm_a16_of<PairDot>(a); }

void gemm_a16_grouped(const GroupedA16Args& a) { gemm_a16_grouped_of<FloatDot>(a); }
void gemm_a16_grouped_pairs(const GroupedA16Args& a) { gemm_a16_grouped_of<PairDot>(a); }

}  // namespace millrace::avx512
#pragma GCC pop_options
