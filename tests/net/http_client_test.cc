#include "net/http_client.h"

#include <gtest/gtest.h>

#include <future>
#include <thread>

#include "net/http_server.h"
#include "net/sse.h"

namespace millrace {
namespace {

TEST(HttpClient, ConnectionsAreReused) {
  HttpServer server({.port = 0},
                    [](HttpRequest&& request, const HttpReply& reply) { reply.send({.body = request.peer}); });
  ASSERT_TRUE(server.start().ok());
  HttpClient client;
  const std::string first = client.get("127.0.0.1", server.port(), "/")->body;
  EXPECT_EQ(client.get("127.0.0.1", server.port(), "/")->body, first);
  EXPECT_NE(client.fetch({.port = server.port(), .reuse_connection = false})->body, first);
}

TEST(HttpClient, ConnectionsOpenedAheadAreUsed) {
  HttpServer server({.port = 0}, [](HttpRequest&&, const HttpReply& reply) { reply.send({}); });
  ASSERT_TRUE(server.start().ok());
  HttpClient client;
  const HttpCall like{.port = server.port()};
  EXPECT_EQ(client.open_ahead(like, 3), 3);
  EXPECT_EQ(client.open_ahead(like, 2), 3);
  EXPECT_TRUE(client.fetch(like).ok());
  EXPECT_EQ(client.open_ahead(like, 5), 5);
}

TEST(HttpClient, WhatCannotBeOpenedAheadIsLeftToTheCalls) {
  HttpClient client;
  EXPECT_EQ(client.open_ahead({.port = 1, .connect_timeout = std::chrono::milliseconds(500)}, 3), 0);
}

TEST(HttpClient, AServerThatRestartedIsReachedAgain) {
  HttpClient client;
  const auto handler = [](HttpRequest&&, const HttpReply& reply) { reply.send({.body = "here"}); };
  auto server = std::make_unique<HttpServer>(HttpServerConfig{.port = 0}, handler);
  ASSERT_TRUE(server->start().ok());
  const int port = server->port();
  EXPECT_TRUE(client.get("127.0.0.1", port, "/").ok());
  server = std::make_unique<HttpServer>(HttpServerConfig{.port = 0}, handler);
  EXPECT_EQ(client.get("127.0.0.1", port, "/").status().code(), Code::kUnavailable);
  HttpServer again({.port = port}, handler);
  ASSERT_TRUE(again.start().ok());
  EXPECT_EQ(client.get("127.0.0.1", port, "/")->body, "here");
}

TEST(HttpClient, TimeoutsAndHangingUpEndACall) {
  std::vector<HttpReply> kept;
  std::mutex mutex;
  HttpServer server({.port = 0}, [&](HttpRequest&&, HttpReply reply) {
    std::lock_guard lock(mutex);
    kept.push_back(std::move(reply));
  });
  ASSERT_TRUE(server.start().ok());
  HttpClient client;
  const auto late = client.fetch({.port = server.port(), .timeout = std::chrono::milliseconds(50)});
  EXPECT_EQ(late.status().code(), Code::kUnavailable);
  EXPECT_NE(late.status().message().find("timed out"), std::string::npos);
  std::promise<Status> done;
  const uint64_t call =
      client.start({.port = server.port()}, {.on_done = [&](Status s) { done.set_value(std::move(s)); }});
  client.hang_up(call);
  EXPECT_EQ(done.get_future().get().code(), Code::kCancelled);
}

TEST(HttpClient, ACallTellsWhenItIsSentAndWhichBytesCameTogether) {
  HttpServer server({.port = 0}, [](HttpRequest&&, const HttpReply& reply) {
    reply.begin({.content_type = "text/plain", .body = "a"});
    reply.write("b");
    reply.end();
  });
  ASSERT_TRUE(server.start().ok());
  HttpClient client;
  std::string log;
  std::promise<void> done;
  client.start({.port = server.port()}, {.on_send = [&] { log += "send "; },
                                         .on_read = [&] { log += log.ends_with("read ") ? "" : "read "; },
                                         .on_head = [&](const HttpResponse&) { log += "head "; },
                                         .on_data =
                                             [&](std::string_view) {
                                               log += "data ";
                                               return true;
                                             },
                                         .on_done = [&](const Status&) { done.set_value(); }});
  done.get_future().get();
  EXPECT_EQ(log.substr(0, 20), "send read head data ");
  std::promise<std::thread::id> loop;
  client.run_on_loop([&] { loop.set_value(std::this_thread::get_id()); });
  EXPECT_NE(loop.get_future().get(), std::this_thread::get_id());
}

TEST(HttpClient, AHostThatDoesNotAnswerCostsTheConnectTimeoutOnly) {
  HttpClient client;
  // 192.0.2.0/24 is reserved for documentation: nobody answers, or the network says at once that there is no way.
  const auto answer = client.fetch({.host = "192.0.2.1",
                                    .port = 9,
                                    .connect_timeout = std::chrono::milliseconds(50),
                                    .timeout = std::chrono::hours(1)});
  EXPECT_EQ(answer.status().code(), Code::kUnavailable);
  EXPECT_NE(answer.status().message().find("connecting to 192.0.2.1:9"), std::string::npos);
}

TEST(HttpClient, EventsAreReadUntilTheCallerHasEnough) {
  HttpServer server({.port = 0}, [](HttpRequest&& request, const HttpReply& reply) {
    if (request.path == "/error") return reply.send({.status = 400, .body = "{}"});
    reply.begin({.content_type = "text/event-stream; charset=utf-8"});
    for (int i = 0; i < 10; ++i) reply.write(sse_event(std::to_string(i)));
    reply.end();
  });
  ASSERT_TRUE(server.start().ok());
  HttpClient client;
  std::vector<std::string> events;
  const auto collect = [&](std::string_view data) {
    events.emplace_back(data);
    return events.size() != 3;
  };
  ASSERT_TRUE(client.stream_events({.port = server.port()}, collect).ok());
  EXPECT_EQ(events, (std::vector<std::string>{"0", "1", "2"}));
  ASSERT_TRUE(client.stream_events({.port = server.port()}, collect).ok());
  EXPECT_EQ(events.size(), 13u);
  const auto error = client.stream_events({.port = server.port(), .target = "/error"}, collect);
  ASSERT_TRUE(error.ok());
  EXPECT_EQ(error->status, 400);
  EXPECT_EQ(error->body, "{}");
}

TEST(HttpClient, NoServerIsAnErrorWithTheAddress) {
  HttpClient client;
  const auto answer = client.get("127.0.0.1", 1, "/");
  EXPECT_EQ(answer.status().code(), Code::kUnavailable);
  EXPECT_NE(answer.status().message().find("127.0.0.1:1"), std::string::npos);
}

TEST(HttpClient, CallsUnderWayEndWhenTheClientIsDestroyed) {
  std::vector<HttpReply> kept;
  std::mutex mutex;
  HttpServer server({.port = 0}, [&](HttpRequest&&, HttpReply reply) {
    std::lock_guard lock(mutex);
    kept.push_back(std::move(reply));
  });
  ASSERT_TRUE(server.start().ok());
  int cancelled = 0;
  {
    HttpClient client;
    for (int i = 0; i < 20; ++i)
      client.start({.port = server.port()},
                   {.on_done = [&](const Status& s) { cancelled += s.code() == Code::kCancelled; }});
  }
  EXPECT_EQ(cancelled, 20);
}

}  // namespace
}  // namespace millrace
