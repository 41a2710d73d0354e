// Packs whole panels sixteen k at a time: sixteen rows are widened to float32, transposed in registers and stored in
// the panel's type. Where 16 bits stay what they are, pairs of k are transposed.
#include <immintrin.h>

#include "kernels/cpu/avx512/transpose.h"
#include "kernels/cpu/avx512/vec.h"
#include "kernels/cpu/gemm_impls.h"

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")
namespace millrace::avx512 {
namespace {

// To bf16 in the low half of each lane, nearest even; NaN stays NaN.
inline __m512i rounded(__m512 x) {
  const __m512i bits = _mm512_castps_si512(x);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i up = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
  const __m512i quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x400000));
  return _mm512_srli_epi32(_mm512_mask_blend_epi32(_mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), up, quiet), 16);
}

inline __m512 floats(__m512i lanes) { return _mm512_castsi512_ps(lanes); }

inline void store_columns(const __m512i (&k)[16], float* to) {
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) _mm512_storeu_si512(to + 16 * i, k[i]);
}
inline void store_columns(const __m512i (&k)[16], f16* to) {
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i)
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + 16 * i),
                        _mm512_cvtps_ph(floats(k[i]), _MM_FROUND_TO_NEAREST_INT));
}
inline void store_columns(const __m512i (&k)[16], bf16* to) {
#pragma GCC unroll 8
  for (int i = 0; i < 16; i += 2)
    _mm512_storeu_si512(to + 16 * i,
                        _mm512_or_si512(rounded(floats(k[i])), _mm512_slli_epi32(rounded(floats(k[i + 1])), 16)));
}

template <class From>
const From* first_row(const PackArgs& a, int64_t panel) {
  return static_cast<const From*>(a.w) + (panel * kPanelColumns - a.row_begin) * a.w_stride;
}

template <class From, class To>
void pack(const PackArgs& a, int64_t panel, int64_t k_end) {
  const From* w = first_row<From>(a, panel);
  To* to = static_cast<To*>(a.packed) + panel * kPanelColumns * gemm_padded_k(a.K, a.to);
  for (int64_t k = 0; k < k_end; k += 16) {
    __m512i rows[16];
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) rows[i] = _mm512_castps_si512(Vec::load(w + i * a.w_stride + k).v);
    transpose(rows);
    store_columns(rows, to + k * kPanelColumns);
  }
}

// The first halves of all lanes, then the second ones: a pair of k becomes two rows of sixteen.
inline __m512i apart(__m512i pairs) {
  alignas(64) static constexpr uint16_t kOrder[32] = {0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30,
                                                      1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31};
  return _mm512_permutexvar_epi16(_mm512_load_si512(kOrder), pairs);
}
inline void store_pairs(__m512i pairs, bf16* to) { _mm512_storeu_si512(to, pairs); }
inline void store_pairs(__m512i pairs, f16* to) { _mm512_storeu_si512(to, apart(pairs)); }

// bf16 to bf16 or f16 to f16, 32 of k at a time.
template <class W>
void pack_pairs(const PackArgs& a, int64_t panel, int64_t k_end) {
  const W* w = first_row<W>(a, panel);
  W* to = static_cast<W*>(a.packed) + panel * kPanelColumns * gemm_padded_k(a.K, a.to);
  for (int64_t k = 0; k < k_end; k += 32) {
    __m512i rows[16];
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) rows[i] = _mm512_loadu_si512(w + i * a.w_stride + k);
    transpose(rows);
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) store_pairs(rows[i], to + k * kPanelColumns + 32 * i);
  }
}

template <class From>
void pack_from(const PackArgs& a, int64_t panel, int64_t k_end) {
  if (a.to == DType::kF32) return pack<From, float>(a, panel, k_end);
  if (a.to == DType::kBf16) return pack<From, bf16>(a, panel, k_end);
  pack<From, f16>(a, panel, k_end);
}

}  // namespace

int64_t pack_whole_panel(const PackArgs& a, int64_t panel) {
  if (a.from == a.to && a.from != DType::kF32) {
    const int64_t k_end = a.K / 32 * 32;
    a.from == DType::kBf16 ? pack_pairs<bf16>(a, panel, k_end) : pack_pairs<f16>(a, panel, k_end);
    return k_end;
  }
  const int64_t k_end = a.K / 16 * 16;
  if (a.from == DType::kF32)
    pack_from<float>(a, panel, k_end);
  else if (a.from == DType::kBf16)
    pack_from<bf16>(a, panel, k_end);
  else
    pack_from<f16>(a, panel, k_end);
  return k_end;
}

}  // namespace millrace::avx512
#pragma GCC pop_options
