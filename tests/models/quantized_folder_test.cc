// A decoder of integers against one of the dense values that they stand for.
#include <gtest/gtest.h>

#include <cmath>

#include "models/decoder.h"
#include "tests/quantized_folder.h"

namespace millrace {
namespace {

// Logits of ten tokens in one step.
Tensor logits_of(const std::string& folder, DType dtype, LinearFormat format = LinearFormat::kDense) {
  ModelFolder model = *open_model_folder(folder);
  QuantizedWeights quantized;
  DecoderWeights dense = *load_weights(model, {}, &quantized);
  auto decoder = Decoder::create(model.spec, DecoderTensors(std::move(dense), std::move(quantized)),
                                 {.dtype = dtype, .quantization = format, .max_context = 64});
  EXPECT_TRUE(decoder.ok()) << decoder.status().message();
  KvCache cache(Decoder::cache_config(model.spec, dtype, 2, 16));
  Batch batch;
  batch.clear();
  for (int32_t i = 0; i < 10; ++i) {
    batch.tokens.push_back(7 * i + 3), batch.positions.push_back(i), batch.logit_rows.push_back(i);
  }
  batch.query_start.push_back(10), batch.context_len = {10}, batch.rope_len = {10};
  batch.block_table = {1}, batch.max_blocks = 1;
  Tensor hidden = Tensor::empty(DType::kF32, {10, model.spec.hidden_size});
  Tensor logits = Tensor::empty(DType::kF32, {10, model.spec.vocab_size});
  (*decoder)->forward(batch, cache, hidden);
  (*decoder)->logits(hidden, logits);
  return logits;
}

// Root of the mean squared difference, over that of `want` itself.
double relative_error(const Tensor& got, const Tensor& want) {
  double difference = 0, size = 0;
  for (int64_t i = 0; i < want.numel(); ++i) {
    difference += std::pow(got.data<float>()[i] - want.data<float>()[i], 2);
    size += std::pow(want.data<float>()[i], 2);
  }
  return std::sqrt(difference / size);
}

// Errors against float32 with the dense values, in units of what bfloat16 costs the dense decoder: int8 weights in
// their folder are exact where bfloat16 rounds them, so only x is rounded. A row rounded to int8 by its largest value
// has steps of max/127, some five times bfloat16's error on rows like these.
class QuantizedFolderDecoder : public testing::TestWithParam<const char*> {
 protected:
  double error(const QuantizedFolder& folder, const std::string& path, LinearFormat format = LinearFormat::kDense) {
    const Tensor want = logits_of(folder.rounded().path(), DType::kF32);
    const double bf16 = relative_error(logits_of(folder.rounded().path(), DType::kBf16), want);
    return relative_error(logits_of(path, DType::kBf16, format), want) / bf16;
  }
};

TEST_P(QuantizedFolderDecoder, Int8WeightsAreAsGoodAsBfloat16) {
  const QuantizedFolder folder(GetParam());
  EXPECT_LT(error(folder, folder.int8().path()), 1.5);
}

TEST_P(QuantizedFolderDecoder, Int8ActivationsStayNear) {
  const QuantizedFolder folder(GetParam(), /*activations=*/true);
  EXPECT_LT(error(folder, folder.int8().path()), 12);
}

TEST_P(QuantizedFolderDecoder, DenseWeightsMayBecomeIntegersWhilePacking) {
  const QuantizedFolder folder(GetParam());
  EXPECT_LT(error(folder, folder.rounded().path(), LinearFormat::kW8A16), 12);
  EXPECT_LT(error(folder, folder.rounded().path(), LinearFormat::kW8A8), 16);
}

INSTANTIATE_TEST_SUITE_P(Families, QuantizedFolderDecoder,
                         testing::Values("llama", "qwen2", "phi3", "internlm2", "falcon", "gemma2", "chatglm", "glm4",
                                         "qwen2_moe", "mixtral", "deepseek_v2"));

}  // namespace
}  // namespace millrace
