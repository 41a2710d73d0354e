#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "kernels/cpu/gemm_a16_impls.h"
#include "kernels/cpu/pack_impls.h"
#include "kernels/parallel.h"

namespace millrace {
namespace {

// Row n, a chunk after the other.
struct PackedRow {
  PackedRow(const A16PackArgs& a, int64_t n)
      : layout(GemmA16Args{.N = a.row_end, .K = a.K, .group = a.group}),
        at(a.packed + n / 16 * layout.panel_bytes),
        column(n % 16) {}
  std::byte* chunk(int64_t c) const { return at + c * layout.chunk_bytes; }
  const A16Layout layout;
  std::byte* const at;
  const int64_t column;
};

// Bits of the scale at 16 significant bits, the zero in the low byte.
uint32_t scale_word(float scale, uint8_t zero) {
  const auto bits = std::bit_cast<uint32_t>(scale);
  if ((bits & 0x7f800000) == 0x7f800000) return (bits & ~kZeroMask) | zero;  // infinity and NaN stay
  return ((bits + 0x7f + (bits >> 8 & 1)) & ~kZeroMask) | zero;
}

void pack_scales(const A16PackArgs& a, const PackedRow& row, int64_t n, int64_t k0) {
  const int64_t groups = (a.K + std::min(a.group, a.K) - 1) / std::min(a.group, a.K);
  const int64_t count = row.layout.chunk_scales, at = (n - a.row_begin) * groups;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t k = k0 + i * 128 / count;
    if (k >= a.K) return;
    const int64_t g = at + k / a.group;
    const uint32_t word = scale_word(a.scales[g], a.zeros ? a.zeros[g] : 8);
    std::memcpy(row.chunk(k0 / 128) + (i * 16 + row.column) * 4, &word, 4);
  }
}

// Up to 128 values; those beyond are zero.
void pack_int4_rest(const uint8_t* values, int64_t count, std::byte* to) {
  uint16_t words[32] = {};
  for (int64_t k = 0; k < count; ++k)
    words[k % 32] = static_cast<uint16_t>(words[k % 32] | (values[k] & 15) << (k / 32 * 4));
  std::memcpy(to, words, 64);
}

void pack_row(const A16PackArgs& a, int64_t n) {
  const PackedRow row(a, n);
  const uint8_t* values = a.values + (n - a.row_begin) * a.K;
  const bool fast = cpu_has(Isa::kAvx512);
  for (int64_t k0 = 0; k0 < a.K; k0 += 128) {
    std::byte* const to = row.chunk(k0 / 128) + row.layout.chunk_scales * 64 + row.column * 64;
    if (fast && k0 + 128 <= a.K)
      avx512::pack_int4_chunk(values + k0, to);
    else
      pack_int4_rest(values + k0, std::min<int64_t>(128, a.K - k0), to);
    pack_scales(a, row, n, k0);
  }
}

// Rows [begin, end) of one panel.
void pack_panel(const A16PackArgs& a, int64_t begin, int64_t end) {
  for (int64_t n = begin; n < end; ++n) pack_row(a, n);
}

}  // namespace

void gemm_a16_pack(const A16PackArgs& args) {
  MR_CHECK(is_int4_group(args.group, args.K), "a scale for {} of {}", args.group, args.K);
  const int64_t first = args.row_begin / 16, last = (args.row_end + 15) / 16;
  parallel_ranges(last - first, 1, [&](int64_t begin, int64_t end) {
    for (int64_t panel = first + begin; panel < first + end; ++panel)
      pack_panel(args, std::max(args.row_begin, panel * 16), std::min(args.row_end, (panel + 1) * 16));
  });
}

void gemm_a16_unpack_row(const GemmA16Args& weights, int64_t n, float factor, float* to) {
  const A16Layout layout(weights);
  for (int64_t k = 0; k < weights.K; ++k) to[k] = factor * portable::a16_weight(weights, layout, n, k);
}

}  // namespace millrace
