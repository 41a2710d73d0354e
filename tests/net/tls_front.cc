#include "tests/net/tls_front.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <mutex>
#include <thread>

#include "base/check.h"
#include "base/file.h"

namespace millrace {
namespace {

sockaddr_in loopback(int port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

void add_extension(X509* certificate, int kind, const std::string& value) {
  X509_EXTENSION* extension = X509V3_EXT_conf_nid(nullptr, nullptr, kind, value.c_str());
  MR_CHECK(extension != nullptr, "{}", value);
  X509_add_ext(certificate, extension, -1);
  X509_EXTENSION_free(extension);
}

std::string alternative_names(const TestCertificate& wanted) {
  std::string list;
  for (const std::string& name : wanted.names)
    list += (list.empty() ? "" : ",") + (name.starts_with("IP:") ? name : "DNS:" + name);
  return list;
}

// A certificate of `key` with `name`, signed by `signer_key` in the name of `signer` (itself when null).
X509* make_certificate(EVP_PKEY* key, const std::string& name, const TestCertificate& wanted, bool authority,
                       X509* signer, EVP_PKEY* signer_key) {
  static std::atomic<long> serial{1};
  X509* certificate = X509_new();
  X509_set_version(certificate, 2);
  ASN1_INTEGER_set(X509_get_serialNumber(certificate), serial++);
  X509_gmtime_adj(X509_getm_notBefore(certificate), wanted.from_s);
  X509_gmtime_adj(X509_getm_notAfter(certificate), wanted.to_s);
  X509_set_pubkey(certificate, key);
  X509_NAME_add_entry_by_txt(X509_get_subject_name(certificate), "CN", MBSTRING_ASC,
                             reinterpret_cast<const unsigned char*>(name.c_str()), -1, -1, 0);
  X509_set_issuer_name(certificate, X509_get_subject_name(signer == nullptr ? certificate : signer));
  if (authority)
    add_extension(certificate, NID_basic_constraints, "critical,CA:TRUE");
  else
    add_extension(certificate, NID_subject_alt_name, alternative_names(wanted));
  MR_CHECK(X509_sign(certificate, signer_key, EVP_sha256()) > 0);
  return certificate;
}

void write_pem(X509* certificate, const std::string& path) {
  BIO* memory = BIO_new(BIO_s_mem());
  PEM_write_bio_X509(memory, certificate);
  char* bytes = nullptr;
  const long size = BIO_get_mem_data(memory, &bytes);
  MR_CHECK(write_file(path, std::string(bytes, static_cast<size_t>(size))).ok());
  BIO_free(memory);
}

}  // namespace

class TlsFront::Impl {
 public:
  Impl(int plain_port, const TestCertificate& certificate, const std::string& ca_file) : plain_port_(plain_port) {
    EVP_PKEY* authority_key = EVP_EC_gen("P-256");
    X509* authority = make_certificate(authority_key, "throw-away authority", {}, true, nullptr, authority_key);
    write_pem(authority, ca_file);
    EVP_PKEY* key = EVP_EC_gen("P-256");
    X509* own = certificate.self_signed ? make_certificate(key, "server", certificate, false, nullptr, key)
                                        : make_certificate(key, "server", certificate, false, authority, authority_key);
    context_ = SSL_CTX_new(TLS_server_method());
    SSL_CTX_use_certificate(context_, own);
    SSL_CTX_use_PrivateKey(context_, key);
    X509_free(authority), X509_free(own);
    EVP_PKEY_free(authority_key), EVP_PKEY_free(key);
    listen();
    acceptor_ = std::thread([this] { accept(); });
  }
  ~Impl() {
    stop_ = true;
    acceptor_.join();
    for (std::thread& worker : workers_) worker.join();
    ::close(listener_);
    SSL_CTX_free(context_);
  }

  int port = 0;
  std::atomic<int> handshakes{0};
  std::string server_name() {
    std::lock_guard lock(mutex_);
    return server_name_;
  }

 private:
  void listen() {
    listener_ = ::socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address = loopback(0);
    socklen_t size = sizeof address;
    MR_CHECK(::bind(listener_, reinterpret_cast<sockaddr*>(&address), size) == 0);
    MR_CHECK(::listen(listener_, 512) == 0);
    ::getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size);
    port = ntohs(address.sin_port);
  }
  static bool readable(int fd, int timeout_ms) {
    pollfd wait{fd, POLLIN, 0};
    return ::poll(&wait, 1, timeout_ms) > 0;
  }
  void accept() {
    while (!stop_)
      if (readable(listener_, 20))
        workers_.emplace_back([this, fd = ::accept(listener_, nullptr, nullptr)] { serve(fd); });
  }
  void serve(int fd) {
    SSL* client = SSL_new(context_);
    SSL_set_fd(client, fd);
    if (SSL_accept(client) == 1) {
      note(client);
      const int plain = ::socket(AF_INET, SOCK_STREAM, 0);
      const sockaddr_in address = loopback(plain_port_);
      if (::connect(plain, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0) carry(client, fd, plain);
      ::close(plain);
      SSL_shutdown(client);
    }
    SSL_free(client);
    ::close(fd);
  }
  void note(SSL* client) {
    ++handshakes;
    const char* name = SSL_get_servername(client, TLSEXT_NAMETYPE_host_name);
    std::lock_guard lock(mutex_);
    server_name_ = name == nullptr ? "" : name;
  }
  void carry(SSL* client, int fd, int plain) {
    char bytes[16 << 10];
    while (!stop_) {
      pollfd wait[] = {{fd, POLLIN, 0}, {plain, POLLIN, 0}};
      if (SSL_pending(client) == 0 && ::poll(wait, 2, 20) <= 0) continue;
      if (SSL_pending(client) > 0 || wait[0].revents != 0) {
        const int got = SSL_read(client, bytes, sizeof bytes);
        if (got <= 0 || ::send(plain, bytes, static_cast<size_t>(got), MSG_NOSIGNAL) != got) return;
      } else if (wait[1].revents != 0) {
        const ssize_t got = ::recv(plain, bytes, sizeof bytes, 0);
        if (got <= 0 || SSL_write(client, bytes, static_cast<int>(got)) <= 0) return;
      }
    }
  }

  const int plain_port_;
  SSL_CTX* context_ = nullptr;
  int listener_ = -1;
  std::atomic<bool> stop_{false};
  std::thread acceptor_;
  std::vector<std::thread> workers_;  // the acceptor's
  std::mutex mutex_;
  std::string server_name_;
};

TlsFront::TlsFront(int plain_port, const TestCertificate& certificate, const std::string& ca_file)
    : impl_(std::make_unique<Impl>(plain_port, certificate, ca_file)) {}
TlsFront::~TlsFront() = default;
int TlsFront::port() const { return impl_->port; }
int TlsFront::handshakes() const { return impl_->handshakes; }
std::string TlsFront::server_name() const { return impl_->server_name(); }

}  // namespace millrace
