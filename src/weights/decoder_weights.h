// A decoder's weights under canonical names (models/families/names.h), read from and written to a family's checkpoints.
#pragma once
#include <map>
#include <string>

#include "base/result.h"
#include "models/families/family.h"
#include "models/families/spec.h"
#include "tensor/quantized_matrix.h"
#include "tensor/tensor.h"
#include "weights/checkpoint.h"
#include "weights/quantization_config.h"

namespace millrace {

// By canonical name. Tensors read from files are views into the mapping, read-only, in the file's dtype (float32,
// bfloat16, float16 or float64; it may differ from tensor to tensor). Where the file interleaves several tensors the
// view is strided, and rows in groups make it [groups, rows / groups, ...]; where the file has it at an odd offset the
// view is not aligned: contiguous_as (tensor/tensor.h) gives the plain form.
using DecoderWeights = std::map<std::string, Tensor>;
// Matrices that the files hold as integers, by canonical name ("layers.0.attn.q.weight").
using QuantizedWeights = std::map<std::string, QuantizedMatrix>;

// Exactly the tensors of needed_tensors(spec), shapes checked. Every tensor of the files must be one of them or known
// to be harmless. Errors name the tensor as the file does: "model.layers.3.mlp.up_proj.weight: the file has [11008,
// 4096], family llama wants [14336, 4096]". Requires: spec.family is a known family.
Result<DecoderWeights> load_decoder_weights(const Checkpoint& checkpoint, const DecoderSpec& spec);
// The same with the names of a given family, of a checkpoint quantised as `config` says: its integer matrices go to
// `quantized`. A matrix inside a layer that is dense although nothing says so is an error: the files are half
// converted.
Result<DecoderWeights> load_decoder_weights(const Checkpoint& checkpoint, const Family& family, const DecoderSpec& spec,
                                            const QuantizationConfig& config = {},
                                            QuantizedWeights* quantized = nullptr);

// Loading backwards: writes what load_decoder_weights(spec) would read as `weights` again, bit for bit.
Status save_decoder_weights(const std::string& folder, const DecoderSpec& spec, const DecoderWeights& weights,
                            const ShardOptions& options = {});
Status save_decoder_weights(const std::string& folder, const Family& family, const DecoderSpec& spec,
                            const DecoderWeights& weights, const ShardOptions& options = {});

}  // namespace millrace
