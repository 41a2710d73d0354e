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

namespace {

int64_t multiply_int8(int64_t rounds) {
  __m512i sums[kFmaChains];
#pragma GCC unroll 16
  for (int j = 0; j < kFmaChains; ++j) sums[j] = _mm512_set1_epi32(j);  // equal chains would be merged
  const __m512i a = _mm512_set1_epi8(-77), b = _mm512_set1_epi8(53);
  for (int64_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 16
    for (int j = 0; j < kFmaChains; ++j) sums[j] = _mm512_dpbusd_epi32(sums[j], a, b);
  }
  int all = 0;
  for (const __m512i& sum : sums) all += _mm512_reduce_add_epi32(sum) & 1;
  return rounds * kFmaChains * 128 + (all != 0);  // sixteen equal lanes: even; using the sums keeps the loop
}

}  // namespace

#pragma GCC push_options
#pragma GCC target("avx512bf16")
int64_t multiply_bf16_pairs(int64_t rounds) {
  __m512 sums[kFmaChains];
#pragma GCC unroll 16
  for (int j = 0; j < kFmaChains; ++j) sums[j] = _mm512_set1_ps(static_cast<float>(j));
  const auto a = reinterpret_cast<__m512bh>(_mm512_set1_epi16(0x3f35)),
             b = reinterpret_cast<__m512bh>(_mm512_set1_epi16(0x3e9b));
  for (int64_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 16
    for (int j = 0; j < kFmaChains; ++j) sums[j] = _mm512_dpbf16_ps(sums[j], a, b);
  }
  float all = 0;
  for (const __m512& sum : sums) all += _mm512_reduce_add_ps(sum);
  return rounds * kFmaChains * 64 + (all < 0);  // the sums are positive; using them keeps the loop
}
#pragma GCC pop_options

MachineLoops machine_loops() { return {read_memory, multiply_f32, nullptr, multiply_int8, nullptr, nullptr}; }

}  // namespace millrace::avx512
#pragma GCC pop_options
