// oneDNN's matrix product on plain layouts: the peer that kernels/gemm.h is measured against.
#pragma once
#include <cstdint>

#include "base/dtype.h"

namespace millrace {

// y[m,n] = sum over k of x[m,k] * w[n,k]; all rows contiguous, x and w both `dtype` (kF32 or kBf16), y kF32. oneDNN
// may choose another order of summation for every M. Primitives are kept per shape; one thread at a time.
struct OnednnMatmulArgs {
  const void *x, *w;  // [M, K], [N, K]
  float* y;           // [M, N]
  int64_t M, N, K;
  DType dtype;
};
void onednn_matmul(const OnednnMatmulArgs& args);

}  // namespace millrace
