// gemm_a16 on integers of sixteen bits: x becomes integers, nibbles are integers. A scale multiplies the sum of its k,
// which is exact; so is what a zero takes from that, the sum of x. Requires of the instruction set:
//   Words: sixteen dwords, each two such integers. load(), set(), nibbles<i>(), add_products(), ...
//   words_of(): sixteen floats, below 32768, as integers, nearest even
//   turn_chunk(columns, to): to[i][j] = dword i of column j of a chunk
//   kTileRows, kTilePanels: of a tile of many rows; kThinRows: that one panel meets in one tile; kStretch: of k, which
//   are turned at a time for many rows
//   multiply_add(sum, x, w): eight sums of pairs of words

constexpr int kMostTileRows = std::max(kTileRows, kThinRows);
constexpr int64_t kMostRows = 504;  // that meet a panel at a time: whole blocks
static_assert(kMostRows % kTileRows == 0 && kStretch % kA16ChunkK == 0);

// What a thread needs for itself.
struct Own {
  TurnedChunk turned[kTilePanels][kStretch / kA16ChunkK];
  float sums[kTilePanels][kMostRows * 16];
};
static_assert(sizeof(Own) <= kA16OwnBytes);

// The k of a chunk that share a scale are a unit.
struct Work {
  explicit Work(const GemmA16Args& args)
      : a(args),
        layout(args),
        blocks(args.M <= kThinRows ? RowBlocks{args.M, args.M} : even_blocks(args.M, kTileRows, 1)),
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
  Vec factors[kMostTileRows];
  __m256i sums[kMostTileRows];
  for (int64_t r = 0; r < count; ++r) {
    const RowScale scale = RowScale::of(0, largest_bits(a, first + r), 2);
    work.scales[first + r] = scale.scale, factors[r] = Vec::set(scale.factor), sums[r] = _mm256_setzero_si256();
  }
  int32_t* x_sums = work.x_sums + first * work.units;
  store_block<kMostTileRows>(count, work.layout.padded_k, work.x + first * work.pairs, [&](int64_t r, int64_t k) {
    const __m256i words = words_of(activations(a, first + r, k) * factors[r]);
    sums[r] = _mm256_add_epi32(sums[r], _mm256_madd_epi16(words, _mm256_set1_epi16(-1)));
    if ((k + 16) % unit_k == 0) *x_sums++ = sum_of(sums[r]), sums[r] = _mm256_setzero_si256();
    return words;
  });
}

// ---- a tile ----

// Adds 32 of k. Panels' chunks lie as in Own.
template <int kNibble, int kRows, int kPanels>
inline __attribute__((always_inline)) void multiply_nibble(const uint32_t* x, const TurnedChunk* w,
                                                           Words (&sums)[kRows][kPanels]) {
  for (int64_t i = 0; i < kA16ChunkDwords; ++i) {
    Words columns[kPanels];
#pragma GCC unroll 2
    for (int p = 0; p < kPanels; ++p)
      columns[p] = Words::load(w[p * kStretch / kA16ChunkK].dwords[i]).template nibbles<kNibble>();
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      const Words pair = Words::set(x[i * kRows + r]);
#pragma GCC unroll 2
      for (int p = 0; p < kPanels; ++p) sums[r][p] = Words::add_products(sums[r][p], pair, columns[p]);
    }
  }
}

// Where the panels of a tile lie: scales of a chunk, and outputs, rows 16 apart.
template <int kPanels>
struct TilePanels {
  const std::byte* scales[kPanels];
  float* y[kPanels];
};

// Adds unit kUnit of kScales of a chunk to y.
template <int kRows, int kPanels, int kScales, int kUnit>
inline __attribute__((always_inline)) void multiply_unit(const uint32_t* x, const int32_t* x_sums, const TurnedChunk* w,
                                                         const TilePanels<kPanels>& panels, bool fresh) {
  constexpr int kFirst = kUnit * 4 / kScales, kCount = 4 / kScales;
  Words sums[kRows][kPanels];
#pragma GCC unroll 2
  for (int p = 0; p < kPanels; ++p) {
    const Words zeros = Words::load(panels.scales[p] + kUnit * 64).low_bytes();
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) sums[r][p] = zeros.times(x_sums[r]);
  }
  multiply_nibble<kFirst>(x, w, sums);
  if constexpr (kCount > 1) multiply_nibble<kFirst + 1>(x + kA16ChunkDwords * kRows, w, sums);
  if constexpr (kCount > 2) {
    multiply_nibble<2>(x + 2 * kA16ChunkDwords * kRows, w, sums);
    multiply_nibble<3>(x + 3 * kA16ChunkDwords * kRows, w, sums);
  }
#pragma GCC unroll 2
  for (int p = 0; p < kPanels; ++p) {
    const Vec scale = Words::load(panels.scales[p] + kUnit * 64).scales();
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      float* const to = panels.y[p] + r * 16;
      Vec::fma(sums[r][p].to_floats(), scale, fresh ? Vec::zero() : Vec::load(to)).store(to);
    }
  }
}

// A block's rows from `row` on against `count` chunks of panels, number `chunk` and on; adds to y.
template <int kRows, int kPanels, int kScales>
void run_tile(const Work& work, int64_t row, int64_t chunk, int64_t count, const TurnedChunk* turned,
              TilePanels<kPanels> panels) {
  const uint32_t* x = work.x + row * work.pairs + chunk * kA16ChunkK / 2 * kRows;
  const int32_t* x_sums = work.x_sums + row * work.units + chunk * kScales * kRows;
  for (int64_t i = 0; i < count; ++i, x += kA16ChunkK / 2 * kRows, x_sums += kScales * kRows) {
    [&]<int... kUnit>(std::integer_sequence<int, kUnit...>) __attribute__((always_inline)) {
      (multiply_unit<kRows, kPanels, kScales, kUnit>(x + kUnit * (kA16ChunkK / 2 / kScales) * kRows,
                                                     x_sums + kUnit * kRows, turned + i, panels,
                                                     chunk + i == 0 && kUnit == 0),
       ...);
    }(std::make_integer_sequence<int, kScales>());
    for (const std::byte*& scales : panels.scales) scales += work.layout.chunk_bytes;
  }
}

// Asks for what lies a few chunks behind one.
template <int kScales>
inline void fetch_chunk(const std::byte* chunk) {
  constexpr int64_t kAhead = 2048, kLines = 16 + kScales;
  for (int64_t i = 0; i < kLines; ++i)
    _mm_prefetch(reinterpret_cast<const char*>(chunk + i * 64 + kAhead), _MM_HINT_T0);
}

// ---- one row: columns one by one, along k ----

// sums[s][n] = a chunk of column n times the row's, sixteen words at a time.
template <int kScales>
inline __attribute__((always_inline)) void multiply_column(const uint32_t* x, const std::byte* column,
                                                           __m256i (&sums)[kScales][8], int n) {
  const auto* const words = reinterpret_cast<const __m256i*>(column);
  const __m256i first = _mm256_loadu_si256(words), second = _mm256_loadu_si256(words + 1);
  const auto add = [&]<int kNibble>(__m256i sum) __attribute__((always_inline)) {
    const auto* const at = reinterpret_cast<const __m256i*>(x + kNibble * kA16ChunkDwords);
    sum = multiply_add(sum, _mm256_loadu_si256(at), nibbles_of<kNibble>(first));
    return multiply_add(sum, _mm256_loadu_si256(at + 1), nibbles_of<kNibble>(second));
  };
  const __m256i zero = _mm256_setzero_si256();
  const __m256i sum = add.template operator()<0>(zero);
  if constexpr (kScales == 4) {
    sums[0][n] = sum, sums[1][n] = add.template operator()<1>(zero);
    sums[2][n] = add.template operator()<2>(zero), sums[3][n] = add.template operator()<3>(zero);
  } else {
    const __m256i half = add.template operator()<1>(sum);
    sums[0][n] = half;
    sums[kScales - 1][n] = add.template operator()<3>(add.template operator()<2>(kScales == 1 ? half : zero));
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
    fetch_chunk<kScales>(w);
    const std::byte* const columns = w + kScales * 64;
    first = add_columns<kScales>(x, x_sums, w, columns, first);
    second = add_columns<kScales>(x, x_sums, w + 32, columns + 512, second);
    w += work.layout.chunk_bytes, x += kA16ChunkK / 2, x_sums += kScales;
  }
  _mm256_storeu_ps(y, first), _mm256_storeu_ps(y + 8, second);
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

// Rows [begin, end) against kPanels panels.
template <int kPanels, int kScales>
void run_rows(const Work& work, int64_t panel, int64_t begin, int64_t end, Own& own) {
  const A16Layout& l = work.layout;
  const int64_t chunks = l.padded_k / kA16ChunkK;
  const int64_t most = work.blocks.count() == 1 ? 1 : kStretch / kA16ChunkK;  // memory is to be read all the time
  for (int64_t chunk = 0; chunk < chunks; chunk += most) {
    const int64_t count = std::min(most, chunks - chunk);
    const std::byte* const w = work.a.w + panel * l.panel_bytes + chunk * l.chunk_bytes;
    for (int p = 0; p < kPanels; ++p)
      for (int64_t i = 0; i < count; ++i) {
        const std::byte* const at = w + p * l.panel_bytes + i * l.chunk_bytes;
        fetch_chunk<kScales>(at);
        turn_chunk(at + kScales * 64, own.turned[p][i]);
      }
    for (int64_t row = begin; row < end; row += work.blocks.width) {
      TilePanels<kPanels> panels;
      for (int p = 0; p < kPanels; ++p)
        panels.scales[p] = w + p * l.panel_bytes, panels.y[p] = own.sums[p] + (row - begin) * 16;
      constexpr int kMost = kPanels == 1 ? kMostTileRows : kTileRows;
      with_rows<kMost, 1>(work.blocks.width_at(row), [&]<int kRows> {
        run_tile<kRows, kPanels, kScales>(work, row, chunk, count, own.turned[0], panels);
      });
    }
  }
}

template <int kPanels, int kScales>
void run_panels(const Work& work, int64_t panel, Own& own) {
  const int64_t M = work.a.M, rows = kMostRows / work.blocks.width * work.blocks.width;
  for (int64_t row = 0; row < M; row += rows) {
    const int64_t end = std::min(M, row + rows);
    if (M == 1)
      run_row<kScales>(work, work.a.w + panel * work.layout.panel_bytes, own.sums[0]);
    else
      run_rows<kPanels, kScales>(work, panel, row, end, own);
    for (int p = 0; p < kPanels; ++p) finish_rows(work, panel + p, row, end, own.sums[p]);
  }
}

template <int kScales>
void run_item_of(const Work& work, int64_t item, Own& own) {
  const int64_t first = item * kTilePanels, end = std::min(work.layout.panels, first + kTilePanels);
  if (end - first == kTilePanels && work.blocks.count() > 1) return run_panels<kTilePanels, kScales>(work, first, own);
  for (int64_t panel = first; panel < end; ++panel) run_panels<1, kScales>(work, panel, own);
}
void run_item(const GemmA16Args& a, int64_t item, std::byte* memory) {
  const Work work(a);
  auto& own = *reinterpret_cast<Own*>(memory);
  if (work.layout.chunk_scales == 1) run_item_of<1>(work, item, own);
  if (work.layout.chunk_scales == 2) run_item_of<2>(work, item, own);
  if (work.layout.chunk_scales == 4) run_item_of<4>(work, item, own);
}

constexpr GemmSteps<GemmA16Args> kSteps{
    .preparations = [](const GemmA16Args& a) { return Work(a).blocks.count(); },
    .prepare = prepare,
    .items = [](const GemmA16Args& a) { return (A16Layout(a).panels + kTilePanels - 1) / kTilePanels; },
    .run = run_item,
    .own_bytes = kA16OwnBytes};

inline void multiply(const GemmA16Args& a) {
  run_alone(a, kSteps, gemm_a16_threads(a), a.scratch + a16_words_bytes(a.M, a.K));
}
