#include "models/decoder.h"

#include <cmath>
#include <cstring>
#include <vector>

#include "models/decoder_tile.h"
#include "models/families/names.h"
#include "ops/linear.h"
#include "ops/norm.h"
#include "ops/rows.h"
#include "ops/workspace.h"

namespace millrace {
namespace {

GluActivation glu_activation(Activation activation) {
  switch (activation) {
    case Activation::kSilu:
      return GluActivation::kSilu;
    case Activation::kGelu:
      return GluActivation::kGelu;
    case Activation::kGeluTanh:
      return GluActivation::kGeluTanh;
    case Activation::kRelu:
      return GluActivation::kRelu;
  }
  return GluActivation::kSilu;
}

// Hands out the canonical tensors, each once.
class Weights {
 public:
  explicit Weights(std::map<std::string, Tensor> tensors) : tensors_(std::move(tensors)) {}
  Tensor take(const std::string& name) {
    const auto found = tensors_.find(name);
    MR_CHECK(found != tensors_.end(), "no tensor {}", name);
    Tensor tensor = std::move(found->second);
    tensors_.erase(found);
    return tensor;
  }
  // Stacks the named modules' weights by rows, with their biases where `bias` is set.
  Linear linear(const std::vector<std::string>& modules, bool bias, DType dtype) {
    std::vector<Tensor> parts, biases;
    for (const std::string& module : modules) {
      parts.push_back(take(module + ".weight"));
      if (bias) biases.push_back(take(module + ".bias"));
    }
    return Linear::pack(parts, biases, dtype);
  }

 private:
  std::map<std::string, Tensor> tensors_;
};

struct Layer {
  Norm attention_norm, mlp_norm;
  Linear qkv, out, gate_up, down;
  Gqa attention;
  Glu mlp;
  AttentionParams params;

  int64_t qkv_width() const { return (attention.heads + 2 * attention.kv_heads) * attention.head_dim; }
};

Norm make_norm(const DecoderSpec& spec, Weights& weights, const std::string& name) {
  const auto kind = spec.norm == NormKind::kRms ? Norm::Kind::kRms : Norm::Kind::kLayer;
  return Norm(kind, weights.take(name + ".weight"), Tensor(), spec.norm_eps);
}

AttentionParams attention_params(const Gqa& gqa) {
  const double scale = gqa.scale > 0 ? gqa.scale : 1 / std::sqrt(static_cast<double>(gqa.head_dim));
  return {.scale = static_cast<float>(scale), .soft_cap = static_cast<float>(gqa.soft_cap), .window = gqa.window};
}

Layer make_layer(const DecoderSpec& spec, int64_t index, Weights& weights, DType dtype) {
  const std::string name = fmt::format("layers.{}.", index);
  Layer layer;
  layer.attention = std::get<Gqa>(spec.layers[index].attention);
  layer.mlp = std::get<Glu>(spec.layers[index].mlp);
  layer.params = attention_params(layer.attention);
  layer.attention_norm = make_norm(spec, weights, name + "attn.norm");
  layer.qkv = weights.linear({name + "attn.q", name + "attn.k", name + "attn.v"}, layer.attention.qkv_bias, dtype);
  layer.out = weights.linear({name + "attn.out"}, layer.attention.out_bias, dtype);
  layer.mlp_norm = make_norm(spec, weights, name + "mlp.norm");
  layer.gate_up = weights.linear({name + "mlp.gate", name + "mlp.up"}, layer.mlp.bias, dtype);
  layer.down = weights.linear({name + "mlp.down"}, layer.mlp.bias, dtype);
  return layer;
}

// `heads` heads from column `at` of the fused rows [T, width]: a view [T, heads, D].
Tensor heads_of(Tensor& rows, int64_t at, int64_t heads, int64_t head_dim) {
  return Tensor(rows.data<float>() + at, DType::kF32, {rows.size(0), heads, head_dim}, {rows.stride(0), head_dim, 1},
                rows.owner());
}

// Moves the given rows (rising) to the front.
void keep_rows(Tensor& rows, std::span<const int32_t> wanted) {
  const int64_t bytes = rows.stride(0) * dtype_bytes(rows.dtype());
  auto* data = static_cast<std::byte*>(rows.raw());
  for (size_t i = 0; i < wanted.size(); ++i)
    if (static_cast<size_t>(wanted[i]) != i)
      std::memcpy(data + static_cast<int64_t>(i) * bytes, data + wanted[i] * bytes, bytes);
  rows = rows.rows(0, static_cast<int64_t>(wanted.size()));
}

}  // namespace

class Decoder::Impl {
 public:
  Impl(DecoderSpec spec, Weights weights, const DecoderOptions& options, const Progress& progress)
      : spec_(std::move(spec)), options_(options), tile_(spec_.rope, options.tile_tokens) {
    load_ends(weights);
    for (size_t i = 0; i < spec_.layers.size(); ++i) {
      layers_.push_back(make_layer(spec_, static_cast<int64_t>(i), weights, options_.dtype));
      if (progress) progress(static_cast<int64_t>(i) + 1);
    }
    workspace_ = std::make_unique<Workspace>(workspace_need());
  }

  void forward(const Batch& batch, KvCache& cache, Tensor& hidden) {
    for (int64_t begin = 0; begin < batch.num_tokens(); begin += options_.tile_tokens) {
      const int64_t end = std::min(begin + options_.tile_tokens, batch.num_tokens());
      tile_.assign(batch, begin, end, cache.config().block_tokens);
      run_tile(cache, hidden);
    }
  }

  void logits(const Tensor& hidden, Tensor& logits) {
    const Workspace::Scope scope(*workspace_);
    const Tensor x = as_input(hidden, head_);
    head_.forward(x, logits, *workspace_);
    if (spec_.logit_scale != 1) scale_values(logits, static_cast<float>(spec_.logit_scale));
    if (spec_.final_logit_soft_cap > 0) soft_cap(logits, static_cast<float>(spec_.final_logit_soft_cap));
  }

  const DecoderSpec& spec() const { return spec_; }
  int64_t workspace_bytes() const { return workspace_->capacity_bytes(); }
  int64_t weight_bytes() const {
    int64_t bytes = head_.weight_bytes() + (spec_.tie_word_embeddings ? 0 : table_.bytes());
    for (const Layer& layer : layers_)
      bytes += layer.qkv.weight_bytes() + layer.out.weight_bytes() + layer.gate_up.weight_bytes() +
               layer.down.weight_bytes();
    return bytes;
  }

 private:
  // Embedding, final norm, head. A tied embedding is read from the packed head.
  void load_ends(Weights& weights) {
    final_norm_ = make_norm(spec_, weights, "final_norm");
    if (spec_.tie_word_embeddings) {
      head_ = weights.linear({"embed"}, false, options_.dtype);
      return;
    }
    head_ = weights.linear({"lm_head"}, false, options_.dtype);
    const Tensor file = weights.take("embed.weight").to_contiguous();
    table_ = Tensor::empty(options_.dtype, file.shape());
    convert(file, table_);
  }

  int64_t workspace_need() const {
    const int64_t T = options_.tile_tokens, C = spec_.hidden_size;
    int64_t layer_need = head_.scratch_bytes(T) + Workspace::tensor_bytes(head_.input_dtype(), {T, C});
    for (const Layer& layer : layers_) layer_need = std::max(layer_need, layer_bytes(layer));
    return 2 * Workspace::tensor_bytes(DType::kF32, {T, C}) + Workspace::tensor_bytes(DType::kF32, {T, C}) + layer_need;
  }
  // What attention() and mlp() take beside the residual stream, the norm's output and the branch's output.
  int64_t layer_bytes(const Layer& layer) const {
    const int64_t T = options_.tile_tokens, F = layer.mlp.hidden;
    const Gqa& gqa = layer.attention;
    const int64_t attention =
        Workspace::tensor_bytes(DType::kF32, {T, layer.qkv_width()}) +
        Workspace::tensor_bytes(layer.out.input_dtype(), {T, gqa.heads * gqa.head_dim}) +
        std::max({attention_scratch_bytes(gqa.heads, cache_config(spec_, options_.dtype, 1, 16), options_.max_context),
                  layer.qkv.scratch_bytes(T), layer.out.scratch_bytes(T)});
    const int64_t mlp = Workspace::tensor_bytes(layer.down.input_dtype(), {T, F}) +
                        std::max(layer.gate_up.gated_scratch_bytes(T), layer.down.scratch_bytes(T));
    return std::max(attention, mlp);
  }

  // h: [T, C], the residual stream. x: [T, C], a norm's output in the type of the next product. y: [T, C], a branch's
  // output.
  void run_tile(KvCache& cache, Tensor& hidden) {
    const Workspace::Scope scope(*workspace_);
    const int64_t T = tile_.num_tokens(), C = spec_.hidden_size;
    Tensor h = workspace_->tensor(DType::kF32, {T, C});
    Tensor x = workspace_->tensor(layers_[0].qkv.input_dtype(), {T, C});
    Tensor y = workspace_->tensor(DType::kF32, {T, C});
    embed(h);
    layers_[0].attention_norm(h, x);
    const auto residual_scale = static_cast<float>(spec_.residual_scale);
    for (size_t i = 0; i < layers_.size(); ++i) {
      const bool last = i + 1 == layers_.size();
      if (!attention(layers_[i], static_cast<int64_t>(i), cache, last, h, x, y)) return;
      layers_[i].mlp_norm.add(h, y, residual_scale, x);
      mlp(layers_[i], x, y);
      if (!last) layers_[i + 1].attention_norm.add(h, y, residual_scale, x);
    }
    Tensor wanted = hidden.rows(tile_.wanted_before(), tile_.wanted_before() + h.size(0));
    final_norm_.add(h, y, residual_scale, wanted);
  }

  void embed(Tensor& h) {
    const auto scale = static_cast<float>(spec_.embedding_scale);
    if (spec_.tie_word_embeddings)
      head_.gather(tile_.tokens(), scale, h);
    else
      embedding(tile_.tokens(), table_, scale, h);
  }

  // y = attention(x). Only the wanted rows go on from the last layer's attention: h, x and y shrink to them. False when
  // none are wanted, so that the tile ends with its keys and values written.
  bool attention(const Layer& layer, int64_t index, KvCache& cache, bool last, Tensor& h, Tensor& x, Tensor& y) {
    const Workspace::Scope scope(*workspace_);
    const Gqa& gqa = layer.attention;
    const int64_t T = tile_.num_tokens(), q_width = gqa.heads * gqa.head_dim, kv_width = gqa.kv_heads * gqa.head_dim;
    Tensor qkv = workspace_->tensor(DType::kF32, {T, layer.qkv_width()});
    layer.qkv.forward(x, qkv, *workspace_);
    Tensor q = heads_of(qkv, 0, gqa.heads, gqa.head_dim);
    Tensor k = heads_of(qkv, q_width, gqa.kv_heads, gqa.head_dim);
    const Tensor v = heads_of(qkv, q_width + kv_width, gqa.kv_heads, gqa.head_dim);
    if (spec_.rope.dims > 0) {
      const bool interleaved = spec_.rope.layout == Rope::Layout::kInterleaved;
      rope(q, tile_.cos(), tile_.sin(), interleaved);
      rope(k, tile_.cos(), tile_.sin(), interleaved);
    }
    cache.write(index, k, v, tile_.slots());
    if (last && tile_.wanted_rows().empty()) return false;
    Tensor mixed = workspace_->tensor(layer.out.input_dtype(), {T, q_width});
    paged_attention(q, cache, index, tile_.step(), layer.params, mixed, *workspace_);
    if (last) {
      keep_rows(mixed, tile_.wanted_rows());
      keep_rows(h, tile_.wanted_rows());
      x = x.rows(0, h.size(0));
      y = y.rows(0, h.size(0));
    }
    layer.out.forward(mixed, y, *workspace_);
    return true;
  }

  void mlp(const Layer& layer, const Tensor& x, Tensor& y) {
    const Workspace::Scope scope(*workspace_);
    Tensor gated = workspace_->tensor(layer.down.input_dtype(), {x.size(0), layer.mlp.hidden});
    layer.gate_up.forward_gated(x, glu_activation(layer.mlp.activation), gated, *workspace_);
    layer.down.forward(gated, y, *workspace_);
  }

  // x in the type that `linear` takes without conversion of its own.
  Tensor as_input(const Tensor& x, const Linear& linear) {
    if (x.dtype() == linear.input_dtype()) return x;
    Tensor out = workspace_->tensor(linear.input_dtype(), x.shape());
    convert(x, out);
    return out;
  }

  const DecoderSpec spec_;
  const DecoderOptions options_;
  DecoderTile tile_;
  std::vector<Layer> layers_;
  Norm final_norm_;
  Linear head_;
  Tensor table_;  // [V, C], unless tied
  std::unique_ptr<Workspace> workspace_;
};

Decoder::Decoder(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Decoder::~Decoder() = default;

Result<std::unique_ptr<Decoder>> Decoder::create(DecoderSpec spec, std::map<std::string, Tensor> weights,
                                                 const DecoderOptions& options, const Progress& progress) {
  for (const TensorNeed& need : needed_tensors(spec)) {
    const auto found = weights.find(need.name);
    if (found == weights.end()) return invalid_argument("the weights have no tensor {}", need.name);
    if (!(found->second.shape() == Shape(need.shape)))
      return invalid_argument("{} has shape {}, wanted {}", need.name, found->second.shape().to_string(),
                              sizes_to_string(need.shape));
    if (!is_floating(found->second.dtype()))
      return invalid_argument("{} has type {}, wanted a floating type", need.name, dtype_name(found->second.dtype()));
  }
  return std::unique_ptr<Decoder>(
      new Decoder(std::make_unique<Impl>(std::move(spec), Weights(std::move(weights)), options, progress)));
}

KvCache::Config Decoder::cache_config(const DecoderSpec& spec, DType dtype, int64_t blocks, int64_t block_tokens) {
  const Gqa& gqa = std::get<Gqa>(spec.layers.front().attention);
  return {.layers = static_cast<int64_t>(spec.layers.size()),
          .blocks = blocks,
          .block_tokens = block_tokens,
          .kv_heads = gqa.kv_heads,
          .head_dim = gqa.head_dim,
          .dtype = dtype};
}

void Decoder::forward(const Batch& batch, KvCache& cache, Tensor& hidden) { impl_->forward(batch, cache, hidden); }
void Decoder::logits(const Tensor& hidden, Tensor& logits) { impl_->logits(hidden, logits); }
const DecoderSpec& Decoder::spec() const { return impl_->spec(); }
int64_t Decoder::weight_bytes() const { return impl_->weight_bytes(); }
int64_t Decoder::workspace_bytes() const { return impl_->workspace_bytes(); }

}  // namespace millrace
