#include "kernels/quantize_rows.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>

#include "base/cpu.h"
#include "kernels/cpu/pack_impls.h"
#include "kernels/parallel.h"

namespace millrace {
namespace {

constexpr DType kind_of(const float*) { return DType::kF32; }
constexpr DType kind_of(const bf16*) { return DType::kBf16; }
constexpr DType kind_of(const f16*) { return DType::kF16; }

uint32_t magnitude_bits(float x) { return std::bit_cast<uint32_t>(x) & 0x7fffffff; }

// Adding and taking away 1.5 * 2^23 rounds to nearest even.
int8_t rounded(float x) {
  constexpr float kMagic = 12582912.0f;
  return static_cast<int8_t>(std::bit_cast<int32_t>(x + kMagic) - std::bit_cast<int32_t>(kMagic));
}

template <class W>
uint32_t largest_bits_of(const W* w, int64_t K, bool fast) {
  if (fast) return avx512::largest_magnitude(w, kind_of(w), K);
  uint32_t largest = 0;
  for (int64_t k = 0; k < K; ++k) largest = std::max(largest, magnitude_bits(to_float(w[k])));
  return largest;
}

// False where the row is not finite.
template <class W>
bool quantize_row(const W* w, int64_t K, bool fast, int8_t* values, float& scale) {
  const uint32_t largest_bits = largest_bits_of(w, K, fast);
  if (largest_bits >= 0x7f800000) return false;
  const float largest = std::bit_cast<float>(largest_bits);
  scale = largest / 127;
  const float factor = largest > 1e-30f ? 127 / largest : 0;
  const int64_t done = fast ? avx512::scale_to_int8(w, kind_of(w), K, factor, values) : 0;
  for (int64_t k = done; k < K; ++k) values[k] = rounded(to_float(w[k]) * factor);
  return true;
}

template <class W>
int64_t quantize(const QuantizeRowsArgs& a) {
  std::atomic<int64_t> bad = a.rows;  // the first of them
  const bool fast = cpu_has(Isa::kAvx512);
  parallel_ranges(a.rows, 16, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n)
      if (!quantize_row(static_cast<const W*>(a.w) + n * a.w_stride, a.K, fast, a.values + n * a.K, a.scales[n]))
        for (int64_t first = bad; n < first && !bad.compare_exchange_weak(first, n);) continue;
  });
  return bad < a.rows ? bad.load() : -1;
}

}  // namespace

int64_t quantize_rows(const QuantizeRowsArgs& args) {
  if (args.dtype == DType::kF32) return quantize<float>(args);
  if (args.dtype == DType::kBf16) return quantize<bf16>(args);
  return quantize<f16>(args);
}

}  // namespace millrace
