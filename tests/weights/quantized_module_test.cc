// Every on-disk format of quantised matrices against writers of its own, made from the formats' descriptions: the
// dequantised matrix is the written formula, to the last bit.
#include "weights/quantized_module.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

#include "base/file.h"
#include "base/random.h"
#include "weights/safetensors.h"

namespace millrace {
namespace {

using testing::HasSubstr;
using Scheme = QuantizedMatrix::Scheme;

// What a quantised matrix means: values [N][K], scales and zero points [N][G], the group of each input.
struct Truth {
  int64_t N, K, G;
  int bits = 4;
  std::vector<int> q, zero;
  std::vector<float> scale;
  std::vector<int> group_of;

  float weight(int64_t n, int64_t k) const {
    const int64_t at = n * G + group_of[k];
    return static_cast<float>(q[n * K + k] - zero[at]) * scale[at];
  }
};

Truth random_truth(int64_t N, int64_t K, int64_t group, int bits, int least_zero, int most_zero) {
  Random random(static_cast<uint64_t>(N * 1000 + K));
  Truth truth{N, K, K / group, bits, {}, {}, {}, {}};
  for (int64_t i = 0; i < N * K; ++i) truth.q.push_back(static_cast<int>(random() >> 8) & ((1 << bits) - 1));
  for (int64_t i = 0; i < N * truth.G; ++i) {
    truth.zero.push_back(least_zero +
                         static_cast<int>((random() >> 8) % static_cast<uint32_t>(most_zero - least_zero + 1)));
    truth.scale.push_back(to_float(to_f16(0.01f + uniform_open(random()))));
  }
  for (int64_t k = 0; k < K; ++k) truth.group_of.push_back(static_cast<int>(k / group));
  return truth;
}

Tensor words(const Shape& shape) { return Tensor::zeros(DType::kI32, shape); }
void put_bits(Tensor& tensor, int64_t word, int shift, int value) {
  tensor.data<uint32_t>()[word] |= static_cast<uint32_t>(value) << shift;
}
Tensor f16_table(int64_t rows, int64_t columns, const std::function<float(int64_t, int64_t)>& at) {
  Tensor out = Tensor::empty(DType::kF16, {rows, columns});
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < columns; ++c) out.data<f16>()[r * columns + c] = to_f16(at(r, c));
  return out;
}

// AutoAWQ: nibble i of a word is column order[i] of its eight.
constexpr int kAwqOrder[] = {0, 2, 4, 6, 1, 3, 5, 7};

std::vector<NamedTensor> awq_files(const Truth& t) {
  Tensor values = words({t.K, t.N / 8}), zeros = words({t.G, t.N / 8});
  for (int64_t c = 0; c < t.N / 8; ++c)
    for (int i = 0; i < 8; ++i) {
      const int64_t n = 8 * c + kAwqOrder[i];
      for (int64_t k = 0; k < t.K; ++k) put_bits(values, k * (t.N / 8) + c, 4 * i, t.q[n * t.K + k]);
      for (int64_t g = 0; g < t.G; ++g) put_bits(zeros, g * (t.N / 8) + c, 4 * i, t.zero[n * t.G + g]);
    }
  return {{"m.qweight", {values}},
          {"m.qzeros", {zeros}},
          {"m.scales", {f16_table(t.G, t.N, [&](int64_t g, int64_t n) { return t.scale[n * t.G + g]; })}}};
}

std::vector<NamedTensor> gptq_files(const Truth& t, bool zeros_less_one) {
  const int per = 32 / t.bits;
  Tensor values = words({t.K / per, t.N}), zeros = words({t.G, t.N / per}), g_idx = words({t.K});
  for (int64_t n = 0; n < t.N; ++n) {
    for (int64_t k = 0; k < t.K; ++k)
      put_bits(values, k / per * t.N + n, static_cast<int>(k % per) * t.bits, t.q[n * t.K + k]);
    for (int64_t g = 0; g < t.G; ++g)
      put_bits(zeros, g * (t.N / per) + n / per, static_cast<int>(n % per) * t.bits,
               t.zero[n * t.G + g] - (zeros_less_one ? 1 : 0));
  }
  std::copy(t.group_of.begin(), t.group_of.end(), g_idx.data<int32_t>());
  return {{"m.qweight", {values}},
          {"m.qzeros", {zeros}},
          {"m.g_idx", {g_idx}},
          {"m.scales", {f16_table(t.G, t.N, [&](int64_t g, int64_t n) { return t.scale[n * t.G + g]; })}}};
}

// compressed-tensors: signed values plus 2^(bits - 1), packed along the inputs.
std::vector<NamedTensor> packed_files(const Truth& t) {
  const int per = 32 / t.bits;
  Tensor values = words({t.N, (t.K + per - 1) / per}), zeros = words({(t.N + per - 1) / per, t.G});
  for (int64_t n = 0; n < t.N; ++n) {
    for (int64_t k = 0; k < t.K; ++k)
      put_bits(values, n * values.size(1) + k / per, static_cast<int>(k % per) * t.bits, t.q[n * t.K + k]);
    for (int64_t g = 0; g < t.G; ++g)
      put_bits(zeros, n / per * t.G + g, static_cast<int>(n % per) * t.bits, t.zero[n * t.G + g]);
  }
  std::vector<NamedTensor> files = {
      {"m.weight_packed", {values}},
      {"m.weight_scale", {f16_table(t.N, t.G, [&](int64_t n, int64_t g) { return t.scale[n * t.G + g]; })}}};
  if (t.bits == 4) files.push_back({"m.weight_zero_point", {zeros}});
  return files;
}

class QuantizedModuleTest : public testing::Test {
 protected:
  Result<std::optional<QuantizedModule>> read(const std::vector<NamedTensor>& files, const char* config, int64_t N,
                                              int64_t K, bool int8_units = false) {
    const TemporaryDirectory folder;
    EXPECT_TRUE(write_safetensors(folder.file("model.safetensors"), files).ok());
    MR_ASSIGN_OR_RETURN(const QuantizationConfig quantization,
                        read_quantization_config(folder.path(), {{"quantization_config", Json::parse(config)}}));
    MR_ASSIGN_OR_RETURN(const Checkpoint checkpoint, Checkpoint::open(folder.path()));
    return read_quantized_module(checkpoint, quantization, "m", N, K, int8_units);
  }
  void expect_means(const std::vector<NamedTensor>& files, const char* config, const Truth& truth) {
    const auto module = read(files, config, truth.N, truth.K);
    ASSERT_TRUE(module.ok()) << module.status().message();
    ASSERT_TRUE(module->has_value());
    EXPECT_EQ((*module)->tensors.size(), files.size());
    const Tensor got = dequantized((*module)->matrix);
    for (int64_t n = 0; n < truth.N; ++n)
      for (int64_t k = 0; k < truth.K; ++k)
        ASSERT_EQ(got.data<float>()[n * truth.K + k], truth.weight(n, k)) << n << ' ' << k;
  }
  std::string error_of(const std::vector<NamedTensor>& files, const char* config, int64_t N, int64_t K) {
    const auto module = read(files, config, N, K);
    EXPECT_FALSE(module.ok());
    return module.status().message();
  }
};

constexpr const char* kAwq =
    R"({"quant_method": "awq", "bits": 4, "group_size": 32, "zero_point": true, "version": "gemm"})";

TEST_F(QuantizedModuleTest, TheFormatsTestVectors) {
  Truth eight{8, 8, 1, 4, {}, {}, {}, std::vector<int>(8, 0)};
  for (int n = 0; n < 8; ++n)
    for (int k = 0; k < 8; ++k) eight.q.push_back(n);
  eight.zero.assign(8, 0), eight.scale.assign(8, 1);
  EXPECT_EQ(awq_files(eight)[0].pieces[0].data<uint32_t>()[0], 0x75316420u);
  for (int n = 0; n < 8; ++n)
    for (int k = 0; k < 8; ++k) eight.q[n * 8 + k] = k;
  EXPECT_EQ(gptq_files(eight, false)[0].pieces[0].data<uint32_t>()[0], 0x76543210u);
  EXPECT_EQ(packed_files(eight)[0].pieces[0].data<uint32_t>()[0], 0x76543210u);
}

TEST_F(QuantizedModuleTest, AwqIsItsFormula) {
  expect_means(awq_files(random_truth(24, 96, 32, 4, 0, 15)), kAwq, random_truth(24, 96, 32, 4, 0, 15));
  expect_means(awq_files(random_truth(8, 48, 48, 4, 0, 15)),
               R"({"quant_method": "awq", "w_bit": 4, "q_group_size": -1, "version": "GEMM"})",
               random_truth(8, 48, 48, 4, 0, 15));
}

TEST_F(QuantizedModuleTest, GptqIsItsFormulaInBothConventionsOfZeroPoints) {
  const Truth truth = random_truth(16, 128, 64, 4, 1, 16);
  expect_means(gptq_files(truth, true), R"({"quant_method": "gptq", "bits": 4, "group_size": 64})", truth);
  const Truth second = random_truth(16, 128, 64, 4, 0, 15);
  expect_means(gptq_files(second, false),
               R"({"quant_method": "gptq", "bits": 4, "group_size": 64, "checkpoint_format": "gptq_v2"})", second);
}

TEST_F(QuantizedModuleTest, GptqInActOrderSortsTheInputs) {
  Truth truth = random_truth(8, 128, 32, 4, 1, 15);
  Random random(3);
  std::shuffle(truth.group_of.begin(), truth.group_of.end(), random);
  const auto files = gptq_files(truth, true);
  const char* config = R"({"quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": true})";
  expect_means(files, config, truth);
  EXPECT_TRUE((*read(files, config, 8, 128))->matrix.order.raw() != nullptr);
}

TEST_F(QuantizedModuleTest, GptqOfEightBitsIsSymmetric) {
  const Truth truth = random_truth(16, 64, 64, 8, 128, 128);
  const char* config = R"({"quant_method": "gptq", "bits": 8, "group_size": -1, "sym": true})";
  expect_means(gptq_files(truth, true), config, truth);
  EXPECT_EQ((*read(gptq_files(truth, true), config, 16, 64))->matrix.scheme, Scheme::kInt8);
  EXPECT_THAT(error_of(gptq_files(random_truth(16, 64, 64, 8, 100, 128), true), config, 16, 64),
              HasSubstr("zero point"));
}

std::string compressed(const char* format, const char* weights, const char* activations) {
  return fmt::format(R"({{"quant_method": "compressed-tensors", "format": "{}", "ignore": ["lm_head"],
      "config_groups": {{"group_0": {{"targets": ["Linear"], "weights": {}, "input_activations": {}}}}}}})",
                     format, weights, activations);
}

TEST_F(QuantizedModuleTest, PackedValuesAreTheirFormula) {
  for (const int64_t group : {16, 64}) {
    const Truth truth = random_truth(20, 64, group, 4, 0, 15);
    const std::string config = compressed(
        "pack-quantized", R"({"num_bits": 4, "type": "int", "strategy": "group", "symmetric": false})", "null");
    expect_means(packed_files(truth), config.c_str(), truth);
  }
  const Truth eight = random_truth(6, 40, 40, 8, 128, 128);
  expect_means(packed_files(eight),
               compressed("pack-quantized", R"({"num_bits": 8, "type": "int", "strategy": "channel"})", "null").c_str(),
               eight);
}

Tensor int8_values(int64_t N, int64_t K) {
  Tensor out = Tensor::empty(DType::kI8, {N, K});
  for (int64_t i = 0; i < N * K; ++i) out.data<int8_t>()[i] = static_cast<int8_t>(i * 37);
  return out;
}
Tensor floats(const Shape& shape, float first) {
  Tensor out = Tensor::empty(DType::kF32, shape);
  for (int64_t i = 0; i < out.numel(); ++i) out.data<float>()[i] = first + static_cast<float>(i) / 8;
  return out;
}

TEST_F(QuantizedModuleTest, Int8WeightsRoundActivationsOnlyWhereTheConfigSaysSo) {
  const Tensor values = int8_values(6, 10), scales = floats({6, 1}, 0.5f);
  const std::vector<NamedTensor> files = {{"m.weight", {values}}, {"m.weight_scale", {scales}}};
  const char* weights = R"({"num_bits": 8, "type": "int", "strategy": "channel", "symmetric": true})";
  const char* token = R"({"num_bits": 8, "type": "int", "strategy": "token", "dynamic": true, "symmetric": true})";
  const auto both = *read(files, compressed("int-quantized", weights, token).c_str(), 6, 10);
  EXPECT_EQ(both->matrix.scheme, Scheme::kInt8Int8);
  EXPECT_FALSE(both->matrix.input_scale.raw());
  const auto one = *read(files, compressed("int-quantized", weights, "null").c_str(), 6, 10);
  EXPECT_EQ(one->matrix.scheme, Scheme::kInt8);
  const Tensor got = dequantized(one->matrix);
  for (int64_t i = 0; i < 60; ++i)
    EXPECT_EQ(got.data<float>()[i], static_cast<float>(values.data<int8_t>()[i]) * scales.data<float>()[i / 10]);
}

TEST_F(QuantizedModuleTest, SmoothQuantDividesTheStaticInputScaleOut) {
  const TemporaryDirectory folder;
  ASSERT_TRUE(write_file(folder.file("quant_config.json"), R"({"qkv": "per-tensor", "out": "per-tensor",
      "fc1": "per-token", "fc2": "per-token", "type": "int8"})")
                  .ok());
  const QuantizationConfig config = *read_quantization_config(folder.path(), Json::object());
  EXPECT_EQ(config.method, QuantizationConfig::Method::kSmoothQuant);
  EXPECT_TRUE(config.static_qkv && !config.static_gate_up);
  const auto write = [&](float dequant, std::optional<float> quant) {
    std::vector<NamedTensor> files = {{"m.weight", {int8_values(6, 10)}}, {"m.dequant_scale", {floats({1}, dequant)}}};
    if (quant) files.push_back({"m.quant_scale", {floats({1}, *quant)}});
    EXPECT_TRUE(write_safetensors(folder.file("model.safetensors"), files).ok());
    return Checkpoint::open(folder.path());
  };
  const auto with_scale = *read_quantized_module(*write(0.5f, 0.25f), config, "m", 6, 10);
  EXPECT_EQ(with_scale->matrix.scales.data<float>()[5], 2.0f);
  EXPECT_EQ(with_scale->matrix.input_scale.data<float>()[0], 0.25f);
  const auto in_units = *read_quantized_module(*write(0.5f, std::nullopt), config, "m", 6, 10, true);
  EXPECT_EQ(in_units->matrix.scales.data<float>()[0], 0.5f);
  EXPECT_EQ(in_units->matrix.input_scale.data<float>()[0], 1.0f);
  const auto per_token = *read_quantized_module(*write(0.5f, std::nullopt), config, "m", 6, 10);
  EXPECT_FALSE(per_token->matrix.input_scale.raw());
}

TEST_F(QuantizedModuleTest, WhatDoesNotFitIsNamed) {
  const Truth truth = random_truth(24, 96, 32, 4, 1, 15);
  EXPECT_THAT(error_of(gptq_files(truth, true), kAwq, 24, 96), HasSubstr("m.qweight: the file has [12, 24]"));
  auto files = awq_files(truth);
  EXPECT_THAT(error_of({files[0], files[2]}, kAwq, 24, 96), HasSubstr("m.qzeros: missing"));
  EXPECT_THAT(error_of(files, R"({"quant_method": "awq", "group_size": 64})", 24, 96),
              HasSubstr("not a multiple of group_size 64"));
  files[2].pieces[0].data<f16>()[7] = to_f16(INFINITY);
  EXPECT_THAT(error_of(files, kAwq, 24, 96), HasSubstr("m.scales: element 7 is inf"));
  EXPECT_FALSE(read({{"m.weight", {floats({2, 2}, 1)}}}, kAwq, 2, 2)->has_value());
  Truth broken = random_truth(8, 64, 32, 4, 1, 15);
  broken.group_of[3] = 1;
  EXPECT_THAT(error_of(gptq_files(broken, true), R"({"quant_method": "gptq", "bits": 4, "group_size": 32})", 8, 64),
              HasSubstr("m.g_idx: groups of 32 inputs are wanted"));
  broken.group_of[3] = -7;
  EXPECT_THAT(error_of(gptq_files(broken, true), R"({"quant_method": "gptq", "bits": 4, "group_size": 32})", 8, 64),
              HasSubstr("m.g_idx"));
}

TEST(QuantizationConfigTest, WhatIsNotServedIsRefusedByName) {
  const auto error = [](const char* config) {
    const auto read = read_quantization_config("/nowhere", {{"quantization_config", Json::parse(config)}});
    EXPECT_FALSE(read.ok()) << config;
    return read.ok() ? "" : read.status().message();
  };
  EXPECT_THAT(error(R"({"quant_method": "fp8"})"), HasSubstr("quant_method is fp8"));
  EXPECT_THAT(error(R"({"quant_method": "awq", "bits": 3})"), HasSubstr("bits is 3"));
  EXPECT_THAT(error(R"({"quant_method": "awq", "version": "gemv"})"), HasSubstr("version is gemv"));
  EXPECT_THAT(error(R"({"quant_method": "gptq", "bits": 2})"), HasSubstr("bits is 2"));
  EXPECT_THAT(error(R"({"quant_method": "gptq", "is_marlin_format": true})"), HasSubstr("marlin"));
  EXPECT_THAT(error(R"({"quant_method": "gptq", "dynamic": {"-:x": {}}})"), HasSubstr("dynamic"));
  EXPECT_THAT(error(R"({"quant_method": "gptq", "group_size": "many"})"), HasSubstr("group_size is \"many\""));
  EXPECT_THAT(error(R"({"quant_method": "compressed-tensors", "format": "nvfp4-pack-quantized"})"), HasSubstr("nvfp4"));
  EXPECT_THAT(error(R"({"quant_method": "compressed-tensors", "config_groups": {}})"),
              HasSubstr("config_groups is missing"));
  EXPECT_THAT(error(R"([1])"), HasSubstr("must be an object"));
}

TEST(QuantizationConfigTest, DenseModulesAreNamedWholeInPartOrByPattern) {
  QuantizationConfig config;
  config.dense = {"lm_head", "re:.*mlp\\.gate$", "visual"};
  EXPECT_TRUE(config.may_be_dense("lm_head"));
  EXPECT_TRUE(config.may_be_dense("model.layers.3.mlp.gate"));
  EXPECT_TRUE(config.may_be_dense("model.visual.blocks.0"));
  EXPECT_FALSE(config.may_be_dense("model.layers.3.mlp.up_proj"));
}

TEST(QuantizedMatrixTest, PickedRowsAreTheSourcesRows) {
  QuantizedMatrix whole{.scheme = Scheme::kInt8, .rows = 6, .columns = 10, .scales = floats({6, 1}, 1)};
  whole.unpack = [values = int8_values(6, 10)](int64_t begin, int64_t end, uint8_t* to) {
    std::memcpy(to, values.data<uint8_t>() + begin * 10, static_cast<size_t>((end - begin) * 10));
  };
  const Tensor all = dequantized(whole), some = dequantized(picked_rows(whole, {4, 5, 0, 2})),
               range = dequantized(row_range(whole, 2, 4));
  const int64_t sources[] = {4, 5, 0, 2};
  for (int64_t n = 0; n < 4; ++n)
    for (int64_t k = 0; k < 10; ++k) EXPECT_EQ(some.data<float>()[n * 10 + k], all.data<float>()[sources[n] * 10 + k]);
  EXPECT_EQ(std::memcmp(range.raw(), all.rows(2, 4).raw(), 80), 0);
}

}  // namespace
}  // namespace millrace
