// What the server wants from a tokenizer and a chat template. Implementations are immutable: any thread may call.
#pragma once
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/result.h"

namespace millrace {

struct ChatPrompt {
  OrderedJson messages = OrderedJson::array();    // objects with role, content, ...
  OrderedJson variables = OrderedJson::object();  // more of the template's variables (chat_template_kwargs, documents)
  bool add_generation_prompt = true;
  std::optional<std::string> chat_template;  // instead of the model's own
};

class TextCodec {
 public:
  virtual ~TextCodec() = default;
  virtual Result<std::vector<int32_t>> encode(std::string_view text, bool add_special_tokens) const = 0;
  // Ids outside the vocabulary count for nothing.
  virtual std::string decode(std::span<const int32_t> ids, bool skip_special_tokens) const = 0;
  // What one token stands for inside a text; may be part of a character. Special tokens show their name.
  virtual std::string token_bytes(int32_t id) const = 0;
  virtual bool has_chat_template() const = 0;
  virtual Result<std::string> render_chat(const ChatPrompt& prompt) const = 0;
};

}  // namespace millrace
