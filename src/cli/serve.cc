// millrace serve
#include <fmt/format.h>
#include <pthread.h>

#include <csignal>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/log.h"
#include "base/version.h"
#include "cli/engine_flags.h"
#include "cli/local_text.h"
#include "engine/local/local_engine.h"
#include "net/http_server.h"
#include "server/api_server.h"
#include "server/tokenizer_codec.h"

namespace millrace::cli {
namespace {

constexpr const char* kGroup = "Server";

struct ServeArgs {
  EngineArgs engine;
  ServerConfig server;
  std::string chat_template;                 // file, or the template itself on one line
  std::string default_chat_template_kwargs;  // JSON object
  std::string generation_config = "auto";
  int64_t shutdown_timeout_s = 30;
};

void add_server_flags(App& app, ServeArgs& args) {
  ServerConfig& server = args.server;
  const auto option = [&app](const std::string& name, auto& value, const std::string& help) {
    return app.add_option(name, value, help)->group(kGroup);
  };
  option("--host", server.host, "address to listen on");
  option("--port", server.port, "0: any free one")->check(CLI::Range(0, 65535));
  option("--served-model-name", server.served_model_name, "names accepted in `model`; answers carry the first")
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
      ->expected(1, 64);
  option("--api-key", server.api_key, "keys that clients must send; VLLM_API_KEY wins")
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
      ->expected(1, 1024);
  option("--chat-template", args.chat_template, "a file, or the template on one line");
  option("--default-chat-template-kwargs", args.default_chat_template_kwargs, "JSON object");
  option("--response-role", server.response_role, "role of answers");
  option("--generation-config", args.generation_config, "auto: the model's sampling defaults; vllm: vLLM's own")
      ->check(CLI::IsMember({"auto", "vllm"}));
  option("--max-log-len", server.max_log_len, "characters of a prompt in the log; below 0: all");
  option("--max-queue", server.max_queue, "requests that may wait before new ones get 503; 0: any number")
      ->check(CLI::NonNegativeNumber);
  option("--shutdown-timeout", args.shutdown_timeout_s, "seconds that running answers have after SIGTERM")
      ->check(CLI::NonNegativeNumber);
  app.add_flag("--return-tokens-as-token-ids", server.return_tokens_as_token_ids, "show tokens as token_id:N")
      ->group(kGroup);
  app.add_flag("--enable-request-id-headers", server.enable_request_id_headers, "answer with X-Request-Id")
      ->group(kGroup);
  app.add_flag("--enable-prompt-tokens-details", server.enable_prompt_tokens_details, "cached tokens in `usage`")
      ->group(kGroup);
  app.add_flag("--enable-force-include-usage", server.enable_force_include_usage, "usage in every stream")
      ->group(kGroup);
  app.add_flag("--trust-request-chat-template", server.trust_request_chat_template, "accept templates in requests")
      ->group(kGroup);
  app.add_flag(
         "--enable-log-requests,!--disable-log-requests",
         [&server](std::int64_t on) { server.disable_log_requests = on <= 0; }, "log each request")
      ->group(kGroup);
}

void add_cors_flags(App& app, ServerConfig& server) {
  const auto list = [&app](const std::string& name, std::vector<std::string>& value) {
    app.add_option_function<std::string>(
           name,
           [name, &value](const std::string& text) {
             const Result<Json> json = parse_json(text);
             if (!json.ok() || !json->is_array() ||
                 !std::all_of(json->begin(), json->end(), [](const Json& item) { return item.is_string(); }))
               throw CLI::ValidationError(fmt::format("{} is '{}'; it must be a JSON list of strings", name, text));
             value = json->get<std::vector<std::string>>();
           },
           "CORS, JSON list")
        ->group(kGroup);
  };
  list("--allowed-origins", server.allowed_origins);
  list("--allowed-methods", server.allowed_methods);
  list("--allowed-headers", server.allowed_headers);
  app.add_flag("--allow-credentials", server.allow_credentials, "CORS")->group(kGroup);
}

void add_ignored_server_flags(App& app) {
  add_no_effect(app, "uvicorn-log-level", true, "VLLM_LOGGING_LEVEL sets the log level");
  add_no_effect(app, "disable-frontend-multiprocessing", false, "the front end is a thread of this process");
  add_no_effect(app, "disable-fastapi-docs", false, "there are none");
  add_no_effect(app, "disable-log-stats", false, "statistics are not logged");
}

// Sampling defaults that the model's generation_config.json states.
SamplingDefaults sampling_defaults(const Json& config) {
  SamplingDefaults defaults;
  if (!config.is_object()) return defaults;
  const auto number = [&config](const char* key) -> std::optional<double> {
    const auto found = config.find(key);
    if (found == config.end() || !found->is_number()) return std::nullopt;
    return found->get<double>();
  };
  defaults.temperature = number("temperature");
  defaults.top_p = number("top_p");
  defaults.min_p = number("min_p");
  defaults.repetition_penalty = number("repetition_penalty");
  if (const auto top_k = number("top_k")) defaults.top_k = static_cast<int>(*top_k);
  if (const auto tokens = number("max_new_tokens")) defaults.max_tokens = static_cast<int64_t>(*tokens);
  return defaults;
}

Status finish_server_config(ServeArgs& args, const LocalEngine& local) {
  ServerConfig& server = args.server;
  if (server.served_model_name.empty()) server.served_model_name = {args.engine.model};
  server.model_path = args.engine.model;
  server.version = kVersion;
  if (const char* key = std::getenv("VLLM_API_KEY"); key && *key) server.api_key = {key};
  if (args.generation_config == "auto")
    server.default_sampling_params = sampling_defaults(local.model.generation_config);
  if (args.default_chat_template_kwargs.empty()) return {};
  MR_ASSIGN_OR_RETURN(server.default_chat_template_kwargs, parse_ordered_json(args.default_chat_template_kwargs));
  if (!server.default_chat_template_kwargs.is_object())
    return invalid_argument("--default-chat-template-kwargs must be a JSON object");
  return {};
}

Status run(ServeArgs& args, const sigset_t& signals) {
  MR_RETURN_IF_ERROR(finish_engine_args(args.engine));
  MR_RETURN_IF_ERROR(HttpServer::check_address(args.server.host, args.server.port));  // before minutes of loading
  MR_ASSIGN_OR_RETURN(const LocalEngine local, start_local_engine(args.engine));
  std::shared_ptr<const TokenizerCodec> codec;
  if (local.tokenizer) {
    MR_ASSIGN_OR_RETURN(codec, make_codec(local, args.chat_template));
  }
  MR_RETURN_IF_ERROR(finish_server_config(args, local));
  for (const std::string& choice : local.choices) log_info("{}", choice);
  ApiServer server(args.server, local.engine, codec);
  MR_RETURN_IF_ERROR(server.start());
  log_info("Listening on http://{}:{}", args.server.host, server.port());
  int signal = 0;
  sigwait(&signals, &signal);
  const std::chrono::seconds patience(args.shutdown_timeout_s);
  log_info("{}: finishing running answers, for at most {} s", signal == SIGINT ? "interrupted" : "asked to stop",
           args.shutdown_timeout_s);
  server.shutdown(patience);
  local.engine->shutdown(std::chrono::seconds(0));
  log_info("stopped");
  return {};
}

}  // namespace

int serve(const Arguments& arguments) {
  ServeArgs args;
  App app("Serves a model over HTTP, OpenAI-compatible. Flags, names and defaults are vLLM's.", "serve");
  add_engine_flags(app, args.engine, /*positional_model=*/true);
  add_server_flags(app, args);
  add_cors_flags(app, args.server);
  add_ignored_server_flags(app);
  app.footer(
      "Examples:\n"
      "  millrace serve /models/Qwen2.5-0.5B-Instruct\n"
      "  millrace serve --model /models/Llama-3.2-1B --port 8080 --max-model-len 8192 --served-model-name llama\n"
      "  VLLM_CPU_KVCACHE_SPACE=8 millrace serve --model /models/Llama-3.2-1B --dtype bfloat16\n"
      "  millrace serve --model /models/Llama-3.2-1B --load-format dummy --skip-tokenizer-init    needs only "
      "config.json");
  if (const int code = parse(app, arguments); code >= 0) return code;
  // Blocked before any thread starts, so that only sigwait sees them.
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM), sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  std::signal(SIGPIPE, SIG_IGN);
  const Status status = run(args, signals);
  return status.ok() ? 0 : fail(status);
}

}  // namespace millrace::cli
