// A small checkpoint of a family twice: with the layers' matrices as int8 with a scale for each row, and dense with
// what those integers stand for.
#pragma once
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/random.h"
#include "weights/model_folder.h"
#include "weights/safetensors.h"

namespace millrace {

class QuantizedFolder {
 public:
  // `activations`: the config says that activations become int8 too.
  explicit QuantizedFolder(const std::string& family, bool activations = false) {
    EXPECT_TRUE(init_checkpoint(made_.path() + "/m", {.family = family, .size = "tiny"}).ok());
    const Json config = *read_json_file(made_.path() + "/m/config.json");
    EXPECT_TRUE(write_file(rounded_.file("config.json"), dump_json(config)).ok());
    Json quantized = config;
    quantized["quantization_config"] = Json::parse(kInt8);
    if (activations)
      quantized["quantization_config"]["config_groups"]["group_0"]["input_activations"] = {
          {"num_bits", 8}, {"type", "int"}, {"strategy", "token"}, {"dynamic", true}, {"symmetric", true}};
    EXPECT_TRUE(write_file(int8_.file("config.json"), dump_json(quantized)).ok());
    quantize();
  }
  const TemporaryDirectory& int8() const { return int8_; }
  const TemporaryDirectory& rounded() const { return rounded_; }

 private:
  static constexpr const char* kInt8 =
      R"({"quant_method": "compressed-tensors", "format": "int-quantized", "ignore": ["lm_head"],
          "config_groups": {"group_0": {"targets": ["Linear"], "input_activations": null,
                                        "weights": {"num_bits": 8, "type": "int", "strategy": "channel"}}}})";

  // Every matrix inside a layer, routers excepted: random integers in one folder, their values in the other.
  void quantize() {
    const auto opened = Checkpoint::open(made_.path() + "/m");
    const Checkpoint& checkpoint = *opened;
    std::vector<NamedTensor> dense, int8;
    for (const std::string& name : checkpoint.names()) {
      const Tensor tensor = *checkpoint.tensor(name);
      const bool router = name.find("mlp.gate.weight") != std::string::npos;
      const bool in_layer = name.find("layers.") != std::string::npos || name.find(".h.") != std::string::npos;
      if (!in_layer || tensor.rank() != 2 || router) {
        dense.push_back({name, {tensor}});
        int8.push_back({name, {tensor}});
        continue;
      }
      const Tensor values = random_int8(tensor.shape()), scales = random_scales(tensor.size(0));
      dense.push_back({name, {product(values, scales)}});
      int8.push_back({name, {values}});
      int8.push_back({name + "_scale", {scales}});
    }
    EXPECT_TRUE(write_safetensors(rounded_.file("model.safetensors"), dense).ok());
    EXPECT_TRUE(write_safetensors(int8_.file("model.safetensors"), int8).ok());
  }
  Tensor random_int8(const Shape& shape) {
    Tensor out = Tensor::empty(DType::kI8, shape);
    for (int64_t i = 0; i < out.numel(); ++i) out.data<int8_t>()[i] = static_cast<int8_t>(random_() >> 24);
    return out;
  }
  Tensor random_scales(int64_t rows) {
    Tensor out = Tensor::empty(DType::kF32, {rows, 1});
    for (int64_t i = 0; i < rows; ++i) out.data<float>()[i] = uniform_open(random_()) / 100;
    return out;
  }
  static Tensor product(const Tensor& values, const Tensor& scales) {
    Tensor out = Tensor::empty(DType::kF32, values.shape());
    for (int64_t i = 0; i < out.numel(); ++i)
      out.data<float>()[i] = static_cast<float>(values.data<int8_t>()[i]) * scales.data<float>()[i / values.size(1)];
    return out;
  }

  Random random_{5};
  TemporaryDirectory made_, rounded_, int8_;
};

}  // namespace millrace
