// Row operations for this instruction set: the bodies of simd/ compiled with its Vec.
#include "kernels/cpu/rows.h"

#include <immintrin.h>

#include <cmath>
#include <cstring>

#include "kernels/cpu/avx2/vec.h"
#include "kernels/cpu/gemm_w8a8_impls.h"

#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
namespace millrace::avx2 {
using portable::noise;

#include "kernels/cpu/simd/math.inl"

#include "kernels/cpu/simd/activations.inl"
#include "kernels/cpu/simd/cast_rows.inl"
#include "kernels/cpu/simd/expert_rows.inl"
#include "kernels/cpu/simd/glu.inl"
#include "kernels/cpu/simd/logits.inl"
#include "kernels/cpu/simd/norm.inl"
#include "kernels/cpu/simd/rope.inl"
}  // namespace millrace::avx2
#pragma GCC pop_options
