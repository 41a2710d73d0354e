#include "tokenizer/jinja/template.h"

#include <nlohmann/json.hpp>

#include "tokenizer/jinja/evaluator.h"
#include "tokenizer/jinja/parser.h"

namespace millrace {

Result<ChatTemplate> ChatTemplate::parse(const std::string& source, const TemplateLimits& limits) {
  auto program = jinja::parse_template(source, limits);
  if (!program.ok()) return program.status();
  return ChatTemplate(std::shared_ptr<const jinja::Program>(std::move(program).value()));
}

Result<std::string> ChatTemplate::render(const OrderedJson& variables, const RenderOptions& options) const {
  if (!variables.is_object())
    return invalid_argument("the variables of a chat template must be an object, not {}", variables.type_name());
  jinja::Evaluator evaluator(*program_, options.fixed_time);
  try {
    return evaluator.run(variables);
  } catch (const jinja::Failure& failure) {
    if (failure.has_place) return failure.status;
    return failure.status.at(fmt::format("chat template, line {}", evaluator.line()));
  }
}

}  // namespace millrace
