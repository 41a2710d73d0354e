// Streamed answers: chunks from other threads, clients that leave or do not read, many at once, shutdown.
#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <latch>
#include <thread>

#include "net/http_client.h"
#include "net/http_server.h"
#include "net/sse.h"
#include "tests/net/raw_socket.h"

namespace millrace {
namespace {

using std::chrono::milliseconds;
constexpr const char* kGet = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";

// Keeps the replies of all requests for the test to answer.
class Switchboard {
 public:
  explicit Switchboard(HttpServerConfig config = {}) {
    config.port = 0;
    server_.emplace(std::move(config), [this](HttpRequest&&, HttpReply reply) {
      if (on_open) on_open(reply);
      std::lock_guard lock(mutex_);
      replies_.push_back(std::move(reply));
      arrived_.notify_all();
    });
    const Status status = server_->start();
    EXPECT_TRUE(status.ok()) << status.message();
  }
  std::vector<HttpReply> wait_for(size_t count) {
    std::unique_lock lock(mutex_);
    EXPECT_TRUE(arrived_.wait_for(lock, std::chrono::seconds(60), [&] { return replies_.size() >= count; }));
    return replies_;
  }
  HttpServer& server() { return *server_; }
  int port() const { return server_->port(); }
  std::function<void(const HttpReply&)> on_open;

 private:
  std::mutex mutex_;
  std::condition_variable arrived_;
  std::vector<HttpReply> replies_;
  std::optional<HttpServer> server_;
};

TEST(HttpStreams, ChunksArriveWhenTheyAreWritten) {
  Switchboard board;
  RawSocket socket(board.port());
  socket.send(kGet);
  const HttpReply reply = board.wait_for(1)[0];
  reply.begin({.content_type = "text/event-stream"});
  EXPECT_NE(socket.read_until("\r\n\r\n").find("Transfer-Encoding: chunked"), std::string::npos);
  EXPECT_TRUE(reply.write(sse_event("one")));
  EXPECT_EQ(socket.read_until("one\n\n\r\n"), "b\r\ndata: one\n\n\r\n");
  EXPECT_TRUE(reply.write(sse_event("two")));
  EXPECT_EQ(socket.read_until("two\n\n\r\n"), "b\r\ndata: two\n\n\r\n");
  reply.end();
  EXPECT_EQ(socket.read_until("\r\n\r\n"), "0\r\n\r\n");
  EXPECT_FALSE(reply.write("after the end"));
}

TEST(HttpStreams, AClosedConnectionIsReportedAtOnce) {
  for (const char* how : {"close", "reset", "half"}) {
    SCOPED_TRACE(how);
    Switchboard board;
    RawSocket socket(board.port());
    socket.send(kGet);
    const HttpReply reply = board.wait_for(1)[0];
    std::promise<void> gone;
    reply.on_disconnect([&] { gone.set_value(); });
    reply.begin({.content_type = "text/event-stream"});
    if (how == std::string("close")) socket.close();
    if (how == std::string("reset")) socket.reset();
    if (how == std::string("half")) socket.shut_down_sending();
    ASSERT_EQ(gone.get_future().wait_for(std::chrono::seconds(5)), std::future_status::ready);
    EXPECT_TRUE(reply.gone());
    EXPECT_FALSE(reply.write("nobody hears this"));
    bool called = false;
    reply.on_disconnect([&] { called = true; });  // late listeners are told here
    EXPECT_TRUE(called);
  }
}

TEST(HttpStreams, ADisconnectIsSeenBehindPipelinedBytes) {
  Switchboard board;
  RawSocket socket(board.port());
  socket.send(std::string(kGet) + kGet);
  const HttpReply reply = board.wait_for(1)[0];
  std::promise<void> gone;
  reply.on_disconnect([&] { gone.set_value(); });
  socket.close();
  EXPECT_EQ(gone.get_future().wait_for(std::chrono::seconds(5)), std::future_status::ready);
}

TEST(HttpStreams, OnDisconnectIsLetGoWhenTheAnswerEnds) {
  Switchboard board;
  RawSocket socket(board.port());
  socket.send(kGet);
  const HttpReply reply = board.wait_for(1)[0];
  const auto token = std::make_shared<int>(0);
  reply.on_disconnect([token] { ADD_FAILURE() << "the answer had ended"; });
  reply.send({.body = "done"});
  EXPECT_EQ(token.use_count(), 1);
  EXPECT_NE(socket.read_until("done").find("200"), std::string::npos);
  socket.close();
  board.server().shutdown(milliseconds(1000));
}

TEST(HttpStreams, AClientThatDoesNotReadIsDropped) {
  HttpServerConfig config;
  config.max_stream_buffer_bytes = 100'000;
  Switchboard board(config);
  RawSocket socket(board.port(), /*receive_buffer_bytes=*/4096);
  socket.send(kGet);
  const HttpReply reply = board.wait_for(1)[0];
  std::promise<void> gone;
  reply.on_disconnect([&] { gone.set_value(); });
  reply.begin({.content_type = "text/event-stream"});
  const std::string chunk(10'000, 'x');
  int written = 0;
  while (written < 100'000 && reply.write(chunk)) ++written;
  EXPECT_LT(written, 100'000);
  EXPECT_EQ(gone.get_future().wait_for(std::chrono::seconds(5)), std::future_status::ready);
}

TEST(HttpStreams, AClientThatStopsReadingAWholeAnswerIsDroppedAfterTheWriteTimeout) {
  HttpServerConfig config;
  config.write_timeout = milliseconds(100);
  Switchboard board(config);
  RawSocket socket(board.port(), /*receive_buffer_bytes=*/4096);
  socket.send(kGet);
  board.wait_for(1)[0].send({.body = std::string(size_t{30} << 20, 'x')});
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while (board.server().connections() > 0 && std::chrono::steady_clock::now() < deadline)
    std::this_thread::sleep_for(milliseconds(5));
  EXPECT_EQ(board.server().connections(), 0);
}

TEST(HttpStreams, AStreamWhoseProducerVanishesIsCutShort) {
  HttpServerConfig config{.port = 0};
  HttpServer server(config, [](HttpRequest&&, const HttpReply& reply) {
    reply.begin({.content_type = "text/plain", .body = "half an ans"});
  });
  ASSERT_TRUE(server.start().ok());
  HttpClient client;
  const auto answer = client.get("127.0.0.1", server.port(), "/");
  EXPECT_EQ(answer.status().code(), Code::kDataLoss);
}

// 1,000 open streams: two threads in all (the server's loop and the client's), every byte where it belongs.
TEST(HttpStreams, AThousandConcurrentStreamsRunOnOneLoop) {
  constexpr int kStreams = 1000, kEvents = 20;  // the server raises the limit on descriptors for both sides
  Switchboard board;
  HttpClient client;
  std::vector<std::vector<std::string>> events(kStreams);
  std::vector<SseParser> parsers(kStreams);
  std::latch done(kStreams);
  std::atomic<int> failed{0};
  for (int i = 0; i < kStreams; ++i)
    client.start({.port = board.port()},
                 {.on_data =
                      [&, i](std::string_view bytes) {
                        return parsers[i].feed(bytes, [&](std::string_view data) { events[i].emplace_back(data); });
                      },
                  .on_done =
                      [&](const Status& status) {
                        failed += !status.ok();
                        done.count_down();
                      }});
  const std::vector<HttpReply> replies = board.wait_for(kStreams);
  EXPECT_EQ(board.server().connections(), kStreams);
  for (const HttpReply& reply : replies) reply.begin({.content_type = "text/event-stream"});
  for (int e = 0; e < kEvents; ++e)
    for (int i = 0; i < kStreams; ++i) EXPECT_TRUE(replies[i].write(sse_event(std::to_string(i))));
  for (const HttpReply& reply : replies) reply.end();
  done.wait();
  EXPECT_EQ(failed, 0);
  std::set<std::string> seen;
  for (const auto& list : events) {
    ASSERT_EQ(list.size(), kEvents);
    for (const std::string& data : list) EXPECT_EQ(data, list[0]);
    seen.insert(list[0]);
  }
  EXPECT_EQ(seen.size(), kStreams);
}

TEST(HttpStreams, ShutdownLetsRunningStreamsFinishAndClosesIdleConnections) {
  Switchboard board;
  RawSocket running(board.port()), idle(board.port());
  running.send(kGet);
  const HttpReply reply = board.wait_for(1)[0];
  reply.begin({.content_type = "text/event-stream"});
  std::thread stopper([&] { board.server().shutdown(std::chrono::seconds(30)); });
  EXPECT_TRUE(idle.closed_within(5000));
  EXPECT_TRUE(reply.write(sse_event("still here")));
  reply.end();
  EXPECT_TRUE(running.read_all().ends_with("still here\n\n\r\n0\r\n\r\n"));
  stopper.join();
  EXPECT_EQ(board.server().connections(), 0);
}

TEST(HttpStreams, ShutdownCutsStreamsOffAtTheDeadline) {
  Switchboard board;
  RawSocket socket(board.port());
  socket.send(kGet);
  const HttpReply reply = board.wait_for(1)[0];
  std::atomic<bool> gone{false};
  reply.on_disconnect([&] { gone = true; });
  reply.begin({.content_type = "text/event-stream"});
  board.server().shutdown(milliseconds(50));
  EXPECT_TRUE(gone);
  EXPECT_FALSE(reply.write("too late"));
  EXPECT_TRUE(socket.closed_within(1000));
}

TEST(HttpStreams, RepliesMayOutliveTheServer) {
  HttpReply kept;
  {
    Switchboard board;
    RawSocket socket(board.port());
    socket.send(kGet);
    kept = board.wait_for(1)[0];
  }
  EXPECT_TRUE(kept.gone());
  kept.send({.body = "nobody"});
  EXPECT_FALSE(kept.write("nobody"));
}

}  // namespace
}  // namespace millrace
