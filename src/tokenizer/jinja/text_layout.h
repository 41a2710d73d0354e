// The longer text algorithms behind filters: wrapping, stripping tags, and Python's pprint.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/jinja/runtime.h"
#include "tokenizer/jinja/value.h"

namespace millrace::jinja {

struct WrapStyle {
  int64_t width = 79;  // above 0
  bool break_long_words = true;
  bool break_on_hyphens = true;
};
// One paragraph cut into lines of at most `width` characters, as Python's textwrap does with whitespace kept as it is.
std::vector<std::string> wrap_line(std::string_view paragraph, const WrapStyle& style);

// Without comments and tags, entities decoded, runs of space made one blank.
std::string strip_tags(std::string_view text);

// pprint.pformat(value): dictionaries sorted by key, at most 80 columns where possible.
std::string pretty_repr(Runtime& runtime, const Value& value);

}  // namespace millrace::jinja
