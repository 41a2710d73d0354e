// Chat templates: the Jinja2 that tokenizer_config.json and chat_template.jinja hold, rendered as Hugging Face's
// apply_chat_template renders it (sandboxed and immutable, trim_blocks, lstrip_blocks, break and continue,
// {% generation %}, raise_exception, strftime_now, tojson without HTML escapes). docs/chat-templates.md has the
// details.
#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "base/json.h"
#include "base/result.h"
#include "tokenizer/jinja/limits.h"

namespace millrace {

namespace jinja {
struct Program;
}

struct RenderOptions {
  // For strftime_now: seconds since 1970, shown in UTC. Without it: the machine's clock and time zone.
  std::optional<int64_t> fixed_time;
};

// Immutable once parsed: any number of threads may render at once. Copies share the parsed template.
class ChatTemplate {
 public:
  // kInvalidArgument names the line and what is wrong; kResourceExhausted means a source beyond the limits.
  static Result<ChatTemplate> parse(const std::string& source, const TemplateLimits& limits = {});

  // `variables` is an object: messages, add_generation_prompt, tools, documents, bos_token, eos_token, ... What is left
  // out is undefined, null is none. Errors: kInvalidArgument "chat template, line N: ..." for what goes wrong in the
  // template, or exactly the text given to raise_exception; kResourceExhausted for a rendering beyond the limits.
  Result<std::string> render(const OrderedJson& variables, const RenderOptions& options = {}) const;

 private:
  explicit ChatTemplate(std::shared_ptr<const jinja::Program> program) : program_(std::move(program)) {}
  std::shared_ptr<const jinja::Program> program_;
};

}  // namespace millrace
