#include "engine/cache/block_manager.h"

#include <gtest/gtest.h>

#include <map>
#include <numeric>

#include "base/random.h"

namespace millrace {
namespace {

constexpr int32_t kBlockTokens = 4;

std::vector<int32_t> iota_tokens(int64_t count, int32_t first = 0) {
  std::vector<int32_t> tokens(static_cast<size_t>(count));
  std::iota(tokens.begin(), tokens.end(), first);
  return tokens;
}

// Computes `tokens` into a fresh table and publishes all full blocks.
BlockTable cached(BlockManager& blocks, const std::vector<int32_t>& tokens, const CacheScope& scope = {}) {
  PrefixKeys keys(scope, blocks.block_tokens());
  keys.extend(tokens);
  BlockTable table;
  EXPECT_TRUE(blocks.reserve(table, static_cast<int64_t>(tokens.size())).ok());
  blocks.publish(table, keys, tokens, 0, keys.num_blocks());
  return table;
}

std::vector<int32_t> lookup(const BlockManager& blocks, const std::vector<int32_t>& tokens,
                            const CacheScope& scope = {}) {
  PrefixKeys keys(scope, blocks.block_tokens());
  keys.extend(tokens);
  return blocks.match_prefix(keys, tokens, keys.num_blocks());
}

std::vector<int32_t> list(const BlockTable& table) { return {table.blocks().begin(), table.blocks().end()}; }

TEST(BlockManager, ReserveIsAllOrNothing) {
  BlockManager blocks({.total_blocks = 4, .block_tokens = kBlockTokens});
  BlockTable a, b;
  ASSERT_TRUE(blocks.reserve(a, 9).ok());
  EXPECT_EQ(a.size(), 3);
  EXPECT_EQ(blocks.reserve(b, 5).code(), Code::kResourceExhausted);
  EXPECT_EQ(b.size(), 0);
  EXPECT_EQ(blocks.free(), 1);
  ASSERT_TRUE(blocks.reserve(a, 12).ok());
  EXPECT_EQ(a.size(), 3) << "twelve tokens fit into three blocks";
  blocks.release(a);
  EXPECT_EQ(blocks.free(), 4);
  blocks.check_invariants();
}

TEST(BlockManager, APublishedPrefixIsFoundUpToTheFirstDifference) {
  BlockManager blocks({.total_blocks = 8, .block_tokens = kBlockTokens});
  BlockTable table = cached(blocks, iota_tokens(14));
  EXPECT_EQ(lookup(blocks, iota_tokens(14)), (std::vector{table.blocks()[0], table.blocks()[1], table.blocks()[2]}));
  auto other = iota_tokens(12);
  other[5] = 99;
  EXPECT_EQ(lookup(blocks, other), (std::vector{table.blocks()[0]}));
  EXPECT_TRUE(lookup(blocks, iota_tokens(12, 1)).empty());
  blocks.release(table);
  EXPECT_EQ(blocks.reusable(), 3);
  EXPECT_EQ(blocks.free(), 5) << "the partial block has nothing to find";
  blocks.check_invariants();
}

TEST(BlockManager, ABlockInTheMiddleIsNotFoundWithoutItsPrefix) {
  BlockManager blocks({.total_blocks = 8, .block_tokens = kBlockTokens});
  BlockTable a = cached(blocks, {1, 1, 1, 1, 7, 7, 7, 7});
  BlockTable b = cached(blocks, {2, 2, 2, 2, 7, 7, 7, 7});
  EXPECT_NE(a.blocks()[1], b.blocks()[1]);
  EXPECT_EQ(lookup(blocks, {2, 2, 2, 2, 7, 7, 7, 7}), list(b));
  EXPECT_TRUE(lookup(blocks, {7, 7, 7, 7}).empty());
  blocks.release(a);
  blocks.release(b);
}

TEST(BlockManager, AdapterMediaAndSaltKeepPrefixesApart) {
  BlockManager blocks({.total_blocks = 32, .block_tokens = kBlockTokens});
  const auto tokens = iota_tokens(8);
  const CacheScope::Media picture{.begin = 5, .end = 7, .content_hash = {1, 2}};
  const CacheScope::Media other_picture{.begin = 5, .end = 7, .content_hash = {1, 3}};
  const std::vector<CacheScope> scopes = {
      {}, {.adapter = "x"}, {.salt = "x"}, {.media = {picture}}, {.media = {other_picture}}, {.private_to = 1}};
  std::vector<BlockTable> tables;
  for (const CacheScope& scope : scopes) tables.push_back(cached(blocks, tokens, scope));
  for (size_t i = 0; i < scopes.size(); ++i) EXPECT_EQ(lookup(blocks, tokens, scopes[i]), list(tables[i])) << i;
  EXPECT_EQ(tables[3].blocks()[0], tables[0].blocks()[0]) << "the picture begins after the first block";
  EXPECT_NE(tables[3].blocks()[1], tables[4].blocks()[1]);
  for (BlockTable& table : tables) blocks.release(table);
  blocks.check_invariants();
}

TEST(BlockManager, EqualContentIsKeptOnce) {
  BlockManager blocks({.total_blocks = 8, .block_tokens = kBlockTokens});
  BlockTable a = cached(blocks, iota_tokens(10));
  BlockTable b = cached(blocks, iota_tokens(10));
  EXPECT_EQ(a.blocks()[0], b.blocks()[0]);
  EXPECT_EQ(a.blocks()[1], b.blocks()[1]);
  EXPECT_NE(a.blocks()[2], b.blocks()[2]) << "a partial block is its writer's own";
  EXPECT_EQ(blocks.references(a.blocks()[0]), 2);
  EXPECT_EQ(blocks.held(), 4);
  blocks.release(a);
  EXPECT_EQ(blocks.references(b.blocks()[0]), 1);
  blocks.release(b);
  blocks.check_invariants();
}

TEST(BlockManager, FreeBlocksGoFirstThenTheLongestUnusedPrefixFromItsEnd) {
  BlockManager blocks({.total_blocks = 6, .block_tokens = kBlockTokens});
  BlockTable old = cached(blocks, iota_tokens(8, 0));
  BlockTable recent = cached(blocks, iota_tokens(8, 100));
  blocks.release(old);
  blocks.release(recent);
  BlockTable table;
  ASSERT_TRUE(blocks.reserve(table, 2 * kBlockTokens).ok());
  EXPECT_EQ(blocks.reusable(), 4);
  ASSERT_TRUE(blocks.reserve(table, 3 * kBlockTokens).ok());
  EXPECT_EQ(lookup(blocks, iota_tokens(8, 0)).size(), 1u) << "the end of the older prefix is gone";
  EXPECT_EQ(lookup(blocks, iota_tokens(8, 100)).size(), 2u);
  ASSERT_TRUE(blocks.reserve(table, 5 * kBlockTokens).ok());
  EXPECT_EQ(lookup(blocks, iota_tokens(8, 0)).size(), 0u);
  EXPECT_EQ(lookup(blocks, iota_tokens(8, 100)).size(), 1u);
  blocks.check_invariants();
  blocks.release(table);
}

TEST(BlockManager, UseMakesAPrefixYoungAgain) {
  BlockManager blocks({.total_blocks = 4, .block_tokens = kBlockTokens});
  BlockTable a = cached(blocks, iota_tokens(8, 0));
  BlockTable b = cached(blocks, iota_tokens(8, 100));
  blocks.release(a);
  blocks.release(b);
  blocks.attach(a, lookup(blocks, iota_tokens(8, 0)));
  EXPECT_EQ(blocks.reusable(), 2);
  blocks.release(a);
  BlockTable table;
  ASSERT_TRUE(blocks.reserve(table, 2 * kBlockTokens).ok());
  EXPECT_EQ(lookup(blocks, iota_tokens(8, 0)).size(), 2u);
  EXPECT_EQ(lookup(blocks, iota_tokens(8, 100)).size(), 0u);
  blocks.release(table);
}

TEST(BlockManager, DropCacheForgetsEverythingThatNobodyHolds) {
  BlockManager blocks({.total_blocks = 8, .block_tokens = kBlockTokens});
  BlockTable a = cached(blocks, iota_tokens(8, 0));
  BlockTable b = cached(blocks, iota_tokens(8, 100));
  blocks.release(b);
  blocks.drop_cache();
  EXPECT_EQ(blocks.free(), 6);
  EXPECT_EQ(lookup(blocks, iota_tokens(8, 0)).size(), 2u);
  EXPECT_TRUE(lookup(blocks, iota_tokens(8, 100)).empty());
  blocks.release(a);
  blocks.check_invariants();
}

TEST(BlockForecast, CountsSharedBlocksOnceTheLastTableIsReleased) {
  BlockManager blocks({.total_blocks = 8, .block_tokens = kBlockTokens});
  BlockTable a = cached(blocks, iota_tokens(10));
  BlockTable b = cached(blocks, iota_tokens(10));
  BlockForecast forecast(blocks);
  EXPECT_EQ(forecast.available(), 4);
  forecast.release(a);
  EXPECT_EQ(forecast.available(), 5);
  EXPECT_EQ(forecast.cost_to_attach(a.blocks().first(2)), 0);
  forecast.release(b);
  EXPECT_EQ(forecast.available(), 8);
  EXPECT_EQ(forecast.cost_to_attach(a.blocks().first(2)), 2);
  forecast.attach(a.blocks().first(2));
  EXPECT_EQ(forecast.available(), 6);
  EXPECT_EQ(blocks.available(), 4) << "a forecast changes nothing";
  blocks.release(a);
  blocks.release(b);
}

// Random tables over few distinct tokens; a shadow of what each block holds shows any wrong hit.
TEST(BlockManager, RandomUseNeverServesAWrongPrefix) {
  Random random(11);
  BlockManager blocks({.total_blocks = 24, .block_tokens = 2});
  std::map<int32_t, std::vector<int32_t>> written;  // block -> whole prefix up to its end
  std::vector<BlockTable> tables;
  int64_t hits = 0;
  for (int round = 0; round < 20000; ++round) {
    if (!tables.empty() && random.below(2) == 0) {
      const auto victim = random.below(static_cast<uint32_t>(tables.size()));
      blocks.release(tables[victim]);
      tables.erase(tables.begin() + victim);
    }
    std::vector<int32_t> tokens(1 + random.below(14));
    for (int32_t& token : tokens) token = static_cast<int32_t>(random.below(2));
    const CacheScope scope{.salt = random.below(4) == 0 ? "s" : ""};
    PrefixKeys keys(scope, 2);
    keys.extend(tokens);
    BlockTable table;
    const auto prefix = blocks.match_prefix(keys, tokens, keys.num_blocks());
    blocks.attach(table, prefix);
    hits += static_cast<int64_t>(prefix.size());
    if (!blocks.reserve(table, static_cast<int64_t>(tokens.size())).ok()) {
      blocks.release(table);
      continue;
    }
    for (int64_t i = 0; i < keys.num_blocks(); ++i) {
      std::vector<int32_t> whole(tokens.begin(), tokens.begin() + 2 * (i + 1));
      whole.push_back(scope.salt.empty() ? -1 : -2);
      std::vector<int32_t>& shadow = written[table.blocks()[static_cast<size_t>(i)]];
      if (i < static_cast<int64_t>(prefix.size())) {
        ASSERT_EQ(shadow, whole);
      }
      shadow = whole;
    }
    blocks.publish(table, keys, tokens, static_cast<int64_t>(prefix.size()), keys.num_blocks());
    tables.push_back(std::move(table));
    blocks.check_invariants();
  }
  EXPECT_GT(hits, 1000);
  for (BlockTable& table : tables) blocks.release(table);
  EXPECT_EQ(blocks.held(), 0);
}

}  // namespace
}  // namespace millrace
