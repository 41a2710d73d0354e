// One token sequence as the scheduler sees it. A request for n answers is a group of n sequences with one prompt.
// Owned by the Scheduler; others read. "Wanted" tokens are all that exist (prompt and generated); a step moves
// `num_computed` towards them.
#pragma once
#include <cstdint>
#include <memory>
#include <vector>

#include "engine/cache/block_table.h"
#include "engine/cache/prefix_keys.h"

namespace millrace {

using SequenceId = uint64_t;

// What the sequences of one request have in common.
struct SequenceGroup {
  uint64_t id = 0;               // unique among unfinished groups
  int32_t count = 1;             // sequences
  std::vector<int32_t> prompt;   // at least one token
  int64_t max_length = 0;        // tokens a sequence may have in all; no token is sampled beyond it
  int priority = 0;              // lower first, with the priority policy
  bool compute_prompt = false;   // every prompt position is wanted: the first sequence takes no prefix from the cache
  CacheScope scope;              // adapter, media, salt
  int64_t cached_tokens = 0;     // of the prompt, found in the cache when the first sequence started
  bool prompt_computed = false;  // by the first sequence; the others wait for it, to share its blocks
};

struct Sequence {
  SequenceId id = 0;
  int32_t index = 0;  // in its group
  std::shared_ptr<SequenceGroup> group;
  std::vector<int32_t> tokens;  // prompt, then generated; never shrinks
  int64_t num_computed = 0;     // tokens whose keys and values lie in `table`
  int64_t num_published = 0;    // blocks of `table` that are in the prefix cache
  uint64_t arrival = 0;         // order of arrival
  bool ended = false;           // with the step that is being committed
  PrefixKeys keys;
  BlockTable table;

  int64_t num_tokens() const { return static_cast<int64_t>(tokens.size()); }
  int64_t num_prompt() const { return static_cast<int64_t>(group->prompt.size()); }
  int64_t num_uncomputed() const { return num_tokens() - num_computed; }
};

// Sequence ids are made of the group's id and the index, so that either side can name one without asking.
constexpr int32_t kMaxSequencesPerGroup = 1 << 14;
constexpr SequenceId sequence_id(uint64_t group, int32_t index) {
  return group * kMaxSequencesPerGroup + static_cast<uint64_t>(index);
}

}  // namespace millrace
