// gemm_a16 of simd/gemm_a16.inl for this instruction set.
#include <immintrin.h>

#include <algorithm>
#include <cstring>

#include "kernels/cpu/avx2/vec.h"
#include "kernels/cpu/gemm_grouped_impls.h"
#include "kernels/parallel.h"

#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
namespace millrace::avx2 {
namespace {

#include "kernels/cpu/simd/math.inl"

constexpr int kFloatRows = 1;

struct Nibbles {
  explicit Nibbles(const std::byte* at)
      : a(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(at))),
        b(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(at + 32))) {}
  __m256i a, b;
};
struct NibbleTable {
  explicit NibbleTable(Vec values) : values(values) {}
  Vec at(const Nibbles& nibbles, int shift) const { return {pick(nibbles.a, shift), pick(nibbles.b, shift)}; }

  // Bit 3 of an index chooses between the halves of the table.
  __m256 pick(__m256i words, int shift) const {
    const __m256i index = _mm256_srl_epi32(words, _mm_cvtsi32_si128(shift));
    return _mm256_blendv_ps(_mm256_permutevar8x32_ps(values.a, index), _mm256_permutevar8x32_ps(values.b, index),
                            _mm256_castsi256_ps(_mm256_slli_epi32(index, 28)));
  }
  Vec values;
};

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

}  // namespace

void gemm_a16(const GemmA16Args& a) { gemm_a16_of<FloatDot>(a); }

void gemm_a16_grouped(const GroupedA16Args& a) { gemm_a16_grouped_of<FloatDot>(a); }

}  // namespace millrace::avx2
#pragma GCC pop_options
