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

constexpr int kFloatRows = 4;

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
// Lanes [first, first + kColumns).
template <int kColumns>
inline __attribute__((always_inline)) void add_lanes(__m512 sums, int first, bool fresh, float* to) {
  if constexpr (kColumns == 16) {
    _mm512_storeu_ps(to, fresh ? sums : _mm512_add_ps(_mm512_loadu_ps(to), sums));
  } else if constexpr (kColumns == 8) {
    const __m256 half = first ? _mm512_extractf32x8_ps(sums, 1) : _mm512_castps512_ps256(sums);
    _mm256_storeu_ps(to, fresh ? half : _mm256_add_ps(_mm256_loadu_ps(to), half));
  } else {
    const __m128 four = first == 0   ? _mm512_castps512_ps128(sums)
                        : first == 4 ? _mm512_extractf32x4_ps(sums, 1)
                        : first == 8 ? _mm512_extractf32x4_ps(sums, 2)
                                     : _mm512_extractf32x4_ps(sums, 3);
    _mm_storeu_ps(to, fresh ? four : _mm_add_ps(_mm_loadu_ps(to), four));
  }
}

// to[r][n] = or += the lanes of sums[r][n], rows 16 apart.
template <int kRows, int kColumns>
inline __attribute__((always_inline)) void add_sums(const Vec (&sums)[kRows][kColumns], bool fresh, float* to) {
  __m512 fours[kRows * kColumns / 4];
#pragma GCC unroll 4
  for (int i = 0; i < kRows * kColumns / 4; ++i) {
    const Vec* four = &sums[i * 4 / kColumns][i * 4 % kColumns];
    fours[i] = added_fours(four[0], four[1], four[2], four[3]);
  }
  if constexpr (kRows * kColumns == 16) {
    const __m512 all = added_neighbours(added_neighbours(fours[0], fours[1]), added_neighbours(fours[2], fours[3]));
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) add_lanes<kColumns>(all, r * kColumns, fresh, to + r * 16);
  } else {
    static_assert(kColumns == 4);
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
      const __m512 pairs = added_neighbours(fours[r], fours[r]);
      add_lanes<4>(added_neighbours(pairs, pairs), 0, fresh, to + r * 16);
    }
  }
}

#include "kernels/cpu/simd/gemm_a16.inl"

// 32 of k as sixteen bf16 pairs.
struct PairDot {
  using Element = bf16;
  using W = __m512bh;
  using X = __m512bh;
  static constexpr int64_t kStretch = kA16DotStretchBytes / kDotColumns / sizeof(bf16);
  static constexpr int kMostRows = 4, kMostThinRows = 8;

  static W load_w(const bf16* at) { return reinterpret_cast<__m512bh>(_mm512_loadu_si512(at)); }
  static X load_x(const bf16* at) { return load_w(at); }
  static Vec step(Vec sum, X x, W w) { return {_mm512_dpbf16_ps(sum.v, x, w)}; }

  static void prepare(const GemmA16Args& a, int64_t row, int64_t padded_k, bf16* x) {
    bf16* to = x + row * padded_k;
    for (int64_t k = 0; k < padded_k; k += 16) {
      const int64_t n = std::max<int64_t>(0, lanes_left(k, a.K)), at = row * a.x_stride + k;
      if (a.x_dtype == DType::kF32)
        Vec::load_n(static_cast<const float*>(a.x) + at, n).store(to + k);
      else
        _mm256_storeu_si256(
            reinterpret_cast<__m256i*>(to + k),
            _mm256_maskz_loadu_epi16(static_cast<__mmask16>((1u << n) - 1), static_cast<const bf16*>(a.x) + at));
    }
  }
  // 32 of k of column n: unit kUnit of four. Shifts, where unpack_int4_unit multiplies: here the ports that multiply
  // are the ones of the products.
  template <int kUnit, int kScales>
  static inline __attribute__((always_inline)) __m512i unit(__m512i words, const Int4Tables<kScales>& tables,
                                                            int64_t n) {
    return _mm512_permutexvar_epi16(_mm512_srli_epi16(words, 4 * kUnit), tables.at(kScales * kUnit / 4, n));
  }
  template <int kScales>
  static inline __attribute__((always_inline)) void unpack_units(const std::byte* column,
                                                                 const Int4Tables<kScales>& tables, int64_t n,
                                                                 __m512i (&units)[4]) {
    const __m512i words = _mm512_loadu_si512(column);
    units[0] = unit<0>(words, tables, n);
    units[1] = unit<1>(words, tables, n);
    units[2] = unit<2>(words, tables, n);
    units[3] = unit<3>(words, tables, n);
  }
  template <int kScales>
  static void unpack_int4_of(const std::byte* chunk, int64_t first, bf16* to) {
    Int4Tables<kScales> tables;
    tables.start(chunk);
    for (int64_t n = first; n < first + kDotColumns; n += 2) tables.make_two_columns(n);
    for (int64_t n = first; n < first + kDotColumns; ++n, to += kStretch) {
      __m512i units[4];
      unpack_units(chunk + kScales * 64 + n * 64, tables, n, units);
      for (int i = 0; i < 4; ++i) _mm512_storeu_si512(to + 32 * i, units[i]);
    }
  }
  static void unpack(const std::byte* chunk, int64_t scales, int64_t first, bf16* to) {
    if (scales == 1) return unpack_int4_of<1>(chunk, first, to);
    if (scales == 2) return unpack_int4_of<2>(chunk, first, to);
    unpack_int4_of<4>(chunk, first, to);
  }

  // As many columns at a time as have their sums in registers.
  template <int kScales, int kRows>
  static void thin(const std::byte* chunk, int64_t count, const bf16* x, int64_t x_stride, bool fresh, float* sums) {
    constexpr int kColumns = kRows == 3 ? 4 : 16 / kRows;
    for (int64_t first = 0; first < 16; first += kColumns)
      thin_columns<kScales, kRows, kColumns>(chunk, first, count, x, x_stride, fresh, sums + first);
  }
  template <int kScales, int kRows, int kColumns>
  static void thin_columns(const std::byte* chunk, int64_t first, int64_t count, const bf16* x, int64_t x_stride,
                           bool fresh, float* sums) {
    constexpr int64_t kChunkBytes = 1024 + 64 * kScales;
    Vec acc[kRows][kColumns];
#pragma GCC unroll 16
    for (int i = 0; i < kRows * kColumns; ++i) acc[i / kColumns][i % kColumns] = Vec::zero();
    // With one row, a little; with more, which come back to these chunks, to the same place of the next stretch.
    const int64_t ahead = kRows == 1 ? 2048 : count / kA16ChunkK * kChunkBytes;
    Int4Tables<kScales> tables[2];  // of this chunk and of the next
    tables[0].start(chunk);
#pragma GCC unroll 8
    for (int n = 0; n < kColumns; n += 2) tables[0].make_two_columns(first + n);
    for (int64_t k = 0; k < count; k += kA16ChunkK, chunk += kChunkBytes) {
      Int4Tables<kScales>&now = tables[k / kA16ChunkK % 2], &next = tables[1 - k / kA16ChunkK % 2];
      next.start(k + kA16ChunkK < count ? chunk + kChunkBytes : chunk);
#pragma GCC unroll 16
      for (int n = 0; n < kColumns; ++n) {
        if (n % 2 == 0) next.make_two_columns(first + n);
        const std::byte* column = chunk + kScales * 64 + (first + n) * 64;
        _mm_prefetch(reinterpret_cast<const char*>(column + ahead), _MM_HINT_T0);
        __m512i units[4];
        unpack_units(column, now, first + n, units);
#pragma GCC unroll 16
        for (int i = 0; i < kRows * 4; ++i) {
          const X row = load_x(x + i / 4 * x_stride + k + i % 4 * 32);
          acc[i / 4][n] = step(acc[i / 4][n], row, reinterpret_cast<W>(units[i % 4]));
        }
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
