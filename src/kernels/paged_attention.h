// Causal attention of a step's new tokens over the paged cache, prefill and decode alike:
//   out[t,h] = softmax over visible j of (cap(scale * q[t,h].k[j,g]) + slope[h] * (j - i)) . v[j,g],  g = h / (H/G)
// where alibi_bf16, the bias is scale * bf16(slope[h] * bf16(j)), slopes being bfloat16 values
// i is the token's position; visible: j <= i and, with a window, j > i - window; cap(s) = soft_cap * tanh(s/soft_cap).
//
// Of an int8 cache, k[j,g] is the integers times the scale of head g or, with token_scales, of token j and head g; v
// likewise. Scales multiply products and weights; integers are widened in registers.
//
// A row (t, h) is computed the same way whatever else is in the batch, however it was chunked and on however many
// threads: tiles of kTilePositions at absolute positions run through an online softmax (Milakov and Gimelshein, 2018),
// partitions of kPartitionPositions are reduced apart and merged in rising order (as Flash-Decoding does). Splitting
// partitions over threads is therefore free of consequences.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels/impl.h"
#include "kernels/kv_layout.h"
#include "kernels/rotated_heads.h"

namespace millrace {

constexpr int64_t kTilePositions = 64;
constexpr int64_t kPartitionPositions = 512;

struct AttentionArgs {
  const void* q;  // [T, H, D], q_dtype; tokens q_stride apart, heads D apart
  const void *k_cache, *v_cache;
  KvLayout layout;
  const int32_t *query_start, *context_len, *block_table;  // [S + 1], [S], [S, max_blocks]; see models/batch.h
  void* out;                                               // [T, H, D], tokens out_stride apart, out_dtype
  const float* alibi_slopes;                               // [H] or null
  const float* q_factors;                                  // [T]: q[t] counts that many times; or null
  std::byte* scratch;                                      // attention_scratch_bytes, 64-byte aligned
  int64_t scratch_bytes;                                   // less only means fewer threads for few long sequences
  int64_t S, H, max_blocks, q_stride, out_stride;
  float scale;
  float soft_cap = 0;  // 0: none
  int64_t window = 0;  // 0: all
  bool alibi_bf16 = false;
  DType q_dtype = DType::kF32;                           // kF32; kBf16: as kernels/rotated_heads.h has them
  DType out_dtype = DType::kF32;                         // kF32 or kBf16
  const float *k_scales = nullptr, *v_scales = nullptr;  // kI8 without token_scales: [G]
};
using AttentionFn = void(const AttentionArgs&);

void paged_attention(const AttentionArgs& args);
std::span<const Impl<AttentionFn>> paged_attention_impls();
// Enough to spread a few sequences of max_context tokens over all threads.
int64_t attention_scratch_bytes(int64_t H, int64_t D, int64_t max_context);

}  // namespace millrace
