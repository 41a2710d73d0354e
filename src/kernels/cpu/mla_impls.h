// The implementations of mla_attention, for the list in kernels/mla_attention.cc, and what they share: which pieces of
// work a step consists of.
#pragma once
#include <algorithm>

#include "kernels/mla_attention.h"
#include "kernels/parallel.h"

namespace millrace {

namespace portable {
void mla_attention(const MlaAttentionArgs&);
}
namespace avx2 {
void mla_attention(const MlaAttentionArgs&);
}
namespace avx512 {
void mla_attention(const MlaAttentionArgs&);
}
namespace amx {
void mla_attention(const MlaAttentionArgs&);
int64_t mla_scratch_bytes(int64_t key_dim, int64_t value_dim, int threads);
}  // namespace amx

constexpr int64_t kMlaRows = 256;  // query rows of one item, at most: they share each read of keys and values

// Results of partitions that there is room for: each thread's own and running one, and those of a wave.
constexpr int64_t kMlaPartsPerThread = 10;

inline int64_t mla_threads(int threads) { return threads > 0 ? threads : compute_threads(); }

// Query rows of sequence s that share kv head g: counted token by token, the H/G heads of a token one after another.
struct MlaItem {
  int64_t s, g, row, rows;
};

inline int64_t mla_rows_of(const MlaAttentionArgs& a, int64_t s) {
  return (a.query_start[s + 1] - a.query_start[s]) * (a.H / a.G);
}
// Rows of an item, at most: fewer where that gives all threads something to do.
inline int64_t mla_item_rows(const MlaAttentionArgs& a) {
  int64_t rows = 0;
  for (int64_t s = 0; s < a.S; ++s) rows += mla_rows_of(a, s) * a.G;
  return rows >= 4 * mla_threads(a.threads) * kMlaRows ? kMlaRows : kMlaRows / 2;
}
inline int64_t mla_items_of(const MlaAttentionArgs& a, int64_t s, int64_t most) {
  return (mla_rows_of(a, s) + most - 1) / most * a.G;
}
inline int64_t count_mla_items(const MlaAttentionArgs& a) {
  const int64_t most = mla_item_rows(a);
  int64_t items = 0;
  for (int64_t s = 0; s < a.S; ++s) items += mla_items_of(a, s, most);
  return items;
}
inline MlaItem mla_item_at(const MlaAttentionArgs& a, int64_t index) {
  const int64_t most = mla_item_rows(a);
  int64_t s = 0;
  for (; index >= mla_items_of(a, s, most); ++s) index -= mla_items_of(a, s, most);
  const int64_t of_head = mla_items_of(a, s, most) / a.G, row = index % of_head * most;
  return {s, index / of_head, row, std::min(most, mla_rows_of(a, s) - row)};
}

// One past the last position that row `row` of sequence s sees.
inline int64_t mla_seen_end(const MlaAttentionArgs& a, int64_t s, int64_t row) {
  const int64_t token = a.query_start[s] + row / (a.H / a.G);
  return a.context_len[s] - (a.query_start[s + 1] - token) + 1;
}

// Where the row of `position` begins, in elements.
inline int64_t mla_row_at(const MlaAttentionArgs& a, const MlaRows& rows, int64_t s, int64_t g, int64_t position) {
  const int64_t block = a.block_table[s * a.max_blocks + position / a.block_tokens];
  return block * rows.block_stride + position % a.block_tokens * rows.row_stride + g * rows.head_stride;
}

}  // namespace millrace
