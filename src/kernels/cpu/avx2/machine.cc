#include <immintrin.h>

#include "kernels/cpu/avx2/vec.h"
#include "kernels/cpu/machine_loops.h"

#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
namespace millrace::avx2 {
namespace {
constexpr int kFmaChains = 6;  // enough to hide the latency, few enough to stay in registers
}
#include "kernels/cpu/simd/machine.inl"

MachineLoops machine_loops() { return {read_memory, multiply_f32, nullptr, nullptr, nullptr, nullptr}; }

}  // namespace millrace::avx2
#pragma GCC pop_options
