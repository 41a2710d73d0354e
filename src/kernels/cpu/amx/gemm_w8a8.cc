// gemm_w8a8 on AMX tiles. A tile of w is 64 of k for the sixteen columns of a panel, as it lies in memory; x is
// quantised once into tiles of sixteen rows; of two digits, the high one's row is above the low one's.
#include <immintrin.h>

#include "kernels/cpu/amx/products.h"
#include "kernels/cpu/avx512/quantize.h"
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

constexpr int64_t kStepK = 64, kColumns = 16;  // of a tile of w

// Blocks of x that is left packed: sixteen rows of sixteen bf16, contiguous. Those of sixteen columns lie one after the
// other, for they are written together; a line more, and those of a row do not meet in few sets of the caches.
constexpr int64_t kBlockBytes = 512, kBlockRowBytes = 32;
constexpr int64_t blocks_bytes(int64_t M) { return tile_rows_of(M) * kBlockBytes + 64; }

// The largest |x| of rows of blocks as the bits of floats, two rows a line of blocks.
struct Largest {
  void take(const std::byte* block) {
#pragma GCC unroll 8
    for (int line = 0; line < 8; ++line) {
      const __m512i words = _mm512_load_si512(block + 64 * line);
      of[line] = _mm512_max_epu16(of[line], _mm512_and_si512(words, _mm512_set1_epi16(0x7fff)));
    }
  }
  uint32_t bits(int row) const {
    const __m256i words = row % 2 ? _mm512_extracti64x4_epi64(of[row / 2], 1) : _mm512_castsi512_si256(of[row / 2]);
    return static_cast<uint32_t>(_mm512_reduce_max_epu32(_mm512_cvtepu16_epi32(words))) << 16;
  }
  __m512i of[8] = {};
};

// The packed rows' scales follow them. Rows of a tile beyond M stay as they are, with scales of zero.
template <int kDigitCount>
struct Job : TileProduct {
  static constexpr int kDigits = kDigitCount;
  Job(const GemmW8A8Args& args, const GatedGemmW8A8Args* gates)
      : TileProduct(args.w, args.scratch, kDigits * args.M, args.N, w8a8_padded_k(args.K) / kStepK, gates, args.heads),
        a(&args),
        gates(gates) {}
  template <int kSum, int kX, int kW>
  static void multiply() {
    tile_multiply_int8<kSum, kX, kW>();
  }
  float* scales() const { return reinterpret_cast<float*>(memory + tiles_bytes()); }
  int64_t packed_bytes() const { return tiles_bytes() + tile_rows * kTileRows * static_cast<int64_t>(sizeof(float)); }
  int threads() const { return gemm_w8a8_threads(*a); }
  void pack(int64_t begin, int64_t end) const {
    if (a->packed_x) return pack_blocks(begin / kDigits, end / kDigits);
    for (int64_t row = (begin + kDigits - 1) / kDigits; row * kDigits < std::min(end, M); ++row)
      scales()[row] = pack_row(row);
    std::fill(scales() + std::min(end, std::max(begin, M)) / kDigits, scales() + end / kDigits, 0.0f);
  }
  // Returns its scale.
  float pack_row(int64_t row) const {
    const auto store = [&](int64_t k, auto... digits) {
      store_digits(packed_row(kDigits * row, k / kStepK), digits...);
    };
    if constexpr (kDigits == 1)
      return avx512::quantize_row(*a, row, steps * kStepK, store);
    else
      return avx512::quantize_row_to_digits(*a, row, steps * kStepK, store);
  }
  static void store_digits(std::byte* to, __m512i bytes) { _mm512_store_si512(to, bytes); }
  static void store_digits(std::byte* to, __m512i high, __m512i low) {
    _mm512_store_si512(to, high), _mm512_store_si512(to + 64, low);
  }
  // Rows [begin, end) of x that lies in blocks, those of whole tiles.
  void pack_blocks(int64_t begin, int64_t end) const {
    for (int64_t row = begin; row < std::min(end, a->M); row += kRowsOfTile) pack_tile(row);
  }
  void pack_tile(int64_t first) const {
    const int64_t blocks = a->K / kColumns, apart = blocks_bytes(a->M), in_block = first % kTileRows;
    const std::byte* x = a->packed_x + first / kTileRows * kBlockBytes;
    Largest largest;
    if (a->x_scale == 0)
      for (int64_t i = 0; i < blocks; ++i) largest.take(x + i * apart);
    float factors[kRowsOfTile];
    for (int row = 0; row < kRowsOfTile; ++row) {
      const RowScale scale = RowScale::of(a->x_scale, largest.bits(in_block + row), kDigits);
      scales()[first + row] = scale.scale;
      factors[row] = scale.factor;
    }
    for (int64_t step = 0; step < steps; ++step)
      pack_step(x + step * 4 * apart + in_block * kBlockRowBytes, apart, blocks - 4 * step, factors,
                packed_row(first * kDigits, step));
  }
  // 64 of k, of which `blocks` blocks are there at most, so many bytes apart.
  static void pack_step(const std::byte* x, int64_t apart, int64_t blocks, const float* factors, std::byte* to) {
    for (int row = 0; row < kRowsOfTile; ++row, x += kBlockRowBytes, to += kDigits * 64) {
      const avx512::Elements elements = {block_row(x, blocks > 0), block_row(x + apart, blocks > 1),
                                         block_row(x + 2 * apart, blocks > 2), block_row(x + 3 * apart, blocks > 3)};
      if constexpr (kDigits == 1) {
        store_digits(to, avx512::quantized(elements, factors[row]));
      } else {
        const avx512::TwoDigits p = avx512::two_digits(elements, factors[row]);
        store_digits(to, p.high, p.low);
      }
    }
  }
  // Sixteen elements, or zeros, and `at` is not touched.
  static __m512 block_row(const std::byte* at, bool there) { return avx512::widened(at, there ? 0xffff : 0); }

  static constexpr int kRowsOfTile = kTileRows / kDigits;
  const GemmW8A8Args* a;
  const GatedGemmW8A8Args* gates;  // or null
};

// ---- sums to y ----

inline Vec floats(const std::byte* sums) { return {_mm512_cvtepi32_ps(_mm512_load_si512(sums))}; }

// What sixteen columns' sums become.
template <int kDigits>
class Columns {
 public:
  Columns(const GemmW8A8Args& a, int64_t column)
      : scale_{_mm512_maskz_loadu_ps(lanes_below(a.N - column), a.scales + column)},
        bias_{a.bias ? _mm512_maskz_loadu_ps(lanes_below(a.N - column), a.bias + column) : _mm512_setzero_ps()},
        has_bias_(a.bias) {}
  inline __attribute__((always_inline)) Vec operator()(const std::byte* sums, Vec row_scale) const {
    Vec all = floats(sums);
    if constexpr (kDigits == 2) all = Vec::fma(all, Vec::set(256), floats(sums + 64));  // the product is exact
    const Vec y = all * scale_ * row_scale;
    return has_bias_ ? y + bias_ : y;
  }

 private:
  const Vec scale_, bias_;
  const bool has_bias_;
};

template <int kDigits>
class PlainEnds {
 public:
  PlainEnds(const Job<kDigits>& job, int64_t pair)
      : low_(*job.a, 2 * pair * kColumns),
        high_(*job.a, (2 * pair + 1) * kColumns),
        scales_(job.scales()),
        low_rows_(*job.a, 2 * pair * kColumns),
        high_rows_(*job.a, (2 * pair + 1) * kColumns) {}
  inline __attribute__((always_inline)) void fetch(int64_t row) const { low_rows_.fetch(row), high_rows_.fetch(row); }
  void store(int64_t row, const std::byte* low, const std::byte* high) const {
    const Vec scale = Vec::set(scales_[row]);
    low_rows_.store(row, low_(low, scale));
    high_rows_.store(row, high_(high, scale));
  }

 private:
  const Columns<kDigits> low_, high_;
  const float* const scales_;
  const PlainRows low_rows_, high_rows_;
};

template <int kDigits, class Pairs>
class PairEnds {
 public:
  PairEnds(const Job<kDigits>& job, int64_t pair)
      : first_(*job.a, job.first_panel(pair) * kColumns),
        second_(*job.a, job.second_panel(pair) * kColumns),
        scales_(job.scales()),
        pairs_(job, pair) {}
  inline __attribute__((always_inline)) void fetch(int64_t row) const { pairs_.fetch(row); }
  void store(int64_t row, const std::byte* first, const std::byte* second) const {
    const Vec scale = Vec::set(scales_[row]);
    pairs_.store(row, first_(first, scale), second_(second, scale));
  }

 private:
  const Columns<kDigits> first_, second_;
  const float* const scales_;
  const Pairs pairs_;
};

// To blocks of the rows that the next product quantises; a line is two rows.
template <int kDigits, class Act>
class PackedEnds : public GatedLine<Act> {
 public:
  static constexpr int64_t kLines = 2 * kDigits;

  PackedEnds(const Job<kDigits>& job, int64_t pair)
      : gate_(*job.a, pair * kColumns),
        up_(*job.a, job.N / 2 + pair * kColumns),
        scales_(job.scales()),
        to_(job.gates->packed_y + pair * blocks_bytes(job.a->M)) {}

  inline __attribute__((always_inline)) void begin(int64_t i, const std::byte* gates, const std::byte* ups,
                                                   GatedLine<Act>::Begun& to) const {
    const Vec scale = Vec::set(scales_[2 * i]), second = Vec::set(scales_[2 * i + 1]);
    to.first.gate = gate_(gates, scale), to.first.up = up_(ups, scale);
    to.second.gate = gate_(gates + kDigits * 64, second), to.second.up = up_(ups + kDigits * 64, second);
  }
  inline __attribute__((always_inline)) void end(int64_t i, const GatedLine<Act>::Half& h) const {
    _mm512_store_si512(to_ + i * 64, GatedLine<Act>::line(h));
  }

 private:
  const Columns<kDigits> gate_, up_;
  const float* const scales_;
  std::byte* const to_;
};

template <int kDigits>
struct Kind {
  using Args = GemmW8A8Args;
  using Gated = GatedGemmW8A8Args;
  using Job = amx::Job<kDigits>;
  using PlainEnds = amx::PlainEnds<kDigits>;
  template <class Pairs>
  using PairEnds = amx::PairEnds<kDigits, Pairs>;
  template <class Act>
  using PackedEnds = amx::PackedEnds<kDigits, Act>;
};

// run.operator()<Products>() with those of so many digits.
template <class Run>
void with_digits(int64_t x_digits, const Run& run) {
  x_digits == 1 ? run.template operator()<Products<Kind<1>>>() : run.template operator()<Products<Kind<2>>>();
}
template <class Args>
void run_alone(const Args& args, int64_t x_digits) {
  with_digits(x_digits, [&]<class Integers>() { Integers::run_alone(args); });
}
template <class Grouped>
void run_many(const Grouped& a, int64_t x_digits) {
  with_digits(x_digits, [&]<class Integers>() { Integers::run_many(a); });
}

}  // namespace

void gemm_w8a8(const GemmW8A8Args& a) {
  if (a.heads) return with_digits(a.x_digits, [&]<class Integers>() { Integers::run_rotated(a); });
  run_alone(a, a.x_digits);
}

void gemm_gated_w8a8(const GatedGemmW8A8Args& gated) {
  if (gated.packed_y)
    return with_digits(gated.product.x_digits, [&]<class Integers>() { Integers::run_packed(gated); });
  is_ragged(gated) ? gemm_w8a8_then_glu(gated) : run_alone(gated, gated.product.x_digits);
}

void gemm_w8a8_grouped(const GroupedW8A8Args& a) { run_many(a, a.products[0].x_digits); }

void gemm_gated_w8a8_grouped(const GroupedGatedW8A8Args& a) {
  any_ragged(a.products) ? gemm_w8a8_then_glu_grouped(a) : run_many(a, a.products[0].product.x_digits);
}

bool gemm_gated_w8a8_packs(int64_t M, int64_t N) { return gated_packs(M, N); }

int64_t gemm_w8a8_packed_x_bytes(int64_t M, int64_t K) { return K / kColumns * blocks_bytes(M); }

int64_t gemm_w8a8_scratch_bytes(int64_t max_rows, int64_t K) {
  const int64_t tile_rows = (max_rows + kTileRows - 1) / kTileRows;
  return tile_rows * (w8a8_padded_k(K) / kStepK * kTileBytes + 64) + compute_threads() * kOwnBytes;
}

}  // namespace millrace::amx
#pragma GCC pop_options
