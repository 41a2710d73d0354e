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

// Packed rows of x: a tile is [16 pairs of k][16 rows][2]. Zero beyond K; rows from M on may be any, for a tile's rows
// do not meet.
PackedTiles packed_tiles(std::byte* memory, int64_t M, int64_t K) {
  const int64_t steps = bf16_steps(K), units = (steps + kInt4Units - 1) / kInt4Units;
  return thick_tiles(memory, M, steps, balanced(units, most_stretch_steps(steps) / kInt4Units) * kInt4Units);
}

// Tiles of x are the second operand, so that those of weights are the first as they are unpacked. Sums are y
// transposed, which Ends turn or take as they are.
struct Int4Job : TileProduct {
  static constexpr int64_t kOwn = kMakingBytes;

  explicit Int4Job(const GemmA16Args& args, const GatedGemmA16Args* gates = nullptr)
      : TileProduct(nullptr, args.scratch, args.M, args.N, bf16_steps(args.K), gates, args.heads),
        a(&args),
        gates(gates) {
    std::byte* const rows = args.packed_x ? const_cast<std::byte*>(args.packed_x) : args.scratch;
    static_cast<PackedTiles&>(*this) = packed_tiles(rows, args.M, args.K);
    blocking = blocking_of_made(*this);
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
      tile[r] = row + r < M ? load_row(*a, row + r, step * kTileK) : _mm512_setzero_si512();
    avx512::transpose(tile);
    std::byte* const to = packed_row(row, step);
    for (int pair = 0; pair < 16; ++pair) _mm512_store_si512(to + pair * 64, tile[pair]);
  }
  // The panel that is part `i` of a pair.
  int64_t panel_of(int64_t pair, int64_t i) const { return first_panel(pair) + i * apart; }

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
  Ends(const Int4Job& job, int64_t pair) : low_(*job.a, 2 * pair * 16), high_(*job.a, (2 * pair + 1) * 16) {}
  static void turn(std::byte* sums) { transpose_pair(sums); }
  inline __attribute__((always_inline)) void fetch(int64_t row) const { low_.fetch(row), high_.fetch(row); }
  void store(int64_t row, const std::byte* low, const std::byte* high) const {
    low_.store(row, low);
    high_.store(row, high);
  }

 private:
  const PlainColumns low_, high_;
};

template <class Pairs>
class PairEnds {
 public:
  PairEnds(const Int4Job& job, int64_t pair)
      : first_bias_(bias_at(*job.a, job.first_panel(pair) * 16)),
        second_bias_(bias_at(*job.a, job.second_panel(pair) * 16)),
        pairs_(job, pair) {}
  static void turn(std::byte* sums) { transpose_pair(sums); }
  inline __attribute__((always_inline)) void fetch(int64_t row) const { pairs_.fetch(row); }
  void store(int64_t row, const std::byte* first, const std::byte* second) const {
    pairs_.store(row, Vec::load(reinterpret_cast<const float*>(first)) + first_bias_,
                 Vec::load(reinterpret_cast<const float*>(second)) + second_bias_);
  }

 private:
  const Vec first_bias_, second_bias_;
  const Pairs pairs_;
};

// Outputs stay transposed: two columns of sixteen rows are a line of the packed rows of the product that follows, which
// is written whole.
template <class Act>
class PackedEnds : public GatedLine<Act> {
 public:
  static constexpr int64_t kLines = 2;

  PackedEnds(const Int4Job& job, int64_t pair)
      : gate_bias_(job.a->bias ? job.a->bias + pair * 16 : nullptr),
        up_bias_(job.a->bias ? gate_bias_ + job.N / 2 : nullptr),
        to_(packed_tiles(job.gates->packed_y, job.M, job.N / 2), pair, job.pairs, kHalfTile) {}

  inline __attribute__((always_inline)) void begin(int64_t i, const std::byte* gates, const std::byte* ups,
                                                   GatedLine<Act>::Begun& to) const {
    const int64_t column = i % kPairs * 2;
    to.first.gate = with_bias(gates, gate_bias_, column), to.first.up = with_bias(ups, up_bias_, column);
    to.second.gate = with_bias(gates + 64, gate_bias_, column + 1);
    to.second.up = with_bias(ups + 64, up_bias_, column + 1);
  }
  inline __attribute__((always_inline)) void end(int64_t i, const GatedLine<Act>::Half& h) const {
    std::byte* const to = to_.of_tile_row(i / kPairs) + i % kPairs * 64;
    _mm512_store_si512(to, _mm512_permutexvar_epi16(pairs_, GatedLine<Act>::line(h)));
    if (to_.closes()) _mm512_store_si512(to + kHalfTile, _mm512_setzero_si512());
  }

 private:
  static constexpr int64_t kHalfTile = kTileBytes / 2, kPairs = kTileRows / kLines;

  static inline __attribute__((always_inline)) Vec with_bias(const std::byte* sums, const float* bias, int64_t column) {
    const Vec sum = Vec::load(reinterpret_cast<const float*>(sums));
    return bias ? sum + Vec::set(bias[column]) : sum;
  }

  const float *const gate_bias_, *const up_bias_;  // of the pair's first column, or null
  const PackedHalf to_;
  // Element r of either half, side by side.
  const __m512i pairs_ = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6,
                                          21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
};

// ---- a stretch of panels is unpacked when it begins ----

// Memory that comes to the second-level cache, a line with every call.
class Lines {
 public:
  Lines() = default;
  Lines(const std::byte* at, int64_t bytes) : at_(at), end_(at + bytes) {}
  inline __attribute__((always_inline)) bool fetch() {
    if (at_ >= end_) return false;
    fetch_line(at_);
    at_ += 64;
    return true;
  }

 private:
  const std::byte *at_ = nullptr, *end_ = nullptr;
};

// Panels of a BlockRun. A stretch is unpacked at once, always to the same memory, which stays in the first-level cache.
// While it is worked on, the chunks of the next come to the second-level cache.
template <class Job, int kScales>
class Int4Panels {
 public:
  Int4Panels(const Job& job, std::byte* memory)
      : job_(job), panel_bytes_(A16Layout(*job.a).panel_bytes), memory_(memory) {}

  void begin(int64_t pair, int64_t from, const std::byte* (&w)[2]) const {
    unpack(pair, 0, from, memory_);
    if (job_.has_second(pair)) unpack(pair, 1, from, memory_ + kStretchBytes);
    w[0] = memory_;
    w[1] = job_.has_second(pair) ? memory_ + kStretchBytes : memory_;
  }
  void expect(int64_t pair, int64_t from, int64_t) {
    const int64_t bytes = chunks(from) * kChunkBytes;
    first_ = Lines(chunk(pair, 0, from), bytes);
    second_ = job_.has_second(pair) ? Lines(chunk(pair, 1, from), bytes) : Lines();
  }
  inline __attribute__((always_inline)) void operator()() {
    if (!first_.fetch()) second_.fetch();
  }

 private:
  static constexpr int64_t kChunkBytes = 1024 + 64 * kScales;

  int64_t chunks(int64_t from) const {
    return (std::min(job_.stretch, job_.steps - from) + kInt4Units - 1) / kInt4Units;
  }
  const std::byte* chunk(int64_t pair, int64_t i, int64_t from) const {
    return job_.a->w + job_.panel_of(pair, i) * panel_bytes_ + from / kInt4Units * kChunkBytes;
  }
  void unpack(int64_t pair, int64_t i, int64_t from, std::byte* to) const {
    const std::byte* at = chunk(pair, i, from);
    for (int64_t left = chunks(from); left > 0; --left, at += kChunkBytes, to += kInt4Units * kTileBytes)
      unpack_chunk(at, to);
  }
  static void unpack_chunk(const std::byte* chunk, std::byte* to) {
    const Int4Tables<kScales> tables(chunk);
#pragma GCC unroll 16
    for (int n = 0; n < 16; ++n) {
      __m512i units[kInt4Units];
      unpack_int4_units(chunk + kScales * 64 + n * 64, tables, n, units);
#pragma GCC unroll 4
      for (int i = 0; i < kInt4Units; ++i) _mm512_store_si512(to + i * kTileBytes + n * 64, units[i]);
    }
  }

  const Job& job_;
  const int64_t panel_bytes_;
  std::byte* const memory_;  // [two panels] stretches
  Lines first_, second_;
};

template <int kScales>
struct ThickJob : Int4Job {
  using Int4Job::Int4Job;
  using Panels = Int4Panels<ThickJob, kScales>;
};

// run.operator()<Ends>(job) for a product, gated or not.
template <class Run>
void with_job(const GemmA16Args& a, const Run& run) {
  with_scales(a, [&]<int kScales>() {
    const ThickJob<kScales> job(a);
    a.heads ? run.template operator()<PairEnds<HeadPairs>>(job) : run.template operator()<Ends>(job);
  });
}
template <class Run>
void with_job(const GatedGemmA16Args& gated, const Run& run) {
  with_scales(gated.product, [&]<int kScales>() {
    with_activation(gated.activation, gated.y_dtype, [&]<class Act>() {
      const ThickJob<kScales> job(gated.product, &gated);
      gated.packed_y ? run.template operator()<PackedEnds<Act>>(job)
                     : run.template operator()<PairEnds<GatedPairs<Act>>>(job);
    });
  });
}

template <class Args>
void multiply_many_rows(const Args& args) {
  with_job(args, []<class Ends, class Job>(const Job& job) {
    if (job.a->packed_x)
      multiply_packed<Job, Ends>(job, job.a->scratch);
    else
      multiply_thick<Job, Ends>(job);
  });
}

Int4Job shape_of(const GemmA16Args& a) { return Int4Job(a); }
Int4Job shape_of(const GatedGemmA16Args& gated) { return Int4Job(gated.product, &gated); }

template <class Args>
void run_step(const Args& args, int64_t item, std::byte* own) {
  with_job(args, [&]<class Ends, class Job>(const Job& job) { run_item<Job, Ends>(job, item, own); });
}

template <class Args>
constexpr GemmSteps<Args> kSteps{.preparations = [](const Args& args) { return shape_of(args).tile_rows; },
                                 .prepare = [](const Args& args, int64_t i) { pack_tile_row(shape_of(args), i); },
                                 .items = [](const Args& args) { return items_of(shape_of(args)); },
                                 .run = run_step<Args>,
                                 .own_bytes = Int4Job::kOwn};

}  // namespace

void gemm_a16_many_rows(const GemmA16Args& a) { multiply_many_rows(a); }
void gemm_gated_a16_many_rows(const GatedGemmA16Args& gated) { multiply_many_rows(gated); }

int64_t gemm_a16_packed_x_bytes(int64_t M, int64_t K) { return packed_tiles(nullptr, M, K).tiles_bytes(); }

const GemmSteps<GemmA16Args>& many_row_steps(const GemmA16Args&) { return kSteps<GemmA16Args>; }
const GemmSteps<GatedGemmA16Args>& many_row_steps(const GatedGemmA16Args&) { return kSteps<GatedGemmA16Args>; }

}  // namespace millrace::amx
#pragma GCC pop_options
