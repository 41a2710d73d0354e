#include "models/weight_source.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/log.h"
#include "models/families/names.h"

namespace millrace {

namespace {

constexpr int64_t kBytesBetweenReleases = int64_t{16} << 20;

}  // namespace

WeightSource::WeightSource(const DecoderSpec& spec, DType dtype, LinearFormat format, DecoderTensors tensors,
                           PackedWeights* kept)
    : spec_(spec), dtype_(dtype), format_(format), tensors_(std::move(tensors)), kept_(kept) {
  for (TensorNeed& need : needed_tensors(spec)) shapes_[need.name] = std::move(need.shape);
}
WeightSource::~WeightSource() { release(); }

void WeightSource::release() {
  for (const auto& file : tensors_.files) release_pages(*file);
  release_freed_memory();
  bytes_read_ = 0;
}
void WeightSource::will_read(int64_t bytes) {
  if (bytes_read_ + bytes > kBytesBetweenReleases) release();
  bytes_read_ += bytes;
}

Tensor WeightSource::take(const std::string& name) {
  if (const auto matrix = tensors_.quantized.extract(name)) return dequantized(matrix.mapped());
  const auto found = tensors_.dense.find(name);
  MR_CHECK(found != tensors_.dense.end(), "no tensor {}", name);
  Tensor tensor = contiguous_as(found->second, Shape(shapes_.at(name)));
  tensors_.dense.erase(found);
  will_read(tensor.bytes());
  return tensor;
}

Result<Linear> WeightSource::linear(const std::vector<std::string>& modules, bool bias) {
  if (!kept_) return packed_now(modules, bias);
  const std::string name = fmt::format("{}", fmt::join(modules, "+"));
  if (auto linear = packed_before(name, modules, bias)) return std::move(*linear);
  MR_ASSIGN_OR_RETURN(Linear linear, packed_now(modules, bias));
  kept_->add(name, linear);
  return linear;
}

// Of the shape that the spec wants; else nothing.
std::optional<Linear> WeightSource::packed_before(const std::string& name, const std::vector<std::string>& modules,
                                                  bool bias) {
  std::optional<Linear> found = kept_->find(name);
  int64_t rows = 0;
  for (const std::string& module : modules) rows += shapes_.at(module + ".weight")[0];
  if (!found || found->out_features() != rows || found->in_features() != shapes_.at(modules[0] + ".weight")[1])
    return std::nullopt;
  for (const std::string& module : modules) {
    tensors_.dense.erase(module + ".weight");
    tensors_.quantized.erase(module + ".weight");
    if (bias) tensors_.dense.erase(module + ".bias");
  }
  return found;
}

Result<Linear> WeightSource::packed_now(const std::vector<std::string>& modules, bool bias) {
  std::vector<Tensor> biases;
  for (const std::string& module : modules)
    if (bias) biases.push_back(take(module + ".bias"));
  const auto is_quantized = [&](const std::string& module) { return tensors_.quantized.contains(module + ".weight"); };
  const auto count = std::ranges::count_if(modules, is_quantized);
  Result<Linear> made =
      count == static_cast<int64_t>(modules.size()) ? quantized_linear(modules, biases) : dense_linear(modules, biases);
  if (!made.ok()) return made.status().at(modules.front() + ".weight");
  return made;
}

LinearFormat WeightSource::format_of(const std::string& module) const {
  if (format_ == LinearFormat::kDense || module.ends_with(".shared_gate")) return LinearFormat::kDense;
  return module.starts_with("layers.") ? format_ : LinearFormat::kW8A16;
}

// Of modules of which only some are integers, all become dense.
Result<Linear> WeightSource::dense_linear(const std::vector<std::string>& modules, const std::vector<Tensor>& biases) {
  std::vector<Tensor> parts;
  for (const std::string& module : modules) parts.push_back(take(module + ".weight"));
  const LinearFormat format = format_of(modules.front());
  const auto pause = [this] { release(); };
  if (format == LinearFormat::kDense) return Linear::pack(parts, biases, dtype_, pause);
  return Linear::quantize(parts, biases, format, pause);
}

Result<Linear> WeightSource::quantized_linear(const std::vector<std::string>& modules,
                                              const std::vector<Tensor>& biases) {
  std::vector<QuantizedMatrix> parts;
  for (const std::string& module : modules) parts.push_back(tensors_.quantized.at(module + ".weight"));
  if (const Status fits = Linear::check_parts(parts); !fits.ok()) {
    warn_once(fits.message(), fmt::format("{}: {}; kept as {}", modules.front(), fits.message(), dtype_name(dtype_)));
    return dense_linear(modules, biases);
  }
  for (const std::string& module : modules) tensors_.quantized.erase(module + ".weight");
  for (const QuantizedMatrix& part : parts)
    will_read(part.rows * part.columns / (part.scheme == QuantizedMatrix::Scheme::kInt4 ? 2 : 1));
  return Linear::pack(parts, biases);
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
