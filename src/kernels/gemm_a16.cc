#include "kernels/gemm_a16.h"

#include <algorithm>

#include "kernels/cpu/gemm_a16_impls.h"
#include "kernels/parallel.h"

namespace millrace {
namespace {

constexpr Impl<GemmA16Fn> kImpls[] = {{"amx", Isa::kAmx, amx::gemm_a16},
                                      {"avx512_bf16", Isa::kAvx512Bf16, avx512::gemm_a16_pairs},
                                      {"avx512", Isa::kAvx512, avx512::gemm_a16},
                                      {"avx2", Isa::kAvx2, avx2::gemm_a16},
                                      {"portable", Isa::kPortable, portable::gemm_a16}};

// Prepared rows of x in float32; per thread a stretch of a panel (32 KiB) and sixteen sums for every row.
int64_t vector_scratch_bytes(int64_t max_rows, int64_t K, A16Format format) {
  return max_rows * a16_padded_k(K, format) * 4 + compute_threads() * ((32 << 10) + max_rows * 64);
}

}  // namespace

std::span<const Impl<GemmA16Fn>> gemm_a16_impls() { return kImpls; }

void gemm_a16(const GemmA16Args& args) {
  static GemmA16Fn* const best = best_impl(gemm_a16_impls());
  if (args.M > 0 && args.N > 0) best(args);
}

int64_t gemm_a16_scratch_bytes(int64_t max_rows, int64_t K, A16Format format) {
  const int64_t vectors = vector_scratch_bytes(max_rows, K, format);
  return cpu_has(Isa::kAmx) ? std::max(vectors, amx::gemm_a16_scratch_bytes(max_rows, K, format)) : vectors;
}

}  // namespace millrace
