#include "engine/cache/block_manager.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "base/check.h"

namespace millrace {

BlockManager::BlockManager(const Config& config) : config_(config) {
  MR_CHECK(config.total_blocks > 0 && config.block_tokens > 0, "{} blocks of {} tokens", config.total_blocks,
           config.block_tokens);
  const auto total = static_cast<size_t>(config.total_blocks);
  blocks_.resize(total);
  tokens_.resize(total * static_cast<size_t>(config.block_tokens));
  buckets_.assign(std::bit_ceil(total), kNone);
  free_.reserve(total);
  for (int32_t block = config.total_blocks; block-- > 0;) free_.push_back(block);
}

std::span<const int32_t> BlockManager::content(int32_t block) const {
  const auto size = static_cast<size_t>(config_.block_tokens);
  return std::span(tokens_).subspan(static_cast<size_t>(block) * size, size);
}

std::vector<int32_t> BlockManager::match_prefix(const PrefixKeys& keys, std::span<const int32_t> tokens,
                                                int64_t max_blocks) const {
  std::vector<int32_t> found;
  const auto size = static_cast<size_t>(config_.block_tokens);
  uint64_t parent = 0;
  for (int64_t i = 0; i < std::min(max_blocks, keys.num_blocks()); ++i) {
    const int32_t block =
        find(keys.key(i), parent, tokens.subspan(static_cast<size_t>(i) * size, size), keys.extra_keys(i));
    if (block == kNone) break;
    found.push_back(block);
    parent = at(block).identity;
  }
  return found;
}

void BlockManager::attach(BlockTable& table, std::span<const int32_t> blocks) {
  constexpr size_t kUsualBlocks = 64;  // steps add to the table
  MR_CHECK(table.blocks_.empty(), "{} blocks", table.size());
  table.blocks_.reserve(std::max(kUsualBlocks, 2 * blocks.size()));
  for (const int32_t block : blocks) hold(block);
  table.blocks_.assign(blocks.begin(), blocks.end());
}

Status BlockManager::reserve(BlockTable& table, int64_t tokens) {
  const int64_t wanted = blocks_for(tokens) - table.size();
  if (wanted > available()) {
    return resource_exhausted("KV cache: {} more blocks are wanted, {} of {} are available", wanted, available(),
                              total());
  }
  for (int64_t i = 0; i < wanted; ++i) table.blocks_.push_back(take_block());
  return {};
}

void BlockManager::publish(BlockTable& table, const PrefixKeys& keys, std::span<const int32_t> tokens, int64_t from,
                           int64_t to) {
  const auto size = static_cast<size_t>(config_.block_tokens);
  for (int64_t i = from; i < to; ++i) {
    const auto slot = static_cast<size_t>(i);
    const uint64_t parent = i == 0 ? 0 : at(table.blocks_[slot - 1]).identity;
    MR_CHECK(i == 0 || parent != 0, "block {} of a table is published before block {}", i, i - 1);
    const auto content = tokens.subspan(slot * size, size);
    std::string extra = keys.extra_keys(i);
    int32_t& own = table.blocks_[slot];
    const int32_t equal = find(keys.key(i), parent, content, extra);
    if (equal == own) continue;
    if (equal == kNone) {
      make_findable(own, keys.key(i), parent, content, std::move(extra));
    } else {
      hold(equal);
      let_go(std::exchange(own, equal));
    }
  }
}

void BlockManager::release(BlockTable& table) {
  for (; !table.blocks_.empty(); table.blocks_.pop_back()) let_go(table.blocks_.back());
}

void BlockManager::drop_cache() {
  while (oldest_ != kNone) {
    const int32_t block = oldest_;
    unlink_reusable(block);
    forget(block);
    free_.push_back(block);
  }
}

int32_t BlockManager::find(const BlockKey& key, uint64_t parent, std::span<const int32_t> tokens,
                           const std::string& extra) const {
  for (int32_t block = buckets_[bucket_of(key)]; block != kNone; block = at(block).next_in_bucket) {
    const Block& b = at(block);
    if (b.key == key && b.parent == parent && std::ranges::equal(content(block), tokens) && b.extra == extra) {
      return block;
    }
  }
  return kNone;
}

void BlockManager::make_findable(int32_t block, const BlockKey& key, uint64_t parent, std::span<const int32_t> tokens,
                                 std::string extra) {
  Block& b = at(block);
  MR_CHECK(b.identity == 0 && b.references == 1, "block {} has identity {} and {} references", block, b.identity,
           b.references);
  b.key = key;
  b.identity = ++last_identity_;
  b.parent = parent;
  b.extra = std::move(extra);
  std::ranges::copy(tokens, tokens_.begin() + int64_t{block} * config_.block_tokens);
  b.next_in_bucket = std::exchange(buckets_[bucket_of(key)], block);
}

void BlockManager::forget(int32_t block) {
  Block& b = at(block);
  int32_t* link = &buckets_[bucket_of(b.key)];
  while (*link != block) link = &at(*link).next_in_bucket;
  *link = std::exchange(b.next_in_bucket, kNone);
  b.identity = b.parent = 0;
  b.extra.clear();
}

void BlockManager::push_reusable(int32_t block) {
  Block& b = at(block);
  b.older = std::exchange(newest_, block);
  b.newer = kNone;
  (b.older == kNone ? oldest_ : at(b.older).newer) = block;
  ++reusable_;
}

void BlockManager::unlink_reusable(int32_t block) {
  Block& b = at(block);
  (b.older == kNone ? oldest_ : at(b.older).newer) = b.newer;
  (b.newer == kNone ? newest_ : at(b.newer).older) = b.older;
  b.older = b.newer = kNone;
  --reusable_;
}

// Requires available() > 0.
int32_t BlockManager::take_block() {
  int32_t block = oldest_;
  if (!free_.empty()) {
    block = free_.back();
    free_.pop_back();
  } else {
    unlink_reusable(block);
    forget(block);
  }
  at(block).references = 1;
  ++held_;
  return block;
}

// For findable blocks.
void BlockManager::hold(int32_t block) {
  Block& b = at(block);
  MR_CHECK(b.identity != 0, "block {} is not in the prefix cache", block);
  if (b.references++ > 0) return;
  unlink_reusable(block);
  ++held_;
}

void BlockManager::let_go(int32_t block) {
  Block& b = at(block);
  MR_CHECK(b.references > 0, "block {} is let go twice", block);
  if (--b.references > 0) return;
  --held_;
  if (b.identity != 0) {
    push_reusable(block);
  } else {
    free_.push_back(block);
  }
}

void BlockManager::check_invariants() const {
  MR_CHECK(free() + held() + reusable() == total(), "{} free + {} held + {} reusable of {}", free(), held(), reusable(),
           total());
  std::vector<int> seen(blocks_.size(), 0);
  for (const int32_t block : free_) {
    ++seen[static_cast<size_t>(block)];
    MR_CHECK(at(block).references == 0 && at(block).identity == 0, "free block {}", block);
  }
  int64_t listed = 0;
  for (int32_t block = oldest_; block != kNone; block = at(block).newer, ++listed) {
    ++seen[static_cast<size_t>(block)];
    MR_CHECK(at(block).references == 0 && at(block).identity != 0, "reusable block {}", block);
  }
  MR_CHECK(listed == reusable_, "{} listed, {} counted", listed, reusable_);
  for (size_t i = 0; i < blocks_.size(); ++i) {
    MR_CHECK(seen[i] == (blocks_[i].references == 0 ? 1 : 0), "block {} is in {} lists with {} references", i, seen[i],
             blocks_[i].references);
  }
}

int32_t BlockForecast::references(int32_t block) const {
  const auto it = change_.find(block);
  return blocks_.references(block) + (it == change_.end() ? 0 : it->second);
}

void BlockForecast::release(const BlockTable& table) {
  for (const int32_t block : table.blocks()) {
    if (references(block) == 1) ++available_;
    --change_[block];
  }
}

int64_t BlockForecast::cost_to_attach(std::span<const int32_t> blocks) const {
  return std::ranges::count_if(blocks, [&](int32_t block) { return references(block) == 0; });
}

void BlockForecast::attach(std::span<const int32_t> blocks) {
  available_ -= cost_to_attach(blocks);
  for (const int32_t block : blocks) ++change_[block];
}

}  // namespace millrace
