// Heads of queries, keys and values as a product's outputs, the first two rotated before they are written: pairs are
// (i, i + head_dim/2), all of a head, as kernels/rope.h turns them.
#pragma once
#include <cstdint>

#include "base/dtype.h"

namespace millrace {

// Columns of the product: q_heads heads of queries, kv_heads of keys, kv_heads of values.
struct RotatedHeads {
  const float *cos, *sin;  // [M, head_dim/2]
  int64_t head_dim, q_heads, kv_heads;
  bf16* q;    // [M, q_heads, head_dim], rotated, then rounded to nearest even, in places; rows q_stride apart
  float* kv;  // [M, 2 * kv_heads, head_dim]: rotated keys, then values; rows kv_stride apart
  int64_t q_stride, kv_stride;
};

// Where element d of such a query lies: sixteen of a head's first half are a line with those they turn with.
constexpr int64_t query_place(int64_t d, int64_t head_dim) {
  const int64_t i = d / 16, halves = head_dim / 32;  // sixteens of a half
  return (i < halves ? 32 * i : 32 * (i - halves) + 16) + d % 16;
}

// Whether products of M rows of bf16 or integer weights can write such heads: many rows on AMX tiles.
bool gemm_rotates(int64_t M, int64_t head_dim);

}  // namespace millrace
