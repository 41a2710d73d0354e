#include <bit>
#include <cmath>
#include <cstring>

#include "models/layer_parts.h"
#include "ops/latent_attention.h"
#include "ops/linear.h"

namespace millrace {
namespace {

// `heads` heads from column `at` of the fused rows [T, width]: a view [T, heads, D].
Tensor heads_of(Tensor& rows, int64_t at, int64_t heads, int64_t head_dim) {
  return Tensor(static_cast<std::byte*>(rows.raw()) + at * dtype_bytes(rows.dtype()), rows.dtype(),
                {rows.size(0), heads, head_dim}, {rows.stride(0), head_dim, 1}, rows.owner());
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
  for (float& slope : slopes) slope *= static_cast<float>(gqa.alibi_factor);
  return slopes;
}

class GroupedQueryMixer : public Mixer {
 public:
  GroupedQueryMixer(const Gqa& gqa, const std::string& name, WeightSource& weights, Linear qkv, Linear out)
      : gqa_(gqa),
        rope_dims_(weights.spec().rope.dims),
        interleaved_(weights.spec().rope.layout == Rope::Layout::kInterleaved),
        qkv_(std::move(qkv)),
        out_(std::move(out)) {
    if (gqa.qk_norm) {
      q_norm_ = weights.rms_norm(name + "q_norm", weights.spec().norm_eps);
      k_norm_ = weights.rms_norm(name + "k_norm", weights.spec().norm_eps);
    }
    if (gqa.alibi != Alibi::kNone) slopes_ = alibi_slopes(gqa);
    const double scale = gqa.scale > 0 ? gqa.scale : 1 / std::sqrt(static_cast<double>(gqa.head_dim));
    params_ = {.scale = static_cast<float>(scale),
               .soft_cap = static_cast<float>(gqa.soft_cap),
               .window = gqa.window,
               .alibi_slopes = slopes_,
               .alibi_bf16 = gqa.alibi == Alibi::kBf16Unscaled};
  }

  void forward(const Tensor& x, int64_t layer, bool only_wanted, StepContext& step, Tensor& y,
               float add_scale) override {
    const Workspace::Scope scope(step.workspace);
    Tensor queries = rotates(x.size(0), step) ? project_rotated(x, layer, step) : project(x, layer, step);
    if (y.size(0) == 0) return;
    const bool alone = only_wanted && takes_alone(step.tile);
    if (alone) keep_rows(queries, step.tile.wanted_rows());
    const Tensor q = heads_of(queries, 0, gqa_.heads, gqa_.head_dim);
    Tensor mixed = step.workspace.tensor(out_.input_dtype(), {q.size(0), q_width()});
    AttentionParams params = params_;
    if (gqa_.logn_length > 0) params.q_factors = step.tile.logn_factors(gqa_.logn_length);
    paged_attention(q, step.cache, layer, alone ? step.tile.wanted_step() : step.tile.step(), params, mixed,
                    step.workspace);
    if (only_wanted && !alone) keep_rows(mixed, step.tile.wanted_rows());
    out_.forward(mixed, y, step.workspace, add_scale);
  }

  bool adds() const override { return out_.adds(); }
  DType input_dtype() const override { return qkv_.input_dtype(); }
  BranchInput integer_input() const override { return {qkv_.takes_integers(), qkv_.input_scale()}; }
  int64_t weight_bytes() const override { return qkv_.weight_bytes() + out_.weight_bytes(); }
  int64_t scratch_bytes(const StepLimits& limits) const override {
    const int64_t T = limits.tokens;
    return std::max(Workspace::rows_bytes(DType::kF32, T, qkv_width()),
                    Workspace::rows_bytes(DType::kBf16, T, q_width()) +
                        Workspace::rows_bytes(DType::kF32, T, 2 * kv_width())) +
           Workspace::tensor_bytes(out_.input_dtype(), {T, q_width()}) +
           std::max({attention_scratch_bytes(gqa_.heads, limits.cache, limits.max_context), qkv_.scratch_bytes(T),
                     out_.scratch_bytes(T)});
  }

 private:
  int64_t q_width() const { return gqa_.heads * gqa_.head_dim; }
  int64_t kv_width() const { return gqa_.kv_heads * gqa_.head_dim; }
  int64_t qkv_width() const { return q_width() + 2 * kv_width(); }

  // Whether only the wanted rows of a last layer attend: at most one of a sequence, for together they share reads.
  bool takes_alone(const DecoderTile& tile) const {
    const auto sequences = static_cast<int64_t>(tile.step().context_len.size());
    const auto wanted = static_cast<int64_t>(tile.wanted_rows().size());
    return wanted < tile.num_tokens() && wanted <= sequences && gqa_.logn_length == 0;
  }

  // Whether the product of so many rows rotates queries and keys itself, and queries come as attention rounds them.
  bool rotates(int64_t rows, const StepContext& step) const {
    return rope_dims_ == gqa_.head_dim && !interleaved_ && !gqa_.qk_norm && gqa_.logn_length == 0 &&
           step.cache.config().dtype == DType::kBf16 && qkv_.rotates(rows, gqa_.head_dim);
  }

  // Keys and values go to the cache; rows that begin with the queries are returned, in memory of the workspace.
  Tensor project(const Tensor& x, int64_t layer, StepContext& step) const {
    Tensor qkv = step.workspace.rows(DType::kF32, x.size(0), qkv_width());
    qkv_.forward(x, qkv, step.workspace);
    Tensor q = heads_of(qkv, 0, gqa_.heads, gqa_.head_dim);
    Tensor k = heads_of(qkv, q_width(), gqa_.kv_heads, gqa_.head_dim);
    prepare(q, k, step.tile);
    step.cache.write(layer, k, heads_of(qkv, q_width() + kv_width(), gqa_.kv_heads, gqa_.head_dim), step.tile.slots());
    return qkv;
  }
  Tensor project_rotated(const Tensor& x, int64_t layer, StepContext& step) const {
    Tensor q = step.workspace.rows(DType::kBf16, x.size(0), q_width());
    Tensor kv = step.workspace.rows(DType::kF32, x.size(0), 2 * kv_width());
    qkv_.forward_heads(x,
                       {.cos = step.tile.cos().data<float>(),
                        .sin = step.tile.sin().data<float>(),
                        .head_dim = gqa_.head_dim,
                        .q_heads = gqa_.heads,
                        .kv_heads = gqa_.kv_heads,
                        .q = q.data<bf16>(),
                        .kv = kv.data<float>(),
                        .q_stride = q.stride(0),
                        .kv_stride = kv.stride(0)},
                       step.workspace);
    step.cache.write(layer, heads_of(kv, 0, gqa_.kv_heads, gqa_.head_dim),
                     heads_of(kv, kv_width(), gqa_.kv_heads, gqa_.head_dim), step.tile.slots());
    return q;
  }

  // Norm and rotation of queries and keys, in place.
  void prepare(Tensor& q, Tensor& k, DecoderTile& tile) const {
    if (gqa_.qk_norm) q_norm_.heads(q), k_norm_.heads(k);
    if (rope_dims_ > 0) {
      rope(q, tile.cos(), tile.sin(), interleaved_);
      rope(k, tile.cos(), tile.sin(), interleaved_);
    }
  }

  const Gqa gqa_;
  const int64_t rope_dims_;
  const bool interleaved_;
  Linear qkv_, out_;
  Norm q_norm_, k_norm_;
  std::vector<float> slopes_;
  AttentionParams params_;
};

// The norms inside latent attention have an eps of their own class, whatever config.json says (DeepseekV2RMSNorm).
constexpr double kLatentNormEps = 1e-6;

LatentAttention::Params latent_params(const Mla& mla, bool batch_invariant) {
  using Form = LatentAttentionParams::Form;
  return {.heads = mla.heads,
          .latent_dim = mla.kv_lora_rank,
          .nope_dim = mla.nope_dim,
          .rope_dim = mla.rope_dim,
          .value_dim = mla.v_dim,
          .scale = static_cast<float>(mla.scale),
          .form = batch_invariant ? Form::kAbsorbed : Form::kByCost};
}

class LatentMixer : public Mixer {
 public:
  struct Products {
    Linear kv_a, out, q_a, q;  // q takes x, or q_a's output after its norm
  };
  LatentMixer(const Mla& mla, const std::string& name, WeightSource& weights, bool batch_invariant, Products products)
      : mla_(mla),
        interleaved_(weights.spec().rope.layout == Rope::Layout::kInterleaved),
        kv_norm_(weights.rms_norm(name + "kv_a_norm", kLatentNormEps)),
        attention_(weights.take(name + "kv_b.weight"), latent_params(mla, batch_invariant), weights.dtype()),
        kv_a_(std::move(products.kv_a)),
        out_(std::move(products.out)),
        q_a_(std::move(products.q_a)),
        q_(std::move(products.q)) {
    if (mla.q_lora_rank > 0) q_norm_ = weights.rms_norm(name + "q_a_norm", kLatentNormEps);
  }

  void forward(const Tensor& x, int64_t layer, bool only_wanted, StepContext& step, Tensor& y,
               float add_scale) override {
    const Workspace::Scope scope(step.workspace);
    write_latents(x, layer, step);
    if (y.size(0) == 0) return;
    const int64_t T = x.size(0);
    Tensor q = step.workspace.tensor(DType::kF32, {T, q_width()});
    query(x, step, q);
    Tensor mixed = step.workspace.tensor(out_.input_dtype(), {T, mla_.heads * mla_.v_dim});
    attention_.forward(heads_of(q, 0, mla_.heads, mla_.qk_dim()), step.cache, layer, step.tile.step(), mixed,
                       step.workspace);
    if (only_wanted) keep_rows(mixed, step.tile.wanted_rows());
    out_.forward(mixed, y, step.workspace, add_scale);
  }

  bool adds() const override { return out_.adds(); }
  DType input_dtype() const override { return kv_a_.input_dtype(); }
  int64_t weight_bytes() const override {
    return kv_a_.weight_bytes() + attention_.weight_bytes() + out_.weight_bytes() + q_.weight_bytes() +
           q_a_.weight_bytes();
  }
  int64_t scratch_bytes(const StepLimits& limits) const override {
    const int64_t T = limits.tokens;
    const int64_t latents = Workspace::tensor_bytes(DType::kF32, {T, mla_.cache_dim()}) + kv_a_.scratch_bytes(T);
    const int64_t mixing =
        Workspace::tensor_bytes(out_.input_dtype(), {T, mla_.heads * mla_.v_dim}) +
        std::max(attention_.scratch_bytes(limits.cache, T, limits.max_context), out_.scratch_bytes(T));
    return std::max(latents, Workspace::tensor_bytes(DType::kF32, {T, q_width()}) + std::max(query_bytes(T), mixing));
  }

 private:
  int64_t q_width() const { return mla_.heads * mla_.qk_dim(); }
  int64_t query_bytes(int64_t T) const {
    if (mla_.q_lora_rank == 0) return q_.scratch_bytes(T);
    return Workspace::tensor_bytes(DType::kF32, {T, mla_.q_lora_rank}) +
           Workspace::tensor_bytes(q_.input_dtype(), {T, mla_.q_lora_rank}) +
           std::max(q_a_.scratch_bytes(T), q_.scratch_bytes(T));
  }

  // Norm and rotation happen in place, between the product and the cache.
  void write_latents(const Tensor& x, int64_t layer, StepContext& step) {
    const Workspace::Scope scope(step.workspace);
    const int64_t T = x.size(0), width = mla_.cache_dim();
    Tensor row = step.workspace.tensor(DType::kF32, {T, width});
    kv_a_.forward(x, row, step.workspace);
    Tensor latent(row.raw(), DType::kF32, {T, mla_.kv_lora_rank}, {width, 1}, row.owner());
    kv_norm_(latent, latent);
    Tensor key = heads_of(row, mla_.kv_lora_rank, 1, mla_.rope_dim);
    rope(key, step.tile.cos(), step.tile.sin(), interleaved_);
    const Tensor k_rope(key.raw(), DType::kF32, {T, mla_.rope_dim}, {width, 1}, row.owner());
    step.cache.write_latents(layer, latent, k_rope, step.tile.slots());
  }

  // q [T, H * (nope + rope)], the rope part of each head turned.
  void query(const Tensor& x, StepContext& step, Tensor& q) {
    const Workspace::Scope scope(step.workspace);
    if (mla_.q_lora_rank == 0) {
      q_.forward(x, q, step.workspace);
    } else {
      Tensor low = step.workspace.tensor(DType::kF32, {x.size(0), mla_.q_lora_rank});
      Tensor normed = step.workspace.tensor(q_.input_dtype(), low.shape());
      q_a_.forward(x, low, step.workspace);
      q_norm_(low, normed);
      q_.forward(normed, q, step.workspace);
    }
    Tensor turning(q.data<float>() + mla_.nope_dim, DType::kF32, {q.size(0), mla_.heads, mla_.rope_dim},
                   {q_width(), mla_.qk_dim(), 1}, q.owner());
    rope(turning, step.tile.cos(), step.tile.sin(), interleaved_);
  }

  const Mla mla_;
  const bool interleaved_;
  Norm kv_norm_, q_norm_;
  LatentAttention attention_;
  Linear kv_a_, out_, q_a_, q_;
};

using Made = Result<std::unique_ptr<Mixer>>;

Made make(const Gqa& gqa, const std::string& name, WeightSource& weights, bool) {
  MR_ASSIGN_OR_RETURN(Linear qkv, weights.linear({name + "q", name + "k", name + "v"}, gqa.qkv_bias));
  MR_ASSIGN_OR_RETURN(Linear out, weights.linear({name + "out"}, gqa.out_bias));
  return Made(std::make_unique<GroupedQueryMixer>(gqa, name, weights, std::move(qkv), std::move(out)));
}

Made make(const Mla& mla, const std::string& name, WeightSource& weights, bool batch_invariant) {
  LatentMixer::Products products;
  MR_ASSIGN_OR_RETURN(products.kv_a, weights.linear({name + "kv_a"}, mla.bias));
  MR_ASSIGN_OR_RETURN(products.out, weights.linear({name + "out"}, mla.bias));
  if (mla.q_lora_rank > 0) {
    MR_ASSIGN_OR_RETURN(products.q_a, weights.linear({name + "q_a"}, mla.bias));
  }
  MR_ASSIGN_OR_RETURN(products.q, weights.linear({name + (mla.q_lora_rank > 0 ? "q_b" : "q")}, false));
  return Made(std::make_unique<LatentMixer>(mla, name, weights, batch_invariant, std::move(products)));
}

}  // namespace

Result<std::unique_ptr<Mixer>> make_mixer(const LayerSpec& layer, const std::string& name, WeightSource& weights,
                                          bool batch_invariant) {
  return std::visit([&](const auto& kind) { return make(kind, name, weights, batch_invariant); }, layer.attention);
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
