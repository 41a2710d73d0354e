// Chat formats that published models were trained on, as rows for Family::text. A format ends up in use only where a
// checkpoint ships no template. Templates are Jinja, print no token that `needs` does not name, and refuse roles and
// tools that the format has no form for.
#pragma once
#include "models/families/family.h"

namespace millrace {

// "<|im_start|>role\ncontent<|im_end|>\n". `default_system` is said where a conversation has no system message; empty:
// nothing is.
FamilyChatFormat chat_ml(const std::string& default_system = "");
FamilyChatFormat llama2_chat();
FamilyChatFormat llama3_chat();
// [INST] as text, as tokens, and as tokens without spaces.
std::vector<FamilyChatFormat> mistral_chats();
FamilyChatFormat deepseek_chat();     // DeepSeek-LLM and V2: "User: "
FamilyChatFormat deepseek_v3_chat();  // "<|User|>", in wide bars
FamilyChatFormat gemma_chat();
FamilyChatFormat chatglm2_chat();
FamilyChatFormat chatglm3_chat();
FamilyChatFormat glm4_chat();
FamilyChatFormat baichuan2_chat();
// With the marks' names, and with the pieces' in files that do not rename them.
std::vector<FamilyChatFormat> internlm2_chats();
FamilyChatFormat phi3_chat();

}  // namespace millrace
