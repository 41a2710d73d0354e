// /health, /ping, /version and /v1/models: answered on the event loop.
#include "server/api_context.h"
#include "server/errors.h"
#include "server/json_writer.h"

namespace millrace {
namespace {

void write_permission(JsonWriter& json, int64_t created) {
  json.begin_object().field("id", "modelperm-" + random_hex32()).field("object", "model_permission");
  json.field("created", created).field("allow_create_engine", false).field("allow_sampling", true);
  json.field("allow_logprobs", true).field("allow_search_indices", false).field("allow_view", true);
  json.field("allow_fine_tuning", false).field("organization", "*").null_field("group");
  json.field("is_blocking", false).end_object();
}

}  // namespace

void answer_health(const ApiContext& context, const ApiCall& call) {
  const Status health = context.engine->health();
  if (health.ok()) return call.send({.content_type = "text/plain"});
  call.send(error_response(503, "the engine has stopped: " + health.message()));
}

void answer_version(const ApiContext& context, const ApiCall& call) {
  std::string body;
  JsonWriter(body).begin_object().field("version", context.config.version).end_object();
  call.send_json(std::move(body));
}

void answer_models(const ApiContext& context, const ApiCall& call) {
  std::string body;
  JsonWriter json(body);
  json.begin_object().field("object", "list").key("data").begin_array();
  for (const std::string& name : context.config.served_model_name) {
    json.begin_object().field("id", name).field("object", "model").field("created", context.started_at);
    json.field("owned_by", "vllm").field("root", context.config.model_path).null_field("parent");
    json.field("max_model_len", context.engine->limits().max_model_len).key("permission").begin_array();
    write_permission(json, context.started_at);
    json.end_array().end_object();
  }
  json.end_array().end_object();
  call.send_json(std::move(body));
}

}  // namespace millrace
