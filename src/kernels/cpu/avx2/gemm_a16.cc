// gemm_a16 on 16-bit products: x becomes integers, nibbles are integers. A scale multiplies the sum of its k, which is
// exact; so is what a zero takes from that, the sum of x.
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

// The k of a chunk that share a scale are a unit.
struct Work {
  explicit Work(const GemmA16Args& args)
      : a(args),
        layout(args),
        blocks(blocks_of(args.M, 1)),
        pairs(layout.padded_k / 2),
        units(layout.padded_k / kA16ChunkK * layout.chunk_scales),
        x(reinterpret_cast<uint32_t*>(args.scratch)),
        x_sums(reinterpret_cast<int32_t*>(x + args.M * pairs)),
        scales(reinterpret_cast<float*>(x_sums + args.M * units)) {}
  const GemmA16Args& a;
  const A16Layout layout;
  const RowBlocks blocks;
  const int64_t pairs, units;
  uint32_t* const x;      // in blocks
  int32_t* const x_sums;  // of a unit, as x lies: [units] of a block's rows; negative
  float* const scales;    // of the M rows
};
constexpr int64_t work_bytes(int64_t rows, int64_t K) {
  return round_up_to_64(rows * (a16_padded_k(K) * 2 + a16_padded_k(K) / kA16ChunkK * 4 * 4 + 4));
}

// ---- rows of x ----

inline int32_t sum_of(__m256i dwords) {
  const __m128i four = _mm_add_epi32(_mm256_castsi256_si128(dwords), _mm256_extracti128_si256(dwords, 1));
  const __m128i two = _mm_add_epi32(four, _mm_unpackhi_epi64(four, four));
  return _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32(two, 1)));
}

void prepare(const GemmA16Args& a, int64_t block) {
  const Work work(a);
  const int64_t first = block * work.blocks.width, count = work.blocks.width_at(first);
  const int64_t unit_k = kA16ChunkK / work.layout.chunk_scales;
  Vec factors[kTileRows];
  __m256i sums[kTileRows];
  for (int64_t r = 0; r < count; ++r) {
    const RowScale scale = RowScale::of(0, largest_bits(a, first + r), 2);
    work.scales[first + r] = scale.scale, factors[r] = Vec::set(scale.factor), sums[r] = _mm256_setzero_si256();
  }
  int32_t* x_sums = work.x_sums + first * work.units;
  store_block(count, work.layout.padded_k, work.x + first * work.pairs, [&](int64_t r, int64_t k) {
    const __m256i words = words_of(activations(a, first + r, k) * factors[r]);
    sums[r] = _mm256_add_epi32(sums[r], _mm256_madd_epi16(words, _mm256_set1_epi16(-1)));
    if ((k + 16) % unit_k == 0) *x_sums++ = sum_of(sums[r]), sums[r] = _mm256_setzero_si256();
    return words;
  });
}

// ---- a chunk's nibbles ----

constexpr int64_t kChunkDwords = kA16ChunkK / 8;  // of a column: two words of four nibbles
constexpr int64_t kStretch = 1024;                // of k, turned at a time for all rows
struct alignas(64) Turned {
  uint32_t dwords[kChunkDwords][16];  // of sixteen columns beside each other
};

// use(i, dword i of eight columns) for the dwords of a chunk, four at a time. Columns are 64 bytes.
template <class Use>
inline __attribute__((always_inline)) void turn(const std::byte* columns, const Use& use) {
  for (int i = 0; i < kChunkDwords; i += 4) {
    const auto both = [&](int n) __attribute__((always_inline)) {  // four dwords of columns n and n + 4
      const auto* at = reinterpret_cast<const __m128i*>(columns + n * 64 + i * 4);
      return _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128(at)), _mm_loadu_si128(at + 16), 1);
    };
    const __m256i a = both(0), b = both(1), c = both(2), d = both(3);
    const __m256i ab = _mm256_unpacklo_epi32(a, b), cd = _mm256_unpacklo_epi32(c, d);
    use(i, _mm256_unpacklo_epi64(ab, cd));
    use(i + 1, _mm256_unpackhi_epi64(ab, cd));
    const __m256i ef = _mm256_unpackhi_epi32(a, b), gh = _mm256_unpackhi_epi32(c, d);
    use(i + 2, _mm256_unpacklo_epi64(ef, gh));
    use(i + 3, _mm256_unpackhi_epi64(ef, gh));
  }
}

// Asks for what lies a few chunks behind one.
inline void fetch_chunk(const std::byte* chunk) {
  constexpr int64_t kAhead = 2048;
  for (int64_t i = 0; i < 17; ++i) _mm_prefetch(reinterpret_cast<const char*>(chunk + i * 64 + kAhead), _MM_HINT_T0);
}
inline void turn_chunk(const std::byte* columns, Turned& to) {
  for (int64_t n = 0; n < 16; n += 8)
    turn(
        columns + n * 64, [&](int i, __m256i dwords) __attribute__((always_inline)) {
          _mm256_store_si256(reinterpret_cast<__m256i*>(to.dwords[i] + n), dwords);
        });
}

// Nibble kNibble of each word.
template <int kNibble>
inline __m256i nibbles(__m256i dwords) {
  const __m256i words = _mm256_srli_epi16(dwords, 4 * kNibble);
  return kNibble == 3 ? words : _mm256_and_si256(words, _mm256_set1_epi16(15));
}

// ---- a tile ----

// Adds 32 of k.
template <int kRows, int kNibble>
inline __attribute__((always_inline)) void multiply_nibble(const uint32_t* x, const Turned& w,
                                                           __m256i (&sums)[kRows][2]) {
  for (int64_t i = 0; i < kChunkDwords; ++i) {
    const auto* const dwords = reinterpret_cast<const __m256i*>(w.dwords[i]);
    add_products<kRows>(x + i * kRows, nibbles<kNibble>(_mm256_load_si256(dwords)),
                        nibbles<kNibble>(_mm256_load_si256(dwords + 1)), sums);
  }
}

// Adds unit kUnit of kScales of a chunk to y; `scales`: of its sixteen columns.
template <int kRows, int kScales, int kUnit>
inline __attribute__((always_inline)) void multiply_unit(const uint32_t* x, const int32_t* x_sums, const Turned& w,
                                                         const std::byte* scales, bool fresh, float* y) {
  constexpr int kFirst = kUnit * 4 / kScales, kCount = 4 / kScales;
  const auto* const columns = reinterpret_cast<const __m256i*>(scales);
  const __m256i low = _mm256_set1_epi32(kZeroMask);
  const __m256i words[] = {_mm256_loadu_si256(columns), _mm256_loadu_si256(columns + 1)};
  __m256i sums[kRows][2];
#pragma GCC unroll 12
  for (int i = 0; i < 2 * kRows; ++i)
    sums[i / 2][i % 2] = _mm256_mullo_epi32(_mm256_and_si256(words[i % 2], low), _mm256_set1_epi32(x_sums[i / 2]));
  multiply_nibble<kRows, kFirst>(x, w, sums);
  if constexpr (kCount > 1) multiply_nibble<kRows, kFirst + 1>(x + kChunkDwords * kRows, w, sums);
  if constexpr (kCount > 2) {
    multiply_nibble<kRows, 2>(x + 2 * kChunkDwords * kRows, w, sums);
    multiply_nibble<kRows, 3>(x + 3 * kChunkDwords * kRows, w, sums);
  }
#pragma GCC unroll 12
  for (int i = 0; i < 2 * kRows; ++i) {
    float* const to = y + i * 8;
    const __m256 scale = _mm256_castsi256_ps(_mm256_andnot_si256(low, words[i % 2]));
    const __m256 before = fresh ? _mm256_setzero_ps() : _mm256_loadu_ps(to);
    _mm256_storeu_ps(to, _mm256_fmadd_ps(_mm256_cvtepi32_ps(sums[i / 2][i % 2]), scale, before));
  }
}

// A block's rows from `row` on against `count` chunks of a panel, number `chunk` and on; adds to y, rows 16 apart.
template <int kRows, int kScales>
void run_tile(const Work& work, int64_t row, int64_t chunk, int64_t count, const std::byte* w, const Turned* turned,
              float* y) {
  const uint32_t* x = work.x + row * work.pairs + chunk * kA16ChunkK / 2 * kRows;
  const int32_t* x_sums = work.x_sums + row * work.units + chunk * kScales * kRows;
  for (int64_t i = 0; i < count;
       ++i, w += work.layout.chunk_bytes, x += kA16ChunkK / 2 * kRows, x_sums += kScales * kRows)
    [&]<int... kUnit>(std::integer_sequence<int, kUnit...>) __attribute__((always_inline)) {
      (multiply_unit<kRows, kScales, kUnit>(x + kUnit * (kA16ChunkK / 2 / kScales) * kRows, x_sums + kUnit * kRows,
                                            turned[i], w + kUnit * 64, chunk + i == 0 && kUnit == 0, y),
       ...);
    }
  (std::make_integer_sequence<int, kScales>());
}

// ---- one row: columns one by one, along k ----

// sums[s] = a chunk of a column times the row's, sixteen words at a time.
template <int kScales>
inline __attribute__((always_inline)) void multiply_column(const uint32_t* x, const std::byte* column,
                                                           __m256i (&sums)[kScales][8], int n) {
  const auto* const words = reinterpret_cast<const __m256i*>(column);
  const __m256i w[] = {_mm256_loadu_si256(words), _mm256_loadu_si256(words + 1)};
  const auto product = [&]<int kNibble>() __attribute__((always_inline)) {
    const auto* const at = reinterpret_cast<const __m256i*>(x + kNibble * kChunkDwords);
    return _mm256_add_epi32(_mm256_madd_epi16(_mm256_loadu_si256(at), nibbles<kNibble>(w[0])),
                            _mm256_madd_epi16(_mm256_loadu_si256(at + 1), nibbles<kNibble>(w[1])));
  };
  const __m256i each[] = {product.template operator()<0>(), product.template operator()<1>(),
                          product.template operator()<2>(), product.template operator()<3>()};
  if constexpr (kScales == 4) {
    sums[0][n] = each[0], sums[1][n] = each[1], sums[2][n] = each[2], sums[3][n] = each[3];
  } else {
    const __m256i first = _mm256_add_epi32(each[0], each[1]), second = _mm256_add_epi32(each[2], each[3]);
    if constexpr (kScales == 2)
      sums[0][n] = first, sums[1][n] = second;
    else
      sums[0][n] = _mm256_add_epi32(first, second);
  }
}

// Lane n: the sum of vector n's lanes.
inline __m256i lane_sums(const __m256i (&v)[8]) {
  const auto pairs = [&](int i) __attribute__((always_inline)) {
    return _mm256_add_epi32(_mm256_unpacklo_epi32(v[i], v[i + 1]), _mm256_unpackhi_epi32(v[i], v[i + 1]));
  };
  const auto fours = [&](int i) __attribute__((always_inline)) {
    const __m256i low = pairs(i), high = pairs(i + 2);
    return _mm256_add_epi32(_mm256_unpacklo_epi64(low, high), _mm256_unpackhi_epi64(low, high));
  };
  const __m256i low = fours(0), high = fours(4);
  return _mm256_add_epi32(_mm256_permute2x128_si256(low, high, 0x20), _mm256_permute2x128_si256(low, high, 0x31));
}

// y += eight columns of a chunk.
template <int kScales>
inline __m256 add_columns(const uint32_t* x, const int32_t* x_sums, const std::byte* scales, const std::byte* columns,
                          __m256 y) {
  __m256i sums[kScales][8];
  for (int n = 0; n < 8; ++n) multiply_column<kScales>(x, columns + n * 64, sums, n);
  const __m256i low = _mm256_set1_epi32(kZeroMask);
  for (int s = 0; s < kScales; ++s) {
    const __m256i word = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(scales + s * 64));
    const __m256i zeros = _mm256_mullo_epi32(_mm256_and_si256(word, low), _mm256_set1_epi32(x_sums[s]));
    const __m256 scale = _mm256_castsi256_ps(_mm256_andnot_si256(low, word));
    y = _mm256_fmadd_ps(_mm256_cvtepi32_ps(_mm256_add_epi32(lane_sums(sums[s]), zeros)), scale, y);
  }
  return y;
}

template <int kScales>
void run_row(const Work& work, const std::byte* w, float* y) {
  const uint32_t* x = work.x;
  const int32_t* x_sums = work.x_sums;
  __m256 first = _mm256_setzero_ps(), second = first;
  for (int64_t k = 0; k < work.layout.padded_k; k += kA16ChunkK) {
    fetch_chunk(w);
    const std::byte* const columns = w + kScales * 64;
    first = add_columns<kScales>(x, x_sums, w, columns, first);
    second = add_columns<kScales>(x, x_sums, w + 32, columns + 512, second);
    w += work.layout.chunk_bytes, x += kA16ChunkK / 2, x_sums += kScales;
  }
  Vec{first, second}.store(y);
}

// ---- a product in steps: blocks of rows become words, then panels are multiplied ----

inline void finish_rows(const Work& work, int64_t panel, int64_t begin, int64_t end, const float* sums) {
  const GemmA16Args& a = work.a;
  const int64_t column = panel * 16, n = lanes_left(column, a.N);
  const Vec bias = a.bias ? Vec::load_n(a.bias + column, n) : Vec::zero();
  for (int64_t m = begin; m < end; ++m, sums += 16) {
    const Vec y = Vec::load(sums) * Vec::set(work.scales[m]);
    (a.bias ? y + bias : y).store_n(a.y + m * a.y_stride + column, n);
  }
}

constexpr int64_t kMostRows = 504;  // that meet a panel at a time: whole blocks

// What a thread needs for itself.
struct Own {
  Turned turned[kStretch / kA16ChunkK];
  float sums[kMostRows * 16];
};
static_assert(sizeof(Own) <= kA16OwnBytes);

template <int kScales>
void run_rows(const Work& work, int64_t panel, int64_t begin, int64_t end, Own& own) {
  const A16Layout& l = work.layout;
  const int64_t most = work.blocks.count() == 1 ? 1 : kStretch / kA16ChunkK;  // memory is to be read all the time
  const std::byte* w = work.a.w + panel * l.panel_bytes;
  for (int64_t chunk = 0; chunk < l.padded_k / kA16ChunkK; chunk += most, w += most * l.chunk_bytes) {
    const int64_t count = std::min(most, l.padded_k / kA16ChunkK - chunk);
    for (int64_t i = 0; i < count; ++i) {
      fetch_chunk(w + i * l.chunk_bytes);
      turn_chunk(w + i * l.chunk_bytes + kScales * 64, own.turned[i]);
    }
    for (int64_t row = begin; row < end; row += work.blocks.width)
      with_rows<kTileRows, 1>(work.blocks.width_at(row), [&]<int kRows> {
        run_tile<kRows, kScales>(work, row, chunk, count, w, own.turned, own.sums + (row - begin) * 16);
      });
  }
}
template <int kScales>
void run_panel_of(const Work& work, int64_t panel, Own& own) {
  const int64_t M = work.a.M, rows = kMostRows / work.blocks.width * work.blocks.width;
  for (int64_t row = 0; row < M; row += rows) {
    const int64_t end = std::min(M, row + rows);
    if (M == 1)
      run_row<kScales>(work, work.a.w + panel * work.layout.panel_bytes, own.sums);
    else
      run_rows<kScales>(work, panel, row, end, own);
    finish_rows(work, panel, row, end, own.sums);
  }
}

void run_panel(const GemmA16Args& a, int64_t panel, std::byte* memory) {
  const Work work(a);
  auto& own = *reinterpret_cast<Own*>(memory);
  if (work.layout.chunk_scales == 1) run_panel_of<1>(work, panel, own);
  if (work.layout.chunk_scales == 2) run_panel_of<2>(work, panel, own);
  if (work.layout.chunk_scales == 4) run_panel_of<4>(work, panel, own);
}

constexpr GemmSteps<GemmA16Args> kSteps{.preparations = [](const GemmA16Args& a) { return Work(a).blocks.count(); },
                                        .prepare = prepare,
                                        .items = [](const GemmA16Args& a) { return A16Layout(a).panels; },
                                        .run = run_panel,
                                        .own_bytes = kA16OwnBytes};

}  // namespace

void gemm_a16(const GemmA16Args& a) { run_alone(a, kSteps, gemm_a16_threads(a), a.scratch + work_bytes(a.M, a.K)); }

void gemm_a16_grouped(const GroupedA16Args& a) { run_grouped(a.products, a.scratch, kSteps); }

}  // namespace millrace::avx2
#pragma GCC pop_options
