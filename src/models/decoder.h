// A decoder-only language model assembled from a DecoderSpec: embedding, layers of attention and MLP, final norm, head.
// Activations are float32 between operations; matrix inputs take the weights' type. One thread calls; operations spread
// over the compute pool. All memory is planned when the decoder is made: a step allocates nothing.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "base/result.h"
#include "models/batch.h"
#include "models/families/spec.h"
#include "models/weight_source.h"
#include "ops/attention.h"
#include "tensor/tensor.h"

namespace millrace {

struct DecoderOptions {
  DType dtype = DType::kF32;                         // of the weights: kF32, kBf16 or kF16
  LinearFormat quantization = LinearFormat::kDense;  // kW8A8 or kW8A16: dense matrices of layers become int8
  int64_t max_context = 4096;                        // longest sequence in tokens
  bool batch_invariant = false;   // latent attention too gives bit-identical rows however sequences are cut into steps
  PackedWeights* kept = nullptr;  // matrices packed before, and where new ones go; used by create() alone
  int64_t tile_tokens = 1024;     // tokens that run through the layers together; longer batches run tile by tile
};

class Decoder {
 public:
  using Progress = std::function<void(int64_t layers_done)>;
  // `weights`: canonical names (models/families/names.h) to tensors of the spec's shapes, any floating dtype, or to
  // matrices of integers. They are packed and released one by one.
  static Result<std::unique_ptr<Decoder>> create(DecoderSpec spec, DecoderTensors weights,
                                                 const DecoderOptions& options, const Progress& progress = {});
  ~Decoder();
  Decoder(const Decoder&) = delete;
  Decoder& operator=(const Decoder&) = delete;

  // A cache that this decoder reads and writes, for `blocks` blocks of `block_tokens` tokens. With latent attention the
  // type is the decoder's own; else any.
  static KvCache::Config cache_config(const DecoderSpec& spec, KvType type, int64_t blocks, int64_t block_tokens);

  // Runs the batch through all layers: writes the new tokens' keys and values into `cache`, and the final norm's output
  // at row batch.logit_rows[i] into row i of `hidden` [at least logit_rows.size(), C] float32.
  // Requires: ids below vocab_size, positions below max_context, block tables that cover context_len.
  void forward(const Batch& batch, KvCache& cache, Tensor& hidden);
  // logits[r] = head(hidden[r]), scaled and capped as the spec says. hidden [R, C], logits [R, V], R <= tile_tokens.
  void logits(const Tensor& hidden, Tensor& logits);

  const DecoderSpec& spec() const;
  int64_t weight_bytes() const;     // of the packed weights and the embedding table
  int64_t workspace_bytes() const;  // of activations

 private:
  class Impl;
  explicit Decoder(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace millrace
