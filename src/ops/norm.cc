#include "ops/norm.h"

#include "kernels/gemm_w8a8.h"
#include "kernels/norm.h"
#include "kernels/parallel.h"

namespace millrace {

Norm::Norm(Kind kind, const Tensor& weight, const Tensor& bias, double eps)
    : kind_(kind), weight_(converted(weight, DType::kF32)), eps_(static_cast<float>(eps)) {
  const bool has_bias = bias.raw() != nullptr && bias.numel() > 0;
  MR_CHECK(weight.rank() == 1 && (!has_bias || bias.numel() == weight.numel()), "weight {}, bias {}",
           weight.shape().to_string(), bias.shape().to_string());
  if (has_bias) bias_ = converted(bias, DType::kF32);
}

void Norm::operator()(const Tensor& h, Tensor& y, float y_scale) const { run(arguments(h, y, y_scale)); }

void Norm::add(Tensor& h, const Tensor& residual, float residual_scale, Tensor& y, float y_scale) const {
  MR_CHECK(residual.shape() == h.shape() && residual.dtype() == DType::kF32 && residual.contiguous(),
           "residual {} for {}", residual.shape().to_string(), h.shape().to_string());
  NormArgs args = arguments(h, y, y_scale);
  args.residual = residual.data<float>();
  args.residual_scale = residual_scale;
  run(args);
}

NormArgs Norm::arguments(const Tensor& h, Tensor& y, float y_scale) const {
  const int64_t C = weight_.numel();
  const bool integers = y.dtype() == DType::kI8 && y.rank() == 2 && y.stride(0) >= w8a8_row_bytes(C);
  MR_CHECK(h.rank() == 2 && h.size(1) == C && y.shape() == h.shape() && h.dtype() == DType::kF32 &&
               (y.dtype() == DType::kF32 || y.dtype() == DType::kBf16 || integers),
           "h {}, y {} ({}), {} weights", h.shape().to_string(), y.shape().to_string(), dtype_name(y.dtype()), C);
  return {.x = const_cast<float*>(h.data<float>()),  // written only where there is a residual
          .residual = nullptr,
          .w = weight_.data<float>(),
          .b = bias_.data<float>(),
          .y = y.raw(),
          .T = h.size(0),
          .C = C,
          .x_stride = h.stride(0),
          .y_stride = y.stride(0),
          .eps = eps_,
          .y_dtype = y.dtype(),
          .y_scale = y_scale};
}

void Norm::run(const NormArgs& args) const {
  if (kind_ == Kind::kRms)
    rms_norm(args);
  else
    layer_norm(args);
}

void Norm::heads(Tensor& x) const {
  const int64_t C = weight_.numel();
  MR_CHECK(x.rank() == 3 && x.dtype() == DType::kF32 && x.size(2) == C && (x.size(1) == 1 || x.stride(1) == C),
           "x {} {}, {} weights", dtype_name(x.dtype()), x.shape().to_string(), C);
  parallel_ranges(x.size(0), 8, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      float* token = x.data<float>() + t * x.stride(0);
      run({.x = token,
           .residual = nullptr,
           .w = weight_.data<float>(),
           .b = bias_.data<float>(),
           .y = token,
           .T = x.size(1),
           .C = C,
           .x_stride = C,
           .y_stride = C,
           .eps = eps_});
    }
  });
}

}  // namespace millrace
