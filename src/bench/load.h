// Sends a plan of requests at its times and records what came back. One pacing thread (the caller's) decides when;
// event loops of HttpClient, one thread each, send, receive and stamp. A record is touched by one loop only until its
// request has ended.
#pragma once
#include <atomic>
#include <chrono>
#include <memory>
#include <optional>

#include "bench/back_end.h"
#include "bench/live.h"
#include "net/http_client.h"

namespace millrace::bench {

struct ServerAddress {
  std::string host;
  int port = 0;
};

struct LoadTarget {
  std::string host = "127.0.0.1";
  int port = 8000;
  std::vector<ServerAddress> others;  // further servers of the same model: requests go to host:port and these in turn
  std::string path;                   // "/v1/completions"
  std::vector<HttpHeader> headers;
  const BackEnd* back_end = nullptr;
  RequestOptions options;
  std::shared_ptr<const Tokenizer> tokenizer;  // counts outputs that the server does not count; may be null
  std::chrono::milliseconds timeout{3 * 3600 * 1000};
  bool keep_text = false;
  std::shared_ptr<const TlsContext> tls;  // https; null: http
  // A call of server(index), with the target's headers.
  HttpCall call(std::string method, std::string path, std::chrono::milliseconds call_timeout, size_t index = 0) const;
  std::string endpoint() const { return fmt::format("{}:{}{}", host, port, path); }
  size_t servers() const { return 1 + others.size(); }
  ServerAddress server(size_t turn) const {
    turn %= servers();
    return turn == 0 ? ServerAddress{host, port} : others[turn - 1];
  }
};

struct LoadPlan {
  std::vector<LoadRequest> requests;
  // When each is due, seconds from the start, rising: an open loop, which the server cannot slow. Empty: each goes as
  // soon as max_concurrency allows (closed loop), or all at once.
  std::vector<double> due_s;
  int64_t max_concurrency = 0;      // 0: no cap. With due_s, a request above the cap waits in the client and is late
  int64_t round = 0;                // > 0: groups of so many, each sent when the group before has ended
  std::vector<double> round_due_s;  // with `round`: when each request is due, seconds from its group's start; or empty
};

class LoadGenerator {
 public:
  // `loops` event loops; 0: one per usable core.
  explicit LoadGenerator(LoadTarget target, int loops = 0);
  ~LoadGenerator();
  const LoadTarget& target() const { return target_; }

  // Blocks until all have ended. Fills requests, client, last_issue_s, wall_s, planned_requests and interrupted. When
  // `stop` becomes true nothing more is sent and what is under way is hung up on. Failures of the server are recorded,
  // never returned. `live`, if given, is a new one and counts along.
  RunRecord run(const LoadPlan& plan, const std::atomic<bool>& stop, LiveRun* live = nullptr);

  // Sends `request` alone and learns what the server understands: continuous_usage_stats, stream_options and ignore_eos
  // are left out where it refuses them with status 400 or 422. The error is one line for the user.
  Result<RequestRecord> probe(const LoadRequest& request, const std::atomic<bool>& stop);

 private:
  class Run;
  LoadTarget target_;
  std::vector<std::unique_ptr<HttpClient>> clients_;
};

// One line: "10.0.0.1:80/v1/completions: refused (401 Unauthorized): ...".
std::string failure_line(const LoadTarget& target, const RequestRecord& record);

// The first model that GET /v1/models names; "" when there is no such page.
std::string served_model(const LoadTarget& target);

}  // namespace millrace::bench
