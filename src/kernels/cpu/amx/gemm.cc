// Matrix product on AMX tiles for bf16 panels. A tile of w is 32 of k for the sixteen columns of a panel, as it lies in
// memory; x is packed once into tiles of sixteen rows. Each output is summed over k from 0 up, tile after tile,
// whatever the number of rows.
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

// Of many rows of x.
PackedTiles packed_tiles(std::byte* memory, int64_t M, int64_t K) { return thick_tiles(memory, M, bf16_steps(K)); }

// x is rounded to bf16 and zero beyond M and K, or packed already, where rows beyond M are any.
struct Job : TileProduct {
  Job(const GemmArgs& args, const GatedGemmArgs* gates)
      : TileProduct(args.w, args.packed_x ? const_cast<std::byte*>(args.packed_x) : args.scratch, args.M, args.N,
                    bf16_steps(args.K), gates, args.heads),
        a(&args),
        gates(gates) {}
  template <int kSum, int kX, int kW>
  static void multiply() {
    tile_multiply<kSum, kX, kW>();
  }
  int64_t packed_bytes() const { return tiles_bytes(); }
  int threads() const { return gemm_threads(*a); }
  void pack(int64_t begin, int64_t end) const;

  const GemmArgs* a;
  const GatedGemmArgs* gates;  // or null
};

void Job::pack(int64_t begin, int64_t end) const {
  for (int64_t from = 0; from < steps; from += stretch)
    for (int64_t row = begin; row < end; ++row) {
      std::byte* to = packed_row(row, from);
      for (int64_t s = from; s < std::min(steps, from + stretch); ++s, to += step_bytes)
        _mm512_store_si512(to, row < M ? load_row(*a, row, s * kTileK) : _mm512_setzero_si512());
    }
}

// ---- sums to y ----

inline Vec sums_at(const std::byte* sums) { return Vec::load(reinterpret_cast<const float*>(sums)); }

class PlainEnds {
 public:
  PlainEnds(const Job& job, int64_t pair)
      : low_(*job.a, 2 * pair * kPanelColumns), high_(*job.a, (2 * pair + 1) * kPanelColumns) {}
  inline __attribute__((always_inline)) void fetch(int64_t row) const { low_.fetch(row), high_.fetch(row); }
  void store(int64_t row, const std::byte* first, const std::byte* second) const {
    low_.store(row, first);
    high_.store(row, second);
  }

 private:
  const PlainColumns low_, high_;
};

template <class Pairs>
class PairEnds {
 public:
  PairEnds(const Job& job, int64_t pair)
      : bias_{bias_at(*job.a, job.first_panel(pair) * kPanelColumns),
              bias_at(*job.a, job.second_panel(pair) * kPanelColumns)},
        pairs_(job, pair) {}
  inline __attribute__((always_inline)) void fetch(int64_t row) const { pairs_.fetch(row); }
  void store(int64_t row, const std::byte* first, const std::byte* second) const {
    pairs_.store(row, sums_at(first) + bias_[0], sums_at(second) + bias_[1]);
  }

 private:
  const Vec bias_[2];
  const Pairs pairs_;
};

// To the packed rows of the product that follows: half a row of a tile each time.
template <class Act>
class PackedEnds : public GatedStages<Act> {
 public:
  PackedEnds(const Job& job, int64_t pair)
      : bias_{bias_at(*job.a, pair * kPanelColumns), bias_at(*job.a, job.N / 2 + pair * kPanelColumns)},
        to_(packed_tiles(job.gates->packed_y, job.M, job.N / 2), pair, job.pairs, kHalfRow) {}

  inline __attribute__((always_inline)) void begin(int64_t, const std::byte* gates, const std::byte* ups,
                                                   GatedStages<Act>::Begun& to) const {
    to.gate = sums_at(gates) + bias_[0], to.up = sums_at(ups) + bias_[1];
  }
  inline __attribute__((always_inline)) void end(int64_t row, const GatedStages<Act>::Half& h) const {
    const Vec y = GatedStages<Act>::output(h);
    std::byte* const to = to_.of_tile_row(row / kTileRows) + row % kTileRows * 64;
    store_half(to, reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(y.v)));
    if (to_.closes()) store_half(to + kHalfRow, _mm256_setzero_si256());
  }

 private:
  static constexpr int64_t kHalfRow = 32;

  static void store_half(std::byte* to, __m256i half) { _mm256_store_si256(reinterpret_cast<__m256i*>(to), half); }

  const Vec bias_[2];
  const PackedHalf to_;
};

struct Kind {
  using Args = GemmArgs;
  using Gated = GatedGemmArgs;
  using Job = amx::Job;
  using PlainEnds = amx::PlainEnds;
  template <class Pairs>
  using PairEnds = amx::PairEnds<Pairs>;
  template <class Act>
  using PackedEnds = amx::PackedEnds<Act>;
};
using Dense = Products<Kind>;

}  // namespace

void gemm_bf16(const GemmArgs& a) {
  if (a.heads) return Dense::run_rotated(a);
  if (!a.packed_x) return Dense::run_alone(a);
  multiply_packed<Job, PlainEnds>(Job(a, nullptr), a.scratch);
}

void gemm_gated_bf16(const GatedGemmArgs& gated) {
  if (gated.packed_y) return Dense::run_packed(gated);
  is_ragged(gated) ? gemm_then_glu(gated) : Dense::run_alone(gated);
}

void gemm_grouped_bf16(const GroupedGemmArgs& a) { Dense::run_many(a); }

void gemm_gated_grouped_bf16(const GroupedGatedGemmArgs& a) {
  any_ragged(a.products) ? gemm_then_glu_grouped(a) : Dense::run_many(a);
}

bool gemm_gated_packs(int64_t M, int64_t N) { return gated_packs(M, N); }

bool gemm_rotates(int64_t M, int64_t head_dim) { return !is_thin(M) && head_dim % 32 == 0; }

int64_t gemm_packed_x_bytes(int64_t M, int64_t K) { return packed_tiles(nullptr, M, K).tiles_bytes(); }

int64_t gemm_own_bytes() { return kOwnBytes; }

int64_t gemm_bf16_scratch_bytes(int64_t max_rows, int64_t K) {
  return (max_rows + kTileRows - 1) / kTileRows * gemm_panel_bytes(K, DType::kBf16) + compute_threads() * kOwnBytes;
}

}  // namespace millrace::amx
#pragma GCC pop_options
