// Blocks of rows are unpacked as the formats' formulas say, value by value, wherever a block begins and ends.
#include "weights/packed_words.h"

#include <gtest/gtest.h>

#include <vector>

#include "base/random.h"

namespace millrace {
namespace {

std::vector<uint32_t> random_words(int64_t count, uint64_t seed) {
  Random random(seed);
  std::vector<uint32_t> words(static_cast<size_t>(count));
  for (uint32_t& word : words) word = random();
  return words;
}

uint8_t low_first(uint32_t word, int64_t i, int bits) {
  const uint32_t value = word >> (i % (32 / bits) * bits);
  return static_cast<uint8_t>(bits == 4 ? value & 15 : (value & 255) - 128);
}

// unpack(begin, end, values) against want(n, k), for many ranges of rows.
template <class Unpack, class Want>
void expect_rows(int64_t N, int64_t K, const Unpack& unpack, const Want& want) {
  Random random(static_cast<uint64_t>(N * K));
  for (int round = 0; round < 20; ++round) {
    const int64_t begin = round == 0 ? 0 : random.below(static_cast<uint32_t>(N));
    const int64_t end = round == 0 ? N : begin + 1 + random.below(static_cast<uint32_t>(N - begin));
    std::vector<uint8_t> values(static_cast<size_t>((end - begin) * K), 0xee);
    unpack(begin, end, values.data());
    for (int64_t n = begin; n < end; ++n)
      for (int64_t k = 0; k < K; ++k)
        ASSERT_EQ(values[static_cast<size_t>((n - begin) * K + k)], want(n, k))
            << n << ' ' << k << " of " << N << ' ' << K;
  }
}

TEST(PackedWords, AwqColumnsShareAWordTheEvenOnesInItsLowHalf) {
  constexpr int kShift[] = {0, 16, 4, 20, 8, 24, 12, 28};
  for (const int64_t N : {8, 24, 72, 272})
    for (const int64_t K : {1, 7, 8, 33, 128, 152}) {
      const auto words = random_words(K * N / 8, 1);
      expect_rows(
          N, K, [&](auto begin, auto end, uint8_t* to) { unpack_awq_words(words.data(), N, K, begin, end, to); },
          [&](int64_t n, int64_t k) { return words[static_cast<size_t>(k * N / 8 + n / 8)] >> kShift[n % 8] & 15; });
    }
}

TEST(PackedWords, GptqWordsHoldNeighbouringInputsLowestFirst) {
  for (const int bits : {4, 8})
    for (const int64_t N : {8, 21, 64})
      for (const int64_t K : {8, 40, 128}) {
        const auto words = random_words(K * bits / 32 * N, 2);
        expect_rows(
            N, K,
            [&](auto begin, auto end, uint8_t* to) { unpack_gptq_words(words.data(), bits, N, K, begin, end, to); },
            [&](int64_t n, int64_t k) {
              return low_first(words[static_cast<size_t>(k * bits / 32 * N + n)], k, bits);
            });
      }
}

TEST(PackedWords, RowsOfWordsMayEndInTheMiddleOfOne) {
  for (const int bits : {4, 8})
    for (const int64_t N : {1, 9})
      for (const int64_t K : {1, 5, 8, 31, 64}) {
        const int64_t width = (K * bits + 31) / 32;
        const auto words = random_words(N * width, 3);
        expect_rows(
            N, K,
            [&](auto begin, auto end, uint8_t* to) { unpack_row_words(words.data(), bits, width, K, begin, end, to); },
            [&](int64_t n, int64_t k) {
              return low_first(words[static_cast<size_t>(n * width + k * bits / 32)], k, bits);
            });
      }
}

}  // namespace
}  // namespace millrace
