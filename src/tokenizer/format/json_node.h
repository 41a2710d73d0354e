// A value inside a JSON file together with its place, so that errors name both. Borrows the JSON.
#pragma once
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/result.h"

namespace millrace {

class JsonNode {
 public:
  JsonNode(const Json& value, std::string path) : value_(&value), path_(std::move(path)) {}

  const Json& value() const { return *value_; }
  const std::string& path() const { return path_; }
  bool is_object() const { return value_->is_object(); }

  // "normalizer.patterns[2]: found null, wanted a string"
  Status wrong(std::string_view wanted) const;

  // The member `key`; nothing if this is no object, or lacks it, or it is null.
  std::optional<JsonNode> find(std::string_view key) const;
  Result<JsonNode> at(std::string_view key) const;
  Result<std::vector<JsonNode>> list() const;

  Result<std::string> string() const;
  Result<bool> boolean() const;
  Result<double> number() const;
  Result<int64_t> integer(int64_t low, int64_t high) const;
  // Exactly one character.
  Result<char32_t> character() const;

  // The member `key`, or `otherwise` where find() gives nothing.
  Result<std::string> string_or(std::string_view key, std::string_view otherwise) const;
  Result<bool> boolean_or(std::string_view key, bool otherwise) const;
  Result<char32_t> character_or(std::string_view key, char32_t otherwise) const;
  Result<int64_t> integer_or(std::string_view key, int64_t otherwise, int64_t low, int64_t high) const;

 private:
  const Json* value_;
  std::string path_;
};

}  // namespace millrace
