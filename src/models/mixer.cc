#include <bit>
#include <cmath>
#include <cstring>

#include "models/layer_parts.h"
#include "ops/linear.h"
#include "ops/rows.h"

namespace millrace {
namespace {

// `heads` heads from column `at` of the fused rows [T, width]: a view [T, heads, D].
Tensor heads_of(Tensor& rows, int64_t at, int64_t heads, int64_t head_dim) {
  return Tensor(rows.data<float>() + at, DType::kF32, {rows.size(0), heads, head_dim}, {rows.stride(0), head_dim, 1},
                rows.owner());
}

// Slopes of linear biases (Press et al., 2022): for n heads, n a power of two, 2^(-8/n), 2^(-16/n), ...; for other
// numbers those of the power of two below it, then every other one of twice that power.
std::vector<float> alibi_slopes(const Gqa& gqa) {
  const auto below = static_cast<int64_t>(std::bit_floor(static_cast<uint64_t>(gqa.heads)));
  std::vector<float> slopes;
  for (int64_t h = 1; h <= below; ++h)
    slopes.push_back(static_cast<float>(std::exp2(-8.0 * static_cast<double>(h) / static_cast<double>(below))));
  for (int64_t h = 1; static_cast<int64_t>(slopes.size()) < gqa.heads; h += 2)
    slopes.push_back(static_cast<float>(std::exp2(-4.0 * static_cast<double>(h) / static_cast<double>(below))));
  if (gqa.alibi == Alibi::kBf16Unscaled)
    for (float& slope : slopes) slope = to_float(to_bf16(slope));
  return slopes;
}

class GroupedQueryMixer : public Mixer {
 public:
  GroupedQueryMixer(const Gqa& gqa, const std::string& name, WeightSource& weights)
      : gqa_(gqa),
        rope_dims_(weights.spec().rope.dims),
        interleaved_(weights.spec().rope.layout == Rope::Layout::kInterleaved),
        qkv_(weights.linear({name + "q", name + "k", name + "v"}, gqa.qkv_bias)),
        out_(weights.linear({name + "out"}, gqa.out_bias)) {
    if (gqa.qk_norm) q_norm_ = weights.rms_norm(name + "q_norm"), k_norm_ = weights.rms_norm(name + "k_norm");
    if (gqa.alibi != Alibi::kNone) slopes_ = alibi_slopes(gqa);
    const double scale = gqa.scale > 0 ? gqa.scale : 1 / std::sqrt(static_cast<double>(gqa.head_dim));
    params_ = {.scale = static_cast<float>(scale),
               .soft_cap = static_cast<float>(gqa.soft_cap),
               .window = gqa.window,
               .alibi_slopes = slopes_,
               .alibi_bf16 = gqa.alibi == Alibi::kBf16Unscaled};
  }

  void forward(const Tensor& x, int64_t layer, bool only_wanted, StepContext& step, Tensor& y) override {
    const Workspace::Scope scope(step.workspace);
    const int64_t T = x.size(0);
    Tensor qkv = step.workspace.tensor(DType::kF32, {T, qkv_width()});
    qkv_.forward(x, qkv, step.workspace);
    Tensor q = heads_of(qkv, 0, gqa_.heads, gqa_.head_dim);
    Tensor k = heads_of(qkv, q_width(), gqa_.kv_heads, gqa_.head_dim);
    const Tensor v = heads_of(qkv, q_width() + kv_width(), gqa_.kv_heads, gqa_.head_dim);
    prepare(q, k, step.tile);
    step.cache.write(layer, k, v, step.tile.slots());
    if (y.size(0) == 0) return;
    Tensor mixed = step.workspace.tensor(out_.input_dtype(), {T, q_width()});
    paged_attention(q, step.cache, layer, step.tile.step(), params_, mixed, step.workspace);
    if (only_wanted) keep_rows(mixed, step.tile.wanted_rows());
    out_.forward(mixed, y, step.workspace);
  }

  DType input_dtype() const override { return qkv_.input_dtype(); }
  int64_t weight_bytes() const override { return qkv_.weight_bytes() + out_.weight_bytes(); }
  int64_t scratch_bytes(const StepLimits& limits) const override {
    const int64_t T = limits.tokens;
    return Workspace::tensor_bytes(DType::kF32, {T, qkv_width()}) +
           Workspace::tensor_bytes(out_.input_dtype(), {T, q_width()}) +
           std::max({attention_scratch_bytes(gqa_.heads, limits.cache, limits.max_context), qkv_.scratch_bytes(T),
                     out_.scratch_bytes(T)});
  }

 private:
  int64_t q_width() const { return gqa_.heads * gqa_.head_dim; }
  int64_t kv_width() const { return gqa_.kv_heads * gqa_.head_dim; }
  int64_t qkv_width() const { return q_width() + 2 * kv_width(); }

  // Norm, rotation and growth of queries and keys, in place.
  void prepare(Tensor& q, Tensor& k, DecoderTile& tile) const {
    if (gqa_.qk_norm) q_norm_.heads(q), k_norm_.heads(k);
    if (rope_dims_ > 0) {
      rope(q, tile.cos(), tile.sin(), interleaved_);
      rope(k, tile.cos(), tile.sin(), interleaved_);
    }
    if (gqa_.logn_length > 0) scale_tokens(q, tile.logn_factors(gqa_.logn_length));
  }

  const Gqa gqa_;
  const int64_t rope_dims_;
  const bool interleaved_;
  Linear qkv_, out_;
  Norm q_norm_, k_norm_;
  std::vector<float> slopes_;
  AttentionParams params_;
};

}  // namespace

std::unique_ptr<Mixer> make_mixer(const LayerSpec& layer, const std::string& name, WeightSource& weights) {
  return std::make_unique<GroupedQueryMixer>(std::get<Gqa>(layer.attention), name, weights);
}

void keep_rows(Tensor& rows, std::span<const int32_t> wanted) {
  const int64_t bytes = rows.stride(0) * dtype_bytes(rows.dtype());
  auto* data = static_cast<std::byte*>(rows.raw());
  for (size_t i = 0; i < wanted.size(); ++i)
    if (static_cast<size_t>(wanted[i]) != i)
      std::memcpy(data + static_cast<int64_t>(i) * bytes, data + wanted[i] * bytes, bytes);
  rows = rows.rows(0, static_cast<int64_t>(wanted.size()));
}

}  // namespace millrace
