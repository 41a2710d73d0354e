// Jinja's filters: {{ value | name(arguments) }}. A filter gets the value as `self`.
#pragma once
#include <span>
#include <string_view>
#include <vector>

#include "tokenizer/jinja/value.h"

namespace millrace::jinja {

// Null if there is none of this name.
const NativeEntry* find_filter(std::string_view name);
std::vector<std::string> filter_names();

// The parts of the table, each in the file of its name.
std::span<const NativeEntry> text_filters();
std::span<const NativeEntry> sequence_filters();
std::span<const NativeEntry> selection_filters();
std::span<const NativeEntry> value_filters();

}  // namespace millrace::jinja
