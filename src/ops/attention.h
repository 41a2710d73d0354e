// Attention over the paged cache, and what goes with it: the rotation of queries and keys, and the cache itself.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/kv_layout.h"
#include "ops/workspace.h"
#include "tensor/tensor.h"

namespace millrace {

// x [T, heads, D] kF32, strides of tokens and heads free (a slice of a fused qkv row, or of each of its heads); cos and
// sin [T, dims / 2] kF32 contiguous. The first `dims` elements of each head turn, in place.
void rope(Tensor& x, const Tensor& cos, const Tensor& sin, bool interleaved);

// What a KV cache holds: kF32, kBf16, kF16; or kI8 with a scale for each token and head, kept in the cache, or with
// scales of the heads (KvScales).
struct KvType {
  KvType(DType type = DType::kF32, bool of_tokens = false) : dtype(type), token_scales(of_tokens) {}
  DType dtype;
  bool token_scales;
};

// Scales of the heads of an int8 cache, all above 0: a key or value is its integer times the scale.
struct KvScales {
  std::vector<float> keys, values;  // [layers, G]
};

// max |x| of keys and of values.
struct KvRange {
  float key = 0, value = 0;
};

// Keys and values of all layers, or with multi-head latent attention one row per token and layer: the latent, then the
// rotated key that all heads share (kernels/mla_attention.h). Which block belongs to whom is the engine's business;
// nothing is ever cleared.
class KvCache {
 public:
  struct Config {
    int64_t layers = 0, blocks = 0;
    int64_t block_tokens = 16;  // a multiple of 16
    int64_t kv_heads = 0, head_dim = 0;
    int64_t latent_dim = 0;     // not 0: rows of head_dim elements, the first latent_dim the latent; kv_heads is 1
    DType dtype = DType::kF32;  // kF32, kBf16 or kF16; without latents kI8
    bool token_scales = false;  // of kI8, see KvType
    bool has_head_scales() const { return dtype == DType::kI8 && !token_scales; }
  };
  KvCache() = default;
  // Memory is reserved at once and taken page by page as blocks are first written. `scales` go with has_head_scales().
  explicit KvCache(const Config& config, KvScales scales = {});
  // Bytes of one block, all layers.
  static int64_t bytes_per_block(const Config& config);

  const Config& config() const { return config_; }
  // k and v [T, G, D] kF32, heads contiguous, equal token strides; slots[t] = block * block_tokens + position in block.
  void write(int64_t layer, const Tensor& k, const Tensor& v, std::span<const int64_t> slots);
  // With latents: latent [T, latent_dim] and k_rope [T, head_dim - latent_dim], kF32, row strides free; slots as above.
  void write_latents(int64_t layer, const Tensor& latent, const Tensor& k_rope, std::span<const int64_t> slots);
  // Of what one layer's blocks hold, all of them; calibration divides it by 127. Requires: floating, no latents.
  KvRange range(int64_t layer) const;
  // Copies block `from` to block `to` in all layers.
  void copy_block(int64_t from, int64_t to);

 private:
  void reserve_heads();
  void reserve_latents();
  // Of a layer's heads; null where the cache has none.
  const float* head_scales(const std::vector<float>& scales, int64_t layer) const {
    return scales.empty() ? nullptr : scales.data() + layer * config_.kv_heads;
  }
  friend class LatentAttention;
  friend void paged_attention(const Tensor&, const KvCache&, int64_t, const struct AttentionStep&,
                              const struct AttentionParams&, Tensor&, Workspace&);
  Config config_;
  KvLayout layout_;
  KvScales scales_;
  std::vector<Tensor> keys_, values_;  // per layer, [blocks, elements of a block]; latents are keys
};

// The ragged step, as models/batch.h has it.
struct AttentionStep {
  std::span<const int32_t> query_start;  // [S + 1]
  std::span<const int32_t> context_len;  // [S]
  std::span<const int32_t> block_table;  // [S, max_blocks]
  int64_t max_blocks = 0;
};
// slots[t] of every new token; slots.size() == query_start[S].
void kv_slots(const AttentionStep& step, int64_t block_tokens, std::span<int64_t> slots);

struct AttentionParams {
  float scale = 1;
  float soft_cap = 0;                   // 0: none
  int64_t window = 0;                   // 0: all
  std::span<const float> alibi_slopes;  // [H] or empty
  bool alibi_bf16 = false;              // kernels/paged_attention.h
  std::span<const float> q_factors;     // [T] or empty: q[t] counts that many times
};
// q [T, H, D] kF32, or kBf16 as kernels/rotated_heads.h has them, heads contiguous, token stride free; out [T, H * D]
// kF32 or kBf16. The step's keys and values must have been written. Rows are bit-identical whatever else is in the step
// (kernels/paged_attention.h).
void paged_attention(const Tensor& q, const KvCache& cache, int64_t layer, const AttentionStep& step,
                     const AttentionParams& params, Tensor& out, Workspace& workspace);
int64_t attention_scratch_bytes(int64_t heads, const KvCache::Config& config, int64_t max_context);

}  // namespace millrace
