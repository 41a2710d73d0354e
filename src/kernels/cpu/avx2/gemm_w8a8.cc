// gemm_w8a8 on 16-bit products, which cannot overflow where products of bytes would saturate.
#include <immintrin.h>

#include <cstring>

#include "kernels/cpu/avx2/vec.h"
#include "kernels/cpu/gemm_grouped_impls.h"
#include "kernels/parallel.h"

#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
namespace millrace::avx2 {
namespace {

#include "kernels/cpu/simd/math.inl"

inline Vec activations(const GemmW8A8Args& a, int64_t row, int64_t k) {
  const int64_t n = lanes_left(k, a.K), at = row * a.x_stride + k;
  if (a.x_dtype == DType::kF32) return Vec::load_n(static_cast<const float*>(a.x) + at, n);
  alignas(32) bf16 some[16] = {};
  if (n > 0) std::memcpy(some, static_cast<const bf16*>(a.x) + at, static_cast<size_t>(n) * sizeof(bf16));
  return Vec::load(some);
}

inline uint32_t largest_bits(const GemmW8A8Args& a, int64_t row) {
  const __m256i mask = _mm256_set1_epi32(0x7fffffff);
  __m256i all = _mm256_setzero_si256();
  for (int64_t k = 0; k < a.K; k += 16) {
    const Vec x = activations(a, row, k);
    all = _mm256_max_epu32(all, _mm256_and_si256(mask, _mm256_castps_si256(x.a)));
    all = _mm256_max_epu32(all, _mm256_and_si256(mask, _mm256_castps_si256(x.b)));
  }
  alignas(32) uint32_t lanes[8];
  _mm256_store_si256(reinterpret_cast<__m256i*>(lanes), all);
  return *std::max_element(lanes, lanes + 8);
}

// A row as int16, zero from K to padded_k; returns its scale.
inline float quantize_row(const GemmW8A8Args& a, int64_t row, int64_t padded_k, int16_t* to) {
  if (a.x_dtype == DType::kI8) {
    const auto* x = static_cast<const int8_t*>(a.x) + row * a.x_stride;
    for (int64_t k = 0; k < padded_k; ++k) to[k] = x[k];
    return made_scale(x, a.K);
  }
  const RowScale scale = RowScale::of(a.x_scale, a.x_scale > 0 ? 0 : largest_bits(a, row));
  const Vec factor = Vec::set(scale.factor), low = Vec::set(-128), high = Vec::set(127);
  for (int64_t k = 0; k < padded_k; k += 16) {
    const Vec x = scale.factor == 0 || k >= a.K ? Vec::zero() : activations(a, row, k);
    const Vec p = Vec::max(Vec::min(x * factor, high), low);
    const __m256i words = _mm256_packs_epi32(_mm256_cvtps_epi32(p.a), _mm256_cvtps_epi32(p.b));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + k), _mm256_permute4x64_epi64(words, 0xd8));
  }
  return scale.scale;
}

// A row as int16, high digits, then low ones; returns its scale.
inline float quantize_row_to_digits(const GemmW8A8Args& a, int64_t row, int64_t padded_k, int16_t* to) {
  const RowScale scale = RowScale::of(0, largest_bits(a, row), 2);
  for (int64_t k = 0; k < padded_k; k += 16) {
    const Vec p = scale.factor == 0 || k >= a.K ? Vec::zero() : activations(a, row, k) * Vec::set(scale.factor);
    const __m256i pairs = _mm256_packs_epi32(_mm256_cvtps_epi32(p.a), _mm256_cvtps_epi32(p.b));
    const __m256i words = _mm256_permute4x64_epi64(pairs, 0xd8);
    const __m256i high = _mm256_srai_epi16(_mm256_add_epi16(words, _mm256_set1_epi16(128)), 8);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + k), high);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + padded_k + k),
                        _mm256_srai_epi16(_mm256_slli_epi16(words, 8), 8));
  }
  return scale.scale;
}

inline __m256i four_columns(const std::byte* at) {
  return _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at)));
}

inline Vec sums_of(const __m256i (&pairs)[4]) {
  float sums[16];
  for (int i = 0; i < 4; ++i) {
    const __m128i four = _mm_hadd_epi32(_mm256_castsi256_si128(pairs[i]), _mm256_extracti128_si256(pairs[i], 1));
    _mm_storeu_ps(sums + 4 * i, _mm_cvtepi32_ps(four));
  }
  return Vec::load(sums);
}

// Sums of sixteen columns, one row's digits.
template <int kDigits>
inline Vec multiply_row(const std::byte* panel, const int16_t* p, int64_t padded_k) {
  __m256i acc[kDigits][4] = {};
  for (int64_t k = 0; k < padded_k; k += 4) {
    __m256i x[kDigits];
    for (int d = 0; d < kDigits; ++d) {
      int64_t four;
      std::memcpy(&four, p + d * padded_k + k, 8);
      x[d] = _mm256_set1_epi64x(four);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      const __m256i columns = four_columns(panel + k * 16 + i * 16);
#pragma GCC unroll 2
      for (int d = 0; d < kDigits; ++d) acc[d][i] = _mm256_add_epi32(acc[d][i], _mm256_madd_epi16(x[d], columns));
    }
  }
  Vec all = sums_of(acc[0]);
  if constexpr (kDigits == 2) all = all * Vec::set(256) + sums_of(acc[1]);
  return all;
}

// ---- a product in steps: rows become int16, then panels are multiplied ----

int16_t* words_of(const GemmW8A8Args& a) { return reinterpret_cast<int16_t*>(a.scratch); }
float* scales_of(const GemmW8A8Args& a) {
  return reinterpret_cast<float*>(words_of(a) + a.M * a.x_digits * w8a8_padded_k(a.K));
}

void quantize(const GemmW8A8Args& a, int64_t row) {
  const int64_t padded_k = w8a8_padded_k(a.K);
  int16_t* to = words_of(a) + row * a.x_digits * padded_k;
  scales_of(a)[row] =
      a.x_digits == 1 ? quantize_row(a, row, padded_k, to) : quantize_row_to_digits(a, row, padded_k, to);
}

void run_panel(const GemmW8A8Args& a, int64_t panel, std::byte*) {
  const W8A8Layout layout(a);
  const int64_t column = panel * 16, n = lanes_left(column, a.N);
  for (int64_t m = 0; m < a.M; ++m) {
    const int16_t* row = words_of(a) + m * a.x_digits * layout.padded_k;
    const Vec sums = a.x_digits == 1 ? multiply_row<1>(layout.panel(a, panel), row, layout.padded_k)
                                     : multiply_row<2>(layout.panel(a, panel), row, layout.padded_k);
    Vec y = sums * Vec::load_n(a.scales + column, n) * Vec::set(scales_of(a)[m]);
    if (a.bias) y = y + Vec::load_n(a.bias + column, n);
    y.store_n(a.y + m * a.y_stride + column, n);
  }
}

constexpr GemmSteps<GemmW8A8Args> kSteps{.preparations = [](const GemmW8A8Args& a) { return a.M; },
                                         .prepare = quantize,
                                         .items = [](const GemmW8A8Args& a) { return W8A8Layout(a).panels; },
                                         .run = run_panel,
                                         .own_bytes = 0};

}  // namespace

void gemm_w8a8(const GemmW8A8Args& a) { run_alone(a, kSteps, gemm_w8a8_threads(a)); }

void gemm_w8a8_grouped(const GroupedW8A8Args& a) { run_grouped(a.products, a.scratch, kSteps); }

}  // namespace millrace::avx2
#pragma GCC pop_options
