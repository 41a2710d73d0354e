// The body of POST /v1/chat/completions, and the messages of /tokenize.
#pragma once
#include <string>

#include "server/generation_options.h"
#include "server/text_codec.h"

namespace millrace {

struct ChatRequest {
  GenerationOptions options;
  ChatPrompt prompt;
  bool continue_final_message = false;
  // The last message, for echo and continue_final_message.
  std::string last_role, last_content;
};

Result<ChatRequest> parse_chat_request(const Json& body, const ServerConfig& config, const EngineLimits& limits);

// Reads messages, add_generation_prompt, continue_final_message, chat_template, chat_template_kwargs, documents.
void read_chat_prompt(Fields& fields, const ServerConfig& config, ChatRequest& out);

// The template's output for `request`: with continue_final_message it ends where the last message's content does.
Result<std::string> render_chat(const ChatRequest& request, const TextCodec& codec);

}  // namespace millrace
