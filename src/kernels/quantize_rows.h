// Rows of weights as int8, symmetric, a scale for each:
//   scale[n] = max over k of |w[n,k]| / 127      values[n,k] = round(w[n,k] * (127 / max)), to nearest even
// A row of zeros has scale 0. Rows that are not finite are refused: the first one's number is the
// result, else -1.
#pragma once
#include <cstdint>

#include "base/dtype.h"

namespace millrace {

struct QuantizeRowsArgs {
  const void* w;   // [rows, K], rows w_stride apart: kF32, kBf16 or kF16
  int8_t* values;  // [rows, K]
  float* scales;   // [rows]
  int64_t rows, K, w_stride;
  DType dtype;
};
// Threads: as many as the pool has.
[[nodiscard]] int64_t quantize_rows(const QuantizeRowsArgs& args);

}  // namespace millrace
