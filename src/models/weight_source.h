// Hands out a decoder's canonical tensors, each once, in the forms its parts keep. One thread.
#pragma once
#include <map>
#include <string>
#include <vector>

#include "models/families/spec.h"
#include "ops/linear.h"
#include "ops/norm.h"
#include "tensor/tensor.h"

namespace millrace {

class WeightSource {
 public:
  // `tensors` hold the shapes of needed_tensors(spec) (tensor/tensor.h, holds_shape). `spec` must outlive the source.
  WeightSource(const DecoderSpec& spec, DType dtype, std::map<std::string, Tensor> tensors);

  const DecoderSpec& spec() const { return spec_; }
  DType dtype() const { return dtype_; }  // of packed matrices

  // Contiguous, of the spec's shape. Dies by MR_CHECK where it was taken before.
  Tensor take(const std::string& name);
  // Stacks the named modules' weights by rows, with their biases where `bias` is set.
  Linear linear(const std::vector<std::string>& modules, bool bias);
  // A norm of the residual stream, of the spec's kind.
  Norm norm(const std::string& name);
  // An RMS norm without bias inside a layer.
  Norm rms_norm(const std::string& name, double eps);

 private:
  const DecoderSpec& spec_;
  const DType dtype_;
  std::map<std::string, Tensor> tensors_;
  std::map<std::string, std::vector<int64_t>> shapes_;
};

}  // namespace millrace
