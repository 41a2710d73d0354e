// Decides which tokens of which sequences each step computes. Pure bookkeeping: no tensors, no clock, no threads, no
// randomness. One rule covers prefill, decode, prefix hits and resumption: computed tokens catch up with wanted tokens
// under one token budget.
//
//   plan()    what the next step should do; changes nothing, and the same state gives the same plan
//   start()   carries out the plan's changes of queues and blocks, before the model runs
//   commit()  records what the model computed
//
// Between these calls, add() and abort() may be called at any time but between start() and commit().
// Always true then: a running sequence has at least one uncomputed token; no block is held by a waiting sequence.
#pragma once
#include <cstdint>
#include <memory>
#include <set>
#include <tuple>
#include <unordered_map>
#include <vector>

#include "engine/cache/block_manager.h"
#include "engine/sequence.h"
#include "engine/step_plan.h"
#include "models/families/rope.h"

namespace millrace {

enum class SchedulingPolicy : uint8_t { kFcfs, kPriority };

struct SchedulerConfig {
  int32_t max_num_seqs = 256;
  int64_t max_num_batched_tokens = 2048;     // at least max_num_seqs
  int64_t long_prefill_token_threshold = 0;  // most tokens of one sequence in a step; 0: the budget
  bool chunked_prefill = true;               // false: uncomputed tokens are computed all at once or not yet
  bool prefix_caching = true;
  SchedulingPolicy policy = SchedulingPolicy::kFcfs;
  int32_t num_steps = 1;  // forwards per step for sequences that decode (num_scheduler_steps)
  // Where the rotation of all keys depends on the number of wanted tokens: when that number leaves its group, the whole
  // sequence is computed again, beyond the limit in blocks that nobody shares.
  RotationLengths rotation;
};

class Scheduler {
 public:
  // `blocks` must outlive the scheduler, and nobody else may change it.
  Scheduler(const SchedulerConfig& config, BlockManager& blocks) : config_(config), blocks_(blocks) {}
  ~Scheduler();
  Scheduler(const Scheduler&) = delete;
  Scheduler& operator=(const Scheduler&) = delete;

  // Queues the group's sequences, with ids sequence_id(group.id, 0 .. count - 1).
  void add(SequenceGroup group);
  // Fills `plan`, reusing its memory. Empty only if no sequence is left.
  void plan(StepPlan& plan) const;
  // Requires: `plan` was made from the present state.
  void start(const StepPlan& plan);
  // Requires: `plan` was started and every chunk computed; results[i] belongs to plan.chunks[i]. Ended sequences are
  // gone, with their blocks, when this returns.
  void commit(const StepPlan& plan, std::span<const ChunkResult> results);
  // Ends a sequence and frees its blocks at once. Unknown ids are ignored.
  void abort(SequenceId id);

  bool idle() const { return sequences_.empty(); }
  int64_t num_running() const { return static_cast<int64_t>(running_.size()); }
  int64_t num_waiting() const { return static_cast<int64_t>(waiting_.size()); }
  const std::vector<Sequence*>& running() const { return running_; }
  const Sequence* find(SequenceId id) const;
  const BlockManager& blocks() const { return blocks_; }
  const SchedulerConfig& config() const { return config_; }

  // Totals since the start. The last two are in tokens.
  struct Counters {
    int64_t preemptions = 0, prefix_queries = 0, prefix_hits = 0;
  };
  const Counters& counters() const { return counters_; }

 private:
  class Planner;
  struct Urgency {  // least first
    int priority;
    uint64_t arrival;
    auto operator<=>(const Urgency&) const = default;
  };
  struct MoreUrgent {
    const Scheduler* scheduler;
    bool operator()(const Sequence* a, const Sequence* b) const {
      return scheduler->urgency(*a) < scheduler->urgency(*b);
    }
  };

  Urgency urgency(const Sequence& sequence) const;
  bool beyond_rope_limit(int64_t length) const { return config_.rotation.group(length) != 0; }
  bool may_share(const Sequence& sequence) const;
  bool may_look_up(const Sequence& sequence) const;
  int64_t findable_blocks(const Sequence& sequence) const;
  void preempt(Sequence& sequence);
  void admit(const StepPlan::Admission& admission);
  void record(const StepPlan::Chunk& chunk, const ChunkResult& result);
  void publish(Sequence& sequence);
  void append(Sequence& sequence, std::span<const int32_t> tokens);
  void remove(Sequence& sequence);

  const SchedulerConfig config_;
  BlockManager& blocks_;
  std::unordered_map<SequenceId, std::unique_ptr<Sequence>> sequences_;
  std::set<Sequence*, MoreUrgent> waiting_{MoreUrgent{this}};
  std::vector<Sequence*> running_;  // in order of admission
  uint64_t arrivals_ = 0;
  Counters counters_;
};

}  // namespace millrace
