// Hands out a decoder's canonical tensors, each once, in the forms its parts keep. One thread.
#pragma once
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/file_pages.h"
#include "base/result.h"
#include "models/families/spec.h"
#include "models/packed_weights.h"
#include "ops/linear.h"
#include "ops/norm.h"
#include "tensor/quantized_matrix.h"
#include "tensor/tensor.h"

namespace millrace {

// A decoder's weights by canonical name: dense ones, and matrices that are integers already.
struct DecoderTensors {
  std::map<std::string, Tensor> dense;
  std::map<std::string, QuantizedMatrix> quantized;
  MappedFiles files;  // in which they lie: their pages are let go as tensors are packed
  DecoderTensors(std::map<std::string, Tensor> tensors,  // NOLINT: dense weights are the usual case
                 std::map<std::string, QuantizedMatrix> matrices = {}, MappedFiles mapped = {})
      : dense(std::move(tensors)), quantized(std::move(matrices)), files(std::move(mapped)) {}
};

class WeightSource {
 public:
  // `tensors` hold the shapes of needed_tensors(spec) (tensor/tensor.h, holds_shape). `spec` must outlive the source.
  // `format` is what dense matrices inside layers are kept in. `kept` (or null): matrices that were packed before are
  // taken from there, others go there; it must outlive the source.
  WeightSource(const DecoderSpec& spec, DType dtype, LinearFormat format, DecoderTensors tensors,
               PackedWeights* kept = nullptr);
  ~WeightSource();
  WeightSource(const WeightSource&) = delete;
  WeightSource& operator=(const WeightSource&) = delete;

  const DecoderSpec& spec() const { return spec_; }
  DType dtype() const { return dtype_; }  // of packed dense matrices

  // Contiguous, of the spec's shape; of integers what they stand for. Dies by MR_CHECK where it was taken before.
  Tensor take(const std::string& name);
  // Stacks the named modules' weights by rows, with their biases where `bias` is set. Integers stay integers where
  // kernels take them. Dense ones take the source's format inside layers; the head is then W8A16. Gates of shared
  // experts, and everything without a format, keep the source's dtype. Errors name the first module.
  Result<Linear> linear(const std::vector<std::string>& modules, bool bias);
  // Lets go of the files' pages that were touched, and of memory that was freed: all of it lies beside the packed
  // weights. Pages can be read again.
  void release();
  // A norm of the residual stream, of the spec's kind.
  Norm norm(const std::string& name);
  // An RMS norm without bias inside a layer.
  Norm rms_norm(const std::string& name, double eps);

 private:
  std::optional<Linear> packed_before(const std::string& name, const std::vector<std::string>& modules, bool bias);
  Result<Linear> packed_now(const std::vector<std::string>& modules, bool bias);
  // Lets go of the files' pages where many were read before, if these bytes are added.
  void will_read(int64_t bytes);
  Result<Linear> dense_linear(const std::vector<std::string>& modules, const std::vector<Tensor>& biases);
  Result<Linear> quantized_linear(const std::vector<std::string>& modules, const std::vector<Tensor>& biases);
  LinearFormat format_of(const std::string& module) const;
  const DecoderSpec& spec_;
  const DType dtype_;
  const LinearFormat format_;
  DecoderTensors tensors_;
  PackedWeights* const kept_;
  int64_t bytes_read_ = 0;  // since pages were let go
  std::map<std::string, std::vector<int64_t>> shapes_;
};

}  // namespace millrace
