// How built-in functions read their arguments.
#pragma once
#include <array>
#include <cstdint>
#include <string_view>

#include "tokenizer/jinja/value.h"

namespace millrace::jinja {

// Puts every argument under its name, null where it was not given. Names that start with '*' cannot be used as
// keywords. Fails for too many, unknown, repeated, or (among the first `required`) missing arguments.
void bind_arguments(std::string_view callee, const Arguments& arguments, const std::string_view* names, size_t count,
                    size_t required, const Value** slots);

template <size_t N>
std::array<const Value*, N> bind(std::string_view callee, const Arguments& arguments,
                                 const std::array<std::string_view, N>& names, size_t required = 0) {
  std::array<const Value*, N> slots{};
  bind_arguments(callee, arguments, names.data(), N, required, slots.data());
  return slots;
}
// For what takes no argument at all.
void expect_no_arguments(std::string_view callee, const Arguments& arguments);

// Each reads an argument that may be absent (null), and fails with its name if the type is wrong.
int64_t int_argument(std::string_view name, const Value* value, int64_t otherwise);
bool bool_argument(const Value* value, bool otherwise);
std::string_view text_argument(std::string_view name, const Value* value, std::string_view otherwise);
inline bool absent(const Value* value) { return !value || value->is_none(); }

}  // namespace millrace::jinja
