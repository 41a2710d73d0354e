// Whole quantised checkpoints: fused matrices are cut as dense ones are, and half-converted files are refused.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/random.h"
#include "weights/model_folder.h"
#include "weights/safetensors.h"

namespace millrace {
namespace {

using testing::HasSubstr;

constexpr const char* kInt8 =
    R"({"quant_method": "compressed-tensors", "format": "int-quantized", "ignore": ["lm_head"],
    "config_groups": {"group_0": {"targets": ["Linear"], "weights": {"num_bits": 8, "type": "int", "strategy": "channel"},
                                  "input_activations": null}}})";

// A small checkpoint of a family, and the same with the layers' matrices as int8.
class QuantizedCheckpoint : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    ASSERT_TRUE(init_checkpoint(dense_.path() + "/m", {.family = GetParam(), .size = "tiny"}).ok());
    Json config = *read_json_file(dense_.path() + "/m/config.json");
    config["quantization_config"] = Json::parse(kInt8);
    ASSERT_TRUE(write_file(int8_.file("config.json"), dump_json(config)).ok());
    quantize();
  }

  // Rounds every matrix inside a layer, in both checkpoints alike.
  void quantize() {
    const auto opened = Checkpoint::open(dense_.path() + "/m");
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
    ASSERT_TRUE(write_safetensors(rounded_.file("model.safetensors"), dense).ok());
    ASSERT_TRUE(write_safetensors(int8_.file("model.safetensors"), int8).ok());
    const Json config = *read_json_file(dense_.path() + "/m/config.json");
    ASSERT_TRUE(write_file(rounded_.file("config.json"), dump_json(config)).ok());
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
  TemporaryDirectory dense_, rounded_, int8_;
};

TEST_P(QuantizedCheckpoint, MatricesAreThoseOfTheRoundedDenseCheckpoint) {
  ModelFolder dense = *open_model_folder(rounded_.path()), int8 = *open_model_folder(int8_.path());
  EXPECT_EQ(int8.quantization.method, QuantizationConfig::Method::kCompressedTensors);
  QuantizedWeights quantized;
  const auto rest = load_weights(int8, {}, &quantized);
  ASSERT_TRUE(rest.ok()) << rest.status().message();
  const DecoderWeights want = *load_weights(dense);
  EXPECT_EQ(rest->size() + quantized.size(), want.size());
  EXPECT_GT(quantized.size(), 10u);
  for (const auto& [name, matrix] : quantized) {
    const Tensor got = dequantized(matrix), expected = contiguous_as(want.at(name), got.shape());
    EXPECT_EQ(std::memcmp(got.raw(), expected.raw(), static_cast<size_t>(got.bytes())), 0) << name;
  }
}

TEST_P(QuantizedCheckpoint, AReaderOfDenseWeightsRefusesIt) {
  ModelFolder model = *open_model_folder(int8_.path());
  EXPECT_THAT(load_weights(model).status().message(), HasSubstr("quantization_config says compressed-tensors"));
}

INSTANTIATE_TEST_SUITE_P(Families, QuantizedCheckpoint,
                         testing::Values("llama", "phi3", "internlm2", "falcon", "chatglm", "qwen3_moe"));

using HalfConverted = QuantizedCheckpoint;
INSTANTIATE_TEST_SUITE_P(Llama, HalfConverted, testing::Values("llama"));

TEST_P(HalfConverted, DenseMatricesThatNothingLeavesOutAreRefused) {
  const std::string path = int8_.file("model.safetensors");
  std::vector<NamedTensor> tensors;
  {
    const auto file = open_safetensors(path);
    for (const std::string& name : (*file)->names()) {
      if (name == "model.layers.1.mlp.up_proj.weight_scale") continue;
      const Tensor tensor = *(*file)->tensor(name);
      const bool half = name == "model.layers.1.mlp.up_proj.weight";
      tensors.push_back({name, {half ? Tensor::zeros(DType::kF32, tensor.shape()) : tensor}});
    }
    ASSERT_TRUE(write_safetensors(int8_.file("new.safetensors"), tensors).ok());
  }
  std::filesystem::rename(int8_.file("new.safetensors"), path);
  ModelFolder model = *open_model_folder(int8_.path());
  QuantizedWeights quantized;
  EXPECT_THAT(load_weights(model, {}, &quantized).status().message(),
              HasSubstr("model.layers.1.mlp.up_proj.weight: is not quantised although"));
  model.quantization.dense.push_back("layers.1.mlp.up_proj");
  EXPECT_TRUE(load_weights(model, {}, &quantized).ok());
}

}  // namespace
}  // namespace millrace
