// gemm_a16 of many rows on AMX tiles: a dense product, whose panels become tiles of bf16 on the way.
#include <immintrin.h>

#include <algorithm>

#include "kernels/cpu/amx/gemm_a16.h"
#include "kernels/cpu/avx512/transpose.h"
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

constexpr int64_t kPageBytes = 4096;

inline std::byte* aligned_to_page(std::byte* at) {
  return at + (kPageBytes - reinterpret_cast<uintptr_t>(at) % kPageBytes) % kPageBytes;
}

// x as pairs of k: tiles of [16 pairs][16 rows][2] are the second operand, so that those of weights are the
// first as they are unpacked, and sums are y transposed until Ends turn them.
struct Int4Job : TileProduct {
  explicit Int4Job(const GemmA16Args& args, const GatedGemmA16Args* gates = nullptr)
      : TileProduct(nullptr, args.scratch, args.M, args.N, (args.K + kTileK - 1) / kTileK, gates),
        a(&args),
        gates(gates) {
    memory = aligned_to_page(memory);
    blocking = {.tile_rows = 32, .pairs = 12, .resident_tiles = 512};  // a tile is unpacked once for 512 rows
    stretch = balanced((steps + kInt4Units - 1) / kInt4Units, kMostStretchSteps / kInt4Units) * kInt4Units;
  }
  template <int kSum, int kX, int kW>
  static void multiply() {
    tile_multiply<kSum, kW, kX>();
  }
  int64_t packed_bytes() const { return (tiles_bytes() + kPageBytes - 1) / kPageBytes * kPageBytes; }
  void pack(int64_t begin, int64_t end) const {
    for (int64_t tile_row = begin / kTileRows; tile_row * kTileRows < end; ++tile_row)
      for (int64_t s = 0; s < steps; ++s) pack_tile(tile_row * kTileRows, s);
  }
  void pack_tile(int64_t row, int64_t step) const {
    __m512i tile[16];
    for (int64_t r = 0; r < 16; ++r)
      tile[r] = row + r < M ? load_row(*a, row + r, step * kTileK) : _mm512_setzero_si512();
    avx512::transpose(tile);
    std::byte* const to = packed_row(row, step);
    for (int pair = 0; pair < 16; ++pair) _mm512_store_si512(to + pair * 64, tile[pair]);
  }
  // The panel that is part `i` of a pair.
  int64_t panel_of(int64_t pair, int64_t i) const { return gated ? pair + i * (panels / 2) : 2 * pair + i; }

  const GemmA16Args* a;
  const GatedGemmA16Args* gates;  // or null
};

// ---- y ----

inline void transpose_tile(std::byte* tile) {
  __m512i rows[16];
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) rows[i] = _mm512_load_si512(tile + i * 64);
  avx512::transpose(rows);
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) _mm512_store_si512(tile + i * 64, rows[i]);
}

inline void transpose_pair(std::byte* sums) { transpose_tile(sums), transpose_tile(sums + kTileBytes); }

class Ends {
 public:
  Ends(const Int4Job& job, int64_t pair) : low_(*job.a, 2 * pair), high_(*job.a, 2 * pair + 1) {}
  static void turn(std::byte* sums) { transpose_pair(sums); }
  inline __attribute__((always_inline)) void fetch(int64_t row) const { low_.fetch(row), high_.fetch(row); }
  void store(int64_t row, const std::byte* low, const std::byte* high) const {
    low_.store(row, low);
    high_.store(row, high);
  }

 private:
  const A16Columns low_, high_;
};

inline Vec bias_at(const GemmA16Args& a, int64_t column) { return a.bias ? Vec::load(a.bias + column) : Vec::zero(); }

template <class Act>
class GatedEnds {
 public:
  GatedEnds(const Int4Job& job, int64_t pair)
      : gate_bias_(bias_at(*job.a, pair * 16)),
        up_bias_(bias_at(*job.a, job.N / 2 + pair * 16)),
        rows_(*job.gates, pair * 16) {}
  static void turn(std::byte* sums) { transpose_pair(sums); }
  inline __attribute__((always_inline)) void fetch(int64_t row) const { rows_.fetch(row); }
  void store(int64_t row, const std::byte* gate, const std::byte* up) const {
    const Vec gates = Vec::load(reinterpret_cast<const float*>(gate)) + gate_bias_;
    const Vec ups = Vec::load(reinterpret_cast<const float*>(up)) + up_bias_;
    rows_.store(row, Act::apply(gates) * ups);
  }

 private:
  const Vec gate_bias_, up_bias_;
  const GatedRows rows_;
};

// ---- the stretch of panels that is wanted next is unpacked beside the tiles' work ----

constexpr int64_t kStretchBytes = kMostStretchSteps * kTileBytes;  // of a panel
constexpr int64_t kThickOwnBytes = kOwnBytes + 4 * kStretchBytes;

// Panels of a BlockRun. What is called between products is short and waits for nothing that was begun with it: tables
// are made a piece or more before they are used. `memory` lies as packed rows do in their page: at every step tiles are
// loaded from one quarter of a page, and written to another, for loads wait for stores whose last twelve bits they
// share.
template <class Job, int kScales>
class Int4Panels {
 public:
  Int4Panels(const Job& job, std::byte* memory)
      : job_(job), panel_bytes_(A16Layout(*job.a).panel_bytes), memory_(memory) {}

  void begin(int64_t pair, int64_t from, const std::byte* (&w)[2]) {
    if (pair != pair_ || from != from_) start(pair, from);
    while (made_ < pieces_) make_next();
    w[0] = memory_of(0);
    w[1] = memory_of(chunks_ < last_ ? chunks_ : 0);
    odd_ = !odd_;
  }
  void expect(int64_t pair, int64_t from, int64_t calls) {
    start(pair, from);
    share_ = (pieces_ * 1024 + calls - 1) / calls;
    due_ = 0;
  }
  inline __attribute__((always_inline)) void operator()() {
    for (due_ += share_; made_ < pieces_ && made_ * 1024 < due_;) make_next();
  }

 private:
  static constexpr int64_t kChunkBytes = 1024 + 64 * kScales;
  static constexpr int64_t kPieces = 16;  // of a chunk: four columns of one of its tiles

  // Chunks are numbered through both panels.
  void start(int64_t pair, int64_t from) {
    pair_ = pair, from_ = from, made_ = 0;
    chunks_ = (std::min(job_.stretch, job_.steps - from) + kInt4Units - 1) / kInt4Units;
    last_ = job_.panel_of(pair, 1) < job_.panels ? 2 * chunks_ : chunks_;
    pieces_ = last_ * kPieces;
    enter(0);
    tables_.start(chunk_);
    tables_.make_two_columns(0), tables_.make_two_columns(2);
  }
  void enter(int64_t c) { chunk_ = chunk(c), to_ = memory_of(c); }
  const std::byte* chunk(int64_t c) const {
    const int64_t second = c >= chunks_;
    return job_.a->w + job_.panel_of(pair_, second) * panel_bytes_ +
           (from_ / kInt4Units + c - second * chunks_) * kChunkBytes;
  }
  std::byte* memory_of(int64_t c) const {
    const int64_t second = c >= chunks_;
    return memory_ + (2 * odd_ + second) * kStretchBytes + (c - second * chunks_) * kInt4Units * kTileBytes;
  }

  void make_next() {
    const int64_t piece = made_ % kPieces, first = piece / 4 * 4, unit = (piece + 2) % 4;
    fetch_line(chunk_ + kFetchAhead + piece * (kChunkBytes / kPieces));
    unpack(unit, first);
    if (piece % 2 == 0) tables_.make_two_columns((first + 4 + piece % 4) % 16);
    ++made_;
    if (piece == 11) tables_.start(chunk(std::min(made_ / kPieces + 1, last_ - 1)));
    if (piece == 15 && made_ < pieces_) enter(made_ / kPieces);
  }
  inline __attribute__((always_inline)) void unpack(int64_t unit, int64_t first) const {
    const std::byte* const columns = chunk_ + kScales * 64 + unit / 2;
    const __m512i shift = _mm512_set1_epi16(static_cast<int16_t>(unit % 2 * 4));
    const int scale = static_cast<int>(kScales * unit / 4);
#pragma GCC unroll 4
    for (int64_t n = first; n < first + 4; ++n) {
      const __m512i nibbles = _mm512_srlv_epi16(_mm512_loadu_si512(columns + n * 64), shift);
      _mm512_store_si512(to_ + unit * kTileBytes + n * 64,
                         _mm512_permutexvar_epi16(nibbles, tables_.at(scale, static_cast<int>(n))));
    }
  }

  const Job& job_;
  const int64_t panel_bytes_;
  std::byte* const memory_;  // [two turns][two panels] stretches
  int64_t pair_ = -1, from_ = -1;
  int64_t chunks_ = 0, last_ = 0;  // of a panel, of both
  int64_t pieces_ = 0, made_ = 0;  // of both
  int64_t share_ = 0, due_ = 0;    // pieces per call and by now, in 1/1024
  const std::byte* chunk_ = nullptr;
  std::byte* to_ = nullptr;  // the chunk's tiles
  bool odd_ = false;
  avx512::Int4Tables<kScales> tables_;
};

template <int kScales>
struct ThickJob : Int4Job {
  using Int4Job::Int4Job;
  using Panels = Int4Panels<ThickJob, kScales>;
};

}  // namespace

void gemm_a16_many_rows(const GemmA16Args& a) {
  with_scales(a, [&]<int kScales>() { multiply_thick<ThickJob<kScales>, Ends>(ThickJob<kScales>(a), kThickOwnBytes); });
}

void gemm_gated_a16(const GatedGemmA16Args& gated) {
  const GemmA16Args& a = gated.product;
  const bool few = a.M <= kThinTileRows * kTileRows, ragged = a.N % 32 != 0;
  if (few || ragged) return gemm_a16_then_glu(gated);
  with_scales(a, [&]<int kScales>() {
    with_activation(gated.activation, [&]<class Act>() {
      multiply_thick<ThickJob<kScales>, GatedEnds<Act>>(ThickJob<kScales>(a, &gated), kThickOwnBytes);
    });
  });
}

int64_t gemm_a16_own_bytes() { return kThickOwnBytes + 2 * kPageBytes; }

}  // namespace millrace::amx
#pragma GCC pop_options
