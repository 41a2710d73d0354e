#include "engine/scheduler.h"

#include <gtest/gtest.h>

#include <set>

#include "base/random.h"
#include "tests/engine/simulation.h"

namespace millrace {
namespace {

struct Case {
  const char* name;
  SchedulerConfig config;
  BlockManager::Config blocks;
};

const Case kCases[] = {
    {"roomy", {.max_num_seqs = 16, .max_num_batched_tokens = 64}, {.total_blocks = 200, .block_tokens = 4}},
    {"few_blocks", {.max_num_seqs = 16, .max_num_batched_tokens = 64}, {.total_blocks = 18, .block_tokens = 4}},
    {"one_block_each", {.max_num_seqs = 4, .max_num_batched_tokens = 7}, {.total_blocks = 12, .block_tokens = 8}},
    {"budget_one", {.max_num_seqs = 1, .max_num_batched_tokens = 1}, {.total_blocks = 20, .block_tokens = 4}},
    {"threshold",
     {.max_num_seqs = 8, .max_num_batched_tokens = 32, .long_prefill_token_threshold = 5},
     {.total_blocks = 30, .block_tokens = 4}},
    {"no_chunking",
     {.max_num_seqs = 16, .max_num_batched_tokens = 64, .chunked_prefill = false},
     {.total_blocks = 20, .block_tokens = 4}},
    {"no_caching",
     {.max_num_seqs = 16, .max_num_batched_tokens = 32, .prefix_caching = false},
     {.total_blocks = 18, .block_tokens = 4}},
    {"priority",
     {.max_num_seqs = 16, .max_num_batched_tokens = 32, .policy = SchedulingPolicy::kPriority},
     {.total_blocks = 18, .block_tokens = 4}},
    {"multi_step",
     {.max_num_seqs = 8, .max_num_batched_tokens = 32, .num_steps = 4},
     {.total_blocks = 20, .block_tokens = 4}},
    {"rope",
     {.max_num_seqs = 8, .max_num_batched_tokens = 16, .rotation = {20}},
     {.total_blocks = 20, .block_tokens = 4}},
    {"rope_multi_step_priority",
     {.max_num_seqs = 8,
      .max_num_batched_tokens = 64,
      .chunked_prefill = false,
      .policy = SchedulingPolicy::kPriority,
      .num_steps = 3,
      .rotation = {23}},
     {.total_blocks = 24, .block_tokens = 4}},
    {"rope_doublings_multi_step",
     {.max_num_seqs = 8,
      .max_num_batched_tokens = 32,
      .num_steps = 4,
      .rotation = {5, RotationLengths::Beyond::kDoublings}},
     {.total_blocks = 24, .block_tokens = 4}},
    {"rope_once",
     {.max_num_seqs = 8, .max_num_batched_tokens = 32, .rotation = {13, RotationLengths::Beyond::kOnce}},
     {.total_blocks = 24, .block_tokens = 4}},
};

constexpr int64_t kMaxLength = 60;

// Prompts over three tokens, often with a common front, so that prefixes really meet.
SequenceGroup random_group(Random& random, uint64_t id) {
  SequenceGroup group;
  group.id = id;
  group.count = random.below(5) == 0 ? 1 + static_cast<int32_t>(random.below(4)) : 1;
  const int64_t common = random.below(2) == 0 ? random.below(24) : 0;
  for (int64_t i = 0; i < common; ++i) group.prompt.push_back(static_cast<int32_t>(i % 3));
  for (uint32_t i = 1 + random.below(24); i > 0; --i) group.prompt.push_back(static_cast<int32_t>(random.below(3)));
  const auto length = static_cast<int64_t>(group.prompt.size());
  group.max_length = std::min<int64_t>(kMaxLength, length + random.below(20));
  group.priority = static_cast<int>(random.below(3));
  group.compute_prompt = random.below(6) == 0;
  if (random.below(6) == 0) group.scope.salt = "pepper";
  return group;
}

class RandomLoad : public testing::TestWithParam<Case> {};

TEST_P(RandomLoad, KeepsEveryPromiseAndEveryoneEnds) {
  const Case& c = GetParam();
  Simulation simulation(c.config, c.blocks);
  Random random(5);
  std::map<SequenceId, int64_t> born;  // step of arrival of the unfinished
  std::map<SequenceId, std::vector<int32_t>> prompts;
  constexpr int kSteps = 12000;
  int64_t aborted = 0, longest_life = 0;
  int64_t step = 0;
  for (; step < kSteps || !simulation.scheduler().idle(); ++step) {
    ASSERT_LT(step, kSteps + 20000) << "it does not drain";
    const auto unfinished = static_cast<uint32_t>(born.size());
    if (step < kSteps && unfinished < 40 && random.below(3) == 0) {
      SequenceGroup group = random_group(random, static_cast<uint64_t>(step));
      for (int32_t i = 0; i < group.count; ++i) {
        born[sequence_id(group.id, i)] = step;
        prompts[sequence_id(group.id, i)] = group.prompt;
      }
      simulation.add(std::move(group));
    }
    if (!born.empty() && random.below(12) == 0) {
      const auto victim = std::next(born.begin(), random.below(static_cast<uint32_t>(born.size())));
      const Sequence* sequence = simulation.scheduler().find(victim->first);
      ASSERT_NE(sequence, nullptr);
      simulation.abort(victim->first);
      ASSERT_EQ(simulation.scheduler().find(victim->first), nullptr);
      born.erase(victim);
      ++aborted;
    }
    const std::string wrong = simulation.step();
    ASSERT_EQ(wrong, "") << "step " << step;
    std::erase_if(born, [&](const auto& entry) {
      if (simulation.scheduler().find(entry.first) != nullptr) return false;
      longest_life = std::max(longest_life, step - entry.second);
      return true;
    });
  }
  EXPECT_TRUE(born.empty());
  EXPECT_EQ(simulation.blocks().held(), 0);
  EXPECT_GT(aborted, 10);
  // With at most 43 unfinished sequences of at most 60 tokens each, even one token per step ends anyone in this time.
  EXPECT_LT(longest_life, 43 * kMaxLength * 3);
  // What was generated depends on nothing but the prompt.
  for (const auto& [id, tokens] : simulation.finished()) {
    std::vector<int32_t> expected = prompts[id];
    while (expected.size() < tokens.size()) expected.push_back(Simulation::next_token(expected));
    ASSERT_EQ(tokens, expected);
  }
  EXPECT_GT(simulation.finished().size(), 20u);
  const auto& counters = simulation.scheduler().counters();
  if (std::string_view(c.name) == "few_blocks") {
    EXPECT_GT(counters.preemptions, 50);
  }
  if (c.config.prefix_caching) {
    EXPECT_GT(counters.prefix_hits, 0);
  } else {
    EXPECT_EQ(counters.prefix_queries, 0);
  }
}

INSTANTIATE_TEST_SUITE_P(Scheduler, RandomLoad, testing::ValuesIn(kCases),
                         [](const auto& info) { return std::string(info.param.name); });

SequenceGroup group_of(uint64_t id, int64_t prompt, int64_t max_new, int priority = 0) {
  SequenceGroup group;
  group.id = id;
  for (int64_t i = 0; i < prompt; ++i)
    group.prompt.push_back(static_cast<int32_t>(id * 1000 + static_cast<uint64_t>(i)));
  group.max_length = prompt + max_new;
  group.priority = priority;
  return group;
}

TEST(Scheduler, AbortFreesTheBlocksInTheSameCall) {
  Simulation simulation({.max_num_seqs = 4, .max_num_batched_tokens = 64}, {.total_blocks = 20, .block_tokens = 4});
  simulation.add(group_of(1, 20, 10));
  simulation.add(group_of(2, 20, 10));
  ASSERT_EQ(simulation.step(), "");
  EXPECT_EQ(simulation.blocks().held(), 10);
  simulation.abort(sequence_id(1, 0));
  EXPECT_EQ(simulation.blocks().held(), 5);
  EXPECT_EQ(simulation.scheduler().num_running(), 1);
  simulation.abort(sequence_id(1, 0));
  simulation.abort(sequence_id(77, 0));
  EXPECT_EQ(simulation.blocks().held(), 5);
}

TEST(Scheduler, WhatCanNeverFitIsRefusedAndTheNextOneRuns) {
  Simulation simulation({.max_num_seqs = 4, .max_num_batched_tokens = 64}, {.total_blocks = 4, .block_tokens = 4});
  simulation.add(group_of(1, 17, 10));
  simulation.add(group_of(2, 16, 0));
  ASSERT_EQ(simulation.step(), "");
  EXPECT_EQ(simulation.refused(), std::vector{sequence_id(1, 0)});
  EXPECT_EQ(simulation.finished().count(sequence_id(2, 0)), 1u);
}

TEST(Scheduler, OneThatOutgrowsThePoolAloneIsRefusedWithItsTokensIntact) {
  Simulation simulation({.max_num_seqs = 4, .max_num_batched_tokens = 64}, {.total_blocks = 4, .block_tokens = 4});
  simulation.add(group_of(1, 12, 100));
  for (int step = 0; step < 20 && !simulation.scheduler().idle(); ++step) ASSERT_EQ(simulation.step(), "");
  EXPECT_TRUE(simulation.scheduler().idle());
  EXPECT_EQ(simulation.refused(), std::vector{sequence_id(1, 0)});
}

TEST(Scheduler, DecodingGoesOnBesideAPromptThatTakesManySteps) {
  Simulation simulation({.max_num_seqs = 4, .max_num_batched_tokens = 8}, {.total_blocks = 100, .block_tokens = 4});
  simulation.add(group_of(1, 4, 50));
  ASSERT_EQ(simulation.step(), "");
  simulation.add(group_of(2, 100, 5));
  for (int step = 0; step < 10; ++step) {
    const int64_t before = simulation.scheduler().find(sequence_id(1, 0))->num_tokens();
    ASSERT_EQ(simulation.step(), "");
    EXPECT_EQ(simulation.scheduler().find(sequence_id(1, 0))->num_tokens(), before + 1);
    EXPECT_EQ(simulation.last_plan().num_tokens, 8);
  }
}

TEST(Scheduler, SequencesOfOneRequestShareWholePromptBlocksEvenWithoutPrefixCaching) {
  for (const bool caching : {false, true}) {
    SCOPED_TRACE(caching);
    Simulation simulation({.max_num_seqs = 8, .max_num_batched_tokens = 64, .prefix_caching = caching},
                          {.total_blocks = 40, .block_tokens = 4});
    SequenceGroup group = group_of(1, 18, 10);
    group.count = 4;
    simulation.add(std::move(group));
    ASSERT_EQ(simulation.step(), "");
    EXPECT_EQ(simulation.last_plan().chunks.size(), 1u) << "the others wait for the first";
    ASSERT_EQ(simulation.step(), "");
    ASSERT_EQ(simulation.last_plan().chunks.size(), 4u);
    for (int i = 1; i < 4; ++i) EXPECT_EQ(simulation.last_plan().chunks[static_cast<size_t>(i)].begin, 16);
    EXPECT_EQ(simulation.blocks().held(), 4 + 4);
    while (!simulation.scheduler().idle()) ASSERT_EQ(simulation.step(), "");
    EXPECT_EQ(simulation.finished().size(), 4u);
  }
}

TEST(Scheduler, WithoutPrefixCachingOtherRequestsShareNothing) {
  Simulation simulation({.max_num_seqs = 8, .max_num_batched_tokens = 64, .prefix_caching = false},
                        {.total_blocks = 40, .block_tokens = 4});
  for (uint64_t id : {1, 2}) {
    SequenceGroup group = group_of(7, 16, 2);
    group.id = id;
    group.count = 2;
    simulation.add(std::move(group));
    ASSERT_EQ(simulation.step(), "");
    EXPECT_EQ(simulation.last_plan().chunks.back().begin, 0);
  }
}

TEST(Scheduler, TheLeastUrgentLosesItsBlocksWithThePriorityPolicy) {
  Simulation simulation({.max_num_seqs = 4, .max_num_batched_tokens = 64, .policy = SchedulingPolicy::kPriority},
                        {.total_blocks = 8, .block_tokens = 4});
  simulation.add(group_of(1, 15, 20, /*priority=*/5));
  ASSERT_EQ(simulation.step(), "");
  simulation.add(group_of(2, 15, 20, /*priority=*/1));
  std::vector<SequenceId> preempted;
  for (int step = 0; step < 5; ++step) {
    ASSERT_EQ(simulation.step(), "");
    for (const Sequence* sequence : simulation.last_plan().preempted) preempted.push_back(sequence->id);
  }
  EXPECT_EQ(preempted, std::vector{sequence_id(1, 0)});
}

TEST(Scheduler, MultiStepReservesSlotsOnlyFromWhatIsAvailable) {
  Simulation simulation({.max_num_seqs = 4, .max_num_batched_tokens = 64, .num_steps = 8},
                        {.total_blocks = 4, .block_tokens = 4});
  simulation.add(group_of(1, 6, 9));
  simulation.add(group_of(2, 6, 9));
  ASSERT_EQ(simulation.step(), "");
  ASSERT_EQ(simulation.last_plan().chunks.size(), 2u);
  EXPECT_EQ(simulation.last_plan().chunks[0].steps, 3) << "slots 6 and 7 take its second block's rest";
  EXPECT_EQ(simulation.last_plan().chunks[1].steps, 3);
  EXPECT_TRUE(simulation.last_plan().preempted.empty());
}

}  // namespace
}  // namespace millrace
