// Linear: y = x W^T + b, with the weight's format and packing hidden. Packed once at load; then read by any thread, one
// forward at a time per Workspace. Bit-identical rows whatever the number of rows and threads (kernels/gemm.h).
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/gemm.h"
#include "kernels/glu.h"
#include "ops/workspace.h"
#include "tensor/tensor.h"

namespace millrace {

struct LinearCall;  // ops/grouped_linear.h

class Linear {
 public:
  Linear() = default;
  // Stacks `parts` ([N_i, K] each, floating, rows contiguous) by rows. `biases` is empty, or has one for each part:
  // [N_i], floating, or Tensor() for none.
  // `compute` is the type the weights are kept in: kF32, kBf16 or kF16.
  static Linear pack(std::span<const Tensor> parts, std::span<const Tensor> biases, DType compute);

  bool defined() const { return out_features_ > 0; }
  int64_t in_features() const { return in_features_; }
  int64_t out_features() const { return out_features_; }
  DType weight_dtype() const { return dtype_; }
  // The type of x that costs no conversion: kBf16 for bf16 weights, else kF32.
  DType input_dtype() const { return dtype_ == DType::kBf16 ? DType::kBf16 : DType::kF32; }
  int64_t weight_bytes() const { return packed_.bytes(); }
  // What forward takes from the workspace for up to max_rows rows.
  int64_t scratch_bytes(int64_t max_rows) const;

  // x [T, K] kF32 or kBf16, y [T, N] kF32; rows contiguous, row strides free.
  void forward(const Tensor& x, Tensor& y, Workspace& workspace) const;

  // y = act(x W1^T + b1) * (x W2^T + b2) where the rows of W are those of W1, then as many of W2: y [T, N/2] kF32 or
  // kBf16. One pass where the format has a fused kernel.
  void forward_gated(const Tensor& x, GluActivation activation, Tensor& y, Workspace& workspace) const;
  // What forward_gated takes from the workspace for up to max_rows rows.
  int64_t gated_scratch_bytes(int64_t max_rows) const;

  // y[t] = scale * W[tokens[t]] for tied embeddings: y [T, K] kF32, every token in [0, N).
  void gather(std::span<const int32_t> tokens, float scale, Tensor& y) const;

 private:
  friend void forward_grouped(std::span<LinearCall> calls, Workspace& workspace);
  friend void forward_gated_grouped(std::span<LinearCall> calls, GluActivation activation, Workspace& workspace);
  GemmArgs product(const Tensor& x, std::byte* scratch) const;
  Tensor packed_;  // kernels/gemm.h
  Tensor bias_;    // [N] kF32, or no memory
  int64_t in_features_ = 0, out_features_ = 0;
  DType dtype_ = DType::kF32;
};

}  // namespace millrace
