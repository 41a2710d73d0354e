// A matrix of integers with scales, as one linear layer's weights, free of any file's packing.
//   kInt8: w[n,k] = scales[n] * values[n,k]                                          values kI8 [N, K], scales [N]
//   kInt4: w[n,k] = scales[n,g] * (values[n,k] - zeros[n,g]),  g = k / group         values kU8 [N, K], 0 to 15
// A product meets column order[k] of x with values[:, k] where there is an order (act-order checkpoints).
// Copies share memory; any thread may read.
#pragma once
#include "tensor/tensor.h"

namespace millrace {

struct QuantizedTensor {
  enum class Kind : uint8_t { kInt8, kInt4 };
  Kind kind = Kind::kInt8;
  Tensor values;             // contiguous
  Tensor scales;             // kF32; kInt8: [N], kInt4: [N, ceil(K / group)]
  Tensor zeros;              // kInt4: kU8 of the scales' shape, 0 to 16; no memory: all 8
  Tensor order;              // kI32 [K], a permutation, or no memory
  int64_t group = 0;         // kInt4: K that share a scale; 32, 64, a multiple of 128, or K and more
  bool int8_inputs = false;  // kInt8: x becomes int8 too (W8A8)
  float input_scale = 0;     // of x where int8_inputs; 0: of each row its own
};

}  // namespace millrace
