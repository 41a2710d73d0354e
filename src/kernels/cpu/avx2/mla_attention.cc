// The attention of simd/mla_attention.inl for this instruction set.
#include <immintrin.h>

#include <algorithm>
#include <cmath>

#include "kernels/cpu/avx2/vec.h"
#include "kernels/cpu/mla_impls.h"

#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
namespace millrace::avx2 {
namespace {
constexpr int kDotRows = 2, kDotPositions = 2, kSumRows = 3, kSumVecs = 2;
#include "kernels/cpu/simd/math.inl"

#include "kernels/cpu/simd/mla_attention.inl"
}  // namespace

void mla_attention(const MlaAttentionArgs& a) { mla_attend(a); }

}  // namespace millrace::avx2
#pragma GCC pop_options
