// The matrix product of simd/gemm.inl for this instruction set.
#include <immintrin.h>

#include <array>
#include <utility>

#include "kernels/cpu/avx512/vec.h"
#include "kernels/cpu/gemm_grouped_impls.h"
#include "kernels/parallel.h"

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")
namespace millrace::avx512 {
namespace {
constexpr int kTileRows = 12, kTilePanels = 2;
}  // namespace
#include "kernels/cpu/simd/math.inl"

#include "kernels/cpu/simd/gemm.inl"
}  // namespace millrace::avx512
#pragma GCC pop_options
