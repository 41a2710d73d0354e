// Products of integers of sixteen bits, with panels of sixteen columns. x lies in blocks of rows; a dword is two of k.

#include "kernels/cpu/simd/row_blocks.inl"

constexpr int kTileRows = 6;  // twelve sums, two vectors of weights and a dword of x in sixteen registers

// As few blocks as can be, alike in width; rows come in multiples of `unit`.
inline RowBlocks blocks_of(int64_t rows, int64_t unit) {
  const int64_t count = (rows + kTileRows - 1) / kTileRows, share = count > 0 ? (rows + count - 1) / count : 0;
  return {rows, (share + unit - 1) / unit * unit};
}

// sum += x * w of pairs. The compiler is kept from adding two steps' products first, for which registers are too few.
inline __attribute__((always_inline)) void add_product(__m256i& sum, __m256i x, __m256i w) {
  __m256i all = _mm256_add_epi32(sum, _mm256_madd_epi16(x, w));
  asm("" : "+x"(all));
  sum = all;
}
// sums[r] += a dword of row r times those of sixteen columns.
template <int kRows>
inline __attribute__((always_inline)) void add_products(const uint32_t* x, __m256i first, __m256i second,
                                                        __m256i (&sums)[kRows][2]) {
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
    const __m256i pair = _mm256_set1_epi32(static_cast<int>(x[r]));
    add_product(sums[r][0], pair, first);
    add_product(sums[r][1], pair, second);
  }
}

// ---- rows of x, `Args` of either product ----

// Sixteen of row `row` from k on, zero from K on.
template <class Args>
inline Vec activations(const Args& a, int64_t row, int64_t k) {
  const int64_t n = lanes_left(k, a.K), at = row * a.x_stride + k;
  if (n <= 0) return Vec::zero();
  if (a.x_dtype == DType::kF32) return Vec::load_n(static_cast<const float*>(a.x) + at, n);
  const bf16* const x = static_cast<const bf16*>(a.x) + at;
  if (n == 16) return Vec::load(x);
  alignas(32) bf16 some[16] = {};
  std::memcpy(some, x, static_cast<size_t>(n) * sizeof(bf16));
  return Vec::load(some);
}

// Of the row's |x|, as the bits of a float.
template <class Args>
inline uint32_t largest_bits(const Args& a, int64_t row) {
  Vec largest = Vec::zero();
  for (int64_t k = 0; k < a.K; k += 16) largest = Vec::max_bits(largest, Vec::abs(activations(a, row, k)));
  return largest.largest_bits();
}

// Sixteen integers, nearest even. Requires: |x| < 32768.
inline __m256i words_of(Vec x) {
  const __m256i pairs = _mm256_packs_epi32(_mm256_cvtps_epi32(x.a), _mm256_cvtps_epi32(x.b));
  return _mm256_permute4x64_epi64(pairs, 0xd8);
}

// A block of rows: words(r, k) are sixteen of row r from k on.
template <class Words>
inline void store_block(int64_t rows, int64_t padded_k, uint32_t* to, const Words& words) {
  alignas(32) uint32_t dwords[kTileRows][8];
  for (int64_t k = 0; k < padded_k; k += 16) {
    for (int64_t r = 0; r < rows; ++r) _mm256_store_si256(reinterpret_cast<__m256i*>(dwords[r]), words(r, k));
    for (int i = 0; i < 8; ++i)
      for (int64_t r = 0; r < rows; ++r) *to++ = dwords[r][i];
  }
}
