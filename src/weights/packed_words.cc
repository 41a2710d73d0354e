#include "weights/packed_words.h"

#include <algorithm>
#include <cstring>

namespace millrace {
namespace {

constexpr int kAwqNibble[] = {0, 4, 1, 5, 2, 6, 3, 7};

// The eight nibbles of a word as bytes, the lowest first.
uint64_t nibbles(uint32_t word) {
  uint64_t x = word;
  x = (x | x << 16) & 0x0000ffff0000ffffu;
  x = (x | x << 8) & 0x00ff00ff00ff00ffu;
  return (x | x << 4) & 0x0f0f0f0f0f0f0f0fu;
}

// Exchanges the bits of `mask`, shifted up, of a with those of `mask` of b.
void exchange(uint64_t& a, uint64_t& b, int shift, uint64_t mask) {
  const uint64_t t = (a >> shift ^ b) & mask;
  b ^= t;
  a ^= t << shift;
}

// Byte j of rows[i] becomes byte i of rows[j].
void transpose_bytes(uint64_t (&rows)[8]) {
  for (int i = 0; i < 4; ++i) exchange(rows[i], rows[i + 4], 32, 0x00000000ffffffffu);
  for (const int i : {0, 1, 4, 5}) exchange(rows[i], rows[i + 2], 16, 0x0000ffff0000ffffu);
  for (const int i : {0, 2, 4, 6}) exchange(rows[i], rows[i + 1], 8, 0x00ff00ff00ff00ffu);
}

constexpr int64_t kAwqWords = 16;  // a cache line of them: eight rows each
constexpr int64_t kAwqK = 64;      // a cache line of values

// A piece of AutoAWQ's words: up to 16 neighbours, of up to 64 k, a multiple of 8.
struct AwqPiece {
  uint32_t words[kAwqK][kAwqWords];
  int64_t K;
};

// The eight rows of word `at`, `stride` apart.
void unpack_awq_word(const AwqPiece& piece, int64_t at, int64_t stride, uint8_t* values) {
  for (int64_t k = 0; k < piece.K; k += 8) {
    uint64_t rows[8];
    for (int64_t i = 0; i < 8; ++i) rows[i] = nibbles(piece.words[k + i][at]);
    transpose_bytes(rows);
    for (int64_t j = 0; j < 8; ++j) std::memcpy(values + j * stride + k, &rows[kAwqNibble[j]], 8);
  }
}

// The rows of `count` words, at most kAwqWords, from row 8 * block on. What was read of a line of the file, and written
// of a line of values, is whole before it leaves the cache.
void unpack_awq_line(const uint32_t* words, int64_t width, int64_t K, int64_t block, int64_t count, uint8_t* values) {
  const int64_t whole = K / 8 * 8;
  AwqPiece piece;
  for (int64_t k0 = 0; k0 < whole; k0 += kAwqK) {
    piece.K = std::min(kAwqK, whole - k0);
    for (int64_t k = 0; k < piece.K; ++k) std::copy_n(words + (k0 + k) * width + block, count, piece.words[k]);
    for (int64_t i = 0; i < count; ++i) unpack_awq_word(piece, i, K, values + 8 * i * K + k0);
  }
  for (int64_t j = 0; j < 8 * count; ++j)
    for (int64_t k = whole; k < K; ++k) values[j * K + k] = awq_value(words, 8 * width, k, 8 * block + j);
}

// A word's values at `to`.
void store_word(uint32_t word, int bits, uint8_t* to) {
  if (bits == 4) {
    const uint64_t bytes = nibbles(word);
    std::memcpy(to, &bytes, 8);
  } else {
    const uint32_t bytes = word ^ 0x80808080u;
    std::memcpy(to, &bytes, 4);
  }
}

}  // namespace

uint8_t awq_value(const uint32_t* words, int64_t N, int64_t k, int64_t n) {
  return words[k * (N / 8) + n / 8] >> (4 * kAwqNibble[n % 8]) & 15;
}

void unpack_awq_words(const uint32_t* words, int64_t N, int64_t K, int64_t begin, int64_t end, uint8_t* values) {
  for (int64_t n = begin; n < end;) {
    uint8_t* const to = values + (n - begin) * K;
    if (n % 8 == 0 && n + 8 <= end) {
      const int64_t count = std::min(kAwqWords, (end - n) / 8);
      unpack_awq_line(words, N / 8, K, n / 8, count, to);
      n += 8 * count;
    } else {
      for (int64_t k = 0; k < K; ++k) to[k] = awq_value(words, N, k, n);
      ++n;
    }
  }
}

void unpack_gptq_words(const uint32_t* words, int bits, int64_t N, int64_t K, int64_t begin, int64_t end,
                       uint8_t* values) {
  constexpr int64_t kColumns = 8;  // read from a line of words at a time
  const int64_t per_word = 32 / bits;
  for (int64_t first = begin; first < end; first += kColumns) {
    const int64_t last = std::min(end, first + kColumns);
    for (int64_t k = 0; k < K; k += per_word)
      for (int64_t n = first; n < last; ++n)
        store_word(words[k / per_word * N + n], bits, values + (n - begin) * K + k);
  }
}

void unpack_row_words(const uint32_t* words, int bits, int64_t width, int64_t K, int64_t begin, int64_t end,
                      uint8_t* values) {
  const int64_t per_word = 32 / bits, whole = K / per_word * per_word;
  for (int64_t n = begin; n < end; ++n) {
    uint8_t* const to = values + (n - begin) * K;
    for (int64_t k = 0; k < whole; k += per_word) store_word(words[n * width + k / per_word], bits, to + k);
    if (whole == K) continue;
    uint8_t rest[8];
    store_word(words[n * width + whole / per_word], bits, rest);
    std::memcpy(to + whole, rest, static_cast<size_t>(K - whole));
  }
}

}  // namespace millrace
