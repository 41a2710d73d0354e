#include "models/families/names.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "models/families/families.h"
#include "models/families/presets.h"
#include "models/families/read_spec.h"

namespace millrace {
namespace {

DecoderSpec small_spec() {
  DecoderSpec spec;
  spec.vocab_size = 100, spec.hidden_size = 12;
  Gqa gqa{.heads = 4, .kv_heads = 2, .head_dim = 6, .qkv_bias = true};
  spec.layers.assign(2, LayerSpec{gqa, Glu{.hidden = 20}});
  return spec;
}

Sizes shape_of(const std::vector<TensorNeed>& needs, const std::string& name) {
  for (const TensorNeed& need : needs)
    if (need.name == name) return need.shape;
  return {};
}

TEST(Names, ShapesFollowTheSpec) {
  const auto needs = needed_tensors(small_spec());
  EXPECT_EQ(shape_of(needs, "embed.weight"), (Sizes{100, 12}));
  EXPECT_EQ(shape_of(needs, "layers.1.attn.q.weight"), (Sizes{24, 12}));
  EXPECT_EQ(shape_of(needs, "layers.1.attn.k.bias"), (Sizes{12}));
  EXPECT_EQ(shape_of(needs, "layers.0.attn.out.weight"), (Sizes{12, 24}));
  EXPECT_EQ(shape_of(needs, "layers.0.attn.out.bias"), Sizes{});
  EXPECT_EQ(shape_of(needs, "layers.0.mlp.down.weight"), (Sizes{12, 20}));
  EXPECT_EQ(shape_of(needs, "lm_head.weight"), (Sizes{100, 12}));
}

TEST(Names, TiedEmbeddingsNeedNoHead) {
  DecoderSpec spec = small_spec();
  const int64_t untied = parameter_count(spec);
  spec.tie_word_embeddings = true;
  EXPECT_EQ(shape_of(needed_tensors(spec), "lm_head.weight"), Sizes{});
  EXPECT_EQ(parameter_count(spec), untied - 100 * 12);
}

TEST(Names, EveryFamilyHoldsEveryNeededTensorExactlyOnce) {
  for (const Family* family : all_families()) {
    SCOPED_TRACE(family->name);
    const DecoderSpec spec = read_spec(*preset_config(family->name, "tiny"))->spec;
    ASSERT_EQ(spec.family, family->name);
    std::multiset<std::string> held, needed;
    for (const FileTensor& file : file_tensors(*family, spec))
      for (const auto& part : file.parts) held.insert(part.canonical);
    for (const TensorNeed& need : needed_tensors(spec)) needed.insert(need.name);
    EXPECT_EQ(held, needed);
  }
}

TEST(Names, LlamaFilesUseHuggingFaceNames) {
  std::set<std::string> names;
  for (const FileTensor& file : file_tensors(kLlama, small_spec())) names.insert(file.name);
  for (const char* name : {"model.embed_tokens.weight", "model.layers.1.self_attn.q_proj.bias",
                           "model.layers.0.post_attention_layernorm.weight", "model.norm.weight", "lm_head.weight"})
    EXPECT_TRUE(names.contains(name)) << name;
}

TEST(Names, ConcatenatedRowsFollowOneAnother) {
  const Family fused = {.name = "fused",
                        .based_on = &kLlama,
                        .weights = {concat_rows({"layers.*.attn.q", "layers.*.attn.k", "layers.*.attn.v"},
                                                "model.layers.*.self_attn.qkv_proj")}};
  for (const FileTensor& file : file_tensors(fused, small_spec())) {
    if (file.name != "model.layers.1.self_attn.qkv_proj.weight") continue;
    EXPECT_EQ(file.shape, (Sizes{24 + 12 + 12, 12}));
    ASSERT_EQ(file.parts.size(), 3u);
    EXPECT_EQ(file.parts[1].canonical, "layers.1.attn.k.weight");
    EXPECT_EQ(file.parts[1].begin, 24);
    EXPECT_EQ(file.parts[1].end, 36);
    return;
  }
  FAIL() << "no fused tensor";
}

TEST(Names, ChatGlmWithoutGroupsKeepsEachHeadTogether) {
  DecoderSpec spec = small_spec();
  for (LayerSpec& layer : spec.layers) std::get<Gqa>(layer.attention).kv_heads = 4;
  const auto packing = [&](const Family& family) {
    for (const FileTensor& file : file_tensors(family, spec))
      if (file.name == "transformer.encoder.layers.0.self_attention.query_key_value.bias") return file;
    return FileTensor{};
  };
  EXPECT_EQ(packing(kChatGlmMultiHead).layout, FileTensor::Layout::kHeadGroups);
  EXPECT_EQ(packing(kChatGlmMultiHead).groups, 4);
  EXPECT_EQ(packing(kChatGlm).layout, FileTensor::Layout::kRows);
}

TEST(Names, PatternsMatchAnyRunOfCharacters) {
  EXPECT_TRUE(matches_pattern("*.rotary_emb.inv_freq", "model.layers.0.self_attn.rotary_emb.inv_freq"));
  EXPECT_FALSE(matches_pattern("*.rotary_emb.inv_freq", "model.rotary_emb.inv_freq.x"));
  EXPECT_TRUE(matches_pattern("a*b*c", "abbc"));
  EXPECT_FALSE(matches_pattern("a*b*c", "acb"));
  EXPECT_TRUE(is_harmless_tensor(kQwen2, "model.layers.3.self_attn.rotary_emb.inv_freq"));
  EXPECT_FALSE(is_harmless_tensor(kQwen2, "model.layers.3.self_attn.q_norm.weight"));
}

}  // namespace
}  // namespace millrace
