// Methods of Python's str, list, tuple, dict, int and float. Those that would change their object are known but
// refused.
#pragma once
#include <string_view>

#include "tokenizer/jinja/value.h"

namespace millrace::jinja {

// Null if values of this kind have no such method.
const NativeEntry* find_method(Kind kind, std::string_view name);
// Whether the method exists in Python and changes the list or dictionary it is called on.
bool changes_its_object(Kind kind, std::string_view name);

// str.replace: the first `count` occurrences (negative: all), found from the left.
Value replace_text(Runtime& runtime, const Text& text, std::string_view from, std::string_view to, int64_t count);

}  // namespace millrace::jinja
