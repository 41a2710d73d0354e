// The exponential of weights that become bf16.

// 2^x, relative error below 2^-13.5, exact at 0; 0 from about -149 down, infinity from 128 up.
inline __m512 power_for_bf16(__m512 x) {
  const __m512 f = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);  // x - floor(x)
  __m512 p = _mm512_set1_ps(7.706704200e-2f);  // least largest relative error on [0, 1] of those that are 1 at 0
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(2.276449912e-1f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(6.951167864e-1f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.0f));
  return _mm512_scalef_ps(p, x);  // p * 2^floor(x)
}
