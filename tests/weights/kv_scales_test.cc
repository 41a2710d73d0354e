#include "weights/kv_scales.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/random.h"
#include "weights/decoder_weights.h"
#include "weights/model_folder.h"
#include "weights/quantization_config.h"
#include "weights/safetensors.h"

namespace millrace {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

const KvScaleShape kShape = {.model_type = "llama", .layers = 3, .heads = 2};
const std::string kGood =
    R"({"model_type": "llama", "kv_cache": {"dtype": "int8", "scaling_factor": {"0": {"0": 0.5, "1": 0.25, "2": 2}}}})";

Result<KvScaleTable> parse(const std::string& text) { return parse_kv_scales(text, kShape, "scales.json"); }

// kGood with the value at `pointer` replaced; a discarded value removes it.
std::string with(const char* pointer, const Json& value) {
  Json json = Json::parse(kGood);
  const Json::json_pointer at(pointer);
  if (value.is_discarded())
    json.at(at.parent_pointer()).erase(at.back());
  else
    json[at] = value;
  return dump_json(json);
}

TEST(KvScalesFile, AScaleOfALayerIsThatOfAllItsHeads) {
  const auto table = parse(kGood);
  ASSERT_TRUE(table.ok()) << table.status().message();
  EXPECT_THAT(table->keys, ElementsAre(0.5f, 0.5f, 0.25f, 0.25f, 2.0f, 2.0f));
  EXPECT_EQ(table->values, table->keys);
  EXPECT_TRUE(table->notes.empty());
}

TEST(KvScalesFile, OfSeveralRanksTheLargestScaleCounts) {
  const auto table = parse(with("/kv_cache/scaling_factor/1", {{"0", 0.25}, {"1", 1.0}, {"2", 2.0}}));
  ASSERT_TRUE(table.ok()) << table.status().message();
  EXPECT_THAT(table->keys, ElementsAre(0.5f, 0.5f, 1.0f, 1.0f, 2.0f, 2.0f));
}

TEST(KvScalesFile, AnotherDtypeIsNotedAndAMissingModelTypeIsFilled) {
  for (const Json& type : {Json(nullptr), Json(Json::value_t::discarded)}) {
    const auto table = parse(with("/model_type", type));
    ASSERT_TRUE(table.ok()) << table.status().message();
  }
  const auto table = parse(with("/kv_cache/dtype", "float8_e4m3fn"));
  ASSERT_TRUE(table.ok());
  EXPECT_THAT(table->notes, ElementsAre(HasSubstr("float8_e4m3fn")));
}

TEST(KvScalesFile, WhatIsWrongIsNamedWithItsPlace) {
  const Json gone(Json::value_t::discarded);
  const auto expect = [](const std::string& text, const std::string& words) {
    const auto table = parse(text);
    ASSERT_FALSE(table.ok()) << text;
    EXPECT_THAT(table.status().message(), testing::AllOf(HasSubstr("scales.json"), HasSubstr(words))) << text;
  };
  expect("", "JSON");
  expect("[]", "a list");
  expect("{\"kv_cache\": ", "JSON");
  expect(with("/model_type", "qwen2"), "\"llama\"");
  expect(with("/model_type", 3), "model_type is 3");
  expect(with("/speed", 3), "speed is not known");
  expect(with("/kv_cache", gone), "kv_cache is missing");
  expect(with("/kv_cache", 7), "kv_cache is 7");
  expect(with("/kv_cache/extra", 7), "kv_cache.extra is not known");
  expect(with("/kv_cache/dtype", gone), "kv_cache.dtype is missing");
  expect(with("/kv_cache/dtype", 8), "kv_cache.dtype is 8");
  expect(with("/kv_cache/scaling_factor", gone), "kv_cache.scaling_factor is missing");
  expect(with("/kv_cache/scaling_factor", Json::object()), "has 0 ranks");
  expect(with("/kv_cache/scaling_factor/2", Json::object()), "kv_cache.scaling_factor.1 is missing");
  expect(with("/kv_cache/scaling_factor/0", 1), "scaling_factor.0 is 1");
  expect(with("/kv_cache/scaling_factor/0/1", gone), "scaling_factor.0.1 is missing: there are 2 of 3 layers");
  expect(with("/kv_cache/scaling_factor/0/3", 1), "scaling_factor.0.3 is not known; layers are 0 to 2");
  expect(with("/kv_cache/scaling_factor/0/-1", 1), "scaling_factor.0.-1 is not known");
  expect(with("/kv_cache/scaling_factor/0/01", 1), "scaling_factor.0.01 is not known");
  for (const Json& wrong : {Json(0), Json(-0.5), Json(1e39), Json(1e-42), Json("0.5"), Json(nullptr), Json({0.5, 0.5})})
    expect(with("/kv_cache/scaling_factor/0/1", wrong), "kv_cache.scaling_factor.0.1 is ");
  expect(std::string(100, '[') + std::string(100, ']'), "levels deep");
  expect(std::string((16 << 20) + 1, ' '), "bytes");
}

TEST(KvScalesFile, AFileIsReadAndANamelessOneIsNot) {
  const TemporaryDirectory folder;
  ASSERT_TRUE(write_file(folder.file("s.json"), kGood).ok());
  EXPECT_TRUE(read_kv_scales(folder.file("s.json"), kShape).ok());
  EXPECT_THAT(read_kv_scales(folder.file("t.json"), kShape).status().message(), HasSubstr("t.json"));
}

TEST(KvScalesFile, MutatedFilesAreRefusedOrRight) {
  const auto start = std::chrono::steady_clock::now();
  int good = 0, refused = 0;
  for (uint64_t seed = 0; seed < 20000; ++seed) {
    if (std::chrono::steady_clock::now() - start > std::chrono::seconds(2)) break;
    Random random(seed);
    std::string text = kGood;
    for (uint32_t n = 1 + random.below(3); n > 0 && !text.empty(); --n) {
      const uint32_t at = random.below(static_cast<uint32_t>(text.size()));
      switch (random.below(4)) {
        case 0:
          text[at] = static_cast<char>(random.below(256));
          break;
        case 1:
          text.erase(at, random.below(12));
          break;
        case 2:
          text.insert(at, text.substr(random.below(static_cast<uint32_t>(text.size())), random.below(30)));
          break;
        default:
          text[at] = "0123456789-{}[]\",:.e"[random.below(20)];
      }
    }
    const auto table = parse(text);
    ++(table.ok() ? good : refused);
    if (!table.ok()) continue;
    ASSERT_EQ(table->keys.size(), 6u);
    for (const float scale : table->keys) ASSERT_TRUE(std::isnormal(scale) && scale > 0) << text;
  }
  EXPECT_GT(good, 0);
  EXPECT_GT(refused, 0);
}

// ---- tensors ----

Tensor numbers(const std::vector<float>& values, DType dtype = DType::kF32) {
  Tensor floats = Tensor::empty(DType::kF32, {static_cast<int64_t>(values.size())});
  std::ranges::copy(values, floats.data<float>());
  return dtype == DType::kF32 ? floats : converted(floats, dtype);
}

Result<KvScaleTable> of_tensors(const std::map<std::string, Tensor>& tensors, int64_t layers = 1) {
  const TemporaryDirectory folder;
  std::vector<NamedTensor> named;
  for (const auto& [name, tensor] : tensors) named.push_back({name, {tensor}});
  EXPECT_TRUE(write_safetensors(folder.file("model.safetensors"), named).ok());
  return checkpoint_kv_scales(*Checkpoint::open(folder.path()), {.model_type = "llama", .layers = layers, .heads = 2});
}

const std::string kLayer = "model.layers.0.self_attn.";

TEST(KvScaleTensors, EveryNameOfThemIsRead) {
  const std::pair<const char*, const char*> names[] = {
      {"k_scale", "v_scale"}, {"attn.k_scale", "attn.v_scale"}, {"k_proj.output_scale", "v_proj.output_scale"}};
  for (const auto& [k, v] : names) {
    const auto table = of_tensors({{kLayer + k, numbers({0.5f})}, {kLayer + v, numbers({2.0f}, DType::kBf16)}});
    ASSERT_TRUE(table.ok()) << table.status().message();
    EXPECT_THAT(table->keys, ElementsAre(0.5f, 0.5f)) << k;
    EXPECT_THAT(table->values, ElementsAre(2.0f, 2.0f)) << v;
  }
  const auto both = of_tensors({{kLayer + "kv_scale", numbers({0.25f})}});
  EXPECT_THAT(both->keys, ElementsAre(0.25f, 0.25f));
  EXPECT_EQ(both->values, both->keys);
}

TEST(KvScaleTensors, HeadsMayHaveTheirOwn) {
  const auto table = of_tensors({{kLayer + "k_scale", numbers({0.5f, 0.75f})}});
  ASSERT_TRUE(table.ok()) << table.status().message();
  EXPECT_THAT(table->keys, ElementsAre(0.5f, 0.75f));
  EXPECT_THAT(table->values, ElementsAre(0.5f, 0.75f));
}

TEST(KvScaleTensors, ScalesOfZeroOrLessAreNone) {
  const auto table = of_tensors({{kLayer + "k_scale", numbers({-1.0f})}, {kLayer + "v_scale", numbers({-1.0f})}});
  ASSERT_TRUE(table.ok()) << table.status().message();
  EXPECT_TRUE(table->keys.empty());
  const auto legacy = of_tensors({{kLayer + "k_scale", numbers({-1.0f})}, {kLayer + "kv_scale", numbers({3.0f})}});
  EXPECT_THAT(legacy->keys, ElementsAre(3.0f, 3.0f));
}

TEST(KvScaleTensors, WhatIsWrongIsNamed) {
  const auto expect = [](const std::map<std::string, Tensor>& tensors, int64_t layers, const std::string& words) {
    const auto table = of_tensors(tensors, layers);
    ASSERT_FALSE(table.ok()) << words;
    EXPECT_THAT(table.status().message(), HasSubstr(words));
  };
  expect({{kLayer + "k_scale", numbers({1, 2, 3})}}, 1, "k_scale has 3 elements");
  expect({{kLayer + "k_scale", numbers({INFINITY})}}, 1, "k_scale has inf");
  expect({{"model.k_scale", numbers({1})}}, 1, "model.k_scale: its name");
  expect({{"model.layers.9.self_attn.k_scale", numbers({1})}}, 1, "layers.9");
  expect({{kLayer + "k_scale", numbers({1})}}, 2, "layer 1 has no scale");
}

TEST(KvScaleTensors, ACheckpointMayHoldThemBesideItsWeights) {
  const TemporaryDirectory made;
  const std::string folder = made.path() + "/m";
  ASSERT_TRUE(init_checkpoint(folder, {.family = "llama", .size = "tiny"}).ok());
  ModelFolder model = *open_model_folder(folder);
  {
    const auto opened = Checkpoint::open(folder);
    const Checkpoint& checkpoint = *opened;
    std::vector<NamedTensor> tensors;
    for (const std::string& name : checkpoint.names()) tensors.push_back({name, {*checkpoint.tensor(name)}});
    for (size_t i = 0; i < model.spec.layers.size(); ++i)
      tensors.push_back({fmt::format("model.layers.{}.self_attn.k_scale", i), {numbers({0.5f})}});
    ASSERT_TRUE(write_safetensors(made.path() + "/both.safetensors", tensors).ok());
  }
  std::filesystem::rename(made.path() + "/both.safetensors", folder + "/model.safetensors");
  EXPECT_TRUE(load_weights(model).ok()) << load_weights(model).status().message();
}

// ---- kv_cache_scheme ----

Result<QuantizationConfig> with_scheme(const char* scheme) {
  Json config = Json::parse(R"({"quant_method": "compressed-tensors", "format": "int-quantized", "config_groups": {
      "group_0": {"targets": ["Linear"], "weights": {"num_bits": 8, "type": "int", "strategy": "channel"}}}})");
  config["kv_cache_scheme"] = Json::parse(scheme);
  return read_quantization_config("/nowhere", {{"quantization_config", config}});
}

TEST(KvCacheScheme, StaticSymmetricEightBitIntegersAreServed) {
  for (const char* scheme :
       {R"({"num_bits": 8, "type": "int", "strategy": "tensor", "dynamic": false, "symmetric": true})",
        R"({"num_bits": 8, "type": "int", "strategy": "attn_head", "group_size": null, "observer": "minmax"})"}) {
    const auto config = with_scheme(scheme);
    ASSERT_TRUE(config.ok()) << config.status().message();
    EXPECT_TRUE(config->kv_int8) << scheme;
    EXPECT_EQ(config->kv_unserved, "") << scheme;
  }
  EXPECT_FALSE(with_scheme("null")->kv_int8);
  EXPECT_EQ(with_scheme("null")->kv_unserved, "");
}

// The weights are read all the same: who asks for no int8 cache does without these scales.
TEST(KvCacheScheme, WhatIsNotServedIsKeptByName) {
  const std::pair<const char*, const char*> cases[] = {
      {R"({"num_bits": 4, "type": "int", "strategy": "tensor"})", "kv_cache_scheme.num_bits is 4"},
      {R"({"num_bits": 8, "type": "float", "strategy": "tensor"})", "kv_cache_scheme.type is float"},
      {R"({"num_bits": 8, "type": "int", "strategy": "channel"})", "kv_cache_scheme.strategy is channel"},
      {R"({"num_bits": 8, "type": "int", "strategy": "tensor", "symmetric": false})", "kv_cache_scheme.symmetric"},
      {R"({"num_bits": 8, "type": "int", "strategy": "tensor", "dynamic": true})", "int8-dynamic needs no scales"}};
  for (const auto& [scheme, words] : cases) {
    const auto config = with_scheme(scheme);
    ASSERT_TRUE(config.ok()) << config.status().message();
    EXPECT_FALSE(config->kv_int8) << scheme;
    EXPECT_THAT(config->kv_unserved, HasSubstr(words)) << scheme;
  }
}

TEST(KvCacheScheme, WhatIsNoSchemeIsRefused) {
  EXPECT_THAT(with_scheme("[8]").status().message(), HasSubstr("kv_cache_scheme is "));
  EXPECT_THAT(with_scheme(R"({"num_bits": 8, "type": "int", "strategy": "tensor", "dynamic": 3})").status().message(),
              HasSubstr("kv_cache_scheme.dynamic"));
}

}  // namespace
}  // namespace millrace
