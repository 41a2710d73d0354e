#include <gtest/gtest.h>

#include "models/decoder.h"
#include "models/families/families.h"
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
      EXPECT_EQ(block_bytes(spec, dtype), 16 * kv_bytes_per_token(spec, dtype_bytes(dtype))) << model.name;
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

}  // namespace
}  // namespace millrace
