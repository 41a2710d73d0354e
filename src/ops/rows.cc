#include "ops/rows.h"

#include "kernels/elementwise.h"

namespace millrace {
namespace {

void check_plain(const Tensor& x) {
  MR_CHECK(x.dtype() == DType::kF32 && x.contiguous(), "{} of shape {}", dtype_name(x.dtype()), x.shape().to_string());
}

}  // namespace

void glu(const Tensor& gate_up, GluActivation activation, Tensor& y) {
  MR_CHECK(gate_up.rank() == 2 && y.rank() == 2 && gate_up.size(0) == y.size(0) && gate_up.size(1) == 2 * y.size(1) &&
               gate_up.dtype() == DType::kF32 && (y.dtype() == DType::kF32 || y.dtype() == DType::kBf16),
           "gate_up {}, y {}", gate_up.shape().to_string(), y.shape().to_string());
  const int64_t F = y.size(1);
  glu(GluArgs{.gate = gate_up.data<float>(),
              .up = gate_up.data<float>() + F,
              .y = y.raw(),
              .T = y.size(0),
              .F = F,
              .x_stride = gate_up.stride(0),
              .y_stride = y.stride(0),
              .activation = activation,
              .y_dtype = y.dtype()});
}

void activate(const Tensor& x, GluActivation activation, Tensor& y) {
  MR_CHECK(x.rank() == 2 && x.shape() == y.shape() && x.dtype() == DType::kF32 &&
               (y.dtype() == DType::kF32 || y.dtype() == DType::kBf16),
           "x {}, y {}", x.shape().to_string(), y.shape().to_string());
  glu(GluArgs{.gate = x.data<float>(),
              .up = nullptr,
              .y = y.raw(),
              .T = y.size(0),
              .F = y.size(1),
              .x_stride = x.stride(0),
              .y_stride = y.stride(0),
              .activation = activation,
              .y_dtype = y.dtype()});
}

void add_scaled(Tensor& y, const Tensor& x, float scale) {
  check_plain(y), check_plain(x);
  MR_CHECK(y.shape() == x.shape(), "{} and {}", y.shape().to_string(), x.shape().to_string());
  add_scaled(y.data<float>(), x.data<float>(), scale, y.numel());
}

void scale_values(Tensor& x, float scale) {
  check_plain(x);
  scale_values(x.data<float>(), scale, x.numel());
}

void soft_cap(Tensor& x, float cap) {
  check_plain(x);
  soft_cap(x.data<float>(), cap, x.numel());
}

void embedding(std::span<const int32_t> tokens, const Tensor& table, float scale, Tensor& y) {
  check_plain(y);
  MR_CHECK(table.rank() == 2 && table.contiguous() && y.rank() == 2 && y.size(1) == table.size(1) &&
               y.size(0) == static_cast<int64_t>(tokens.size()),
           "table {}, y {}, {} tokens", table.shape().to_string(), y.shape().to_string(), tokens.size());
  embedding(EmbeddingArgs{.tokens = tokens.data(),
                          .table = table.raw(),
                          .y = y.data<float>(),
                          .T = y.size(0),
                          .C = y.size(1),
                          .V = table.size(0),
                          .scale = scale,
                          .dtype = table.dtype()});
}

void convert(const Tensor& from, Tensor& to) {
  MR_CHECK(from.shape() == to.shape() && from.contiguous() && to.contiguous(), "{} to {}", from.shape().to_string(),
           to.shape().to_string());
  convert(from.raw(), from.dtype(), to.raw(), to.dtype(), from.numel());
}

}  // namespace millrace
