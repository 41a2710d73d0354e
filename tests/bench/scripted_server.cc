#include "tests/bench/scripted_server.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>

namespace millrace {

ScriptedServer::ScriptedServer(std::function<Script(const Request&)> script)
    : script_(std::move(script)), listener_(::socket(AF_INET, SOCK_STREAM, 0)) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  ::bind(listener_, reinterpret_cast<sockaddr*>(&address), size);
  ::listen(listener_, 1024);
  ::getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size);
  port_ = ntohs(address.sin_port);
  acceptor_ = std::thread([this] { accept_all(); });
}

ScriptedServer::~ScriptedServer() {
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
    ::shutdown(listener_, SHUT_RDWR);
    for (const int fd : connections_) ::shutdown(fd, SHUT_RDWR);
  }
  acceptor_.join();
  for (std::thread& thread : threads_) thread.join();
  for (const int fd : connections_) ::close(fd);
  ::close(listener_);
}

void ScriptedServer::accept_all() {
  while (true) {
    const int fd = ::accept(listener_, nullptr, nullptr);
    std::lock_guard lock(mutex_);
    if (stop_ || fd < 0) {
      if (fd >= 0) ::close(fd);
      return;
    }
    const int on = 1;
    ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    connections_.push_back(fd);
    threads_.emplace_back([this, fd] { serve(fd); });
  }
}

namespace {

// The body of the next request; false when the client has gone away.
bool read_request(int fd, std::string& input, std::string& body) {
  char bytes[65536];
  while (true) {
    const size_t head = input.find("\r\n\r\n");
    const size_t length = input.find("Content-Length: ");
    if (head != std::string::npos && length < head) {
      const size_t whole = head + 4 + std::strtoul(input.c_str() + length + 16, nullptr, 10);
      if (input.size() >= whole) {
        body = input.substr(head + 4, whole - head - 4);
        input.erase(0, whole);
        return true;
      }
    }
    const ssize_t n = ::recv(fd, bytes, sizeof bytes, 0);
    if (n <= 0) return false;
    input.append(bytes, static_cast<size_t>(n));
  }
}

void wait_for_the_end(int fd) {
  char bytes[4096];
  while (::recv(fd, bytes, sizeof bytes, 0) > 0) {
  }
}

}  // namespace

void ScriptedServer::serve(int fd) {
  std::string input;
  Request request;
  while (read_request(fd, input, request.body)) {
    request.read_at = Clock::now();
    {
      std::lock_guard lock(mutex_);
      request.number = truth_.size();
      truth_.push_back({.read_at = request.read_at, .tokens = {}, .done_at = {}});
    }
    if (!answer(fd, request, script_(request))) return;
  }
}

// Whether another request may follow.
bool ScriptedServer::answer(int fd, const Request& request, const Script& script) {
  for (const ScriptStep& step : script.steps) {
    std::this_thread::sleep_until(request.read_at + std::chrono::duration_cast<Clock::duration>(
                                                        std::chrono::duration<double, std::milli>(step.at_ms)));
    const auto now = Clock::now();
    if (::send(fd, step.bytes.data(), step.bytes.size(), MSG_NOSIGNAL) < 0) return false;
    std::lock_guard lock(mutex_);
    Truth& truth = truth_[request.number];
    if (step.tokens > 0) truth.tokens.emplace_back(now, step.tokens);
    truth.done_at = now;
  }
  if (script.end == ScriptEnd::kNextRequest) return true;
  if (script.end == ScriptEnd::kReset) {
    const linger at_once{.l_onoff = 1, .l_linger = 0};
    ::setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    std::lock_guard lock(mutex_);
    std::erase(connections_, fd);
    ::close(fd);
    return false;
  }
  if (script.end == ScriptEnd::kClose) ::shutdown(fd, SHUT_RDWR);
  if (script.end == ScriptEnd::kHalfClose) ::shutdown(fd, SHUT_WR);
  wait_for_the_end(fd);
  return false;
}

std::vector<ScriptedServer::Truth> ScriptedServer::truth() const {
  std::lock_guard lock(mutex_);
  return truth_;
}

std::string stream_head() {
  return "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
}
std::string http_chunk(const std::string& data) { return fmt::format("{:x}\r\n{}\r\n", data.size(), data); }
std::string last_http_chunk() { return "0\r\n\r\n"; }

}  // namespace millrace
