#include "base/json.h"

#include <nlohmann/json.hpp>

#include "base/file.h"

// What cmake/pch.h says is made elsewhere.
template class nlohmann::basic_json<>;
template class nlohmann::basic_json<nlohmann::ordered_map>;

namespace millrace {
namespace {

// Deepest nesting of brackets outside strings. Needs no valid JSON; the parser judges that.
int nesting_depth(std::string_view text) {
  int depth = 0, deepest = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      in_string = c != '"';
    } else if (c == '"') {
      in_string = true;
    } else if (c == '{' || c == '[') {
      deepest = std::max(deepest, ++depth);
    } else if (c == '}' || c == ']') {
      --depth;
    }
  }
  return deepest;
}

template <class J>
Result<J> parse(std::string_view text, const JsonLimits& limits) {
  if (text.size() > limits.max_bytes)
    return invalid_argument("the JSON text has {} bytes; at most {} are allowed", text.size(), limits.max_bytes);
  if (const int depth = nesting_depth(text); depth > limits.max_depth)
    return invalid_argument("the JSON text nests {} levels deep; at most {} are allowed", depth, limits.max_depth);
  try {
    return J::parse(text.begin(), text.end());
  } catch (const nlohmann::json::exception& e) {
    std::string what = e.what();
    const size_t bracket = what.find("] ");
    return invalid_argument("not valid JSON: {}", bracket == std::string::npos ? what : what.substr(bracket + 2));
  }
}

template <class J>
Result<J> read(const std::string& path, const JsonLimits& limits) {
  MR_ASSIGN_OR_RETURN(const std::string text, read_file(path, limits.max_bytes));
  Result<J> json = parse<J>(text, limits);
  if (!json.ok()) return json.status().at(path);
  return json;
}

}  // namespace

Result<Json> parse_json(std::string_view text, const JsonLimits& limits) { return parse<Json>(text, limits); }
Result<OrderedJson> parse_ordered_json(std::string_view text, const JsonLimits& limits) {
  return parse<OrderedJson>(text, limits);
}
Result<Json> read_json_file(const std::string& path, const JsonLimits& limits) { return read<Json>(path, limits); }
Result<OrderedJson> read_ordered_json_file(const std::string& path, const JsonLimits& limits) {
  return read<OrderedJson>(path, limits);
}

const char* json_kind(const Json& value) {
  if (value.is_null()) return "null";
  if (value.is_boolean()) return "a boolean";
  if (value.is_string()) return "a string";
  if (value.is_number_integer()) return "an integer";
  if (value.is_number()) return "a number";
  if (value.is_array()) return "a list";
  return "an object";
}

std::string dump_json(const Json& value, int indent) {
  return value.dump(indent, ' ', false, Json::error_handler_t::replace);
}
std::string dump_json(const OrderedJson& value, int indent) {
  return value.dump(indent, ' ', false, OrderedJson::error_handler_t::replace);
}

std::string json_excerpt(const Json& value, size_t max_chars) {
  if (value.is_structured() && value.size() > 64)
    return fmt::format("{} of {} entries", json_kind(value), value.size());
  std::string text = dump_json(value);
  if (text.size() <= max_chars) return text;
  while (max_chars > 0 && (text[max_chars] & 0xc0) == 0x80) --max_chars;
  return text.substr(0, max_chars) + "...";
}

}  // namespace millrace
