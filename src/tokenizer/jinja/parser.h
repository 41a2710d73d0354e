// Template source to a Program, by Jinja's grammar.
#pragma once
#include <memory>
#include <string_view>

#include "base/result.h"
#include "tokenizer/jinja/ast.h"

namespace millrace::jinja {

// Errors are kInvalidArgument and name the line, what stands there and what was wanted; a source beyond the limits is
// kResourceExhausted.
Result<std::unique_ptr<const Program>> parse_template(std::string_view source, const TemplateLimits& limits);

}  // namespace millrace::jinja
