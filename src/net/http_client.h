// The client side of HTTP/1.1: many requests at once on one loop thread, or one at a time with a blocking call.
// Connections are kept alive and reused per host and port; one that the server gives up just then is replaced. Any
// thread may call; callbacks run on the loop thread and must not block.
#pragma once
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "net/http.h"

namespace millrace {

class TlsContext;  // net/tls.h

struct HttpCall {
  std::string host = "127.0.0.1";
  int port = 80;
  std::string method = "GET", target = "/";
  std::vector<HttpHeader> headers;  // Host, Content-Length and Connection are added
  std::string body;
  std::chrono::milliseconds connect_timeout{10'000};  // of finding and reaching the host
  std::chrono::milliseconds timeout{300'000};         // from the start to the end of the answer
  bool reuse_connection = true;
  std::shared_ptr<const TlsContext> tls;  // https; null: plain http
};

struct HttpCallbacks {
  std::function<void()> on_send;  // optional; the connection is open and the request's first byte goes out now; twice
                                  // when it was given up just then
  std::function<void()> on_read;  // optional; bytes arrived; the calls of on_head and on_data until the next are theirs
  std::function<void(const HttpResponse& head)> on_head;  // optional; `body` is empty
  std::function<bool(std::string_view bytes)> on_data;    // optional; pieces of the body; false hangs up
  std::function<void(Status)> on_done;  // once, last: ok when the answer was complete, kCancelled after hanging up
};

class HttpClient {
 public:
  HttpClient();
  ~HttpClient();  // hangs up; callbacks of running calls see kCancelled before it returns
  HttpClient(const HttpClient&) = delete;
  HttpClient& operator=(const HttpClient&) = delete;

  uint64_t start(HttpCall call, HttpCallbacks callbacks);
  void hang_up(uint64_t call);                   // unknown or finished calls are ignored
  void run_on_loop(std::function<void()> task);  // soon, between two events

  // Blocking; not from a callback. Opens connections for calls to the address of `like` until `count` are idle, so that
  // so many calls can start without connecting. What cannot be opened is left to the calls. The number that is idle.
  int open_ahead(const HttpCall& like, int count);

  // Blocking; not from a callback. An answer of any status is a success.
  Result<HttpResponse> fetch(HttpCall call);
  Result<HttpResponse> get(const std::string& host, int port, const std::string& target);
  Result<HttpResponse> post_json(const std::string& host, int port, const std::string& target, std::string body);
  // Reads server-sent events until the answer ends or on_event returns false. The response's body is what was not an
  // event stream (an error's JSON).
  Result<HttpResponse> stream_events(HttpCall call, std::function<bool(std::string_view data)> on_event);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace millrace
