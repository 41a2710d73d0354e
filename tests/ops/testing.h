// Tensors of random values for the tests of ops.
#pragma once
#include "base/random.h"
#include "tensor/tensor.h"

namespace millrace {

inline Tensor random_tensor(Random& random, const Shape& shape, DType dtype = DType::kF32, float scale = 1) {
  Tensor values = Tensor::empty(DType::kF32, shape);
  for (int64_t i = 0; i < values.numel(); ++i) values.data<float>()[i] = scale * random.normal();
  return converted(values, dtype);
}

}  // namespace millrace
