// JSON: nlohmann's type, parsed under limits, with getters whose errors name the key, what was found and what was
// wanted.
#pragma once
#include <cstddef>
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "base/result.h"

namespace millrace {

using Json = nlohmann::json;                 // object keys sorted
using OrderedJson = nlohmann::ordered_json;  // object keys in file order

struct JsonLimits {
  size_t max_bytes = size_t{256} << 20;
  int max_depth = 128;
};
// The error says what was expected and at which line and column. Depth and size are checked before anything is built.
Result<Json> parse_json(std::string_view text, const JsonLimits& limits = {});
Result<OrderedJson> parse_ordered_json(std::string_view text, const JsonLimits& limits = {});
Result<Json> read_json_file(const std::string& path, const JsonLimits& limits = {});
Result<OrderedJson> read_ordered_json_file(const std::string& path, const JsonLimits& limits = {});

// "null", "a boolean", "a string", "an integer", "a number", "a list", "an object"
const char* json_kind(const Json& value);
// The value as compact text, cut to about `max_chars` for an error message.
std::string json_excerpt(const Json& value, size_t max_chars = 60);
// Invalid UTF-8 inside strings becomes U+FFFD instead of an exception.
std::string dump_json(const Json& value, int indent = -1);
std::string dump_json(const OrderedJson& value, int indent = -1);

}  // namespace millrace
