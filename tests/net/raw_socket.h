// A plain blocking TCP client for tests that must say exactly which bytes go out when.
#pragma once
#include <string>
#include <string_view>

namespace millrace {

class RawSocket {
 public:
  explicit RawSocket(int port, int receive_buffer_bytes = 0);
  ~RawSocket();
  RawSocket(const RawSocket&) = delete;
  RawSocket& operator=(const RawSocket&) = delete;
  bool send(std::string_view bytes);
  // What arrives until the other side closes or nothing came for `timeout_ms`.
  std::string read_all(int timeout_ms = 5000);
  // What arrives until `end` was seen (included), the other side closes or nothing came for `timeout_ms`.
  std::string read_until(std::string_view end, int timeout_ms = 5000);
  // Whether the other side closes within `timeout_ms`; what it still sends is thrown away.
  bool closed_within(int timeout_ms);
  void shut_down_sending();
  void reset();  // closes with RST
  void close();

 private:
  int fd_ = -1;
  std::string leftover_;
};

}  // namespace millrace
