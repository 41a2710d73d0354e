// millrace generate
#include <fmt/format.h>

#include <condition_variable>
#include <fstream>
#include <iostream>
#include <mutex>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/log.h"
#include "base/progress.h"
#include "cli/engine_flags.h"
#include "cli/local_text.h"
#include "server/completion_request.h"

namespace millrace::cli {
namespace {

struct GenerateArgs {
  EngineArgs engine;
  std::optional<std::string> prompt;
  std::string input, output;
  std::string params = "{}";
  std::optional<int64_t> max_tokens;
  std::optional<double> temperature;
  bool verbose = false;
};

// A request as POST /v1/completions takes it, from the flags and the line's own fields.
Result<Json> merged_body(const GenerateArgs& args, const Json& line) {
  MR_ASSIGN_OR_RETURN(Json body, parse_json(args.params));
  if (!body.is_object()) return invalid_argument("--params must be a JSON object of /v1/completions fields");
  if (args.max_tokens) body["max_tokens"] = *args.max_tokens;
  if (args.temperature) body["temperature"] = *args.temperature;
  body.update(line);
  return body;
}

Result<GenerationRequest> make_request(const GenerateArgs& args, const LocalEngine& local, const Json& line) {
  MR_ASSIGN_OR_RETURN(const Json body, merged_body(args, line));
  MR_ASSIGN_OR_RETURN(CompletionRequest parsed, parse_completion_request(body, ServerConfig{}, local.engine->limits()));
  if (parsed.prompts.size() != 1)
    return invalid_argument("prompt holds {} prompts; one a line is wanted", parsed.prompts.size());
  for (const char* field : {"stream", "echo", "logprobs", "prompt_logprobs"})
    if (body.contains(field) && body[field] != false && !body[field].is_null())
      return unimplemented("{} is not supported by 'millrace generate'; 'millrace serve' has it", field);
  GenerationRequest request;
  request.params = parsed.options.params;
  request.priority = parsed.options.priority;
  request.cache_salt = parsed.options.cache_salt;
  if (parsed.options.max_tokens) request.params.max_tokens = *parsed.options.max_tokens;
  if (const auto* ids = std::get_if<std::vector<int32_t>>(&parsed.prompts[0])) {
    request.prompt_token_ids = *ids;
  } else {
    if (!local.tokenizer)
      return invalid_argument("the prompt is text, but --skip-tokenizer-init leaves only token ids");
    MR_ASSIGN_OR_RETURN(request.prompt_token_ids,
                        local.tokenizer->encode(std::get<std::string>(parsed.prompts[0]),
                                                {.add_special_tokens = parsed.options.add_special_tokens}));
  }
  if (request.prompt_token_ids.empty()) return invalid_argument("the prompt is empty");
  return request;
}

Status run_one(const GenerateArgs& args, const LocalEngine& local) {
  MR_ASSIGN_OR_RETURN(GenerationRequest request, make_request(args, local, {{"prompt", *args.prompt}}));
  const auto print = [](const std::string& text) {
    fmt::print("{}", text);
    std::fflush(stdout);
  };
  MR_ASSIGN_OR_RETURN(const LocalAnswer answer, ask_and_wait(*local.engine, std::move(request), print));
  fmt::print("\n");
  for (size_t i = 1; i < answer.texts.size(); ++i) fmt::print("---\n{}\n", answer.texts[i]);
  return {};
}

// What a line of the input became.
Json to_json(const Json& line, const LocalAnswer& answer) {
  Json choices = Json::array();
  for (size_t i = 0; i < answer.texts.size(); ++i)
    choices.push_back({{"index", i},
                       {"text", answer.texts[i]},
                       {"token_ids", answer.token_ids[i]},
                       {"finish_reason", finish_reason_name(answer.finish_reasons[i])}});
  return {{"request", line}, {"choices", choices}, {"prompt_tokens", answer.prompt_tokens}};
}

Result<std::vector<Json>> read_lines(const std::string& path) {
  MR_ASSIGN_OR_RETURN(const std::string text, read_file(path, size_t{1} << 30));
  std::vector<Json> lines;
  size_t number = 0;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    const std::string_view line(text.data() + begin, end - begin);
    begin = end + 1;
    ++number;
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    Result<Json> json = parse_json(line);
    if (!json.ok()) return json.status().at(fmt::format("{} line {}", path, number));
    if (!json->is_object())
      return invalid_argument("{} line {}: {}; an object with a prompt is wanted", path, number, json_kind(*json));
    lines.push_back(std::move(*json));
  }
  return lines;
}

// All lines at once through the engine; results keep the input's order. A line that fails has an "error" in its place.
std::vector<Json> answer_lines(const GenerateArgs& args, const LocalEngine& local, const std::vector<Json>& lines) {
  std::vector<Json> results(lines.size());
  std::mutex mutex;
  std::condition_variable arrived;
  size_t open = lines.size();
  Progress progress("Generating", static_cast<int64_t>(lines.size()), "requests");
  const auto finish = [&](size_t i, Json result) {
    const std::lock_guard lock(mutex);
    results[i] = std::move(result);
    progress.advance();
    if (--open == 0) arrived.notify_one();
  };
  for (size_t i = 0; i < lines.size(); ++i) {
    Result<GenerationRequest> request = make_request(args, local, lines[i]);
    Status status = request.status();
    if (request.ok())
      status = ask(*local.engine, std::move(*request), [&, i](Result<LocalAnswer> answer) {
        finish(i, answer.ok() ? to_json(lines[i], *answer)
                              : Json{{"request", lines[i]}, {"error", answer.status().message()}});
      });
    if (!status.ok()) finish(i, {{"request", lines[i]}, {"error", status.message()}});
  }
  std::unique_lock lock(mutex);
  arrived.wait(lock, [&] { return open == 0; });
  return results;
}

Status run_file(const GenerateArgs& args, const LocalEngine& local) {
  MR_ASSIGN_OR_RETURN(const std::vector<Json> lines, read_lines(args.input));
  std::string text;
  size_t failed = 0;
  for (const Json& result : answer_lines(args, local, lines)) {
    failed += result.contains("error");
    text += dump_json(result) + "\n";
  }
  if (args.output.empty())
    fmt::print("{}", text);
  else
    MR_RETURN_IF_ERROR(write_file(args.output, text));
  if (failed > 0)
    return invalid_argument("{} of {} requests failed; their lines have an \"error\"", failed, lines.size());
  return {};
}

Status run(GenerateArgs& args) {
  if (args.prompt.has_value() == !args.input.empty()) return invalid_argument("give either a prompt or --input FILE");
  MR_RETURN_IF_ERROR(finish_engine_args(args.engine));
  MR_ASSIGN_OR_RETURN(const LocalEngine local, start_local_engine(args.engine));
  if (args.verbose)
    for (const std::string& choice : local.choices) log_info("{}", choice);
  return args.prompt ? run_one(args, local) : run_file(args, local);
}

}  // namespace

int generate(const Arguments& arguments) {
  GenerateArgs args;
  App app("Generates from one prompt, or from every line of a jsonl file, without a server.", "generate");
  app.add_option("prompt,--prompt", args.prompt, "the prompt");
  app.add_option("--input", args.input, "jsonl file; each line an object with the fields of POST /v1/completions");
  app.add_option("--output", args.output, "jsonl file for the answers; standard output if not given");
  app.add_option("--max-tokens", args.max_tokens, "most tokens to generate (16)");
  app.add_option("--temperature", args.temperature, "0: greedy");
  app.add_option("--params", args.params, "JSON object of more /v1/completions fields, for every prompt");
  app.add_flag("--verbose", args.verbose, "say what was chosen at start-up");
  add_engine_flags(app, args.engine, /*positional_model=*/false);
  app.footer(
      "Examples:\n"
      "  millrace generate --model /models/Qwen2.5-0.5B 'The mill by the river' --max-tokens 32\n"
      "  millrace generate --model /models/Qwen2.5-0.5B --input prompts.jsonl --output answers.jsonl --temperature 0\n"
      "  millrace generate --model /models/Qwen2.5-0.5B 'Once' --params '{\"n\": 3, \"top_p\": 0.9, \"seed\": 7}'");
  if (const int code = parse(app, arguments); code >= 0) return code;
  const Status status = run(args);
  return status.ok() ? 0 : fail(status);
}

}  // namespace millrace::cli
