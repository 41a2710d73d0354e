// Where keys and values of the paged cache lie. Private to kernels/: others only need the sizes.
// A block holds P tokens of one layer for all G key/value heads, keys and values in separate memory:
//   keys   [G][P/16][Dp][16]  sixteen positions in the lanes of a vector; kBf16: [Dp/2][16][2]; kI8: [Dp/4][16][4]
//   values [G][P/16][16][Dp]  elements of a head in the lanes;            kBf16: [8][Dp][2]; kI8: [4][Dp][4]
// kI8 with token_scales: every sixteen positions of a head, of keys as of values, are followed by their sixteen scales
// in float32. Dp is D rounded up to 16. The padding is never written: memory must be zeroed once, when it is allocated.
// The pairs of the bf16 form are what vdpbf16ps and AMX tiles take, the fours of int8 what integer tiles take.
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
  DType dtype = DType::kF32;  // kF32, kBf16, kF16 or kI8
  bool token_scales = false;  // of kI8: every token and head has a scale of its own

  constexpr int64_t padded_dim() const { return (head_dim + 15) / 16 * 16; }
  // Elements of sixteen positions of a head, scales included.
  constexpr int64_t group_elements() const { return kKvLanes * (padded_dim() + (token_scales ? 4 : 0)); }
  // Elements and bytes of one block's keys (and as many of its values) in one layer. At strides of whole pages a head's
  // blocks would share few sets of the caches: such blocks are a line longer.
  constexpr int64_t block_elements() const {
    const int64_t elements = kv_heads * (block_tokens / kKvLanes) * group_elements(), bytes = dtype_bytes(dtype);
    return elements * bytes % 4096 == 0 ? elements + 64 / bytes : elements;
  }
  constexpr int64_t block_bytes() const { return block_elements() * dtype_bytes(dtype); }
  // Neighbouring elements of a position that lie together in keys, and positions whose elements do in values.
  constexpr int64_t key_run() const { return dtype == DType::kBf16 ? 2 : dtype == DType::kI8 ? 4 : 1; }
  constexpr int64_t value_run() const { return key_run(); }
  // First element, in its block, of the sixteen positions of head g that hold position p of the block.
  constexpr int64_t group_at(int64_t g, int64_t p) const {
    return (g * (block_tokens / kKvLanes) + p / kKvLanes) * group_elements();
  }
  // Element of a block at head g, position p of the block, dimension d.
  constexpr int64_t key_at(int64_t g, int64_t p, int64_t d) const {
    const int64_t run = key_run();
    return group_at(g, p) + d / run * run * kKvLanes + p % kKvLanes * run + d % run;
  }
  constexpr int64_t value_at(int64_t g, int64_t p, int64_t d) const {
    const int64_t run = value_run(), within = p % kKvLanes;
    return group_at(g, p) + (within / run * padded_dim() + d) * run + within % run;
  }
  // Where the float32 scale of head g and position p begins, with token_scales.
  constexpr int64_t scale_at(int64_t g, int64_t p) const {
    return group_at(g, p) + kKvLanes * padded_dim() + p % kKvLanes * 4;
  }
};

}  // namespace millrace
