// TLS in front of a plain server, for tests: takes connections with a throw-away certificate, made for the occasion,
// and carries their bytes to a local port and back. One thread per connection.
#pragma once
#include <atomic>
#include <memory>
#include <string>
#include <vector>

namespace millrace {

struct TestCertificate {
  std::vector<std::string> names = {"localhost"};  // DNS names, or "IP:127.0.0.1"
  int64_t from_s = -3600, to_s = 3600;             // when it is valid, seconds from now
  bool self_signed = false;                        // else signed by the front's authority
};

class TlsFront {
 public:
  // Carries to 127.0.0.1:`plain_port`; the authority's certificate is written to `ca_file`, in PEM.
  TlsFront(int plain_port, const TestCertificate& certificate, const std::string& ca_file);
  ~TlsFront();
  int port() const;
  int handshakes() const;           // completed ones
  std::string server_name() const;  // of the last client hello (SNI); "" if it held none

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace millrace
