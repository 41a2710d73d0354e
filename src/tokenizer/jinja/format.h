// Values as text, as Python writes them: str(), repr(), JSON, and the two ways of filling in a format.
#pragma once
#include <string>
#include <string_view>

#include "tokenizer/jinja/runtime.h"
#include "tokenizer/jinja/value.h"

namespace millrace::jinja {

// The shortest digits that read back as `x`, as Python's repr(float): "1.0", "1e+16", "0.0001", "inf", "nan".
std::string float_repr(double x);
// Quoted, with escapes for what is not printable.
std::string text_repr(std::string_view text);

// str(value); undefined gives "". `depth` guards against namespaces that contain themselves.
void append_str(TextBuilder& out, const Value& value);
void append_repr(TextBuilder& out, const Value& value, int depth = 0);
std::string str(Runtime& runtime, const Value& value);
std::string repr(Runtime& runtime, const Value& value);
// The value itself if it is a string, else its str(): keeps text that is marked safe.
Value soft_str(Runtime& runtime, const Value& value);

struct JsonStyle {
  bool ensure_ascii = false;
  bool pretty = false;  // a line for each item, indented by `indent` times the depth
  std::string indent;
  std::string item_separator = ", ";
  std::string key_separator = ": ";
  bool sort_keys = false;
};
// json.dumps(value, ...); fails for what JSON has no form for.
std::string to_json(Runtime& runtime, const Value& value, const JsonStyle& style);

// format % values. A tuple gives the values in order, a dictionary by name, anything else is the only value.
Value percent_format(Runtime& runtime, const Text& format, const Value& values);
// str.format(format, ...), with the attribute rules of the sandbox.
Value brace_format(Runtime& runtime, const Text& format, const Arguments& arguments);

// A number with the given significant digits: letter is one of "eEfFgG%", as Python's format() writes it.
std::string format_float(double x, char letter, int precision, bool alternate);
// |x| in base 2, 8, 10 or 16 without a prefix.
std::string format_magnitude(int64_t x, int base, bool upper_case);

}  // namespace millrace::jinja
