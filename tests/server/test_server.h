// A running ApiServer over a FakeEngine, and a client that talks to it.
#pragma once
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "net/http_client.h"
#include "server/api_server.h"
#include "tests/server/fake_engine.h"

namespace millrace {

struct TestServer {
  explicit TestServer(FakeEngine::Script script = speak({"Hi", " all"}), ServerConfig config = {},
                      bool tokenizer = true, EngineLimits limits = FakeEngine().limits_value);
  HttpResponse send(std::string method, std::string path, std::string body = "", std::vector<HttpHeader> headers = {});
  HttpResponse post(std::string path, std::string body);
  Json post_json(std::string path, std::string body);
  // The data of all events, ids and times replaced.
  std::vector<std::string> stream(std::string path, std::string body);
  // cmpl-0f..., chatcmpl-0f... and modelperm-0f... (32 digits) end in -ID, "created" is 0.
  static std::string anonymous(std::string text);

  std::shared_ptr<FakeEngine> engine;
  std::shared_ptr<ByteCodec> codec;
  std::unique_ptr<ApiServer> server;
  HttpClient client;
};

}  // namespace millrace
