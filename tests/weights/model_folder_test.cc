#include "weights/model_folder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "base/file.h"
#include "models/families/families.h"
#include "models/families/names.h"
#include "models/families/presets.h"
#include "tests/golden_folders.h"
#include "tests/odd_offsets.h"
#include "weights/random_weights.h"
#include "weights/safetensors.h"

namespace millrace {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

void expect_same(const DecoderWeights& a, const DecoderWeights& b) {
  ASSERT_EQ(a.size(), b.size());
  for (const auto& [name, tensor] : a) {
    ASSERT_TRUE(b.contains(name)) << name;
    const Tensor one = tensor.to_contiguous(), other = b.at(name).to_contiguous();
    ASSERT_EQ(one.shape(), other.shape()) << name;
    ASSERT_EQ(one.dtype(), other.dtype()) << name;
    EXPECT_EQ(std::memcmp(one.raw(), other.raw(), static_cast<size_t>(one.bytes())), 0) << name;
  }
}

TEST(ModelFolder, TensorsAtOddOffsetsAreReadWhereTheyLie) {
  const TemporaryDirectory folder;
  const std::string golden = std::string(MILLRACE_SOURCE_DIR) + "/tests/golden/mistral";
  copy_to_odd_offsets(golden, folder.path());
  ModelFolder odd = *open_model_folder(folder.path()), even = *open_model_folder(golden);
  const auto weights = load_weights(odd);
  ASSERT_TRUE(weights.ok()) << weights.status().message();
  for (const auto& [name, tensor] : *weights)
    EXPECT_EQ(reinterpret_cast<uintptr_t>(tensor.raw()) % 2, 1u) << name << " is a copy";
  expect_same(*weights, *load_weights(even));
}

TEST(ModelFolder, GoldenFoldersLoadWholeAndSaveBackBitForBit) {
  const struct {
    LoadFormat format;
    int64_t max_shard_bytes;
  } kWays[] = {{LoadFormat::kSafetensors, 1 << 30},
               {LoadFormat::kSafetensors, 100'000},
               {LoadFormat::kPt, 1 << 30},
               {LoadFormat::kPt, 100'000}};
  for (const std::string& folder : golden_folders()) {
    SCOPED_TRACE(folder);
    auto model = open_model_folder(folder);
    ASSERT_TRUE(model.ok()) << model.status().to_string();
    const auto weights = load_weights(*model);
    ASSERT_TRUE(weights.ok()) << weights.status().to_string();
    EXPECT_EQ(weights->size(), needed_tensors(model->spec).size());
    for (const auto& way : kWays) {
      const TemporaryDirectory copy;
      const Status saved = save_decoder_weights(copy.path(), model->spec, *weights, {way.format, way.max_shard_bytes});
      ASSERT_TRUE(saved.ok()) << saved.to_string();
      const auto checkpoint = Checkpoint::open(copy.path());
      ASSERT_TRUE(checkpoint.ok()) << checkpoint.status().to_string();
      EXPECT_EQ(checkpoint->files().size() > 1, way.max_shard_bytes == 100'000);
      const auto again = load_decoder_weights(*checkpoint, model->spec);
      ASSERT_TRUE(again.ok()) << again.status().to_string();
      expect_same(*weights, *again);
    }
  }
}

// A small checkpoint in a folder of its own.
class InitTest : public testing::Test {
 protected:
  void init(const char* family, Json overrides = Json::object(), DType dtype = DType::kF32) {
    const Status status = init_checkpoint(
        folder(), {.family = family, .size = "tiny", .overrides = std::move(overrides), .dtype = dtype});
    ASSERT_TRUE(status.ok()) << status.to_string();
  }
  std::string folder() const { return root_.file("model"); }
  std::string file(const char* name) const { return join_path(folder(), name); }

  TemporaryDirectory root_;
};

TEST_F(InitTest, EveryFamilyAndPresetSizeMakesAServableConfig) {
  EXPECT_GE(preset_names().size(), 10u);
  for (const std::string& name : preset_names()) {
    SCOPED_TRACE(name);
    const size_t slash = name.find('/');
    const auto config = new_config({.family = name.substr(0, slash), .size = name.substr(slash + 1)});
    ASSERT_TRUE(config.ok()) << config.status().to_string();
    const auto reading = read_spec(*config);
    ASSERT_TRUE(reading.ok()) << reading.status().to_string();
    EXPECT_EQ(reading->spec.family, name.substr(0, slash));
    EXPECT_TRUE(reading->unknown_keys.empty());
  }
}

TEST_F(InitTest, PublicSizesHaveTheirPublishedParameterCounts) {
  const auto count = [](const char* size) { return parameter_count(read_spec(*preset_config("", size))->spec); };
  EXPECT_EQ(count("qwen2.5-0.5b"), 494'032'768);
  EXPECT_EQ(count("llama-3.2-1b"), 1'235'814'400);
  EXPECT_EQ(count("llama-3.1-8b"), 8'030'261'248);
  EXPECT_EQ(count("llama-2-7b"), 6'738'415'616);
  EXPECT_EQ(count("mistral-7b"), 7'241'732'096);
  EXPECT_EQ(count("qwen2.5-7b"), 7'615'616'512);
}

TEST_F(InitTest, ANewCheckpointOpensAndItsWeightsFollowTheSeed) {
  init("qwen2", {{"vocab_size", 300}}, DType::kBf16);
  auto model = open_model_folder(folder());
  ASSERT_TRUE(model.ok()) << model.status().to_string();
  EXPECT_EQ(model->spec.vocab_size, 300);
  EXPECT_EQ(model->spec.dtype, DType::kBf16);
  EXPECT_THAT(model->spec.eos_token_ids, ElementsAre(257));
  const auto weights = load_weights(*model);
  ASSERT_TRUE(weights.ok()) << weights.status().to_string();
  expect_same(*weights, initial_weights(model->spec, DType::kBf16, 0));
  const DecoderWeights other = initial_weights(model->spec, DType::kBf16, 1);
  EXPECT_NE(std::memcmp(weights->at("embed.weight").raw(), other.at("embed.weight").raw(), 64), 0);
}

TEST_F(InitTest, AFolderWithAModelIsLeftAlone) {
  init("llama");
  const Status again = init_checkpoint(folder(), {.family = "llama", .size = "tiny"});
  EXPECT_EQ(again.code(), Code::kAlreadyExists);
  auto model = open_model_folder(folder());
  const auto weights = load_weights(*model);
  EXPECT_EQ(save_decoder_weights(folder(), model->spec, *weights).code(), Code::kAlreadyExists);
}

TEST_F(InitTest, BadRequestsNameWhatThereIs) {
  EXPECT_THAT(new_config({.family = "lama"}).status().message(),
              HasSubstr("no family 'lama'; there are llama, mistral"));
  EXPECT_THAT(new_config({.size = "qwen2.5-0.6b"}).status().message(), HasSubstr("did you mean 'qwen2/qwen2.5-0.5b'?"));
  EXPECT_THAT(new_config({.overrides = {{"colour", 1}}}).status().message(), HasSubstr("no key 'colour'"));
  EXPECT_THAT(init_checkpoint(folder(), {.overrides = {{"vocab_size", 1 << 28},
                                                       {"hidden_size", 1 << 20},
                                                       {"num_attention_heads", 1 << 15},
                                                       {"head_dim", 32}}})
                  .message(),
              HasSubstr("of memory are available"));
  EXPECT_FALSE(file_exists(folder() + "/config.json"));
  EXPECT_THAT(init_checkpoint(folder(), {.dtype = DType::kI8}).message(), HasSubstr("dtype is int8"));
}

TEST_F(InitTest, GenerationConfigAddsItsEosIdsBehindTheModels) {
  init("llama");
  ASSERT_TRUE(write_file(file("generation_config.json"), R"({"eos_token_id": [9, 257, 8]})").ok());
  EXPECT_THAT(open_model_folder(folder())->spec.eos_token_ids, ElementsAre(257, 9, 8));
  ASSERT_TRUE(write_file(file("generation_config.json"), R"({"eos_token_id": "x"})").ok());
  EXPECT_THAT(open_model_folder(folder()).status().message(),
              HasSubstr("generation_config.json: eos_token_id is \"x\""));
}

TEST_F(InitTest, MissingAndBrokenFilesAreNamed) {
  EXPECT_THAT(open_model_folder(folder()).status().message(), HasSubstr("no such folder"));
  ASSERT_TRUE(make_directories(folder()).ok());
  EXPECT_THAT(open_model_folder(folder()).status().message(), HasSubstr("no config.json"));
  ASSERT_TRUE(write_file(file("config.json"), "{").ok());
  EXPECT_THAT(open_model_folder(folder()).status().message(), HasSubstr("config.json: not valid JSON"));
  ASSERT_TRUE(write_file(file("config.json"), "[]").ok());
  EXPECT_THAT(open_model_folder(folder()).status().message(), HasSubstr("it must be an object"));
}

TEST_F(InitTest, AnUnstatedDtypeIsThatOfTheEmbeddings) {
  init("llama", Json::object(), DType::kF16);
  Json config = *read_json_file(file("config.json"));
  config.erase("torch_dtype");
  ASSERT_TRUE(write_file(file("config.json"), dump_json(config)).ok());
  auto model = open_model_folder(folder());
  EXPECT_EQ(model->spec.dtype, DType::kF32);
  ASSERT_TRUE(load_weights(*model).ok());
  EXPECT_EQ(model->spec.dtype, DType::kF16);
}

TEST_F(InitTest, DummyWeightsNeedNoFiles) {
  init("mistral");
  auto model = open_model_folder(folder());
  const auto weights = load_weights(*model, {.format = LoadFormat::kDummy, .dummy_dtype = DType::kF16, .seed = 3});
  ASSERT_TRUE(weights.ok());
  expect_same(*weights, dummy_weights(model->spec, DType::kF16, 3));
}

double deviation(const Tensor& tensor) {
  double sum = 0, squares = 0;
  const auto n = static_cast<double>(tensor.numel());
  for (int64_t i = 0; i < tensor.numel(); ++i) {
    const double x = element_as_float(tensor, i);
    sum += x, squares += x * x;
  }
  EXPECT_NEAR(sum / n, 0, 0.02 * 5 / std::sqrt(n));
  return std::sqrt(squares / n);
}

TEST(RandomWeights, MatricesHaveTheDeviationAndNormsAreOne) {
  const DecoderSpec spec = read_spec(*preset_config("qwen2", "demo"))->spec;
  for (const DType dtype : {DType::kF32, DType::kBf16, DType::kF16}) {
    const DecoderWeights initial = initial_weights(spec, dtype, 5), dummy = dummy_weights(spec, dtype, 5);
    for (const DecoderWeights* weights : {&initial, &dummy}) {
      EXPECT_NEAR(deviation(weights->at("layers.1.mlp.up.weight")), 0.02, 0.0003);
      EXPECT_NEAR(deviation(weights->at("embed.weight")), 0.02, 0.0004);
      for (int64_t i = 0; i < spec.hidden_size; ++i)
        EXPECT_EQ(element_as_float(weights->at("layers.3.attn.norm.weight"), i), 1.0f);
    }
    EXPECT_EQ(element_as_float(initial.at("layers.0.attn.q.bias"), 7), 0.0f);
  }
}

TEST(RandomWeights, DifferentTensorsOfOneShapeDiffer) {
  const DecoderWeights weights = dummy_weights(read_spec(*preset_config("llama", "tiny"))->spec, DType::kF32);
  EXPECT_NE(std::memcmp(weights.at("layers.0.mlp.up.weight").raw(), weights.at("layers.1.mlp.up.weight").raw(), 256),
            0);
}

}  // namespace
}  // namespace millrace
