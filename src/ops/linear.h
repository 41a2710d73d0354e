// Linear: y = x W^T + b, with the weight's format and packing hidden. Packed once at load; then read by any thread, one
// forward at a time per Workspace. Bit-identical rows whatever the number of rows and threads (kernels/gemm.h,
// kernels/gemm_a16.h, kernels/gemm_w8a8.h).
#pragma once
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "base/result.h"
#include "kernels/gemm.h"
#include "kernels/gemm_a16.h"
#include "kernels/gemm_w8a8.h"
#include "kernels/glu.h"
#include "ops/workspace.h"
#include "tensor/quantized_matrix.h"
#include "tensor/tensor.h"

namespace millrace {

struct LinearCall;  // ops/grouped_linear.h

enum class LinearFormat : uint8_t { kDense, kW8A8, kW8A16, kW4A16 };

// Rows of x as the kernel of a Linear packs them, left by the product in front of it (Linear::feeds).
struct PackedRows {
  std::byte* memory;  // packed_rows_bytes(rows) of the Linear that takes them, 64-byte aligned, borrowed
  int64_t rows;
};

class Linear {
 public:
  Linear() = default;
  // Stacks `parts` ([N_i, K] each, floating, rows contiguous) by rows. `biases` is empty, or has one for each part:
  // [N_i], floating, or Tensor() for none.
  // `compute` is the type the weights are kept in: kF32, kBf16 or kF16.
  // `pause` is called on the calling thread after about every 16 MiB of parts, while other threads read others of them.
  static Linear pack(std::span<const Tensor> parts, std::span<const Tensor> biases, DType compute,
                     const std::function<void()>& pause = {});

  // Whether matrices of integers fit one Linear: of a group that kernels know, one scheme, one order of columns and one
  // treatment of x. The error says what does not; such parts can still be packed as dense ones.
  static Status check_parts(std::span<const QuantizedMatrix> parts);
  // Requires: check_parts. Of static input scales the largest is taken.
  static Linear pack(std::span<const QuantizedMatrix> parts, std::span<const Tensor> biases);
  // Dense parts, made integers row by row (kernels/quantize_rows.h). `format`: kW8A8 (x too, row by row) or kW8A16.
  // Weights that are not finite are refused.
  static Result<Linear> quantize(std::span<const Tensor> parts, std::span<const Tensor> biases, LinearFormat format,
                                 const std::function<void()>& pause = {});

  // All that a packed Linear is, for whoever keeps it outside of memory. Tensors without memory: none of that kind.
  struct Packed {
    LinearFormat format = LinearFormat::kDense;
    DType dtype = DType::kF32;  // kI8 for every format of integers
    int64_t rows = 0, columns = 0, group = 0;
    float input_scale = 0;
    Tensor weights;  // kU8, 64-byte aligned, as the format's kernel has it
    Tensor scales;   // [rows] kF32: kW8A8, kW8A16
    Tensor order;    // [columns] kI32: kW4A16
    Tensor bias;     // [rows] kF32
  };
  Packed packed() const;
  // The Linear that `packed` was made of, in the same memory. The error says what cannot be right; the weights
  // themselves are taken as they are.
  static Result<Linear> from_packed(const Packed& packed);

  bool defined() const { return out_features_ > 0; }
  int64_t in_features() const { return in_features_; }
  int64_t out_features() const { return out_features_; }
  LinearFormat format() const { return format_; }
  // kI8 for every format of integers.
  DType weight_dtype() const { return dtype_; }
  // The type of x that costs no conversion: kF32 for float32 and float16 weights, else kBf16.
  DType input_dtype() const { return dtype_ == DType::kF32 || dtype_ == DType::kF16 ? DType::kF32 : DType::kBf16; }
  // Whether x may be integers that a norm made for this product (kW8A8), with input_scale() of a tensor, 0: per row.
  bool takes_integers() const { return format_ == LinearFormat::kW8A8; }
  float input_scale() const { return input_scale_; }
  // int8 digits that int8 weights meet x in: 1 (kW8A8) or 2 (kW8A16).
  int64_t input_digits() const { return format_ == LinearFormat::kW8A16 ? 2 : 1; }
  // Rows [T, K] of such integers in `memory` of integer_rows_bytes(T, K).
  static Tensor integer_rows(std::byte* memory, int64_t T, int64_t K);
  static int64_t integer_rows_bytes(int64_t T, int64_t K) { return T * w8a8_row_bytes(K); }
  int64_t weight_bytes() const { return packed_.bytes() + scales_.bytes(); }
  // What forward takes from the workspace for up to max_rows rows.
  int64_t scratch_bytes(int64_t max_rows) const;

  // x [T, K] kF32, kBf16 or, where it takes them, integers; y [T, N] kF32; rows contiguous, row strides free.
  // `add_scale`, where it is not 0: y += add_scale * product. Requires adds().
  void forward(const Tensor& x, Tensor& y, Workspace& workspace, float add_scale = 0) const;
  // Whether the format's kernel can add the product to y.
  bool adds() const;

  // Whether forward_heads takes so many rows.
  bool rotates(int64_t rows, int64_t head_dim) const;
  // The product's columns as heads (kernels/rotated_heads.h) of its rows. Requires rotates().
  void forward_heads(const Tensor& x, const RotatedHeads& heads, Workspace& workspace) const;

  // y = act(x W1^T + b1) * (x W2^T + b2) where the rows of W are those of W1, then as many of W2: y [T, N/2] kF32 or
  // kBf16. One pass where the format has a fused kernel.
  void forward_gated(const Tensor& x, GluActivation activation, Tensor& y, Workspace& workspace) const;
  // What forward_gated takes from the workspace for up to max_rows rows.
  int64_t gated_scratch_bytes(int64_t max_rows) const;

  // Whether forward_gated of so many rows can leave y packed for `next`, whose forward then need not: bits are those of
  // rows in next.input_dtype().
  bool feeds(const Linear& next, int64_t rows) const;
  // Of packed rows that this product takes; more rows take no less.
  int64_t packed_rows_bytes(int64_t rows) const;
  // y: for `next`. Requires feeds(next, rows of x).
  void forward_gated(const Tensor& x, GluActivation activation, const Linear& next, const PackedRows& y,
                     Workspace& workspace) const;
  // Of x that a product which feeds this one has left.
  void forward(const PackedRows& x, Tensor& y, Workspace& workspace, float add_scale = 0) const;

  // y[t] = scale * W[tokens[t]] for tied embeddings: y [T, K] kF32, every token in [0, N).
  void gather(std::span<const int32_t> tokens, float scale, Tensor& y) const;

 private:
  friend void forward_grouped(std::span<LinearCall> calls, Workspace& workspace);
  friend void forward_gated_grouped(std::span<LinearCall> calls, GluActivation activation, Workspace& workspace);
  friend int64_t grouped_scratch_bytes(const Linear& like, int64_t max_calls, int64_t max_rows);
  friend int64_t gated_grouped_scratch_bytes(const Linear& like, int64_t max_calls, int64_t max_rows);
  // Products of x, or of none yet, without y.
  GemmArgs dense(const Tensor& x, std::byte* scratch) const;
  GemmArgs product(const Tensor& x, std::byte* scratch) const;
  // Nothing packed yet.
  static Linear unpacked(LinearFormat format, int64_t rows, int64_t K, int64_t group);
  // Rows [begin, end), a byte per value.
  struct Rows {
    const uint8_t* values;
    const float* scales;
    const uint8_t* zeros;
    int64_t begin, end;
  };
  void pack_rows(const Rows& rows);
  void pack_part(const QuantizedMatrix& part, int64_t row);
  void check_input(const Tensor& x) const;
  GemmA16Args a16(const Tensor& x, std::byte* scratch) const;
  GemmW8A8Args w8a8(const Tensor& x, std::byte* scratch) const;
  // x in the order of the weights' columns: in memory of the workspace, or x itself.
  Tensor in_order(const Tensor& x, Workspace& workspace) const;
  // What in_order takes for so many rows in so many calls.
  int64_t ordered_bytes(int64_t rows, int64_t calls = 1) const;
  void check_output(const Tensor& y, int64_t rows, float add_scale) const;
  // run(arguments without y, the format's gated product), scratch taken from the workspace.
  template <class Run>
  void with_gated(const Tensor& x, GluActivation activation, Workspace& workspace, const Run& run) const;
  // run(arguments without y, the format's product), scratch taken from the workspace.
  template <class Run>
  void with_product(const Tensor& x, Workspace& workspace, const Run& run) const;
  // The product of x in order, without y.
  GemmA16Args ordered_a16(const Tensor& x, Workspace& workspace) const;
  // kW4A16: of a column in a chunk (kernels/gemm_a16.h); else 0.
  int64_t chunk_scales() const;
  void gather_row(int32_t token, float scale, float* to) const;

  Tensor packed_;  // as the format's kernel has it
  Tensor scales_;  // kW8A8, kW8A16: [N] kF32
  Tensor order_;   // kW4A16: kI32 [K], or no memory
  Tensor bias_;    // [N] kF32, or no memory
  int64_t in_features_ = 0, out_features_ = 0, group_ = 0;
  float input_scale_ = 0;
  DType dtype_ = DType::kF32;
  LinearFormat format_ = LinearFormat::kDense;
};

}  // namespace millrace
