#include "tokenizer/jinja/attribute_path.h"

#include "tokenizer/jinja/arguments.h"
#include "tokenizer/jinja/operators.h"
#include "tokenizer/jinja/text_ops.h"

namespace millrace::jinja {

AttributePath::AttributePath(Runtime& runtime, const Value* attribute, const Value* otherwise) : runtime_(runtime) {
  if (!absent(otherwise)) otherwise_ = *otherwise;
  if (absent(attribute)) return;
  if (!attribute->is_string()) {
    parts_.push_back(*attribute);
    return;
  }
  runtime.step_chars(attribute->view().size());
  for (const std::string_view part : split_at(attribute->view(), ".")) {
    bool overflow = false;
    const auto index = all_chars(part, CharTest::kDigit) ? parse_int(part, 10, &overflow) : std::nullopt;
    parts_.push_back(index && !overflow ? Value::integer(*index) : runtime.text(part));
  }
}

Value AttributePath::get(const Value& item) const {
  Value value = item;
  for (const Value& part : parts_) {
    runtime_.step();
    value = get_element(runtime_, value, part);
    if (otherwise_ && value.is_undefined()) value = *otherwise_;
  }
  return value;
}

std::vector<AttributePath> attribute_paths(Runtime& runtime, const Value* attribute) {
  std::vector<AttributePath> paths;
  if (absent(attribute) || !attribute->is_string()) {
    paths.emplace_back(runtime, attribute);
    return paths;
  }
  for (const std::string_view path : split_at(attribute->view(), ",")) {
    const Value one = runtime.text(path);
    paths.emplace_back(runtime, &one);
  }
  return paths;
}

Value ignore_case(Runtime& runtime, const Value& value) {
  return value.is_string() ? runtime.text(lower(value.view())) : value;
}

}  // namespace millrace::jinja
