// The attention of simd/attention.inl for this instruction set.
#include <immintrin.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <utility>

#include "kernels/cpu/attention_impls.h"
#include "kernels/cpu/avx2/vec.h"
#include "kernels/parallel.h"

#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
namespace millrace::avx2 {
namespace {
constexpr int kScoreRows = 3, kScoreVecs = 2, kValueRows = 3, kValueVecs = 2;
#include "kernels/cpu/simd/math.inl"

#include "kernels/cpu/simd/attention.inl"

#include "kernels/cpu/simd/attention_tiles.inl"
}  // namespace

#include "kernels/cpu/simd/kv_quantize.inl"

void paged_attention(const AttentionArgs& a) {
  if (a.layout.dtype == DType::kI8) return attend_with<VecTiles<int8_t>>(a);
  attend(a);
}

}  // namespace millrace::avx2
#pragma GCC pop_options
