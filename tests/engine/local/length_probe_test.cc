#include "engine/local/length_probe.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <stdexcept>

#include "tests/engine/engine_fixture.h"

namespace millrace {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

TEST(LengthProbe, LengthsDoubleUpToTheLast) {
  EXPECT_THAT(lengths_to_try(40960), ElementsAre(4096, 8192, 16384, 32768, 40960));
  EXPECT_THAT(lengths_to_try(8192), ElementsAre(4096, 8192));
  EXPECT_THAT(lengths_to_try(4096), ElementsAre(4096));
  EXPECT_THAT(lengths_to_try(1024), ElementsAre(1024));
}

TEST(LengthProbe, TheFirstLengthThatDoesNotServeEndsTheSearch) {
  std::vector<int64_t> tried;
  const auto probe = [&](int64_t length) -> Result<LengthServed> {
    tried.push_back(length);
    if (length > 10000) return resource_exhausted("no room");
    return LengthServed{.max_model_len = length};
  };
  const LongestLength found = find_longest_length(lengths_to_try(65536), probe);
  EXPECT_THAT(tried, ElementsAre(4096, 8192, 16384));
  ASSERT_EQ(found.served.size(), 2u);
  EXPECT_EQ(found.served.back().max_model_len, 8192);
  EXPECT_EQ(found.failed_length, 16384);
  EXPECT_EQ(found.reason.message(), "no room");
  const LongestLength all = find_longest_length(lengths_to_try(8192), probe);
  EXPECT_EQ(all.failed_length, 0);
  EXPECT_TRUE(all.reason.ok());
}

// Nothing of a sequence is found in the cache: all prompts are computed.
TEST(StaticLoad, EverySequenceIsComputedAndGeneratedWhole) {
  EngineSetup setup;
  setup.text = false;
  TestEngine engine(setup);
  const Result<LoadTimes> times = run_static_load(*engine, {.sequences = 3, .prompt_tokens = 190, .output_tokens = 10});
  ASSERT_TRUE(times.ok()) << times.status().message();
  EXPECT_GT(times->prompt_seconds, 0);
  EXPECT_GT(times->output_seconds, 0);
  engine.settle();
  EXPECT_EQ(engine->stats().prompt_tokens, 3 * 190);
  EXPECT_EQ(engine->stats().generated_tokens, 3 * 10);
  EXPECT_EQ(engine->stats().prefix_hits, 0);
}

TEST(StaticLoad, WhatTheEngineRefusesOrFailsAtComesBack) {
  EngineSetup setup;
  setup.text = false;
  TestEngine engine(setup, [](const Batch&) { throw std::runtime_error("the model broke"); });
  EXPECT_EQ(run_static_load(*engine, {.prompt_tokens = 200, .output_tokens = 1}).status().code(),
            Code::kInvalidArgument);
  const Result<LoadTimes> broken = run_static_load(*engine, {.prompt_tokens = 20, .output_tokens = 4});
  ASSERT_FALSE(broken.ok());
  EXPECT_THAT(broken.status().message(), HasSubstr("the model broke"));
}

}  // namespace
}  // namespace millrace
