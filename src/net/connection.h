// One accepted socket: a session loop around "read a request, call the handler, write its answer", and beside it a
// reader that notices at once when the client goes away. Private to net/. Everything runs on the loop that owns the
// connection, except what goes through its ReplyChannel.
#pragma once
#include <atomic>
#include <boost/asio.hpp>
#include <boost/beast/core/error.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <unordered_set>

#include "net/http_server.h"
#include "net/reply_channel.h"

namespace millrace {

class Connection;

// One thread's event loop and the connections it owns.
struct ServerLoop {
  boost::asio::io_context context{1};
  std::optional<boost::asio::executor_work_guard<boost::asio::io_context::executor_type>> work;
  std::thread thread;
  std::unordered_set<Connection*> connections;        // loop thread only
  std::string scratch = std::string(64 << 10, '\0');  // read buffer of whoever reads right now
};

// What all connections of a server share.
struct ServerShared {
  HttpServerConfig config;
  HttpServer::Handler handler;
  std::atomic<bool> draining{false};
  std::atomic<size_t> body_bytes_in_flight{0};
  std::mutex mutex;  // guards `open`
  std::condition_variable none_open;
  int open = 0;
  HttpResponse error(int status, const std::string& message) const;
};

class Connection : public std::enable_shared_from_this<Connection> {
 public:
  Connection(boost::asio::ip::tcp::socket socket, std::shared_ptr<ServerShared> shared,
             std::shared_ptr<ServerLoop> loop);
  ~Connection();
  void start();  // on the loop
  void drain();  // closes if no request is under way, else after its answer
  void drop();   // closes now

 private:
  using Clock = std::chrono::steady_clock;
  template <class T>
  using Task = boost::asio::awaitable<T>;
  using Parser = boost::beast::http::request_parser<boost::beast::http::string_body>;

  Task<void> serve();
  Task<bool> serve_one();
  Task<bool> wait_for_first_byte();
  // Reads until the parser says so of `part`: 0, the status that refuses the request, or -1 where nobody waits.
  Task<int> receive(bool (Parser::*is_complete)() const, std::string_view part, std::chrono::milliseconds timeout);
  Task<int> read_headers();
  Task<int> read_body();
  Task<bool> answer();
  Task<bool> send_all(std::string bytes);
  Task<void> refuse(int status, std::string message);
  Task<void> read_side();
  Task<bool> wait_until(Clock::time_point deadline);
  void ensure_reading();
  void notify() { news_.cancel(); }
  int feed();
  int check_headers();
  bool reserve_body(size_t bytes);
  void release_body();
  HttpRequest take_request();
  void call_handler(HttpRequest request);

  boost::asio::ip::tcp::socket socket_;
  boost::asio::steady_timer news_;         // cancelled whenever something changed for serve()
  boost::asio::steady_timer write_timer_;  // runs while the client does not read
  const std::shared_ptr<ServerShared> shared_;
  const std::shared_ptr<ServerLoop> loop_;
  std::optional<Parser> parser_;
  std::string input_;  // received, not yet parsed
  std::string peer_, parse_error_;
  std::shared_ptr<ReplyChannel> channel_;  // while a request is being answered
  size_t reserved_body_bytes_ = 0;
  bool reading_ = false, discarding_ = false, peer_closed_ = false;
};

}  // namespace millrace
