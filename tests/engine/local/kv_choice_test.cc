#include "engine/local/kv_choice.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "tests/quantized_folder.h"

namespace millrace {
namespace {

using testing::AllOf;
using testing::Each;
using testing::HasSubstr;
using testing::IsEmpty;

// A compressed-tensors checkpoint whose config has `scheme` as kv_cache_scheme, with a scale of each layer's keys and
// one of its values where `scales` says so.
class KvChoice : public testing::Test {
 protected:
  ModelFolder open(const char* scheme, bool scales) {
    Json config = *read_json_file(folder_.int8().file("config.json"));
    config["quantization_config"]["kv_cache_scheme"] = Json::parse(scheme);
    EXPECT_TRUE(write_file(folder_.int8().file("config.json"), dump_json(config)).ok());
    if (scales) add_scales(config["num_hidden_layers"]);
    return *open_model_folder(folder_.int8().path());
  }
  static EngineArgs asking_for(const char* kv_cache_dtype, const std::string& file = "") {
    EngineArgs args;
    args.kv_cache_dtype = kv_cache_dtype;
    args.quantization_param_path = file;
    return args;
  }
  static size_t heads_of_all_layers(const ModelFolder& model) {
    return model.spec.layers.size() * static_cast<size_t>(std::get<Gqa>(model.spec.layers[0].attention).kv_heads);
  }
  const QuantizedFolder folder_{"llama"};

 private:
  static Tensor scale(float value) {
    Tensor tensor = Tensor::empty(DType::kF32, {1});
    tensor.data<float>()[0] = value;
    return tensor;
  }
  void add_scales(int64_t layers) {
    std::vector<NamedTensor> tensors;
    {
      const auto checkpoint = Checkpoint::open(folder_.int8().path());
      for (const std::string& name : checkpoint->names()) tensors.push_back({name, {*checkpoint->tensor(name)}});
      for (int64_t i = 0; i < layers; ++i) {
        tensors.push_back({fmt::format("model.layers.{}.self_attn.k_scale", i), {scale(0.25f)}});
        tensors.push_back({fmt::format("model.layers.{}.self_attn.v_scale", i), {scale(0.5f)}});
      }
      EXPECT_TRUE(write_safetensors(folder_.int8().file("new.safetensors"), tensors).ok());
    }
    std::filesystem::rename(folder_.int8().file("new.safetensors"), folder_.int8().file("model.safetensors"));
  }
};

constexpr const char* kServed = R"({"num_bits": 8, "type": "int", "strategy": "tensor", "symmetric": true})";
constexpr const char* kByChannel = R"({"num_bits": 8, "type": "int", "strategy": "channel", "symmetric": true})";

TEST_F(KvChoice, ScalesOfTheCheckpointServeAnInt8Cache) {
  const ModelFolder model = open(kServed, /*scales=*/true);
  const auto choice = choose_kv_scales(asking_for("int8"), model);
  ASSERT_TRUE(choice.ok()) << choice.status().message();
  EXPECT_THAT(choice->scales.keys, AllOf(testing::SizeIs(heads_of_all_layers(model)), Each(0.25f)));
  EXPECT_THAT(choice->scales.values, AllOf(testing::SizeIs(heads_of_all_layers(model)), Each(0.5f)));
  EXPECT_EQ(choice->words, ", int8 with the checkpoint's scales");
  const auto kv = choose_kv_type(asking_for("int8"), model, DType::kBf16);
  EXPECT_EQ(kv->dtype, DType::kI8);
}

TEST_F(KvChoice, OtherCachesDoWithoutThem) {
  const ModelFolder model = open(kServed, /*scales=*/true);
  for (const char* dtype : {"auto", "int8-dynamic"}) {
    const auto choice = choose_kv_scales(asking_for(dtype), model);
    ASSERT_TRUE(choice.ok()) << choice.status().message();
    EXPECT_THAT(choice->scales.keys, IsEmpty()) << dtype;
  }
}

TEST_F(KvChoice, ASchemeThatIsNotServedConcernsOnlyWhoNeedsItsScales) {
  const ModelFolder model = open(kByChannel, /*scales=*/false);
  EXPECT_TRUE(choose_kv_scales(asking_for("auto"), model).ok());
  EXPECT_TRUE(choose_kv_scales(asking_for("int8-dynamic"), model).ok());
  EXPECT_THAT(choose_kv_scales(asking_for("int8"), model).status().message(),
              AllOf(HasSubstr("kv_cache_scheme.strategy is channel"), HasSubstr("--quantization-param-path")));
}

TEST_F(KvChoice, AFileOfScalesComesBeforeTheCheckpoint) {
  const ModelFolder model = open(kByChannel, /*scales=*/true);
  Json factors;
  for (size_t i = 0; i < model.spec.layers.size(); ++i) factors[std::to_string(i)] = 2.0;
  const Json file = {{"model_type", "llama"}, {"kv_cache", {{"dtype", "int8"}, {"scaling_factor", {{"0", factors}}}}}};
  const std::string path = folder_.int8().file("kv.json");
  ASSERT_TRUE(write_file(path, dump_json(file)).ok());
  const auto choice = choose_kv_scales(asking_for("int8", path), model);
  ASSERT_TRUE(choice.ok()) << choice.status().message();
  EXPECT_THAT(choice->scales.keys, AllOf(testing::SizeIs(heads_of_all_layers(model)), Each(2.0f)));
  EXPECT_EQ(choice->words, ", int8 with scales from " + path);
  EXPECT_THAT(choose_kv_scales(asking_for("auto", path), model).status().message(),
              HasSubstr("--quantization-param-path has scales for --kv-cache-dtype int8, but that is auto"));
}

TEST_F(KvChoice, WithoutAnyTheScaleIsOne) {
  const ModelFolder model = open("null", /*scales=*/false);
  const auto choice = choose_kv_scales(asking_for("int8"), model);
  ASSERT_TRUE(choice.ok()) << choice.status().message();
  EXPECT_THAT(choice->scales.keys, AllOf(testing::SizeIs(heads_of_all_layers(model)), Each(1.0f)));
  EXPECT_EQ(choice->words, ", int8 with scale 1");
}

}  // namespace
}  // namespace millrace
