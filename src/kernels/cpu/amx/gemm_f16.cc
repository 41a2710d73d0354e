// Matrix product on AMX tiles for float16 panels. A weight is the sum of two bf16, exactly, and x becomes two as well:
// tiles of the high parts and tiles of the low parts of a panel are a pair, rows of x lie in tiles high above low, and
// the four sums of an output are added at the end. Each of them is summed over k from 0 up, tile after tile, whatever
// the number of rows.
#include <immintrin.h>

#include <algorithm>

#include "kernels/cpu/amx/products.h"
#include "kernels/cpu/avx512/vec.h"
#include "kernels/cpu/gemm_grouped_impls.h"
#include "kernels/parallel.h"

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx2,fma,f16c")
namespace millrace::amx {
namespace {

using avx512::Vec;
#include "kernels/cpu/simd/math.inl"

#include "kernels/cpu/simd/activations.inl"

#include "kernels/cpu/amx/product_ends.inl"

constexpr int64_t kStepLines = kTileK / 2;  // of a tile, each two of k of a panel

// ---- weights ----

struct Parts {
  __m512i high, low;
};

// Two of k of sixteen columns as pairs: a bf16's bits are the upper half of a float's.
inline __attribute__((always_inline)) Parts split(__m512 even, __m512 odd) {
  const __m512i upper = _mm512_set1_epi32(-65536);
  const auto cut = [&](__m512 x) __attribute__((always_inline)) {
    return _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(x), upper));
  };
  const auto pairs = [&](__m512 a, __m512 b) __attribute__((always_inline)) {
    constexpr int kAOrBAndC = 0xf8;
    return _mm512_ternarylogic_epi32(_mm512_srli_epi32(_mm512_castps_si512(a), 16), _mm512_castps_si512(b), upper,
                                     kAOrBAndC);
  };
  return {pairs(even, odd), pairs(_mm512_sub_ps(even, cut(even)), _mm512_sub_ps(odd, cut(odd)))};
}

// A tile's weights where they lie: `count` of k, none of them beyond K.
struct Source {
  const __m256i* rows = nullptr;
  int64_t count = 0;
};

constexpr int64_t kAheadBytes = 8 << 10;  // of a panel that are on their way

// Lines [kBegin, kEnd) of a tile; those that are so far ahead come to the second-level cache.
template <int kBegin, int kEnd>
inline __attribute__((always_inline)) void split_lines(const Source& from, std::byte* high, std::byte* low) {
#pragma GCC unroll 16
  for (int i = kBegin; i < kEnd; ++i) {
    const __m256i* at = from.rows + 2 * i;
    _mm_prefetch(reinterpret_cast<const char*>(at) + kAheadBytes, _MM_HINT_T1);
    const Parts parts = split(_mm512_cvtph_ps(_mm256_loadu_si256(at)), _mm512_cvtph_ps(_mm256_loadu_si256(at + 1)));
    _mm512_store_si512(high + i * 64, parts.high);
    _mm512_store_si512(low + i * 64, parts.low);
  }
}

// A tile that ends beyond K: zero there.
void split_last(const Source& from, std::byte* high, std::byte* low) {
  const auto row = [&](int64_t k) {
    return k < from.count ? _mm512_cvtph_ps(_mm256_loadu_si256(from.rows + k)) : _mm512_setzero_ps();
  };
  for (int64_t i = 0; i < kStepLines; ++i) {
    const Parts parts = split(row(2 * i), row(2 * i + 1));
    _mm512_store_si512(high + i * 64, parts.high);
    _mm512_store_si512(low + i * 64, parts.low);
  }
}

inline void split_tile(const Source& from, std::byte* high, std::byte* low) {
  from.count == kTileK ? split_lines<0, kStepLines>(from, high, low) : split_last(from, high, low);
}

struct F16Job;

// Panels of a BlockRun: a stretch is split when it begins, always to the same memory, which stays in the first-level
// cache. While it is worked on, the next comes to the second-level cache.
class F16Panels {
 public:
  F16Panels(const F16Job& job, std::byte* memory) : job_(job), memory_(memory) {}
  void begin(int64_t panel, int64_t from, const std::byte* (&w)[2]) const;
  void expect(int64_t panel, int64_t from, int64_t calls);
  inline __attribute__((always_inline)) void operator()() { fetch_(); }

 private:
  const F16Job& job_;
  std::byte* const memory_;  // tiles of high parts, then those of low ones
  Fetch<_MM_HINT_T1> fetch_;
};

// A pair is one panel, its tiles of high and of low parts.
struct F16Job : TileProduct {
  static constexpr int kDigits = 2;
  static constexpr int64_t kOwn = kMakingBytes;
  using Panels = F16Panels;

  F16Job(const GemmArgs& args, const GatedGemmArgs*)
      : TileProduct(args.w, args.scratch, kDigits * args.M, args.N, bf16_steps(args.K), false, nullptr), a(&args) {
    panel_bytes = gemm_panel_bytes(args.K, DType::kF16);
    pairs = panels;
    blocking = blocking_of_made(*this);
  }
  template <int kSum, int kX, int kW>
  static void multiply() {
    tile_multiply<kSum, kX, kW>();
  }
  template <class Ends, class Next>
  void run_few(const Next& next) const;
  int64_t packed_bytes() const { return tiles_bytes(); }
  int threads() const { return gemm_threads(*a); }
  void pack(int64_t begin, int64_t end) const {
    for (int64_t row = begin / kDigits; row < std::min(end / kDigits, a->M); ++row)
      for (int64_t s = 0; s < steps; ++s) pack_step(row, s);
  }
  void pack_step(int64_t row, int64_t s) const;
  Source source(int64_t panel, int64_t step) const {
    constexpr int64_t kRowBytes = kPanelColumns * 2;
    return {reinterpret_cast<const __m256i*>(w + panel * panel_bytes + step * kTileK * kRowBytes),
            std::min(kTileK, a->K - step * kTileK)};
  }

  const GemmArgs* a;
};

void F16Panels::begin(int64_t panel, int64_t from, const std::byte* (&w)[2]) const {
  w[0] = memory_, w[1] = memory_ + kStretchBytes;
  const int64_t end = std::min(from + job_.stretch, job_.steps);
  std::byte* to = memory_;
  for (int64_t s = from; s < end; ++s, to += kTileBytes) split_tile(job_.source(panel, s), to, to + kStretchBytes);
}

void F16Panels::expect(int64_t panel, int64_t from, int64_t calls) {
  const int64_t lines = std::min(job_.stretch, job_.steps - from) * kStepLines;
  fetch_ = {reinterpret_cast<const std::byte*>(job_.source(panel, from).rows), lines * 64, std::max(calls, lines)};
}

// ---- few rows: panels stream by ----

// The tiles of panels that next() gives until it gives -1. Some tiles ahead of the products one is split, in parts
// between them: a tile load waits for stores that come right before it.
template <class Next>
class SplitStream {
 public:
  static constexpr uint64_t kAhead = 2, kRing = 4;

  SplitStream(const F16Job& job, const Next& next) : job_(job), next_(next) {
    enter();
    for (uint64_t i = 0; i < kAhead; ++i) split_all(), advance();
  }
  // The panel whose tiles come next, -1 after the last.
  int64_t take_panel() { return panels_[taken_++ % kRing]; }
  // Of the next tile.
  const std::byte* high() const { return tiles_[0][now_ % kRing]; }
  const std::byte* low() const { return tiles_[1][now_ % kRing]; }
  // Of the tile further on that is split meanwhile: whether it is whole, its quarters, or all of it.
  bool is_whole() const { return from_.count == kTileK; }
  template <int kQuarter>
  inline __attribute__((always_inline)) void split_quarter() {
    constexpr int kLines = kStepLines / 4;
    split_lines<kQuarter * kLines, (kQuarter + 1) * kLines>(from_, tiles_[0][then()], tiles_[1][then()]);
  }
  void split_all() {
    if (from_.count > 0) split_tile(from_, tiles_[0][then()], tiles_[1][then()]);
  }
  void advance() {
    ++now_;
    if (from_.count == 0) return;
    if (++step_ == job_.steps) return enter();
    from_ = job_.source(panel_, step_);
  }

 private:
  void enter() {
    panel_ = next_(), step_ = 0;
    panels_[entered_++ % kRing] = panel_;
    from_ = panel_ < 0 ? Source() : job_.source(panel_, 0);
  }
  uint64_t then() const { return (now_ + kAhead) % kRing; }

  const F16Job& job_;
  const Next& next_;
  Source from_;  // of the tile that is split
  int64_t panel_ = -1, step_ = 0;
  int64_t panels_[kRing] = {};
  uint64_t now_ = kRing - kAhead, entered_ = 0, taken_ = 0;
  alignas(64) std::byte tiles_[2][kRing][kTileBytes];
};

// A step's products; beside them a whole tile is split, or none.
template <int kTileRowCount, bool kSplits, class Stream>
inline __attribute__((always_inline)) void multiply_step(const std::byte* const (&x)[2], int64_t at, Stream& stream) {
  const auto split_quarter = [&]<int kQuarter>() __attribute__((always_inline)) {
    if constexpr (kSplits) stream.template split_quarter<kQuarter>();
  };
  tile_load<4>(x[0] + at, 64);
  if constexpr (kTileRowCount == 2) tile_load<5>(x[1] + at, 64);
  tile_load<6>(stream.high(), 64);
  split_quarter.template operator()<0>();
  tile_multiply<0, 4, 6>();
  split_quarter.template operator()<1>();
  if constexpr (kTileRowCount == 2) tile_multiply<2, 5, 6>();
  tile_load<7>(stream.low(), 64);
  split_quarter.template operator()<2>();
  tile_multiply<1, 4, 7>();
  split_quarter.template operator()<3>();
  if constexpr (kTileRowCount == 2) tile_multiply<3, 5, 7>();
}

// Sums: [tile row][part] tiles.
template <int kTileRowCount, class Stream>
void multiply_panel(const F16Job& job, Stream& stream, std::byte* sums) {
  const std::byte* const x[] = {job.row_stretch(0, 0), job.row_stretch(kTileRowCount - 1, 0)};
  tile_zero<0>(), tile_zero<1>();
  if constexpr (kTileRowCount == 2) tile_zero<2>(), tile_zero<3>();
  for (int64_t s = 0; s < job.steps; ++s, stream.advance()) {
    if (stream.is_whole()) {
      multiply_step<kTileRowCount, true>(x, s * job.step_bytes, stream);
    } else {
      stream.split_all();
      multiply_step<kTileRowCount, false>(x, s * job.step_bytes, stream);
    }
  }
  tile_store<0>(sums, 64), tile_store<1>(sums + kTileBytes, 64);
  if constexpr (kTileRowCount == 2) tile_store<2>(sums + 2 * kTileBytes, 64), tile_store<3>(sums + 3 * kTileBytes, 64);
}

template <class Ends, class Next>
void F16Job::run_few(const Next& next) const {
  alignas(64) std::byte sums[4 * kTileBytes];
  SplitStream<Next> stream(*this, next);
  for (int64_t panel; (panel = stream.take_panel()) >= 0;) {
    tile_rows == 1 ? multiply_panel<1>(*this, stream, sums) : multiply_panel<2>(*this, stream, sums);
    const Ends ends(*this, panel);
    for (int64_t row = 0; row < M; row += kDigits) store_pair(ends, row / kDigits, sums_of_row(sums, row));
  }
}

// ---- x ----

inline __m512 floats(__m256i words) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(words), 16)); }

// What x - high leaves; nothing of what is not finite.
inline __m512 rest(__m512 x, __m512 high) {
  constexpr int kNanOrInfinite = 0x99;
  return _mm512_maskz_sub_ps(static_cast<__mmask16>(~_mm512_fpclass_ps_mask(high, kNanOrInfinite)), x, high);
}

void F16Job::pack_step(int64_t row, int64_t s) const {
  std::byte* const to = packed_row(kDigits * row, s);
  const __m512i high = load_row(*a, row, s * kTileK);
  _mm512_store_si512(to, high);
  if (a->x_dtype == DType::kBf16) return _mm512_store_si512(to + 64, _mm512_setzero_si512());
  const int64_t left = a->K - s * kTileK;
  const float* x = static_cast<const float*>(a->x) + row * a->x_stride + s * kTileK;
  const __m512 first = _mm512_maskz_loadu_ps(lanes_below(left), x);
  const __m512 second = _mm512_maskz_loadu_ps(lanes_below(left - 16), x + 16);
  const __m512 low[] = {rest(first, floats(_mm512_castsi512_si256(high))),
                        rest(second, floats(_mm512_extracti64x4_epi64(high, 1)))};
  _mm512_store_si512(to + 64, reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(low[1], low[0])));
}

// ---- sums to y ----

class F16Ends {
 public:
  F16Ends(const F16Job& job, int64_t pair) : columns_(*job.a, pair * kPanelColumns) {}
  inline __attribute__((always_inline)) void fetch(int64_t row) const { columns_.fetch(row); }
  void store(int64_t row, const std::byte* high, const std::byte* low) const {
    columns_.store(row, both(high) + both(low));
  }

 private:
  static Vec both(const std::byte* sums) {
    const auto* at = reinterpret_cast<const float*>(sums);
    return Vec::load(at) + Vec::load(at + 16);
  }
  const PlainColumns columns_;
};

struct Kind {
  using Args = GemmArgs;
  using Gated = GatedGemmArgs;
  using Job = F16Job;
  using PlainEnds = F16Ends;
};
using Half = Products<Kind>;

}  // namespace

void gemm_f16(const GemmArgs& a) { Half::run_alone(a); }

void gemm_grouped_f16(const GroupedGemmArgs& a) { Half::run_many(a); }

int64_t gemm_f16_own_bytes() { return kMakingBytes; }

int64_t gemm_f16_scratch_bytes(int64_t max_rows, int64_t K) {
  return tile_rows_of(F16Job::kDigits * max_rows) * bf16_steps(K) * kTileBytes + compute_threads() * kMakingBytes;
}

}  // namespace millrace::amx
#pragma GCC pop_options
