#include "engine/step_runner.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "engine/stop.h"
#include "kernels/parallel.h"

namespace millrace {
namespace {

// Below this many logits in a pass, threads cost more than they bring.
constexpr size_t kParallelLogits = size_t{1} << 16;

}  // namespace

StepRunner::StepRunner(const EngineConfig& config, std::unique_ptr<ModelRunner> model, OutputProcessor& output)
    : config_(config), model_(std::move(model)), output_(output) {}

Status StepRunner::run(const StepPlan& plan, RequestStates& requests) {
  generated_tokens_ = prompt_tokens_ = 0;
  collect_work(plan, requests);
  batch_.clear(), in_batch_.clear(), rows_.clear();
  for (Work& work : std::span(work_).first(num_work_)) {
    add_to_batch(work, work.chunk->begin, work.chunk->end, work.chunk->steps > 0);
  }
  for (int32_t step = 1; !in_batch_.empty(); ++step) {
    MR_RETURN_IF_ERROR(forward());
    batch_.clear(), in_batch_.clear(), rows_.clear();
    for (Work& work : std::span(work_).first(num_work_)) {
      if (work.finished || work.chunk->steps <= step) continue;
      add_to_batch(work, work.num_tokens() - 1, work.num_tokens(), /*samples=*/true);
    }
  }
  output_.push(events_);
  collect_results();
  return {};
}

void StepRunner::collect_work(const StepPlan& plan, RequestStates& requests) {
  num_work_ = plan.chunks.size();
  if (work_.size() < num_work_) work_.resize(num_work_);
  for (size_t i = 0; i < num_work_; ++i) {
    Work& work = work_[i];
    work.chunk = &plan.chunks[i];
    work.request = &requests.at(work.chunk->sequence->group->id);
    work.tokens.clear();
    work.finished = false;
  }
}

// The work's tokens [begin, end) become a sequence of the batch.
void StepRunner::add_to_batch(Work& work, int64_t begin, int64_t end, bool samples) {
  want_prompt_rows(work, begin, end);
  add_tokens(work, begin, end);
  if (samples) {
    rows_.push_back({&work, end - 1, true});
    batch_.logit_rows.push_back(static_cast<int32_t>(batch_.num_tokens() - 1));
  }
  in_batch_.push_back(&work);
  batch_.query_start.push_back(static_cast<int32_t>(batch_.num_tokens()));
  batch_.context_len.push_back(static_cast<int32_t>(end));
  batch_.rope_len.push_back(static_cast<int32_t>(work.num_tokens()));
}

void StepRunner::add_tokens(const Work& work, int64_t begin, int64_t end) {
  const std::vector<int32_t>& known = work.chunk->sequence->tokens;
  const auto num_known = static_cast<int64_t>(known.size());
  for (int64_t i = begin; i < end; ++i) {
    batch_.tokens.push_back(i < num_known ? known[static_cast<size_t>(i)]
                                          : work.tokens[static_cast<size_t>(i - num_known)]);
    batch_.positions.push_back(static_cast<int32_t>(i));
  }
}

// Rows of prompt positions whose successor's log-probability is wanted and not known yet. Called before the tokens are
// added.
void StepRunner::want_prompt_rows(Work& work, int64_t begin, int64_t end) {
  const RequestState& request = *work.request;
  if (!request.wants_prompt_logprobs() || work.chunk->sequence->index != 0) return;
  const int64_t first = std::max(begin, request.prompt_logprobs_done - 1);
  const int64_t last = std::min(end, work.chunk->sequence->num_prompt() - 1);
  for (int64_t position = first; position < last; ++position) {
    rows_.push_back({&work, position, false});
    batch_.logit_rows.push_back(static_cast<int32_t>(batch_.num_tokens() + position - begin));
  }
}

void StepRunner::add_block_tables() {
  size_t widest = 0;
  for (const Work* work : in_batch_) widest = std::max(widest, work->chunk->sequence->table.blocks().size());
  batch_.max_blocks = static_cast<int32_t>(widest);
  batch_.block_table.assign(widest * in_batch_.size(), -1);
  for (size_t s = 0; s < in_batch_.size(); ++s) {
    std::ranges::copy(in_batch_[s]->chunk->sequence->table.blocks(),
                      batch_.block_table.begin() + static_cast<int64_t>(s * widest));
  }
}

Status StepRunner::forward() {
  add_block_tables();
  MR_RETURN_IF_ERROR(model_->forward(batch_));
  MR_RETURN_IF_ERROR(use_logits());
  accept_choices();
  if (config_.multi_step_stream_outputs) output_.push(events_);
  return {};
}

// Logits of the wanted rows, as many at a time as the byte budget holds.
Status StepRunner::use_logits() {
  const int64_t vocab_size = model().vocab_size;
  const int64_t fitting = std::max<int64_t>(1, config_.logits_bytes / (vocab_size * int64_t{sizeof(float)}));
  const auto wanted = static_cast<int64_t>(rows_.size());
  scratch_.resize(std::max(scratch_.size(), static_cast<size_t>(compute_threads())));
  for (int64_t begin = 0; begin < wanted; begin += fitting) {
    const int64_t count = std::min(fitting, wanted - begin);
    if (static_cast<int64_t>(logits_.size()) < count * vocab_size)
      logits_.resize(static_cast<size_t>(count * vocab_size));
    MR_RETURN_IF_ERROR(model_->logits(begin, begin + count, logits_.data()));
    use_rows(std::span(rows_).subspan(static_cast<size_t>(begin), static_cast<size_t>(count)));
  }
  return {};
}

// Rows whose logits lie in logits_, shared out to the compute pool.
void StepRunner::use_rows(std::span<const Row> rows) {
  const auto vocab_size = static_cast<size_t>(model().vocab_size);
  WorkQueue queue(static_cast<int64_t>(rows.size()));
  const auto work = [&](const TeamMember& me) {
    for (int64_t item = queue.next(); item >= 0; item = queue.next()) {
      const auto row = static_cast<size_t>(item);
      use_row(rows[row], std::span(logits_).subspan(row * vocab_size, vocab_size),
              scratch_[static_cast<size_t>(me.index)]);
    }
  };
  const bool worth_threads = rows.size() > 1 && rows.size() * vocab_size >= kParallelLogits;
  parallel_team(work, worth_threads ? static_cast<int>(rows.size()) : 1);
}

// Rows write to places of their own: any thread.
void StepRunner::use_row(const Row& row, std::span<float> logits, SamplerScratch& scratch) {
  Work& work = *row.work;
  if (row.samples) {
    RequestState::SequenceState& state = work.state();
    work.choice = state.sampler.choose(logits, row.position + 1, state.generated, scratch);
    return;
  }
  const auto next = static_cast<size_t>(row.position + 1);
  const SamplingParams& params = work.request->request->params;
  work.request->prompt_logprobs[next] =
      position_logprobs(logits, work.request->request->prompt_token_ids[next], *params.prompt_logprobs, scratch);
}

void StepRunner::accept_choices() {
  for (const Row& row : rows_) {
    if (row.samples) {
      accept(*row.work);
    } else {
      row.work->request->prompt_logprobs_done = row.position + 2;
    }
  }
  for (Work& work : std::span(work_).first(num_work_)) {
    const Sequence& sequence = *work.chunk->sequence;
    const bool only_prompt = work.request->request->params.max_tokens == 0;
    if (only_prompt && !work.finished && work.chunk->end == sequence.num_prompt()) end_without_token(work);
  }
}

void StepRunner::accept(Work& work) {
  RequestState::SequenceState& state = work.state();
  const Sequence& sequence = *work.chunk->sequence;
  const int32_t token = work.choice.token;
  work.tokens.push_back(token);
  state.sampler.accept(token);
  ++state.generated;
  ++generated_tokens_;
  const StopVerdict verdict = check_stop(work.request->request->params, config_.eos_token_ids, config_.max_model_len,
                                         token, state.generated, work.num_tokens());
  work.finished = verdict.reason != FinishReason::kNone;
  OutputEvent& event = events_.emplace_back();
  event.key = sequence.group->id;
  event.index = sequence.index;
  event.token = token;
  event.reason = verdict.reason;
  event.stop_token_id = verdict.stop_token_id;
  event.logprobs = std::exchange(work.choice.logprobs, std::nullopt);
  if (sequence.index != 0 || state.generated != 1) return;
  event.cached_tokens = sequence.group->cached_tokens;
  prompt_tokens_ += sequence.num_prompt();
  if (work.request->wants_prompt_logprobs()) {
    event.prompt_logprobs = std::make_unique<PromptLogprobs>(std::exchange(work.request->prompt_logprobs, {}));
  }
}

// max_tokens is 0: the prompt was all that was wanted. Its sequences, of which the scheduler knows the first, end.
void StepRunner::end_without_token(Work& work) {
  RequestState& request = *work.request;
  work.finished = true;
  prompt_tokens_ += work.chunk->sequence->num_prompt();
  for (int index = 0; index < request.request->params.n; ++index) {
    OutputEvent& event = events_.emplace_back();
    event.key = work.chunk->sequence->group->id;
    event.index = index;
    event.reason = FinishReason::kLength;
    if (index > 0) continue;
    event.cached_tokens = work.chunk->sequence->group->cached_tokens;
    event.prompt_logprobs = std::make_unique<PromptLogprobs>(std::exchange(request.prompt_logprobs, {}));
  }
}

void StepRunner::collect_results() {
  results_.clear();
  for (const Work& work : std::span(work_).first(num_work_)) results_.push_back({work.tokens, work.finished});
}

}  // namespace millrace
