#include "net/http_server.h"

#include <sys/resource.h>

#include <boost/asio/experimental/as_tuple.hpp>

#include "base/check.h"
#include "base/log.h"
#include "net/connection.h"

namespace millrace {

namespace asio = boost::asio;
using boost::system::error_code;
using tcp = asio::ip::tcp;
constexpr auto kAwait = asio::as_tuple(asio::use_awaitable);

struct HttpReply::Guard {
  std::shared_ptr<ReplyChannel> channel;
  ~Guard() { channel->abandon(); }
};
HttpReply::HttpReply(std::shared_ptr<ReplyChannel> channel) : guard_(std::make_shared<Guard>(std::move(channel))) {}
void HttpReply::send(const HttpResponse& response) const { guard_->channel->send(response); }
void HttpReply::begin(const HttpResponse& head) const { guard_->channel->begin(head); }
bool HttpReply::write(std::string_view chunk) const { return guard_->channel->write(chunk); }
void HttpReply::end() const { guard_->channel->end(); }
void HttpReply::on_disconnect(std::function<void()> callback) const {
  guard_->channel->on_disconnect(std::move(callback));
}
bool HttpReply::gone() const { return guard_->channel->gone(); }

class HttpServer::Impl {
 public:
  Impl(HttpServerConfig config, Handler handler) : shared_(std::make_shared<ServerShared>()) {
    shared_->config = std::move(config);
    shared_->handler = std::move(handler);
  }

  Status start();
  Status check_address();
  void shutdown(std::chrono::milliseconds grace);
  int port() const { return port_; }
  int connections() const {
    std::lock_guard lock(shared_->mutex);
    return shared_->open;
  }

 private:
  Status listen(asio::io_context& context);
  Status listen_at(const tcp::endpoint& endpoint);
  asio::awaitable<void> accept_all();
  void adopt(tcp::socket socket, const std::shared_ptr<ServerLoop>& loop);
  bool wait_until_none_open(std::chrono::steady_clock::time_point deadline);
  template <class Action>
  void on_every_connection(Action action);

  const std::shared_ptr<ServerShared> shared_;
  std::vector<std::shared_ptr<ServerLoop>> loops_;
  std::optional<tcp::acceptor> acceptor_;  // on the first loop
  int port_ = 0;
  bool running_ = false;
};

Status HttpServer::Impl::listen_at(const tcp::endpoint& endpoint) {
  error_code ec;
  acceptor_->open(endpoint.protocol(), ec);
  if (!ec) acceptor_->set_option(tcp::acceptor::reuse_address(true), ec);
  if (!ec) acceptor_->bind(endpoint, ec);
  if (!ec) acceptor_->listen(asio::socket_base::max_listen_connections, ec);
  if (!ec) {
    port_ = acceptor_->local_endpoint(ec).port();
    return {};
  }
  error_code ignored;
  acceptor_->close(ignored);
  const std::string where = fmt::format("port {} on {}", endpoint.port(), endpoint.address().to_string());
  if (ec == asio::error::address_in_use)
    return already_exists("{} is already in use; stop the other server or choose another --port", where);
  if (ec == asio::error::access_denied)
    return failed_precondition("not permitted to listen on {}: ports below 1024 need privileges", where);
  return invalid_argument("cannot listen on {}: {}", where, ec.message());
}

Status HttpServer::Impl::listen(asio::io_context& context) {
  const HttpServerConfig& config = shared_->config;
  if (config.port < 0 || config.port > 65535)
    return invalid_argument("port is {}; it must be between 0 (any free port) and 65535", config.port);
  const std::string host = config.host.empty() ? "0.0.0.0" : config.host;
  error_code ec;
  tcp::resolver resolver(context);
  const auto found = resolver.resolve(host, std::to_string(config.port), tcp::resolver::passive, ec);
  if (ec || found.empty()) return invalid_argument("host '{}' has no address here: {}", host, ec.message());
  Status status;
  for (const auto& entry : found) {
    status = listen_at(entry.endpoint());
    if (status.ok() || status.code() == Code::kAlreadyExists) return status;
  }
  return status;
}

// Descriptors beyond the connections: files, the loops' own, what else the process has open.
constexpr rlim_t kOtherDescriptors = 256;

// The usual soft limit of 1,024 descriptors would end at 1,000 streams.
void raise_descriptor_limit(rlim_t wanted) {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= wanted) return;
  limit.rlim_cur = std::min(wanted, limit.rlim_max);
  if (::setrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur == wanted) return;
  warn_once("net.descriptors", fmt::format("only {} open files are allowed (ulimit -n); {} connections may need {}",
                                           limit.rlim_cur, wanted - kOtherDescriptors, wanted));
}

Status HttpServer::Impl::check_address() {
  asio::io_context context;
  acceptor_.emplace(context);
  const Status status = listen(context);
  acceptor_.reset();
  return status;
}

Status HttpServer::Impl::start() {
  MR_CHECK(!running_ && loops_.empty(), "a server is started once");
  const int count = std::max(1, shared_->config.loop_threads);
  for (int i = 0; i < count; ++i) loops_.push_back(std::make_shared<ServerLoop>());
  acceptor_.emplace(loops_[0]->context);
  if (Status status = listen(loops_[0]->context); !status.ok()) {
    acceptor_.reset();
    loops_.clear();
    return status;
  }
  running_ = true;
  raise_descriptor_limit(static_cast<rlim_t>(shared_->config.max_connections) + kOtherDescriptors);
  asio::co_spawn(loops_[0]->context, accept_all(), asio::detached);
  for (const auto& loop : loops_) {
    loop->work.emplace(loop->context.get_executor());
    loop->thread = std::thread([raw = loop.get()] { raw->context.run(); });
  }
  return {};
}

// Tells a client that there is no room, without reading what it wants.
void turn_away(tcp::socket& socket, const ServerShared& shared) {
  ReplyChannel channel({.keep_alive = false, .wake = [] {}});
  HttpResponse response =
      shared.error(503, fmt::format("the server has its maximum of {} connections", shared.config.max_connections));
  response.headers.push_back({"Retry-After", "1"});
  channel.send(response);
  error_code ignored;
  socket.non_blocking(true, ignored);
  socket.write_some(asio::buffer(channel.take().bytes), ignored);
  socket.shutdown(tcp::socket::shutdown_send, ignored);
}

void HttpServer::Impl::adopt(tcp::socket socket, const std::shared_ptr<ServerLoop>& loop) {
  {
    std::lock_guard lock(shared_->mutex);
    if (shared_->open >= shared_->config.max_connections) {
      turn_away(socket, *shared_);
      return;
    }
    ++shared_->open;
  }
  // The connection is made on its own loop: `connections` is that thread's.
  asio::post(loop->context, [socket = std::move(socket), shared = shared_, loop]() mutable {
    const auto connection = std::make_shared<Connection>(std::move(socket), shared, loop);
    connection->start();
    if (shared->draining.load()) connection->drain();
  });
}

asio::awaitable<void> HttpServer::Impl::accept_all() {
  asio::steady_timer pause(loops_[0]->context);
  for (size_t next = 0; acceptor_->is_open(); ++next) {
    const std::shared_ptr<ServerLoop>& loop = loops_[next % loops_.size()];
    auto [ec, socket] = co_await acceptor_->async_accept(loop->context, kAwait);
    if (!ec) {
      adopt(std::move(socket), loop);
    } else if (acceptor_->is_open() && ec != asio::error::operation_aborted) {
      warn_once("net.accept", fmt::format("cannot accept connections for now: {}", ec.message()));
      pause.expires_after(std::chrono::milliseconds(50));  // out of descriptors: some will close
      co_await pause.async_wait(kAwait);
    }
  }
}

bool HttpServer::Impl::wait_until_none_open(std::chrono::steady_clock::time_point deadline) {
  std::unique_lock lock(shared_->mutex);
  return shared_->none_open.wait_until(lock, deadline, [this] { return shared_->open == 0; });
}

template <class Action>
void HttpServer::Impl::on_every_connection(Action action) {
  for (const auto& loop : loops_) {
    asio::post(loop->context, [loop, action] {
      std::vector<std::shared_ptr<Connection>> all;  // an action may end a connection
      for (Connection* connection : loop->connections) all.push_back(connection->shared_from_this());
      for (const auto& connection : all) action(*connection);
    });
  }
}

void HttpServer::Impl::shutdown(std::chrono::milliseconds grace) {
  if (!running_) return;
  running_ = false;
  shared_->draining.store(true);
  asio::post(loops_[0]->context, [this] {
    error_code ignored;
    acceptor_->close(ignored);
  });
  const auto deadline = std::chrono::steady_clock::now() + grace;
  on_every_connection([](Connection& connection) { connection.drain(); });
  while (!wait_until_none_open(deadline)) {
    // Past the deadline; again and again, since a connection may just have been adopted.
    on_every_connection([](Connection& connection) { connection.drop(); });
    if (wait_until_none_open(std::chrono::steady_clock::now() + std::chrono::milliseconds(100))) break;
  }
  for (const auto& loop : loops_) loop->work.reset();
  for (const auto& loop : loops_) loop->thread.join();
  acceptor_.reset();
}

HttpServer::HttpServer(HttpServerConfig config, Handler handler)
    : impl_(std::make_unique<Impl>(std::move(config), std::move(handler))) {}
HttpServer::~HttpServer() { impl_->shutdown(std::chrono::milliseconds(0)); }
Status HttpServer::check_address(const std::string& host, int port) {
  return Impl({.host = host, .port = port}, {}).check_address();
}
Status HttpServer::start() { return impl_->start(); }
int HttpServer::port() const { return impl_->port(); }
int HttpServer::connections() const { return impl_->connections(); }
void HttpServer::shutdown(std::chrono::milliseconds grace) { impl_->shutdown(grace); }

}  // namespace millrace
