#include <immintrin.h>

#include "kernels/cpu/avx512/vec.h"
#include "kernels/cpu/machine_loops.h"

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")
namespace millrace::avx512 {
namespace {
constexpr int kFmaChains = 12;  // enough to hide the latency, few enough to stay in registers
}
#include "kernels/cpu/simd/machine.inl"
}  // namespace millrace::avx512
#pragma GCC pop_options
