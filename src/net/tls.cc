#include "net/tls.h"

#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include <algorithm>

namespace millrace {
namespace {

constexpr int kMostNames = 4;
constexpr unsigned char kProtocols[] = {8, 'h', 't', 't', 'p', '/', '1', '.', '1'};  // ALPN

bool is_address(const std::string& host) {
  unsigned char bytes[sizeof(in6_addr)];
  return inet_pton(AF_INET, host.c_str(), bytes) == 1 || inet_pton(AF_INET6, host.c_str(), bytes) == 1;
}

// A certificate is the server's word: nothing but plain characters, and not many of them.
std::string plain(std::string text) {
  text.resize(std::min<size_t>(text.size(), 100));
  std::replace_if(
      text.begin(), text.end(), [](char c) { return c < ' ' || c > '~'; }, '?');
  return text;
}

std::string text_of(const ASN1_STRING* string) {
  const auto* bytes = reinterpret_cast<const char*>(ASN1_STRING_get0_data(string));
  return plain(std::string(bytes, static_cast<size_t>(std::max(0, ASN1_STRING_length(string)))));
}

std::string address_of(const ASN1_OCTET_STRING* bytes) {
  char text[INET6_ADDRSTRLEN] = "";
  const int family = ASN1_STRING_length(bytes) == 4 ? AF_INET : AF_INET6;
  if (ASN1_STRING_length(bytes) != 4 && ASN1_STRING_length(bytes) != 16) return "?";
  inet_ntop(family, ASN1_STRING_get0_data(bytes), text, sizeof text);
  return text;
}

// "a.example, 10.0.0.1": what the certificate speaks for.
std::string names_of(const X509* certificate) {
  auto* names = static_cast<GENERAL_NAMES*>(X509_get_ext_d2i(certificate, NID_subject_alt_name, nullptr, nullptr));
  std::string list;
  const int count = names == nullptr ? 0 : sk_GENERAL_NAME_num(names);
  for (int i = 0; i < count && i < kMostNames; ++i) {
    const GENERAL_NAME* name = sk_GENERAL_NAME_value(names, i);
    if (name->type != GEN_DNS && name->type != GEN_IPADD) continue;
    list += (list.empty() ? "" : ", ") + (name->type == GEN_DNS ? text_of(name->d.dNSName) : address_of(name->d.ip));
  }
  if (count > kMostNames) list += ", ...";
  GENERAL_NAMES_free(names);
  return list.empty() ? "nobody" : list;
}

std::string day_of(const ASN1_TIME* time) {
  std::tm parts{};
  if (ASN1_TIME_to_tm(time, &parts) != 1) return "an unknown day";
  return fmt::format("{}-{:02}-{:02}", parts.tm_year + 1900, parts.tm_mon + 1, parts.tm_mday);
}

// `certificate` may be null: the server sent none that could be read.
std::string verdict(long result, const X509* certificate, const std::string& host) {
  const bool named = certificate != nullptr;
  switch (result) {
    case X509_V_ERR_CERT_HAS_EXPIRED:
      return "the certificate has expired" + (named ? " on " + day_of(X509_get0_notAfter(certificate)) : "");
    case X509_V_ERR_CERT_NOT_YET_VALID:
      return "the certificate is not valid yet" +
             (named ? ", only from " + day_of(X509_get0_notBefore(certificate)) : "");
    case X509_V_ERR_HOSTNAME_MISMATCH:
    case X509_V_ERR_IP_ADDRESS_MISMATCH:
      return fmt::format("the certificate is for {}, not for {}", named ? names_of(certificate) : "others", host);
    case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
    case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
      return "the certificate is self-signed, by nobody this machine trusts";
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
    case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
      return "the certificate's signer is unknown to this machine";
    default:
      return fmt::format("the certificate is refused: {}", X509_verify_cert_error_string(result));
  }
}

}  // namespace

Result<std::shared_ptr<const TlsContext>> TlsContext::make(const TlsOptions& options) {
  SSL_CTX* context = SSL_CTX_new(TLS_client_method());
  if (context == nullptr) return internal_error("OpenSSL cannot be started");
  std::shared_ptr<const TlsContext> made(new TlsContext(context, options.verify));
  SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
  SSL_CTX_set_alpn_protos(context, kProtocols, sizeof kProtocols);
  SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS);
  SSL_CTX_set_verify(context, options.verify ? SSL_VERIFY_PEER : SSL_VERIFY_NONE, nullptr);
  if (!options.verify) return made;
  const bool read = options.ca_file.empty() ? SSL_CTX_set_default_verify_paths(context) == 1
                                            : SSL_CTX_load_verify_file(context, options.ca_file.c_str()) == 1;
  ERR_clear_error();
  if (!read) return invalid_argument("{} holds no certificates in PEM", options.ca_file);
  return made;
}

TlsContext::~TlsContext() { SSL_CTX_free(context_); }

ssl_st* TlsContext::connection(const std::string& host) const {
  SSL* connection = SSL_new(context_);
  if (connection == nullptr) return nullptr;
  const bool address = is_address(host);
  if (!address) SSL_set_tlsext_host_name(connection, host.c_str());
  if (!verify_) return connection;
  if (address)
    X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(connection), host.c_str());
  else
    SSL_set1_host(connection, host.c_str());
  return connection;
}

std::string tls_failure(ssl_st* connection, const std::string& host, const std::string& reason) {
  const long result = SSL_get_verify_result(connection);
  if (result != X509_V_OK && SSL_get_verify_mode(connection) != SSL_VERIFY_NONE) {
    STACK_OF(X509)* chain = SSL_get_peer_cert_chain(connection);
    const bool known = chain != nullptr && sk_X509_num(chain) > 0;
    return verdict(result, known ? sk_X509_value(chain, 0) : nullptr, host);
  }
  if (reason.find("wrong version number") != std::string::npos || reason.find("packet length") != std::string::npos)
    return "the port does not speak TLS; is it http?";
  if (reason.find("nd of file") != std::string::npos || reason.find("truncated") != std::string::npos)
    return "the server closed the connection during the handshake";
  return plain(reason);
}

}  // namespace millrace
