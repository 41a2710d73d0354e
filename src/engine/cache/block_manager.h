// Hands out KV-cache blocks to sequences and keeps computed prefixes for reuse.
// A block holds the keys and values of `block_tokens` consecutive tokens, all layers. Only block numbers are dealt with
// here; the memory belongs to the model. One thread: the scheduler's. Nothing is allocated after construction but the
// tables' own growth.
//
// A block is free (no content worth keeping), held (by one or more tables) or reusable (held by nobody, still found by
// its key, the longest unused evicted first). Always true between calls: free + held + reusable == total.
// Blocks that several tables hold are full and never written again, so nothing is ever copied.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/result.h"
#include "engine/cache/block_table.h"
#include "engine/cache/prefix_keys.h"

namespace millrace {

class BlockManager {
 public:
  struct Config {
    int32_t total_blocks = 0;
    int32_t block_tokens = 16;
  };
  explicit BlockManager(const Config& config);

  int64_t total() const { return config_.total_blocks; }
  int64_t free() const { return static_cast<int64_t>(free_.size()); }
  int64_t reusable() const { return reusable_; }
  int64_t held() const { return held_; }
  // Blocks that reserve() can hand out.
  int64_t available() const { return free() + reusable_; }
  int32_t block_tokens() const { return config_.block_tokens; }
  // Blocks that hold `tokens` tokens.
  int64_t blocks_for(int64_t tokens) const { return (tokens + config_.block_tokens - 1) / config_.block_tokens; }
  // Tables that hold the block.
  int32_t references(int32_t block) const { return blocks_[static_cast<size_t>(block)].references; }

  // The longest run of at most `max_blocks` cached blocks that equals the front of `tokens` under the same extra keys.
  // Tokens are compared, not only hashes. Changes nothing.
  std::vector<int32_t> match_prefix(const PrefixKeys& keys, std::span<const int32_t> tokens, int64_t max_blocks) const;

  // Puts blocks that match_prefix found, with nothing done in between but other attach(), at the front of an empty
  // table.
  void attach(BlockTable& table, std::span<const int32_t> blocks);

  // Extends `table` to hold `tokens` tokens, evicting reusable blocks if need be. All or nothing: kResourceExhausted
  // means that nothing changed.
  Status reserve(BlockTable& table, int64_t tokens);

  // Makes the table's blocks [from, to) findable: they are full, computed, and `keys` and `tokens` reach over them.
  // All before `from` were published through this table or attached to it. Where an equal block is cached already, the
  // table takes that one and lets go of its own.
  void publish(BlockTable& table, const PrefixKeys& keys, std::span<const int32_t> tokens, int64_t from, int64_t to);

  // Lets go of all blocks, last first, so that of equally old blocks the end of a prefix is evicted first.
  void release(BlockTable& table);

  // Forgets everything reusable.
  void drop_cache();

  // Verifies every invariant in O(total blocks); for tests. Dies by MR_CHECK.
  void check_invariants() const;

 private:
  static constexpr int32_t kNone = -1;
  struct Block {
    int32_t references = 0;
    // Set while the block is findable:
    BlockKey key;
    uint64_t identity = 0;  // unique to this content; 0: not findable
    uint64_t parent = 0;    // identity of the block before it; 0: first of its prefix
    std::string extra;
    int32_t next_in_bucket = kNone;
    // Links of the reusable list, oldest first.
    int32_t older = kNone, newer = kNone;
  };

  Block& at(int32_t block) { return blocks_[static_cast<size_t>(block)]; }
  const Block& at(int32_t block) const { return blocks_[static_cast<size_t>(block)]; }
  std::span<const int32_t> content(int32_t block) const;
  size_t bucket_of(const BlockKey& key) const { return key.low & (buckets_.size() - 1); }
  int32_t find(const BlockKey& key, uint64_t parent, std::span<const int32_t> tokens, const std::string& extra) const;
  void make_findable(int32_t block, const BlockKey& key, uint64_t parent, std::span<const int32_t> tokens,
                     std::string extra);
  void forget(int32_t block);
  void push_reusable(int32_t block);
  void unlink_reusable(int32_t block);
  int32_t take_block();
  void hold(int32_t block);
  void let_go(int32_t block);

  Config config_;
  std::vector<Block> blocks_;
  std::vector<int32_t> tokens_;   // [total, P] content of findable blocks
  std::vector<int32_t> free_;     // a stack
  std::vector<int32_t> buckets_;  // first findable block of each bucket; size is a power of two
  int32_t oldest_ = kNone, newest_ = kNone;
  int64_t reusable_ = 0, held_ = 0;
  uint64_t last_identity_ = 0;
};

// What a plan would do to the blocks, counted without doing it.
class BlockForecast {
 public:
  explicit BlockForecast(const BlockManager& blocks) : blocks_(blocks), available_(blocks.available()) {}
  int64_t available() const { return available_; }
  void take(int64_t blocks) { available_ -= blocks; }
  void give_back(int64_t blocks) { available_ += blocks; }
  // A table is released; blocks that only released tables held become available.
  void release(const BlockTable& table);
  // How many available blocks attaching these would use up.
  int64_t cost_to_attach(std::span<const int32_t> blocks) const;
  void attach(std::span<const int32_t> blocks);

 private:
  int32_t references(int32_t block) const;
  const BlockManager& blocks_;
  int64_t available_;
  std::unordered_map<int32_t, int32_t> change_;  // of references, per block
};

}  // namespace millrace
