#include "ops/norm.h"

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

void Norm::operator()(const Tensor& h, Tensor& y) const {
  run(const_cast<float*>(h.data<float>()), nullptr, 0, h, y);  // written only where there is a residual
}

void Norm::add(Tensor& h, const Tensor& residual, float residual_scale, Tensor& y) const {
  MR_CHECK(residual.shape() == h.shape() && residual.dtype() == DType::kF32 && residual.contiguous(),
           "residual {} for {}", residual.shape().to_string(), h.shape().to_string());
  run(h.data<float>(), residual.data<float>(), residual_scale, h, y);
}

void Norm::run(float* h, const float* residual, float residual_scale, const Tensor& shape_of, Tensor& y) const {
  const int64_t C = weight_.numel();
  MR_CHECK(shape_of.rank() == 2 && shape_of.size(1) == C && y.shape() == shape_of.shape() &&
               shape_of.dtype() == DType::kF32 && (y.dtype() == DType::kF32 || y.dtype() == DType::kBf16),
           "h {}, y {} ({}), {} weights", shape_of.shape().to_string(), y.shape().to_string(), dtype_name(y.dtype()),
           C);
  const NormArgs args{.x = h,
                      .residual = residual,
                      .residual_scale = residual_scale,
                      .w = weight_.data<float>(),
                      .b = bias_.data<float>(),
                      .y = y.raw(),
                      .T = shape_of.size(0),
                      .C = C,
                      .x_stride = shape_of.stride(0),
                      .y_stride = y.stride(0),
                      .eps = eps_,
                      .y_dtype = y.dtype()};
  run(args);
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
