// gemm_a16 of simd/gemm_a16.inl for this instruction set.
#include <immintrin.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "kernels/cpu/avx512/transpose.h"
#include "kernels/cpu/avx512/vec.h"
#include "kernels/cpu/gemm_grouped_impls.h"
#include "kernels/parallel.h"

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")
namespace millrace::avx512 {
namespace {

#include "kernels/cpu/simd/math.inl"

#include "kernels/cpu/simd/word_rows.inl"

constexpr int kTileRows = 12, kTilePanels = 2, kThinRows = 16;
constexpr int64_t kStretch = 512;

struct Words {
  __m512i v;

  static Words load(const void* at) { return {_mm512_loadu_si512(at)}; }
  static Words set(uint32_t dword) { return {_mm512_set1_epi32(static_cast<int>(dword))}; }
  // sum += x * w of pairs. The compiler is kept from loading all of x first, for which registers are too few.
  static inline __attribute__((always_inline)) Words add_products(Words sum, Words x, Words w) {
    __m512i all = _mm512_dpwssd_epi32(sum.v, x.v, w.v);
    asm("" : "+v"(all));
    return {all};
  }
  // Nibble kNibble of each word.
  template <int kNibble>
  Words nibbles() const {
    const __m512i words = _mm512_srli_epi16(v, 4 * kNibble);
    return {kNibble == 3 ? words : _mm512_and_si512(words, _mm512_set1_epi16(15))};
  }
  // Of dwords that are scales with their zeros (kernels/gemm_a16.h).
  Words low_bytes() const { return {_mm512_and_si512(v, _mm512_set1_epi32(kZeroMask))}; }
  Vec scales() const { return {_mm512_castsi512_ps(_mm512_andnot_si512(_mm512_set1_epi32(kZeroMask), v))}; }
  // Of dwords as integers of 32 bits.
  Words times(int32_t x) const { return {_mm512_mullo_epi32(v, _mm512_set1_epi32(x))}; }
  Vec to_floats() const { return {_mm512_cvtepi32_ps(v)}; }
};

// Sixteen integers, nearest even. Requires: |x| < 32768.
inline __m256i words_of(Vec x) { return _mm512_cvtsepi32_epi16(_mm512_cvtps_epi32(x.v)); }

inline __m256i multiply_add(__m256i sum, __m256i x, __m256i w) { return _mm256_dpwssd_epi32(sum, x, w); }

inline void turn_chunk(const std::byte* columns, TurnedChunk& to) {
  __m512i rows[16];
#pragma GCC unroll 16
  for (int n = 0; n < 16; ++n) rows[n] = _mm512_loadu_si512(columns + n * 64);
  transpose(rows);
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) _mm512_store_si512(to.dwords[i], rows[i]);
}

#include "kernels/cpu/simd/gemm_a16.inl"

}  // namespace

void gemm_a16(const GemmA16Args& a) { multiply(a); }

void gemm_a16_grouped(const GroupedA16Args& a) { run_grouped(a.products, a.scratch, kSteps); }

}  // namespace millrace::avx512
#pragma GCC pop_options
