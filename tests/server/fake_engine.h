// An engine that says what a test tells it to say. Like the real one, it calls sinks on a thread of its own.
#pragma once
#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <thread>

#include "engine/client.h"
#include "server/text_codec.h"

namespace millrace {

class FakeEngine : public EngineClient {
 public:
  // What a request produces, output by output. None: the test calls emit().
  using Script = std::function<std::vector<RequestOutput>(const GenerationRequest&)>;
  explicit FakeEngine(Script script = nullptr);
  ~FakeEngine() override;

  Result<RequestKey> submit(GenerationRequest request, OutputSink sink) override;
  void abort(RequestKey key) override;
  EngineStats stats() const override;
  EngineLimits limits() const override;
  Status health() const override;

  void emit(RequestKey key, RequestOutput output);
  // Blocks until that many requests were submitted (or aborted); all of them, in order. Keys count from 1.
  std::vector<GenerationRequest> wait_for_requests(size_t count);
  std::vector<RequestKey> wait_for_aborts(size_t count);
  // Requests that were neither finished nor aborted.
  size_t open_requests() const;
  void wait_until_idle();  // until there are none

  void set_waiting(int64_t waiting);
  void set_health(Status health);
  void fail_submissions_from(size_t number, Status status);
  EngineLimits limits_value{.vocab_size = 300, .max_model_len = 100, .kv_tokens = 1000, .max_logprobs = 20};

 private:
  void run();
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  const Script script_;
  std::vector<GenerationRequest> requests_;
  std::map<RequestKey, OutputSink> sinks_;
  std::vector<RequestKey> aborted_;
  std::deque<std::pair<RequestKey, RequestOutput>> queue_;
  EngineStats stats_;
  Status health_, submit_error_;
  size_t submit_error_from_ = SIZE_MAX;
  bool stopping_ = false;
  std::thread thread_;
};

// Bytes are tokens 0..255, "<s>" is 256, "</s>" is 257; a chat is "<role>content\n"... and "<assistant>".
class ByteCodec : public TextCodec {
 public:
  Result<std::vector<int32_t>> encode(std::string_view text, bool add_special_tokens) const override;
  std::string decode(std::span<const int32_t> ids, bool skip_special_tokens) const override;
  std::string token_bytes(int32_t id) const override;
  bool has_chat_template() const override { return chat_template; }
  Result<std::string> render_chat(const ChatPrompt& prompt) const override;
  bool chat_template = true;
};

// One output for sequence `index` that says `text`, a token per byte. With logprobs wanted, byte b has -0.25 and the
// alternatives b + 1, b + 2, ... lie below it in steps of 0.5.
SequenceOutput say(const GenerationRequest& request, int index, std::string_view text,
                   FinishReason reason = FinishReason::kNone);
PositionLogprobs logprobs_of(int32_t token, int top);
// Prompt log-probabilities as say() has them, null first; empty when not asked for.
std::vector<std::optional<PositionLogprobs>> prompt_logprobs_of(const GenerationRequest& request);
// Every sequence says `pieces`, one per output, and ends with `reason`; cut at max_tokens with kLength.
FakeEngine::Script speak(std::vector<std::string> pieces, FinishReason reason = FinishReason::kStop);

}  // namespace millrace
