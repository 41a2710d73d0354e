// A server whose latencies are a script: the truth that a load generator must find. Speaks the streams of
// /v1/completions, /v1/chat/completions and the generate paths of TensorRT-LLM and of bare servers, /v1/embeddings, and
// the pages beside them that the script has: /metrics, /v1/models, /tokenize and /detokenize, /reset_prefix_cache.
// Times are kept against the arrival of the request, so they do not drift.
#pragma once
#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "net/http_server.h"

namespace millrace {

struct MockScript {
  double ttft_ms = 20;
  double gap_ms = 5;  // between events
  int tokens_per_event = 1;
  int max_tokens = 1 << 20;                  // fewer than asked for: short answers
  bool continuous_usage = true;              // states totals in every event, if asked to
  bool usage = true;                         // states them at the end, if asked to
  bool role_prelude = true;                  // chat: an event without a token comes at once
  bool empty_first_event = false;            // an event without text or tokens comes at once
  double stall_at_event = -1, stall_ms = 0;  // before that event nothing comes for so long
  int status = 200;
  std::string body = R"({"error":{"message":"no"}})";  // with another status
  int hang_up_after_events = -1;
  int error_after_events = -1;         // an error event, then the end
  int every_nth_fails = 0;             // 429 for each n-th request
  bool refuse_stream_options = false;  // 400 when the request has them
  std::string model;                   // not empty: the only one; 404 for others
  // The /metrics page after so many answers have begun and ended; none: 404.
  std::function<std::string(int begun, int ended)> metrics;
  int bytes_per_token = 0;                // > 0: what /tokenize makes of a text; else 404
  bool cache_can_be_reset = true;         // else 404
  int image_height = 0, image_width = 0;  // > 0: 400 unless the request holds one picture of this size
};

class MockLlm {
 public:
  explicit MockLlm(MockScript script);
  ~MockLlm();
  int port() const;
  int requests() const;
  std::vector<double> arrivals_s() const;  // since the first
  // What really happened, seen from here: a busy machine writes later than the script says. All requests' values.
  struct Truth {
    std::vector<double> ttft_ms, gap_ms, e2el_ms;
  };
  Truth truth() const;
  std::vector<std::string> bodies() const;  // as received
  int cache_resets() const;

 private:
  struct State;
  std::shared_ptr<State> state_;
  std::unique_ptr<HttpServer> server_;
};

}  // namespace millrace
