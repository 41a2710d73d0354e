// Rotary position embedding in place (Su et al., 2021): each pair (a, b) of a head becomes
// (a cos - b sin, b cos + a sin). Pairs are (i, i + dims/2), or (2i, 2i + 1) where interleaved; elements from `dims` on
// stay as they are.
#pragma once
#include <cstdint>
#include <span>

#include "kernels/impl.h"

namespace millrace {

struct RopeArgs {
  float* x;                // [T, heads, head_dim]; tokens token_stride apart, heads head_dim apart
  const float *cos, *sin;  // [T, dims / 2]
  int64_t T, heads, head_dim, dims, token_stride;
  bool interleaved = false;
};
using RopeFn = void(const RopeArgs&);

void rope(const RopeArgs& args);
std::span<const Impl<RopeFn>> rope_impls();  // on the calling thread

}  // namespace millrace
