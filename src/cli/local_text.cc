#include "cli/local_text.h"

#include <fmt/format.h>

#include <future>
#include <memory>

#include "base/file.h"
#include "base/log.h"

namespace millrace::cli {
namespace {

constexpr size_t kMaxTemplateBytes = size_t{1} << 20;

void add(LocalAnswer& answer, const RequestOutput& output) {
  answer.prompt_tokens = output.prompt_tokens;
  for (const SequenceOutput& news : output.sequences) {
    answer.texts[news.index] += news.text;
    std::vector<int32_t>& ids = answer.token_ids[news.index];
    ids.insert(ids.end(), news.token_ids.begin(), news.token_ids.end());
    if (news.finish_reason != FinishReason::kNone) answer.finish_reasons[news.index] = news.finish_reason;
  }
}

// The text of --chat-template; nothing if it is empty.
Result<std::optional<std::string>> read_chat_template(const std::string& argument) {
  if (argument.empty()) return std::optional<std::string>();
  if (file_exists(argument)) {
    MR_ASSIGN_OR_RETURN(std::string text, read_file(argument, kMaxTemplateBytes));
    return std::optional(std::move(text));
  }
  if (argument.find_first_of("{}\n") == std::string::npos)
    return not_found("--chat-template: {}: no such file, and not a template", argument);
  return std::optional(argument);
}

}  // namespace

Result<std::shared_ptr<const TokenizerCodec>> make_codec(const LocalEngine& local, const std::string& chat_template) {
  MR_ASSIGN_OR_RETURN(std::optional<std::string> source, read_chat_template(chat_template));
  if (!source && local.chat_format) {
    warn_once("chat format", fmt::format("the checkpoint has no chat template; chats take {} format, usual in the "
                                         "family {}. --chat-template replaces it",
                                         local.chat_format->name, local.model.family->name));
    source = local.chat_format->chat_template;
  }
  return TokenizerCodec::create(local.tokenizer, source);
}

Status ask(Engine& engine, GenerationRequest request, AnswerSink on_done, TextSink on_text) {
  auto answer = std::make_shared<LocalAnswer>();
  const auto n = static_cast<size_t>(request.params.n);
  answer->texts.resize(n), answer->token_ids.resize(n), answer->finish_reasons.resize(n, FinishReason::kNone);
  return engine
      .submit(std::move(request),
              [answer, on_done, on_text](RequestOutput&& output) {
                if (on_text)
                  for (const SequenceOutput& news : output.sequences)
                    if (news.index == 0 && !news.text.empty()) on_text(news.text);
                add(*answer, output);
                if (!output.finished) return;
                if (output.error.ok())
                  on_done(std::move(*answer));
                else
                  on_done(output.error);
              })
      .status();
}

Result<LocalAnswer> ask_and_wait(Engine& engine, GenerationRequest request, TextSink on_text) {
  auto done = std::make_shared<std::promise<Result<LocalAnswer>>>();
  MR_RETURN_IF_ERROR(ask(
      engine, std::move(request), [done](Result<LocalAnswer> answer) { done->set_value(std::move(answer)); },
      std::move(on_text)));
  return done->get_future().get();
}

const char* finish_reason_name(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kAbort:
      return "abort";
    case FinishReason::kNone:
      return "none";
  }
  return "none";
}

}  // namespace millrace::cli
