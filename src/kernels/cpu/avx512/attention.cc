// The attention of simd/attention.inl for this instruction set.
#include <immintrin.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <utility>

#include "kernels/cpu/attention_impls.h"
#include "kernels/cpu/avx512/vec.h"
#include "kernels/parallel.h"

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")
namespace millrace::avx512 {
namespace {
constexpr int kScoreRows = 6, kScoreVecs = 4, kValueRows = 6, kValueVecs = 4;
#include "kernels/cpu/simd/math.inl"

#include "kernels/cpu/simd/attention.inl"

#include "kernels/cpu/simd/attention_tiles.inl"
}  // namespace

#include "kernels/cpu/simd/kv_quantize.inl"

void paged_attention(const AttentionArgs& a) {
  if (a.layout.dtype == DType::kI8) return paged_attention_fours(a);
  attend(a);
}

}  // namespace millrace::avx512
#pragma GCC pop_options
