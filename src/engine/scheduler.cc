#include "engine/scheduler.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace millrace {

// Makes one plan from a scheduler it does not change.
class Scheduler::Planner {
 public:
  Planner(const Scheduler& scheduler, StepPlan& plan)
      : s_(scheduler), plan_(plan), forecast_(scheduler.blocks_), budget_(scheduler.config_.max_num_batched_tokens) {}

  void continue_running();
  void admit_waiting();
  void look_ahead();

 private:
  int64_t chunk_size(int64_t uncomputed, int64_t budget) const;
  int64_t new_blocks(const Sequence& sequence, int64_t tokens) const {
    return std::max<int64_t>(0, s_.blocks_.blocks_for(tokens) - sequence.table.size());
  }
  bool make_room(const Sequence& sequence, int64_t blocks, size_t& position);
  std::vector<Sequence*>::iterator victim();
  void unschedule(const Sequence& sequence);
  bool try_admit(Sequence& sequence);
  void schedule(Sequence& sequence, int64_t begin, int64_t tokens, int64_t blocks);

  const Scheduler& s_;
  StepPlan& plan_;
  BlockForecast forecast_;
  int64_t budget_;        // tokens left
  int64_t decoding_ = 0;  // running sequences with one uncomputed token that have not had their turn
};

Scheduler::~Scheduler() {
  for (auto& [id, sequence] : sequences_) blocks_.release(sequence->table);
}

Scheduler::Urgency Scheduler::urgency(const Sequence& sequence) const {
  return {config_.policy == SchedulingPolicy::kPriority ? sequence.group->priority : 0, sequence.arrival};
}

const Sequence* Scheduler::find(SequenceId id) const {
  const auto it = sequences_.find(id);
  return it == sequences_.end() ? nullptr : it->second.get();
}

void Scheduler::add(SequenceGroup group) {
  MR_CHECK(!group.prompt.empty() && group.count > 0 && group.count <= kMaxSequencesPerGroup, "{} tokens, {} sequences",
           group.prompt.size(), group.count);
  // Without prefix caching, blocks are findable for the group alone.
  if (!config_.prefix_caching) group.scope.private_to = group.id + 1;
  const auto shared = std::make_shared<SequenceGroup>(std::move(group));
  for (int32_t index = 0; index < shared->count; ++index) {
    auto sequence = std::make_unique<Sequence>();
    sequence->id = sequence_id(shared->id, index);
    sequence->index = index;
    sequence->group = shared;
    sequence->tokens = shared->prompt;
    sequence->arrival = arrivals_++;
    sequence->keys = PrefixKeys(shared->scope, blocks_.block_tokens());
    if (may_share(*sequence)) sequence->keys.extend(sequence->tokens);
    waiting_.insert(sequence.get());
    const bool fresh = sequences_.emplace(sequence->id, std::move(sequence)).second;
    MR_CHECK(fresh, "group {} is in the scheduler already", shared->id);
  }
}

// Blocks of this sequence are worth finding, by others or by itself after a preemption.
bool Scheduler::may_share(const Sequence& sequence) const {
  return config_.prefix_caching || sequence.group->count > 1;
}

bool Scheduler::may_look_up(const Sequence& sequence) const {
  const SequenceGroup& group = *sequence.group;
  if (group.compute_prompt && sequence.index == 0 && !group.prompt_computed) return false;
  return may_share(sequence) && !beyond_rope_limit(sequence.num_tokens());
}

// Blocks that may come from the cache: full ones, and one token at least is left to compute.
int64_t Scheduler::findable_blocks(const Sequence& sequence) const {
  return may_look_up(sequence) ? (sequence.num_tokens() - 1) / blocks_.block_tokens() : 0;
}

void Scheduler::plan(StepPlan& plan) const {
  plan.clear();
  Planner planner(*this, plan);
  planner.continue_running();                           // first: they already hold blocks
  if (plan.preempted.empty()) planner.admit_waiting();  // no newcomers while somebody loses their blocks
  if (config_.num_steps > 1) planner.look_ahead();      // with what is left
}

// Tokens of a sequence that one step may compute; 0: none in this step.
int64_t Scheduler::Planner::chunk_size(int64_t uncomputed, int64_t budget) const {
  if (!s_.config_.chunked_prefill) return uncomputed <= budget ? uncomputed : 0;
  const int64_t threshold = s_.config_.long_prefill_token_threshold;
  const int64_t most = threshold > 0 ? std::min(threshold, budget) : budget;
  return std::max<int64_t>(0, std::min(uncomputed, most));
}

void Scheduler::Planner::continue_running() {
  std::vector<Sequence*>& order = plan_.running;
  order = s_.running_;
  decoding_ = std::ranges::count_if(order, [](const Sequence* seq) { return seq->num_uncomputed() == 1; });
  for (size_t i = 0; i < order.size(); ++i) {
    Sequence& sequence = *order[i];
    const int64_t uncomputed = sequence.num_uncomputed();
    if (uncomputed == 1) --decoding_;
    const int64_t tokens = chunk_size(uncomputed, budget_ - decoding_);  // every decode behind keeps its place
    if (tokens == 0) continue;
    const int64_t blocks = new_blocks(sequence, sequence.num_computed + tokens);
    if (make_room(sequence, blocks, i)) {
      schedule(sequence, sequence.num_computed, tokens, blocks);
    }
  }
}

// Preempts until `blocks` are available. False if `sequence` itself had to go. `position` stays on its place in the
// order (or before the next one, where it went).
bool Scheduler::Planner::make_room(const Sequence& sequence, int64_t blocks, size_t& position) {
  std::vector<Sequence*>& order = plan_.running;
  while (blocks > forecast_.available()) {
    const auto it = victim();
    Sequence& loser = **it;
    const auto place = static_cast<size_t>(it - order.begin());
    if (place > position && loser.num_uncomputed() == 1) --decoding_;
    if (place < position) unschedule(loser);
    forecast_.release(loser.table);
    plan_.preempted.push_back(&loser);
    order.erase(it);
    if (place <= position) --position;
    if (&loser == &sequence) return false;
  }
  return true;
}

std::vector<Sequence*>::iterator Scheduler::Planner::victim() {
  if (s_.config_.policy == SchedulingPolicy::kFcfs) return std::prev(plan_.running.end());
  return std::ranges::max_element(plan_.running, MoreUrgent{&s_});
}

// Takes back what the plan had for a sequence that is preempted after its turn.
void Scheduler::Planner::unschedule(const Sequence& sequence) {
  const auto it = std::ranges::find(plan_.chunks, &sequence, &StepPlan::Chunk::sequence);
  if (it == plan_.chunks.end()) return;
  budget_ += it->num_tokens();
  plan_.num_tokens -= it->num_tokens();
  forecast_.give_back(new_blocks(sequence, it->end));
  plan_.chunks.erase(it);
}

void Scheduler::Planner::admit_waiting() {
  for (Sequence* sequence : s_.waiting_) {
    if (budget_ == 0 || static_cast<int64_t>(plan_.running.size()) >= s_.config_.max_num_seqs) return;
    const bool shares_later = sequence->index > 0 && !sequence->group->prompt_computed;
    if (shares_later) continue;  // keeps its place
    if (s_.blocks_.blocks_for(sequence->num_tokens()) > s_.blocks_.total()) {
      plan_.refused.push_back(sequence->id);
    } else if (!try_admit(*sequence)) {
      return;
    }
  }
}

// A newcomer must fit with all its tokens, though only those of the chunk get blocks yet: who starts without hope of
// ending soon only preempts others.
bool Scheduler::Planner::try_admit(Sequence& sequence) {
  std::vector<int32_t> prefix = s_.blocks_.match_prefix(sequence.keys, sequence.tokens, s_.findable_blocks(sequence));
  const auto found = static_cast<int64_t>(prefix.size());
  const int64_t begin = found * s_.blocks_.block_tokens();
  const int64_t tokens = chunk_size(sequence.num_tokens() - begin, budget_);
  if (tokens == 0) return false;
  const int64_t all = s_.blocks_.blocks_for(sequence.num_tokens()) - found;
  if (forecast_.cost_to_attach(prefix) + all > forecast_.available()) return false;
  forecast_.attach(prefix);
  schedule(sequence, begin, tokens, s_.blocks_.blocks_for(begin + tokens) - found);
  plan_.admitted.push_back({&sequence, std::move(prefix)});
  plan_.running.push_back(&sequence);
  return true;
}

void Scheduler::Planner::schedule(Sequence& sequence, int64_t begin, int64_t tokens, int64_t blocks) {
  forecast_.take(blocks);
  budget_ -= tokens;
  plan_.num_tokens += tokens;
  const int64_t end = begin + tokens;
  const bool samples = end == sequence.num_tokens() && end < sequence.group->max_length;
  plan_.chunks.push_back({&sequence, begin, end, samples ? 1 : 0});
}

// Multi-step: sequences that sample get slots for further tokens, as far as blocks are available without preemption.
void Scheduler::Planner::look_ahead() {
  const int32_t block_tokens = s_.blocks_.block_tokens();
  for (StepPlan::Chunk& chunk : plan_.chunks) {
    if (chunk.steps == 0) continue;
    int64_t steps = std::min<int64_t>(s_.config_.num_steps, chunk.sequence->group->max_length - chunk.end);
    const int64_t last = s_.config_.rotation.last_of_group(chunk.end);
    steps = std::min(steps, last - chunk.end < steps ? last - chunk.end + 1 : steps);
    const int64_t held = std::max(s_.blocks_.blocks_for(chunk.end), chunk.sequence->table.size());
    const int64_t slots = (held + forecast_.available()) * block_tokens - chunk.end;
    chunk.steps = static_cast<int32_t>(std::min(steps, slots + 1));
    forecast_.take(s_.blocks_.blocks_for(chunk.end + chunk.steps - 1) - held);
  }
}

void Scheduler::start(const StepPlan& plan) {
  for (Sequence* sequence : plan.preempted) preempt(*sequence);
  for (const SequenceId id : plan.refused) abort(id);
  for (const StepPlan::Admission& admission : plan.admitted) admit(admission);  // before anybody evicts their prefix
  running_ = plan.running;
  for (const StepPlan::Chunk& chunk : plan.chunks) {
    const int64_t slots = chunk.end + std::max(chunk.steps - 1, 0);
    const Status reserved = blocks_.reserve(chunk.sequence->table, slots);
    MR_CHECK(reserved.ok() && chunk.sequence->num_computed == chunk.begin, "stale plan: {}", reserved.to_string());
  }
}

void Scheduler::preempt(Sequence& sequence) {
  blocks_.release(sequence.table);
  sequence.num_computed = sequence.num_published = 0;
  waiting_.insert(&sequence);
  ++counters_.preemptions;
}

void Scheduler::admit(const StepPlan::Admission& admission) {
  Sequence& sequence = *admission.sequence;
  sequence.tokens.reserve(static_cast<size_t>(sequence.group->max_length));  // steps add to it
  blocks_.attach(sequence.table, admission.prefix);
  sequence.num_published = sequence.table.size();
  sequence.num_computed = sequence.num_published * blocks_.block_tokens();
  waiting_.erase(&sequence);
  if (!config_.prefix_caching || !may_look_up(sequence)) return;
  counters_.prefix_queries += sequence.num_tokens();
  counters_.prefix_hits += sequence.num_computed;
  if (!sequence.group->prompt_computed) sequence.group->cached_tokens = sequence.num_computed;
}

void Scheduler::commit(const StepPlan& plan, std::span<const ChunkResult> results) {
  MR_CHECK(results.size() == plan.chunks.size(), "{} results for {} chunks", results.size(), plan.chunks.size());
  for (size_t i = 0; i < results.size(); ++i) record(plan.chunks[i], results[i]);
  std::erase_if(running_, [](const Sequence* sequence) { return sequence->ended; });
  for (const StepPlan::Chunk& chunk : plan.chunks) {
    if (chunk.sequence->ended) remove(*chunk.sequence);
  }
}

void Scheduler::record(const StepPlan::Chunk& chunk, const ChunkResult& result) {
  Sequence& sequence = *chunk.sequence;
  const auto sampled = static_cast<int64_t>(result.tokens.size());
  MR_CHECK(sampled <= chunk.steps && (sampled > 0 || chunk.steps == 0 || result.finished), "{} tokens of {}", sampled,
           chunk.steps);
  sequence.tokens.insert(sequence.tokens.end(), result.tokens.begin(), result.tokens.end());
  sequence.num_computed = chunk.end + std::max<int64_t>(sampled - 1, 0);
  if (sequence.num_computed >= sequence.num_prompt()) sequence.group->prompt_computed = true;
  sequence.ended = result.finished;
  const int64_t computed_for = sequence.num_tokens() - (sampled > 0 ? 1 : 0);  // wanted tokens of the last forward
  if (may_share(sequence) && !beyond_rope_limit(computed_for)) publish(sequence);
  const RotationLengths& rotation = config_.rotation;
  if (sampled == 0 || result.finished || rotation.group(sequence.num_tokens()) == rotation.group(computed_for)) return;
  // The next token turns every key anew. Blocks of the standard rotation may be others' too.
  if (!beyond_rope_limit(computed_for)) blocks_.release(sequence.table);
  sequence.num_computed = sequence.num_published = 0;
}

void Scheduler::publish(Sequence& sequence) {
  const int64_t full = sequence.num_computed / blocks_.block_tokens();
  if (full == sequence.num_published) return;
  sequence.keys.extend(sequence.tokens);
  blocks_.publish(sequence.table, sequence.keys, sequence.tokens, sequence.num_published, full);
  sequence.num_published = full;
}

void Scheduler::abort(SequenceId id) {
  const auto it = sequences_.find(id);
  if (it == sequences_.end()) return;
  Sequence& sequence = *it->second;
  if (waiting_.erase(&sequence) == 0) std::erase(running_, &sequence);
  remove(sequence);
}

void Scheduler::remove(Sequence& sequence) {
  if (sequence.index == 0) sequence.group->prompt_computed = true;  // nobody waits for one that is gone
  blocks_.release(sequence.table);
  sequences_.erase(sequence.id);
}

}  // namespace millrace
