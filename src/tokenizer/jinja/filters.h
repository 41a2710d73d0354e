// Jinja's filters: {{ value | name(arguments) }}. A filter gets the value as `self`.
#pragma once
#include <span>
#include <string_view>
#include <vector>

#include "tokenizer/jinja/value.h"

namespace millrace::jinja {

// An iterator whose walk ends in `failure`; running out of resources is thrown at once instead.
Value failed_iterator(Runtime& runtime, const Failure& failure, Values before = {});

// Null if there is none of this name.
const NativeEntry* find_filter(std::string_view name);
std::vector<std::string> filter_names();

// For filters that Python writes as generators: what goes wrong in make() shows only when the result is walked.
template <class Make>
Value deferred(Runtime& runtime, const Make& make) {
  try {
    return make();
  } catch (const Failure& failure) {
    return failed_iterator(runtime, failure);
  }
}

// The parts of the table, each in the file of its name.
std::span<const NativeEntry> text_filters();
std::span<const NativeEntry> sequence_filters();
std::span<const NativeEntry> selection_filters();
std::span<const NativeEntry> value_filters();

}  // namespace millrace::jinja
