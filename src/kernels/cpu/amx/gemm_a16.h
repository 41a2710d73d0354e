// What gemm_a16's products of few and of many rows on AMX tiles share.
#pragma once
#include <immintrin.h>

#include <algorithm>

#include "kernels/cpu/amx/products.h"
#include "kernels/cpu/avx512/unpack.h"
#include "kernels/cpu/avx512/vec.h"
#include "kernels/cpu/gemm_a16_impls.h"

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx2,fma,f16c")
namespace millrace::amx {

constexpr int64_t kInt8TileBytes = 512, kInt4Units = 4;  // units: tiles in a chunk of kInt4

// ---- x ----

// 32 elements of a row from k on, zero from K on.
inline __m512i load_a16_row(const GemmA16Args& a, int64_t row, int64_t k) {
  const int64_t left = std::max<int64_t>(0, a.K - k), at = row * a.x_stride + k;
  if (a.x_dtype == DType::kBf16) {
    const __mmask32 mask = left >= 32 ? 0xffffffffu : (1u << left) - 1;
    return _mm512_maskz_loadu_epi16(mask, static_cast<const bf16*>(a.x) + at);
  }
  const float* x = static_cast<const float*>(a.x) + at;
  const __m512 low = _mm512_maskz_loadu_ps(lanes_below(left), x);
  const __m512 high = left > 16 ? _mm512_maskz_loadu_ps(lanes_below(left - 16), x + 16) : _mm512_setzero_ps();
  return reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high, low));
}

// All rows of x, against panels that become tiles on the way.
struct A16RowsJob : TileProduct {
  explicit A16RowsJob(const GemmA16Args& args)
      : TileProduct(nullptr, args.scratch, args.M, args.N, (args.K + kTileK - 1) / kTileK, false), a(&args) {}
  template <int kSum, int kX, int kW>
  static void multiply() {
    tile_multiply<kSum, kX, kW>();
  }
  int64_t packed_bytes() const { return tiles_bytes(); }
  void pack(int64_t begin, int64_t end) const {
    for (int64_t from = 0; from < steps; from += stretch)
      for (int64_t row = begin; row < end; ++row) {
        std::byte* to = packed_row(row, from);
        for (int64_t s = from; s < std::min(steps, from + stretch); ++s, to += step_bytes)
          _mm512_store_si512(to, row < M ? load_a16_row(*a, row, s * kTileK) : _mm512_setzero_si512());
      }
  }

  const GemmA16Args* a;
};

// ---- y ----

// What a panel's sums become.
class A16Columns {
 public:
  A16Columns(const GemmA16Args& a, int64_t panel)
      : scaled_(a.scales),
        shifted_(a.bias),
        stride_(a.y_stride),
        y_(a.y + panel * 16),
        lanes_(lanes_below(a.N - panel * 16)),
        scale_{a.scales ? _mm512_maskz_loadu_ps(lanes_, a.scales + panel * 16) : _mm512_setzero_ps()},
        bias_{a.bias ? _mm512_maskz_loadu_ps(lanes_, a.bias + panel * 16) : _mm512_setzero_ps()} {}
  inline __attribute__((always_inline)) void fetch(int64_t row) const { __builtin_prefetch(y_ + row * stride_, 1); }
  void store(int64_t row, const std::byte* sums) const {
    avx512::Vec y = avx512::Vec::load(reinterpret_cast<const float*>(sums));
    if (scaled_) y = y * scale_;
    if (shifted_) y = y + bias_;
    _mm512_mask_storeu_ps(y_ + row * stride_, lanes_, y.v);
  }

 private:
  const bool scaled_, shifted_;
  const int64_t stride_;
  float* const y_;
  const __mmask16 lanes_;
  const avx512::Vec scale_, bias_;
};

constexpr int64_t kFetchAhead = 8 << 10;  // bytes of a run that are on their way

inline __attribute__((always_inline)) void fetch_line(const std::byte* at) {
  _mm_prefetch(reinterpret_cast<const char*>(at), _MM_HINT_T1);
}

// A tile of kInt8 is the second operand as it is unpacked: [16 pairs of k][16 columns][2].
inline __attribute__((always_inline)) void unpack_int8_tile(const std::byte* from, const std::byte* ahead,
                                                            std::byte* tile) {
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) {
    if (i % 2 == 0) fetch_line(ahead + i * 32);
    _mm512_store_si512(tile + i * 64, avx512::unpack_int8_unit(from + i * 32));
  }
}

// Products of more than kThinTileRows tiles of rows.
void gemm_a16_many_rows(const GemmA16Args& a);
// Memory that each of its threads needs, beside packed rows.
int64_t gemm_a16_own_bytes();

}  // namespace millrace::amx
#pragma GCC pop_options
