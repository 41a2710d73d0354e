// Rows of float32 to rows of another type, each to a place of its own.
#pragma once
#include <cstdint>
#include <span>

#include "base/dtype.h"
#include "kernels/impl.h"

namespace millrace {

struct CastRowsArgs {
  const float* from;     // [n, width], rows from_stride apart
  void* to;              // rows to_stride apart, to_dtype: kF32, kBf16 or kF16, rounded to nearest even
  const int64_t* slots;  // [n] row i goes to row slots[i] of `to`; null: to row i
  int64_t n, width, from_stride, to_stride;
  int64_t padded = 0;  // elements [width, padded) of a row become zero
  DType to_dtype = DType::kF32;
};
using CastRowsFn = void(const CastRowsArgs&);

void cast_rows(const CastRowsArgs& args);
std::span<const Impl<CastRowsFn>> cast_rows_impls();  // on the calling thread

}  // namespace millrace
