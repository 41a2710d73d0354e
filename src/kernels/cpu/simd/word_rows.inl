// Rows of x as integers of sixteen bits, in blocks; a dword is two of k. `Args` of products of integer weights.

#include "kernels/cpu/simd/row_blocks.inl"

// As few blocks of at most `most` rows as can be, alike in width; rows come in multiples of `unit`.
inline RowBlocks even_blocks(int64_t rows, int64_t most, int64_t unit) {
  const int64_t count = (rows + most - 1) / most, share = count > 0 ? (rows + count - 1) / count : 0;
  return {rows, (share + unit - 1) / unit * unit};
}

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

// A block of at most kMost rows: words(r, k) are sixteen of row r from k on.
template <int kMost, class Words>
inline void store_block(int64_t rows, int64_t padded_k, uint32_t* to, const Words& words) {
  alignas(32) uint32_t dwords[kMost][8];
  for (int64_t k = 0; k < padded_k; k += 16) {
    for (int64_t r = 0; r < rows; ++r) _mm256_store_si256(reinterpret_cast<__m256i*>(dwords[r]), words(r, k));
    for (int i = 0; i < 8; ++i)
      for (int64_t r = 0; r < rows; ++r) *to++ = dwords[r][i];
  }
}

// Of weights: nibble kNibble of each word.
template <int kNibble>
inline __m256i nibbles_of(__m256i dwords) {
  const __m256i words = _mm256_srli_epi16(dwords, 4 * kNibble);
  return kNibble == 3 ? words : _mm256_and_si256(words, _mm256_set1_epi16(15));
}
