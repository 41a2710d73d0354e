// Products with panels of sixteen columns in which four bytes of k of each column lie beside each other, a dword: bf16
// pairs, int8 fours. A step of a panel is 64 bytes. Rows of x lie in blocks, the dwords of a block's rows beside each
// other, so that a tile reads x front to back.
// Included into the anonymous namespace of a product, under its instruction set.

#include "kernels/cpu/simd/row_blocks.inl"

constexpr int kTileRows = 12, kTilePanels = 2;  // 24 sums, two steps of panels and a dword of x in 32 registers
constexpr int kThinRows = 24;                   // that one panel at a time meets in one tile
constexpr int kFewRows = 4;                     // that had better read one panel after the other: reading bounds them
constexpr int64_t kStepBytes = 64;

// One block where a tile takes all rows.
inline RowBlocks blocks_of(int64_t rows) { return {rows, rows <= kThinRows ? rows : kTileRows}; }

// ---- x into blocks, four rows at a time ----

inline int64_t groups_of_four(int64_t rows) { return (rows + 3) / 4; }

// Four vectors' dwords beside each other: to[j * width + i] = dword j of rows[i], i below `count`.
inline void store_interleaved(const __m512i (&rows)[4], int64_t count, int64_t width, uint32_t* to) {
  const __m512i t[] = {_mm512_unpacklo_epi32(rows[0], rows[1]), _mm512_unpackhi_epi32(rows[0], rows[1]),
                       _mm512_unpacklo_epi32(rows[2], rows[3]), _mm512_unpackhi_epi32(rows[2], rows[3])};
  const __m512i fours[] = {_mm512_unpacklo_epi64(t[0], t[2]), _mm512_unpackhi_epi64(t[0], t[2]),
                           _mm512_unpacklo_epi64(t[1], t[3]), _mm512_unpackhi_epi64(t[1], t[3])};
  const auto mask = static_cast<__mmask8>((1u << count) - 1);
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {  // dwords i, 4 + i, 8 + i, 12 + i
    const __m128i each[] = {_mm512_castsi512_si128(fours[i]), _mm512_extracti32x4_epi32(fours[i], 1),
                            _mm512_extracti32x4_epi32(fours[i], 2), _mm512_extracti32x4_epi32(fours[i], 3)};
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      uint32_t* const at = to + (4 * j + i) * width;
      if (count == 4)
        _mm_storeu_si128(reinterpret_cast<__m128i*>(at), each[j]);
      else
        _mm_mask_storeu_epi32(at, mask, each[j]);
    }
  }
}

// Rows 4 * group and on of x into their block; `x`: where the first block begins. chunk(row, i): the row's dwords
// 16 * i and on.
template <class Chunk>
inline void interleave_group(const RowBlocks& blocks, int64_t group, int64_t dwords, uint32_t* x, const Chunk& chunk) {
  const int64_t row = group * 4, block = row / blocks.width * blocks.width, width = blocks.width_at(block);
  const int64_t count = std::min<int64_t>(4, blocks.rows - row);
  uint32_t* to = x + block * dwords + (row - block);
  for (int64_t i = 0; i < dwords / 16; ++i, to += 16 * width) {
    __m512i rows[4] = {};
    for (int64_t r = 0; r < count; ++r) rows[r] = chunk(row + r, i);
    if (width == 1)
      _mm512_storeu_si512(to, rows[0]);
    else
      store_interleaved(rows, count, width, to);
  }
}

// ---- a tile ----

// Panels `apart` bytes from each other. `ahead`: what is fetched meanwhile, bytes from what is read.
template <class Op, int kRows, int kPanels>
inline __attribute__((always_inline)) void multiply_steps(const uint32_t* x, const std::byte* w, int64_t apart,
                                                          int64_t steps, int64_t ahead,
                                                          typename Op::Sum (&sums)[kRows][kPanels]) {
  for (const std::byte* end = w + steps * kStepBytes; w < end; w += kStepBytes, x += kRows) {
    __m512i columns[kPanels];
#pragma GCC unroll 4
    for (int p = 0; p < kPanels; ++p) {
      const std::byte* at = w + p * apart;
      _mm_prefetch(reinterpret_cast<const char*>(at + ahead), _MM_HINT_T0);
      columns[p] = _mm512_loadu_si512(at);
    }
#pragma GCC unroll 32
    for (int r = 0; r < kRows; ++r) {
      const __m512i dword = _mm512_set1_epi32(static_cast<int>(x[r]));
#pragma GCC unroll 4
      for (int p = 0; p < kPanels; ++p) sums[r][p] = Op::step(sums[r][p], dword, columns[p]);
    }
  }
}

// sums[r][p] = Op::step of it and every step, in rising order: kRows rows of a block as wide as that against kPanels
// panels of `steps` steps. Near the end the panels that follow are fetched: neighbours, or where these are apart.
template <class Op, int kRows, int kPanels>
inline __attribute__((always_inline)) void multiply(const uint32_t* x, const std::byte* w, int64_t steps, int64_t apart,
                                                    typename Op::Sum (&sums)[kRows][kPanels]) {
  const int64_t panel_bytes = steps * kStepBytes, first = std::max<int64_t>(0, steps - Op::kAhead / kStepBytes);
  const int64_t passed = apart == panel_bytes ? (kPanels - 1) * panel_bytes : 0;
  multiply_steps<Op, kRows, kPanels>(x, w, apart, first, Op::kAhead, sums);
  multiply_steps<Op, kRows, kPanels>(x + first * kRows, w + first * kStepBytes, apart, steps - first,
                                     Op::kAhead + passed, sums);
}

// Where a tile's outputs go: row r's of panel p to at + r * stride + 16 * p.
struct TileOutput {
  float* at;
  int64_t stride;
};

// run<kRows, kPanels>(row, panel) for all blocks of rows and the panels of one item of work: kTilePanels from `panel`
// on, or one where no more are left. Rows come in multiples of kUnit.
template <int kUnit, class Run>
inline void run_tiles(const RowBlocks& blocks, int64_t panel, int64_t panels, const Run& run) {
  const bool whole = panel + kTilePanels <= panels;
  if (whole && blocks.width > kFewRows && blocks.width <= kTileRows) {
    for (int64_t row = 0; row < blocks.rows; row += blocks.width)
      with_rows<kTileRows, kUnit>(blocks.width_at(row),
                                  [&]<int kRows> { run.template operator()<kRows, kTilePanels>(row, panel); });
    return;
  }
  for (int64_t p = panel; p < std::min(panels, panel + kTilePanels); ++p)
    for (int64_t row = 0; row < blocks.rows; row += blocks.width)
      with_rows<kThinRows, kUnit>(blocks.width_at(row), [&]<int kRows> { run.template operator()<kRows, 1>(row, p); });
}

// ---- gated products ----

// Whether a gated product's panels hold gates or ups, and its rows fall into blocks: gates and ups meet in tiles then.
template <class Args>
bool meets_in_tiles(const Args& product) {
  return product.N % 32 == 0 && product.M > kThinRows;
}

// A panel of gates and ups, block by block: run<kRows>(row, panel, output) multiplies both panels.
template <class Gated, int kUnit, class Run>
inline void run_gated_tiles(const Gated& gated, const RowBlocks& blocks, int64_t panel, const Run& run) {
  alignas(64) float halves[kTileRows][32];
  with_activation(gated.activation, gated.y_dtype, [&]<class Act>() {
    const auto finish = [&]<class Y>(Y* y, int64_t rows) {
      for (int64_t r = 0; r < rows; ++r, y += gated.y_stride)
        (Act::apply(Vec::load(halves[r])) * Vec::load(halves[r] + 16)).store(y);
    };
    for (int64_t row = 0; row < blocks.rows; row += blocks.width) {
      const int64_t count = blocks.width_at(row), at = row / kUnit * gated.y_stride + panel * 16;
      with_rows<kTileRows, kUnit>(count, [&]<int kRows> { run.template operator()<kRows>(row, TileOutput{halves[0], 32}); });
      gated.y_dtype == DType::kBf16 ? finish(static_cast<bf16*>(gated.y) + at, count / kUnit)
                                    : finish(static_cast<float*>(gated.y) + at, count / kUnit);
    }
  });
}
