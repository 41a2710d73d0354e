#include "tests/net/raw_socket.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/check.h"

namespace millrace {

RawSocket::RawSocket(int port, int receive_buffer_bytes) {
  fd_ = ::socket(AF_INET, SOCK_STREAM, 0);
  MR_CHECK(fd_ >= 0);
  if (receive_buffer_bytes > 0)
    ::setsockopt(fd_, SOL_SOCKET, SO_RCVBUF, &receive_buffer_bytes, sizeof receive_buffer_bytes);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  MR_CHECK(::connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0, "connect to {}", port);
}

RawSocket::~RawSocket() { close(); }

bool RawSocket::send(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t sent = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent <= 0) return false;
    bytes.remove_prefix(static_cast<size_t>(sent));
  }
  return true;
}

std::string RawSocket::read_until(std::string_view end, int timeout_ms) {
  std::string out;
  out.swap(leftover_);
  char piece[4096];
  while (true) {
    if (const size_t at = end.empty() ? std::string::npos : out.find(end); at != std::string::npos) {
      leftover_ = out.substr(at + end.size());
      out.resize(at + end.size());
      return out;
    }
    pollfd wait{fd_, POLLIN, 0};
    if (::poll(&wait, 1, timeout_ms) <= 0) return out;
    const ssize_t got = ::recv(fd_, piece, sizeof piece, 0);
    if (got <= 0) return out;
    out.append(piece, static_cast<size_t>(got));
  }
}

std::string RawSocket::read_all(int timeout_ms) { return read_until("", timeout_ms); }

bool RawSocket::closed_within(int timeout_ms) {
  char piece[4096];
  while (true) {
    pollfd wait{fd_, POLLIN, 0};
    if (::poll(&wait, 1, timeout_ms) <= 0) return false;
    if (::recv(fd_, piece, sizeof piece, 0) <= 0) return true;
  }
}

void RawSocket::shut_down_sending() { ::shutdown(fd_, SHUT_WR); }

void RawSocket::reset() {
  const linger now{1, 0};
  ::setsockopt(fd_, SOL_SOCKET, SO_LINGER, &now, sizeof now);
  close();
}

void RawSocket::close() {
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
}

}  // namespace millrace
