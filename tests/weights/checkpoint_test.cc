#include "weights/checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "base/file.h"
#include "models/families/families.h"
#include "models/families/presets.h"
#include "models/families/read_spec.h"
#include "weights/decoder_weights.h"
#include "weights/random_weights.h"
#include "weights/safetensors.h"
#include "weights/torch_file.h"

namespace millrace {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

DecoderSpec tiny_spec(const char* family = "llama", Json changes = Json::object()) {
  Json config = *preset_config(family, "tiny");
  config.update(changes);
  return read_spec(config)->spec;
}

// A folder whose weights are changed before it is opened.
class CheckpointTest : public testing::Test {
 protected:
  // The tensors of a sound checkpoint under the file's names.
  std::vector<NamedTensor> tensors_of(const DecoderSpec& spec) {
    const TemporaryDirectory folder;
    EXPECT_TRUE(save_decoder_weights(folder.path(), spec, dummy_weights(spec, DType::kF32)).ok());
    const auto checkpoint = Checkpoint::open(folder.path());
    std::vector<NamedTensor> out;
    for (const std::string& name : checkpoint->names()) out.push_back({name, {*checkpoint->tensor(name)}});
    return out;
  }
  static NamedTensor& named(std::vector<NamedTensor>& tensors, const std::string& name) {
    for (NamedTensor& tensor : tensors)
      if (tensor.name == name) return tensor;
    ADD_FAILURE() << "no " << name;
    return tensors.front();
  }
  Result<DecoderWeights> load(const std::vector<NamedTensor>& tensors, const DecoderSpec& spec) {
    EXPECT_TRUE(write_safetensors(folder_.file("model.safetensors"), tensors).ok());
    MR_ASSIGN_OR_RETURN(const Checkpoint checkpoint, Checkpoint::open(folder_.path()));
    return load_decoder_weights(checkpoint, spec);
  }
  void put(const char* name, std::vector<const char*> tensors) {
    std::vector<NamedTensor> list;
    for (const char* tensor : tensors) list.push_back({tensor, {Tensor::zeros(DType::kF32, {2})}});
    const std::string path = folder_.file(name);
    ASSERT_TRUE((path.ends_with(".safetensors") ? write_safetensors(path, list) : write_torch_file(path, list)).ok());
  }
  void put_index(const char* text) { ASSERT_TRUE(write_file(folder_.file("model.safetensors.index.json"), text).ok()); }
  std::string open_error(LoadFormat format = LoadFormat::kAuto) {
    const auto checkpoint = Checkpoint::open(folder_.path(), format);
    EXPECT_FALSE(checkpoint.ok());
    return checkpoint.status().message();
  }

  TemporaryDirectory folder_;
};

TEST_F(CheckpointTest, WrongShapesAreNamedWithBothShapes) {
  const DecoderSpec spec = tiny_spec();
  auto tensors = tensors_of(spec);
  named(tensors, "model.layers.1.mlp.up_proj.weight").pieces = {Tensor::zeros(DType::kF32, {150, 64})};
  EXPECT_EQ(load(tensors, spec).status().message(),
            "model.layers.1.mlp.up_proj.weight: the file has [150, 64], family llama wants [160, 64]");
}

TEST_F(CheckpointTest, MissingTensorsAreNamedAndCounted) {
  const DecoderSpec spec = tiny_spec();
  auto tensors = tensors_of(spec);
  std::erase_if(tensors, [](const NamedTensor& t) { return t.name.find("k_proj") != std::string::npos; });
  EXPECT_THAT(load(tensors, spec).status().message(),
              HasSubstr("model.layers.0.self_attn.k_proj.weight: missing from the weights; family llama wants [32, 64] "
                        "(1 more of 20 are missing)"));
}

TEST_F(CheckpointTest, TensorsThatNobodyReadsAreRefusedUnlessHarmless) {
  const DecoderSpec spec = tiny_spec();
  auto tensors = tensors_of(spec);
  tensors.push_back({"model.layers.0.self_attn.rotary_emb.inv_freq", {Tensor::zeros(DType::kF32, {8})}});
  EXPECT_TRUE(load(tensors, spec).ok());
  tensors.push_back({"model.layers.0.self_attn.q_norm.weight", {Tensor::zeros(DType::kF32, {16})}});
  EXPECT_THAT(load(tensors, spec).status().message(),
              HasSubstr("model.layers.0.self_attn.q_norm.weight: in the file, but family llama has no such tensor"));
}

TEST_F(CheckpointTest, ATiedHeadMayBeInTheFileIfItFits) {
  const DecoderSpec spec = tiny_spec();
  ASSERT_TRUE(spec.tie_word_embeddings);
  auto tensors = tensors_of(spec);
  tensors.push_back({"lm_head.weight", {named(tensors, "model.embed_tokens.weight").pieces.front()}});
  const auto weights = load(tensors, spec);
  ASSERT_TRUE(weights.ok()) << weights.status().to_string();
  EXPECT_FALSE(weights->contains("lm_head.weight"));
  tensors.back().pieces = {Tensor::zeros(DType::kF32, {4, 64})};
  EXPECT_THAT(load(tensors, spec).status().message(), HasSubstr("the embeddings it is tied to have [320, 64]"));
}

TEST_F(CheckpointTest, AnUntiedHeadIsRequired) {
  const DecoderSpec spec = tiny_spec("llama", {{"tie_word_embeddings", false}});
  auto tensors = tensors_of(spec);
  std::erase_if(tensors, [](const NamedTensor& t) { return t.name == "lm_head.weight"; });
  EXPECT_THAT(load(tensors, spec).status().message(), HasSubstr("lm_head.weight: missing from the weights"));
}

TEST_F(CheckpointTest, IntegersAreNotWeights) {
  const DecoderSpec spec = tiny_spec();
  auto tensors = tensors_of(spec);
  named(tensors, "model.norm.weight").pieces = {Tensor::zeros(DType::kI8, {64})};
  EXPECT_THAT(load(tensors, spec).status().message(), HasSubstr("model.norm.weight: the file has int8 elements"));
}

TEST_F(CheckpointTest, QwenBiasesAreNeededAndLlamaHasNone) {
  const DecoderSpec qwen = tiny_spec("qwen2"), llama = tiny_spec("llama");
  EXPECT_TRUE(load(tensors_of(qwen), qwen).ok());
  EXPECT_THAT(load(tensors_of(qwen), llama).status().message(), HasSubstr("_proj.bias: in the file, but family llama"));
  EXPECT_THAT(load(tensors_of(llama), qwen).status().message(), HasSubstr("q_proj.bias: missing from the weights"));
}

// A family that packs q, k and v into one matrix, and gate and up into another.
const Family kFused = {
    .name = "fused",
    .based_on = &kQwen2,
    .weights = {concat_rows({"layers.*.attn.q", "layers.*.attn.k", "layers.*.attn.v"}, "h.*.qkv"),
                concat_rows({"layers.*.mlp.gate", "layers.*.mlp.up"}, "h.*.gate_up")},
};

TEST_F(CheckpointTest, PackedTensorsAreCutOnReadingAndJoinedOnWriting) {
  const DecoderSpec spec = tiny_spec("qwen2");
  const DecoderWeights weights = dummy_weights(spec, DType::kBf16);
  for (const LoadFormat format : {LoadFormat::kSafetensors, LoadFormat::kPt}) {
    const TemporaryDirectory folder;
    ASSERT_TRUE(save_decoder_weights(folder.path(), kFused, spec, weights, {.format = format}).ok());
    const auto checkpoint = Checkpoint::open(folder.path());
    ASSERT_TRUE(checkpoint.ok()) << checkpoint.status().to_string();
    EXPECT_EQ(checkpoint->tensor("h.1.qkv.weight")->shape(), (Shape{64 + 32 + 32, 64}));
    EXPECT_EQ(checkpoint->tensor("h.0.qkv.bias")->shape(), (Shape{128}));
    EXPECT_FALSE(checkpoint->has("model.layers.0.self_attn.q_proj.weight"));
    const auto loaded = load_decoder_weights(*checkpoint, kFused, spec);
    ASSERT_TRUE(loaded.ok()) << loaded.status().to_string();
    ASSERT_EQ(loaded->size(), weights.size());
    for (const auto& [name, tensor] : weights)
      EXPECT_EQ(std::memcmp(loaded->at(name).raw(), tensor.raw(), static_cast<size_t>(tensor.bytes())), 0) << name;
  }
}

TEST_F(CheckpointTest, WeightsThatDoNotFitTheSpecAreNotSaved) {
  const DecoderSpec spec = tiny_spec("qwen2");
  DecoderWeights weights = dummy_weights(spec, DType::kF32);
  weights["layers.0.attn.k.weight"] = Tensor::zeros(DType::kBf16, {32, 64});
  EXPECT_THAT(save_decoder_weights(folder_.path(), kFused, spec, weights).message(),
              HasSubstr("layers.0.attn.k.weight: is bfloat16, but its neighbour in h.0.qkv.weight is float32"));
  weights["layers.0.attn.k.weight"] = Tensor::zeros(DType::kF32, {30, 64});
  EXPECT_THAT(save_decoder_weights(folder_.path(), spec, weights).message(),
              HasSubstr("layers.0.attn.k.weight: has [30, 64], the spec wants [32, 64]"));
  weights.erase("layers.0.attn.k.weight");
  EXPECT_THAT(save_decoder_weights(folder_.path(), spec, weights).message(),
              HasSubstr("layers.0.attn.k.weight: missing"));
  EXPECT_TRUE(list_directory(folder_.path())->empty());
}

TEST_F(CheckpointTest, SafetensorsComeBeforeTorchFilesUnlessAskedOtherwise) {
  put("model.safetensors", {"a"});
  put("pytorch_model.bin", {"b"});
  put("other.safetensors", {"c"});
  EXPECT_THAT(Checkpoint::open(folder_.path())->names(), ElementsAre("a"));
  EXPECT_THAT(Checkpoint::open(folder_.path(), LoadFormat::kPt)->names(), ElementsAre("b"));
}

TEST_F(CheckpointTest, LooseFilesAreJoinedAndOptimiserStatesLeftOut) {
  put("part1.safetensors", {"a"});
  put("part2.safetensors", {"b"});
  put("adapter_model.safetensors", {"c"});
  EXPECT_THAT(Checkpoint::open(folder_.path())->names(), ElementsAre("a", "b"));
  put("part3.safetensors", {"a"});
  EXPECT_THAT(open_error(), HasSubstr("tensor 'a' is both in"));
}

TEST_F(CheckpointTest, ShardsFollowTheirIndex) {
  put("s1.safetensors", {"a", "b"});
  put("s2.safetensors", {"c"});
  put_index(
      R"({"metadata": {"total_size": 24}, "weight_map": {"a": "s1.safetensors", "b": "s1.safetensors", "c": "s2.safetensors"}})");
  const auto checkpoint = Checkpoint::open(folder_.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status().to_string();
  EXPECT_THAT(checkpoint->names(), ElementsAre("a", "b", "c"));
  EXPECT_EQ(checkpoint->files().size(), 2u);
}

TEST_F(CheckpointTest, EachBrokenIndexIsRefusedByName) {
  put("s1.safetensors", {"a", "b"});
  const std::pair<const char*, const char*> kCases[] = {
      {"[]", "there is no weight_map object"},
      {R"({"weight_map": 3})", "there is no weight_map object"},
      {R"({"weight_map": {"a": 3}})", "'a' is 3; it must be a file name"},
      {R"({"weight_map": {"a": "../s1.safetensors"}})", "it must be a file of the same folder"},
      {R"({"weight_map": {"a": "/etc/passwd"}})", "it must be a file of the same folder"},
      {R"({"weight_map": {"a": "s9.safetensors"}})", "no such file"},
      {R"({"weight_map": {"a": "s1.safetensors", "x": "s1.safetensors"}})",
       "tensor 'x' is not in s1.safetensors, where the index places it"},
      {R"({"weight_map": {"a": "s1.safetensors"}})", "tensor 'b' is not in the index"},
  };
  for (const auto& [text, message] : kCases) {
    put_index(text);
    EXPECT_THAT(open_error(), HasSubstr(message)) << text;
  }
}

TEST_F(CheckpointTest, AFolderWithoutWeightsSaysWhatWasLookedFor) {
  EXPECT_THAT(open_error(), HasSubstr("no weights; looked for *.safetensors, *.bin"));
  EXPECT_THAT(open_error(LoadFormat::kPt), HasSubstr("looked for pytorch_model.bin"));
  EXPECT_EQ(Checkpoint::open(folder_.file("none")).status().code(), Code::kNotFound);
}

TEST_F(CheckpointTest, ShardsKeepTheirLimitAndTheIndexTheTotal) {
  const std::vector<NamedTensor> tensors = {{"a", {Tensor::zeros(DType::kF32, {10})}},
                                            {"b", {Tensor::zeros(DType::kF32, {10})}},
                                            {"c", {Tensor::zeros(DType::kF32, {30})}},
                                            {"d", {Tensor::zeros(DType::kF32, {1})}}};
  ASSERT_TRUE(write_checkpoint(folder_.path(), tensors, {.max_shard_bytes = 80}).ok());
  EXPECT_THAT(*list_directory(folder_.path()),
              ElementsAre("model-00001-of-00003.safetensors", "model-00002-of-00003.safetensors",
                          "model-00003-of-00003.safetensors", "model.safetensors.index.json"));
  const Json index = *read_json_file(folder_.file("model.safetensors.index.json"));
  EXPECT_EQ(index["metadata"]["total_size"], 204);
  EXPECT_EQ(index["weight_map"]["b"], "model-00001-of-00003.safetensors");
}

TEST(LoadFormats, NamesAreVllms) {
  EXPECT_EQ(*load_format_from_name("auto"), LoadFormat::kAuto);
  EXPECT_EQ(*load_format_from_name("dummy"), LoadFormat::kDummy);
  EXPECT_THAT(load_format_from_name("safetensor").status().message(), HasSubstr("did you mean 'safetensors'?"));
}

}  // namespace
}  // namespace millrace
