#include "tests/server/test_server.h"

namespace millrace {
namespace {

constexpr std::string_view kHexDigits = "0123456789abcdef";
constexpr size_t kIdDigits = 32;

// Where the run of `digits` that begins at `from` ends.
size_t end_of(std::string_view digits, const std::string& text, size_t from) {
  return std::min(text.find_first_not_of(digits, from), text.size());
}

void hide_ids(std::string& text, const std::string& prefix) {
  for (size_t at = text.find(prefix); at != std::string::npos; at = text.find(prefix, at)) {
    at += prefix.size();
    if (end_of(kHexDigits, text, at) - at >= kIdDigits) text.replace(at, kIdDigits, "ID");
  }
}

void hide_times(std::string& text) {
  const std::string key = "\"created\":";
  for (size_t at = text.find(key); at != std::string::npos; at = text.find(key, at)) {
    at += key.size();
    if (const size_t digits = end_of(kHexDigits.substr(0, 10), text, at) - at; digits > 0)
      text.replace(at, digits, "0");
  }
}

}  // namespace

TestServer::TestServer(FakeEngine::Script script, ServerConfig config, bool tokenizer, EngineLimits limits)
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

HttpResponse TestServer::send(std::string method, std::string path, std::string body, std::vector<HttpHeader> headers) {
  auto answer = client.fetch({.port = server->port(),
                              .method = std::move(method),
                              .target = std::move(path),
                              .headers = std::move(headers),
                              .body = std::move(body)});
  EXPECT_TRUE(answer.ok()) << answer.status().message();
  return answer.ok() ? *answer : HttpResponse{.status = 0};
}

HttpResponse TestServer::post(std::string path, std::string body) {
  return send("POST", std::move(path), std::move(body));
}

Json TestServer::post_json(std::string path, std::string body) {
  const HttpResponse answer = post(std::move(path), std::move(body));
  EXPECT_EQ(answer.status, 200) << answer.body;
  return Json::parse(answer.body, nullptr, false);
}

std::vector<std::string> TestServer::stream(std::string path, std::string body) {
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

std::string TestServer::anonymous(std::string text) {
  for (const char* prefix : {"cmpl-", "modelperm-"}) hide_ids(text, prefix);  // chatcmpl- ends in cmpl- too
  hide_times(text);
  return text;
}

}  // namespace millrace
