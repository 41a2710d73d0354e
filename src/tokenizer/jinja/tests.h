// Jinja's tests: {{ value is name(arguments) }}. A test gets the value as `self` and returns a bool.
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/jinja/value.h"

namespace millrace::jinja {

// Null if there is none of this name.
const NativeEntry* find_test(std::string_view name);
std::vector<std::string> test_names();

}  // namespace millrace::jinja
