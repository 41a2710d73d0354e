// RMS and layer norm of rows, with the residual addition fused in front (kernels/norm.h has the formulas).
#pragma once
#include "kernels/norm.h"
#include "tensor/tensor.h"

namespace millrace {

class Norm {
 public:
  enum class Kind : uint8_t { kRms, kLayer };
  Norm() = default;
  // weight [C], bias [C] or an empty tensor; any floating type, kept in float32.
  Norm(Kind kind, const Tensor& weight, const Tensor& bias, double eps);

  // y = norm(h). h [T, C] kF32, y [T, C] kF32, kBf16 or kI8; rows contiguous, row strides free. y may be h. kI8: rows
  // of integers as Linear::integer_rows makes room for, with `y_scale` of a tensor, or 0 for one of every row's own.
  void operator()(const Tensor& h, Tensor& y, float y_scale = 0) const;
  // x = norm of every head, in place: x [T, heads, C] kF32, heads contiguous, token stride free.
  void heads(Tensor& x) const;
  // h += residual_scale * residual; y = norm(h). residual [T, C] kF32, contiguous.
  void add(Tensor& h, const Tensor& residual, float residual_scale, Tensor& y, float y_scale = 0) const;

 private:
  void run(const NormArgs& args) const;
  NormArgs arguments(const Tensor& h, Tensor& y, float y_scale) const;
  Kind kind_ = Kind::kRms;
  Tensor weight_, bias_;
  float eps_ = 1e-6f;
};

}  // namespace millrace
