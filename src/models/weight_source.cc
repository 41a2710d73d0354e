#include "models/weight_source.h"

#include <fmt/format.h>

#include "models/families/names.h"

namespace millrace {

WeightSource::WeightSource(const DecoderSpec& spec, DType dtype, std::map<std::string, Tensor> tensors)
    : spec_(spec), dtype_(dtype), tensors_(std::move(tensors)) {
  for (TensorNeed& need : needed_tensors(spec)) shapes_[need.name] = std::move(need.shape);
}

Tensor WeightSource::take(const std::string& name) {
  const auto found = tensors_.find(name);
  MR_CHECK(found != tensors_.end(), "no tensor {}", name);
  Tensor tensor = contiguous_as(found->second, Shape(shapes_.at(name)));
  tensors_.erase(found);
  return tensor;
}

Linear WeightSource::linear(const std::vector<std::string>& modules, bool bias) {
  std::vector<Tensor> parts, biases;
  for (const std::string& module : modules) {
    parts.push_back(take(module + ".weight"));
    if (bias) biases.push_back(take(module + ".bias"));
  }
  return Linear::pack(parts, biases, dtype_);
}

Norm WeightSource::norm(const std::string& name) {
  const auto kind = spec_.norm == NormKind::kRms ? Norm::Kind::kRms : Norm::Kind::kLayer;
  Tensor weight = take(name + ".weight");
  if (spec_.norm_plus_one) {
    const Tensor file = converted(weight, DType::kF32);
    weight = Tensor::empty(DType::kF32, file.shape());
    for (int64_t i = 0; i < file.numel(); ++i) weight.data<float>()[i] = 1 + file.data<float>()[i];
  }
  return Norm(kind, weight, spec_.norm_bias ? take(name + ".bias") : Tensor(), spec_.norm_eps);
}

Norm WeightSource::rms_norm(const std::string& name, double eps) {
  return Norm(Norm::Kind::kRms, take(name + ".weight"), Tensor(), eps);
}

}  // namespace millrace
