// Where keys and values of the paged cache lie. Private to kernels/: others only need the sizes.
// A block holds P tokens of one layer for all G key/value heads, keys and values in separate memory:
//   keys   [G][P/16][Dp][16]      sixteen positions in the lanes of a vector; kBf16: [G][P/16][Dp/2][16][2]
//   values [G][P][Dp]             elements of a head in the lanes;            kBf16: [G][P/2][Dp][2]
// Dp is D rounded up to 16. The padding is never written: memory must be zeroed once, when it is allocated. The pairs
// of the bf16 form are what vdpbf16ps and AMX tiles take.
#pragma once
#include <cstdint>

#include "base/dtype.h"

namespace millrace {

constexpr int64_t kKvLanes = 16;
constexpr int64_t kMaxHeadDim = 256;

struct KvLayout {
  int64_t block_tokens = 16;  // P, a multiple of 16
  int64_t kv_heads = 0;       // G
  int64_t head_dim = 0;       // D, at most kMaxHeadDim
  DType dtype = DType::kF32;  // kF32, kBf16 or kF16

  constexpr int64_t padded_dim() const { return (head_dim + 15) / 16 * 16; }
  // Elements and bytes of one block's keys (and as many of its values) in one layer.
  constexpr int64_t block_elements() const { return kv_heads * block_tokens * padded_dim(); }
  constexpr int64_t block_bytes() const { return block_elements() * dtype_bytes(dtype); }
  // Element of a block at head g, position p of the block, dimension d.
  constexpr int64_t key_at(int64_t g, int64_t p, int64_t d) const {
    const int64_t lanes = key_lanes_at(g, p);
    if (dtype == DType::kBf16) return lanes + d / 2 * 2 * kKvLanes + p % kKvLanes * 2 + d % 2;
    return lanes + d * kKvLanes + p % kKvLanes;
  }
  constexpr int64_t value_at(int64_t g, int64_t p, int64_t d) const {
    if (dtype == DType::kBf16) return g * block_tokens * padded_dim() + (p / 2 * padded_dim() + d) * 2 + p % 2;
    return (g * block_tokens + p) * padded_dim() + d;
  }
  // First element of the sixteen positions that hold p.
  constexpr int64_t key_lanes_at(int64_t g, int64_t p) const {
    return (g * block_tokens + p / kKvLanes * kKvLanes) * padded_dim();
  }
};

}  // namespace millrace
