// gemm_w8a8 on 16-bit products, which cannot overflow where products of bytes would saturate.
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

// Rows of blocks are digits of rows of x.
struct Work {
  explicit Work(const GemmW8A8Args& args)
      : a(args),
        layout(args),
        blocks(even_blocks(args.M * args.x_digits, kTileRows, args.x_digits)),
        pairs(layout.padded_k / 2),
        x(reinterpret_cast<uint32_t*>(args.scratch)),
        scales(reinterpret_cast<float*>(x + blocks.rows * pairs)) {}
  const GemmW8A8Args& a;
  const W8A8Layout layout;
  const RowBlocks blocks;
  const int64_t pairs;
  uint32_t* const x;
  float* const scales;  // of the M rows
};

// ---- a tile ----

// A panel has four of k of a column beside each other: the words of the first and third, of the second and fourth.
inline __m256i even_words(__m256i fours) { return _mm256_srai_epi16(_mm256_slli_epi16(fours, 8), 8); }
inline __m256i odd_words(__m256i fours) { return _mm256_srai_epi16(fours, 8); }
// x, made of words in their order, has them like this, too.
inline __m256i in_turn(__m256i words) {
  return _mm256_shufflehi_epi16(_mm256_shufflelo_epi16(words, 0xd8), 0xd8);  // 0, 2, 1, 3 of each four
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

// Of the rows, kDigits are one of y.
template <int kRows, int kDigits>
void run_tile(const Work& work, int64_t row, int64_t panel) {
  constexpr int64_t kAhead = 2048;
  const GemmW8A8Args& a = work.a;
  __m256i sums[kRows][2];
#pragma GCC unroll 12
  for (int i = 0; i < 2 * kRows; ++i) sums[i / 2][i % 2] = _mm256_setzero_si256();
  const uint32_t* x = work.x + row * work.pairs;
  const std::byte* w = work.layout.panel(a, panel);
  for (const std::byte* end = w + work.layout.panel_bytes; w < end; w += 64, x += 2 * kRows) {
    _mm_prefetch(reinterpret_cast<const char*>(w + kAhead), _MM_HINT_T0);
    const auto* columns = reinterpret_cast<const __m256i*>(w);
    const __m256i first = _mm256_loadu_si256(columns), second = _mm256_loadu_si256(columns + 1);
    add_products<kRows>(x, even_words(first), even_words(second), sums);
    add_products<kRows>(x + kRows, odd_words(first), odd_words(second), sums);
  }
  const int64_t column = panel * 16, n = lanes_left(column, a.N);
  const Vec scales = Vec::load_n(a.scales + column, n), bias = a.bias ? Vec::load_n(a.bias + column, n) : Vec::zero();
#pragma GCC unroll 6
  for (int r = 0; r < kRows; r += kDigits) {
    const int64_t m = (row + r) / kDigits;
    Vec y{_mm256_cvtepi32_ps(sums[r][0]), _mm256_cvtepi32_ps(sums[r][1])};
    if constexpr (kDigits == 2)
      y = y * Vec::set(256) + Vec{_mm256_cvtepi32_ps(sums[r + 1][0]), _mm256_cvtepi32_ps(sums[r + 1][1])};
    y = y * scales * Vec::set(work.scales[m]);
    (a.bias ? y + bias : y).store_n(a.y + m * a.y_stride + column, n);
  }
}

// ---- a product in steps: blocks of rows become words, then panels are multiplied ----

// How row `row` becomes integers; what they stand for goes to the scales.
inline Vec factor_of(const Work& work, int64_t row) {
  const GemmW8A8Args& a = work.a;
  if (a.x_dtype == DType::kI8) {
    work.scales[row] = made_scale(static_cast<const int8_t*>(a.x) + row * a.x_stride, a.K);
    return Vec::zero();
  }
  const RowScale scale = RowScale::of(a.x_scale, a.x_scale > 0 ? 0 : largest_bits(a, row), a.x_digits);
  work.scales[row] = scale.scale;
  return Vec::set(scale.factor);
}

inline __m256i digit_of(const GemmW8A8Args& a, int64_t row, int64_t k, Vec factor) {
  if (a.x_dtype == DType::kI8) {
    const auto* x = static_cast<const int8_t*>(a.x) + row * a.x_stride + k;
    return _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(x)));
  }
  return words_of(Vec::max(Vec::min(activations(a, row, k) * factor, Vec::set(127)), Vec::set(-128)));
}
// Of two: the high one, then the low one.
inline __m256i digit_of_two(const GemmW8A8Args& a, int64_t row, int64_t k, Vec factor, bool low) {
  const __m256i words = words_of(activations(a, row, k) * factor);
  return low ? _mm256_srai_epi16(_mm256_slli_epi16(words, 8), 8)
             : _mm256_srai_epi16(_mm256_add_epi16(words, _mm256_set1_epi16(128)), 8);
}

void prepare(const GemmW8A8Args& a, int64_t block) {
  const Work work(a);
  const int64_t first = block * work.blocks.width, count = work.blocks.width_at(first), row = first / a.x_digits;
  Vec factors[kTileRows];
  for (int64_t r = 0; r < count / a.x_digits; ++r) factors[r] = factor_of(work, row + r);
  store_block<kTileRows>(count, work.layout.padded_k, work.x + first * work.pairs, [&](int64_t r, int64_t k) {
    return in_turn(a.x_digits == 1 ? digit_of(a, row + r, k, factors[r])
                                   : digit_of_two(a, row + r / 2, k, factors[r / 2], r % 2 != 0));
  });
}

constexpr int64_t kItemPanels = 4;  // that a block of x meets while it is near

template <int kDigits>
void run_item_of(const Work& work, int64_t item) {
  const int64_t first = item * kItemPanels, end = std::min(work.layout.panels, first + kItemPanels);
  for (int64_t row = 0; row < work.blocks.rows; row += work.blocks.width)
    with_rows<kTileRows, kDigits>(work.blocks.width_at(row), [&]<int kRows> {
      for (int64_t panel = first; panel < end; ++panel) run_tile<kRows, kDigits>(work, row, panel);
    });
}
void run_item(const GemmW8A8Args& a, int64_t item, std::byte*) {
  const Work work(a);
  a.x_digits == 1 ? run_item_of<1>(work, item) : run_item_of<2>(work, item);
}

constexpr GemmSteps<GemmW8A8Args> kSteps{
    .preparations = [](const GemmW8A8Args& a) { return Work(a).blocks.count(); },
    .prepare = prepare,
    .items = [](const GemmW8A8Args& a) { return (W8A8Layout(a).panels + kItemPanels - 1) / kItemPanels; },
    .run = run_item,
    .own_bytes = 0};

}  // namespace

void gemm_w8a8(const GemmW8A8Args& a) { run_alone(a, kSteps, gemm_w8a8_threads(a)); }

void gemm_w8a8_grouped(const GroupedW8A8Args& a) { run_grouped(a.products, a.scratch, kSteps); }

}  // namespace millrace::avx2
#pragma GCC pop_options
