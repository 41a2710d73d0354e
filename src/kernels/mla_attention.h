// Causal attention whose keys and values are plain rows, as multi-head latent attention needs it (DeepSeek-V2, 2024):
//   out[t,h] = softmax over j <= i of (scale * q[t,h].k[j,g]) . v[j,g],  g = h / (H/G),  i the token's position
// Absorbed form: one key/value head (G = 1) of latent and rope elements, whose first elements are the value too, so
// that a step reads the latents once for all heads. Expanded form: keys and values of their own, of different sizes.
//
// A row (t, h) is computed the same way whatever else is in the batch, however it was chunked and on however many
// threads: partitions of kMlaPartition absolute positions have a softmax each and are merged in rising order (as
// Flash-Decoding does).
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

#include "base/dtype.h"
#include "kernels/impl.h"

namespace millrace {

constexpr int64_t kMlaPartition = 512;
constexpr int64_t kMlaRowPadding = 32;  // rows are readable and zero up to a multiple of this
constexpr int64_t mla_padded(int64_t dim) { return (dim + kMlaRowPadding - 1) / kMlaRowPadding * kMlaRowPadding; }

// Row of position j and head g: element block * block_stride + (j % P) * row_stride + g * head_stride, where `block` is
// the sequence's block j / P.
struct MlaRows {
  const void* data;
  int64_t block_stride, row_stride, head_stride;
};

// Which values a scratch holds in an order of its own, for calls of one thread that look at the same ones one after
// another. A fresh one holds none; it must not outlive a write to the values.
struct MlaHeld {
  const void* values = nullptr;
  const int32_t* blocks = nullptr;  // of the sequence
  int64_t g = -1, partition = -1, positions = 0;
  bool has(const MlaHeld& other) const {
    return values == other.values && blocks == other.blocks && g == other.g && partition == other.partition &&
           positions >= other.positions;
  }
};

struct MlaAttentionArgs {
  const float* q;        // [T, H, key_dim]; tokens q_stride apart, heads key_dim apart
  MlaRows keys, values;  // elements beyond key_dim are zero up to mla_padded(key_dim); beyond value_dim anything finite
  DType dtype = DType::kF32;                               // of keys and values: kF32, kBf16 or kF16
  const int32_t *query_start, *context_len, *block_table;  // [S + 1], [S], [S, max_blocks]; see models/batch.h
  void* out;                                               // [T, H, value_dim], tokens out_stride apart, out_dtype
  std::byte* scratch;                                      // mla_attention_scratch_bytes, 64-byte aligned
  int64_t S, H, G, key_dim, value_dim, block_tokens, max_blocks, q_stride, out_stride;
  float scale;
  DType out_dtype = DType::kF32;  // kF32 or kBf16
  int threads = 0;                // that may take part; 0: all of the pool
  MlaHeld* held = nullptr;        // with threads = 1: what the scratch holds from earlier calls; or null
};
using MlaAttentionFn = void(const MlaAttentionArgs&);

// Requires: block_tokens a multiple of 16, G divides H.
void mla_attention(const MlaAttentionArgs& args);
std::span<const Impl<MlaAttentionFn>> mla_attention_impls();
// For any number of tokens and any context, `threads` as in the arguments.
int64_t mla_attention_scratch_bytes(int64_t key_dim, int64_t value_dim, int threads = 0);

}  // namespace millrace
