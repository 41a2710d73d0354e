// /v1/completions and /v1/chat/completions: from a parsed body to a running Generation. On a worker.
#include <ctime>

#include "base/log.h"
#include "base/utf8.h"
#include "server/api_context.h"
#include "server/chat_format.h"
#include "server/completion_format.h"
#include "server/generation.h"
#include "server/json_writer.h"

namespace millrace {
namespace {

// What must hold for any request, whatever its prompts are.
Status check_options(const ApiContext& context, const GenerationOptions& options, const EngineLimits& limits) {
  MR_RETURN_IF_ERROR(check_model(context.config, options.model));
  MR_RETURN_IF_ERROR(context.engine->health());
  if (!context.codec && !options.params.stop.empty())
    return invalid_argument(
        "stop strings need a tokenizer, but the server runs with --skip-tokenizer-init; use stop_token_ids");
  SamplingParams params = options.params;
  if (options.max_tokens)
    params.max_tokens = *options.max_tokens;
  else
    params.max_tokens = limits.max_model_len;
  if (params.max_tokens == 0) params.prompt_logprobs = params.prompt_logprobs.value_or(0);
  return validate(params, limits.vocab_size, limits.max_logprobs);
}

// The engine's own queue has no limit; this one keeps waiting times bounded.
Status check_load(const ApiContext& context, size_t prompts, int n) {
  const int64_t sequences = static_cast<int64_t>(prompts) * n;
  if (sequences > context.config.max_sequences_per_request)
    return invalid_argument("the request asks for {} sequences (prompts x n); at most {} are allowed", sequences,
                            context.config.max_sequences_per_request);
  if (context.config.max_queue <= 0) return {};
  const int64_t waiting = context.engine->stats().waiting;
  if (waiting < context.config.max_queue) return {};
  return resource_exhausted("{} requests are waiting already (--max-queue {}); try again later", waiting,
                            context.config.max_queue);
}

std::string request_id(const ApiCall& call, const GenerationOptions& options, std::string_view prefix) {
  std::string id(call.request.header("X-Request-Id").substr(0, 128));
  if (id.empty()) id = options.request_id;
  if (id.empty()) id = random_hex32();
  return std::string(prefix) + utf8_replace_invalid(id);
}

void log_start(const ServerConfig& config, const std::string& id, const GenerationOptions& options,
               const std::string& prompt, size_t prompt_tokens) {
  if (config.disable_log_requests) return;
  const size_t shown = config.max_log_len < 0 ? prompt.size() : static_cast<size_t>(config.max_log_len);
  std::string excerpt;  // escaped: a prompt cannot write log lines of its own
  append_json_escaped(excerpt, std::string_view(prompt).substr(0, shown));
  const SamplingParams& p = options.params;
  log_info("request {}: prompt '{}' ({} tokens), n {}, temperature {}, top_p {}, top_k {}, max_tokens {}, stream {}",
           id, excerpt, prompt_tokens, p.n, p.temperature, p.top_p, p.top_k,
           options.max_tokens ? std::to_string(*options.max_tokens) : "what is left", options.stream);
}

GenerationRequest engine_request(const ApiContext& context, const GenerationOptions& options,
                                 const EngineLimits& limits, std::string id, std::vector<int32_t> prompt) {
  GenerationRequest request{.id = std::move(id), .priority = options.priority, .cache_salt = options.cache_salt};
  request.params =
      params_for_prompt(options, context.config.default_sampling_params, limits, static_cast<int64_t>(prompt.size()));
  request.params.detokenize = context.codec != nullptr;
  request.prompt_token_ids = std::move(prompt);
  return request;
}

void start_generation(const ApiContext& context, const ApiCall& call, const GenerationOptions& options, std::string id,
                      std::unique_ptr<ResponseFormat> format, std::vector<GenerationRequest> requests) {
  const auto generation = std::make_shared<Generation>(Generation::Setup{.engine = context.engine.get(),
                                                                         .workers = context.workers,
                                                                         .reply = call.reply,
                                                                         .format = std::move(format),
                                                                         .headers = call.headers,
                                                                         .id = std::move(id),
                                                                         .stream = options.stream,
                                                                         .usage_event = options.include_usage,
                                                                         .log = !context.config.disable_log_requests});
  generation->start(std::move(requests));
}

Status run_completions(const ApiContext& context, const ApiCall& call) {
  const EngineLimits limits = context.engine->limits();
  MR_ASSIGN_OR_RETURN(const Json body, parse_body(call));
  MR_ASSIGN_OR_RETURN(CompletionRequest request, parse_completion_request(body, context.config, limits));
  GenerationOptions& options = request.options;
  MR_RETURN_IF_ERROR(check_options(context, options, limits));
  MR_RETURN_IF_ERROR(check_load(context, request.prompts.size(), options.params.n));

  const std::string id = request_id(call, options, "cmpl-");
  GenerationOptions engine_options = options;
  SamplingParams& params = engine_options.params;
  // echo shows the prompt with as many alternatives as the output; an answer of nothing but a prompt needs them too.
  if (options.echo && options.params.logprobs)
    params.prompt_logprobs = std::max(params.prompt_logprobs.value_or(0), *options.params.logprobs);
  if (options.max_tokens == 0) params.prompt_logprobs = params.prompt_logprobs.value_or(0);
  std::vector<PreparedPrompt> prompts;
  std::vector<GenerationRequest> requests;
  for (size_t p = 0; p < request.prompts.size(); ++p) {
    auto prompt = prepare_prompt(request.prompts[p], options, context.codec.get(), limits);
    if (!prompt.ok())
      return request.prompts.size() == 1 ? prompt.status() : prompt.status().at(fmt::format("prompt[{}]", p));
    const auto* text = std::get_if<std::string>(&request.prompts[p]);
    log_start(context.config, id, options, text ? *text : "", prompt->ids.size());
    requests.push_back(engine_request(context, engine_options, limits,
                                      request.prompts.size() == 1 ? id : fmt::format("{}-{}", id, p), prompt->ids));
    prompts.push_back(std::move(prompt).value());
  }
  ResponseHead head{.id = id, .model = context.config.served_model_name[0], .created = std::time(nullptr)};
  auto format = std::make_unique<CompletionFormat>(std::move(head), options, std::move(prompts),
                                                   TokenNames(context.codec, options.return_tokens_as_token_ids),
                                                   context.config.enable_prompt_tokens_details);
  start_generation(context, call, options, id, std::move(format), std::move(requests));
  return {};
}

Status run_chat(const ApiContext& context, const ApiCall& call) {
  const EngineLimits limits = context.engine->limits();
  MR_ASSIGN_OR_RETURN(const Json body, parse_body(call));
  MR_ASSIGN_OR_RETURN(const ChatRequest request, parse_chat_request(body, context.config, limits));
  const GenerationOptions& options = request.options;
  MR_RETURN_IF_ERROR(check_options(context, options, limits));
  MR_RETURN_IF_ERROR(check_load(context, 1, options.params.n));
  if (!context.codec)
    return invalid_argument(
        "chat needs a tokenizer, but the server runs with --skip-tokenizer-init; use /v1/completions with token ids");

  const std::string id = request_id(call, options, "chatcmpl-");
  MR_ASSIGN_OR_RETURN(const std::string text, render_chat(request, *context.codec));
  GenerationOptions prompt_options = options;
  prompt_options.echo = false;  // of a chat it repeats the last message, not the prompt
  MR_ASSIGN_OR_RETURN(PreparedPrompt prompt, prepare_prompt(text, prompt_options, context.codec.get(), limits));
  log_start(context.config, id, options, text, prompt.ids.size());
  ResponseHead head{.id = id, .model = context.config.served_model_name[0], .created = std::time(nullptr)};
  auto format = std::make_unique<ChatFormat>(std::move(head), request, prompt.ids,
                                             TokenNames(context.codec, options.return_tokens_as_token_ids),
                                             context.config.response_role, context.config.enable_prompt_tokens_details);
  std::vector<GenerationRequest> requests;
  requests.push_back(engine_request(context, options, limits, id, std::move(prompt.ids)));
  start_generation(context, call, options, id, std::move(format), std::move(requests));
  return {};
}

}  // namespace

void answer_completions(const ApiContext& context, const ApiCall& call) {
  if (const Status status = run_completions(context, call); !status.ok()) call.fail(status);
}

void answer_chat(const ApiContext& context, const ApiCall& call) {
  if (const Status status = run_chat(context, call); !status.ok()) call.fail(status);
}

}  // namespace millrace
