// Moving rows between tokens and experts. The T * K pairs of a token and one of its experts are sorted by expert; pair
// (t, k) has a row among them.
#pragma once
#include <cstdint>
#include <span>

#include "kernels/impl.h"

namespace millrace {

struct ExpertOrderArgs {
  const int32_t* experts;  // [T, K], each in [0, E)
  int64_t T, K, E;
  int32_t* first_row;     // [E + 1] expert e has rows [first_row[e], first_row[e + 1]), its tokens rising
  int32_t* row_of;        // [T, K]
  int32_t* token_of_row;  // [T * K]
};
void order_by_expert(const ExpertOrderArgs& args);

// Row r of `to` is row rows[r] of `from`; row_bytes each, strides in bytes.
struct GatherRowsArgs {
  const void* from;
  void* to;
  const int32_t* rows;  // [n]
  int64_t n, row_bytes, from_stride, to_stride;
};
void gather_rows(const GatherRowsArgs& args);

// y[t] = base + sum over k of weights[t,k] * x[row_of[t,k]], k rising; base: 0, or y[t], or y[t] * sigmoid(gate[t]).
struct CombineRowsArgs {
  const float* x;         // [T * K, C], contiguous
  const float* weights;   // [T, K]
  const int32_t* row_of;  // [T, K]
  float* y;               // [T, C], rows y_stride apart
  int64_t T, K, C, y_stride;
  bool adds = false;            // whether y holds a base
  const float* gate = nullptr;  // [T] or null, where it does
};
using CombineRowsFn = void(const CombineRowsArgs&);

void combine_rows(const CombineRowsArgs& args);
std::span<const Impl<CombineRowsFn>> combine_rows_impls();  // on the calling thread

}  // namespace millrace
