// What a client needs to speak TLS: whose certificates it believes. Made once, shared by any number of calls and
// threads. TLS 1.2 or newer, server certificates only.
#pragma once
#include <memory>
#include <string>

#include "base/result.h"

struct ssl_ctx_st;
struct ssl_st;

namespace millrace {

struct TlsOptions {
  bool verify = true;   // false: any certificate will do, whoever holds it
  std::string ca_file;  // PEM file of the signers to believe; "": the system's (SSL_CERT_FILE, SSL_CERT_DIR)
};

class TlsContext {
 public:
  // kInvalidArgument when ca_file holds no certificate.
  static Result<std::shared_ptr<const TlsContext>> make(const TlsOptions& options);
  ~TlsContext();
  TlsContext(const TlsContext&) = delete;
  TlsContext& operator=(const TlsContext&) = delete;

  // The state of one connection to `host`, a name or an address: a name is told to the server (SNI), and the server's
  // certificate is held to either. The caller owns it; null when there is no memory.
  ssl_st* connection(const std::string& host) const;

 private:
  explicit TlsContext(ssl_ctx_st* context, bool verify) : context_(context), verify_(verify) {}
  ssl_ctx_st* const context_;
  const bool verify_;
};

// One line on why the handshake of `connection` with `host` failed; `reason` is the library's own word for it.
std::string tls_failure(ssl_st* connection, const std::string& host, const std::string& reason);

}  // namespace millrace
