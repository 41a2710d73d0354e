// millrace chat
#include <fmt/format.h>
#include <unistd.h>

#include <iostream>
#include <nlohmann/json.hpp>

#include "cli/engine_flags.h"
#include "cli/local_text.h"
#include "server/tokenizer_codec.h"

namespace millrace::cli {
namespace {

struct ChatArgs {
  EngineArgs engine;
  std::string system, chat_template;
  double temperature = 0.7, top_p = 1.0;
  int64_t max_tokens = 1024;
};

class Conversation {
 public:
  Conversation(const ChatArgs& args, const LocalEngine& local, std::shared_ptr<const TokenizerCodec> codec)
      : args_(args), local_(local), codec_(std::move(codec)) {
    reset();
  }
  void reset() {
    messages_ = OrderedJson::array();
    if (!args_.system.empty()) messages_.push_back({{"role", "system"}, {"content", args_.system}});
  }
  // Prints the answer as it comes and remembers it. An error leaves the conversation as it was.
  Status say(const std::string& text) {
    OrderedJson messages = messages_;
    messages.push_back({{"role", "user"}, {"content", text}});
    MR_ASSIGN_OR_RETURN(GenerationRequest request, make_request(messages));
    const auto print = [](const std::string& piece) {
      fmt::print("{}", piece);
      std::fflush(stdout);
    };
    MR_ASSIGN_OR_RETURN(const LocalAnswer answer, ask_and_wait(*local_.engine, std::move(request), print));
    fmt::print("\n");
    messages.push_back({{"role", "assistant"}, {"content", answer.texts[0]}});
    messages_ = std::move(messages);
    return {};
  }

 private:
  Result<GenerationRequest> make_request(const OrderedJson& messages) const {
    MR_ASSIGN_OR_RETURN(const std::string prompt, codec_->render_chat({.messages = messages}));
    GenerationRequest request;
    MR_ASSIGN_OR_RETURN(request.prompt_token_ids, codec_->encode(prompt, /*add_special_tokens=*/false));
    request.params.temperature = args_.temperature;
    request.params.top_p = args_.top_p;
    const int64_t left = local_.engine->limits().max_model_len - static_cast<int64_t>(request.prompt_token_ids.size());
    if (left < 1)
      return invalid_argument("the conversation fills the {} tokens of the context; /reset starts a new one",
                              local_.engine->limits().max_model_len);
    request.params.max_tokens = std::min(args_.max_tokens, left);
    return request;
  }
  const ChatArgs& args_;
  const LocalEngine& local_;
  std::shared_ptr<const TokenizerCodec> codec_;
  OrderedJson messages_;
};

void talk(Conversation& conversation) {
  const bool terminal = ::isatty(STDIN_FILENO) == 1;
  if (terminal) fmt::print("Type a message. /reset forgets the conversation, /exit or Ctrl-D ends it.\n");
  const auto prompt = [terminal] {
    if (terminal) fmt::print("> ");
    std::fflush(stdout);
  };
  prompt();
  for (std::string line; std::getline(std::cin, line); prompt()) {
    if (line == "/exit") return;
    if (line == "/reset")
      conversation.reset();
    else if (!line.empty())
      if (const Status status = conversation.say(line); !status.ok())
        fmt::print(stderr, "millrace: {}\n", status.message());
  }
}

Status run(ChatArgs& args) {
  if (args.engine.skip_tokenizer_init) return invalid_argument("--skip-tokenizer-init: a chat needs the tokenizer");
  MR_RETURN_IF_ERROR(finish_engine_args(args.engine));
  MR_ASSIGN_OR_RETURN(const LocalEngine local, start_local_engine(args.engine));
  MR_ASSIGN_OR_RETURN(const std::shared_ptr<const TokenizerCodec> codec, make_codec(local, args.chat_template));
  if (!codec->has_chat_template())
    return failed_precondition(
        "{} has no chat template, and no chat format is known for the family {}; --chat-template gives it one, and "
        "'millrace generate' continues plain text",
        args.engine.model, local.model.family->name);
  Conversation conversation(args, local, codec);
  talk(conversation);
  return {};
}

}  // namespace

int chat(const Arguments& arguments) {
  ChatArgs args;
  App app("Talks to a model in the terminal, through its chat template.", "chat");
  add_engine_flags(app, args.engine, /*positional_model=*/true);
  app.add_option("--system", args.system, "system message");
  app.add_option("--chat-template", args.chat_template, "a file, or the template on one line");
  app.add_option("--temperature", args.temperature, "0: greedy")->check(CLI::NonNegativeNumber);
  app.add_option("--top-p", args.top_p, "share of the probability to sample from")->check(CLI::Range(0.0, 1.0));
  app.add_option("--max-tokens", args.max_tokens, "longest answer")->check(CLI::PositiveNumber);
  app.footer(
      "Examples:\n"
      "  millrace chat /models/Qwen2.5-0.5B-Instruct --system 'Answer in one sentence.'\n"
      "  echo 'What is a millrace?' | millrace chat /models/Qwen2.5-0.5B-Instruct --temperature 0");
  if (const int code = parse(app, arguments); code >= 0) return code;
  const Status status = run(args);
  return status.ok() ? 0 : fail(status);
}

}  // namespace millrace::cli
