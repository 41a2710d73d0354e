#include "ops/linear.h"

#include "kernels/gemm.h"
#include "kernels/parallel.h"

namespace millrace {
namespace {

int64_t total_rows(std::span<const Tensor> parts) {
  int64_t rows = 0;
  for (const Tensor& part : parts) {
    MR_CHECK(part.rank() == 2 && part.size(1) == parts[0].size(1) && (part.size(1) == 1 || part.stride(1) == 1),
             "a part of shape {}, the first is {}", part.shape().to_string(), parts[0].shape().to_string());
    rows += part.size(0);
  }
  return rows;
}

Tensor stack_biases(std::span<const Tensor> parts, std::span<const Tensor> biases, int64_t N) {
  if (biases.empty()) return {};
  MR_CHECK(biases.size() == parts.size(), "{} biases for {} parts", biases.size(), parts.size());
  Tensor all = Tensor::zeros(DType::kF32, {N});
  int64_t row = 0;
  for (size_t i = 0; i < parts.size(); ++i) {
    const int64_t n = biases[i].raw() ? biases[i].numel() : 0;
    MR_CHECK(n == 0 || n == parts[i].size(0), "bias of {} for {} rows", n, parts[i].size(0));
    const Tensor bias = n > 0 ? biases[i].to_contiguous() : Tensor();
    for (int64_t j = 0; j < n; ++j) all.data<float>()[row + j] = element_as_float(bias, j);
    row += parts[i].size(0);
  }
  return all;
}

}  // namespace

Linear Linear::pack(std::span<const Tensor> parts, std::span<const Tensor> biases, DType compute) {
  MR_CHECK(!parts.empty(), "no parts");
  Linear linear;
  linear.dtype_ = compute;
  linear.in_features_ = parts[0].size(1);
  linear.out_features_ = total_rows(parts);
  linear.packed_ = page_zeros(DType::kU8, {gemm_packed_bytes(linear.out_features_, linear.in_features_, compute)});
  linear.bias_ = stack_biases(parts, biases, linear.out_features_);
  int64_t row = 0;
  for (const Tensor& part : parts) {
    gemm_pack({.w = part.raw(),
               .packed = linear.packed_.raw(),
               .row_begin = row,
               .row_end = row + part.size(0),
               .K = linear.in_features_,
               .w_stride = part.stride(0),
               .from = part.dtype(),
               .to = compute});
    row += part.size(0);
  }
  return linear;
}

int64_t Linear::scratch_bytes(int64_t max_rows) const {
  return Workspace::tensor_bytes(DType::kU8, {gemm_scratch_bytes(max_rows, out_features_, in_features_, dtype_)});
}

GemmArgs Linear::product(const Tensor& x, std::byte* scratch) const {
  MR_CHECK(x.rank() == 2 && x.size(1) == in_features_ && (x.dtype() == DType::kF32 || x.dtype() == DType::kBf16),
           "x {} {} for weights [{}, {}]", dtype_name(x.dtype()), x.shape().to_string(), out_features_, in_features_);
  return {.x = x.raw(),
          .w = packed_.raw(),
          .bias = bias_.data<float>(),
          .y = nullptr,
          .scratch = scratch,
          .M = x.size(0),
          .N = out_features_,
          .K = in_features_,
          .x_stride = x.stride(0),
          .y_stride = 0,
          .x_dtype = x.dtype(),
          .w_dtype = dtype_};
}

void Linear::forward(const Tensor& x, Tensor& y, Workspace& workspace) const {
  MR_CHECK(y.rank() == 2 && y.size(1) == out_features_ && y.size(0) == x.size(0) && y.dtype() == DType::kF32,
           "x {}, y {}, weights [{}, {}]", x.shape().to_string(), y.shape().to_string(), out_features_, in_features_);
  const Workspace::Scope scope(workspace);
  GemmArgs args = product(x, workspace.bytes(scratch_bytes(x.size(0))));
  args.y = y.data<float>();
  args.y_stride = y.stride(0);
  gemm(args);
}

int64_t Linear::gated_scratch_bytes(int64_t max_rows) const {
  return Workspace::tensor_bytes(DType::kU8, {gemm_gated_scratch_bytes(max_rows, out_features_, in_features_, dtype_)});
}

void Linear::forward_gated(const Tensor& x, GluActivation activation, Tensor& y, Workspace& workspace) const {
  MR_CHECK(y.rank() == 2 && 2 * y.size(1) == out_features_ && y.size(0) == x.size(0) &&
               (y.dtype() == DType::kF32 || y.dtype() == DType::kBf16),
           "x {}, y {}, weights [{}, {}]", x.shape().to_string(), y.shape().to_string(), out_features_, in_features_);
  const Workspace::Scope scope(workspace);
  gemm_gated({.product = product(x, workspace.bytes(gated_scratch_bytes(x.size(0)))),
              .activation = activation,
              .y = y.raw(),
              .y_stride = y.stride(0),
              .y_dtype = y.dtype()});
}

void Linear::gather(std::span<const int32_t> tokens, float scale, Tensor& y) const {
  MR_CHECK(y.rank() == 2 && y.size(0) == static_cast<int64_t>(tokens.size()) && y.size(1) == in_features_ &&
               y.dtype() == DType::kF32,
           "y {} for {} tokens of {}", y.shape().to_string(), tokens.size(), in_features_);
  parallel_ranges(static_cast<int64_t>(tokens.size()), 4, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      MR_CHECK(tokens[t] >= 0 && tokens[t] < out_features_, "token {} of {}", tokens[t], out_features_);
      gemm_unpack_row(packed_.raw(), dtype_, in_features_, tokens[t], scale, y.data<float>() + t * y.stride(0));
    }
  });
}

}  // namespace millrace
