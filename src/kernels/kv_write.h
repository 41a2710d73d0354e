// Scatters new keys and values into the paged cache. An int8 cache keeps round(x * (1 / s)), to nearest even and within
// [-127, 127]; NaN becomes -127. s is the head's scale or, with token_scales, max |x| / 127 over the head's D elements
// of the token, 1 / s then being 127 / max; a head that is not finite then gets zeros and the scale NaN.
#pragma once
#include <cstdint>
#include <span>

#include "kernels/impl.h"
#include "kernels/kv_layout.h"

namespace millrace {

struct KvWriteArgs {
  const float *k, *v;    // [T, G, D]; tokens stride apart, heads D apart
  const int64_t* slots;  // [T] block number * P + position within the block
  void *k_cache, *v_cache;
  KvLayout layout;
  int64_t T, stride;
  const float *k_scales = nullptr, *v_scales = nullptr;  // kI8 without token_scales: [G], above 0
};
void kv_write(const KvWriteArgs& args);

// One head of one token as int8. Returns its scale: `scale`, or max |x| / 127 where `scale` is 0.
using KvQuantizeFn = float(const float* x, int64_t n, float scale, int8_t* to);
std::span<const Impl<KvQuantizeFn>> kv_quantize_impls();

// slots[t] for the ragged tokens of a step: sequence s has its new tokens at the end of its context_len[s] positions.
struct SlotArgs {
  const int32_t *query_start, *context_len, *block_table;  // [S + 1], [S], [S, max_blocks]
  int64_t S, max_blocks, block_tokens;
  int64_t* slots;  // [query_start[S]]
};
void kv_slots(const SlotArgs& args);

}  // namespace millrace
