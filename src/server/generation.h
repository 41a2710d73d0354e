// One HTTP request on its way through the engine: one engine request per prompt, their outputs joined into one answer,
// streamed or whole. A client that goes away, or one prompt that fails, aborts them all at once.
//
// Threads: created and started on a worker; outputs come on the engine's output thread (where stream events are also
// worded: microseconds each); whole answers are worded on a worker. The engine's sinks keep it alive. The engine is
// called from workers and loops, which end before ApiServer lets the engine go, and from its own output thread.
#pragma once
#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "engine/client.h"
#include "net/http_server.h"
#include "net/worker_pool.h"
#include "server/response_format.h"

namespace millrace {

class Generation : public std::enable_shared_from_this<Generation> {
 public:
  struct Setup {
    EngineClient* engine = nullptr;  // never owned: the last owner of an engine must not be its output thread
    std::shared_ptr<WorkerPool> workers;
    HttpReply reply;
    std::unique_ptr<ResponseFormat> format;
    std::vector<HttpHeader> headers;  // of the answer
    std::string id;                   // for the log
    bool stream = false, usage_event = false, log = false;
  };
  explicit Generation(Setup setup);

  // Submits all or none; a failure is answered with its error. `requests` share one n.
  void start(std::vector<GenerationRequest> requests);

 private:
  enum class Stage { kRunning, kComplete, kFailed, kGone };
  void submit_all(std::vector<GenerationRequest> requests);
  void refuse(const Status& status);
  void send_error(const Status& status) const;
  void on_output(size_t prompt, RequestOutput&& output);
  void collect(size_t prompt, RequestOutput&& output);
  void count(size_t prompt, const RequestOutput& output);
  void complete();
  void fail(const Status& status);
  void pump();
  void answer_whole();
  void abort_all();
  void log_end() const;

  const Setup setup_;
  std::mutex mutex_;  // guards all below; never held while the engine is called
  std::vector<EngineClient::RequestKey> keys_;
  size_t n_ = 1, prompts_ = 0, finished_prompts_ = 0;
  Stage stage_ = Stage::kRunning;
  bool submitted_ = false;  // all of them: the answer may begin
  Status error_;
  std::string events_;  // worded, not yet handed to the reply
  std::vector<Choice> choices_;
  std::vector<PromptLogprobs> prompt_logprobs_;
  std::vector<bool> cached_counted_;
  Usage usage_;
  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

}  // namespace millrace
