// gemm_a16 of simd/gemm_a16.inl for this instruction set.
#include <immintrin.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "kernels/cpu/avx2/vec.h"
#include "kernels/cpu/gemm_grouped_impls.h"
#include "kernels/parallel.h"

#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
namespace millrace::avx2 {
namespace {

#include "kernels/cpu/simd/math.inl"

#include "kernels/cpu/avx2/word_tiles.inl"

constexpr int kTilePanels = 1, kThinRows = kTileRows;
constexpr int64_t kStretch = 1024;

struct Words {
  __m256i a, b;

  static Words load(const void* at) {
    const auto* const eight = static_cast<const __m256i*>(at);
    return {_mm256_loadu_si256(eight), _mm256_loadu_si256(eight + 1)};
  }
  static Words set(uint32_t dword) {
    const __m256i all = _mm256_set1_epi32(static_cast<int>(dword));
    return {all, all};
  }
  // sum += x * w of pairs.
  static inline __attribute__((always_inline)) Words add_products(Words sum, Words x, Words w) {
    add_product(sum.a, x.a, w.a), add_product(sum.b, x.b, w.b);
    return sum;
  }
  // Nibble kNibble of each word.
  template <int kNibble>
  Words nibbles() const {
    return {nibbles_of<kNibble>(a), nibbles_of<kNibble>(b)};
  }
  // Of dwords that are scales with their zeros (kernels/gemm_a16.h).
  Words low_bytes() const {
    const __m256i low = _mm256_set1_epi32(kZeroMask);
    return {_mm256_and_si256(a, low), _mm256_and_si256(b, low)};
  }
  Vec scales() const {
    const __m256i low = _mm256_set1_epi32(kZeroMask);
    return {_mm256_castsi256_ps(_mm256_andnot_si256(low, a)), _mm256_castsi256_ps(_mm256_andnot_si256(low, b))};
  }
  // Of dwords as integers of 32 bits.
  Words times(int32_t x) const {
    const __m256i all = _mm256_set1_epi32(x);
    return {_mm256_mullo_epi32(a, all), _mm256_mullo_epi32(b, all)};
  }
  Vec to_floats() const { return {_mm256_cvtepi32_ps(a), _mm256_cvtepi32_ps(b)}; }
};

inline __m256i multiply_add(__m256i sum, __m256i x, __m256i w) {
  return _mm256_add_epi32(sum, _mm256_madd_epi16(x, w));
}

// Eight columns and four of their dwords at a time.
inline void turn_chunk(const std::byte* columns, TurnedChunk& to) {
  for (int64_t n = 0; n < 16; n += 8, columns += 8 * 64)
    for (int64_t i = 0; i < kA16ChunkDwords; i += 4) {
      const auto both = [&](int column)
          __attribute__((always_inline)) {  // four dwords of this one and of the fourth after
        const auto* at = reinterpret_cast<const __m128i*>(columns + column * 64 + i * 4);
        return _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128(at)), _mm_loadu_si128(at + 16), 1);
      };
      const auto store = [&](int64_t row, __m256i dwords) __attribute__((always_inline)) {
        _mm256_store_si256(reinterpret_cast<__m256i*>(to.dwords[i + row] + n), dwords);
      };
      const __m256i a = both(0), b = both(1), c = both(2), d = both(3);
      const __m256i ab = _mm256_unpacklo_epi32(a, b), cd = _mm256_unpacklo_epi32(c, d);
      const __m256i ef = _mm256_unpackhi_epi32(a, b), gh = _mm256_unpackhi_epi32(c, d);
      store(0, _mm256_unpacklo_epi64(ab, cd)), store(1, _mm256_unpackhi_epi64(ab, cd));
      store(2, _mm256_unpacklo_epi64(ef, gh)), store(3, _mm256_unpackhi_epi64(ef, gh));
    }
}

#include "kernels/cpu/simd/gemm_a16.inl"

}  // namespace

void gemm_a16(const GemmA16Args& a) { multiply(a); }

void gemm_a16_grouped(const GroupedA16Args& a) { run_grouped(a.products, a.scratch, kSteps); }

}  // namespace millrace::avx2
#pragma GCC pop_options
