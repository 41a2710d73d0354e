// A running ApiServer over a FakeEngine, and a client that talks to it.
#pragma once
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <regex>

#include "net/http_client.h"
#include "server/api_server.h"
#include "tests/server/fake_engine.h"

namespace millrace {

struct TestServer {
  explicit TestServer(FakeEngine::Script script = speak({"Hi", " all"}), ServerConfig config = {},
                      bool tokenizer = true, EngineLimits limits = FakeEngine().limits_value)
      : engine(std::make_shared<FakeEngine>(std::move(script))), codec(std::make_shared<ByteCodec>()) {
    engine->limits_value = limits;
    if (config.served_model_name.empty()) config.served_model_name = {"m", "alias"};
    config.host = "127.0.0.1";
    config.port = 0;
    config.model_path = "/models/m";
    config.version = "0.1.0";
    server = std::make_unique<ApiServer>(std::move(config), engine, tokenizer ? codec : nullptr);
    const Status status = server->start();
    EXPECT_TRUE(status.ok()) << status.message();
  }
  HttpResponse send(std::string method, std::string path, std::string body = "", std::vector<HttpHeader> headers = {}) {
    auto answer = client.fetch({.port = server->port(),
                                .method = std::move(method),
                                .target = std::move(path),
                                .headers = std::move(headers),
                                .body = std::move(body)});
    EXPECT_TRUE(answer.ok()) << answer.status().message();
    return answer.ok() ? *answer : HttpResponse{.status = 0};
  }
  HttpResponse post(std::string path, std::string body) { return send("POST", std::move(path), std::move(body)); }
  Json post_json(std::string path, std::string body) {
    const HttpResponse answer = post(std::move(path), std::move(body));
    EXPECT_EQ(answer.status, 200) << answer.body;
    return Json::parse(answer.body, nullptr, false);
  }
  // The data of all events, ids and times replaced.
  std::vector<std::string> stream(std::string path, std::string body) {
    std::vector<std::string> events;
    const auto answer = client.stream_events(
        {.port = server->port(), .method = "POST", .target = std::move(path), .body = std::move(body)},
        [&](std::string_view data) {
          events.push_back(anonymous(std::string(data)));
          return true;
        });
    EXPECT_TRUE(answer.ok()) << answer.status().message();
    if (answer.ok()) {
      EXPECT_EQ(answer->status, 200) << answer->body;
    }
    return events;
  }
  static std::string anonymous(std::string text) {
    text = std::regex_replace(text, std::regex(R"((cmpl|chatcmpl|modelperm)-[0-9a-f]{32})"), "$1-ID");
    return std::regex_replace(text, std::regex(R"("created":[0-9]+)"), "\"created\":0");
  }

  std::shared_ptr<FakeEngine> engine;
  std::shared_ptr<ByteCodec> codec;
  std::unique_ptr<ApiServer> server;
  HttpClient client;
};

}  // namespace millrace
