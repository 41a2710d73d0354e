// What gemm_a16's products of few and of many rows on AMX tiles share.
#pragma once
#include <immintrin.h>

#include <algorithm>

#include "kernels/cpu/amx/products.h"
#include "kernels/cpu/amx/unpack.h"
#include "kernels/cpu/avx512/vec.h"
#include "kernels/cpu/gemm_grouped_impls.h"

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx2,fma,f16c")
namespace millrace::amx {

constexpr int64_t kInt4Units = 4;  // tiles in a chunk

constexpr int64_t kFetchAhead = 8 << 10;  // bytes of a run that are on their way

inline __attribute__((always_inline)) void fetch_line(const std::byte* at) {
  _mm_prefetch(reinterpret_cast<const char*>(at), _MM_HINT_T1);
}

// run.operator()<kScales>() with the scales that a column has in a chunk.
template <class Run>
void with_scales(const GemmA16Args& a, const Run& run) {
  switch (a16_chunk_scales(a.group, a.K)) {
    case 1:
      return run.template operator()<1>();
    case 2:
      return run.template operator()<2>();
    default:
      return run.template operator()<4>();
  }
}

// Products of more than kThinTileRows tiles of rows; gated ones with N a multiple of 32.
void gemm_a16_many_rows(const GemmA16Args& a);
void gemm_gated_a16_many_rows(const GatedGemmA16Args& gated);
// The same in steps, kMakingBytes for every thread.
const GemmSteps<GemmA16Args>& many_row_steps(const GemmA16Args&);
const GemmSteps<GatedGemmA16Args>& many_row_steps(const GatedGemmA16Args&);

}  // namespace millrace::amx
#pragma GCC pop_options
