// Decoders whose matrices are integers: read as such, or made while loading.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "base/file.h"
#include "models/decoder.h"
#include "models/families/names.h"
#include "weights/model_folder.h"

namespace millrace {
namespace {

constexpr int64_t kBlocks = 16, kBlockTokens = 16;
const std::string kGolden = std::string(MILLRACE_SOURCE_DIR) + "/tests/golden/";
const std::vector<int32_t> kIds = {3, 14, 15, 92, 65, 35, 8, 97, 93, 23, 84, 62, 64, 33, 83, 27, 9, 50, 28, 8};

struct Files {
  explicit Files(const std::string& family = "mistral")
      : model(*open_model_folder(kGolden + family)), weights(*load_weights(model)) {}
  ModelFolder model;
  DecoderWeights weights;
};

// Logits of all of `ids`, which come in steps that end at `cuts`.
Tensor logits_of(Decoder& decoder, const std::vector<size_t>& cuts, DType dtype,
                 const std::vector<int32_t>& ids = kIds) {
  KvCache cache(Decoder::cache_config(decoder.spec(), dtype, kBlocks, kBlockTokens));
  const auto rows = static_cast<int64_t>(ids.size());
  Tensor all = Tensor::empty(DType::kF32, {rows, decoder.spec().vocab_size});
  size_t from = 0;
  for (const size_t to : cuts) {
    Batch batch;
    batch.clear();
    for (size_t i = from; i < to; ++i) {
      batch.logit_rows.push_back(static_cast<int32_t>(i - from));
      batch.tokens.push_back(ids[i]);
      batch.positions.push_back(static_cast<int32_t>(i));
    }
    batch.query_start.push_back(static_cast<int32_t>(to - from));
    batch.context_len.push_back(static_cast<int32_t>(to));
    batch.rope_len.push_back(rows);
    batch.max_blocks = 5;
    batch.block_table = {0, 1, 2, 3, 4};
    Tensor hidden = Tensor::empty(DType::kF32, {static_cast<int64_t>(to - from), decoder.spec().hidden_size});
    decoder.forward(batch, cache, hidden);
    Tensor rows_of_step = all.rows(static_cast<int64_t>(from), static_cast<int64_t>(to));
    decoder.logits(hidden, rows_of_step);
    from = to;
  }
  return all;
}

std::unique_ptr<Decoder> make(const Files& files, const DecoderOptions& options, QuantizedWeights quantized = {}) {
  auto decoder = Decoder::create(files.model.spec, DecoderTensors(files.weights, std::move(quantized)), options);
  EXPECT_TRUE(decoder.ok()) << decoder.status().message();
  return std::move(*decoder);
}

// Root mean square of the difference over that of `want`.
double distance(const Tensor& got, const Tensor& want) {
  double difference = 0, size = 0;
  for (int64_t i = 0; i < want.numel(); ++i) {
    difference += std::pow(static_cast<double>(got.data<float>()[i]) - want.data<float>()[i], 2);
    size += std::pow(static_cast<double>(want.data<float>()[i]), 2);
  }
  return std::sqrt(difference / size);
}

TEST(QuantizedDecoder, QuantisingWhileLoadingStaysNearTheDenseModel) {
  const Files files;
  const Tensor dense = logits_of(*make(files, {.dtype = DType::kF32, .max_context = 96}), {kIds.size()}, DType::kF32);
  int64_t dense_bytes = 0;
  for (const auto& [format, bound] :
       {std::pair{LinearFormat::kDense, 0.02}, {LinearFormat::kW8A16, 0.03}, {LinearFormat::kW8A8, 0.05}}) {
    const auto decoder = make(files, {.dtype = DType::kBf16, .quantization = format, .max_context = 96});
    EXPECT_LE(distance(logits_of(*decoder, {kIds.size()}, DType::kBf16), dense), bound) << static_cast<int>(format);
    if (format == LinearFormat::kDense)
      dense_bytes = decoder->weight_bytes();
    else
      EXPECT_LT(static_cast<double>(decoder->weight_bytes()), 0.8 * static_cast<double>(dense_bytes));
  }
}

TEST(QuantizedDecoder, LogitsAreBitIdenticalHoweverASequenceIsCut) {
  const Files files;
  for (const LinearFormat format : {LinearFormat::kW8A16, LinearFormat::kW8A8}) {
    const auto decoder = make(files, {.dtype = DType::kBf16, .quantization = format, .max_context = 96});
    const Tensor whole = logits_of(*decoder, {kIds.size()}, DType::kBf16);
    const Tensor cut = logits_of(*decoder, {1, 2, 9, kIds.size()}, DType::kBf16);
    EXPECT_EQ(0, std::memcmp(whole.raw(), cut.raw(), static_cast<size_t>(whole.bytes()))) << static_cast<int>(format);
  }
}

// Heads of 32 elements: products of more than 32 rows rotate them, others do not.
TEST(QuantizedDecoder, LogitsAreBitIdenticalWhoeverRotatesHeads) {
  const Files files("gemma2");
  std::vector<int32_t> ids;
  for (int32_t i = 0; i < 70; ++i) ids.push_back(i * 37 % 90 + 3);
  for (const LinearFormat format : {LinearFormat::kDense, LinearFormat::kW8A16, LinearFormat::kW8A8}) {
    const auto decoder = make(files, {.dtype = DType::kBf16, .quantization = format, .max_context = 96});
    const Tensor whole = logits_of(*decoder, {ids.size()}, DType::kBf16, ids);
    for (const std::vector<size_t>& cuts : {std::vector<size_t>{20, 52, 70}, {33, 69, 70}}) {
      const Tensor cut = logits_of(*decoder, cuts, DType::kBf16, ids);
      EXPECT_EQ(0, std::memcmp(whole.raw(), cut.raw(), static_cast<size_t>(whole.bytes()))) << static_cast<int>(format);
    }
  }
}

// A copy in memory that may be written.
Tensor float_copy(const Tensor& tensor) {
  const Tensor file = tensor.to_contiguous();
  Tensor out = Tensor::empty(DType::kF32, file.shape());
  for (int64_t i = 0; i < out.numel(); ++i) out.data<float>()[i] = element_as_float(file, i);
  return out;
}

// The matrix as int8 with a scale for each row; `weight` becomes what that stands for.
QuantizedMatrix rounded(Tensor& weight) {
  const int64_t N = weight.size(0), K = weight.size(1);
  Tensor floats = float_copy(weight), values = Tensor::empty(DType::kI8, {N, K});
  QuantizedMatrix m{.scheme = QuantizedMatrix::Scheme::kInt8, .rows = N, .columns = K};
  m.scales = Tensor::empty(DType::kF32, {N, 1});
  for (int64_t n = 0; n < N; ++n) {
    float largest = 0;
    for (int64_t k = 0; k < K; ++k) largest = std::max(largest, std::abs(floats.data<float>()[n * K + k]));
    const float scale = m.scales.data<float>()[n] = largest / 127;
    for (int64_t k = 0; k < K; ++k) {
      values.data<int8_t>()[n * K + k] = static_cast<int8_t>(std::lround(floats.data<float>()[n * K + k] / scale));
      floats.data<float>()[n * K + k] = scale * values.data<int8_t>()[n * K + k];
    }
  }
  m.unpack = [values, K](int64_t begin, int64_t end, uint8_t* to) {
    std::memcpy(to, values.data<int8_t>() + begin * K, static_cast<size_t>((end - begin) * K));
  };
  weight = floats;
  return m;
}

TEST(QuantizedDecoder, MatricesOfIntegersTakeThePlaceOfDenseOnes) {
  Files files;
  QuantizedWeights quantized;
  for (auto& [name, tensor] : files.weights)
    if (name.starts_with("layers.") && tensor.rank() == 2 && name != "layers.1.attn.k.weight")  // which stays dense
      quantized[name] = rounded(tensor);
  const Tensor want = logits_of(*make(files, {.dtype = DType::kF32, .max_context = 96}), {kIds.size()}, DType::kF32);
  for (const auto& [name, matrix] : quantized) files.weights.erase(name);
  const auto decoder = make(files, {.dtype = DType::kF32, .max_context = 96}, quantized);
  EXPECT_LE(distance(logits_of(*decoder, {kIds.size()}, DType::kF32), want), 0.02);
}

TEST(QuantizedDecoder, WhatIsWrongIsNamed) {
  Files files;
  QuantizedWeights quantized;
  quantized["layers.0.attn.q.weight"] = rounded(files.weights.at("layers.0.attn.q.weight"));
  quantized["layers.0.attn.q.weight"].rows -= 1;
  EXPECT_THAT(Decoder::create(files.model.spec, DecoderTensors(files.weights, quantized), {.max_context = 96})
                  .status()
                  .message(),
              testing::HasSubstr("layers.0.attn.q.weight"));
  Tensor& down = files.weights.at("layers.1.mlp.down.weight");
  down = float_copy(down);
  down.data<float>()[2 * down.size(1)] = std::numeric_limits<float>::infinity();
  const auto broken =
      Decoder::create(files.model.spec, files.weights, {.quantization = LinearFormat::kW8A8, .max_context = 96});
  EXPECT_THAT(broken.status().message(),
              testing::AllOf(testing::HasSubstr("layers.1.mlp.down"), testing::HasSubstr("row 2")));
}

}  // namespace
}  // namespace millrace
