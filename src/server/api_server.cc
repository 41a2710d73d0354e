#include "server/api_server.h"

#include <ctime>
#include <map>

#include "base/check.h"
#include "base/log.h"
#include "base/text.h"
#include "server/access.h"
#include "server/api_context.h"
#include "server/errors.h"

namespace millrace {
namespace {

using Endpoint = void (*)(const ApiContext&, const ApiCall&);
struct Route {
  std::string_view method;
  Endpoint endpoint;
  bool quick;  // answered on the event loop
};
struct Path {
  const char* path;
  std::vector<Route> routes;
};

const std::vector<Path>& paths() {
  static const std::vector<Path> all = {
      {"/health", {{"GET", answer_health, true}}},
      {"/ping", {{"GET", answer_health, true}, {"POST", answer_health, true}}},
      {"/version", {{"GET", answer_version, true}}},
      {"/v1/models", {{"GET", answer_models, true}}},
      {"/v1/completions", {{"POST", answer_completions, false}}},
      {"/v1/chat/completions", {{"POST", answer_chat, false}}},
      {"/tokenize", {{"POST", answer_tokenize, false}}},
      {"/detokenize", {{"POST", answer_detokenize, false}}},
  };
  return all;
}

HttpResponse unknown_path(const std::string& path) {
  std::vector<std::string> names;
  for (const Path& known : paths()) names.emplace_back(known.path);
  const std::string hint = path.size() <= 64 ? did_you_mean(path, names) : "";
  return error_response(404, fmt::format("there is no {}{}", path.substr(0, 100), hint));
}

HttpResponse wrong_method(const Path& path, const std::string& method) {
  std::string allowed;
  for (const Route& route : path.routes) allowed += (allowed.empty() ? "" : ", ") + std::string(route.method);
  HttpResponse response =
      error_response(405, fmt::format("{} {} is not possible; use {}", method.substr(0, 20), path.path, allowed));
  response.headers.push_back({"Allow", allowed});
  return response;
}

HttpServerConfig http_config(const ServerConfig& config) {
  HttpServerConfig http;
  http.host = config.host;
  http.port = config.port;
  http.max_connections = config.max_connections;
  http.max_body_bytes = config.max_body_bytes;
  http.error_response = [](int status, const std::string& message) { return error_response(status, message); };
  return http;
}

// A header's value that may be sent back and logged.
bool is_plain(std::string_view text) {
  if (text.empty() || text.size() > 128) return false;
  return std::all_of(text.begin(), text.end(), [](char c) { return c > ' ' && c < 127; });
}

}  // namespace

class ApiServer::Impl {
 public:
  Impl(ServerConfig config, std::shared_ptr<EngineClient> engine, std::shared_ptr<const TextCodec> codec)
      : context_(std::make_shared<ApiContext>()),
        http_(http_config(config),
              [this](HttpRequest&& request, HttpReply reply) { handle(std::move(request), std::move(reply)); }) {
    MR_CHECK(!config.served_model_name.empty(), "a server needs a model name");
    context_->workers = std::make_shared<WorkerPool>(std::max(1, config.request_threads));
    context_->config = std::move(config);
    context_->engine = std::move(engine);
    context_->codec = std::move(codec);
    context_->started_at = std::time(nullptr);
  }
  ~Impl() { shutdown(std::chrono::milliseconds(0)); }

  Status start() { return http_.start(); }
  int port() const { return http_.port(); }
  void shutdown(std::chrono::milliseconds grace) {
    http_.shutdown(grace);
    context_->workers->stop();
  }

 private:
  void handle(HttpRequest&& request, HttpReply reply);
  void run(const Route& route, std::shared_ptr<ApiCall> call);
  std::vector<HttpHeader> common_headers(HttpRequest& request) const;

  std::shared_ptr<ApiContext> context_;
  HttpServer http_;
};

// Every request gets an id: the client's own, or a new one. It is put where the endpoints find it.
std::vector<HttpHeader> ApiServer::Impl::common_headers(HttpRequest& request) const {
  std::vector<HttpHeader> headers = cors_headers(request, context_->config);
  if (!context_->config.enable_request_id_headers) return headers;
  if (!is_plain(request.header("X-Request-Id"))) {
    std::erase_if(request.headers, [](const HttpHeader& h) { return equal_ignoring_case(h.name, "X-Request-Id"); });
    request.headers.push_back({"X-Request-Id", random_hex32()});
  }
  headers.push_back({"X-Request-Id", std::string(request.header("X-Request-Id"))});
  return headers;
}

void ApiServer::Impl::handle(HttpRequest&& request, HttpReply reply) {
  auto call = std::make_shared<ApiCall>();
  call->headers = common_headers(request);
  call->request = std::move(request);
  call->reply = std::move(reply);
  if (is_preflight(call->request)) return call->reply.send(preflight_response(call->request, context_->config));
  if (!is_authorized(call->request, context_->config.api_key))
    return call->send(
        {.status = 401, .headers = {{"WWW-Authenticate", "Bearer"}}, .body = R"({"error":"Unauthorized"})"});
  for (const Path& path : paths()) {
    if (path.path != call->request.path) continue;
    const std::string method = call->request.method == "HEAD" ? "GET" : call->request.method;
    for (const Route& route : path.routes)
      if (route.method == method) return run(route, std::move(call));
    return call->send(wrong_method(path, call->request.method));
  }
  call->send(unknown_path(call->request.path));
}

// Whatever a library throws becomes status 500 here; the server goes on.
void ApiServer::Impl::run(const Route& route, std::shared_ptr<ApiCall> call) {
  const auto job = [context = context_, endpoint = route.endpoint, call = std::move(call)] {
    try {
      endpoint(*context, *call);
    } catch (const std::exception& e) {
      log_error("{} {} failed: {}", call->request.method, call->request.path, e.what());
      call->fail(internal_error("internal error: {}", e.what()));
    }
  };
  if (route.quick)
    job();
  else
    context_->workers->submit(job);
}

ApiServer::ApiServer(ServerConfig config, std::shared_ptr<EngineClient> engine, std::shared_ptr<const TextCodec> codec)
    : impl_(std::make_unique<Impl>(std::move(config), std::move(engine), std::move(codec))) {}
ApiServer::~ApiServer() = default;
Status ApiServer::start() { return impl_->start(); }
int ApiServer::port() const { return impl_->port(); }
void ApiServer::shutdown(std::chrono::milliseconds grace) { impl_->shutdown(grace); }

}  // namespace millrace
