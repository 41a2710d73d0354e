#include "net/http_client.h"

#include <poll.h>

#include <boost/asio.hpp>
#include <boost/asio/experimental/as_tuple.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/beast/core/error.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <future>
#include <map>
#include <mutex>
#include <thread>
#include <unordered_map>

#include "base/log.h"
#include "net/sse.h"
#include "net/tls.h"

namespace millrace {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using boost::system::error_code;
using tcp = asio::ip::tcp;
constexpr std::string_view kTlsAlert = "\x15\x03";
constexpr auto kAwait = asio::as_tuple(asio::use_awaitable);

namespace {

using TlsStream = asio::ssl::stream<tcp::socket>;

// An open connection; over TLS the stream owns the socket.
struct Wire {
  tcp::socket plain;
  std::unique_ptr<TlsStream> tls;
  tcp::socket& socket() { return tls ? tls->next_layer() : plain; }
};
using IdleWires = std::multimap<std::string, Wire>;

std::string request_text(const HttpCall& call) {
  std::string out = fmt::format("{} {} HTTP/1.1\r\nHost: {}:{}\r\nConnection: {}\r\n", call.method, call.target,
                                call.host, call.port, call.reuse_connection ? "keep-alive" : "close");
  for (const HttpHeader& header : call.headers) out += fmt::format("{}: {}\r\n", header.name, header.value);
  if (!call.body.empty() || call.method == "POST") out += fmt::format("Content-Length: {}\r\n", call.body.size());
  return out + "\r\n" + call.body;
}

// A kept connection that is closed so soon after a request had been given up before: the request was not read.
constexpr auto kStaleWithin = std::chrono::milliseconds(100);

// One request and its answer. Lives on the loop.
class Call : public std::enable_shared_from_this<Call> {
 public:
  // `buffer` is the loop's: what was read is dealt with before the next read of any call.
  Call(asio::io_context& context, IdleWires& idle, std::vector<char>& buffer, HttpCall call, HttpCallbacks callbacks)
      : wire_{tcp::socket(context), nullptr},
        timer_(context),
        resolver_(context),
        idle_(idle),
        buffer_(buffer),
        call_(std::move(call)),
        text_(request_text(call_)),
        on_(std::move(callbacks)) {}

  asio::awaitable<Status> run() {
    const auto start = std::chrono::steady_clock::now();
    parser_.body_limit(boost::none);
    parser_.header_limit(64 << 10);
    if (call_.method == "HEAD") parser_.skip(true);
    Status status;
    if (hung_up_ || !call_.reuse_connection || !take_idle_wire()) {
      stop_at(start + std::min(call_.timeout, call_.connect_timeout));
      status = co_await connect();
    }
    stop_at(start + call_.timeout);
    if (status.ok()) status = co_await exchange();
    if (stale_) {
      reused_ = stale_ = false;
      wire_.tls.reset();
      status = co_await connect();
      if (status.ok()) status = co_await exchange();
    }
    timer_.cancel();
    if (status.ok() && call_.reuse_connection && parser_.keep_alive()) idle_.emplace(pool_key(), std::move(wire_));
    co_return hung_up_ ? cancelled("hung up") : status;
  }
  // Connects and leaves the connection to later calls.
  asio::awaitable<void> open() {
    stop_at(std::chrono::steady_clock::now() + call_.connect_timeout);
    const Status status = co_await connect();
    timer_.cancel();
    if (status.ok() && !hung_up_) idle_.emplace(pool_key(), std::move(wire_));
  }
  int idle_connections() const { return static_cast<int>(idle_.count(pool_key())); }
  void hang_up() {
    hung_up_ = true;
    close();
  }
  void done(const Status& status) {
    if (on_.on_done) on_.on_done(status);
  }

 private:
  std::string key() const { return fmt::format("{}:{}", call_.host, call_.port); }
  std::string pool_key() const { return call_.tls ? fmt::format("{} {}", key(), fmt::ptr(call_.tls.get())) : key(); }
  void close() {
    error_code ignored;
    wire_.socket().close(ignored);
    resolver_.cancel();
  }
  void stop_at(std::chrono::steady_clock::time_point when) {
    timer_.expires_at(when);
    timer_.async_wait([weak = weak_from_this()](error_code ec) {
      const auto self = weak.lock();
      if (ec || !self) return;
      self->timed_out_ = true;
      self->close();
    });
  }
  Status failure(std::string_view doing, const error_code& ec) const {
    if (timed_out_) return unavailable("{} {}: timed out", doing, key());
    return unavailable("{} {}: {}", doing, key(), ec.message());
  }

  bool take_idle_wire() {
    const std::string wanted = pool_key();
    for (auto found = idle_.find(wanted); found != idle_.end(); found = idle_.find(wanted)) {
      Wire wire = std::move(found->second);
      idle_.erase(found);
      if (!alive(wire)) continue;
      wire_ = std::move(wire);
      return reused_ = true;
    }
    return false;
  }
  // Not closed by the other side, and silent; TLS may have sent session tickets.
  static bool alive(Wire& wire) {
    pollfd state{wire.socket().native_handle(), POLLIN | POLLRDHUP, 0};
    if (::poll(&state, 1, 0) <= 0) return true;
    return wire.tls && (state.revents & (POLLRDHUP | POLLHUP | POLLERR)) == 0;
  }

  asio::awaitable<Status> connect() {
    if (hung_up_) co_return cancelled("hung up");
    auto [resolve_error, found] = co_await resolver_.async_resolve(call_.host, std::to_string(call_.port), kAwait);
    if (resolve_error) co_return failure("resolving", resolve_error);
    error_code ec = asio::error::host_not_found;
    for (const auto& entry : found) {
      if (hung_up_ || timed_out_) break;
      error_code ignored;
      wire_.plain.close(ignored);
      auto [connect_error] = co_await wire_.plain.async_connect(entry.endpoint(), kAwait);
      ec = connect_error;
      if (!ec) break;
    }
    if (ec) co_return failure("connecting to", ec);
    wire_.plain.set_option(tcp::no_delay(true), ec);
    wire_.plain.non_blocking(true, ec);
    if (call_.tls) co_return co_await handshake();
    co_return Status();
  }

  asio::awaitable<Status> handshake() {
    SSL* const state = call_.tls->connection(call_.host);
    if (state == nullptr) co_return internal_error("no memory for a TLS connection");
    wire_.tls = std::make_unique<TlsStream>(std::move(wire_.plain), state);
    auto [ec] = co_await wire_.tls->async_handshake(TlsStream::client, kAwait);
    if (!ec) co_return Status();
    if (timed_out_ || hung_up_) co_return failure("TLS with", ec);
    co_return unavailable("TLS with {}: {}", key(), tls_failure(state, call_.host, ec.message()));
  }

  asio::awaitable<Status> exchange() {
    sent_at_ = std::chrono::steady_clock::now();
    Status status = co_await send();
    if (status.ok()) status = co_await receive();
    co_return status;
  }

  auto write(asio::const_buffer bytes) -> asio::awaitable<std::tuple<error_code, size_t>> {
    if (wire_.tls) co_return co_await asio::async_write(*wire_.tls, bytes, kAwait);
    co_return co_await asio::async_write(wire_.plain, bytes, kAwait);
  }

  asio::awaitable<Status> send() {
    if (on_.on_send) on_.on_send();
    auto [ec, bytes] = co_await write(asio::buffer(text_));
    // A server may answer and close before it has read everything; what it said is still to be read.
    if (ec && ec != asio::error::broken_pipe && ec != asio::error::connection_reset)
      co_return failure("sending to", ec);
    co_return Status();
  }

  asio::awaitable<std::pair<error_code, std::string_view>> read() {
    if (wire_.tls) {
      decrypted_.resize(16 << 10);  // its own: decrypted bytes may lie there while others read
      auto [ec, bytes] = co_await wire_.tls->async_read_some(asio::buffer(decrypted_), kAwait);
      co_return std::pair(ec, std::string_view(decrypted_.data(), bytes));
    }
    auto [ec] = co_await wire_.plain.async_wait(tcp::socket::wait_read, kAwait);
    const size_t bytes = ec ? 0 : wire_.plain.read_some(asio::buffer(buffer_), ec);
    co_return std::pair(ec, std::string_view(buffer_.data(), bytes));
  }

  asio::awaitable<Status> receive() {
    std::string input;
    while (!parser_.is_done()) {
      auto [ec, bytes] = co_await read();
      if (ec == asio::error::would_block) continue;
      if (ec == asio::ssl::error::stream_truncated && !parser_.need_eof()) ec = asio::error::eof;
      if (ec == asio::error::eof && parser_.got_some()) {
        error_code end;
        parser_.put_eof(end);
        if (!end && parser_.is_done()) break;
        co_return data_loss("{} closed the connection in the middle of an answer", key());
      }
      const bool closed = ec == asio::error::eof || ec == asio::error::connection_reset;
      if (closed && !parser_.got_some() && !call_.tls && !reused_)
        co_return unavailable("{} closed the connection without an answer; is it https?", key());
      if (closed && !parser_.got_some() && reused_ && !hung_up_ && !timed_out_)
        stale_ = std::chrono::steady_clock::now() < sent_at_ + kStaleWithin;
      if (ec) co_return failure("reading from", ec);
      if (on_.on_read) on_.on_read();
      input += bytes;
      Status parsed = parse(input);
      if (!parsed.ok()) co_return parsed;
    }
    co_return Status();
  }

  Status parse(std::string& input) {
    while (!input.empty() && !parser_.is_done()) {
      error_code ec;
      const size_t used = parser_.put(asio::buffer(input), ec);
      input.erase(0, used);
      if (ec && ec != http::error::need_more && !call_.tls && input.starts_with(kTlsAlert))
        return unavailable("{} answers in TLS; is it https?", key());
      if (ec && ec != http::error::need_more)
        return data_loss("{} sent what is not an HTTP/1.1 answer: {}", key(), ec.message());
      deliver();
      if (hung_up_) return cancelled("hung up");
      if (parser_.is_header_done()) parser_.eager(true);
      if (used == 0) break;
    }
    return {};
  }

  void deliver() {
    if (!parser_.is_header_done()) return;
    if (!head_delivered_) {
      head_delivered_ = true;
      if (on_.on_head) on_.on_head(head());
    }
    std::string body;
    body.swap(parser_.get().body());
    if (!body.empty() && on_.on_data && !on_.on_data(body)) hang_up();
  }

  HttpResponse head() const {
    HttpResponse head;
    head.status = static_cast<int>(parser_.get().result_int());
    head.content_type = std::string(std::string_view(parser_.get()[http::field::content_type]));
    for (const auto& field : parser_.get())
      head.headers.push_back(
          {std::string(std::string_view(field.name_string())), std::string(std::string_view(field.value()))});
    return head;
  }

  Wire wire_;
  asio::steady_timer timer_;
  tcp::resolver resolver_;
  IdleWires& idle_;
  std::vector<char>& buffer_;
  std::vector<char> decrypted_;
  const HttpCall call_;
  const std::string text_;
  HttpCallbacks on_;
  http::response_parser<http::string_body> parser_;
  bool head_delivered_ = false, hung_up_ = false, timed_out_ = false, reused_ = false;
  bool stale_ = false;  // the server closed a kept connection just when it was used again
  std::chrono::steady_clock::time_point sent_at_;
};

}  // namespace

class HttpClient::Impl {
 public:
  Impl() : work_(context_.get_executor()), thread_([this] { context_.run(); }) {}
  ~Impl() {
    asio::post(context_, [this] {
      for (auto& [id, call] : calls_) call->hang_up();
      idle_.clear();
      closing_ = true;
    });
    work_.reset();
    thread_.join();
  }

  uint64_t start(HttpCall call, HttpCallbacks callbacks) {
    auto running = std::make_shared<Call>(context_, idle_, buffer_, std::move(call), std::move(callbacks));
    std::lock_guard lock(mutex_);
    starting_.emplace_back(++last_id_, std::move(running));
    if (starting_.size() == 1) asio::post(context_, [this] { run_starting(); });  // one wake-up for all of a burst
    return last_id_;
  }
  int open_ahead(const HttpCall& like, int count) {
    std::promise<int> opened;
    asio::post(context_, [&] { open_missing(like, count, opened); });
    return opened.get_future().get();
  }
  void run_on_loop(std::function<void()> task) { asio::post(context_, std::move(task)); }
  void hang_up(uint64_t id) {
    asio::post(context_, [this, id] {
      if (const auto found = calls_.find(id); found != calls_.end()) found->second->hang_up();
    });
  }

 private:
  using StartedCall = std::pair<uint64_t, std::shared_ptr<Call>>;

  // On the loop, like the next.
  void run_starting() {
    std::vector<StartedCall> started;
    {
      std::lock_guard lock(mutex_);
      started.swap(starting_);
    }
    for (StartedCall& call : started) run(call.first, std::move(call.second));
  }
  void run(uint64_t id, std::shared_ptr<Call> call) {
    calls_[id] = call;
    if (closing_) call->hang_up();
    auto running = call->run();
    asio::co_spawn(context_, std::move(running),
                   [this, id, call = std::move(call)](const std::exception_ptr& error, const Status& status) {
                     calls_.erase(id);
                     if (closing_) idle_.clear();
                     call->done(error ? internal_error("the HTTP client failed") : status);
                   });
  }
  void open_missing(const HttpCall& like, int count, std::promise<int>& opened) {
    const auto first = std::make_shared<Call>(context_, idle_, buffer_, like, HttpCallbacks());
    const auto left = std::make_shared<int>(count - first->idle_connections());
    if (*left <= 0) return opened.set_value(first->idle_connections());
    for (int i = *left; i > 0; --i) {
      const auto call = std::make_shared<Call>(context_, idle_, buffer_, like, HttpCallbacks());
      asio::co_spawn(context_, call->open(), [left, call, &opened](const std::exception_ptr&) {
        if (--*left == 0) opened.set_value(call->idle_connections());
      });
    }
  }

  asio::io_context context_{1};
  asio::executor_work_guard<asio::io_context::executor_type> work_;
  IdleWires idle_;
  std::vector<char> buffer_ = std::vector<char>(64 << 10);
  std::unordered_map<uint64_t, std::shared_ptr<Call>> calls_;  // loop thread only, like the next
  bool closing_ = false;
  std::mutex mutex_;  // guards the next two
  std::vector<StartedCall> starting_;
  uint64_t last_id_ = 0;
  std::thread thread_;
};

HttpClient::HttpClient() : impl_(std::make_unique<Impl>()) {}
HttpClient::~HttpClient() = default;
uint64_t HttpClient::start(HttpCall call, HttpCallbacks callbacks) {
  return impl_->start(std::move(call), std::move(callbacks));
}
void HttpClient::hang_up(uint64_t call) { impl_->hang_up(call); }
int HttpClient::open_ahead(const HttpCall& like, int count) { return impl_->open_ahead(like, count); }
void HttpClient::run_on_loop(std::function<void()> task) { impl_->run_on_loop(std::move(task)); }

Result<HttpResponse> HttpClient::fetch(HttpCall call) {
  HttpResponse response;
  std::promise<Status> done;
  start(std::move(call), {.on_head = [&](const HttpResponse& head) { response = head; },
                          .on_data =
                              [&](std::string_view bytes) {
                                response.body += bytes;
                                return true;
                              },
                          .on_done = [&](Status status) { done.set_value(std::move(status)); }});
  MR_RETURN_IF_ERROR(done.get_future().get());
  return response;
}

Result<HttpResponse> HttpClient::get(const std::string& host, int port, const std::string& target) {
  return fetch({.host = host, .port = port, .target = target});
}

Result<HttpResponse> HttpClient::post_json(const std::string& host, int port, const std::string& target,
                                           std::string body) {
  return fetch({.host = host,
                .port = port,
                .method = "POST",
                .target = target,
                .headers = {{"Content-Type", "application/json"}},
                .body = std::move(body)});
}

Result<HttpResponse> HttpClient::stream_events(HttpCall call, std::function<bool(std::string_view)> on_event) {
  HttpResponse response;
  SseParser parser;
  std::promise<Status> done;
  bool wanted = true, events = false;
  const auto on_data = [&](std::string_view bytes) {
    if (!events) {
      response.body += bytes;
      return true;
    }
    const bool fits = parser.feed(bytes, [&](std::string_view data) { wanted = wanted && on_event(data); });
    return fits && wanted;
  };
  start(std::move(call), {.on_head =
                              [&](const HttpResponse& head) {
                                response = head;
                                events = head.content_type.starts_with("text/event-stream");
                              },
                          .on_data = on_data,
                          .on_done = [&](Status status) { done.set_value(std::move(status)); }});
  const Status status = done.get_future().get();
  if (!status.ok() && wanted) return status;
  return response;
}

}  // namespace millrace
