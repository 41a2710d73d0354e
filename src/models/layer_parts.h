// The two branches of a decoder layer. Made at load; then one forward at a time, on the step's thread. All scratch
// comes from the step's workspace.
#pragma once
#include <cstdint>
#include <memory>
#include <string>

#include "models/decoder_tile.h"
#include "models/weight_source.h"
#include "ops/attention.h"
#include "ops/workspace.h"
#include "tensor/tensor.h"

namespace millrace {

// What every part of a step shares.
struct StepContext {
  DecoderTile& tile;
  KvCache& cache;
  Workspace& workspace;
};

// Sizes that scratch is planned for.
struct StepLimits {
  int64_t tokens = 0;       // of a tile
  int64_t max_context = 0;  // of a sequence
  KvCache::Config cache;
};

// What a branch takes from the norm in front of it.
struct BranchInput {
  bool integers = false;  // Linear::takes_integers
  float scale = 0;        // of the integers: the tensor's; 0: per row
};

// Attention of one layer.
class Mixer {
 public:
  virtual ~Mixer() = default;
  // Writes the tile's keys and values into layer `layer` of the cache; then, for the tile's tokens or only its wanted
  // rows, y = attention(x), or y += add_scale * attention(x) where add_scale is not 0. x [T, C] in input_dtype(), or
  // integers as integer_input() says; y [rows, C] kF32. With no rows the cache is all that changes.
  virtual void forward(const Tensor& x, int64_t layer, bool only_wanted, StepContext& step, Tensor& y,
                       float add_scale) = 0;
  // Whether it takes an add_scale.
  virtual bool adds() const = 0;
  virtual DType input_dtype() const = 0;
  virtual BranchInput integer_input() const { return {}; }
  virtual int64_t scratch_bytes(const StepLimits& limits) const = 0;
  virtual int64_t weight_bytes() const = 0;
};
// `name`: "layers.3.attn.". `batch_invariant`: rows are bit-identical however sequences are cut into steps.
Result<std::unique_ptr<Mixer>> make_mixer(const LayerSpec& layer, const std::string& name, WeightSource& weights,
                                          bool batch_invariant);

// Feed-forward part of one layer.
class FeedForward {
 public:
  virtual ~FeedForward() = default;
  // x [T, C] in input_dtype(), or integers as integer_input() says; y [T, C] kF32, added to where add_scale is not 0.
  virtual void forward(const Tensor& x, Workspace& workspace, Tensor& y, float add_scale) = 0;
  // Whether it takes an add_scale.
  virtual bool adds() const = 0;
  virtual DType input_dtype() const = 0;
  virtual BranchInput integer_input() const { return {}; }
  virtual int64_t scratch_bytes(int64_t max_tokens) const = 0;
  virtual int64_t weight_bytes() const = 0;
};
// `name`: "layers.3.mlp."
Result<std::unique_ptr<FeedForward>> make_feed_forward(const LayerSpec& layer, const std::string& name,
                                                       WeightSource& weights);

// Moves the given rows (rising) to the front and drops the others.
void keep_rows(Tensor& rows, std::span<const int32_t> wanted);

}  // namespace millrace
