#include "tokenizer/jinja/arguments.h"

#include "tokenizer/jinja/operators.h"

namespace millrace::jinja {

void bind_arguments(std::string_view callee, const Arguments& arguments, const std::string_view* names, size_t count,
                    size_t required, const Value** slots) {
  if (arguments.positional.size() > count)
    fail("{}() takes at most {} arguments, not {}", callee, count, arguments.positional.size());
  for (size_t i = 0; i < arguments.positional.size(); ++i) slots[i] = &arguments.positional[i];
  for (const auto& [name, value] : arguments.named) {
    size_t i = 0;
    while (i < count && names[i] != name) ++i;
    if (i == count) fail("{}() has no argument '{}'", callee, name);
    if (slots[i]) fail("{}() got the argument '{}' twice", callee, name);
    slots[i] = &value;
  }
  for (size_t i = 0; i < required; ++i) {
    const std::string_view name = names[i].starts_with('*') ? names[i].substr(1) : names[i];
    if (!slots[i]) fail("{}() needs the argument '{}'", callee, name);
  }
}

void expect_no_arguments(std::string_view callee, const Arguments& arguments) {
  bind_arguments(callee, arguments, nullptr, 0, 0, nullptr);
}

int64_t int_argument(std::string_view name, const Value* value, int64_t otherwise) {
  return value ? to_index(*value, name) : otherwise;
}

bool bool_argument(const Value* value, bool otherwise) { return value ? truthy(*value) : otherwise; }

std::string_view text_argument(std::string_view name, const Value* value, std::string_view otherwise) {
  if (!value) return otherwise;
  if (value->is_undefined()) fail("{} must be a str; {}", name, undefined_message(*value));
  if (!value->is_string()) fail("{} must be a str, not '{}'", name, type_name(*value));
  return value->view();
}

}  // namespace millrace::jinja
