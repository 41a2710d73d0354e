// Sixteen tokens' keys and values into a bf16 cache, whole lines at a time.
#include <algorithm>

#include "kernels/cpu/attention_impls.h"
#include "kernels/cpu/avx512/transpose.h"

// gcc warns about its own headers (bug 105593).
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl")
namespace millrace::avx512 {
namespace {

__mmask16 lanes_below(int64_t n) { return static_cast<__mmask16>(n >= 16 ? 0xffff : n <= 0 ? 0 : (1u << n) - 1); }

// Sixteen floats from d on as to_bf16 rounds them, each in the low half of its lane; zero from D on.
__m512i rounded(const float* x, int64_t d, int64_t D) {
  const __m512i bits = _mm512_maskz_loadu_epi32(lanes_below(D - d), x + d);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i up = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
  const __m512i nan = _mm512_or_si512(bits, _mm512_set1_epi32(0x400000));
  const __m512i magnitude = _mm512_and_si512(bits, _mm512_set1_epi32(0x7fffffff));
  const __mmask16 is_nan = _mm512_cmpgt_epi32_mask(magnitude, _mm512_set1_epi32(0x7f800000));
  return _mm512_srli_epi32(_mm512_mask_mov_epi32(up, is_nan, nan), 16);
}

// 32 elements from d on, in order.
__m512i pairs_of(const float* x, int64_t d, int64_t D) {
  const __m256i low = _mm512_cvtepi32_epi16(rounded(x, d, D)), high = _mm512_cvtepi32_epi16(rounded(x, d + 16, D));
  return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
}

// `k`: of the first token; `to`: the sixteen positions' keys of the head, [Dp/2][16][2].
void write_keys(const float* k, int64_t stride, int64_t D, bf16* to) {
  for (int64_t d = 0; d < D; d += 32) {
    __m512i rows[16];
    for (int i = 0; i < 16; ++i) rows[i] = pairs_of(k + i * stride, d, D);
    transpose(rows);
    const int64_t pairs = std::min<int64_t>(16, (D - d + 1) / 2);
    for (int64_t i = 0; i < pairs; ++i) _mm512_storeu_si512(to + (d / 2 + i) * 2 * kKvLanes, rows[i]);
  }
}

// The same for values, [8][Dp][2].
void write_values(const float* v, int64_t stride, int64_t D, int64_t padded, bf16* to) {
  for (int64_t pair = 0; pair < kKvLanes / 2; ++pair) {
    const float *first = v + 2 * pair * stride, *second = first + stride;
    for (int64_t d = 0; d < D; d += 16) {
      const __m512i both = _mm512_or_si512(rounded(first, d, D), _mm512_slli_epi32(rounded(second, d, D), 16));
      _mm512_storeu_si512(to + (pair * padded + d) * 2, both);
    }
  }
}

}  // namespace

void kv_write_sixteen(const KvWriteArgs& a, int64_t t) {
  const KvLayout& layout = a.layout;
  const int64_t D = layout.head_dim, block = a.slots[t] / layout.block_tokens,
                position = a.slots[t] % layout.block_tokens;
  bf16* const keys = static_cast<bf16*>(a.k_cache) + block * layout.block_elements();
  bf16* const values = static_cast<bf16*>(a.v_cache) + block * layout.block_elements();
  for (int64_t g = 0; g < layout.kv_heads; ++g) {
    const int64_t from = t * a.stride + g * D, to = layout.group_at(g, position);
    write_keys(a.k + from, a.stride, D, keys + to);
    write_values(a.v + from, a.stride, D, layout.padded_dim(), values + to);
  }
}

}  // namespace millrace::avx512
#pragma GCC pop_options
