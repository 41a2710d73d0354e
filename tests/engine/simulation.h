// Drives a Scheduler with a stand-in for the model that keeps, for every slot of every block, what was written there,
// and checks at every step what must always hold.
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "engine/scheduler.h"

namespace millrace {

class Simulation {
 public:
  Simulation(const SchedulerConfig& config, const BlockManager::Config& blocks);

  void add(SequenceGroup group);
  void abort(SequenceId id);
  // One plan, start, compute, commit. A sequence ends at its group's max_length, or when `ends` says so of its tokens.
  // "" or what went wrong.
  std::string step();
  bool (*ends)(const Sequence& sequence, int64_t num_tokens) = nullptr;
  // The token that follows a prefix.
  static int32_t next_token(std::span<const int32_t> prefix);

  // What the last step did, by id: the sequences may be gone.
  struct Done {
    SequenceId id = 0;
    int64_t begin = 0, end = 0;
    size_t sampled = 0;
    bool finished = false, admitted = false;
  };
  const std::vector<Done>& last_done() const { return done_; }
  const std::vector<SequenceId>& last_preempted() const { return preempted_; }
  const StepPlan& last_plan() const { return plan_; }
  Scheduler& scheduler() { return scheduler_; }
  BlockManager& blocks() { return blocks_; }
  // Whole token lists of the sequences that ended by themselves.
  const std::map<SequenceId, std::vector<int32_t>>& finished() const { return finished_; }
  const std::vector<SequenceId>& refused() const { return refused_; }

 private:
  struct Slot {
    uint64_t prefix = 0;   // hash of all tokens up to and including this one, and of the scope
    int64_t rotation = 0;  // length that the rotation was for; 0: the standard one
    bool operator==(const Slot&) const = default;
  };
  void note(std::span<const ChunkResult> results);
  std::string check_plan() const;
  std::string compute(const StepPlan::Chunk& chunk, std::vector<int32_t>& sampled, bool& finished);
  std::string compute_range(const Sequence& sequence, const std::vector<int32_t>& tokens, int64_t begin, int64_t end);
  std::string check_blocks() const;

  BlockManager blocks_;
  Scheduler scheduler_;
  StepPlan plan_, again_;
  std::vector<Slot> slots_;
  std::map<SequenceId, std::vector<int32_t>> finished_;
  std::vector<SequenceId> refused_, preempted_;
  std::vector<Done> done_;
};

}  // namespace millrace
