// Packs whole panels sixteen k at a time: sixteen rows are widened to float32, transposed in registers and stored in
// the panel's type.
#include <immintrin.h>

#include "kernels/cpu/avx512/vec.h"
#include "kernels/cpu/gemm_impls.h"

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")
namespace millrace::avx512 {
namespace {

inline __m512 unpack_low_pairs(__m512 a, __m512 b) {
  return _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
}
inline __m512 unpack_high_pairs(__m512 a, __m512 b) {
  return _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
}

// rows[i][j] becomes rows[j][i].
inline void transpose(__m512 (&rows)[16]) {
  __m512 t[16];
  for (int i = 0; i < 16; i += 2) {  // within each group of four lanes: 1 x 1
    t[i] = _mm512_unpacklo_ps(rows[i], rows[i + 1]);
    t[i + 1] = _mm512_unpackhi_ps(rows[i], rows[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {  // 2 x 2
    rows[i] = unpack_low_pairs(t[i], t[i + 2]);
    rows[i + 1] = unpack_high_pairs(t[i], t[i + 2]);
    rows[i + 2] = unpack_low_pairs(t[i + 1], t[i + 3]);
    rows[i + 3] = unpack_high_pairs(t[i + 1], t[i + 3]);
  }
  for (int i = 0; i < 16; i += 8)
    for (int j = 0; j < 4; ++j) {  // groups of four lanes
      t[i + j] = _mm512_shuffle_f32x4(rows[i + j], rows[i + j + 4], 0x88);
      t[i + j + 4] = _mm512_shuffle_f32x4(rows[i + j], rows[i + j + 4], 0xdd);
    }
  for (int j = 0; j < 8; ++j) {
    rows[j] = _mm512_shuffle_f32x4(t[j], t[j + 8], 0x88);
    rows[j + 8] = _mm512_shuffle_f32x4(t[j], t[j + 8], 0xdd);
  }
}

// To bf16 in the low half of each lane, nearest even; NaN stays NaN.
inline __m512i rounded(__m512 x) {
  const __m512i bits = _mm512_castps_si512(x);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i up = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
  const __m512i quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x400000));
  return _mm512_srli_epi32(_mm512_mask_blend_epi32(_mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), up, quiet), 16);
}

inline void store_columns(const __m512 (&k)[16], float* to) {
  for (int i = 0; i < 16; ++i) _mm512_storeu_ps(to + 16 * i, k[i]);
}
inline void store_columns(const __m512 (&k)[16], f16* to) {
  for (int i = 0; i < 16; ++i)
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + 16 * i), _mm512_cvtps_ph(k[i], _MM_FROUND_TO_NEAREST_INT));
}
inline void store_columns(const __m512 (&k)[16], bf16* to) {
  for (int i = 0; i < 16; i += 2)
    _mm512_storeu_si512(to + 16 * i, _mm512_or_si512(rounded(k[i]), _mm512_slli_epi32(rounded(k[i + 1]), 16)));
}

template <class From, class To>
void pack(const PackArgs& a, int64_t panel, int64_t k_end) {
  const From* w = static_cast<const From*>(a.w) + (panel * kPanelColumns - a.row_begin) * a.w_stride;
  To* to = static_cast<To*>(a.packed) + panel * kPanelColumns * gemm_padded_k(a.K, a.to);
  for (int64_t k = 0; k < k_end; k += 16) {
    __m512 rows[16];
    for (int i = 0; i < 16; ++i) rows[i] = Vec::load(w + i * a.w_stride + k).v;
    transpose(rows);
    store_columns(rows, to + k * kPanelColumns);
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
