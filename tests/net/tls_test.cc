// https from the client's side, against a TLS front with certificates made on the spot.
#include "net/tls.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/file.h"
#include "net/http_client.h"
#include "net/http_server.h"
#include "net/sse.h"
#include "tests/net/tls_front.h"

namespace millrace {
namespace {

std::shared_ptr<const TlsContext> trusting(const std::string& ca_file) {
  return *TlsContext::make({.ca_file = ca_file});
}

struct Plain {
  HttpServer server{{.port = 0}, [](HttpRequest&& request, const HttpReply& reply) {
                      if (request.path == "/big") return reply.send({.body = std::string(3 << 20, 'x')});
                      if (request.path != "/events") return reply.send({.body = request.body + request.peer});
                      reply.begin({.content_type = "text/event-stream"});
                      for (int i = 0; i < 5; ++i) reply.write(sse_event(std::to_string(i)));
                      reply.end();
                    }};
  TemporaryDirectory folder;
  std::string ca = folder.file("ca.pem");
  Plain() { EXPECT_TRUE(server.start().ok()); }

  std::string error(const TestCertificate& certificate, const std::string& host, const TlsOptions& options) {
    const TlsFront front(server.port(), certificate, ca);
    HttpClient client;
    const auto answer = client.fetch({.host = host, .port = front.port(), .tls = *TlsContext::make(options)});
    return answer.ok() ? "ok" : answer.status().message();
  }
};

TEST(Tls, ATrustedServerIsToldItsNameAndKeepsItsConnection) {
  Plain plain;
  const TlsFront front(plain.server.port(), {}, plain.ca);
  HttpClient client;
  const HttpCall call{
      .host = "localhost", .port = front.port(), .method = "POST", .body = "hello ", .tls = trusting(plain.ca)};
  const auto first = client.fetch(call);
  ASSERT_TRUE(first.ok()) << first.status().message();
  EXPECT_TRUE(first->body.starts_with("hello 127.0.0.1:"));
  EXPECT_EQ(front.server_name(), "localhost");
  EXPECT_EQ(client.fetch(call)->body, first->body);  // the same connection to the plain server
  EXPECT_EQ(front.handshakes(), 1);
}

TEST(Tls, LongAnswersAndStreamsArriveWhole) {
  Plain plain;
  const TlsFront front(plain.server.port(), {}, plain.ca);
  HttpClient client;
  HttpCall call{.host = "localhost", .port = front.port(), .target = "/big", .tls = trusting(plain.ca)};
  EXPECT_EQ(client.fetch(call)->body, std::string(3 << 20, 'x'));
  call.target = "/events";
  std::string events;
  ASSERT_TRUE(client.stream_events(call, [&](std::string_view data) { return events += data, true; }).ok());
  EXPECT_EQ(events, "01234");
}

TEST(Tls, ConnectionsOpenedAheadAreUsed) {
  Plain plain;
  const TlsFront front(plain.server.port(), {}, plain.ca);
  HttpClient client;
  const HttpCall call{.host = "localhost", .port = front.port(), .tls = trusting(plain.ca)};
  EXPECT_EQ(client.open_ahead(call, 3), 3);
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(client.fetch(call).ok());
  EXPECT_EQ(front.handshakes(), 3);
}

TEST(Tls, AnAddressIsHeldToTheCertificateAndNotSentAsAName) {
  Plain plain;
  const TlsFront front(plain.server.port(), {.names = {"IP:127.0.0.1"}}, plain.ca);
  HttpClient client;
  EXPECT_TRUE(client.fetch({.port = front.port(), .tls = trusting(plain.ca)}).ok());
  EXPECT_EQ(front.server_name(), "");
}

TEST(Tls, EachReasonToRefuseACertificateHasItsLine) {
  Plain plain;
  const std::string ca = plain.ca;
  const auto expect = [&](const TestCertificate& certificate, const char* host, const TlsOptions& options,
                          const char* said) {
    const std::string error = plain.error(certificate, host, options);
    EXPECT_NE(error.find(said), std::string::npos) << error;
    EXPECT_TRUE(error.starts_with(fmt::format("TLS with {}:", host))) << error;
  };
  const TlsOptions trust{.ca_file = ca};
  expect({.names = {"a.example", "IP:10.0.0.1"}}, "localhost", trust,
         "the certificate is for a.example, 10.0.0.1, not for localhost");
  expect({}, "127.0.0.1", trust, "the certificate is for localhost, not for 127.0.0.1");
  expect({.from_s = -86'400 * 30, .to_s = -86'400}, "localhost", trust, "the certificate has expired on 20");
  expect({.from_s = 86'400, .to_s = 86'400 * 30}, "localhost", trust, "the certificate is not valid yet, only from 20");
  expect({.self_signed = true}, "localhost", trust, "the certificate is self-signed");
  expect({}, "localhost", {}, "the certificate's signer is unknown");
}

TEST(Tls, WithoutVerificationAnyCertificateWillDo) {
  Plain plain;
  EXPECT_EQ(plain.error({.to_s = -60, .self_signed = true}, "127.0.0.1", {.verify = false}), "ok");
}

TEST(Tls, PlainAndTlsAreToldApart) {
  Plain plain;
  const TlsFront front(plain.server.port(), {}, plain.ca);
  HttpClient client;
  const auto tls_to_plain = client.fetch({.host = "localhost", .port = plain.server.port(), .tls = trusting(plain.ca)});
  EXPECT_NE(tls_to_plain.status().message().find("does not speak TLS"), std::string::npos)
      << tls_to_plain.status().message();
  const auto plain_to_tls = client.fetch({.host = "localhost", .port = front.port()});
  EXPECT_NE(plain_to_tls.status().message().find("is it https?"), std::string::npos) << plain_to_tls.status().message();
}

TEST(Tls, AHandshakeThatStallsEndsWithTheConnectTimeout) {
  const int listener = ::socket(AF_INET, SOCK_STREAM, 0);  // connects, and says nothing
  sockaddr_in address{.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
  socklen_t size = sizeof address;
  ASSERT_EQ(::bind(listener, reinterpret_cast<sockaddr*>(&address), size), 0);
  ASSERT_EQ(::listen(listener, 1), 0);
  ::getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size);
  HttpClient client;
  const auto answer = client.fetch({.port = ntohs(address.sin_port),
                                    .connect_timeout = std::chrono::milliseconds(100),
                                    .tls = *TlsContext::make({.verify = false})});
  ::close(listener);
  EXPECT_NE(answer.status().message().find("TLS with 127.0.0.1"), std::string::npos) << answer.status().message();
  EXPECT_NE(answer.status().message().find("timed out"), std::string::npos) << answer.status().message();
}

TEST(Tls, AFileWithoutCertificatesIsRefused) {
  const TemporaryDirectory folder;
  ASSERT_TRUE(write_file(folder.file("x.pem"), "nothing").ok());
  EXPECT_EQ(TlsContext::make({.ca_file = folder.file("x.pem")}).status().message(),
            folder.file("x.pem") + " holds no certificates in PEM");
}

}  // namespace
}  // namespace millrace
