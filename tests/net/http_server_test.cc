#include "net/http_server.h"

#include <gtest/gtest.h>

#include <future>
#include <thread>

#include "base/random.h"
#include "net/http_client.h"
#include "tests/net/raw_socket.h"

namespace millrace {
namespace {

using std::chrono::milliseconds;

// Says back what it was told.
void echo(HttpRequest&& request, const HttpReply& reply) {
  reply.send({.content_type = "text/plain",
              .headers = {{"X-Method", request.method}, {"X-Path", request.path}, {"X-Query", request.query}},
              .body = request.body});
}

std::unique_ptr<HttpServer> serve(HttpServer::Handler handler, HttpServerConfig config = {}) {
  config.port = 0;
  auto server = std::make_unique<HttpServer>(std::move(config), std::move(handler));
  const Status status = server->start();
  EXPECT_TRUE(status.ok()) << status.message();
  return server;
}

std::string get(std::string_view path, std::string_view more = "") {
  return "GET " + std::string(path) + " HTTP/1.1\r\nHost: x\r\n" + std::string(more) + "\r\n";
}
std::string post(std::string_view body, std::string_view more = "") {
  return "POST / HTTP/1.1\r\nHost: x\r\n" + std::string(more) + "Content-Length: " + std::to_string(body.size()) +
         "\r\n\r\n" + std::string(body);
}

TEST(HttpServer, AHandlerSeesMethodPathQueryAndBody) {
  const auto server = serve(echo);
  HttpClient client;
  const auto answer =
      client.fetch({.port = server->port(), .method = "POST", .target = "/a%20b?x=1&y", .body = "hello"});
  ASSERT_TRUE(answer.ok()) << answer.status().message();
  EXPECT_EQ(answer->status, 200);
  EXPECT_EQ(answer->header("x-method"), "POST");
  EXPECT_EQ(answer->header("x-path"), "/a b");
  EXPECT_EQ(answer->header("x-query"), "x=1&y");
  EXPECT_EQ(answer->body, "hello");
}

TEST(HttpServer, AConnectionServesManyRequestsAndPipelinedOnesInOrder) {
  const auto server = serve(echo);
  RawSocket socket(server->port());
  for (int i = 0; i < 3; ++i) {
    socket.send(post("round " + std::to_string(i)));
    EXPECT_NE(socket.read_until("round " + std::to_string(i)).find("200 OK"), std::string::npos);
  }
  socket.send(post("one") + "\r\n" + post("two") + post("three"));
  const std::string all = socket.read_until("three");
  EXPECT_LT(all.find("one"), all.find("two"));
  EXPECT_LT(all.find("two"), all.find("three"));
  EXPECT_EQ(server->connections(), 1);
}

TEST(HttpServer, ARequestMayArriveByteByByte) {
  const auto server = serve(echo);
  RawSocket socket(server->port());
  for (const char c : post("slow but steady")) socket.send(std::string(1, c));
  EXPECT_NE(socket.read_until("steady").find("200 OK"), std::string::npos);
}

TEST(HttpServer, ChunkedRequestBodiesAreJoined) {
  const auto server = serve(echo);
  RawSocket socket(server->port());
  socket.send(
      "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1;a=b\r\n "
      "\r\n5\r\nworld\r\n0\r\n\r\n");
  EXPECT_NE(socket.read_until("hello world").find("200 OK"), std::string::npos);
}

TEST(HttpServer, ExpectContinueIsAnsweredBeforeTheBody) {
  const auto server = serve(echo);
  RawSocket socket(server->port());
  socket.send("POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n");
  EXPECT_EQ(socket.read_until("\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
  socket.send("body");
  EXPECT_NE(socket.read_until("body").find("200 OK"), std::string::npos);
}

TEST(HttpServer, HeadHasLengthButNoBody) {
  const auto server = serve([](HttpRequest&&, const HttpReply& reply) { reply.send({.body = "12345"}); });
  RawSocket socket(server->port());
  socket.send("HEAD / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  const std::string answer = socket.read_all();
  EXPECT_NE(answer.find("Content-Length: 5\r\n"), std::string::npos);
  EXPECT_TRUE(answer.ends_with("\r\n\r\n"));
}

TEST(HttpServer, Http10ClosesAndGetsNoChunks) {
  const auto server = serve([](HttpRequest&&, const HttpReply& reply) {
    reply.begin({.content_type = "text/plain"});
    reply.write("abc");
    reply.write("def");
    reply.end();
  });
  RawSocket socket(server->port());
  socket.send("GET / HTTP/1.0\r\n\r\n");
  const std::string answer = socket.read_all();
  EXPECT_TRUE(answer.ends_with("\r\n\r\nabcdef")) << answer;
  EXPECT_NE(answer.find("Connection: close"), std::string::npos);
}

struct BadRequest {
  const char* name;
  std::string bytes;
  int status;
};

TEST(HttpServer, RequestsOutsideTheLimitsGetTheirStatusAndTheServerGoesOn) {
  HttpServerConfig config;
  config.max_body_bytes = 1000;
  config.max_header_bytes = 2000;
  config.max_headers = 10;
  const auto server = serve(echo, config);
  std::string many_headers;
  for (int i = 0; i < 20; ++i) many_headers += "h" + std::to_string(i) + ": 1\r\n";
  const BadRequest cases[] = {
      {"not HTTP", "hello there\r\n\r\n", 400},
      {"binary", std::string("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 11) + "\r\n\r\n", 400},
      {"body too long, announced", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1001\r\n\r\n", 413},
      {"absurd length", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n", 400},
      {"huge length", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999999999999999\r\n\r\n", 413},
      {"negative length", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400},
      {"body too long, chunked",
       "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n7d0\r\n" + std::string(2000, 'x'), 413},
      {"two lengths", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400},
      {"length and chunks",
       "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
      {"unknown encoding", "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\nabc", 400},
      {"bad chunk size", "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400},
      {"long header", get("/", "a: " + std::string(3000, 'x') + "\r\n"), 431},
      {"endless header", "GET / HTTP/1.1\r\na: " + std::string(3000, 'x'), 431},
      {"many headers", get("/", many_headers), 431},
  };
  for (const BadRequest& bad : cases) {
    SCOPED_TRACE(bad.name);
    RawSocket socket(server->port());
    socket.send(bad.bytes);
    const std::string answer = socket.read_until("\r\n\r\n");
    EXPECT_TRUE(answer.starts_with("HTTP/1.1 " + std::to_string(bad.status))) << answer;
    EXPECT_NE(answer.find("Connection: close"), std::string::npos);
  }
  EXPECT_TRUE(HttpClient().get("127.0.0.1", server->port(), "/").ok());
}

TEST(HttpServer, AnAnswerToATooLongBodyReachesAClientThatIsStillSending) {
  HttpServerConfig config;
  config.max_body_bytes = 1000;
  const auto server = serve(echo, config);
  HttpClient client;
  const auto answer =
      client.fetch({.port = server->port(), .method = "POST", .body = std::string(size_t{4} << 20, 'x')});
  ASSERT_TRUE(answer.ok()) << answer.status().message();
  EXPECT_EQ(answer->status, 413);
}

TEST(HttpServer, SlowHeadersAndBodiesAreCutOffAndIdleConnectionsClosed) {
  HttpServerConfig config;
  config.header_timeout = config.body_timeout = config.idle_timeout = milliseconds(100);
  const auto server = serve(echo, config);
  RawSocket headers(server->port()), body(server->port()), idle(server->port());
  headers.send("GET / HTTP/1.1\r\nHos");
  body.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc");
  EXPECT_TRUE(headers.read_until("\r\n\r\n").starts_with("HTTP/1.1 408"));
  EXPECT_TRUE(body.read_until("\r\n\r\n").starts_with("HTTP/1.1 408"));
  EXPECT_EQ(idle.read_all(), "");
  EXPECT_TRUE(idle.closed_within(2000));
}

TEST(HttpServer, TooManyConnectionsAreTurnedAwayWithRetryAfter) {
  HttpServerConfig config;
  config.max_connections = 2;
  const auto server = serve(echo, config);
  RawSocket one(server->port()), two(server->port());
  one.send(get("/"));
  two.send(get("/"));
  one.read_until("\r\n\r\n");
  two.read_until("\r\n\r\n");
  RawSocket three(server->port());
  const std::string answer = three.read_all();
  EXPECT_TRUE(answer.starts_with("HTTP/1.1 503")) << answer;
  EXPECT_NE(answer.find("Retry-After: 1"), std::string::npos);
}

TEST(HttpServer, BodiesInFlightAreBounded) {
  HttpServerConfig config;
  config.max_body_bytes = 1000;
  config.max_body_bytes_in_flight = 1500;
  const auto server = serve(echo, config);
  RawSocket first(server->port());
  first.send("POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 1000\r\n\r\n");
  first.read_until("\r\n\r\n");  // it holds its share now
  RawSocket second(server->port());
  second.send(post(std::string(900, 'x')));
  EXPECT_TRUE(second.read_until("\r\n\r\n").starts_with("HTTP/1.1 503"));
  first.send(std::string(1000, 'y'));
  EXPECT_TRUE(first.read_until("\r\n\r\n").starts_with("HTTP/1.1 200"));
  first.read_until("yyyy");
  RawSocket third(server->port());
  third.send(post(std::string(1000, 'x')));
  EXPECT_TRUE(third.read_until("\r\n\r\n").starts_with("HTTP/1.1 200"));
}

TEST(HttpServer, APortInUseAndABadAddressAreSaid) {
  const auto server = serve(echo);
  HttpServer second({.port = server->port()}, echo);
  const Status in_use = second.start();
  EXPECT_EQ(in_use.code(), Code::kAlreadyExists);
  EXPECT_NE(in_use.message().find(std::to_string(server->port())), std::string::npos);
  EXPECT_EQ(HttpServer::check_address("127.0.0.1", server->port()).message(), in_use.message());
  EXPECT_TRUE(HttpServer::check_address("127.0.0.1", 0).ok());
  EXPECT_EQ(HttpServer({.host = "192.0.2.77", .port = 0}, echo).start().code(), Code::kInvalidArgument);
  EXPECT_EQ(HttpServer({.host = "no such host", .port = 0}, echo).start().code(), Code::kInvalidArgument);
  EXPECT_EQ(HttpServer({.port = 70000}, echo).start().code(), Code::kInvalidArgument);
}

TEST(HttpServer, AHandlerThatThrowsOrForgetsGives500) {
  const auto server = serve([](HttpRequest&& request, const HttpReply&) {
    if (request.path == "/throw") throw std::runtime_error("on purpose");
  });
  HttpClient client;
  EXPECT_EQ(client.get("127.0.0.1", server->port(), "/throw")->status, 500);
  EXPECT_EQ(client.get("127.0.0.1", server->port(), "/forget")->status, 500);
}

TEST(HttpServer, AnswersMayComeFromOtherThreadsAndSeveralLoopsServe) {
  HttpServerConfig config;
  config.loop_threads = 3;
  std::mutex mutex;
  std::vector<std::thread> threads;
  const auto server = serve(
      [&](HttpRequest&& request, const HttpReply& reply) {
        std::lock_guard lock(mutex);
        threads.emplace_back([body = request.body, reply] { reply.send({.body = body}); });
      },
      config);
  HttpClient client;
  std::vector<std::promise<Status>> done(60);
  std::vector<std::string> bodies(done.size());
  for (size_t i = 0; i < done.size(); ++i)
    client.start({.port = server->port(), .method = "POST", .body = std::to_string(i)},
                 {.on_data =
                      [&bodies, i](std::string_view bytes) {
                        bodies[i] += bytes;
                        return true;
                      },
                  .on_done = [&done, i](Status status) { done[i].set_value(std::move(status)); }});
  for (size_t i = 0; i < done.size(); ++i) {
    EXPECT_TRUE(done[i].get_future().get().ok());
    EXPECT_EQ(bodies[i], std::to_string(i));
  }
  for (std::thread& thread : threads) thread.join();
}

TEST(HttpServer, RandomlyBrokenRequestsNeverStopIt) {
  HttpServerConfig config;
  config.header_timeout = config.body_timeout = milliseconds(50);
  const auto server = serve(echo, config);
  Random random(11);
  const std::string valid = post("{\"prompt\":\"x\"}", "Content-Type: application/json\r\nConnection: keep-alive\r\n");
  for (int round = 0; round < 300; ++round) {
    std::string bytes = valid;
    for (uint32_t i = 0, edits = 1 + random.below(4); i < edits; ++i) {
      const size_t at = random.below(static_cast<uint32_t>(bytes.size()));
      if (random.below(3) == 0)
        bytes.erase(at, 1 + random.below(5));
      else
        bytes[at] = static_cast<char>(random.below(256));
    }
    RawSocket socket(server->port());
    socket.send(bytes);
    socket.shut_down_sending();
    const std::string answer = socket.read_all(3000);
    EXPECT_TRUE(answer.empty() || answer.starts_with("HTTP/1.1 ")) << answer;
  }
  EXPECT_EQ(HttpClient().get("127.0.0.1", server->port(), "/")->status, 200);
}

}  // namespace
}  // namespace millrace
