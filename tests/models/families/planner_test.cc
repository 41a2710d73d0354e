#include "models/families/planner.h"

#include <gtest/gtest.h>

#include <cmath>

#include "models/families/families.h"
#include "models/families/names.h"
#include "models/families/presets.h"
#include "models/families/read_spec.h"

namespace millrace {
namespace {

constexpr int64_t kGiB = int64_t{1} << 30;

// Two layers; V 1000, C 256, H 8, G 2, D 32, F 512.
DecoderSpec small_spec() {
  DecoderSpec spec;
  spec.vocab_size = 1000, spec.hidden_size = 256, spec.max_positions = 4096;
  spec.layers.assign(2,
                     LayerSpec{Gqa{.heads = 8, .kv_heads = 2, .head_dim = 32, .qkv_bias = true}, Glu{.hidden = 512}});
  return spec;
}

// Elements of a layer's matrices: q and out, k and v, gate, up and down. Biases: q, k, v. Norms: two.
constexpr int64_t kMatrices = 2 * 256 * 256 + 2 * 64 * 256 + 3 * 512 * 256;
constexpr int64_t kBiases = 256 + 2 * 64;
constexpr int64_t kNorms = 2 * 256;
constexpr int64_t kTables = 2 * 1000 * 256;  // embedding and lm_head

TEST(Planner, ParametersAreThoseOfTheNeededTensors) {
  const DecoderSpec spec = small_spec();
  const ModelSize size = model_size(spec);
  EXPECT_EQ(size.parameters, 2 * (kMatrices + kBiases + kNorms) + kTables + 256);
  EXPECT_EQ(size.parameters, parameter_count(spec));
  EXPECT_EQ(size.active_parameters, size.parameters);
}

TEST(Planner, EveryPrecisionStoresOnlyTheLayersMatricesInFewerBits) {
  const DecoderSpec spec = small_spec();
  const ModelSize size = model_size(spec);
  const int64_t rest = 2 * (kBiases + kNorms) + kTables + 256;
  EXPECT_EQ(weight_bytes(spec, size, Precision::kFloat32), 4 * size.parameters);
  EXPECT_EQ(weight_bytes(spec, size, Precision::kBfloat16), 2 * size.parameters);
  const int64_t rows = 2 * 256 + 2 * 64 + 2 * 512 + 256;  // of q, out, k, v, gate, up and down
  EXPECT_EQ(weight_bytes(spec, size, Precision::kInt8), 2 * (kMatrices + 8 * rows) + 2 * rest);
  const int64_t groups = kMatrices / 128;
  EXPECT_EQ(weight_bytes(spec, size, Precision::kInt4), 2 * (kMatrices / 2 + 4 * groups) + 2 * rest);
}

TEST(Planner, ARowThatEndsWithinAGroupOfFourBitWeightsHasAScaleForTheRest) {
  DecoderSpec spec = small_spec();
  const ModelSize even = model_size(spec);
  for (LayerSpec& layer : spec.layers) std::get<Glu>(layer.mlp).hidden = 513;  // down has 5 groups a row, not 4
  const ModelSize odd = model_size(spec);
  const auto groups = [](const ModelSize& size) {
    for (const WeightGroup& group : size.groups)
      if (group.role == "mlp.down.weight") return group.groups;
    return int64_t{0};
  };
  EXPECT_EQ(groups(even), 2 * 256 * 4);
  EXPECT_EQ(groups(odd), 2 * 256 * 5);
}

TEST(Planner, DevicesShareMatricesAndRepeatNormsAndScarceKeyHeads) {
  const DecoderSpec spec = small_spec();
  const ModelSize size = model_size(spec);
  const auto whole = [](int64_t n) { return 2 * (2 * 256 * 256 + 3 * 512 * 256 + 256) / n; };  // q, out, MLP; q's bias
  const int64_t kv = 2 * (2 * 64 * 256 + 2 * 64), norms = 2 * kNorms + 256;
  EXPECT_EQ(weight_bytes(spec, size, Precision::kBfloat16, 2), 2 * (whole(2) + kv / 2 + kTables / 2 + norms));
  EXPECT_EQ(weight_bytes(spec, size, Precision::kBfloat16, 8), 2 * (whole(8) + kv / 2 + kTables / 8 + norms));
}

TEST(Planner, AKeyHeadIsOnEveryDeviceThatHasNoneToItself) {
  const DecoderSpec spec = small_spec();
  EXPECT_EQ(kv_bytes_per_token(spec, 2), 2 * 2 * 2 * 32 * 2);  // layers, k and v, G, D, bytes
  EXPECT_EQ(kv_bytes_per_token(spec, 2, 2), kv_bytes_per_token(spec, 2) / 2);
  EXPECT_EQ(kv_bytes_per_token(spec, 2, 8), kv_bytes_per_token(spec, 2) / 2);
  EXPECT_EQ(kv_bytes_per_token(spec, 4), 2 * kv_bytes_per_token(spec, 2));
}

TEST(Planner, ACacheOfIntegersTakesAByteForAnElementAndMayHaveScales) {
  const DecoderSpec spec = small_spec();
  EXPECT_EQ(kv_bytes_per_token(spec, 1, 1, 4), 2 * 2 * 2 * (32 + 4));
  PlanRequest request{.memory_bytes = int64_t{24} << 30};
  const auto of = [&](KvPrecision kv, Precision weights) {
    request.kv = kv;
    const Result<ModelPlan> plan = plan_model(spec, request);
    EXPECT_TRUE(plan.ok()) << plan.status().message();
    return std::ranges::find(plan->precisions, weights, &PrecisionPlan::precision)->kv_bytes_per_token;
  };
  EXPECT_EQ(of(KvPrecision::kAuto, Precision::kBfloat16), 2 * 2 * 2 * 32 * 2);
  for (const Precision weights : kPrecisions) {
    EXPECT_EQ(of(KvPrecision::kInt8, weights), 2 * 2 * 2 * 32);
    EXPECT_EQ(of(KvPrecision::kInt8Dynamic, weights), 2 * 2 * 2 * (32 + 4));
  }
}

TEST(Planner, OnlyCountsThatDivideHeadsAndWidthShareAModel) {
  DecoderSpec spec = small_spec();
  for (const int64_t devices : {1, 2, 4, 8}) EXPECT_TRUE(can_split(spec, devices)) << devices;
  for (const int64_t devices : {3, 5, 16}) EXPECT_FALSE(can_split(spec, devices)) << devices;
  std::get<Gqa>(spec.layers[1].attention).kv_heads = 8;
  EXPECT_TRUE(can_split(spec, 8));
  std::get<Glu>(spec.layers[1].mlp).hidden = 516;  // 4 divides it, 8 does not
  EXPECT_FALSE(can_split(spec, 8));
}

// A layer of experts: 16 of F 64, of which a token reaches 2, and a shared one.
TEST(Planner, ATokenIsComputedWithTheExpertsItReachesOnly) {
  DecoderSpec spec = small_spec();
  spec.layers[1].mlp = Moe{.experts = 16, .experts_per_token = 2, .expert = {.hidden = 64}, .shared = {.hidden = 128}};
  const ModelSize size = model_size(spec);
  const int64_t expert = 3 * 64 * 256;
  EXPECT_EQ(size.parameters - size.active_parameters, 14 * expert);
  EXPECT_EQ(size.parameters, parameter_count(spec));
  EXPECT_TRUE(can_split(spec, 8));
  std::get<Moe>(spec.layers[1].mlp).shared.hidden = 132;
  EXPECT_FALSE(can_split(spec, 8));
}

TEST(Planner, LatentsAreWholeOnEveryDevice) {
  DecoderSpec spec = small_spec();
  const Mla mla{.heads = 8, .q_lora_rank = 96, .kv_lora_rank = 64, .nope_dim = 32, .rope_dim = 16, .v_dim = 32};
  for (LayerSpec& layer : spec.layers) layer.attention = mla;
  EXPECT_EQ(kv_bytes_per_token(spec, 2), 2 * (64 + 16) * 2);
  EXPECT_EQ(kv_bytes_per_token(spec, 2, 8), kv_bytes_per_token(spec, 2));
  const ModelSize size = model_size(spec);
  const int64_t cut = 2 * (8 * 48 * 96 + 8 * 64 * 64 + 256 * 256 + 3 * 512 * 256) + kTables;  // q_b, kv_b, out, MLP
  const int64_t whole = 2 * (96 * 256 + 96 + 80 * 256 + 64 + kNorms) + 256;                   // q_a, kv_a, norms
  EXPECT_EQ(weight_bytes(spec, size, Precision::kBfloat16, 8), 2 * (cut / 8 + whole));
  EXPECT_FALSE(can_split(spec, 16));
}

// Every tensor that any family can need has a rule; the tiny presets of all families need them all.
TEST(Planner, EveryTensorOfEveryFamilyIsCountedOnce) {
  for (const Family* family : all_families()) {
    SCOPED_TRACE(family->name);
    const DecoderSpec spec = read_spec(*preset_config(family->name, "tiny"))->spec;
    const ModelSize size = model_size(spec);
    EXPECT_EQ(size.parameters, parameter_count(spec));
    int64_t tensors = 0;
    for (const WeightGroup& group : size.groups) tensors += group.tensors;
    EXPECT_EQ(tensors, static_cast<int64_t>(needed_tensors(spec).size()));
    EXPECT_EQ(weight_bytes(spec, size, Precision::kBfloat16), 2 * size.parameters);
  }
}

PrecisionPlan bfloat16_plan(const DecoderSpec& spec, const PlanRequest& request) {
  const Result<ModelPlan> plan = plan_model(spec, request);
  EXPECT_TRUE(plan.ok()) << plan.status().message();
  return plan->precisions[1];
}

// The cache is what utilization leaves beside weights and buffers, in whole blocks.
TEST(Planner, TheLongestLengthIsWhatTheCacheHolds) {
  const DecoderSpec spec = small_spec();
  const int64_t weights = 2 * model_size(spec).parameters, kv = kv_bytes_per_token(spec, 2);
  PlanRequest request{.memory_bytes = weights + kRuntimeBytes + 100 * kv + 7, .utilization = 1, .max_model_len = 96};
  EXPECT_EQ(bfloat16_plan(spec, request).max_model_len, 96);  // 100 tokens are six blocks and a rest
  EXPECT_EQ(bfloat16_plan(spec, request).devices, 1);
  request.memory_bytes = kGiB;
  EXPECT_EQ(bfloat16_plan(spec, request).max_model_len, 4096);  // the checkpoint's
  EXPECT_GT(bfloat16_plan(spec, request).cache_tokens, 4096);
}

TEST(Planner, TheFewestDevicesHoldTheWantedLengthAndOneFewerDoNot) {
  DecoderSpec spec = small_spec();
  spec.max_positions = 1 << 20;
  for (const double gib : {0.26, 0.3, 0.5, 1.0}) {
    for (const int64_t length : {16, 4096, 200000, 1 << 20}) {
      const PlanRequest request{
          .memory_bytes = static_cast<int64_t>(gib * kGiB), .utilization = 1, .max_model_len = length};
      const PrecisionPlan plan = bfloat16_plan(spec, request);
      for (int64_t devices = 1; devices <= 8; devices *= 2) {
        PlanRequest on = request;
        on.devices = devices;
        const bool fits = bfloat16_plan(spec, on).max_model_len >= length;
        EXPECT_EQ(fits, plan.fewest_devices > 0 && devices >= plan.fewest_devices) << gib << ' ' << length;
      }
    }
  }
}

TEST(Planner, OfTheDevicesOfferedAsManyAreUsedAsDivideTheModel) {
  const DecoderSpec spec = small_spec();
  EXPECT_EQ(bfloat16_plan(spec, {.memory_bytes = kGiB, .devices = 7}).devices, 4);
  EXPECT_EQ(bfloat16_plan(spec, {.memory_bytes = kGiB, .devices = 100}).devices, 8);
}

TEST(Planner, AModelThatFitsNowhereHasNoLengthAndNoNumberOfDevices) {
  const PrecisionPlan plan = bfloat16_plan(small_spec(), {.memory_bytes = kRuntimeBytes});
  EXPECT_EQ(plan.fewest_devices, 0);
  EXPECT_EQ(plan.devices, 0);
  EXPECT_EQ(plan.max_model_len, 0);
  EXPECT_EQ(plan.weight_bytes, 2 * model_size(small_spec()).parameters);
}

TEST(Planner, ALengthBeyondTheCheckpointsIsRefusedUnlessItsRotationAdapts) {
  DecoderSpec spec = small_spec();
  const PlanRequest request{.memory_bytes = kGiB, .max_model_len = 8192};
  const Result<ModelPlan> refused = plan_model(spec, request);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.status().message(), "--max-model-len is 8192, but the checkpoint was made for 4096 tokens");
  spec.length_unbounded = true;
  EXPECT_EQ(bfloat16_plan(spec, request).max_model_len, 8192);
}

}  // namespace
}  // namespace millrace
