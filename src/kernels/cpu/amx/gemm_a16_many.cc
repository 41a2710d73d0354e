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

// x of kInt4 as pairs of k: tiles of [16 pairs][16 rows][2] are the second operand, so that those of weights are the
// first as they are unpacked, and sums are y transposed until Ends turn them.
struct Int4Job : TileProduct {
  explicit Int4Job(const GemmA16Args& args, const GatedGemmA16Args* gates = nullptr)
      : TileProduct(nullptr, args.scratch, args.M, args.N, (args.K + kTileK - 1) / kTileK, gates),
        a(&args),
        gates(gates) {
    stretch = balanced((steps + kInt4Units - 1) / kInt4Units, kMostStretchSteps / kInt4Units) * kInt4Units;
  }
  template <int kSum, int kX, int kW>
  static void multiply() {
    tile_multiply<kSum, kW, kX>();
  }
  int64_t packed_bytes() const { return tiles_bytes(); }
  void pack(int64_t begin, int64_t end) const {
    for (int64_t tile_row = begin / kTileRows; tile_row * kTileRows < end; ++tile_row)
      for (int64_t s = 0; s < steps; ++s) pack_tile(tile_row * kTileRows, s);
  }
  void pack_tile(int64_t row, int64_t step) const {
    __m512i tile[16];
    for (int64_t r = 0; r < 16; ++r)
      tile[r] = row + r < M ? load_a16_row(*a, row + r, step * kTileK) : _mm512_setzero_si512();
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

template <class Job>
class Ends {
 public:
  Ends(const Job& job, int64_t pair) : low_(*job.a, 2 * pair), high_(*job.a, 2 * pair + 1) {}
  inline __attribute__((always_inline)) void fetch(int64_t row) const { low_.fetch(row), high_.fetch(row); }
  void store(int64_t row, const std::byte* low, const std::byte* high) const {
    low_.store(row, low);
    high_.store(row, high);
  }

 private:
  const A16Columns low_, high_;
};

inline void transpose_pair(std::byte* sums) { transpose_tile(sums), transpose_tile(sums + kTileBytes); }

class TurnedEnds : public Ends<Int4Job> {
 public:
  using Ends<Int4Job>::Ends;
  static void turn(std::byte* sums) { transpose_pair(sums); }
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

// ---- the stretch of panels that is wanted next is unpacked beside the tiles' work, piece by piece ----

// A piece is a column of a chunk: a row of each of its four tiles.
template <int kScales>
class Int4Pieces {
 public:
  static int64_t count(int64_t steps) { return (steps + kInt4Units - 1) / kInt4Units * 16; }
  // Of steps from `step` of the panel at `panel` on, which become tiles at `to`.
  inline __attribute__((always_inline)) void make(const std::byte* panel, int64_t step, int64_t piece, std::byte* to) {
    constexpr int64_t kChunkBytes = 1024 + 64 * kScales;
    const int64_t n = piece % 16, i = piece / 16;
    const std::byte* const chunk = panel + (step / kInt4Units + i) * kChunkBytes;
    if (n == 0) tables_.start(chunk);
    if (n % 2 == 0) tables_.make_two_columns(n);
    fetch_line(chunk + kFetchAhead + n * (kChunkBytes / 16));
    __m512i units[4];
    avx512::unpack_int4_units(chunk + kScales * 64 + n * 64, tables_, static_cast<int>(n), units);
#pragma GCC unroll 4
    for (int u = 0; u < 4; ++u) _mm512_store_si512(to + (i * kInt4Units + u) * kTileBytes + n * 64, units[u]);
  }

 private:
  avx512::Int4Tables<kScales> tables_;
};

// A piece is a tile.
struct Int8Pieces {
  static int64_t count(int64_t steps) { return steps; }
  static void make(const std::byte* panel, int64_t step, int64_t piece, std::byte* to) {
    const std::byte* from = panel + (step + piece) * kInt8TileBytes;
    unpack_int8_tile(from, from + kFetchAhead, to + piece * kTileBytes);
  }
};

constexpr int64_t kStretchBytes = kMostStretchSteps * kTileBytes;  // of a panel
constexpr int64_t kThickOwnBytes = kOwnBytes + 4 * kStretchBytes;

// Panels of a BlockRun.
template <class Job, class Pieces>
class UnpackedPanels {
 public:
  UnpackedPanels(const Job& job, std::byte* memory)
      : job_(job), panel_bytes_(A16Layout(*job.a).panel_bytes), memory_(memory) {}

  void begin(int64_t pair, int64_t from, const std::byte* (&w)[2]) {
    if (pair != pair_ || from != from_) start(pair, from);
    while (made_ < pieces_) make_next();
    w[0] = memory_of(0);
    w[1] = memory_of(pieces_ > each_ ? 1 : 0);
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
  void start(int64_t pair, int64_t from) {
    pair_ = pair, from_ = from, made_ = 0;
    each_ = Pieces::count(std::min(job_.stretch, job_.steps - from));
    pieces_ = job_.panel_of(pair, 1) < job_.panels ? 2 * each_ : each_;
  }
  std::byte* memory_of(int64_t i) const { return memory_ + (2 * odd_ + i) * kStretchBytes; }
  void make_next() {
    const bool second = made_ >= each_;
    maker_.make(job_.a->w + job_.panel_of(pair_, second) * panel_bytes_, from_, made_ - second * each_,
                memory_of(second));
    ++made_;
  }

  const Job& job_;
  const int64_t panel_bytes_;
  std::byte* const memory_;  // [two turns][two panels] stretches
  int64_t pair_ = -1, from_ = -1;
  int64_t each_ = 0, pieces_ = 0, made_ = 0;  // of a panel, of both, those that are done
  int64_t share_ = 0, due_ = 0;               // pieces per call and by now, in 1/1024
  bool odd_ = false;
  Pieces maker_;
};

struct ThickInt8Job : A16RowsJob {
  using A16RowsJob::A16RowsJob;
  using Panels = UnpackedPanels<ThickInt8Job, Int8Pieces>;
  int64_t panel_of(int64_t pair, int64_t i) const { return 2 * pair + i; }
};
template <int kScales>
struct ThickInt4Job : Int4Job {
  using Int4Job::Int4Job;
  using Panels = UnpackedPanels<ThickInt4Job, Int4Pieces<kScales>>;
};

template <class Job, class Ends>
void run_thick(const Job& job) {
  GroupQueues queues(job);
  parallel_team([&](const TeamMember& me) {
    pack_share(job, me);
    me.barrier();
    run_groups<Job, Ends>(job, queues, me, job.memory + job.packed_bytes() + me.index * kThickOwnBytes);
  });
}

// run.operator()<kScales>() with the scales that a column has in a chunk.
template <class Run>
void with_scales(const GemmA16Args& a, const Run& run) {
  switch (a16_chunk_scales(a.format, a.group, a.K)) {
    case 1:
      return run.template operator()<1>();
    case 2:
      return run.template operator()<2>();
    default:
      return run.template operator()<4>();
  }
}

}  // namespace

void gemm_a16_many_rows(const GemmA16Args& a) {
  if (a.format == A16Format::kInt8) return run_thick<ThickInt8Job, Ends<ThickInt8Job>>(ThickInt8Job(a));
  with_scales(a, [&]<int kScales>() { run_thick<ThickInt4Job<kScales>, TurnedEnds>(ThickInt4Job<kScales>(a)); });
}

void gemm_gated_a16(const GatedGemmA16Args& gated) {
  const GemmA16Args& a = gated.product;
  const bool few = a.M <= kThinTileRows * kTileRows, ragged = a.N % 32 != 0;
  if (few || ragged || a.format == A16Format::kInt8) return gemm_a16_then_glu(gated);
  with_scales(a, [&]<int kScales>() {
    with_activation(gated.activation, [&]<class Act>() {
      run_thick<ThickInt4Job<kScales>, GatedEnds<Act>>(ThickInt4Job<kScales>(a, &gated));
    });
  });
}

int64_t gemm_a16_own_bytes() { return kThickOwnBytes; }

}  // namespace millrace::amx
#pragma GCC pop_options
