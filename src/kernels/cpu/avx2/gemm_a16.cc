// gemm_a16 of simd/gemm_a16.inl for this instruction set.
#include <immintrin.h>

#include <algorithm>
#include <cstring>
#include <span>

#include "kernels/cpu/avx2/vec.h"
#include "kernels/cpu/gemm_grouped_impls.h"
#include "kernels/parallel.h"

#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
namespace millrace::avx2 {
namespace {

#include "kernels/cpu/simd/math.inl"

inline __m128 sum_of_halves(Vec x) {
  const __m256 eight = _mm256_add_ps(x.a, x.b);
  return _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
}
inline void add_sums(const Vec (&sums)[1][4], bool fresh, float* to) {
  const __m128 ab = _mm_hadd_ps(sum_of_halves(sums[0][0]), sum_of_halves(sums[0][1])),
               cd = _mm_hadd_ps(sum_of_halves(sums[0][2]), sum_of_halves(sums[0][3])), all = _mm_hadd_ps(ab, cd);
  _mm_storeu_ps(to, fresh ? all : _mm_add_ps(_mm_loadu_ps(to), all));
}

#include "kernels/cpu/simd/gemm_a16.inl"

// ---- nibbles looked up as bytes ----
//
// The low nibbles of 32 bytes of a column are 16 of unit 0 and, between them, 16 of unit 2; the high ones are of units
// 1 and 3. What they stand for in bf16 comes from a table of low and one of high bytes. Products see the elements of a
// chunk as they come out: four steps (the low nibbles of the first 32 bytes, their high ones, those of the last 32), of
// four vectors of eight each.

// Where element k of a row lies.
inline int64_t place_of(int64_t k) {
  const int64_t unit = k % 128 / 32, j = k % 16, step = k % 32 / 16 * 2 + unit % 2;
  return k / 128 * 128 + step * 32 + unit / 2 * 16 + j % 8 / 4 * 8 + j / 8 * 4 + j % 4;
}

struct ByteTable {
  // Of the scale of column n.
  void make(const std::byte* scales, int64_t n) {
    uint32_t scale;
    std::memcpy(&scale, scales + n * 4, 4);
    alignas(32) bf16 values[16];
    ((Vec::lanes() - Vec::set(static_cast<float>(int4_zero(scale)))) * Vec::set(int4_scale(scale))).store(values);
    const __m256i words = _mm256_load_si256(reinterpret_cast<const __m256i*>(values));
    const __m256i bytes =
        _mm256_packus_epi16(_mm256_and_si256(words, _mm256_set1_epi16(0xff)), _mm256_srli_epi16(words, 8));
    const __m256i halves = _mm256_permute4x64_epi64(bytes, 0xd8);  // low bytes, high bytes
    low = _mm256_permute2x128_si256(halves, halves, 0x00);
    high = _mm256_permute2x128_si256(halves, halves, 0x11);
  }
  // Pairs of bf16: those of the even nibbles in the lower, of the odd ones in the upper halves of dwords.
  void look_up(__m256i nibbles, __m256i& first, __m256i& second) const {
    const __m256i low_bytes = _mm256_shuffle_epi8(low, nibbles), high_bytes = _mm256_shuffle_epi8(high, nibbles);
    first = _mm256_unpacklo_epi8(low_bytes, high_bytes), second = _mm256_unpackhi_epi8(low_bytes, high_bytes);
  }
  __m256i low, high;
};

struct ByteDot : FloatElements {
  static constexpr int kMostRows = 1, kMostThinRows = 4;

  static void prepare(const GemmA16Args& a, int64_t row, int64_t padded_k, float* x) {
    prepare_row(a, row, padded_k, x, place_of);
  }

  // Weights whose even and odd nibbles have tables of their own, or one.
  template <int kTables>
  static W weights(__m256i nibbles, const ByteTable& even, const ByteTable& odd) {
    __m256i first, second;
    W w;
    even.look_up(nibbles, first, second);
    w.first = {_mm256_castsi256_ps(_mm256_slli_epi32(first, 16)), _mm256_castsi256_ps(_mm256_slli_epi32(second, 16))};
    if constexpr (kTables == 2) odd.look_up(nibbles, first, second);
    const __m256i upper = _mm256_set1_epi32(-65536);
    w.second = {_mm256_castsi256_ps(_mm256_and_si256(first, upper)),
                _mm256_castsi256_ps(_mm256_and_si256(second, upper))};
    return w;
  }
  // use(step, weights) for the four steps of column n of a chunk.
  template <int kScales, class Use>
  static inline __attribute__((always_inline)) void unpack_column(const std::byte* chunk, int64_t n, const Use& use) {
    constexpr int kTables = kScales == 1 ? 1 : 2;
    const __m256i nibble = _mm256_set1_epi8(15);
    ByteTable tables[kScales];
#pragma GCC unroll 4
    for (int s = 0; s < kScales; ++s) tables[s].make(chunk + s * 64, n);
    const auto* column = reinterpret_cast<const __m256i*>(chunk + kScales * 64 + n * 64);
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
      const __m256i bytes = _mm256_loadu_si256(column + half), high = _mm256_srli_epi16(bytes, 4);
      use(2 * half, weights<kTables>(_mm256_and_si256(bytes, nibble), tables[0], tables[kScales * 2 / 4]));
      use(2 * half + 1,
          weights<kTables>(_mm256_and_si256(high, nibble), tables[kScales * 1 / 4], tables[kScales * 3 / 4]));
    }
  }
  template <int kScales>
  static void unpack_of(const std::byte* chunk, int64_t first, float* to) {
    for (int64_t n = first; n < first + kDotColumns; ++n, to += kStretch)
      unpack_column<kScales>(
          chunk, n, [&](int at, const W& w) { w.first.store(to + 32 * at), w.second.store(to + 32 * at + 16); });
  }
  static void unpack(const std::byte* chunk, int64_t scales, int64_t first, float* to) {
    if (scales == 1) return unpack_of<1>(chunk, first, to);
    if (scales == 2) return unpack_of<2>(chunk, first, to);
    unpack_of<4>(chunk, first, to);
  }

  // The first `rows` of kRows rows, the others being whatever. Sums lie in memory: columns follow each other, so that
  // none waits for its own.
  template <int kScales, int kRows>
  static void thin(const std::byte* chunk, int64_t count, const float* x, int64_t x_stride, int64_t rows, bool fresh,
                   float* sums) {
    constexpr int64_t kChunkBytes = 1024 + 64 * kScales, kAhead = 2048;
    Vec acc[kRows][16];
    for (Vec& sum : std::span(&acc[0][0], kRows * 16)) sum = Vec::zero();
    const float* row[kRows];
    for (int r = 0; r < kRows; ++r) row[r] = x + std::min<int64_t>(r, rows - 1) * x_stride;
    for (int64_t k = 0; k < count; k += kA16ChunkK, chunk += kChunkBytes) {
      for (int64_t line = 0; line < kChunkBytes; line += 64)
        _mm_prefetch(reinterpret_cast<const char*>(chunk + line + kAhead), _MM_HINT_T0);
      for (int64_t n = 0; n < 16; ++n) {
        Vec some[kRows];
#pragma GCC unroll 4
        for (int r = 0; r < kRows; ++r) some[r] = acc[r][n];
        unpack_column<kScales>(
            chunk, n, [&](int at, const W& w) __attribute__((always_inline)) {
#pragma GCC unroll 4
              for (int r = 0; r < kRows; ++r) some[r] = ByteDot::step(some[r], load_x(row[r] + k + 32 * at), w);
            });
#pragma GCC unroll 4
        for (int r = 0; r < kRows; ++r) acc[r][n] = some[r];
      }
    }
    for (int r = 0; r < kRows; ++r)
      for (int n = 0; n < 16; n += 4) {
        const Vec four[1][4] = {{acc[r][n], acc[r][n + 1], acc[r][n + 2], acc[r][n + 3]}};
        add_sums(four, fresh, sums + r * 16 + n);
      }
  }
};

}  // namespace

void gemm_a16(const GemmA16Args& a) { gemm_a16_of<ByteDot>(a); }

void gemm_a16_grouped(const GroupedA16Args& a) { gemm_a16_grouped_of<ByteDot>(a); }

}  // namespace millrace::avx2
#pragma GCC pop_options
