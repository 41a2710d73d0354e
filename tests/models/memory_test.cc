#include <gtest/gtest.h>

#include "kernels/gemm_a16.h"
#include "kernels/gemm_w8a8.h"
#include "models/decoder.h"
#include "models/families/families.h"
#include "models/families/names.h"
#include "models/families/planner.h"
#include "models/families/presets.h"
#include "models/families/read_spec.h"
#include "models/families/well_known.h"

namespace millrace {
namespace {

int64_t block_bytes(const DecoderSpec& spec, DType dtype) {
  return KvCache::bytes_per_block(Decoder::cache_config(spec, dtype, 1, 16));
}

TEST(CacheBytes, ABlockOfAPublishedModelTakesWhatIsPlannedForItsTokens) {
  for (const WellKnownModel& model : well_known_models()) {
    const DecoderSpec spec = read_spec(model.config)->spec;
    for (const DType dtype : {DType::kF32, DType::kBf16, DType::kF16})
      EXPECT_EQ(block_bytes(spec, dtype), kv_block_bytes(spec, kv_bytes_per_token(spec, dtype_bytes(dtype)), 16))
          << model.name;
  }
}

TEST(CacheBytes, ABlockOfIntegersTakesWhatIsPlannedToo) {
  for (const WellKnownModel& model : well_known_models()) {
    const DecoderSpec spec = read_spec(model.config)->spec;
    if (std::holds_alternative<Mla>(spec.layers.front().attention)) continue;
    for (const bool of_tokens : {false, true}) {
      const KvCache::Config config = Decoder::cache_config(spec, {DType::kI8, of_tokens}, 1, 16);
      EXPECT_EQ(KvCache::bytes_per_block(config),
                kv_block_bytes(spec, kv_bytes_per_token(spec, 1, 1, of_tokens ? 4 : 0), 16))
          << model.name;
    }
  }
}

// The cache pads heads to 16 elements and latents to 32, which small models notice.
TEST(CacheBytes, PaddingNeverMakesABlockSmallerThanPlanned) {
  for (const Family* family : all_families()) {
    const DecoderSpec spec = read_spec(*preset_config(family->name, "tiny"))->spec;
    const int64_t planned = 16 * kv_bytes_per_token(spec, 4), taken = block_bytes(spec, DType::kF32);
    EXPECT_GE(taken, planned) << family->name;
    EXPECT_LE(taken, 2 * planned) << family->name;
  }
}

int64_t int8_bytes(int64_t N, int64_t K) { return gemm_w8a8_packed_bytes(N, K) + 4 * N; }
// Without the line at its end.
int64_t int4_bytes(int64_t N, int64_t K) { return gemm_a16_packed_bytes(N, K, 128) - 64; }

// What the packed matrices of all layers take.
int64_t packed_bytes(const DecoderSpec& spec, int64_t (*bytes_of)(int64_t N, int64_t K)) {
  int64_t bytes = 0;
  for (const TensorNeed& need : needed_tensors(spec)) {
    if (!need.name.starts_with("layers.") || need.shape.size() != 2) continue;
    bytes += bytes_of(need.shape[0], need.shape[1]);
  }
  return bytes;
}

TEST(WeightBytes, NarrowMatricesTakeWhatTheirPackingTakes) {
  for (const char* name : {"Qwen/Qwen2.5-7B", "meta-llama/Llama-3.1-8B", "google/gemma-2-9b"}) {
    const DecoderSpec spec = read_spec(find_well_known(name)->config)->spec;
    const ModelSize size = model_size(spec);
    int64_t rest = 0;
    for (const WeightGroup& group : size.groups) rest += group.quantized ? 0 : 2 * group.elements;
    EXPECT_EQ(weight_bytes(spec, size, Precision::kInt8), packed_bytes(spec, int8_bytes) + rest) << name;
    EXPECT_EQ(weight_bytes(spec, size, Precision::kInt4), packed_bytes(spec, int4_bytes) + rest) << name;
  }
}

}  // namespace
}  // namespace millrace
