// An HTTP/1.1 server: sockets, parsing, limits and time-outs. It knows nothing of any API.
//
// Threads: `loop_threads` event loops own all sockets (one is enough for thousands of streams). The handler is called
// on a loop and must return at once; longer work goes to a WorkerPool, and the answer may come from any thread later.
// A connection carries one request at a time; pipelined requests wait for their turn.
#pragma once
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "base/result.h"
#include "net/http.h"

namespace millrace {

class ReplyChannel;

// The answer to one request: a handle that may be copied and used from any thread. Exactly one of send() or
// begin()...end() counts; later calls do nothing. When the last copy goes away before the answer was ended, the
// client gets status 500, or a stream cut short.
class HttpReply {
 public:
  HttpReply() = default;
  explicit HttpReply(std::shared_ptr<ReplyChannel> channel);

  void send(const HttpResponse& response) const;
  // Starts a streamed answer; `head.body` is its first chunk.
  void begin(const HttpResponse& head) const;
  // False when the client is gone or has not read for so long that the buffer is full; the connection then closes.
  bool write(std::string_view chunk) const;
  void end() const;
  // `callback` runs once, on a loop thread (or here, if it has happened), when the connection closes before the answer
  // was ended. It must not block. It is let go when the answer ends.
  void on_disconnect(std::function<void()> callback) const;
  bool gone() const;

 private:
  struct Guard;
  std::shared_ptr<Guard> guard_;
};

struct HttpServerConfig {
  std::string host = "127.0.0.1";  // a name or address; "" and "0.0.0.0" are all IPv4 addresses
  int port = 8000;                 // 0: any free one
  int loop_threads = 1;
  int max_connections = 4096;  // more are told 503 and closed
  size_t max_header_bytes = size_t{64} << 10;
  int max_headers = 256;
  size_t max_body_bytes = size_t{8} << 20;
  size_t max_body_bytes_in_flight = size_t{256} << 20;  // of all requests being received or answered
  size_t max_stream_buffer_bytes = size_t{1} << 20;     // of one stream, waiting for its client to read
  std::chrono::milliseconds idle_timeout{75'000};       // between requests
  std::chrono::milliseconds header_timeout{20'000};     // from a request's first byte to the end of its headers
  std::chrono::milliseconds body_timeout{120'000};      // from there to the end of the body
  std::chrono::milliseconds write_timeout{60'000};      // without a byte accepted by the client
  // Makes the body of the server's own error answers (400, 408, 413, 431, 503). Default: the message as plain text.
  std::function<HttpResponse(int status, const std::string& message)> error_response;
};

class HttpServer {
 public:
  using Handler = std::function<void(HttpRequest&& request, HttpReply reply)>;
  HttpServer(HttpServerConfig config, Handler handler);
  ~HttpServer();  // shutdown(0)
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  // Binds, listens and starts the loops. kAlreadyExists: the port is in use; kFailedPrecondition: not permitted;
  // kInvalidArgument: no such address here.
  Status start();
  // What start() would say of this address now, without listening on.
  static Status check_address(const std::string& host, int port);
  int port() const;  // the real one, after start()
  int connections() const;
  // Stops accepting, closes idle connections, lets answers under way finish for up to `grace`, closes the rest (their
  // on_disconnect runs), joins the loops. Not from a loop thread. Further calls do nothing.
  void shutdown(std::chrono::milliseconds grace);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace millrace
