// Turns sampled tokens into what clients see, on a thread of its own: text, stop strings, RequestOutputs, calls of
// sinks. The engine's thread pushes groups of events and goes on; a group becomes at most one output for each request.
// A stop string is found only here, after the engine has moved on: later tokens of that sequence are dropped, and the
// engine is told to end it.
#pragma once
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <unordered_map>
#include <vector>

#include "engine/client.h"
#include "engine/stop.h"
#include "engine/text_decoder.h"

namespace millrace {

using PromptLogprobs = std::vector<std::optional<PositionLogprobs>>;

struct OutputEvent {
  enum class Kind : uint8_t {
    kBegin,  // a request starts
    kToken,  // a sequence got `token` (or none) and ends with it where `reason` says so
    kDrop,   // nobody wants the request any more
    kFail,   // the request failed with `error`
  };
  struct Begin {
    std::shared_ptr<const GenerationRequest> request;
    OutputSink sink;
  };
  static constexpr int32_t kNoToken = -1;

  Kind kind = Kind::kToken;
  EngineClient::RequestKey key = 0;
  int index = 0;
  int32_t token = kNoToken;
  FinishReason reason = FinishReason::kNone;
  std::optional<int32_t> stop_token_id;
  std::optional<PositionLogprobs> logprobs;
  int64_t cached_tokens = 0;
  std::unique_ptr<PromptLogprobs> prompt_logprobs;  // with the first token of the request
  std::unique_ptr<Begin> begin;
  Status error;
};

class OutputProcessor {
 public:
  // Ends a sequence in the engine, or the whole request for index kAll. Called on the output thread.
  static constexpr int kAll = -1;
  using StopSequence = std::function<void(EngineClient::RequestKey, int index)>;
  // Without `decoders` no text is made.
  OutputProcessor(TextDecoderFactory decoders, StopSequence stop_sequence);
  ~OutputProcessor() { close(); }

  // Processes what was pushed, then joins the thread. Nothing may be pushed afterwards.
  void close();

  // Hands a group over and leaves `events` empty. Any one thread at a time.
  void push(std::vector<OutputEvent>& events);

 private:
  struct SequenceText {
    explicit SequenceText(const SamplingParams& params) : text(params.stop, params.include_stop_str_in_output) {}
    std::unique_ptr<TextDecoder> decoder;  // from the first token to the last
    StopStrings text;
    int64_t generated = 0;
    int news = -1;  // place in the request's output of the group at hand; -1: none yet
    bool finished = false;
  };
  struct Request {
    std::shared_ptr<const GenerationRequest> request;
    OutputSink sink;
    std::vector<SequenceText> sequences;
    int unfinished = 0;
    int64_t cached_tokens = 0;
    bool in_group = false;  // has news in the group at hand
    RequestOutput output;   // the news
  };
  using Key = EngineClient::RequestKey;

  void run();
  void process(OutputEvent& event);
  void begin(OutputEvent& event);
  void token(Request& request, OutputEvent& event);
  static SequenceOutput& news_of(Request& request, int index);
  bool makes_text(const Request& request) const { return decoders_ != nullptr && request.request->params.detokenize; }
  void add_text(Request& request, SequenceText& sequence, OutputEvent& event, SequenceOutput& news);
  void deliver_group();
  void deliver(Key key);
  void call_sink(Key key, Request& request, RequestOutput output);

  const TextDecoderFactory decoders_;
  const StopSequence stop_sequence_;
  // The output thread's own:
  std::unordered_map<Key, Request> requests_;
  std::vector<Key> group_;  // requests with news
  // Shared, under mutex_:
  std::mutex mutex_;
  std::condition_variable pushed_;
  std::vector<OutputEvent> queue_;  // groups, one after the other
  std::vector<size_t> group_sizes_;
  bool closing_ = false;
  std::thread thread_;
};

}  // namespace millrace
