// Gated linear unit: y[t,f] = act(gate[t,f]) * up[t,f]; without ups the activation alone.
//   silu(x) = x / (1 + e^-x); gelu(x) = x * (1 + erf(x / sqrt 2)) / 2;
//   gelu_tanh(x) = x * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3))) / 2; relu(x) = max(x, 0)
#pragma once
#include <cstdint>
#include <span>

#include "base/dtype.h"
#include "kernels/impl.h"

namespace millrace {

enum class GluActivation : uint8_t { kSilu, kGelu, kGeluTanh, kRelu };

struct GluArgs {
  const float *gate, *up;  // [T, F] each, rows x_stride apart (2F where they are halves of one row); up may be null
  void* y;                 // [T, F], rows y_stride apart, y_dtype
  int64_t T, F, x_stride, y_stride;
  GluActivation activation = GluActivation::kSilu;
  DType y_dtype = DType::kF32;  // kF32 or kBf16
};
using GluFn = void(const GluArgs&);

void glu(const GluArgs& args);
std::span<const Impl<GluFn>> glu_impls();  // on the calling thread

}  // namespace millrace
