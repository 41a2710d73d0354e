// Computes a StepPlan: builds Batches, runs the model, samples, decides what ends, and tells the output thread.
// Owns the model and the memory for logits. One thread: the engine's.
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/result.h"
#include "engine/config.h"
#include "engine/model_runner.h"
#include "engine/output_processor.h"
#include "engine/request_state.h"
#include "engine/sampler.h"
#include "engine/step_plan.h"

namespace millrace {

class StepRunner {
 public:
  StepRunner(const EngineConfig& config, std::unique_ptr<ModelRunner> model, OutputProcessor& output);

  // Requires: `plan` was started. Afterwards results() belongs to its chunks. A sequence that samples up to `steps`
  // tokens takes part in as many forwards, until it ends.
  Status run(const StepPlan& plan, RequestStates& requests);
  std::span<const ChunkResult> results() const { return results_; }
  // Tokens sampled in the last run, and prompt tokens of requests whose prompt it completed.
  int64_t generated_tokens() const { return generated_tokens_; }
  int64_t prompt_tokens() const { return prompt_tokens_; }
  const ModelRunner::Info& model() const { return model_->info(); }

 private:
  // A chunk's part in the run.
  struct Work {
    const StepPlan::Chunk* chunk = nullptr;
    RequestState* request = nullptr;
    std::vector<int32_t> tokens;  // sampled so far
    TokenSampler::Choice choice;  // of the present forward
    bool finished = false;
    int64_t num_tokens() const { return chunk->sequence->num_tokens() + static_cast<int64_t>(tokens.size()); }
    RequestState::SequenceState& state() const {
      return request->sequences[static_cast<size_t>(chunk->sequence->index)];
    }
  };
  // What one row of logits is for.
  struct Row {
    Work* work;
    int64_t position;  // of the token whose successor the row predicts
    bool samples;      // else its successor is a prompt token whose log-probability is wanted
  };

  void collect_work(const StepPlan& plan, RequestStates& requests);
  void add_to_batch(Work& work, int64_t begin, int64_t end, bool samples);
  void add_tokens(const Work& work, int64_t begin, int64_t end);
  void add_block_tables();
  void want_prompt_rows(Work& work, int64_t begin, int64_t end);
  Status forward();
  Status use_logits();
  void use_rows(std::span<const Row> rows);
  void use_row(const Row& row, std::span<float> logits, SamplerScratch& scratch);
  void accept_choices();
  void accept(Work& work);
  void end_without_token(Work& work);
  void collect_results();

  const EngineConfig& config_;
  std::unique_ptr<ModelRunner> model_;
  OutputProcessor& output_;
  Batch batch_;
  std::vector<const Work*> in_batch_;    // [S]
  std::vector<Row> rows_;                // as batch_.logit_rows
  std::vector<float> logits_;            // [rows that fit the byte budget, V]
  std::vector<SamplerScratch> scratch_;  // one per thread
  std::vector<Work> work_;               // [chunks]; grows only
  size_t num_work_ = 0;
  std::vector<ChunkResult> results_;
  std::vector<OutputEvent> events_;
  int64_t generated_tokens_ = 0, prompt_tokens_ = 0;
};

}  // namespace millrace
