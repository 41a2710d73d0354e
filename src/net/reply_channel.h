// Where an answer is handed over: producers on any thread put bytes in, the connection's loop takes them out.
// Private to net/; handlers see it as HttpReply.
//
// Bytes are framed (status line, chunk sizes) when they are put in, so the loop only copies them to the socket.
// Always true: at most max_buffered_bytes plus one chunk wait here; on_disconnect runs at most once, and never after
// the answer was ended.
#pragma once
#include <atomic>
#include <functional>
#include <mutex>
#include <string>
#include <string_view>

#include "net/http.h"

namespace millrace {

class ReplyChannel {
 public:
  struct Options {
    bool keep_alive = true;  // what the client asked for; an answer may still close
    bool chunked = true;     // false for HTTP/1.0: the end of a stream is the end of the connection
    bool head_only = false;  // HEAD: no body is sent
    size_t max_buffered_bytes = size_t{1} << 20;
    std::function<void()> wake;  // tells the loop that something changed; any thread, cheap
  };
  explicit ReplyChannel(Options options) : options_(std::move(options)) {}

  // Producers. See HttpReply.
  void send(const HttpResponse& response);
  void begin(const HttpResponse& head);
  bool write(std::string_view chunk);
  void end();
  void abandon();  // nobody will end this answer any more
  void on_disconnect(std::function<void()> callback);
  bool gone() const;

  // The loop.
  struct Taken {
    std::string bytes;    // to send now
    bool ended = false;   // after them the answer is complete
    bool broken = false;  // after them the connection must close: the client is gone, too slow, or was let down
  };
  Taken take();
  void disconnect();                                // the client is gone
  void close_after() { close_after_.store(true); }  // keep-alive is refused from now on, where the head is not out yet
  bool keep_alive() const;                          // valid once ended
  int status() const { return status_; }

 private:
  enum class Stage { kNothing, kStreaming, kEnded };
  void append_head(const HttpResponse& head, bool stream);
  void append_chunk(std::string_view chunk);
  void wake_locked();

  const Options options_;
  mutable std::mutex mutex_;
  std::string pending_;
  std::function<void()> on_disconnect_;
  Stage stage_ = Stage::kNothing;
  bool gone_ = false, broken_ = false, wake_sent_ = false, keep_alive_ = true;
  std::atomic<bool> close_after_{false};
  int status_ = 0;
};

}  // namespace millrace
