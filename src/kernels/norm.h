// Normalisation of rows with the residual addition in front of it.
//   x[t,c] += residual_scale * residual[t,c]                                   (where residual is given)
//   rms_norm:   y[t,c] = w[c] * x[t,c] / sqrt(mean over c of x[t,c]^2 + eps)   Zhang and Sennrich, 2019
//   layer_norm: y[t,c] = w[c] * (x[t,c] - mean) / sqrt(variance + eps) + b[c]  Ba, Kiros and Hinton, 2016
#pragma once
#include <cstdint>
#include <span>

#include "base/dtype.h"
#include "kernels/impl.h"

namespace millrace {

struct NormArgs {
  float* x;               // [T, C], rows x_stride apart; written only where residual is given
  const float* residual;  // [T, C] contiguous, or null
  float residual_scale = 1;
  const float* w;  // [C]
  const float* b;  // [C] or null; layer_norm only
  // [T, C], rows y_stride apart, y_dtype; may be x where that is kF32. Where it is kI8: rows as gemm_w8a8 takes them
  // (kernels/gemm_w8a8.h), the integers it would make of float32 y.
  void* y;
  int64_t T, C, x_stride, y_stride;
  float eps;
  DType y_dtype = DType::kF32;  // kF32, kBf16 or kI8
  float y_scale = 0;            // of integers: the tensor's; 0: per token
};
using NormFn = void(const NormArgs&);

void rms_norm(const NormArgs& args);
void layer_norm(const NormArgs& args);
// On the calling thread.
std::span<const Impl<NormFn>> rms_norm_impls();
std::span<const Impl<NormFn>> layer_norm_impls();

}  // namespace millrace
