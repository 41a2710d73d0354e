// Integer weights to bf16 along k, in registers (layouts: kernels/gemm_a16.h).
#pragma once
#include <immintrin.h>

#include <cstring>

#include "kernels/cpu/avx512/vec.h"
#include "kernels/cpu/gemm_a16_impls.h"

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx2,fma,f16c")
namespace millrace::amx {

// What nibbles of the columns of a chunk stand for, a table for each column and each of its kScales scales. Sums and
// products are exact but for the last rounding to bf16.
template <int kScales>
class Int4Tables {
 public:
  Int4Tables() = default;
  explicit Int4Tables(const std::byte* chunk) { make(chunk); }
  void make(const std::byte* chunk) {
    start(chunk);
    make_columns<0, 16>();
  }
  // In parts: first the scales, then columns, an even number of them at a time.
  void start(const std::byte* chunk) {
    for (int s = 0; s < kScales; ++s) split(chunk + s * 64, scale_[s], offset_[s]);
    asm volatile(""
                 : "+m"(scale_), "+m"(offset_));  // broadcast from memory: shuffles would wait for the port of look-ups
  }
  template <int kBegin, int kEnd>
  inline __attribute__((always_inline)) void make_columns() {
#pragma GCC unroll 4
    for (int s = 0; s < kScales; ++s)
#pragma GCC unroll 8
      for (int n = kBegin; n < kEnd; n += 2) make_two(s, n);
  }
  // The table of column n under scale s, twice.
  __m512i at(int s, int64_t n) const {
    return _mm512_broadcast_i64x4(_mm256_load_si256(reinterpret_cast<const __m256i*>(tables_[s][n])));
  }

 private:
  // All sixteen values of column n under scale s.
  __m512 values(int s, int64_t n) const {
    return _mm512_fmadd_ps(avx512::Vec::lanes().v, _mm512_set1_ps(scale_[s][n]), _mm512_set1_ps(offset_[s][n]));
  }
  inline __attribute__((always_inline)) void make_two(int s, int64_t n) {
    _mm512_store_si512(tables_[s][n], reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(values(s, n + 1), values(s, n))));
  }
  static void split(const std::byte* scale_words, float* scale, float* offset) {
    const __m512i words = _mm512_loadu_si512(scale_words), zero_mask = _mm512_set1_epi32(static_cast<int>(kZeroMask));
    const __m512 scales = _mm512_castsi512_ps(_mm512_andnot_si512(zero_mask, words));
    const __m512 zeros = _mm512_cvtepi32_ps(_mm512_and_si512(words, zero_mask));
    _mm512_store_ps(scale, scales);
    _mm512_store_ps(offset, _mm512_mul_ps(_mm512_sub_ps(_mm512_setzero_ps(), zeros), scales));
  }
  alignas(64) float scale_[kScales][16], offset_[kScales][16];
  alignas(64) bf16 tables_[kScales][16][16];
};

// 32 of k of column n: unit kUnit of four. Bits of a word above the nibble that is looked up do not matter: shifting by
// whole bytes is reading one byte further, beyond the column too.
template <int kUnit, int kScales>
inline __attribute__((always_inline)) __m512i unpack_int4_unit(const std::byte* column,
                                                               const Int4Tables<kScales>& tables, int64_t n) {
  const __m512i words = _mm512_loadu_si512(column + kUnit / 2), table = tables.at(kScales * kUnit / 4, n);
  if constexpr (kUnit % 2 == 0) return _mm512_permutexvar_epi16(words, table);
  const __m512i sixteenths = _mm512_mulhi_epu16(words, _mm512_set1_epi16(1 << 12));  // shifts would slow look-ups down
  return _mm512_permutexvar_epi16(sixteenths, table);
}
template <int kScales>
inline __attribute__((always_inline)) void unpack_int4_units(const std::byte* column, const Int4Tables<kScales>& tables,
                                                             int64_t n, __m512i (&units)[4]) {
  units[0] = unpack_int4_unit<0>(column, tables, n);
  units[1] = unpack_int4_unit<1>(column, tables, n);
  units[2] = unpack_int4_unit<2>(column, tables, n);
  units[3] = unpack_int4_unit<3>(column, tables, n);
}

}  // namespace millrace::amx
#pragma GCC pop_options
