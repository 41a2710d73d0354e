// How front ends reach an engine: submit a request, receive outputs, abort. The engine behind it may be in this process
// or elsewhere. Every method may be called from any thread and returns at once; no method blocks on compute.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "engine/sampling_params.h"

namespace millrace {

struct GenerationRequest {
  std::string id;                         // for logs
  std::vector<int32_t> prompt_token_ids;  // at least one
  SamplingParams params;
  int priority = 0;        // lower first, with the priority policy
  std::string cache_salt;  // part of the prefix cache's key
};

// One token with its log-probability and the best alternatives, best first. `rank` is 1 for the most likely.
struct TokenLogprob {
  int32_t token = 0;
  float logprob = 0;
  int rank = 0;
};
struct PositionLogprobs {
  TokenLogprob chosen;
  std::vector<TokenLogprob> top;  // as many as were asked for; may contain `chosen`
};

enum class FinishReason : uint8_t { kNone, kStop, kLength, kAbort };

// News of one of a request's n sequences.
struct SequenceOutput {
  int index = 0;                   // 0 .. n - 1
  std::vector<int32_t> token_ids;  // new since the last output
  std::string text;  // new since the last output: whole characters, nothing that a stop string may still take back
  std::vector<PositionLogprobs> logprobs;  // one per new token, where asked for
  FinishReason finish_reason = FinishReason::kNone;
  std::optional<std::string> stop_string;  // what ended it, where a stop string did
  std::optional<int32_t> stop_token_id;    // where a stop_token_id did (not EOS)
};

// An output that concerns a request. Outputs of one request arrive in order, never two at a time.
struct RequestOutput {
  std::vector<SequenceOutput> sequences;
  // With prompt_logprobs, in the first output that has any sequence news: one entry per prompt token, the first empty.
  std::vector<std::optional<PositionLogprobs>> prompt_logprobs;
  int64_t prompt_tokens = 0, cached_tokens = 0;
  bool finished = false;  // all sequences are done; no output follows
  Status error;           // not ok: the request failed; finished is true
};
// Called on the engine's output thread; must not block.
using OutputSink = std::function<void(RequestOutput&&)>;

struct EngineStats {
  int64_t running = 0, waiting = 0;
  int64_t blocks_total = 0, blocks_free = 0;  // free: not held by any sequence (cached ones count as free)
  int64_t preemptions = 0, prompt_tokens = 0, generated_tokens = 0, prefix_queries = 0,
          prefix_hits = 0;  // totals; the last two in tokens
};

struct EngineLimits {
  int64_t vocab_size = 0, max_model_len = 0, kv_tokens = 0;
  int max_logprobs = 20;
  bool priority_policy = false;
};

class EngineClient {
 public:
  using RequestKey = uint64_t;
  virtual ~EngineClient() = default;
  // Checks the request (ids in range, length, parameters) and queues it. Errors are the caller's to report; after
  // success `sink` is called at least once unless the request is aborted.
  virtual Result<RequestKey> submit(GenerationRequest request, OutputSink sink) = 0;
  // The request's blocks are free once the engine's current step ends. After abort returns, `sink` may still be called
  // for outputs already on their way, but never after the next step. Unknown keys are ignored.
  virtual void abort(RequestKey key) = 0;
  virtual EngineStats stats() const = 0;
  virtual EngineLimits limits() const = 0;
  // Not ok once the engine has died; says why.
  virtual Status health() const = 0;
};

}  // namespace millrace
