// Scatters new keys and values into the paged cache.
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
};
void kv_write(const KvWriteArgs& args);

// slots[t] for the ragged tokens of a step: sequence s has its new tokens at the end of its context_len[s] positions.
struct SlotArgs {
  const int32_t *query_start, *context_len, *block_table;  // [S + 1], [S], [S, max_blocks]
  int64_t S, max_blocks, block_tokens;
  int64_t* slots;  // [query_start[S]]
};
void kv_slots(const SlotArgs& args);

}  // namespace millrace
