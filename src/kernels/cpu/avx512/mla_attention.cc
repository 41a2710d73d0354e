// The attention of simd/mla_attention.inl for this instruction set.
#include <immintrin.h>

#include <algorithm>
#include <cmath>

#include "kernels/cpu/avx512/vec.h"
#include "kernels/cpu/mla_impls.h"

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")
namespace millrace::avx512 {
namespace {
constexpr int kDotRows = 4, kDotPositions = 4, kSumRows = 4, kSumVecs = 4;
#include "kernels/cpu/simd/math.inl"

#include "kernels/cpu/simd/mla_attention.inl"
}  // namespace

void mla_attention(const MlaAttentionArgs& a) { mla_attend(a); }

}  // namespace millrace::avx512
#pragma GCC pop_options
