#include "ops/attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/cast_rows.h"
#include "kernels/kv_write.h"
#include "kernels/mla_attention.h"
#include "kernels/paged_attention.h"
#include "kernels/rope.h"

namespace millrace {
namespace {

void check_heads(const Tensor& x, DType other = DType::kF32) {
  MR_CHECK(x.rank() == 3 && (x.dtype() == DType::kF32 || x.dtype() == other) && (x.size(2) == 1 || x.stride(2) == 1) &&
               (x.size(1) == 1 || x.stride(1) == x.size(2)),
           "heads of shape {}, {}", x.shape().to_string(), dtype_name(x.dtype()));
}

KvLayout layout_of(const KvCache::Config& config) {
  return {.block_tokens = config.block_tokens,
          .kv_heads = config.kv_heads,
          .head_dim = config.head_dim,
          .dtype = config.dtype,
          .token_scales = config.token_scales};
}

int64_t latent_block_elements(const KvCache::Config& config) {
  return config.block_tokens * mla_padded(config.head_dim);
}

}  // namespace

void rope(Tensor& x, const Tensor& cos, const Tensor& sin, bool interleaved) {
  MR_CHECK(x.rank() == 3 && x.dtype() == DType::kF32 && (x.size(2) == 1 || x.stride(2) == 1), "x {} {}",
           dtype_name(x.dtype()), x.shape().to_string());
  MR_CHECK(cos.rank() == 2 && cos.size(0) == x.size(0) && cos.shape() == sin.shape() && cos.contiguous() &&
               sin.contiguous() && cos.dtype() == DType::kF32 && 2 * cos.size(1) <= x.size(2),
           "x {}, cos {}, sin {}", x.shape().to_string(), cos.shape().to_string(), sin.shape().to_string());
  rope(RopeArgs{.x = x.data<float>(),
                .cos = cos.data<float>(),
                .sin = sin.data<float>(),
                .T = x.size(0),
                .heads = x.size(1),
                .head_dim = x.size(1) == 1 ? x.size(2) : x.stride(1),
                .dims = 2 * cos.size(1),
                .token_stride = x.stride(0),
                .interleaved = interleaved});
}

KvCache::KvCache(const Config& config, KvScales scales)
    : config_(config), layout_(layout_of(config)), scales_(std::move(scales)) {
  MR_CHECK(config.block_tokens > 0 && config.block_tokens % kKvLanes == 0 && config.head_dim > 0 && config.kv_heads > 0,
           "blocks of {} tokens, {} heads of {}", config.block_tokens, config.kv_heads, config.head_dim);
  const int64_t heads = config.has_head_scales() ? config.layers * config.kv_heads : 0;
  MR_CHECK(static_cast<int64_t>(scales_.keys.size()) == heads && static_cast<int64_t>(scales_.values.size()) == heads,
           "{} and {} scales for {} heads of all layers", scales_.keys.size(), scales_.values.size(), heads);
  if (config.latent_dim > 0)
    reserve_latents();
  else
    reserve_heads();
}

void KvCache::reserve_heads() {
  MR_CHECK(config_.head_dim <= kMaxHeadDim, "heads of {} elements, at most {}", config_.head_dim, kMaxHeadDim);
  for (int64_t layer = 0; layer < config_.layers; ++layer) {
    keys_.push_back(page_zeros(config_.dtype, {config_.blocks, layout_.block_elements()}));
    values_.push_back(page_zeros(config_.dtype, {config_.blocks, layout_.block_elements()}));
  }
}

void KvCache::reserve_latents() {
  MR_CHECK(config_.kv_heads == 1 && config_.latent_dim <= config_.head_dim && is_floating(config_.dtype),
           "{} heads of {}, latents of {}, {}", config_.kv_heads, config_.head_dim, config_.latent_dim,
           dtype_name(config_.dtype));
  for (int64_t layer = 0; layer < config_.layers; ++layer)
    keys_.push_back(page_zeros(config_.dtype, {config_.blocks, latent_block_elements(config_)}));
}

int64_t KvCache::bytes_per_block(const Config& config) {
  if (config.latent_dim > 0) return config.layers * latent_block_elements(config) * dtype_bytes(config.dtype);
  return 2 * config.layers * layout_of(config).block_bytes();
}

void KvCache::write(int64_t layer, const Tensor& k, const Tensor& v, std::span<const int64_t> slots) {
  check_heads(k);
  check_heads(v);
  MR_CHECK(config_.latent_dim == 0 && k.shape() == v.shape() && k.stride(0) == v.stride(0) &&
               k.size(1) == config_.kv_heads && k.size(2) == config_.head_dim &&
               k.size(0) == static_cast<int64_t>(slots.size()),
           "k {}, v {}, {} slots", k.shape().to_string(), v.shape().to_string(), slots.size());
  kv_write({.k = k.data<float>(),
            .v = v.data<float>(),
            .slots = slots.data(),
            .k_cache = keys_[layer].raw(),
            .v_cache = values_[layer].raw(),
            .layout = layout_,
            .T = k.size(0),
            .stride = k.stride(0),
            .k_scales = head_scales(scales_.keys, layer),
            .v_scales = head_scales(scales_.values, layer)});
}

void KvCache::write_latents(int64_t layer, const Tensor& latent, const Tensor& k_rope, std::span<const int64_t> slots) {
  const auto T = static_cast<int64_t>(slots.size());
  const int64_t R = config_.latent_dim, rope_dim = config_.head_dim - R, width = mla_padded(config_.head_dim);
  const auto fits = [&](const Tensor& x, int64_t n) {
    return x.rank() == 2 && x.dtype() == DType::kF32 && x.size(0) == T && x.size(1) == n &&
           (n <= 1 || x.stride(1) == 1);
  };
  MR_CHECK(R > 0 && fits(latent, R) && fits(k_rope, rope_dim), "latent {}, k_rope {}, {} slots, rows of {} + {}",
           latent.shape().to_string(), k_rope.shape().to_string(), T, R, rope_dim);
  auto* const rows = static_cast<std::byte*>(keys_[layer].raw());
  const auto write = [&](const Tensor& x, int64_t at) {
    cast_rows({.from = x.data<float>(),
               .to = rows + at * dtype_bytes(config_.dtype),
               .slots = slots.data(),
               .n = T,
               .width = x.size(1),
               .from_stride = x.stride(0),
               .to_stride = width,
               .to_dtype = config_.dtype});
  };
  write(latent, 0);
  if (rope_dim > 0) write(k_rope, R);
}

KvRange KvCache::range(int64_t layer) const {
  MR_CHECK(is_floating(config_.dtype) && config_.latent_dim == 0, "a cache of {}", dtype_name(config_.dtype));
  const auto largest = [](const Tensor& tensor) {
    float most = 0;
    for (int64_t i = 0; i < tensor.numel(); ++i) most = std::max(most, std::abs(element_as_float(tensor, i)));
    return most;
  };
  return {largest(keys_[layer]), largest(values_[layer])};
}

void KvCache::copy_block(int64_t from, int64_t to) {
  MR_CHECK(from >= 0 && from < config_.blocks && to >= 0 && to < config_.blocks, "block {} to {} of {}", from, to,
           config_.blocks);
  for (std::vector<Tensor>* side : {&keys_, &values_})
    for (Tensor& layer : *side) {
      const Tensor source = layer.rows(from, from + 1);
      std::memcpy(layer.rows(to, to + 1).raw(), source.raw(), source.bytes());
    }
}

void kv_slots(const AttentionStep& step, int64_t block_tokens, std::span<int64_t> slots) {
  MR_CHECK(static_cast<int64_t>(slots.size()) == step.query_start.back(), "{} slots for {} tokens", slots.size(),
           step.query_start.back());
  kv_slots(SlotArgs{.query_start = step.query_start.data(),
                    .context_len = step.context_len.data(),
                    .block_table = step.block_table.data(),
                    .S = static_cast<int64_t>(step.context_len.size()),
                    .max_blocks = step.max_blocks,
                    .block_tokens = block_tokens,
                    .slots = slots.data()});
}

void paged_attention(const Tensor& q, const KvCache& cache, int64_t layer, const AttentionStep& step,
                     const AttentionParams& params, Tensor& out, Workspace& workspace) {
  check_heads(q, DType::kBf16);
  const auto S = static_cast<int64_t>(step.context_len.size());
  MR_CHECK(out.rank() == 2 && out.size(0) == q.size(0) && out.size(1) == q.size(1) * q.size(2) &&
               cache.config_.latent_dim == 0 && q.size(2) == cache.config_.head_dim &&
               static_cast<int64_t>(step.query_start.size()) == S + 1,
           "q {}, out {}, heads of {}, {} sequences", q.shape().to_string(), out.shape().to_string(),
           cache.config_.head_dim, S);
  MR_CHECK(params.alibi_slopes.empty() || static_cast<int64_t>(params.alibi_slopes.size()) == q.size(1),
           "{} slopes for {} heads", params.alibi_slopes.size(), q.size(1));
  MR_CHECK(params.q_factors.empty() || static_cast<int64_t>(params.q_factors.size()) == q.size(0),
           "{} factors for {} tokens", params.q_factors.size(), q.size(0));
  const Workspace::Scope scope(workspace);
  const int64_t max_context = step.max_blocks * cache.config_.block_tokens;
  const int64_t scratch_bytes = std::min(attention_scratch_bytes(q.size(1), cache.config_, max_context),
                                         workspace.capacity_bytes() - workspace.used_bytes());
  paged_attention(AttentionArgs{.q = q.raw(),
                                .k_cache = cache.keys_[layer].raw(),
                                .v_cache = cache.values_[layer].raw(),
                                .layout = cache.layout_,
                                .query_start = step.query_start.data(),
                                .context_len = step.context_len.data(),
                                .block_table = step.block_table.data(),
                                .out = out.raw(),
                                .alibi_slopes = params.alibi_slopes.empty() ? nullptr : params.alibi_slopes.data(),
                                .q_factors = params.q_factors.empty() ? nullptr : params.q_factors.data(),
                                .scratch = workspace.bytes(scratch_bytes),
                                .scratch_bytes = scratch_bytes,
                                .S = S,
                                .H = q.size(1),
                                .max_blocks = step.max_blocks,
                                .q_stride = q.stride(0),
                                .out_stride = out.stride(0),
                                .scale = params.scale,
                                .soft_cap = params.soft_cap,
                                .window = params.window,
                                .alibi_bf16 = params.alibi_bf16,
                                .q_dtype = q.dtype(),
                                .out_dtype = out.dtype(),
                                .k_scales = cache.head_scales(cache.scales_.keys, layer),
                                .v_scales = cache.head_scales(cache.scales_.values, layer)});
}

int64_t attention_scratch_bytes(int64_t heads, const KvCache::Config& config, int64_t max_context) {
  return Workspace::tensor_bytes(DType::kU8, {attention_scratch_bytes(heads, config.head_dim, max_context)});
}

}  // namespace millrace
