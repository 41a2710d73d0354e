#include "models/families/chat_formats.h"

#include <fmt/format.h>

namespace millrace {
namespace {

// Every template starts so.
constexpr const char* kNoTools =
    "{% if tools %}{{ raise_exception('this model has no known form for tools; --chat-template gives it one') }}"
    "{% endif %}";

// Ends a chain of {% if message['role'] == ... %}.
constexpr const char* kUnknownRole =
    "{% else %}{{ raise_exception('this chat format has no role ' + message['role'] | string + ' here') }}{% endif %}";

// What `each` prints of every message, then `last` where an answer is wanted. `each` is an unfinished chain of ifs.
std::string turns(const std::string& each, const std::string& last) {
  return "{% for message in messages %}{% set content = message['content'] or '' %}" + each + kUnknownRole +
         "{% endfor %}{% if add_generation_prompt %}{{ '" + last + "' }}{% endif %}";
}

// A chain with one form for all roles.
std::string same_for(const std::string& roles, const std::string& form) {
  return "{% if message['role'] in [" + roles + "] %}{{ " + form + " }}";
}

FamilyChatFormat marked(const std::string& name, const std::string& start, const std::string& end,
                        const std::string& first) {
  const std::string open = "'" + start + "' + ";
  return {.name = name,
          .needs = {start, end},
          .chat_template = kNoTools + first +
                           turns(same_for("'system', 'user', 'assistant'",
                                          open + "message['role'] + '\\n' + content + '" + end + "\\n'"),
                                 start + "assistant\\n"),
          .stop = {end}};
}

// Turns of user and assistant in order, a system message in front of the user's `system_with` ("first" or "last") text.
FamilyChatFormat instructions(const std::string& name, std::vector<std::string> needs, const std::string& user,
                              const std::string& assistant, bool system_with_last) {
  const std::string with = system_with_last ? "ns.users" : "1";
  return {
      .name = name,
      .needs = std::move(needs),
      .chat_template =
          std::string(kNoTools) +
          "{% set ns = namespace(system='', users=0, user=0, expected='user') %}"
          "{% for message in messages if message['role'] == 'user' %}{% set ns.users = loop.index %}{% endfor %}" +
          turns("{% if message['role'] == 'system' and loop.first %}{% set ns.system = content + '\\n\\n' %}"
                "{% elif message['role'] != ns.expected %}{{ raise_exception('this chat format wants a message of ' "
                "+ ns.expected + ' here, not of ' + message['role'] | string) }}"
                "{% elif message['role'] == 'user' %}{% set ns.user = ns.user + 1 %}"
                "{% set ns.expected = 'assistant' %}"
                "{% if ns.user == " +
                    with + " %}{% set content = ns.system + content %}{% endif %}{{ " + user +
                    " }}{% elif message['role'] == 'assistant' %}{% set ns.expected = 'user' %}{{ " + assistant + " }}",
                ""),
      .stop = {"</s>"}};
}

}  // namespace

FamilyChatFormat chat_ml(const std::string& default_system) {
  const std::string first = default_system.empty()
                                ? ""
                                : "{% if messages and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\\n" +
                                      default_system + "<|im_end|>\\n' }}{% endif %}";
  return marked("ChatML", "<|im_start|>", "<|im_end|>", first);
}

FamilyChatFormat llama2_chat() {
  return {
      .name = "Llama 2's",
      .needs = {"<s>", "</s>"},
      .chat_template =
          std::string(kNoTools) + "{% set ns = namespace(system='', expected='user') %}" +
          turns("{% if message['role'] == 'system' and loop.first %}"
                "{% set ns.system = '<<SYS>>\\n' + content + '\\n<</SYS>>\\n\\n' %}"
                "{% elif message['role'] != ns.expected %}{{ raise_exception('this chat format wants a message of ' "
                "+ ns.expected + ' here, not of ' + message['role'] | string) }}"
                "{% elif message['role'] == 'user' %}{% set ns.expected = 'assistant' %}"
                "{{ '<s>[INST] ' + (ns.system + content) | trim + ' [/INST]' }}{% set ns.system = '' %}"
                "{% elif message['role'] == 'assistant' %}{% set ns.expected = 'user' %}"
                "{{ ' ' + content | trim + ' </s>' }}",
                ""),
      .stop = {"</s>"}};
}

FamilyChatFormat llama3_chat() {
  return {.name = "Llama 3's",
          .needs = {"<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"},
          .chat_template = std::string(kNoTools) + "<|begin_of_text|>" +
                           turns(same_for("'system', 'user', 'assistant', 'ipython'",
                                          "'<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + "
                                          "content | trim + '<|eot_id|>'"),
                                 "<|start_header_id|>assistant<|end_header_id|>\\n\\n"),
          .stop = {"<|eot_id|>", "<|end_of_text|>"}};
}

std::vector<FamilyChatFormat> mistral_chats() {
  FamilyChatFormat tekken =
      instructions("Mistral's without spaces", {"<s>", "</s>", "[INST]", "[/INST]", "<SPECIAL_20>"},
                   "'[INST]' + content + '[/INST]'", "content + '</s>'", true);
  FamilyChatFormat tokens = instructions("Mistral's with tokens", {"<s>", "</s>", "[INST]", "[/INST]"},
                                         "'[INST] ' + content + '[/INST]'", "' ' + content + '</s>'", true);
  FamilyChatFormat text =
      instructions("Mistral's", {"<s>", "</s>"}, "'[INST] ' + content + ' [/INST]'", "' ' + content + '</s>'", false);
  for (FamilyChatFormat* format : {&tekken, &tokens, &text}) format->chat_template.insert(0, "<s>");
  return {tekken, tokens, text};
}

FamilyChatFormat deepseek_chat() {
  return {.name = "DeepSeek's",
          .needs = {"<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"},
          .chat_template =
              std::string(kNoTools) + "<｜begin▁of▁sentence｜>" +
              turns("{% if message['role'] == 'system' %}{{ content + '\\n\\n' }}"
                    "{% elif message['role'] == 'user' %}{{ 'User: ' + content + '\\n\\n' }}"
                    "{% elif message['role'] == 'assistant' %}{{ 'Assistant: ' + content + '<｜end▁of▁sentence｜>' }}",
                    "Assistant:"),
          .stop = {"<｜end▁of▁sentence｜>"}};
}

FamilyChatFormat deepseek_v3_chat() {
  return {.name = "DeepSeek-V3's",
          .needs = {"<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>"},
          .chat_template =
              std::string(kNoTools) + "<｜begin▁of▁sentence｜>" +
              "{{ messages | selectattr('role', 'equalto', 'system') | map(attribute='content') | join('\\n\\n') }}" +
              turns("{% if message['role'] == 'system' %}"
                    "{% elif message['role'] == 'user' %}{{ '<｜User｜>' + content }}"
                    "{% elif message['role'] == 'assistant' %}"
                    "{{ '<｜Assistant｜>' + content + '<｜end▁of▁sentence｜>' }}",
                    "<｜Assistant｜>"),
          .stop = {"<｜end▁of▁sentence｜>"}};
}

FamilyChatFormat gemma_chat() {
  return {
      .name = "Gemma's",
      .needs = {"<bos>", "<start_of_turn>", "<end_of_turn>"},
      .chat_template =
          std::string(kNoTools) + "<bos>{% set ns = namespace(expected='user') %}" +
          turns("{% if message['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
                "{% elif message['role'] != ns.expected %}{{ raise_exception('this chat format wants a message of ' "
                "+ ns.expected + ' here, not of ' + message['role'] | string) }}"
                "{% elif message['role'] == 'user' %}{% set ns.expected = 'assistant' %}"
                "{{ '<start_of_turn>user\\n' + content | trim + '<end_of_turn>\\n' }}"
                "{% elif message['role'] == 'assistant' %}{% set ns.expected = 'user' %}"
                "{{ '<start_of_turn>model\\n' + content | trim + '<end_of_turn>\\n' }}",
                "<start_of_turn>model\\n"),
      .stop = {"<end_of_turn>"}};
}

FamilyChatFormat chatglm2_chat() {
  return {.name = "ChatGLM2's",
          .needs = {"[gMASK]", "sop"},
          .chat_template = std::string(kNoTools) + "[gMASK]sop{% set ns = namespace(round=0) %}" +
                           turns("{% if message['role'] == 'system' %}{{ content + '\\n\\n' }}"
                                 "{% elif message['role'] == 'user' %}{% set ns.round = ns.round + 1 %}"
                                 "{{ '[Round ' + ns.round | string + ']\\n\\n问：' + content + '\\n\\n' }}"
                                 "{% elif message['role'] == 'assistant' %}{{ '答：' + content + '\\n\\n' }}",
                                 "答："),
          .stop = {"</s>"}};
}

FamilyChatFormat chatglm3_chat() {
  return {.name = "ChatGLM3's",
          .needs = {"[gMASK]", "sop", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"},
          .chat_template = std::string(kNoTools) + "[gMASK]sop" +
                           turns(same_for("'system', 'user', 'assistant', 'observation'",
                                          "'<|' + message['role'] + '|>\\n ' + content"),
                                 "<|assistant|>"),
          .stop = {"</s>", "<|user|>", "<|observation|>"}};
}

FamilyChatFormat glm4_chat() {
  return {.name = "GLM-4's",
          .needs = {"[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"},
          .chat_template = std::string(kNoTools) + "[gMASK]<sop>" +
                           turns(same_for("'system', 'user', 'assistant', 'observation'",
                                          "'<|' + message['role'] + '|>\\n' + content"),
                                 "<|assistant|>"),
          .stop = {"<|endoftext|>", "<|user|>", "<|observation|>"}};
}

FamilyChatFormat baichuan2_chat() {
  return {.name = "Baichuan 2's",
          .needs = {"<reserved_106>", "<reserved_107>"},
          .chat_template =
              std::string(kNoTools) + turns("{% if message['role'] == 'system' and loop.first %}{{ content }}"
                                            "{% elif message['role'] == 'user' %}{{ '<reserved_106>' + content }}"
                                            "{% elif message['role'] == 'assistant' %}{{ '<reserved_107>' + content }}",
                                            "<reserved_107>"),
          .stop = {"</s>"}};
}

std::vector<FamilyChatFormat> internlm2_chats() {
  std::vector<FamilyChatFormat> formats = {
      marked("ChatML", "<|im_start|>", "<|im_end|>", "<s>"),
      marked("ChatML", "[UNUSED_TOKEN_146]", "[UNUSED_TOKEN_145]", "<s>"),
  };
  for (FamilyChatFormat& format : formats) format.needs.push_back("<s>");
  return formats;
}

FamilyChatFormat phi3_chat() {
  return {.name = "Phi-3's",
          .needs = {"<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|endoftext|>"},
          .chat_template = std::string(kNoTools) +
                           turns(same_for("'system', 'user', 'assistant'",
                                          "'<|' + message['role'] + '|>\\n' + content + '<|end|>\\n'"),
                                 "<|assistant|>\\n") +
                           "{% if not add_generation_prompt %}<|endoftext|>{% endif %}",
          .stop = {"<|end|>", "<|endoftext|>"}};
}

}  // namespace millrace
