// One prompt through an engine in this process, for the commands that answer in the terminal.
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "engine/local/local_engine.h"
#include "server/tokenizer_codec.h"

namespace millrace::cli {

struct LocalAnswer {
  std::vector<std::string> texts;               // per sequence
  std::vector<std::vector<int32_t>> token_ids;  // per sequence
  std::vector<FinishReason> finish_reasons;     // per sequence
  int64_t prompt_tokens = 0;
};
// Called once, with the answer or what went wrong; on the engine's output thread.
using AnswerSink = std::function<void(Result<LocalAnswer>)>;
// Called with each new piece of the first sequence's text; on the engine's output thread.
using TextSink = std::function<void(const std::string&)>;

// Queues the request. `on_text` may be empty.
Status ask(Engine& engine, GenerationRequest request, AnswerSink on_done, TextSink on_text = {});
// Waits for the answer.
Result<LocalAnswer> ask_and_wait(Engine& engine, GenerationRequest request, TextSink on_text = {});

// Text and chats of a model that has its tokenizer. `chat_template` (--chat-template: a file, or Jinja text) goes
// before the checkpoint's own, that before the family's chat format, whose use is logged.
Result<std::shared_ptr<const TokenizerCodec>> make_codec(const LocalEngine& local, const std::string& chat_template);

const char* finish_reason_name(FinishReason reason);

}  // namespace millrace::cli
