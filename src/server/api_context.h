// What every endpoint's handler needs. Immutable once the server runs; shared by all threads.
#pragma once
#include <functional>
#include <memory>

#include "engine/client.h"
#include "net/http_server.h"
#include "net/worker_pool.h"
#include "server/config.h"
#include "server/text_codec.h"

namespace millrace {

struct ApiContext {
  ServerConfig config;
  std::shared_ptr<EngineClient> engine;
  std::shared_ptr<const TextCodec> codec;  // null: no tokenizer
  std::shared_ptr<WorkerPool> workers;
  int64_t started_at = 0;  // seconds since 1970
};

// A request on its way to an answer. `headers` go into every answer (CORS, X-Request-Id).
struct ApiCall {
  HttpRequest request;
  HttpReply reply;
  std::vector<HttpHeader> headers;
  void send(HttpResponse response) const;
  void send_json(std::string body) const { send({.body = std::move(body)}); }
  void fail(const Status& status) const;
};

// Endpoints. Those that parse a body run on a worker.
void answer_models(const ApiContext& context, const ApiCall& call);
void answer_health(const ApiContext& context, const ApiCall& call);
void answer_version(const ApiContext& context, const ApiCall& call);
void answer_completions(const ApiContext& context, const ApiCall& call);
void answer_chat(const ApiContext& context, const ApiCall& call);
void answer_tokenize(const ApiContext& context, const ApiCall& call);
void answer_detokenize(const ApiContext& context, const ApiCall& call);

// kNotFound unless `model` is empty or one of the served names.
Status check_model(const ServerConfig& config, const std::string& model);
Result<Json> parse_body(const ApiCall& call);
std::string random_hex32();  // 32 hexadecimal digits

}  // namespace millrace
