#include <cstring>

#include "base/check.h"
#include "base/from_float.h"
#include "kernels/cpu/gemm_impls.h"
#include "kernels/parallel.h"

namespace millrace {
namespace {

template <class To, class From>
To converted_to(From x) {
  if constexpr (std::is_same_v<To, From>)
    return x;
  else
    return from_float<To>(to_float(x));
}

// Offset of w[n, k] in the packed matrix.
int64_t packed_at(int64_t n, int64_t k, int64_t K, DType weight) {
  const int64_t panel = n / kPanelColumns * kPanelColumns * gemm_padded_k(K, weight), column = n % kPanelColumns;
  if (weight == DType::kBf16) return panel + k / 2 * 2 * kPanelColumns + column * 2 + k % 2;
  return panel + k * kPanelColumns + column;
}

// Rows [begin, end) of the packed matrix, which lie in one panel, from k_begin on. A stretch of k at a time, so that
// reads and writes stay within a few cache lines.
template <class From, class To>
void pack_panel(const PackArgs& a, int64_t begin, int64_t end, int64_t k_begin) {
  constexpr int64_t kStretch = 32;
  const From* w = static_cast<const From*>(a.w);
  To* packed = static_cast<To*>(a.packed);
  for (int64_t k0 = k_begin; k0 < a.K; k0 += kStretch) {
    const int64_t k1 = std::min(a.K, k0 + kStretch);
    for (int64_t n = begin; n < end; ++n)
      for (int64_t k = k0; k < k1; ++k)
        packed[packed_at(n, k, a.K, a.to)] = converted_to<To>(w[(n - a.row_begin) * a.w_stride + k]);
  }
}

template <class From>
void pack_from(const PackArgs& a, int64_t begin, int64_t end, int64_t k_begin) {
  if (a.to == DType::kF32) return pack_panel<From, float>(a, begin, end, k_begin);
  if (a.to == DType::kBf16) return pack_panel<From, bf16>(a, begin, end, k_begin);
  pack_panel<From, f16>(a, begin, end, k_begin);
}

void pack_any(const PackArgs& a, int64_t begin, int64_t end, int64_t k_begin) {
  if (a.from == DType::kF32) return pack_from<float>(a, begin, end, k_begin);
  if (a.from == DType::kBf16) return pack_from<bf16>(a, begin, end, k_begin);
  pack_from<f16>(a, begin, end, k_begin);
}

template <class W>
void unpack(const W* packed, DType weight, int64_t K, int64_t n, float scale, float* to) {
  for (int64_t k = 0; k < K; ++k) to[k] = scale * to_float(packed[packed_at(n, k, K, weight)]);
}

}  // namespace

void gemm_pack(const PackArgs& args) {
  const auto is_weight = [](DType d) { return d == DType::kF32 || d == DType::kBf16 || d == DType::kF16; };
  MR_CHECK(is_weight(args.from) && is_weight(args.to), "packing {} as {}", dtype_name(args.from), dtype_name(args.to));
  const int64_t first = args.row_begin / kPanelColumns, last = (args.row_end + kPanelColumns - 1) / kPanelColumns;
  parallel_ranges(last - first, 4, [&](int64_t begin, int64_t end) {
    for (int64_t panel = first + begin; panel < first + end; ++panel) {
      const int64_t row = std::max(args.row_begin, panel * kPanelColumns);
      const int64_t row_end = std::min(args.row_end, (panel + 1) * kPanelColumns);
      const bool whole = row_end - row == kPanelColumns && cpu_has(Isa::kAvx512);
      pack_any(args, row, row_end, whole ? avx512::pack_whole_panel(args, panel) : 0);
    }
  });
}

void gemm_unpack_row(const void* packed, DType weight, int64_t K, int64_t n, float scale, float* to) {
  if (weight == DType::kF32) return unpack(static_cast<const float*>(packed), weight, K, n, scale, to);
  if (weight == DType::kBf16) return unpack(static_cast<const bf16*>(packed), weight, K, n, scale, to);
  unpack(static_cast<const f16*>(packed), weight, K, n, scale, to);
}

}  // namespace millrace
