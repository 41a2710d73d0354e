#include "models/families/read_spec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "base/file.h"
#include "base/random.h"
#include "models/families/presets.h"
#include "models/families/rope.h"
#include "tests/golden_folders.h"

namespace millrace {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

Json llama_config() {
  return Json::parse(R"({"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 100,
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128, "rms_norm_eps": 1e-5, "torch_dtype": "bfloat16"})");
}
Json with(Json config, const char* changes) {
  const Json parsed = Json::parse(changes);
  for (const auto& [key, value] : parsed.items()) config[key] = value;
  return config;
}
Json without(Json config, const char* key) {
  config.erase(key);
  return config;
}
// The family's small preset with changes.
Json small(const char* family, const char* changes = "{}") { return with(*preset_config(family, "tiny"), changes); }
Json qwen2_config(const char* changes = "{}") {
  return with(with(llama_config(), R"({"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2"})"), changes);
}
const Gqa& attention(const DecoderSpec& spec, size_t layer = 0) { return std::get<Gqa>(spec.layers[layer].attention); }
const Glu& mlp(const DecoderSpec& spec) { return std::get<Glu>(spec.layers[0].mlp); }

DecoderSpec spec_of(const Json& config, const SpecOptions& options = {}) {
  const Result<SpecReading> reading = read_spec(config, options);
  EXPECT_TRUE(reading.ok()) << reading.status().to_string();
  return reading.ok() ? reading->spec : DecoderSpec{};
}
std::string error_of(const Json& config, const SpecOptions& options = {}) {
  const Result<SpecReading> reading = read_spec(config, options);
  EXPECT_FALSE(reading.ok());
  return reading.status().message();
}

TEST(ReadSpec, StatedValuesArriveAndAbsentOnesTakeTheReferenceDefaults) {
  const DecoderSpec spec = spec_of(without(llama_config(), "num_key_value_heads"));
  EXPECT_EQ(spec.family, "llama");
  EXPECT_EQ(spec.architecture, "LlamaForCausalLM");
  EXPECT_EQ(spec.vocab_size, 100);
  EXPECT_EQ(spec.layers.size(), 2u);
  EXPECT_EQ(attention(spec).kv_heads, 4);
  EXPECT_EQ(attention(spec).head_dim, 16);
  EXPECT_EQ(attention(spec).window, 0);
  EXPECT_FALSE(attention(spec).qkv_bias);
  EXPECT_EQ(mlp(spec).hidden, 96);
  EXPECT_EQ(mlp(spec).activation, Activation::kSilu);
  EXPECT_EQ(spec.rope.theta, 10000);
  EXPECT_EQ(spec.rope.dims, 16);
  EXPECT_EQ(spec.max_positions, 128);
  EXPECT_EQ(spec.dtype, DType::kBf16);
  EXPECT_EQ(spec.norm_eps, 1e-5);
  EXPECT_FALSE(spec.tie_word_embeddings);
  EXPECT_EQ(spec.bos_token_id, 1);
  EXPECT_THAT(spec.eos_token_ids, ElementsAre(2));
}

TEST(ReadSpec, LlamaBiasesFollowTheirKeys) {
  const DecoderSpec spec = spec_of(with(llama_config(), R"({"attention_bias": true, "mlp_bias": true})"));
  EXPECT_TRUE(attention(spec).qkv_bias && attention(spec).out_bias && mlp(spec).bias);
}

TEST(ReadSpec, Qwen2HasBiasesOnQkvOnly) {
  const DecoderSpec spec = spec_of(qwen2_config());
  EXPECT_TRUE(attention(spec).qkv_bias);
  EXPECT_FALSE(attention(spec).out_bias || mlp(spec).bias);
  EXPECT_EQ(attention(spec).window, 0);
  EXPECT_EQ(spec.bos_token_id, -1);
  EXPECT_TRUE(spec.eos_token_ids.empty());
}

TEST(ReadSpec, MistralHasItsDefaultWindowUnlessItIsNull) {
  const Json config = with(llama_config(), R"({"architectures": ["MistralForCausalLM"], "model_type": "mistral"})");
  EXPECT_EQ(attention(spec_of(config)).window, 4096);
  EXPECT_EQ(attention(spec_of(with(config, R"({"sliding_window": null})"))).window, 0);
  EXPECT_EQ(attention(spec_of(with(config, R"({"sliding_window": 24})")), 1).window, 24);
}

TEST(ReadSpec, Qwen2WindowNeedsUseSlidingWindowAndThenCoversEveryLayer) {
  EXPECT_EQ(attention(spec_of(qwen2_config(R"({"sliding_window": 24})"))).window, 0);
  const auto reading =
      read_spec(qwen2_config(R"({"sliding_window": 24, "use_sliding_window": true, "max_window_layers": 1})"));
  ASSERT_TRUE(reading.ok());
  EXPECT_EQ(attention(reading->spec, 0).window, 24);
  EXPECT_EQ(attention(reading->spec, 1).window, 24);
  EXPECT_THAT(reading->notes, ElementsAre(HasSubstr("max_window_layers is 1")));
}

TEST(ReadSpec, LayerTypesChooseWhichLayersHaveTheWindow) {
  const DecoderSpec spec = spec_of(qwen2_config(R"({"sliding_window": 24, "use_sliding_window": true,
      "layer_types": ["full_attention", "sliding_attention"]})"));
  EXPECT_EQ(attention(spec, 0).window, 0);
  EXPECT_EQ(attention(spec, 1).window, 24);
}

TEST(ReadSpec, HeadDimMayDifferFromHiddenSizeOverHeads) {
  EXPECT_EQ(attention(spec_of(with(llama_config(), R"({"head_dim": 32})"))).head_dim, 32);
  EXPECT_EQ(attention(spec_of(with(llama_config(), R"({"head_dim": null})"))).head_dim, 16);
}

TEST(ReadSpec, BothSpellingsOfDtypeAreReadAndMustAgree) {
  const Json config = without(llama_config(), "torch_dtype");
  EXPECT_FALSE(read_spec(config)->dtype_stated);
  EXPECT_EQ(spec_of(with(config, R"({"dtype": "float16"})")).dtype, DType::kF16);
  EXPECT_THAT(error_of(with(llama_config(), R"({"dtype": "float16"})")), HasSubstr("they must agree"));
}

TEST(ReadSpec, UnknownKeysAreReportedAndHarmlessOnesAreNot) {
  const auto reading = read_spec(with(llama_config(), R"({"pretraining_tp": 2, "use_cache": true, "mystery": 1,
      "rope_scaling": {"type": "linear", "factor": 2, "colour": "red"}})"));
  ASSERT_TRUE(reading.ok());
  EXPECT_THAT(reading->unknown_keys, ElementsAre("rope_scaling.colour", "mystery"));
}

TEST(ReadSpec, EosMayBeAListAndBosMayBeNull) {
  const DecoderSpec spec = spec_of(with(llama_config(), R"({"eos_token_id": [7, 9], "bos_token_id": null})"));
  EXPECT_THAT(spec.eos_token_ids, ElementsAre(7, 9));
  EXPECT_EQ(spec.bos_token_id, -1);
}

TEST(ReadSpec, ModelTypeDecidesWhereNoArchitectureIsStated) {
  EXPECT_EQ(spec_of(without(qwen2_config(), "architectures")).architecture, "Qwen2ForCausalLM");
}

struct Refused {
  const char* name;
  const char* changes;
  const char* message;
};
const Refused kRefused[] = {
    {"heads", R"({"num_attention_heads": 30, "num_key_value_heads": 8, "hidden_size": 960})",
     "config.json: num_attention_heads (30) is not divisible by num_key_value_heads (8)"},
    {"hidden", R"({"hidden_size": 65})",
     "config.json: hidden_size (65) is not divisible by num_attention_heads (4), and head_dim is not given"},
    {"odd", R"({"head_dim": 15})", "config.json: head_dim is 15; heads must have an even number of elements"},
    {"wide", R"({"num_attention_heads": 65536, "head_dim": 16384})",
     "num_attention_heads (65536) times head_dim (16384) is 1073741824; at most 4194304"},
    {"zero_layers", R"({"num_hidden_layers": 0})", "num_hidden_layers is 0; it must be a whole number from 1 to 10000"},
    {"negative", R"({"vocab_size": -5})", "vocab_size is -5; it must be a whole number from 1 to"},
    {"huge", R"({"hidden_size": 9223372036854775807})", "hidden_size is 9223372036854775807; it must be"},
    {"text", R"({"intermediate_size": "many"})", "intermediate_size is \"many\"; it must be a whole number"},
    {"null_size", R"({"hidden_size": null})", "hidden_size is null; it must be a whole number"},
    {"half", R"({"num_hidden_layers": 2.5})", "num_hidden_layers is 2.5; it must be a whole number"},
    {"act", R"({"hidden_act": "quick_gelu"})", "hidden_act is \"quick_gelu\"; it must be one of gelu"},
    {"eps", R"({"rms_norm_eps": 0})", "rms_norm_eps is 0; it must be a number above 0"},
    {"theta", R"({"rope_theta": 0.5})", "rope_theta is 0.5; it must be a number above 1"},
    {"flag", R"({"tie_word_embeddings": "yes"})", "tie_word_embeddings is \"yes\"; it must be true or false"},
    {"dtype", R"({"torch_dtype": "int8"})", "torch_dtype is \"int8\"; it must be float32, float16 or bfloat16"},
    {"experts", R"({"num_local_experts": 8})", "num_local_experts is 8: this family has no experts"},
    {"partial", R"({"partial_rotary_factor": 0.5})", "partial_rotary_factor is 0.5: this family rotates whole heads"},
    {"eos", R"({"eos_token_id": [1, -3]})", "eos_token_id is [1,-3]; it must be a token id"},
    {"model_type", R"({"model_type": "mistral"})", "architectures says LlamaForCausalLM but model_type says mistral"},
    {"architecture", R"({"architectures": ["QwenForCausalLM"]})",
     "architectures is [QwenForCausalLM], which is not served; served are LlamaForCausalLM, MistralForCausalLM, "},
    {"near_architecture", R"({"architectures": ["QwenForCausalLM"]})", "did you mean 'Qwen2ForCausalLM'?"},
    {"architectures_text", R"({"architectures": "LlamaForCausalLM"})", "it must be a list of class names"},
};
TEST(ReadSpec, EachBrokenValueIsRefusedByName) {
  for (const Refused& c : kRefused) {
    SCOPED_TRACE(c.name);
    EXPECT_THAT(error_of(with(llama_config(), c.changes)), HasSubstr(c.message));
  }
}

TEST(ReadSpec, EachRequiredSizeIsMissedByName) {
  for (const char* key : {"vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"})
    EXPECT_THAT(error_of(without(llama_config(), key)), HasSubstr(std::string("config.json: ") + key + " is missing"));
}

TEST(ReadSpec, WindowContradictionsAreRefused) {
  EXPECT_THAT(error_of(qwen2_config(R"({"layer_types": ["sliding_attention", "full_attention"]})")),
              HasSubstr("no sliding window is in use"));
  EXPECT_THAT(error_of(qwen2_config(R"({"layer_types": ["full_attention"]})")), HasSubstr("a list of 2 names"));
  EXPECT_THAT(error_of(qwen2_config(R"({"layer_types": ["full_attention", "chunked_attention"]})")),
              HasSubstr("\"chunked_attention\""));
}

TEST(ReadSpec, AnythingButAnObjectIsRefused) {
  EXPECT_THAT(error_of(Json::array()), HasSubstr("it must be an object"));
  EXPECT_THAT(error_of(Json::object()), HasSubstr("neither architectures nor model_type"));
}

// Rope scalings ------------------------------------------------------------------------------------------------------

Rope rope_of(const char* changes, const SpecOptions& options = {}) {
  return spec_of(with(llama_config(), changes), options).rope;
}

TEST(RopeConfig, EveryKindIsReadUnderBothSpellingsOfItsType) {
  EXPECT_EQ(rope_of(R"({"rope_scaling": null})").scaling, Rope::Scaling::kNone);
  EXPECT_EQ(rope_of(R"({"rope_scaling": {"rope_type": "default"}})").scaling, Rope::Scaling::kNone);
  EXPECT_EQ(rope_of(R"({"rope_scaling": {"type": "linear", "factor": 4}})").factor, 4);
  EXPECT_EQ(rope_of(R"({"rope_scaling": {"rope_type": "dynamic", "type": "dynamic", "factor": 2.0}})").scaling,
            Rope::Scaling::kDynamic);
  const Rope yarn = rope_of(R"({"rope_scaling": {"rope_type": "yarn", "factor": 4, "beta_fast": 16, "beta_slow": null,
                               "attention_factor": 1.25, "truncate": false}})");
  EXPECT_EQ(yarn.scaling, Rope::Scaling::kYarn);
  EXPECT_EQ(yarn.original_max_positions, 128);
  EXPECT_EQ(yarn.beta_fast, 16);
  EXPECT_EQ(yarn.beta_slow, 1);
  EXPECT_EQ(yarn.attention_factor, 1.25);
  EXPECT_FALSE(yarn.truncate);
  const Rope llama3 = rope_of(R"({"rope_scaling": {"rope_type": "llama3", "factor": 8, "low_freq_factor": 1,
                                 "high_freq_factor": 4, "original_max_position_embeddings": 32}})");
  EXPECT_EQ(llama3.scaling, Rope::Scaling::kLlama3);
  EXPECT_EQ(llama3.original_max_positions, 32);
}

constexpr const char* kFactors = R"("short_factor": [1,1,1,1,1,1,1,1], "long_factor": [2,2,2,2,2,2,2,2])";

TEST(RopeConfig, LongRopeTakesItsFactorFromTheTwoLengthsOrItself) {
  const std::string head = std::string(R"({"rope_scaling": {"type": "su", )") + kFactors;
  const Rope by_lengths = rope_of((head + R"(}, "original_max_position_embeddings": 32})").c_str());
  EXPECT_EQ(by_lengths.scaling, Rope::Scaling::kLongRope);
  EXPECT_EQ(by_lengths.factor, 4);
  EXPECT_EQ(by_lengths.original_max_positions, 32);
  EXPECT_FALSE(by_lengths.switches_at_original);
  const Rope by_factor = rope_of((head + R"(, "factor": 8}})").c_str());
  EXPECT_EQ(by_factor.factor, 8);
  EXPECT_EQ(by_factor.original_max_positions, 128);
}

TEST(RopeConfig, LongestSequenceFollowsTheScaling) {
  const auto longest = [](const char* changes) { return spec_of(with(llama_config(), changes)).max_positions; };
  EXPECT_EQ(longest(R"({"rope_scaling": {"type": "linear", "factor": 4}})"), 512);
  EXPECT_EQ(longest(R"({"rope_scaling": {"type": "dynamic", "factor": 2}})"), 2048);
  EXPECT_EQ(longest(R"({"rope_scaling": {"type": "dynamic", "factor": 20}})"), 2560);
  EXPECT_EQ(longest(R"({"rope_scaling": {"type": "yarn", "factor": 4}})"), 512);
  EXPECT_EQ(longest(R"({"rope_scaling": {"type": "yarn", "factor": 4, "original_max_position_embeddings": 128}})"),
            512);
  EXPECT_EQ(
      longest(R"({"rope_scaling": {"type": "llama3", "factor": 4, "low_freq_factor": 1, "high_freq_factor": 4}})"),
      128);
  EXPECT_EQ(longest(R"({"rope_scaling": {"type": "linear", "factor": 1e30}})"), 0x7fffffff);
  EXPECT_TRUE(spec_of(with(llama_config(), R"({"rope_scaling": {"type": "dynamic", "factor": 2}})")).length_unbounded);
}

TEST(RopeConfig, YarnIgnoresADifferentOriginalLengthInRopeScalingAndSaysSo) {
  const auto reading = read_spec(with(
      llama_config(), R"({"rope_scaling": {"type": "yarn", "factor": 4, "original_max_position_embeddings": 32}})"));
  ASSERT_TRUE(reading.ok());
  EXPECT_EQ(reading->spec.rope.original_max_positions, 128);
  EXPECT_THAT(reading->notes, ElementsAre(HasSubstr("original_max_position_embeddings is 32")));
}

TEST(RopeConfig, Qwen3GoesByTheOriginalLength) {
  const SpecReading yarn = *read_spec(small("qwen3", R"({"max_position_embeddings": 128, "rope_scaling":
      {"rope_type": "yarn", "factor": 8, "original_max_position_embeddings": 32}})"));
  EXPECT_EQ(yarn.spec.rope.original_max_positions, 32);
  EXPECT_EQ(yarn.spec.max_positions, 256);
  EXPECT_TRUE(yarn.notes.empty());
  const std::string longrope = std::string(R"({"head_dim": 16, "original_max_position_embeddings": 32,
      "rope_scaling": {"rope_type": "longrope", )") +
                               kFactors + "}}";
  for (const char* family : {"qwen3", "qwen3_moe", "glm4"}) {
    const Json config = with(small(family, longrope.c_str()), R"({"partial_rotary_factor": 1})");
    EXPECT_TRUE(spec_of(config).rope.switches_at_original) << family;
  }
}

TEST(RopeConfig, RopeParametersHoldThetaAndTheirOwnRules) {
  const DecoderSpec yarn = spec_of(with(llama_config(), R"({"rope_parameters": {"rope_type": "yarn", "factor": 4,
      "original_max_position_embeddings": 32, "rope_theta": 500000.0}})"));
  EXPECT_EQ(yarn.rope.theta, 500000);
  EXPECT_EQ(yarn.rope.original_max_positions, 32);
  EXPECT_EQ(yarn.max_positions, 128);
  const Rope plain = rope_of(R"({"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}})");
  EXPECT_EQ(plain.scaling, Rope::Scaling::kNone);
  EXPECT_EQ(plain.theta, 1e6);
  const std::string longrope = std::string(R"({"rope_parameters": {"rope_type": "longrope", )") + kFactors +
                               R"(, "original_max_position_embeddings": 64}})";
  EXPECT_TRUE(rope_of(longrope.c_str()).switches_at_original);
}

TEST(RopeConfig, OptionsReplaceWhatTheFileSays) {
  SpecOptions options;
  options.rope_scaling = Json::parse(R"({"type": "yarn", "factor": 2.0, "original_max_position_embeddings": 64})");
  options.rope_theta = 5e5;
  const DecoderSpec spec =
      spec_of(with(llama_config(), R"({"rope_scaling": {"type": "linear", "factor": 4}})"), options);
  EXPECT_EQ(spec.rope.scaling, Rope::Scaling::kYarn);
  EXPECT_EQ(spec.rope.original_max_positions, 64);
  EXPECT_EQ(spec.rope.theta, 5e5);
  EXPECT_EQ(spec.max_positions, 128);
  options.rope_scaling = Json();
  EXPECT_EQ(rope_of(R"({"rope_scaling": {"type": "linear", "factor": 4}})", options).scaling, Rope::Scaling::kNone);
}

const Refused kRefusedRopes[] = {
    {"types", R"({"rope_scaling": {"type": "linear", "rope_type": "yarn", "factor": 2}})",
     "config.json: rope_scaling: rope_type is yarn but type is linear; they must agree"},
    {"no_type", R"({"rope_scaling": {"factor": 2}})",
     "rope_scaling has no rope_type; it must be one of default, linear"},
    {"unknown", R"({"rope_scaling": {"type": "yarm", "factor": 2}})", "rope_type is yarm; it must be one of"},
    {"no_factor", R"({"rope_scaling": {"type": "linear"}})", "rope_scaling has no factor"},
    {"small", R"({"rope_scaling": {"type": "linear", "factor": 0.5}})", "factor is 0.5; it must be 1 or more"},
    {"list", R"({"rope_scaling": []})", "rope_scaling is []; it must be an object or null"},
    {"betas", R"({"rope_scaling": {"type": "yarn", "factor": 2, "beta_fast": 1, "beta_slow": 2}})",
     "beta_fast (1) is below beta_slow (2)"},
    {"frequencies", R"({"rope_scaling": {"type": "llama3", "factor": 2, "low_freq_factor": 4, "high_freq_factor": 4}})",
     "high_freq_factor (4) must be above low_freq_factor (4)"},
    {"llama3", R"({"rope_scaling": {"type": "llama3", "factor": 2, "low_freq_factor": 4}})",
     "rope_scaling has no high_freq_factor"},
    {"count", R"({"rope_scaling": {"type": "longrope", "factor": 2, "short_factor": [1], "long_factor": [1]}})",
     "rope_scaling.short_factor is [1]; it must be a list of 8 numbers"},
    {"both", R"({"rope_scaling": {"type": "linear", "factor": 2},
               "rope_parameters": {"rope_type": "linear", "factor": 3}})",
     "rope_scaling.factor is 2 but rope_parameters.factor is 3; they must agree"},
    {"nested", R"({"rope_parameters": {"full_attention": {"rope_type": "default"}}})",
     "rotations that differ by layer are not built"},
    {"theta", R"({"rope_theta": 10000.0, "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0}})",
     "rope_theta is 10000 but rope_parameters.rope_theta is 500000; they must agree"},
    {"original", R"({"rope_scaling": {"type": "yarn", "factor": 2, "original_max_position_embeddings": -1}})",
     "original_max_position_embeddings is -1; it must be an integer from 1"},
};
TEST(RopeConfig, EachContradictionIsRefusedByName) {
  for (const Refused& c : kRefusedRopes) {
    SCOPED_TRACE(c.name);
    EXPECT_THAT(error_of(with(llama_config(), c.changes)), HasSubstr(c.message));
  }
}

// Replaces a random value anywhere in `json` by something unfit.
void spoil(Json& json, Random& random) {
  static const Json kUnfit[] = {nullptr,
                                true,
                                -1,
                                0,
                                3.5,
                                1e300,
                                9223372036854775807,
                                "text",
                                Json::array(),
                                Json::object(),
                                {1, 2},
                                {{"type", 7}},
                                18446744073709551615u};
  if (json.is_structured() && !json.empty() && random.below(4) != 0) {
    auto it = json.begin();
    std::advance(it, random.below(static_cast<uint32_t>(json.size())));
    return spoil(*it, random);
  }
  json = kUnfit[random.below(std::size(kUnfit))];
}

TEST(ReadSpec, RandomlySpoiltConfigsGiveASpecOrAStatus) {
  Random random(11);
  int refused = 0;
  const std::string longrope = std::string(R"({"rope_scaling": {"type": "longrope", "factor": 2, )") + kFactors + "}}";
  for (int i = 0; i < 4000; ++i) {
    Json config = i % 3 == 0   ? with(qwen2_config(), R"({"rope_scaling": {"type": "yarn", "factor": 4}})")
                  : i % 3 == 1 ? with(llama_config(), longrope.c_str())
                               : qwen2_config(R"({"use_sliding_window": true, "sliding_window": 8})");
    for (uint32_t n = 1 + random.below(3); n > 0; --n) spoil(config, random);
    const auto reading = read_spec(config);
    refused += !reading.ok();
    if (!reading.ok()) {
      EXPECT_FALSE(reading.status().message().empty());
      continue;
    }
    EXPECT_GE(reading->spec.max_positions, 1);
    EXPECT_LE(reading->spec.layers.size(), 10000u);
  }
  EXPECT_GT(refused, 1000);
}

// Golden folders -----------------------------------------------------------------------------------------------------

TEST(ReadSpec, GoldenConfigsAreReadWithoutUnknownKeys) {
  for (const std::string& folder : golden_folders()) {
    SCOPED_TRACE(folder);
    const auto config = read_json_file(folder + "/config.json");
    ASSERT_TRUE(config.ok());
    const auto reading = read_spec(*config);
    ASSERT_TRUE(reading.ok()) << reading.status().to_string();
    EXPECT_TRUE(reading->unknown_keys.empty()) << reading->unknown_keys.front();
    EXPECT_TRUE(reading->notes.empty()) << reading->notes.front();
    const GoldenFolder* known = std::ranges::find(kGoldenFolders, std::filesystem::path(folder).filename().string(),
                                                  [](const GoldenFolder& f) { return std::string(f.name); });
    ASSERT_NE(known, std::end(kGoldenFolders));
    EXPECT_EQ(reading->family->name, known->family);
    EXPECT_EQ(reading->spec.vocab_size, (*config)["vocab_size"].get<int64_t>());
  }
}

TEST(ReadSpec, FalconIsFourFamiliesByItsSwitches) {
  const auto residual = [](const char* family, const char* changes) {
    return spec_of(small(family, changes)).residual;
  };
  EXPECT_EQ(residual("falcon", "{}"), Residual::kParallelTwoNorms);
  EXPECT_EQ(residual("falcon", R"({"num_ln_in_parallel_attn": 2})"), Residual::kParallelTwoNorms);
  EXPECT_EQ(residual("falcon2", "{}"), Residual::kParallel);
  EXPECT_EQ(residual("falcon_7b", "{}"), Residual::kParallel);
  EXPECT_EQ(residual("falcon_rw", "{}"), Residual::kSequential);
  EXPECT_THAT(error_of(small("falcon", R"({"num_ln_in_parallel_attn": 3})")),
              HasSubstr("num_ln_in_parallel_attn is 3"));
}

TEST(ReadSpec, FalconHeadsFollowMultiQueryUnlessTheDecoderIsNew) {
  EXPECT_EQ(attention(spec_of(small("falcon_7b", R"({"num_kv_heads": 4})"))).kv_heads, 1);
  EXPECT_EQ(attention(spec_of(small("falcon_rw", R"({"multi_query": false, "num_kv_heads": null})"))).kv_heads, 4);
  EXPECT_EQ(attention(spec_of(small("falcon", R"({"multi_query": true, "num_kv_heads": 2})"))).kv_heads, 2);
}

TEST(ReadSpec, LinearBiasesReplaceTheRotation) {
  const DecoderSpec falcon = spec_of(small("falcon_rw", R"({"alibi": true, "bias": true})"));
  EXPECT_EQ(attention(falcon).alibi, Alibi::kBf16Unscaled);
  EXPECT_EQ(attention(falcon).alibi_factor, 2);
  EXPECT_THAT(read_spec(small("falcon_rw", R"({"alibi": true})"))->notes, ElementsAre(HasSubstr("count 2 times")));
  EXPECT_TRUE(read_spec(small("falcon_rw"))->notes.empty());
  EXPECT_EQ(falcon.rope.dims, 0);
  EXPECT_TRUE(attention(falcon).qkv_bias && attention(falcon).out_bias);
  const DecoderSpec baichuan = spec_of(small("baichuan_13b"));
  EXPECT_EQ(attention(baichuan).alibi, Alibi::kScaled);
  EXPECT_EQ(attention(baichuan).alibi_factor, 1);
  EXPECT_EQ(baichuan.rope.dims, 0);
  EXPECT_THAT(error_of(small("baichuan_13b", R"({"rope_scaling": {"rope_type": "linear", "factor": 2}})")),
              HasSubstr("rope_scaling"));
}

TEST(ReadSpec, BaichuansFirstGenerationIsRefusedByItsVocabulary) {
  EXPECT_EQ(spec_of(small("baichuan")).normalized_head, true);
  EXPECT_THAT(error_of(small("baichuan", R"({"vocab_size": 64000})")), HasSubstr("vocab_size is 64000"));
}

TEST(ReadSpec, ExpertsAreWhereTheirKeysSay) {
  const auto has_experts = [](const Json& config) {
    std::vector<bool> out;
    for (const LayerSpec& layer : spec_of(config).layers) out.push_back(std::holds_alternative<Moe>(layer.mlp));
    return out;
  };
  EXPECT_THAT(has_experts(small("qwen2_moe", R"({"num_hidden_layers": 4})")), ElementsAre(true, true, true, true));
  EXPECT_THAT(has_experts(small("qwen2_moe", R"({"num_hidden_layers": 4, "decoder_sparse_step": 2})")),
              ElementsAre(false, true, false, true));
  EXPECT_THAT(has_experts(small("qwen3_moe", R"({"num_hidden_layers": 4, "mlp_only_layers": [1, 9]})")),
              ElementsAre(true, false, true, true));
  EXPECT_THAT(has_experts(small("deepseek_v2", R"({"num_hidden_layers": 4, "moe_layer_freq": 2})")),
              ElementsAre(false, false, true, false));
  EXPECT_THAT(has_experts(small("deepseek_v3", R"({"n_routed_experts": null})")), ElementsAre(false, false));
}

TEST(ReadSpec, AbsentKeysTakeTheDefaultsOfTheirOwnClass) {
  EXPECT_EQ(spec_of(without(small("mixtral"), "rms_norm_eps")).norm_eps, 1e-5);
  const Json gemma2 = small("gemma2", R"({"num_attention_heads": 16})");
  EXPECT_EQ(attention(spec_of(without(gemma2, "num_key_value_heads"))).kv_heads, 16);
  Json v3 = small("deepseek_v3", R"({"num_hidden_layers": 4})");
  for (const char* key : {"n_routed_experts", "num_experts_per_tok", "n_shared_experts", "first_k_dense_replace",
                          "n_group", "topk_group", "moe_intermediate_size"})
    v3.erase(key);
  const DecoderSpec spec = spec_of(v3);
  EXPECT_TRUE(std::holds_alternative<Glu>(spec.layers[2].mlp));
  const Moe& moe = std::get<Moe>(spec.layers[3].mlp);
  EXPECT_EQ(moe.experts, 256);
  EXPECT_EQ(moe.experts_per_token, 8);
  EXPECT_EQ(moe.shared.hidden, 2048);
  EXPECT_EQ(moe.router.groups, 8);
  EXPECT_EQ(moe.router.groups_per_token, 4);
}

TEST(ReadSpec, PublishedKeysWithoutEffectAreKnown) {
  const auto unknown = [](const char* family, const char* changes) {
    return read_spec(small(family, changes))->unknown_keys;
  };
  EXPECT_THAT(unknown("gemma2", R"({"sliding_window_size": 4096})"), ElementsAre());
  EXPECT_THAT(unknown("chatglm", R"({"num_hidden_layers": 2})"), ElementsAre());
  EXPECT_THAT(unknown("gpt2", R"({"output_past": true})"), ElementsAre());
  EXPECT_THAT(unknown("qwen2_moe", R"({"qkv_bias": true})"), ElementsAre());
  EXPECT_THAT(unknown("phi3", R"({"full_attn_mod": 1, "interpolate_factor": 1, "lm_head_bias": false,
                                   "mlp_bias": false})"),
              ElementsAre());
  EXPECT_FALSE(attention(spec_of(small("qwen2_moe", R"({"qkv_bias": false})"))).qkv_bias);
  EXPECT_THAT(error_of(small("chatglm", R"({"num_hidden_layers": 3})")), HasSubstr("num_hidden_layers"));
  EXPECT_THAT(error_of(small("phi3", R"({"lm_head_bias": true})")), HasSubstr("lm_head_bias is true"));
}

TEST(ReadSpec, RoutersFollowTheirFamily) {
  const auto routing = [](const Json& config) { return std::get<Moe>(spec_of(config).layers.back().mlp).router; };
  EXPECT_TRUE(routing(small("mixtral")).normalize);
  EXPECT_FALSE(routing(small("qwen2_moe")).normalize);
  const Routing v2 = routing(small("deepseek_v2", R"({"topk_method": "group_limited_greedy", "n_group": 4,
      "topk_group": 2, "routed_scaling_factor": 3.0, "norm_topk_prob": false})"));
  EXPECT_EQ(v2.groups, 4);
  EXPECT_EQ(v2.group_score, Routing::GroupScore::kMax);
  EXPECT_EQ(v2.scale, 3.0);
  EXPECT_EQ(routing(small("deepseek_v2", R"({"routed_scaling_factor": 3.0, "norm_topk_prob": true})")).scale, 1.0);
  const Routing one = routing(small("deepseek_v2", R"({"routed_scaling_factor": 3.0, "norm_topk_prob": true,
      "num_experts_per_tok": 1})"));
  EXPECT_FALSE(one.normalize);
  EXPECT_EQ(one.scale, 3.0);
  const Routing v3 = routing(small("deepseek_v3", R"({"routed_scaling_factor": 2.5})"));
  EXPECT_TRUE(v3.normalize && v3.correction_bias);
  EXPECT_EQ(v3.scale, 2.5);
  EXPECT_EQ(v3.group_score, Routing::GroupScore::kTwoBest);
  EXPECT_THAT(error_of(small("deepseek_v3", R"({"topk_method": "random"})")), HasSubstr("topk_method is \"random\""));
  EXPECT_THAT(error_of(small("deepseek_v3", R"({"n_group": 3})")), HasSubstr("n_group (3) does not divide"));
}

TEST(ReadSpec, LatentAttentionsNeighboursTurnUnlessSaidOtherwise) {
  const SpecReading reading = *read_spec(small("deepseek_v3", R"({"rope_interleave": false, "qk_head_dim": 32})"));
  EXPECT_EQ(reading.spec.rope.layout, Rope::Layout::kHalves);
  EXPECT_TRUE(reading.unknown_keys.empty());
  EXPECT_EQ(spec_of(small("deepseek_v3")).rope.layout, Rope::Layout::kInterleaved);
}

TEST(ReadSpec, LatentAttentionTakesTheSquareOfMscaleAllDim) {
  const DecoderSpec spec = spec_of(small("deepseek_v2", R"({"rope_scaling": {"type": "yarn", "factor": 40,
      "mscale": 0.707, "mscale_all_dim": 0.707, "original_max_position_embeddings": 32, "beta_fast": 32,
      "beta_slow": 1}})"));
  const Mla& mla = std::get<Mla>(spec.layers[0].attention);
  const double m = 0.1 * 0.707 * std::log(40.0) + 1;
  EXPECT_DOUBLE_EQ(mla.scale, m * m / std::sqrt(32.0));
  EXPECT_DOUBLE_EQ(spec.rope.attention_factor, 1);
  EXPECT_EQ(spec.rope.original_max_positions, 32);
  EXPECT_EQ(spec.rope.layout, Rope::Layout::kInterleaved);
}

TEST(ReadSpec, GemmaReadsHiddenActivationOnly) {
  for (const char* changes : {"{}", R"({"hidden_activation": null, "hidden_act": "gelu"})"})
    EXPECT_EQ(mlp(spec_of(small("gemma", changes))).activation, Activation::kGeluTanh);
  EXPECT_EQ(mlp(spec_of(small("gemma", R"({"hidden_activation": "gelu"})"))).activation, Activation::kGelu);
  EXPECT_DOUBLE_EQ(spec_of(small("gemma")).embedding_scale, 8);
}

TEST(ReadSpec, Gemma2WindowsEveryOtherLayer) {
  const DecoderSpec spec = spec_of(small("gemma2", R"({"num_hidden_layers": 3, "sliding_window": 24})"));
  EXPECT_EQ(attention(spec, 0).window, 24);
  EXPECT_EQ(attention(spec, 1).window, 0);
  EXPECT_EQ(attention(spec, 2).window, 24);
  EXPECT_EQ(attention(spec).soft_cap, 50);
  EXPECT_DOUBLE_EQ(attention(spec).scale, 1 / std::sqrt(224.0));
}

TEST(ReadSpec, QwenTurnsAndGrowsOnlyWhereItsKeysSay) {
  const DecoderSpec both = spec_of(small("qwen", R"({"seq_length": 32})"));
  EXPECT_EQ(both.rope.scaling, Rope::Scaling::kQwenNtk);
  EXPECT_EQ(both.rope.original_max_positions, 32);
  EXPECT_EQ(attention(both).logn_length, 32);
  EXPECT_EQ(both.max_positions, 512);
  const DecoderSpec plain =
      spec_of(small("qwen", R"({"seq_length": 32, "use_dynamic_ntk": false, "use_logn_attn": false})"));
  EXPECT_EQ(plain.rope.scaling, Rope::Scaling::kNone);
  EXPECT_EQ(attention(plain).logn_length, 0);
  EXPECT_EQ(plain.max_positions, 32);
  const DecoderSpec grows = spec_of(small("qwen", R"({"seq_length": 32, "use_dynamic_ntk": false})"));
  EXPECT_EQ(grows.rope.scaling, Rope::Scaling::kNone);
  EXPECT_EQ(grows.max_positions, 512);
  EXPECT_EQ(mlp(both).hidden, 80);
}

TEST(ReadSpec, ChatGlmScalesThetaAndTurnsHalfOfEachHead) {
  const DecoderSpec spec = spec_of(small("chatglm", R"({"rope_ratio": 50, "kv_channels": 16})"));
  EXPECT_EQ(spec.rope.theta, 500000);
  EXPECT_EQ(spec.rope.dims, 8);
  EXPECT_EQ(attention(spec).kv_heads, 2);
  EXPECT_EQ(attention(spec_of(small("chatglm", R"({"multi_query_attention": false})"))).kv_heads, 4);
  EXPECT_THAT(error_of(small("chatglm", R"({"rmsnorm": false})")), HasSubstr("rmsnorm is false"));
  const SpecReading tied = *read_spec(small("chatglm", R"({"tie_word_embeddings": true})"));
  EXPECT_FALSE(tied.spec.tie_word_embeddings);
  EXPECT_TRUE(tied.unknown_keys.empty());
}

TEST(ReadSpec, Phi3SwitchesItsLongRopeFactors) {
  const DecoderSpec spec = spec_of(small("phi3", R"({"original_max_position_embeddings": 64, "rope_scaling":
      {"type": "su", "short_factor": [1, 1, 1, 1, 1, 1, 1, 1], "long_factor": [2, 2, 2, 2, 2, 2, 2, 2]}})"));
  EXPECT_TRUE(spec.rope.switches_at_original);
  EXPECT_EQ(rotation_lengths(spec.rope).group(64), 0);
  EXPECT_NE(rotation_lengths(spec.rope).group(65), 0);
  EXPECT_EQ(rotation_lengths(spec.rope).group(65), rotation_lengths(spec.rope).group(500));
}

TEST(ReadSpec, Gpt2WidthIsFourTimesTheHiddenSizeUnlessStated) {
  const auto hidden = [](const char* changes) {
    return std::get<Mlp>(spec_of(small("gpt2", changes)).layers[0].mlp).hidden;
  };
  EXPECT_EQ(hidden(R"({"n_inner": null})"), 256);
  EXPECT_EQ(hidden(R"({"n_inner": 100})"), 100);
  EXPECT_EQ(spec_of(small("gpt2")).learned_positions, 512);
}

TEST(ReadSpec, APublishedConfigIsReadWithoutUnknownKeys) {
  const std::string path = MILLRACE_SOURCE_DIR "/../shared/data/tokenizers/smollm2/config.json";
  if (!file_exists(path)) GTEST_SKIP() << "the config of SmolLM2: " << path << " is absent";
  const auto reading = read_spec(*read_json_file(path));
  ASSERT_TRUE(reading.ok()) << reading.status().to_string();
  EXPECT_TRUE(reading->unknown_keys.empty()) << reading->unknown_keys.front();
  EXPECT_EQ(attention(reading->spec).kv_heads, 3);
}

}  // namespace
}  // namespace millrace
