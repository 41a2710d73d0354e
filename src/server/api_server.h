// The OpenAI-compatible front end: routes, access, and the handlers of each endpoint, over an EngineClient.
//
// Threads: one event loop owns the sockets and answers what needs no work (/health, /v1/models, refusals); a small pool
// parses, tokenises and serialises; outputs come on the engine's thread. None waits for another.
#pragma once
#include <chrono>
#include <memory>

#include "base/result.h"
#include "engine/client.h"
#include "server/config.h"
#include "server/text_codec.h"

namespace millrace {

class ApiServer {
 public:
  // `codec` is null with --skip-tokenizer-init: token ids in and out only. Requires: a served model name.
  ApiServer(ServerConfig config, std::shared_ptr<EngineClient> engine, std::shared_ptr<const TextCodec> codec);
  ~ApiServer();  // shutdown(0)
  ApiServer(const ApiServer&) = delete;
  ApiServer& operator=(const ApiServer&) = delete;

  Status start();  // errors as HttpServer::start
  int port() const;
  // Stops accepting; streams under way have `grace` to finish, then they are cut off and their requests aborted.
  void shutdown(std::chrono::milliseconds grace);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace millrace
