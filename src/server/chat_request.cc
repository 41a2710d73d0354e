#include "server/chat_request.h"

#include "base/text.h"

namespace millrace {
namespace {

constexpr const char* kTemplateNames[] = {
    "messages", "add_generation_prompt", "continue_final_message", "tools", "documents", "chat_template", "tokenize"};

OrderedJson ordered(const Json& value) { return OrderedJson::parse(dump_json(value)); }

// A string, or parts of text, which are joined by line breaks.
Result<std::string> parse_content(const Json& content, const std::string& name) {
  if (content.is_string()) return content.get<std::string>();
  if (!content.is_array()) return wrong_value(name, content, "a string or a list of text parts");
  std::string text;
  for (size_t i = 0; i < content.size(); ++i) {
    const std::string part_name = fmt::format("{}[{}]", name, i);
    std::string type, part_text;
    Fields part(content[i], part_name);
    part.read("type", type);
    if (part.ok() && type != "text")
      return invalid_argument("{}.type is '{}'; only 'text' parts are supported", part_name, type.substr(0, 40));
    if (!part.has("text")) part.fail(invalid_argument("{}.text is missing; it must be a string", part_name));
    part.read("text", part_text);
    MR_RETURN_IF_ERROR(part.finish());
    if (i > 0) text += '\n';
    text += part_text;
  }
  return text;
}

// Templates want a call's arguments as an object; clients send them as the text they were streamed in.
Result<OrderedJson> parse_tool_calls(const Json& calls, const std::string& name) {
  if (!calls.is_array()) return wrong_value(name, calls, "a list of tool calls");
  OrderedJson out = OrderedJson::array();
  for (size_t i = 0; i < calls.size(); ++i) {
    const std::string call_name = fmt::format("{}[{}]", name, i);
    if (!calls[i].is_object() || !calls[i].contains("function") || !calls[i]["function"].is_object())
      return invalid_argument("{}.function is missing; it must be an object with name and arguments", call_name);
    OrderedJson call = ordered(calls[i]);
    OrderedJson& function = call["function"];
    if (function.contains("arguments") && function["arguments"].is_string()) {
      auto arguments = parse_ordered_json(function["arguments"].get<std::string>());
      if (!arguments.ok()) return arguments.status().at(call_name + ".function.arguments");
      function["arguments"] = std::move(arguments).value();
    }
    out.push_back(std::move(call));
  }
  return out;
}

Result<OrderedJson> parse_message(const Json& message, const std::string& name) {
  Fields fields(message, name);
  std::string role;
  fields.read("role", role);
  if (fields.ok() && role.empty())
    fields.fail(invalid_argument("{}.role is missing; it must be a string such as 'user'", name));
  OrderedJson out = {{"role", role}};
  if (const Json* content = fields.find("content")) {
    MR_ASSIGN_OR_RETURN(std::string text, parse_content(*content, name + ".content"));
    out["content"] = std::move(text);
  } else if (role == "assistant") {
    out["content"] = nullptr;  // it may consist of tool calls alone
  } else {
    fields.fail(invalid_argument("{}.content is missing; it must be a string or a list of text parts", name));
  }
  if (const Json* calls = fields.find("tool_calls")) {
    MR_ASSIGN_OR_RETURN(out["tool_calls"], parse_tool_calls(*calls, name + ".tool_calls"));
  }
  for (const char* key : {"name", "tool_call_id", "reasoning", "reasoning_content"}) {
    std::string text;
    if (!fields.has(key)) continue;
    fields.read(key, text);
    out[key] = text;
  }
  MR_RETURN_IF_ERROR(fields.finish());
  return out;
}

void read_messages(Fields& fields, ChatRequest& out) {
  const Json* messages = fields.find("messages");
  if (!messages) return fields.fail(invalid_argument("messages is missing; it must be a list of messages"));
  if (!messages->is_array()) return fields.fail(wrong_value("messages", *messages, "a list of messages"));
  if (messages->empty()) return fields.fail(invalid_argument("messages is empty; it must have at least one message"));
  for (size_t i = 0; i < messages->size(); ++i) {
    auto message = parse_message((*messages)[i], fmt::format("messages[{}]", i));
    if (!message.ok()) return fields.fail(message.status());
    out.prompt.messages.push_back(std::move(message).value());
  }
  const OrderedJson& last = out.prompt.messages.back();
  out.last_role = last["role"].get<std::string>();
  if (last["content"].is_string()) out.last_content = last["content"].get<std::string>();
}

void read_template_variables(Fields& fields, const ServerConfig& config, ChatRequest& out) {
  out.prompt.variables = config.default_chat_template_kwargs;
  if (const Json* kwargs = fields.find("chat_template_kwargs")) {
    if (!kwargs->is_object()) return fields.fail(wrong_value("chat_template_kwargs", *kwargs, "an object"));
    for (const char* name : kTemplateNames)
      if (kwargs->contains(name))
        return fields.fail(invalid_argument(
            "chat_template_kwargs.{} is a field of the request, not a variable of the template", name));
    for (const auto& [name, value] : kwargs->items()) out.prompt.variables[name] = ordered(value);
  }
  if (const Json* documents = fields.find("documents")) {
    if (!documents->is_array()) return fields.fail(wrong_value("documents", *documents, "a list of objects"));
    out.prompt.variables["documents"] = ordered(*documents);
  }
}

void refuse_unbuilt(Fields& fields) {
  fields.unsupported("tools", "tool calls are not");
  fields.unsupported("tool_choice", "tool calls are not", {R"("none")"});
  fields.unsupported("functions", "tool calls are not");
  fields.unsupported("function_call", "tool calls are not", {R"("none")"});
  fields.unsupported("reasoning_effort", "chat_template_kwargs reach the template");
  fields.unsupported("include_reasoning", "answers are not split into reasoning and content", {"true"});
  fields.unsupported("mm_processor_kwargs", "messages are text", {"{}"});
  fields.unsupported("media_io_kwargs", "messages are text", {"{}"});
  fields.unsupported("modalities", "answers are text", {R"(["text"])"});
  fields.unsupported("audio", "answers are text");
  fields.unsupported("prediction", "");
  fields.unsupported("session_id", "");
  fields.unsupported("return_prompt_text", "/tokenize and /detokenize show a prompt", {"false"});
  bool either = false;
  fields.read("parallel_tool_calls", either);  // says nothing where there are no tools
}

// max_completion_tokens wins; none: what the prompt leaves.
void read_max_tokens(Fields& fields, GenerationOptions& options) {
  for (const char* name : {"max_tokens", "max_completion_tokens"}) {
    if (!fields.has(name)) continue;
    fields.read(name, options.max_tokens);
    if (options.max_tokens && *options.max_tokens < 1)
      fields.fail(invalid_argument("{} is {}; it must be at least 1", name, *options.max_tokens));
  }
}

void read_logprobs(Fields& fields, const EngineLimits& limits, GenerationOptions& options) {
  bool logprobs = false;
  int top_logprobs = 0;
  fields.read("logprobs", logprobs);
  fields.read("top_logprobs", top_logprobs);
  if (top_logprobs != 0 && !logprobs)
    fields.fail(invalid_argument("when using `top_logprobs`, `logprobs` must be set to true."));
  if (top_logprobs < 0 || top_logprobs > limits.max_logprobs)
    fields.fail(invalid_argument("top_logprobs is {}; it must be between 0 and {} (--max-logprobs)", top_logprobs,
                                 limits.max_logprobs));
  if (logprobs) options.params.logprobs = top_logprobs;
}

}  // namespace

void read_chat_prompt(Fields& fields, const ServerConfig& config, ChatRequest& out) {
  read_messages(fields, out);
  read_template_variables(fields, config, out);
  fields.read("add_generation_prompt", out.prompt.add_generation_prompt);
  fields.read("continue_final_message", out.continue_final_message);
  if (out.continue_final_message) {
    if (fields.has("add_generation_prompt") && out.prompt.add_generation_prompt)
      fields.fail(invalid_argument("Cannot set both `continue_final_message` and `add_generation_prompt` to True."));
    if (out.last_content.empty())
      fields.fail(invalid_argument("continue_final_message is true; the last message must have content to continue"));
    out.prompt.add_generation_prompt = false;
  }
  fields.read("chat_template", out.prompt.chat_template);
  if (out.prompt.chat_template && !config.trust_request_chat_template)
    fields.fail(invalid_argument("chat_template is refused: the server runs without --trust-request-chat-template"));
}

Result<ChatRequest> parse_chat_request(const Json& body, const ServerConfig& config, const EngineLimits& limits) {
  ChatRequest request;
  Fields fields(body);
  read_generation_options(fields, config, limits, request.options);
  read_max_tokens(fields, request.options);
  read_logprobs(fields, limits, request.options);
  read_chat_prompt(fields, config, request);
  refuse_unbuilt(fields);
  MR_RETURN_IF_ERROR(fields.finish());
  return request;
}

Result<std::string> render_chat(const ChatRequest& request, const TextCodec& codec) {
  if (!codec.has_chat_template())
    return invalid_argument(
        "this model has no chat template, and its family no known chat format; start the server with --chat-template "
        "or "
        "use /v1/completions");
  MR_ASSIGN_OR_RETURN(std::string text, codec.render_chat(request.prompt));
  if (!request.continue_final_message) return text;
  // The template may have trimmed the content and has closed the message behind it.
  const std::string_view content = request.last_content, core = trim(content);
  const size_t at = core.empty() ? std::string::npos : text.rfind(core);
  if (at == std::string::npos)
    return invalid_argument(
        "continue_final_message is true, but the chat template does not show the last message's content as it is");
  const std::string_view with_spaces_behind = content.substr(content.find(core));
  const bool kept = std::string_view(text).substr(at).starts_with(with_spaces_behind);
  text.resize(at + (kept ? with_spaces_behind.size() : core.size()));
  return text;
}

}  // namespace millrace
