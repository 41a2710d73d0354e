// A server on bare sockets that answers byte for byte what a script says, when it says so, and remembers when it really
// did: the truth a load generator must find. A thread per connection.
#pragma once
#include <chrono>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace millrace {

struct ScriptStep {
  double at_ms = 0;   // after the request was read
  std::string bytes;  // sent at once
  double tokens = 0;  // generated tokens that are complete with these bytes; > 0: the truth remembers the step
};
enum class ScriptEnd {
  kNextRequest,  // on the same connection
  kClose,
  kReset,
  kHalfClose,  // no more from the server, which goes on reading
  kStall,      // nothing more, until the client goes away
};
struct Script {
  std::vector<ScriptStep> steps;
  ScriptEnd end = ScriptEnd::kNextRequest;
};

class ScriptedServer {
 public:
  using Clock = std::chrono::steady_clock;
  struct Request {
    std::string body;
    size_t number = 0;  // from 0, over all connections
    Clock::time_point read_at;
  };
  explicit ScriptedServer(std::function<Script(const Request&)> script);
  ~ScriptedServer();  // closes everything at once, also in the middle of answers
  int port() const { return port_; }

  struct Truth {
    Clock::time_point read_at;
    std::vector<std::pair<Clock::time_point, double>> tokens;  // (sent, how many)
    Clock::time_point done_at;                                 // the last byte was sent
  };
  std::vector<Truth> truth() const;  // of every request so far

 private:
  void accept_all();
  void serve(int fd);
  bool answer(int fd, const Request& request, const Script& script);
  const std::function<Script(const Request&)> script_;
  int listener_ = -1, port_ = 0;
  mutable std::mutex mutex_;  // guards the rest
  bool stop_ = false;
  std::vector<int> connections_;
  std::vector<std::thread> threads_;
  std::vector<Truth> truth_;
  std::thread acceptor_;
};

// Pieces of answers.
std::string stream_head();                        // 200, text/event-stream, chunked
std::string http_chunk(const std::string& data);  // one of a chunked body
std::string last_http_chunk();

}  // namespace millrace
