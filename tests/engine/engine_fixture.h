// An engine over FakeModel, a sink that collects, and an oracle that says what must come out.
#pragma once
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "tests/engine/fake_model.h"

namespace millrace {

// What one sequence gave in the end.
struct Answer {
  std::vector<int32_t> tokens;
  std::string text;
  std::vector<PositionLogprobs> logprobs;
  FinishReason reason = FinishReason::kNone;
  std::optional<std::string> stop_string;
  std::optional<int32_t> stop_token_id;
};

// Collects a request's outputs and checks how they come. Outlives the engine's use of it through shared ownership.
class Collector : public std::enable_shared_from_this<Collector> {
 public:
  OutputSink sink();
  // Blocks until the request is finished; answers by index.
  const std::vector<Answer>& wait();
  bool finished() const;
  int64_t num_outputs() const;
  void wait_for_outputs(int64_t count);
  const PromptLogprobs& prompt_logprobs() const { return prompt_logprobs_; }
  Status error() const;
  int64_t cached_tokens() const;
  // Text that came by then, of sequence 0.
  const std::vector<std::string>& pieces() const { return pieces_; }

 private:
  void take(RequestOutput&& output);
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Answer> answers_;
  std::vector<std::string> pieces_;
  PromptLogprobs prompt_logprobs_;
  Status error_;
  int64_t outputs_ = 0, cached_tokens_ = 0;
  bool finished_ = false, busy_ = false;
};

constexpr int64_t kFakeVocab = 40;

struct EngineSetup {
  EngineConfig config{.block_size = 4, .max_num_seqs = 64, .eos_token_ids = {kFakeEos}};
  ModelRunner::Info model{.vocab_size = kFakeVocab, .max_positions = 200, .num_blocks = 400, .block_tokens = 4};
  bool text = true;
};

class TestEngine {
 public:
  explicit TestEngine(const EngineSetup& setup, std::function<void(const Batch&)> on_forward = nullptr);
  // Submits; the test fails if it is refused.
  std::shared_ptr<Collector> submit(const GenerationRequest& request, EngineClient::RequestKey* key = nullptr);
  Engine& operator*() { return *engine_; }
  Engine* operator->() { return engine_.get(); }
  FakeModel& model() { return *model_; }
  // Waits until nothing runs or waits.
  void settle() const;

 private:
  FakeModel* model_ = nullptr;
  std::unique_ptr<Engine> engine_;
};

// Answers of a request computed without any engine: one token after the other, straight from the model's definition.
// `seed`: the request must bring one, unless it is greedy.
std::vector<Answer> oracle(const GenerationRequest& request, const EngineSetup& setup);

}  // namespace millrace
