#include "tests/engine/simulation.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <set>

namespace millrace {
namespace {

uint64_t mix(uint64_t hash, uint64_t value) {
  hash ^= value + 0x9e3779b97f4a7c15u + (hash << 6) + (hash >> 2);
  hash *= 0xbf58476d1ce4e5b9u;
  return hash ^ (hash >> 29);
}

std::string describe(const StepPlan& plan) {
  std::string text;
  for (const auto& c : plan.chunks) text += fmt::format("{}[{},{})x{} ", c.sequence->id, c.begin, c.end, c.steps);
  for (const auto& a : plan.admitted) text += fmt::format("+{}:{} ", a.sequence->id, a.prefix);
  for (const auto* s : plan.preempted) text += fmt::format("-{} ", s->id);
  return text + fmt::format("refused {}", plan.refused);
}

}  // namespace

Simulation::Simulation(const SchedulerConfig& config, const BlockManager::Config& blocks)
    : blocks_(blocks),
      scheduler_(config, blocks_),
      slots_(static_cast<size_t>(int64_t{blocks.total_blocks} * blocks.block_tokens)) {}

void Simulation::add(SequenceGroup group) { scheduler_.add(std::move(group)); }

void Simulation::abort(SequenceId id) { scheduler_.abort(id); }

int32_t Simulation::next_token(std::span<const int32_t> prefix) {
  uint64_t hash = 17;
  for (const int32_t token : prefix.last(std::min<size_t>(prefix.size(), 3)))
    hash = mix(hash, static_cast<uint64_t>(token));
  return static_cast<int32_t>(hash % 3);
}

std::string Simulation::step() {
  scheduler_.plan(plan_);
  scheduler_.plan(again_);
  if (describe(plan_) != describe(again_)) return "the same state gave two plans";
  if (plan_.empty() != scheduler_.idle()) return fmt::format("{} waiting, empty plan", scheduler_.num_waiting());
  if (std::string wrong = check_plan(); !wrong.empty()) return wrong + " in " + describe(plan_);
  refused_.insert(refused_.end(), plan_.refused.begin(), plan_.refused.end());
  scheduler_.start(plan_);
  if (std::string wrong = check_blocks(); !wrong.empty()) return wrong + " after start of " + describe(plan_);
  std::vector<std::vector<int32_t>> sampled(plan_.chunks.size());
  std::vector<ChunkResult> results(plan_.chunks.size());
  for (size_t i = 0; i < results.size(); ++i) {
    std::string wrong = compute(plan_.chunks[i], sampled[i], results[i].finished);
    if (!wrong.empty()) return wrong + " in " + describe(plan_);
    results[i].tokens = sampled[i];
  }
  note(results);
  scheduler_.commit(plan_, results);
  return check_blocks();
}

void Simulation::note(std::span<const ChunkResult> results) {
  done_.clear(), preempted_.clear();
  for (const Sequence* sequence : plan_.preempted) preempted_.push_back(sequence->id);
  for (size_t i = 0; i < results.size(); ++i) {
    const StepPlan::Chunk& chunk = plan_.chunks[i];
    const bool admitted =
        std::ranges::find(plan_.admitted, chunk.sequence, &StepPlan::Admission::sequence) != plan_.admitted.end();
    done_.push_back(
        {chunk.sequence->id, chunk.begin, chunk.end, results[i].tokens.size(), results[i].finished, admitted});
  }
}

std::string Simulation::check_plan() const {
  const SchedulerConfig& config = scheduler_.config();
  std::set<const Sequence*> seen;
  int64_t tokens = 0;
  for (const StepPlan::Chunk& chunk : plan_.chunks) {
    if (!seen.insert(chunk.sequence).second) return "a sequence has two chunks";
    if (chunk.end <= chunk.begin || chunk.end > chunk.sequence->num_tokens()) return "a chunk is out of range";
    if (!config.chunked_prefill && chunk.end != chunk.sequence->num_tokens()) return "a chunk without chunking";
    tokens += chunk.num_tokens();
  }
  if (tokens != plan_.num_tokens || tokens > config.max_num_batched_tokens) return "the budget is broken";
  if (static_cast<int64_t>(plan_.running.size()) > config.max_num_seqs) return "too many sequences run";
  if (!plan_.preempted.empty() && !plan_.admitted.empty()) return "somebody is admitted while another is preempted";
  return "";
}

std::string Simulation::compute(const StepPlan::Chunk& chunk, std::vector<int32_t>& sampled, bool& finished) {
  const Sequence& sequence = *chunk.sequence;
  std::vector<int32_t> tokens = sequence.tokens;
  int64_t begin = chunk.begin, end = chunk.end;
  finished = chunk.steps == 0 && end == sequence.group->max_length;
  for (int step = 0; step == 0 || (step < chunk.steps && !finished); ++step) {
    if (std::string wrong = compute_range(sequence, tokens, begin, end); !wrong.empty()) return wrong;
    if (chunk.steps == 0) break;
    tokens.push_back(next_token(tokens));
    sampled.push_back(tokens.back());
    begin = std::exchange(end, end + 1);
    finished = end == sequence.group->max_length || (ends != nullptr && ends(sequence, end));
  }
  if (finished) finished_[sequence.id] = tokens;
  return "";
}

// Writes the slots of [begin, end) and reads all before them.
std::string Simulation::compute_range(const Sequence& sequence, const std::vector<int32_t>& tokens, int64_t begin,
                                      int64_t end) {
  const auto length = static_cast<int64_t>(tokens.size());
  uint64_t hash = mix(std::hash<std::string>{}(sequence.group->scope.salt), 1);
  for (int64_t position = 0; position < end; ++position) {
    hash = mix(hash, static_cast<uint64_t>(tokens[static_cast<size_t>(position)]));
    const int64_t block_tokens = blocks_.block_tokens();
    if (position / block_tokens >= sequence.table.size())
      return fmt::format("sequence {} has no slot {}", sequence.id, position);
    const int32_t block = sequence.table.blocks()[static_cast<size_t>(position / block_tokens)];
    Slot& slot = slots_[static_cast<size_t>(block * block_tokens + position % block_tokens)];
    const Slot wanted{hash, scheduler_.config().rotation.group(length)};
    if (position >= begin) {
      if (blocks_.references(block) != 1)
        return fmt::format("sequence {} writes the shared block {}", sequence.id, block);
      slot = wanted;
    } else if (slot != wanted) {
      return fmt::format(
          "sequence {} finds foreign keys at position {} of block {} (salt '{}', group of {}): {:x}/{} for {:x}/{}",
          sequence.id, position, block, sequence.group->scope.salt, sequence.group->count, slot.prefix, slot.rotation,
          wanted.prefix, wanted.rotation);
    }
  }
  return "";
}

// References are exactly the running sequences' tables; nobody else holds a block.
std::string Simulation::check_blocks() const {
  blocks_.check_invariants();
  std::map<int32_t, int32_t> references;
  for (const Sequence* sequence : scheduler_.running()) {
    for (const int32_t block : sequence->table.blocks()) ++references[block];
  }
  if (static_cast<int64_t>(references.size()) != blocks_.held()) return "a block is held by nobody who runs";
  for (const auto& [block, count] : references) {
    if (blocks_.references(block) != count) return fmt::format("block {} has {} references", block, count);
  }
  return "";
}

}  // namespace millrace
