// The implementations of paged_attention and of what kv_write rounds with, for the lists in kernels/, and what they
// share: which pieces of work a step consists of.
#pragma once
#include "kernels/kv_write.h"
#include "kernels/paged_attention.h"

namespace millrace {

namespace portable {
void paged_attention(const AttentionArgs&);
KvQuantizeFn kv_quantize;
}  // namespace portable
namespace avx2 {
void paged_attention(const AttentionArgs&);
KvQuantizeFn kv_quantize;
}  // namespace avx2
namespace amx {
void paged_attention(const AttentionArgs&);
}
namespace avx512 {
void paged_attention(const AttentionArgs&);
void paged_attention_pairs(const AttentionArgs&);  // a bf16 cache with vdpbf16ps
void paged_attention_fours(const AttentionArgs&);  // an int8 cache with vpdpbusd, nothing else
KvQuantizeFn kv_quantize;
// Tokens [t, t + 16) of kv_write into a bf16 cache, as the plain code does, bit for bit. Requires: their slots follow
// each other from a multiple of sixteen on.
void kv_write_sixteen(const KvWriteArgs&, int64_t t);
}  // namespace avx512

// Heads whose largest element is smaller are all zeros in an int8 cache with a scale for each token.
constexpr float kLeastKvMax = 1e-30f;

// Query rows that share a key/value head and are computed together. The rows of sequence s and kv head g are counted
// token by token, the H/G query heads of a token one after another.
struct AttentionItem {
  int64_t s, g, row, rows;
};

// What a query token sees.
struct Visible {
  int64_t begin, end;  // absolute positions
};

inline int64_t query_position(const AttentionArgs& a, int64_t s, int64_t token) {
  return a.context_len[s] - (a.query_start[s + 1] - token);
}
inline Visible visible(const AttentionArgs& a, int64_t s, int64_t token) {
  const int64_t position = query_position(a, s, token);
  const int64_t first = a.window > 0 && position >= a.window ? position - a.window + 1 : 0;
  return {first, position + 1};
}

// Bias of the key at `position` where alibi_bf16, before it is scaled.
inline float bf16_bias(float slope, int64_t position) {
  return to_float(to_bf16(slope * to_float(to_bf16(static_cast<float>(position)))));
}

// The items of a step, each of at most `most` rows.
inline int64_t items_of(const AttentionArgs& a, int64_t s, int64_t most) {
  const int64_t rows = (a.query_start[s + 1] - a.query_start[s]) * (a.H / a.layout.kv_heads);
  return (rows + most - 1) / most * a.layout.kv_heads;
}
inline int64_t count_items(const AttentionArgs& a, int64_t most) {
  int64_t items = 0;
  for (int64_t s = 0; s < a.S; ++s) items += items_of(a, s, most);
  return items;
}
inline AttentionItem item_at(const AttentionArgs& a, int64_t most, int64_t index) {
  int64_t s = 0;
  for (; index >= items_of(a, s, most); ++s) index -= items_of(a, s, most);
  const int64_t G = a.layout.kv_heads, row = index / G * most;
  const int64_t rows = (a.query_start[s + 1] - a.query_start[s]) * (a.H / G);
  return {s, index % G, row, rows - row < most ? rows - row : most};
}

}  // namespace millrace
