#include "kernels/kv_write.h"

#include <cstring>

#include "base/check.h"
#include "base/cpu.h"
#include "base/from_float.h"
#include "kernels/cpu/attention_impls.h"
#include "kernels/parallel.h"

namespace millrace {
namespace {

// Block and position within it of a slot.
struct Place {
  int64_t block, position;
};
Place place_of(const KvWriteArgs& a, int64_t t) {
  return {a.slots[t] / a.layout.block_tokens, a.slots[t] % a.layout.block_tokens};
}

// One token's keys and values into its block.
template <class Item>
void write_token(const KvWriteArgs& a, int64_t t) {
  const KvLayout& layout = a.layout;
  const auto [block, position] = place_of(a, t);
  Item* keys = static_cast<Item*>(a.k_cache) + block * layout.block_elements();
  Item* values = static_cast<Item*>(a.v_cache) + block * layout.block_elements();
  const bool pairs = layout.dtype == DType::kBf16;
  for (int64_t g = 0; g < layout.kv_heads; ++g) {
    const float *k = a.k + t * a.stride + g * layout.head_dim, *v = a.v + t * a.stride + g * layout.head_dim;
    Item* to_k = keys + layout.key_at(g, position, 0);
    Item* to_v = values + layout.value_at(g, position, 0);
    for (int64_t d = 0; d < layout.head_dim; ++d)
      to_k[pairs ? d / 2 * 2 * kKvLanes + d % 2 : d * kKvLanes] = from_float<Item>(k[d]);
    for (int64_t d = 0; d < layout.head_dim; ++d) to_v[pairs ? 2 * d : d] = from_float<Item>(v[d]);
  }
}

// Whether tokens [t, t + 16) fill sixteen positions that lie together.
bool fill_lanes(const KvWriteArgs& a, int64_t t, int64_t end) {
  if (t + kKvLanes > end || a.slots[t] % kKvLanes != 0) return false;
  for (int64_t i = 1; i < kKvLanes; ++i)
    if (a.slots[t + i] != a.slots[t] + i) return false;
  return true;
}

void write_bf16_tokens(const KvWriteArgs& a, int64_t begin, int64_t end) {
  const bool fast = cpu_has(Isa::kAvx512);
  for (int64_t t = begin; t < end;) {
    if (fast && fill_lanes(a, t, end)) {
      avx512::kv_write_sixteen(a, t);
      t += kKvLanes;
    } else {
      write_token<bf16>(a, t++);
    }
  }
}

constexpr Impl<KvQuantizeFn> kQuantizeImpls[] = {{"avx512", Isa::kAvx512, avx512::kv_quantize},
                                                 {"avx2", Isa::kAvx2, avx2::kv_quantize},
                                                 {"portable", Isa::kPortable, portable::kv_quantize}};

// The same as int8. Elements beyond D of the last run of a key are zero, as its padding is.
void write_int8_token(const KvWriteArgs& a, int64_t t) {
  static KvQuantizeFn* const quantize = best_impl(kv_quantize_impls());
  const KvLayout& layout = a.layout;
  const auto [block, position] = place_of(a, t);
  int8_t* keys = static_cast<int8_t*>(a.k_cache) + block * layout.block_elements();
  int8_t* values = static_cast<int8_t*>(a.v_cache) + block * layout.block_elements();
  const int64_t D = layout.head_dim, run = layout.key_run();
  alignas(64) int8_t key[kMaxHeadDim] = {}, value[kMaxHeadDim];
  for (int64_t g = 0; g < layout.kv_heads; ++g) {
    const int64_t from = t * a.stride + g * D;
    const float k_scale = quantize(a.k + from, D, a.k_scales ? a.k_scales[g] : 0, key);
    for (int64_t d = 0; d < D; d += run) std::memcpy(keys + layout.key_at(g, position, d), key + d, run);
    const float v_scale = quantize(a.v + from, D, a.v_scales ? a.v_scales[g] : 0, value);
    int8_t* to_v = values + layout.value_at(g, position, 0);
    for (int64_t d = 0; d < D; ++d) to_v[d * run] = value[d];
    if (!layout.token_scales) continue;
    std::memcpy(keys + layout.scale_at(g, position), &k_scale, sizeof k_scale);
    std::memcpy(values + layout.scale_at(g, position), &v_scale, sizeof v_scale);
  }
}

// Tokens that are worth a thread. Of many, sixteen positions that lie together stay together; a few are mostly of
// sequences of their own, so that each waits for lines of its own.
int64_t write_grain(const KvWriteArgs& a) {
  constexpr int64_t kMany = 4 * kKvLanes, kLone = 4;
  const int64_t most = std::max<int64_t>(1, 8192 / std::max<int64_t>(a.layout.kv_heads * a.layout.head_dim, 1));
  if (a.T < kMany) return std::min(most, kLone);
  return most >= kKvLanes / 2 ? (most + kKvLanes - 1) / kKvLanes * kKvLanes : most;
}

}  // namespace

std::span<const Impl<KvQuantizeFn>> kv_quantize_impls() { return kQuantizeImpls; }

void kv_write(const KvWriteArgs& args) {
  const KvLayout& layout = args.layout;
  MR_CHECK(layout.block_tokens % kKvLanes == 0 && layout.head_dim <= kMaxHeadDim,
           "blocks of {} tokens, heads of {} elements", layout.block_tokens, layout.head_dim);
  const bool int8 = layout.dtype == DType::kI8, scaled = args.k_scales && args.v_scales;
  MR_CHECK(scaled == (int8 && !layout.token_scales), "scales given: {}; a cache of {}", scaled,
           dtype_name(layout.dtype));
  parallel_ranges(args.T, write_grain(args), [&](int64_t begin, int64_t end) {
    if (layout.dtype == DType::kBf16) return write_bf16_tokens(args, begin, end);
    for (int64_t t = begin; t < end; ++t) {
      if (layout.dtype == DType::kF32)
        write_token<float>(args, t);
      else if (int8)
        write_int8_token(args, t);
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
