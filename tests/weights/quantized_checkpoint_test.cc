// Whole quantised checkpoints: fused matrices are cut as dense ones are, and half-converted files are refused.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/quantized_folder.h"

namespace millrace {
namespace {

using testing::HasSubstr;

class QuantizedCheckpoint : public testing::TestWithParam<const char*> {
 protected:
  const QuantizedFolder folder_{GetParam()};
  const TemporaryDirectory &rounded_ = folder_.rounded(), &int8_ = folder_.int8();
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
