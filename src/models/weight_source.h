// Hands out a decoder's canonical tensors, each once, in the forms its parts keep. One thread.
#pragma once
#include <map>
#include <string>
#include <vector>

#include "base/result.h"
#include "models/families/spec.h"
#include "ops/linear.h"
#include "ops/norm.h"
#include "tensor/quantized_matrix.h"
#include "tensor/tensor.h"

namespace millrace {

// A decoder's weights by canonical name: dense ones, and matrices that are integers already.
struct DecoderTensors {
  std::map<std::string, Tensor> dense;
  std::map<std::string, QuantizedMatrix> quantized;
  DecoderTensors(std::map<std::string, Tensor> tensors,  // NOLINT: dense weights are the usual case
                 std::map<std::string, QuantizedMatrix> matrices = {})
      : dense(std::move(tensors)), quantized(std::move(matrices)) {}
};

class WeightSource {
 public:
  // `tensors` hold the shapes of needed_tensors(spec) (tensor/tensor.h, holds_shape). `spec` must outlive the source.
  // `format` is what dense matrices inside layers are kept in.
  WeightSource(const DecoderSpec& spec, DType dtype, LinearFormat format, DecoderTensors tensors);

  const DecoderSpec& spec() const { return spec_; }
  DType dtype() const { return dtype_; }  // of packed dense matrices

  // Contiguous, of the spec's shape; of integers what they stand for. Dies by MR_CHECK where it was taken before.
  Tensor take(const std::string& name);
  // Stacks the named modules' weights by rows, with their biases where `bias` is set. Integers stay integers where
  // kernels take them. Dense ones take the source's format inside layers; the head is then W8A16. Gates of shared
  // experts, and everything without a format, keep the source's dtype. Errors name the first module.
  Result<Linear> linear(const std::vector<std::string>& modules, bool bias);
  // A norm of the residual stream, of the spec's kind.
  Norm norm(const std::string& name);
  // An RMS norm without bias inside a layer.
  Norm rms_norm(const std::string& name, double eps);

 private:
  Result<Linear> dense_linear(const std::vector<std::string>& modules, const std::vector<Tensor>& biases);
  Result<Linear> quantized_linear(const std::vector<std::string>& modules, const std::vector<Tensor>& biases);
  LinearFormat format_of(const std::string& module) const;
  const DecoderSpec& spec_;
  const DType dtype_;
  const LinearFormat format_;
  DecoderTensors tensors_;
  std::map<std::string, std::vector<int64_t>> shapes_;
};

}  // namespace millrace
