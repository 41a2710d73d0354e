// The matrix product of simd/gemm.inl for this instruction set.
#include <immintrin.h>

#include <array>
#include <utility>

#include "kernels/cpu/avx2/vec.h"
#include "kernels/cpu/gemm_grouped_impls.h"
#include "kernels/parallel.h"

#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
namespace millrace::avx2 {
namespace {
constexpr int kTileRows = 6, kTilePanels = 1;
}  // namespace
#include "kernels/cpu/simd/math.inl"

#include "kernels/cpu/simd/gemm.inl"
}  // namespace millrace::avx2
#pragma GCC pop_options
