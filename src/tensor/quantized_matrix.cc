#include "tensor/quantized_matrix.h"

#include <algorithm>
#include <cstring>

namespace millrace {
namespace {

// Rows of a contiguous [N, ...] tensor in another order; no memory stays no memory.
Tensor pick(const Tensor& from, const std::vector<int64_t>& source_row) {
  if (!from.raw()) return {};
  Shape shape = from.shape();
  shape[0] = static_cast<int64_t>(source_row.size());
  Tensor out = Tensor::empty(from.dtype(), shape);
  const int64_t bytes = from.stride(0) * dtype_bytes(from.dtype());
  for (size_t n = 0; n < source_row.size(); ++n)
    std::memcpy(static_cast<std::byte*>(out.raw()) + static_cast<int64_t>(n) * bytes,
                static_cast<const std::byte*>(from.raw()) + source_row[n] * bytes, bytes);
  return out;
}

float value_of(const QuantizedMatrix& m, uint8_t bits, int64_t n, int64_t g) {
  const int64_t at = n * m.groups() + g;
  const float scale = m.scales.data<float>()[at];
  if (m.scheme != QuantizedMatrix::Scheme::kInt4) return static_cast<float>(static_cast<int8_t>(bits)) * scale;
  const int zero = m.zeros.raw() ? m.zeros.data<uint8_t>()[at] : 8;
  return static_cast<float>(static_cast<int>(bits) - zero) * scale;
}

}  // namespace

QuantizedMatrix row_range(const QuantizedMatrix& matrix, int64_t begin, int64_t end) {
  MR_CHECK(0 <= begin && begin <= end && end <= matrix.rows, "rows [{}, {}) of {}", begin, end, matrix.rows);
  QuantizedMatrix out = matrix;
  out.rows = end - begin;
  out.unpack = [whole = matrix.unpack, begin](int64_t from, int64_t to, uint8_t* values) {
    whole(begin + from, begin + to, values);
  };
  out.scales = matrix.scales.rows(begin, end);
  if (matrix.zeros.raw()) out.zeros = matrix.zeros.rows(begin, end);
  return out;
}

QuantizedMatrix picked_rows(const QuantizedMatrix& matrix, const std::vector<int64_t>& source_row) {
  QuantizedMatrix out = matrix;
  out.rows = static_cast<int64_t>(source_row.size());
  out.scales = pick(matrix.scales, source_row);
  out.zeros = pick(matrix.zeros, source_row);
  // Runs of neighbouring rows are unpacked together.
  out.unpack = [whole = matrix.unpack, source_row, K = matrix.columns](int64_t from, int64_t to, uint8_t* values) {
    for (int64_t n = from, run = 0; n < to; n += run) {
      for (run = 1; n + run < to && source_row[n + run] == source_row[n] + run;) ++run;
      whole(source_row[n], source_row[n] + run, values + (n - from) * K);
    }
  };
  return out;
}

Tensor dequantized(const QuantizedMatrix& m) {
  Tensor out = Tensor::empty(DType::kF32, {m.rows, m.columns});
  std::vector<uint8_t> values(m.columns);
  for (int64_t n = 0; n < m.rows; ++n) {
    m.unpack(n, n + 1, values.data());
    for (int64_t k = 0; k < m.columns; ++k) {
      const int64_t to = m.order.raw() ? m.order.data<int32_t>()[k] : k;
      out.data<float>()[n * m.columns + to] = value_of(m, values[k], n, m.group > 0 ? k / m.group : 0);
    }
  }
  return out;
}

}  // namespace millrace
