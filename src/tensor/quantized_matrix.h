// A weight matrix [N, K] of small integers in the project's one form, whatever file it came from. Loaders make it,
// linear operations pack it; nothing is converted before somebody asks for rows. Any thread may read.
//   kInt4: w[n,k] = (q[n,k] - zeros[n,k/group]) * scales[n,k/group],  q in [0, 15], activations of sixteen bits
//   kInt8: w[n,k] = q[n,k] * scales[n,k/group],                       q in [-128, 127], activations of sixteen bits
//   kInt8Int8: w[n,k] = q[n,k] * scales[n], and activations are rounded to int8 too
#pragma once
#include <cstdint>
#include <functional>
#include <vector>

#include "tensor/tensor.h"

namespace millrace {

struct QuantizedMatrix {
  enum class Scheme : uint8_t { kInt4, kInt8, kInt8Int8 };
  Scheme scheme = Scheme::kInt4;
  int64_t rows = 0, columns = 0;  // N, K
  int64_t group = 0;              // neighbouring k with one scale; 0: all of them
  // Writes rows [begin, end), a byte per value, K apart: int8, or 0 to 15 for kInt4. From any thread.
  std::function<void(int64_t begin, int64_t end, uint8_t* values)> unpack;
  Tensor scales;       // [N, groups] kF32
  Tensor zeros;        // [N, groups] kU8, 0 to 16; no memory: all 8. kInt4 only
  Tensor order;        // [K] kI32: column k multiplies x[order[k]]; no memory: x[k]
  Tensor input_scale;  // [1] kF32: every activation is x / input_scale; no memory: a scale for each token

  int64_t groups() const { return group > 0 && group < columns ? (columns + group - 1) / group : 1; }
};

// Rows [begin, end) of `matrix`; the same file behind it.
QuantizedMatrix row_range(const QuantizedMatrix& matrix, int64_t begin, int64_t end);
// Row n of the result is row source_row[n] of `matrix`.
QuantizedMatrix picked_rows(const QuantizedMatrix& matrix, const std::vector<int64_t>& source_row);
// All values as float32 [N, K], in the order of x. For tests, and for matrices that only exist as dense ones.
Tensor dequantized(const QuantizedMatrix& matrix);

}  // namespace millrace
