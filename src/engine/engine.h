// Requests in, tokens out, in this process. Three kinds of threads:
//   callers        submit(), abort(), stats() ...: check the request and leave a message; never wait for compute
//   engine thread  owns scheduler, blocks, model and samplers: takes messages, plans, computes, commits
//   output thread  owns text and sinks (output_processor.h)
// While the output thread works on one step, the engine thread plans and computes the next.
#pragma once
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "engine/client.h"
#include "engine/config.h"
#include "engine/model_runner.h"
#include "engine/output_processor.h"
#include "engine/request_state.h"
#include "engine/scheduler.h"
#include "engine/step_runner.h"
#include "engine/text_decoder.h"

namespace millrace {

class Engine : public EngineClient {
 public:
  // Starts the threads. `decoders` may be null: no text (skip_tokenizer_init).
  static Result<std::unique_ptr<Engine>> create(EngineConfig config, std::unique_ptr<ModelRunner> model,
                                                TextDecoderFactory decoders);
  // shutdown() without patience.
  ~Engine() override;

  Result<RequestKey> submit(GenerationRequest request, OutputSink sink) override;
  void abort(RequestKey key) override;
  EngineStats stats() const override;
  EngineLimits limits() const override;
  Status health() const override;

  // Admits nothing more, lets what it has finish for up to `patience`, ends the rest with kAbort, and stops the
  // threads. All sinks have been called for the last time when it returns. Not from a sink.
  void shutdown(std::chrono::milliseconds patience);

  const EngineConfig& config() const { return config_; }

 private:
  using Clock = std::chrono::steady_clock;
  // What callers and the output thread tell the engine thread.
  struct Message {
    enum class Kind : uint8_t { kSubmit, kAbort, kStopSequence };
    Kind kind = Kind::kSubmit;
    RequestKey key = 0;
    int index = 0;
    std::shared_ptr<const GenerationRequest> request;
    OutputSink sink;
  };

  Engine(EngineConfig config, std::unique_ptr<ModelRunner> model, TextDecoderFactory decoders);
  Status check(const GenerationRequest& request) const;
  Status check_prompt(const GenerationRequest& request) const;
  Status leave(Message message);

  // On the engine thread:
  void run();
  bool receive();
  void read(Message& message);
  void start(Message& message);
  void drop(RequestKey key);
  void release(RequestKey key);
  void end_sequence(RequestKey key, int index);
  void forget_sequence(RequestKey key);
  Status guarded_step();
  Status step();
  void refuse();
  void die(const Status& status);
  void abort_all();
  void update_stats();

  const EngineConfig config_;
  const ModelRunner::Info model_;
  const bool makes_text_;
  OutputProcessor output_;
  // The engine thread's own:
  BlockManager blocks_;
  Scheduler scheduler_;
  StepRunner step_runner_;
  StepPlan plan_;
  RequestStates requests_;
  std::vector<OutputEvent> events_;
  std::vector<Message> inbox_;
  EngineStats totals_;
  // Shared, under mutex_:
  mutable std::mutex mutex_;
  std::condition_variable arrived_;
  std::vector<Message> mail_;
  EngineStats stats_;
  Status health_;
  bool closing_ = false;
  Clock::time_point deadline_;

  std::atomic<RequestKey> last_key_{0};
  std::mutex joining_;
  std::thread thread_;
};

}  // namespace millrace
