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

inline __m512 added_pairs(__m512 a, __m512 b) {
  return _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
}
inline void store_sums_of_four(const Vec (&sums)[4], float* to) {
  const __m512d ab = _mm512_castps_pd(added_pairs(sums[0].v, sums[1].v));
  const __m512d cd = _mm512_castps_pd(added_pairs(sums[2].v, sums[3].v));
  const __m512 all =
      _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(ab, cd)), _mm512_castpd_ps(_mm512_unpackhi_pd(ab, cd)));
  const __m256 half = _mm256_add_ps(_mm512_castps512_ps256(all), _mm512_extractf32x8_ps(all, 1));
  _mm_store_ps(to, _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1)));
}

#include "kernels/cpu/simd/gemm_a16.inl"

// 32 of k as sixteen bf16 pairs.
struct PairDot {
  using Element = bf16;
  using W = __m512bh;
  using X = __m512bh;
  static constexpr int64_t kStretch = kA16DotStretchBytes / 16 / sizeof(bf16);
  static constexpr int kMostRows = 4;

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
  template <int kScales>
  static void unpack_int4_of(const std::byte* chunk, bf16* to) {
    const Int4Tables<kScales> tables(chunk);
    for (int n = 0; n < 16; ++n) {
      __m512i units[4];
      unpack_int4_units(chunk + kScales * 64 + n * 64, tables, n, units);
      for (int i = 0; i < 4; ++i) _mm512_storeu_si512(to + n * kStretch + 32 * i, units[i]);
    }
  }
  static void unpack(const std::byte* chunk, int64_t scales, int64_t done, bf16* to) {
    to += done;
    if (scales == 1) return unpack_int4_of<1>(chunk, to);
    if (scales == 2) return unpack_int4_of<2>(chunk, to);
    unpack_int4_of<4>(chunk, to);
  }
};

}  // namespace

void gemm_a16(const GemmA16Args& a) { gemm_a16_of<FloatDot>(a); }
void gemm_a16_pairs(const GemmA16Args& a) { gemm_a16_of<PairDot>(a); }

void gemm_a16_grouped(const GroupedA16Args& a) { gemm_a16_grouped_of<FloatDot>(a); }
void gemm_a16_grouped_pairs(const GroupedA16Args& a) { gemm_a16_grouped_of<PairDot>(a); }

}  // namespace millrace::avx512
#pragma GCC pop_options
