#include "models/decoder.h"

#include <cmath>
#include <vector>

#include "models/families/names.h"
#include "models/layer_parts.h"
#include "models/weight_source.h"
#include "ops/linear.h"
#include "ops/norm.h"
#include "ops/rows.h"
#include "ops/workspace.h"

namespace millrace {
namespace {

struct Layer {
  Norm attention_norm, attention_post_norm, mlp_norm, mlp_post_norm;
  std::unique_ptr<Mixer> mixer;
  std::unique_ptr<FeedForward> mlp;
};

Result<Layer> make_layer(int64_t index, WeightSource& weights, bool batch_invariant) {
  const DecoderSpec& spec = weights.spec();
  const std::string name = fmt::format("layers.{}.", index);
  Layer layer;
  layer.attention_norm = weights.norm(name + "attn.norm");
  MR_ASSIGN_OR_RETURN(layer.mixer, make_mixer(spec.layers[index], name + "attn.", weights, batch_invariant));
  if (spec.branch_norms) layer.attention_post_norm = weights.norm(name + "attn.post_norm");
  if (spec.residual != Residual::kParallel) layer.mlp_norm = weights.norm(name + "mlp.norm");
  MR_ASSIGN_OR_RETURN(layer.mlp, make_feed_forward(spec.layers[index], name + "mlp.", weights));
  if (spec.branch_norms) layer.mlp_post_norm = weights.norm(name + "mlp.post_norm");
  return layer;
}

float rounded_to(DType dtype, double value) {
  const auto single = static_cast<float>(value);
  if (dtype == DType::kBf16) return to_float(to_bf16(single));
  return dtype == DType::kF16 ? to_float(to_f16(single)) : single;
}

// Each row divided by its Euclidean length, in the tensor's own type (float64 as float32).
Tensor normalized_rows(const Tensor& file) {
  const Tensor source = file.dtype() == DType::kF64 ? converted(file, DType::kF32) : file;
  Tensor out = Tensor::empty(source.dtype(), source.shape()), row = Tensor::empty(DType::kF32, {1, source.size(1)});
  for (int64_t r = 0; r < source.size(0); ++r) {
    convert(source.rows(r, r + 1), row);
    double squares = 0;
    for (int64_t c = 0; c < row.numel(); ++c)
      squares += static_cast<double>(row.data<float>()[c]) * row.data<float>()[c];
    const double length = std::max(std::sqrt(squares), 1e-12);
    for (int64_t c = 0; c < row.numel(); ++c) row.data<float>()[c] = static_cast<float>(row.data<float>()[c] / length);
    Tensor place = out.rows(r, r + 1);
    convert(row, place);
  }
  return out;
}

}  // namespace

class Decoder::Impl {
 public:
  Impl(DecoderSpec spec, const DecoderOptions& options)
      : spec_(std::move(spec)),
        options_(options),
        embedding_scale_(rounded_to(options.dtype, spec_.embedding_scale)),
        tile_(spec_.rope, options.tile_tokens) {}

  Status load(DecoderTensors tensors, const Progress& progress) {
    WeightSource weights(spec_, options_.dtype, options_.quantization, std::move(tensors), options_.kept);
    MR_RETURN_IF_ERROR(load_ends(weights));
    for (size_t i = 0; i < spec_.layers.size(); ++i) {
      MR_ASSIGN_OR_RETURN(Layer layer, make_layer(static_cast<int64_t>(i), weights, options_.batch_invariant));
      layers_.push_back(std::move(layer));
      if (progress) progress(static_cast<int64_t>(i) + 1);
    }
    x_dtype_ = input_dtype();
    workspace_ = std::make_unique<Workspace>(workspace_need());
    return {};
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
    int64_t bytes = head_.weight_bytes() + (spec_.tie_word_embeddings ? 0 : table_.bytes()) + positions_.bytes();
    for (const Layer& layer : layers_) bytes += layer.mixer->weight_bytes() + layer.mlp->weight_bytes();
    return bytes;
  }

 private:
  // Embedding, final norm, head. A tied embedding is read from the packed head.
  Status load_ends(WeightSource& weights) {
    final_norm_ = weights.norm("final_norm");
    if (spec_.learned_positions > 0) positions_ = table("pos_embed.weight", weights);
    if (spec_.tie_word_embeddings) {
      MR_ASSIGN_OR_RETURN(head_, weights.linear({"embed"}, false));
      return {};
    }
    if (spec_.normalized_head) {
      const Tensor rows[] = {normalized_rows(weights.take("lm_head.weight"))};
      head_ = Linear::pack(rows, {}, options_.dtype);
    } else {
      MR_ASSIGN_OR_RETURN(head_, weights.linear({"lm_head"}, false));
    }
    table_ = table("embed.weight", weights);
    return {};
  }

  // What every part takes without loss.
  DType input_dtype() const {
    for (const Layer& layer : layers_)
      if (layer.mixer->input_dtype() == DType::kF32 || layer.mlp->input_dtype() == DType::kF32) return DType::kF32;
    return DType::kBf16;
  }

  Tensor table(const std::string& name, WeightSource& weights) const {
    constexpr int64_t kPieceBytes = int64_t{16} << 20;
    const Tensor file = weights.take(name);
    Tensor table = page_zeros(options_.dtype, file.shape());
    const int64_t rows = file.size(0),
                  step = std::max<int64_t>(1, kPieceBytes * rows / std::max<int64_t>(1, file.bytes()));
    for (int64_t row = 0; row < rows; row += step) {
      Tensor piece = table.rows(row, std::min(rows, row + step));
      convert(file.rows(row, row + piece.size(0)), piece);
      if (step < rows) weights.release();
    }
    return table;
  }

  bool parallel() const { return spec_.residual != Residual::kSequential; }

  // The residual stream, a norm's output, the branches' outputs, and what the greediest part takes beside them.
  int64_t workspace_need() const {
    const int64_t T = options_.tile_tokens, C = spec_.hidden_size;
    const StepLimits limits{T, options_.max_context, cache_config(spec_, options_.dtype, 1, 16)};
    int64_t most = head_.scratch_bytes(T) + Workspace::tensor_bytes(head_.input_dtype(), {T, C});
    for (const Layer& layer : layers_)
      most = std::max({most, layer.mixer->scratch_bytes(limits), layer.mlp->scratch_bytes(T)});
    return (parallel() ? 3 : 2) * Workspace::tensor_bytes(DType::kF32, {T, C}) + input_bytes(T) + most;
  }

  // One tile's values. h: [T, C], the residual stream. x: [T, C], a norm's output in the type of the next product, lies
  // in x_memory. y and z: [T, C], the branches' outputs; z only where branches run side by side.
  struct Streams {
    Tensor h, y, z, x;
    std::byte* x_memory;
    bool added = false;  // the last output is in h, not in y
    void keep(std::span<const int32_t> wanted) {
      const auto rows = static_cast<int64_t>(wanted.size());
      keep_rows(h, wanted);
      keep_rows(x, wanted);
      y = y.rows(0, rows);
      if (z.raw()) z = z.rows(0, rows);
    }
  };
  Streams streams(int64_t T) {
    const Shape shape = {T, spec_.hidden_size};
    Streams s{workspace_->tensor(DType::kF32, shape), workspace_->tensor(DType::kF32, shape), Tensor(), Tensor(),
              workspace_->bytes(input_bytes(T))};
    if (parallel()) s.z = workspace_->tensor(DType::kF32, shape);
    return s;
  }

  // Of x, whatever a branch takes.
  int64_t input_bytes(int64_t T) const {
    const int64_t C = spec_.hidden_size;
    return Workspace::tensor_bytes(DType::kU8, {std::max(4 * T * C, Linear::integer_rows_bytes(T, C))});
  }
  // x, as wide as h is high, for a branch that takes `input`.
  void shape_input(Streams& s, const BranchInput& input) const {
    const Shape shape = {s.h.size(0), spec_.hidden_size};
    s.x = input.integers ? Linear::integer_rows(s.x_memory, shape[0], shape[1]) : Tensor(s.x_memory, x_dtype_, shape);
  }
  // Of the first norm; both branches take its output where there is no other.
  BranchInput first_input(const Layer& layer) const {
    const BranchInput mixer = layer.mixer->integer_input(), mlp = layer.mlp->integer_input();
    const bool one = spec_.residual == Residual::kParallel;
    return !one || (mixer.integers == mlp.integers && mixer.scale == mlp.scale) ? mixer : BranchInput{};
  }

  void run_tile(KvCache& cache, Tensor& hidden) {
    const Workspace::Scope scope(*workspace_);
    Streams s = streams(tile_.num_tokens());
    embed(s.h, s.y);
    shape_input(s, first_input(layers_[0]));
    layers_[0].attention_norm(s.h, s.x, first_input(layers_[0]).scale);
    for (size_t i = 0; i < layers_.size(); ++i) {
      const bool last = i + 1 == layers_.size();
      if (!run_layer(static_cast<int64_t>(i), last, cache, s)) return;
      if (last) break;
      const BranchInput input = first_input(layers_[i + 1]);
      shape_input(s, input);
      norm_sum(layers_[i + 1].attention_norm, s, s.x, input.scale);
    }
    Tensor wanted = hidden.rows(tile_.wanted_before(), tile_.wanted_before() + s.h.size(0));
    norm_sum(final_norm_, s, wanted, 0);
  }

  // h = scale * embedding of the tokens, plus that of their positions where there is a table; y is scratch.
  void embed(Tensor& h, Tensor& y) {
    if (spec_.tie_word_embeddings)
      head_.gather(tile_.tokens(), embedding_scale_, h);
    else
      embedding(tile_.tokens(), table_, embedding_scale_, h);
    if (spec_.learned_positions == 0) return;
    embedding(tile_.positions(), positions_, 1, y);
    add_scaled(h, y, 1);
  }

  // Whether a branch adds its output to h itself: branches follow each other, with nothing between output and h.
  bool adds(const auto& branch) const {
    return !parallel() && !spec_.branch_norms && residual_scale() != 0 && branch.adds();
  }
  float residual_scale() const { return static_cast<float>(spec_.residual_scale); }

  // x = the norm of h, after what is still to be added to it.
  void norm_sum(const Norm& norm, Streams& s, Tensor& x, float x_scale) const {
    s.added ? norm(s.h, x, x_scale) : norm.add(s.h, s.y, residual_scale(), x, x_scale);
  }

  // Leaves in y what is still to be added to h, unless that is done. Only the wanted rows go on from the last layer's
  // attention; false when there are none, so that the tile ends with its keys and values written.
  bool run_layer(int64_t index, bool last, KvCache& cache, Streams& s) {
    Layer& layer = layers_[index];
    StepContext step{tile_, cache, *workspace_};
    const auto wanted = static_cast<int64_t>(tile_.wanted_rows().size());
    s.added = !last && adds(*layer.mixer);
    Tensor mixed = s.added ? s.h : last ? s.y.rows(0, wanted) : s.y;
    layer.mixer->forward(s.x, index, last, step, mixed, s.added ? residual_scale() : 0);
    if (last && wanted == 0) return false;
    if (last) s.keep(tile_.wanted_rows());
    if (spec_.branch_norms) layer.attention_post_norm(s.y, s.y);
    run_feed_forward(layer, s);
    if (spec_.branch_norms) layer.mlp_post_norm(s.y, s.y);
    return true;
  }

  void run_feed_forward(Layer& layer, Streams& s) {
    const BranchInput input = layer.mlp->integer_input();
    if (spec_.residual != Residual::kParallel) shape_input(s, input);
    if (!parallel()) {
      norm_sum(layer.mlp_norm, s, s.x, input.scale);
      s.added = adds(*layer.mlp);
      return layer.mlp->forward(s.x, *workspace_, s.added ? s.h : s.y, s.added ? residual_scale() : 0);
    }
    if (spec_.residual == Residual::kParallelTwoNorms) layer.mlp_norm(s.h, s.x, input.scale);
    layer.mlp->forward(s.x, *workspace_, s.z, 0);
    add_scaled(s.y, s.z, 1);
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
  const float embedding_scale_;
  DecoderTile tile_;
  std::vector<Layer> layers_;
  Norm final_norm_;
  Linear head_;
  Tensor table_;      // [V, C], unless tied
  Tensor positions_;  // [positions, C], or no memory
  DType x_dtype_ = DType::kF32;
  std::unique_ptr<Workspace> workspace_;
};

Decoder::Decoder(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Decoder::~Decoder() = default;

namespace {

std::string shape_of(const QuantizedMatrix& matrix) { return sizes_to_string({matrix.rows, matrix.columns}); }

Status check_tensor(const TensorNeed& need, const DecoderTensors& weights) {
  if (const auto matrix = weights.quantized.find(need.name); matrix != weights.quantized.end()) {
    if (shape_of(matrix->second) == sizes_to_string(need.shape)) return {};
    return invalid_argument("{} has shape {}, wanted {}", need.name, shape_of(matrix->second),
                            sizes_to_string(need.shape));
  }
  const auto found = weights.dense.find(need.name);
  if (found == weights.dense.end()) return invalid_argument("the weights have no tensor {}", need.name);
  if (!holds_shape(found->second, Shape(need.shape)))
    return invalid_argument("{} has shape {}, wanted {}", need.name, found->second.shape().to_string(),
                            sizes_to_string(need.shape));
  if (!is_floating(found->second.dtype()))
    return invalid_argument("{} has type {}, wanted a floating type", need.name, dtype_name(found->second.dtype()));
  return {};
}

Status check_spec(const DecoderSpec& spec, const DecoderOptions& options) {
  for (const LayerSpec& layer : spec.layers)
    if (const Gqa* gqa = std::get_if<Gqa>(&layer.attention); gqa && gqa->head_dim > kMaxHeadDim)
      return unimplemented("heads of {} elements: attention serves up to {}", gqa->head_dim, kMaxHeadDim);
  if (spec.learned_positions > 0 && options.max_context > spec.learned_positions)
    return invalid_argument("sequences of {} tokens are asked for; the checkpoint has a table of {} positions",
                            options.max_context, spec.learned_positions);
  return {};
}

}  // namespace

Result<std::unique_ptr<Decoder>> Decoder::create(DecoderSpec spec, DecoderTensors weights,
                                                 const DecoderOptions& options, const Progress& progress) {
  for (const TensorNeed& need : needed_tensors(spec)) MR_RETURN_IF_ERROR(check_tensor(need, weights));
  MR_RETURN_IF_ERROR(check_spec(spec, options));
  auto impl = std::make_unique<Impl>(std::move(spec), options);
  MR_RETURN_IF_ERROR(impl->load(std::move(weights), progress));
  return std::unique_ptr<Decoder>(new Decoder(std::move(impl)));
}

KvCache::Config Decoder::cache_config(const DecoderSpec& spec, KvType type, int64_t blocks, int64_t block_tokens) {
  KvCache::Config config{.layers = static_cast<int64_t>(spec.layers.size()),
                         .blocks = blocks,
                         .block_tokens = block_tokens,
                         .dtype = type.dtype,
                         .token_scales = type.token_scales};
  if (const Mla* mla = std::get_if<Mla>(&spec.layers.front().attention)) {
    config.kv_heads = 1;
    config.head_dim = mla->cache_dim();
    config.latent_dim = mla->kv_lora_rank;
    return config;
  }
  const Gqa& gqa = std::get<Gqa>(spec.layers.front().attention);
  config.kv_heads = gqa.kv_heads;
  config.head_dim = gqa.head_dim;
  return config;
}

void Decoder::forward(const Batch& batch, KvCache& cache, Tensor& hidden) { impl_->forward(batch, cache, hidden); }
void Decoder::logits(const Tensor& hidden, Tensor& logits) { impl_->logits(hidden, logits); }
const DecoderSpec& Decoder::spec() const { return impl_->spec(); }
int64_t Decoder::weight_bytes() const { return impl_->weight_bytes(); }
int64_t Decoder::workspace_bytes() const { return impl_->workspace_bytes(); }

}  // namespace millrace
