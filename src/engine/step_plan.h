// What one engine step does, decided by Scheduler::plan() and carried out by Scheduler::start(), the model, and
// Scheduler::commit(). Pointers are into the scheduler and live until commit() or abort() ends the sequence.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "engine/sequence.h"

namespace millrace {

struct StepPlan {
  // Tokens [begin, end) of a sequence are computed.
  struct Chunk {
    Sequence* sequence = nullptr;
    int64_t begin = 0, end = 0;
    // Tokens that may be sampled: 0 while part of the wanted tokens stays uncomputed (or none may follow), else 1, or
    // with multi-step up to that many, each computed by a forward of its own whose slots are reserved.
    int32_t steps = 0;
    int64_t num_tokens() const { return end - begin; }
  };
  // A waiting sequence starts to run, with these cached blocks as its front.
  struct Admission {
    Sequence* sequence = nullptr;
    std::vector<int32_t> prefix;
  };

  std::vector<Chunk> chunks;  // in running order, one per sequence at most
  std::vector<Admission> admitted;
  std::vector<Sequence*> preempted;  // they lose their blocks and wait again
  std::vector<SequenceId> refused;   // they cannot fit even alone; start() ends them
  int64_t num_tokens = 0;            // in the chunks

  bool empty() const { return chunks.empty() && preempted.empty() && refused.empty(); }
  void clear() {
    chunks.clear(), admitted.clear(), preempted.clear(), refused.clear(), running.clear();
    num_tokens = 0;
  }

  std::vector<Sequence*> running;  // order of running once the plan has started
};

// What came of a chunk.
struct ChunkResult {
  std::span<const int32_t> tokens;  // sampled, at most `steps`
  bool finished = false;            // the sequence ends with them
};

}  // namespace millrace
