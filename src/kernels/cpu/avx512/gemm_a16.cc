// gemm_a16 with vdpbf16ps, a stretch of columns at a time. Up to sixteen rows meet nibbles that become pairs of bf16 in
// registers; more meet a copy in the first-level cache. Each output is summed over a stretch in the same order,
// whichever tile it falls into; stretches are added in rising order.
#include <immintrin.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "kernels/cpu/avx512/unpack.h"
#include "kernels/cpu/avx512/vec.h"
#include "kernels/cpu/gemm_grouped_impls.h"
#include "kernels/parallel.h"

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx2,fma,f16c")
namespace millrace::avx512 {
namespace {

#include "kernels/cpu/simd/math.inl"

// ---- sums of lanes, of several vectors at once: (((0 + 2) + (1 + 3)) of each four, then (I + II) + (III + IV) ----

inline __m512 added_pairs(__m512 a, __m512 b) {
  return _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
}
// Lane i of each four: what is in that four of vector i.
inline __m512 added_fours(const Vec& a, const Vec& b, const Vec& c, const Vec& d) {
  const __m512d ab = _mm512_castps_pd(added_pairs(a.v, b.v)), cd = _mm512_castps_pd(added_pairs(c.v, d.v));
  return _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(ab, cd)), _mm512_castpd_ps(_mm512_unpackhi_pd(ab, cd)));
}
// Neighbouring fours of both.
inline __m512 added_neighbours(__m512 a, __m512 b) {
  return _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd));
}
inline void add_four(__m128 sums, bool fresh, float* to) {
  _mm_storeu_ps(to, fresh ? sums : _mm_add_ps(_mm_loadu_ps(to), sums));
}
inline void add_two(__m128 sums, bool fresh, float* to) {  // the lower two lanes
  auto* const at = reinterpret_cast<__m64*>(to);
  _mm_storel_pi(at, fresh ? sums : _mm_add_ps(_mm_loadl_pi(_mm_setzero_ps(), at), sums));
}

// to[r][n] = or += the lanes of sums[r][n], rows 16 apart. Four sums at a time, or sixteen where they are as many.
template <int kRows, int kColumns>
inline __attribute__((always_inline)) void add_sums(const Vec (&sums)[kRows][kColumns], bool fresh, float* to) {
  constexpr int kFours = kRows * kColumns / 4;
  __m512 fours[kFours];
#pragma GCC unroll 8
  for (int i = 0; i < kFours; ++i) {
    const int a = 4 * i, b = a + 1, c = a + 2, d = a + 3;
    fours[i] = added_fours(sums[a / kColumns][a % kColumns], sums[b / kColumns][b % kColumns],
                           sums[c / kColumns][c % kColumns], sums[d / kColumns][d % kColumns]);
  }
  __m128 done[kFours];
  if constexpr (kFours == 4) {
    const __m512 all = added_neighbours(added_neighbours(fours[0], fours[1]), added_neighbours(fours[2], fours[3]));
    done[0] = _mm512_castps512_ps128(all), done[1] = _mm512_extractf32x4_ps(all, 1);
    done[2] = _mm512_extractf32x4_ps(all, 2), done[3] = _mm512_extractf32x4_ps(all, 3);
  } else {
#pragma GCC unroll 8
    for (int i = 0; i < kFours; ++i) {
      const __m512 pairs = added_neighbours(fours[i], fours[i]);
      done[i] = _mm512_castps512_ps128(added_neighbours(pairs, pairs));
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < kFours; ++i) {
    const int r = 4 * i / kColumns;
    if constexpr (kColumns >= 4) {
      add_four(done[i], fresh, to + r * 16 + 4 * i % kColumns);
    } else {
      add_two(done[i], fresh, to + r * 16);
      add_two(_mm_movehl_ps(done[i], done[i]), fresh, to + (r + 1) * 16);
    }
  }
}

#include "kernels/cpu/avx512/pairs.inl"

#include "kernels/cpu/simd/row_blocks.inl"

constexpr int64_t kDotRows = 512;   // that meet a panel at a time
constexpr int64_t kDotColumns = 8;  // of a panel that are unpacked at a time
constexpr int64_t kStretch = kA16StretchBytes / kDotColumns / static_cast<int64_t>(sizeof(bf16));  // of k
constexpr int kMostRows = 4, kMostThinRows = 16;  // against an unpacked copy, and without

// ---- nibbles as pairs of bf16 ----

// How a thin product looks up the nibbles of two columns: unit<kUnit>(words, i) is 32 of k of column n + i, unit kUnit
// of four. Shifts, where unpack_int4_unit multiplies: here the ports that multiply are the ones of the products.

// One scale: from tables in memory.
class ThinTable : public Int4Tables<1> {
 public:
  struct Lookups {
    const ThinTable& tables;
    const int64_t n;
    template <int kUnit>
    inline __attribute__((always_inline)) __m512i unit(__m512i words, int i) const {
      return _mm512_permutexvar_epi16(_mm512_srli_epi16(words, 4 * kUnit), tables.at(0, n + i));
    }
  };
  Lookups lookups(int64_t n) const { return {*this, n}; }
};

// Several: from registers that hold the tables of two scales each; bit 4 of an index chooses.
template <int kScales>
class ThinRegisters : public Int4Scales<kScales> {
 public:
  struct Lookups {
    __m512i tables[2][kScales / 2];  // of each column
    template <int kUnit>
    inline __attribute__((always_inline)) __m512i unit(__m512i words, int i) const {
      constexpr int kScale = kScales * kUnit / 4;
      const __m512i shifted = _mm512_srli_epi16(words, 4 * kUnit);
      const __m512i index = kScale % 2 ? _mm512_or_si512(shifted, _mm512_set1_epi16(16))
                                       : _mm512_and_si512(shifted, _mm512_set1_epi16(15));
      return _mm512_permutexvar_epi16(index, tables[i][kScale / 2]);
    }
  };
  inline __attribute__((always_inline)) Lookups lookups(int64_t n) const {
    Lookups all;
#pragma GCC unroll 4
    for (int i = 0; i < kScales; ++i)
      all.tables[i % 2][i / 2] = this->values_of_two(i / 2 * 2, n + i % 2, i / 2 * 2 + 1, n + i % 2);
    return all;
  }
  void make_two_columns(int64_t) {}  // only scales are made ahead
};
template <int kScales>
using ThinTables = std::conditional_t<kScales == 1, ThinTable, ThinRegisters<kScales>>;

inline __m512bh load_pairs(const bf16* at) { return reinterpret_cast<__m512bh>(_mm512_loadu_si512(at)); }
inline Vec step(Vec sum, __m512bh x, __m512bh w) { return {_mm512_dpbf16_ps(sum.v, x, w)}; }

void prepare(const GemmA16Args& a, int64_t row, int64_t padded_k, bf16* x) {
  for (int64_t i = 0; i < padded_k / 32; ++i) _mm512_storeu_si512(x + row * padded_k + 32 * i, pairs_of(a, row, i));
}
// 32 of k: unit kUnit of four. Shifts, where unpack_int4_unit multiplies: here the ports that multiply are the ones
// of the products.
template <int kUnit, int kScales>
inline __attribute__((always_inline)) __m512i unit(__m512i words, const Int4Tables<kScales>& tables, int64_t n) {
  return _mm512_permutexvar_epi16(_mm512_srli_epi16(words, 4 * kUnit), tables.at(kScales * kUnit / 4, n));
}
template <int kScales>
void unpack_int4_of(const std::byte* chunk, int64_t first, bf16* to) {
  Int4Tables<kScales> tables;
  tables.start(chunk);
  for (int64_t n = first; n < first + kDotColumns; n += 2) tables.make_two_columns(n);
  for (int64_t n = first; n < first + kDotColumns; ++n, to += kStretch) {
    const __m512i words = _mm512_loadu_si512(chunk + kScales * 64 + n * 64);
    _mm512_storeu_si512(to, unit<0>(words, tables, n));
    _mm512_storeu_si512(to + 32, unit<1>(words, tables, n));
    _mm512_storeu_si512(to + 64, unit<2>(words, tables, n));
    _mm512_storeu_si512(to + 96, unit<3>(words, tables, n));
  }
}
void unpack(const std::byte* chunk, int64_t scales, int64_t first, bf16* to) {
  if (scales == 1) return unpack_int4_of<1>(chunk, first, to);
  if (scales == 2) return unpack_int4_of<2>(chunk, first, to);
  unpack_int4_of<4>(chunk, first, to);
}

// Unit kUnit of columns n and n + 1 of those from `first` on.
template <int kUnit, int kRows, int kColumns, class Lookups>
inline __attribute__((always_inline)) void multiply_unit(Vec (&acc)[kRows][kColumns], int n,
                                                         const bf16* const (&row)[kRows], int64_t k,
                                                         const __m512i (&words)[2], const Lookups& lookups) {
  const __m512bh a = reinterpret_cast<__m512bh>(lookups.template unit<kUnit>(words[0], 0)),
                 b = reinterpret_cast<__m512bh>(lookups.template unit<kUnit>(words[1], 1));
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
    const __m512bh each = load_pairs(row[r] + k + 32 * kUnit);
    acc[r][n] = step(acc[r][n], each, a);
    acc[r][n + 1] = step(acc[r][n + 1], each, b);
  }
}
template <int kScales, int kRows, int kColumns>
void thin_columns(const std::byte* chunk, int64_t first, int64_t count, const bf16* x, int64_t x_stride, int64_t rows,
                  bool fresh, float* sums) {
  constexpr int64_t kChunkBytes = 1024 + 64 * kScales;
  Vec acc[kRows][kColumns];
#pragma GCC unroll 32
  for (int i = 0; i < kRows * kColumns; ++i) acc[i / kColumns][i % kColumns] = Vec::zero();
  const bf16* row[kRows];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) row[r] = x + std::min<int64_t>(r, rows - 1) * x_stride;
  // With one row, a little; with more, which come back to these chunks, to the same place of the next stretch.
  const int64_t ahead = kRows == 1 ? 2048 : count / kA16ChunkK * kChunkBytes;
  constexpr _mm_hint kHint = kRows <= 4 ? _MM_HINT_T0 : _MM_HINT_T1;  // the first-level cache is full of x
  ThinTables<kScales> tables[2];                                      // of this chunk and of the next
  tables[0].start(chunk);
#pragma GCC unroll 8
  for (int n = 0; n < kColumns; n += 2) tables[0].make_two_columns(first + n);
  for (int64_t k = 0; k < count; k += kA16ChunkK, chunk += kChunkBytes) {
    ThinTables<kScales>&now = tables[k / kA16ChunkK % 2], &next = tables[1 - k / kA16ChunkK % 2];
    next.start(k + kA16ChunkK < count ? chunk + kChunkBytes : chunk);
#pragma GCC unroll 4
    for (int i = 0; i < kScales; ++i) _mm_prefetch(reinterpret_cast<const char*>(chunk + i * 64 + ahead), kHint);
#pragma GCC unroll 8
    for (int n = 0; n < kColumns; n += 2) {
      next.make_two_columns(first + n);
      const std::byte* columns = chunk + kScales * 64 + (first + n) * 64;
      _mm_prefetch(reinterpret_cast<const char*>(columns + ahead), kHint);
      _mm_prefetch(reinterpret_cast<const char*>(columns + 64 + ahead), kHint);
      const __m512i words[2] = {_mm512_loadu_si512(columns), _mm512_loadu_si512(columns + 64)};
      const auto lookups = now.lookups(first + n);
      multiply_unit<0>(acc, n, row, k, words, lookups);
      multiply_unit<1>(acc, n, row, k, words, lookups);
      multiply_unit<2>(acc, n, row, k, words, lookups);
      multiply_unit<3>(acc, n, row, k, words, lookups);
    }
  }
  add_sums(acc, fresh, sums);
}

// The first `rows` of kRows rows, the others being whatever: as many columns at a time as have sums in registers.
template <int kScales, int kRows>
void thin(const std::byte* chunk, int64_t count, const bf16* x, int64_t x_stride, int64_t rows, bool fresh,
          float* sums) {
  constexpr int kColumns = kRows <= 2 ? 16 / kRows : kRows <= 6 ? 4 : 2;
  for (int64_t first = 0; first < 16; first += kColumns)
    thin_columns<kScales, kRows, kColumns>(chunk, first, count, x, x_stride, rows, fresh, sums + first);
}

// ---- stretches of a panel ----

// x prepared, as rows of padded_k elements.
struct A16Job {
  explicit A16Job(const GemmA16Args& args) : a(args), layout(args), x(reinterpret_cast<bf16*>(args.scratch)) {}

  const GemmA16Args& a;
  const A16Layout layout;
  bf16* const x;
};

// `first`: of the columns.
void unpack_stretch(const A16Job& job, int64_t panel, int64_t first, int64_t k, int64_t count, bf16* to) {
  const A16Layout& l = job.layout;
  for (int64_t done = 0; done < count; done += kA16ChunkK) {
    const std::byte* chunk = job.a.w + panel * l.panel_bytes + (k + done) / kA16ChunkK * l.chunk_bytes;
    const auto* columns = reinterpret_cast<const char*>(chunk + l.chunk_scales * 64 + first * 64);
    for (int64_t n = 0; n < kDotColumns; ++n) _mm_prefetch(columns + n * 64 + 4096, _MM_HINT_T0);
    unpack(chunk, l.chunk_scales, first, to + done);
  }
}

// kRows rows of x against four columns; adds to sums, rows 16 apart.
template <int kRows>
inline void dot_tile(const bf16* x, int64_t x_stride, const bf16* w, int64_t count, bool fresh, float* sums) {
  Vec acc[kRows][4];
#pragma GCC unroll 16  // constant indices keep operands and sums in registers
  for (int i = 0; i < kRows * 4; ++i) acc[i / 4][i % 4] = Vec::zero();
  for (int64_t k = 0; k < count; k += 32) {
    __m512bh columns[4];
#pragma GCC unroll 4
    for (int n = 0; n < 4; ++n) columns[n] = load_pairs(w + n * kStretch + k);
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
      const __m512bh row = load_pairs(x + r * x_stride + k);
#pragma GCC unroll 4
      for (int n = 0; n < 4; ++n) acc[r][n] = step(acc[r][n], row, columns[n]);
    }
  }
  add_sums(acc, fresh, sums);
}

// Against the unpacked columns.
inline void dot_rows(const bf16* x, int64_t x_stride, const bf16* w, int64_t count, bool fresh, int64_t rows,
                     float* sums) {
  for (int n = 0; n < kDotColumns; n += 4) {
    const bf16* columns = w + n * kStretch;
    with_rows<kMostRows, 1>(rows, [&]<int kRows> { dot_tile<kRows>(x, x_stride, columns, count, fresh, sums + n); });
  }
}

// Few rows against a stretch that is unpacked in registers and nowhere else, up to twelve at a time; adds to sums. An
// odd last row comes with one that does not count, for whose sums there is room behind.
template <int kScales>
void thin_rows_of(const A16Job& job, const std::byte* chunk, int64_t k, int64_t count, int64_t row, int64_t rows,
                  float* sums) {
  const int64_t stride = job.layout.padded_k;
  for (int64_t groups = (rows + 11) / 12; groups > 0; --groups) {
    const int64_t share = (rows + groups - 1) / groups, even = share == 1 ? 1 : (share + 1) / 2 * 2;
    const int64_t some = std::min(even, rows);
    const bf16* x = job.x + row * stride + k;
    if (even == 1) thin<kScales, 1>(chunk, count, x, stride, some, k == 0, sums);
    if (even == 2) thin<kScales, 2>(chunk, count, x, stride, some, k == 0, sums);
    if (even == 4) thin<kScales, 4>(chunk, count, x, stride, some, k == 0, sums);
    if (even == 6) thin<kScales, 6>(chunk, count, x, stride, some, k == 0, sums);
    if (even == 8) thin<kScales, 8>(chunk, count, x, stride, some, k == 0, sums);
    if (even == 10) thin<kScales, 10>(chunk, count, x, stride, some, k == 0, sums);
    if (even == 12) thin<kScales, 12>(chunk, count, x, stride, some, k == 0, sums);
    row += some, rows -= some, sums += some * 16;
  }
}
void thin_rows(const A16Job& job, int64_t panel, int64_t k, int64_t count, int64_t row, int64_t rows, float* sums) {
  const A16Layout& l = job.layout;
  const std::byte* chunk = job.a.w + panel * l.panel_bytes + k / kA16ChunkK * l.chunk_bytes;
  if (l.chunk_scales == 1) return thin_rows_of<1>(job, chunk, k, count, row, rows, sums);
  if (l.chunk_scales == 2) return thin_rows_of<2>(job, chunk, k, count, row, rows, sums);
  thin_rows_of<4>(job, chunk, k, count, row, rows, sums);
}

inline void finish_panel(const GemmA16Args& a, int64_t panel, int64_t begin, int64_t end, const float* sums) {
  const int64_t column = panel * 16, n = lanes_left(column, a.N);
  for (int64_t m = begin; m < end; ++m) {
    Vec y = Vec::load(sums + (m - begin) * 16);
    if (a.bias) y = y + Vec::load_n(a.bias + column, n);
    y.store_n(a.y + m * a.y_stride + column, n);
  }
}

// Rows [begin, end) against a panel. `own`: kA16OwnBytes, a stretch of the columns, then [kDotRows][16] sums.
void run_dot_rows(const A16Job& job, int64_t panel, int64_t begin, int64_t end, std::byte* own) {
  auto* const stretch = reinterpret_cast<bf16*>(own);
  auto* const sums = reinterpret_cast<float*>(own + kA16StretchBytes);
  const int64_t padded_k = job.layout.padded_k;
  for (int64_t k = 0; k < padded_k; k += kStretch) {
    const int64_t count = std::min<int64_t>(kStretch, padded_k - k);
    if (end - begin <= kMostThinRows) {
      thin_rows(job, panel, k, count, begin, end - begin, sums);
      continue;
    }
    for (int64_t first = 0; first < 16; first += kDotColumns) {
      unpack_stretch(job, panel, first, k, count, stretch);
      for (int64_t row = begin; row < end; row += kMostRows)
        dot_rows(job.x + row * padded_k + k, padded_k, stretch, count, k == 0, std::min<int64_t>(kMostRows, end - row),
                 sums + (row - begin) * 16 + first);
    }
  }
  finish_panel(job.a, panel, begin, end, sums);
}

void run_dot_panel(const GemmA16Args& a, int64_t panel, std::byte* own) {
  const A16Job job(a);
  for (int64_t row = 0; row < a.M; row += kDotRows) run_dot_rows(job, panel, row, std::min(a.M, row + kDotRows), own);
}

constexpr GemmSteps<GemmA16Args> kSteps{.preparations = [](const GemmA16Args& a) { return a.M; },
                                        .prepare =
                                            [](const GemmA16Args& a, int64_t row) {
                                              const A16Job job(a);
                                              prepare(a, row, job.layout.padded_k, job.x);
                                            },
                                        .items = [](const GemmA16Args& a) { return A16Layout(a).panels; },
                                        .run = run_dot_panel,
                                        .own_bytes = kA16OwnBytes};

}  // namespace

void gemm_a16(const GemmA16Args& a) {
  const int64_t x_bytes = a.M * a16_padded_k(a.K) * static_cast<int64_t>(sizeof(bf16));
  run_alone(a, kSteps, gemm_a16_threads(a), a.scratch + round_up_to_64(x_bytes));
}

void gemm_a16_grouped(const GroupedA16Args& a) { run_grouped(a.products, a.scratch, kSteps); }

}  // namespace millrace::avx512
#pragma GCC pop_options
