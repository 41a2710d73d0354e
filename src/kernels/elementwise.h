// Small operations on rows that need no more than one pass.
#pragma once
#include <cstdint>

#include "base/dtype.h"

namespace millrace {

// y[i] += scale * x[i]
void add_scaled(float* y, const float* x, float scale, int64_t n);
// x[i] *= scale
void scale_values(float* x, float scale, int64_t n);
// x[i] = cap * tanh(x[i] / cap)
void soft_cap(float* x, float cap, int64_t n);

// y[t,c] = scale * table[tokens[t], c]
struct EmbeddingArgs {
  const int32_t* tokens;  // [T], each in [0, V)
  const void* table;      // [V, C], dtype
  float* y;               // [T, C]
  int64_t T, C, V;
  float scale = 1;
  DType dtype;  // kF32, kBf16 or kF16
};
void embedding(const EmbeddingArgs& args);

// to[i] = from[i] in another type; kF32, kBf16 and kF16, to nearest even.
void convert(const void* from, DType from_dtype, void* to, DType to_dtype, int64_t n);

}  // namespace millrace
