#include "kernels/kv_write.h"

#include "base/check.h"
#include "kernels/parallel.h"

namespace millrace {
namespace {

template <class Item>
Item rounded(float x) {
  if constexpr (std::is_same_v<Item, bf16>)
    return to_bf16(x);
  else if constexpr (std::is_same_v<Item, f16>)
    return to_f16(x);
  else
    return x;
}

// One token's keys and values into its block.
template <class Item>
void write_token(const KvWriteArgs& a, int64_t t) {
  const KvLayout& layout = a.layout;
  const int64_t block = a.slots[t] / layout.block_tokens, position = a.slots[t] % layout.block_tokens;
  Item* keys = static_cast<Item*>(a.k_cache) + block * layout.block_elements();
  Item* values = static_cast<Item*>(a.v_cache) + block * layout.block_elements();
  const bool pairs = layout.dtype == DType::kBf16;
  for (int64_t g = 0; g < layout.kv_heads; ++g) {
    const float *k = a.k + t * a.stride + g * layout.head_dim, *v = a.v + t * a.stride + g * layout.head_dim;
    Item* to_k = keys + layout.key_at(g, position, 0);
    Item* to_v = values + layout.value_at(g, position, 0);
    for (int64_t d = 0; d < layout.head_dim; ++d)
      to_k[pairs ? d / 2 * 2 * kKvLanes + d % 2 : d * kKvLanes] = rounded<Item>(k[d]);
    for (int64_t d = 0; d < layout.head_dim; ++d) to_v[pairs ? 2 * d : d] = rounded<Item>(v[d]);
  }
}

}  // namespace

void kv_write(const KvWriteArgs& args) {
  const KvLayout& layout = args.layout;
  MR_CHECK(layout.block_tokens % kKvLanes == 0 && layout.head_dim <= kMaxHeadDim,
           "blocks of {} tokens, heads of {} elements", layout.block_tokens, layout.head_dim);
  const int64_t grain = std::max<int64_t>(1, 8192 / std::max<int64_t>(layout.kv_heads * layout.head_dim, 1));
  parallel_ranges(args.T, grain, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      if (layout.dtype == DType::kF32)
        write_token<float>(args, t);
      else if (layout.dtype == DType::kBf16)
        write_token<bf16>(args, t);
      else
        write_token<f16>(args, t);
    }
  });
}

void kv_slots(const SlotArgs& a) {
  for (int64_t s = 0; s < a.S; ++s) {
    const int64_t begin = a.query_start[s], end = a.query_start[s + 1];
    for (int64_t t = begin; t < end; ++t) {
      const int64_t position = a.context_len[s] - (end - t);
      const int64_t block = a.block_table[s * a.max_blocks + position / a.block_tokens];
      MR_CHECK(position >= 0 && block >= 0, "sequence {}, position {}: block {}", s, position, block);
      a.slots[t] = block * a.block_tokens + position % a.block_tokens;
    }
  }
}

}  // namespace millrace
