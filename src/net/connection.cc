#include "net/connection.h"

#include <boost/asio/experimental/as_tuple.hpp>

#include "base/log.h"

namespace millrace {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using boost::system::error_code;
using tcp = asio::ip::tcp;
constexpr auto kAwait = asio::as_tuple(asio::use_awaitable);
// Pipelined bytes kept while an answer is under way; beyond it the kernel holds them.
constexpr size_t kMaxPipelinedBytes = size_t{64} << 10;
constexpr std::chrono::seconds kLinger{2};

HttpResponse ServerShared::error(int status, const std::string& message) const {
  if (config.error_response) return config.error_response(status, message);
  return {.status = status, .content_type = "text/plain", .body = message + "\n"};
}

Connection::Connection(tcp::socket socket, std::shared_ptr<ServerShared> shared, std::shared_ptr<ServerLoop> loop)
    : socket_(std::move(socket)),
      news_(loop->context),
      write_timer_(loop->context),
      shared_(std::move(shared)),
      loop_(std::move(loop)) {
  loop_->connections.insert(this);
}

Connection::~Connection() {
  release_body();
  loop_->connections.erase(this);
  std::lock_guard lock(shared_->mutex);
  if (--shared_->open == 0) shared_->none_open.notify_all();
}

void Connection::start() {
  error_code ec;
  socket_.non_blocking(true, ec);
  socket_.set_option(tcp::no_delay(true), ec);
  const tcp::endpoint peer = socket_.remote_endpoint(ec);
  if (!ec) peer_ = fmt::format("{}:{}", peer.address().to_string(), peer.port());
  ensure_reading();
  asio::co_spawn(loop_->context, serve(), [self = shared_from_this()](std::exception_ptr error) {
    if (!error) return;
    try {
      std::rethrow_exception(error);
    } catch (const std::exception& e) {
      log_error("connection from {} failed: {}", self->peer_, e.what());
      self->drop();
    }
  });
}

void Connection::drain() {
  if (!channel_ && input_.empty() && !parser_) return drop();
  if (channel_) channel_->close_after();
}

void Connection::drop() {
  error_code ignored;
  socket_.close(ignored);
  write_timer_.cancel();
  peer_closed_ = true;
  if (channel_) channel_->disconnect();
  notify();
}

// ---- reading ----

void Connection::ensure_reading() {
  if (reading_ || peer_closed_) return;
  reading_ = true;
  asio::co_spawn(loop_->context, read_side(), [self = shared_from_this()](std::exception_ptr error) {
    if (error) self->drop();
  });
}

asio::awaitable<void> Connection::read_side() {
  error_code ec;
  while (!channel_ || input_.size() < kMaxPipelinedBytes) {
    auto [wait_error] = co_await socket_.async_wait(tcp::socket::wait_read, kAwait);
    ec = wait_error;
    if (ec) break;
    const size_t bytes = socket_.read_some(asio::buffer(loop_->scratch), ec);
    if (ec == asio::error::would_block || ec == asio::error::try_again) continue;
    if (ec) break;
    if (!discarding_) input_.append(loop_->scratch, 0, bytes);
    notify();
  }
  reading_ = false;
  if (!ec) co_return;
  peer_closed_ = true;
  if (channel_) channel_->disconnect();
  write_timer_.cancel();
  notify();
}

// True when something happened, false at the deadline. The caller looks again at what it waits for in either case.
asio::awaitable<bool> Connection::wait_until(Clock::time_point deadline) {
  news_.expires_at(deadline);
  auto [ec] = co_await news_.async_wait(kAwait);
  co_return ec == asio::error::operation_aborted;
}

asio::awaitable<bool> Connection::wait_for_first_byte() {
  const auto deadline = Clock::now() + shared_->config.idle_timeout;
  while (true) {
    while (!input_.empty() && (input_[0] == '\r' || input_[0] == '\n')) input_.erase(0, 1);
    if (!input_.empty()) co_return true;
    if (peer_closed_ || shared_->draining.load()) co_return false;
    const bool news = co_await wait_until(deadline);
    if (!news && input_.empty()) co_return false;
  }
}

// Gives the parser what has arrived. 0, or the status that says what is wrong with it (see parse_error_).
int Connection::feed() {
  error_code ec;
  const size_t used = input_.empty() ? 0 : parser_->put(asio::buffer(input_), ec);
  input_.erase(0, used);
  if (!ec || ec == http::error::need_more) return 0;
  if (ec == http::error::header_limit) {
    parse_error_ = fmt::format("the request's headers exceed {} bytes", shared_->config.max_header_bytes);
    return 431;
  }
  if (ec == http::error::body_limit) {
    parse_error_ = fmt::format("the request's body exceeds {} bytes", shared_->config.max_body_bytes);
    return 413;
  }
  parse_error_ = fmt::format("the request is not valid HTTP/1.1: {}", ec.message());
  return 400;
}

asio::awaitable<int> Connection::receive(bool (Parser::*is_complete)() const, std::string_view part,
                                         std::chrono::milliseconds timeout) {
  const auto deadline = Clock::now() + timeout;
  while (true) {
    if (const int status = feed()) co_return status;
    if (((*parser_).*is_complete)()) co_return 0;
    if (peer_closed_) co_return -1;
    const bool news = co_await wait_until(deadline);
    if (!news && Clock::now() >= deadline) {
      parse_error_ = fmt::format("the request's {} not complete after {} ms", part, timeout.count());
      co_return 408;
    }
  }
}

asio::awaitable<int> Connection::read_headers() {
  return receive(&Parser::is_header_done, "headers were", shared_->config.header_timeout);
}

// 0, or the status with which the request is refused before its body is read.
int Connection::check_headers() {
  const HttpServerConfig& config = shared_->config;
  const auto& message = parser_->get();
  const auto count = std::distance(message.begin(), message.end());
  if (count > config.max_headers) {
    parse_error_ = fmt::format("the request has {} headers; at most {} are allowed", count, config.max_headers);
    return 431;
  }
  if (message.version() != 11 && message.version() != 10) {
    parse_error_ = "the HTTP version must be 1.0 or 1.1";
    return 400;
  }
  if (message.count(http::field::transfer_encoding) > 0 && !parser_->chunked()) {
    parse_error_ = "the request's Transfer-Encoding must be chunked";  // where it ends is unknown otherwise
    return 400;
  }
  const auto announced = parser_->content_length();
  const size_t expected = announced ? static_cast<size_t>(*announced) : parser_->chunked() ? config.max_body_bytes : 0;
  if (reserve_body(expected)) return 0;
  parse_error_ = "too many request bodies are being received; try again later";
  return 503;
}

bool Connection::reserve_body(size_t bytes) {
  const size_t before = shared_->body_bytes_in_flight.fetch_add(bytes);
  reserved_body_bytes_ = bytes;
  if (before == 0 || before + bytes <= shared_->config.max_body_bytes_in_flight) return true;
  release_body();
  return false;
}

void Connection::release_body() {
  shared_->body_bytes_in_flight.fetch_sub(reserved_body_bytes_);
  reserved_body_bytes_ = 0;
}

asio::awaitable<int> Connection::read_body() {
  if (parser_->is_done()) co_return 0;
  parser_->eager(true);
  if (equal_ignoring_case(std::string_view(parser_->get()[http::field::expect]), "100-continue")) {
    const bool sent = co_await send_all("HTTP/1.1 100 Continue\r\n\r\n");
    if (!sent) co_return -1;
  }
  co_return co_await receive(&Parser::is_done, "body was", shared_->config.body_timeout);
}

HttpRequest Connection::take_request() {
  auto message = parser_->release();
  HttpRequest request;
  request.method = std::string_view(message.method_string());
  const std::string_view target(message.target().data(), message.target().size());
  const size_t question = target.find('?');
  request.path = percent_decode(target.substr(0, question)).value_or(std::string(target.substr(0, question)));
  if (question != std::string_view::npos) request.query = target.substr(question + 1);
  for (const auto& field : message)
    request.headers.push_back(
        {std::string(std::string_view(field.name_string())), std::string(std::string_view(field.value()))});
  request.body = std::move(message.body());
  request.peer = peer_;
  return request;
}

// ---- writing ----

// False when the client is gone or stops reading for write_timeout.
asio::awaitable<bool> Connection::send_all(std::string bytes) {
  size_t sent = 0;
  while (sent < bytes.size()) {
    error_code ec;
    sent += socket_.write_some(asio::buffer(bytes.data() + sent, bytes.size() - sent), ec);
    if (!ec) continue;
    if (ec != asio::error::would_block && ec != asio::error::try_again) co_return false;
    write_timer_.expires_after(shared_->config.write_timeout);
    write_timer_.async_wait([weak = weak_from_this()](error_code timer_error) {
      const auto self = weak.lock();
      if (self && !timer_error) self->drop();
    });
    auto [wait_error] = co_await socket_.async_wait(tcp::socket::wait_write, kAwait);
    write_timer_.cancel();
    if (wait_error) co_return false;
  }
  co_return true;
}

// Answers without having read the request to its end: says why, then reads on for a moment so that the answer is not
// lost to a connection reset.
asio::awaitable<void> Connection::refuse(int status, std::string message) {
  ReplyChannel channel({.keep_alive = false, .wake = [] {}});
  channel.send(shared_->error(status, message));
  discarding_ = true;
  std::string bytes = channel.take().bytes;
  const bool sent = co_await send_all(std::move(bytes));
  if (!sent) co_return;
  error_code ignored;
  socket_.shutdown(tcp::socket::shutdown_send, ignored);
  const auto deadline = Clock::now() + kLinger;
  while (!peer_closed_ && Clock::now() < deadline) co_await wait_until(deadline);
}

void Connection::call_handler(HttpRequest request) {
  const HttpReply reply(channel_);
  try {
    shared_->handler(std::move(request), reply);
  } catch (const std::exception& e) {
    log_error("the handler threw: {}", e.what());
    reply.send(shared_->error(500, "internal error"));
  }
}

// True: the connection may carry another request.
asio::awaitable<bool> Connection::answer() {
  const auto& message = parser_->get();
  ReplyChannel::Options options{.keep_alive = message.keep_alive() && !shared_->draining.load(),
                                .chunked = message.version() == 11,
                                .head_only = message.method() == http::verb::head,
                                .max_buffered_bytes = shared_->config.max_stream_buffer_bytes};
  options.wake = [weak = weak_from_this(), loop = loop_] {
    asio::post(loop->context, [weak] {
      if (const auto self = weak.lock()) self->notify();
    });
  };
  channel_ = std::make_shared<ReplyChannel>(std::move(options));
  call_handler(take_request());
  parser_.reset();
  if (peer_closed_) channel_->disconnect();
  bool keep = false;
  while (true) {
    ReplyChannel::Taken taken = channel_->take();
    if (!taken.bytes.empty()) {
      const bool sent = co_await send_all(std::move(taken.bytes));
      if (!sent) break;
    }
    if (taken.broken) break;
    if (taken.ended) {
      keep = channel_->keep_alive();
      break;
    }
    co_await wait_until(Clock::time_point::max());
  }
  channel_->disconnect();
  channel_.reset();
  release_body();
  if (keep) ensure_reading();
  co_return keep && !peer_closed_;
}

asio::awaitable<bool> Connection::serve_one() {
  const bool started = co_await wait_for_first_byte();
  if (!started) co_return false;
  parser_.emplace();
  parser_->header_limit(static_cast<uint32_t>(shared_->config.max_header_bytes));
  parser_->body_limit(shared_->config.max_body_bytes);
  int status = co_await read_headers();
  if (status == 0) status = check_headers();
  if (status == 0) status = co_await read_body();
  if (status > 0) co_await refuse(status, parse_error_);
  if (status != 0) co_return false;
  const bool again = co_await answer();
  co_return again;
}

asio::awaitable<void> Connection::serve() {
  const auto self = shared_from_this();
  bool again = true;
  while (again) again = co_await serve_one();
  drop();
}

}  // namespace millrace
