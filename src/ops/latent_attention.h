// Multi-head latent attention (DeepSeek-V2, 2024) over a cache of latents. With c_j the cached latent of position j
// (after its norm), r_j its rotated rope key, and W_UK[h], W_UV[h] head h's rows of kv_b:
//   score(t,h,j) = scale * (q_nope[t,h] . W_UK[h] c_j + q_rope[t,h] . r_j),  out[t,h] = sum_j softmax_j W_UV[h] c_j
// Two forms of the same arithmetic:
//   absorbed   q_nope W_UK[h] first, attention on the latents themselves, W_UV[h] last: reads each latent once for all
//              heads, so it decodes at the speed of memory. Of a long prompt a thread takes some tokens of one head
//              from queries to outputs, so that nothing in between leaves its caches;
//   expanded   keys and values of all positions first, some heads at a time: fewer products where many tokens of one
//              sequence are new.
// They round differently. In the absorbed form a row of out is bit-identical whatever else is in the step and however
// the sequence was chunked; `kByCost` chooses per sequence by its numbers of new and old tokens alone.
#pragma once
#include <cstdint>
#include <vector>

#include "kernels/mla_attention.h"
#include "ops/attention.h"
#include "ops/grouped_linear.h"

namespace millrace {

struct LatentAttentionParams {
  enum class Form : uint8_t { kByCost, kAbsorbed, kExpanded };
  int64_t heads = 0;       // H
  int64_t latent_dim = 0;  // kv_lora_rank
  int64_t nope_dim = 0, rope_dim = 0, value_dim = 0;
  float scale = 1;
  Form form = Form::kByCost;  // kExpanded falls back to kAbsorbed beyond expanded_context()
  int64_t query_dim() const { return nope_dim + rope_dim; }
};

class LatentAttention {
 public:
  using Params = LatentAttentionParams;
  // kv_b [H * (nope_dim + value_dim), latent_dim], floating: of each head the rows of W_UK, then those of W_UV.
  // `compute` is the type the weights are kept in. Form kAbsorbed keeps half as much.
  LatentAttention(const Tensor& kv_b, const Params& params, DType compute);

  // q [T, H, nope_dim + rope_dim] kF32, the rope part turned, heads contiguous, token stride free; the step's latents
  // must have been written. out [T, H * value_dim] kF32 or kBf16. One forward at a time per object.
  void forward(const Tensor& q, const KvCache& cache, int64_t layer, const AttentionStep& step, Tensor& out,
               Workspace& workspace);
  // What forward takes from the workspace for up to max_tokens tokens and contexts of up to max_context.
  int64_t scratch_bytes(const KvCache::Config& cache, int64_t max_tokens, int64_t max_context) const;
  int64_t weight_bytes() const;
  // The longest context whose keys and values may be expanded.
  int64_t expanded_context(const KvCache::Config& cache) const;

  static constexpr int64_t kExpandedHeads = 8;  // that are expanded by one product

 private:
  struct Call;      // what forward was asked for
  struct Expanded;  // keys and values of one sequence and some heads
  bool expands(const Call& call, int64_t sequence) const;
  void run_absorbed(const Call& call, int64_t first_token, int64_t end_token, int64_t sequence);
  MlaAttentionArgs on_latents(const Call& call, int64_t sequence, const Tensor& queries, Tensor& mixed) const;
  bool goes_by_head(const Call& call, int64_t sequence) const;
  void run_by_head(const Call& call, int64_t sequence);
  struct HeadRoom {  // what a thread computes tokens of a head in
    Tensor queries, mixed, values;
    std::byte *products, *attention;
    MlaHeld held;
  };
  HeadRoom head_room(const Call& call) const;
  void run_head(const Call& call, int64_t sequence, int64_t head, int64_t first, int64_t n, HeadRoom& room) const;
  void attend_latents(const Call& call, const Tensor& queries, int64_t first_token, int64_t sequence, Tensor& mixed);
  void run_expanded(const Call& call, int64_t sequence);
  void expand(const Expanded& e, int64_t position, int64_t count, Workspace& workspace);
  void attend_expanded(const Call& call, const Expanded& e);

  int64_t absorbed_tokens(int64_t max_tokens) const;
  int64_t absorbed_bytes(int64_t max_tokens) const;
  int64_t head_bytes() const;
  int64_t expanded_bytes(const KvCache::Config& cache, int64_t max_context) const;
  int64_t expanded_row_bytes(DType cache) const;
  int64_t expanded_heads(const KvCache::Config& cache, int64_t context) const;

  Params params_;
  std::vector<Linear> absorb_;        // per head, W_UK^T [latent_dim, nope_dim]
  std::vector<Linear> values_;        // per head, W_UV [value_dim, latent_dim]
  std::vector<Linear> expand_;        // kExpandedHeads heads' rows of kv_b each, unless only absorbed
  std::vector<LinearCall> calls_;     // of the products at hand
  std::vector<HeadRoom> rooms_;       // of the threads
  std::vector<int32_t> query_start_;  // of the sequences at hand
  std::vector<int32_t> context_len_;
};

}  // namespace millrace
