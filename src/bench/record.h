// What a load run measured, as plain values: one record per request, the run around them, and what is needed to judge
// whether the figures may be believed. Needs nothing but the standard library. Times are seconds on a monotonic clock
// since the run began; a moment that never came is kNever. Counts that nobody stated are kUnknown.
#pragma once
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace millrace::bench {

inline constexpr double kNever = -1;
inline constexpr int64_t kUnknown = -1;

enum class Outcome {
  kCompleted,    // the answer came to its regular end
  kUnreachable,  // no connection
  kRefused,      // an HTTP status other than 200; http_status says which
  kTimedOut,
  kHungUp,       // the server closed the connection in the middle of an answer
  kBadAnswer,    // the answer is not what the protocol promises, or reports an error
  kInterrupted,  // the run was stopped by the user while this was under way; neither success nor failure
};
inline constexpr const char* kOutcomeNames[] = {"completed", "unreachable", "refused",    "timed out",
                                                "hung up",   "bad answer",  "interrupted"};

// Where the number of generated tokens comes from. Never from the number of events.
enum class CountSource { kNone, kUsage, kTokenizer, kProtocol };  // kProtocol: one event is one token by definition
inline constexpr const char* kCountSourceNames[] = {"none", "usage", "tokenizer", "protocol"};

// One event of a stream that brought generated tokens.
struct Chunk {
  double at_s = 0;    // when the read that brought it returned
  double tokens = 0;  // that it brought; a fraction where only the total is known and was spread over the events
};

struct RequestRecord {
  int64_t index = 0;  // in order of issue
  // t_sched, t_send, t_hdr, t_1, t_n and t_done of the reference.
  double scheduled_s = kNever;
  double sent_s = kNever;  // first byte handed to the socket, the connection being open
  double head_s = kNever;
  double first_token_s = kNever;
  double last_token_s = kNever;
  double done_s = kNever;
  std::vector<Chunk> chunks;
  int64_t coalesced_events = 0;  // events that shared a read with an earlier one
  int64_t prompt_tokens = kUnknown;
  int64_t output_tokens = kUnknown;
  int64_t requested_output_tokens = kUnknown;
  int64_t cached_tokens = kUnknown;  // of the prompt, as the server says
  CountSource prompt_source = CountSource::kNone, output_source = CountSource::kNone;
  bool chunk_tokens_estimated = false;  // `tokens` of the chunks were spread, not stated
  Outcome outcome = Outcome::kCompleted;
  int http_status = 0;
  std::string error;  // one line; empty unless it failed
  std::string text;   // the generated text; kept on demand
};

// The client's own state during a run.
struct ClientHealth {
  int loops = 0;                    // event loops, one thread each
  double cpu_share = 0;             // of the busiest loop: CPU time over wall time, 0 to 1
  std::vector<double> loop_lag_ms;  // samples of how late a loop ran what was due at once
  // Whole-process CPU share over the machine's cores, 0 to 1.
  double process_cpu_share = 0;
};

// Counters of the server's /metrics, after minus before.
struct SpeculationCounters {
  bool known = false;
  double drafts = 0, draft_tokens = 0, accepted_tokens = 0;
  std::vector<double> accepted_per_position;
};

// Counters of the server's prefix cache, after minus before, in tokens.
struct PrefixCacheCounters {
  bool known = false;
  double query_tokens = 0, hit_tokens = 0;
};

struct RunRecord {
  // What was asked for.
  std::string command;   // "parallel", "serving", ...
  std::string backend;   // "openai", ...
  std::string endpoint;  // host:port/path
  std::string model, tokenizer, dataset;
  std::string arrival;       // "exponential", "constant", "gamma", "ramp", "trace", "closed", "rounds", "burst"
  double request_rate = -1;  // per second; infinity: all at once; -1: not an open loop
  double burstiness = 1;
  int64_t max_concurrency = 0;                                // 0: no cap
  int64_t input_tokens = kUnknown, output_tokens = kUnknown;  // where all requests ask for the same
  int64_t epochs = 0;                                         // rounds of a static run
  int64_t num_speculative_tokens = 0;                         // tokens of a draft, where the user said so
  uint64_t seed = 0;
  double temperature = 0, top_p = 1;
  int64_t top_k = -1;
  std::string started_at;  // local time, %Y%m%d-%H%M%S
  std::vector<std::pair<std::string, std::string>> metadata;
  // What happened.
  bool interrupted = false;
  int64_t planned_requests = 0;
  double last_issue_s = 0;              // when the generator ran out of requests
  double wall_s = 0;                    // from the first send to the end of the last request
  std::vector<RequestRecord> requests;  // in order of issue
  ClientHealth client;
  SpeculationCounters speculation;
  PrefixCacheCounters prefix_cache;
  int64_t inexact_prompts = 0;  // prompts whose token count missed the wanted one
  std::string prompt_note;      // what the server said of the prompts' lengths, where it did not agree; or empty
  std::string idle_note;        // why the server was not known to be idle before; or empty
  std::string image_shape;      // "height,width" of the pictures sent; or empty
};

}  // namespace millrace::bench
