// /tokenize and /detokenize. On a worker.
#include "server/api_context.h"
#include "server/chat_request.h"
#include "server/fields.h"
#include "server/json_writer.h"
#include "server/token_names.h"

namespace millrace {
namespace {

Status need_tokenizer(const ApiContext& context) {
  if (context.codec) return {};
  return invalid_argument("{} needs a tokenizer, but the server runs with --skip-tokenizer-init", "this endpoint");
}

struct TokenizeRequest {
  std::string model, text;
  bool add_special_tokens = true, return_token_strs = false;
};

Result<TokenizeRequest> parse_tokenize(const Json& body, const ApiContext& context) {
  TokenizeRequest request;
  Fields fields(body);
  fields.read("model", request.model);
  fields.read("return_token_strs", request.return_token_strs);
  ChatRequest chat;
  const bool is_chat = fields.has("messages");
  if (is_chat) {
    request.add_special_tokens = false;
    read_chat_prompt(fields, context.config, chat);
    fields.unsupported("tools", "tool calls are not");
  } else if (!fields.has("prompt")) {
    fields.fail(invalid_argument("prompt is missing; it must be a string (or give messages instead)"));
  }
  fields.read("prompt", request.text);
  if (is_chat && fields.has("prompt"))
    fields.fail(invalid_argument("prompt and messages are both given; only one may be"));
  fields.read("add_special_tokens", request.add_special_tokens);
  MR_RETURN_IF_ERROR(fields.finish());
  if (is_chat) {
    MR_ASSIGN_OR_RETURN(request.text, render_chat(chat, *context.codec));
  }
  return request;
}

Status run_tokenize(const ApiContext& context, const ApiCall& call) {
  MR_RETURN_IF_ERROR(need_tokenizer(context));
  MR_ASSIGN_OR_RETURN(const Json body, parse_body(call));
  MR_ASSIGN_OR_RETURN(const TokenizeRequest request, parse_tokenize(body, context));
  MR_RETURN_IF_ERROR(check_model(context.config, request.model));
  MR_ASSIGN_OR_RETURN(const std::vector<int32_t> ids, context.codec->encode(request.text, request.add_special_tokens));
  std::string out;
  JsonWriter json(out);
  json.begin_object().field("count", static_cast<int64_t>(ids.size()));
  json.field("max_model_len", context.engine->limits().max_model_len).key("tokens").ids(ids);
  if (request.return_token_strs) {
    const TokenNames names(context.codec, /*as_ids=*/false);
    json.key("token_strs").begin_array();
    for (const int32_t id : ids) json.value(names.name(id));
    json.end_array();
  }
  json.end_object();
  call.send_json(std::move(out));
  return {};
}

Status run_detokenize(const ApiContext& context, const ApiCall& call) {
  MR_RETURN_IF_ERROR(need_tokenizer(context));
  MR_ASSIGN_OR_RETURN(const Json body, parse_body(call));
  std::string model;
  std::vector<int32_t> ids;
  Fields fields(body);
  fields.read("model", model);
  if (!fields.has("tokens")) fields.fail(invalid_argument("tokens is missing; it must be a list of token ids"));
  fields.read_ids("tokens", ids, size_t{1} << 24);
  MR_RETURN_IF_ERROR(fields.finish());
  MR_RETURN_IF_ERROR(check_model(context.config, model));
  const int64_t vocab_size = context.engine->limits().vocab_size;
  for (size_t i = 0; i < ids.size(); ++i)
    if (ids[i] >= vocab_size)
      return invalid_argument("tokens[{}] is {}; it must be a token id between 0 and {}", i, ids[i], vocab_size - 1);
  std::string out;
  JsonWriter(out)
      .begin_object()
      .field("prompt", context.codec->decode(ids, /*skip_special_tokens=*/false))
      .end_object();
  call.send_json(std::move(out));
  return {};
}

}  // namespace

void answer_tokenize(const ApiContext& context, const ApiCall& call) {
  if (const Status status = run_tokenize(context, call); !status.ok()) call.fail(status);
}

void answer_detokenize(const ApiContext& context, const ApiCall& call) {
  if (const Status status = run_detokenize(context, call); !status.ok()) call.fail(status);
}

}  // namespace millrace
