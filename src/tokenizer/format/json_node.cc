#include "tokenizer/format/json_node.h"

#include "base/utf8.h"

namespace millrace {

Status JsonNode::wrong(std::string_view wanted) const {
  return invalid_argument("{}: found {}, wanted {}", path_.empty() ? "the file" : path_, json_excerpt(*value_), wanted);
}

std::optional<JsonNode> JsonNode::find(std::string_view key) const {
  if (!value_->is_object()) return std::nullopt;
  const auto it = value_->find(key);
  if (it == value_->end() || it->is_null()) return std::nullopt;
  return JsonNode(*it, path_.empty() ? std::string(key) : fmt::format("{}.{}", path_, key));
}

Result<JsonNode> JsonNode::at(std::string_view key) const {
  if (!value_->is_object()) return wrong("an object");
  std::optional<JsonNode> member = find(key);
  if (!member) return invalid_argument("{}: '{}' is missing", path_.empty() ? "the file" : path_, key);
  return *std::move(member);
}

Result<std::vector<JsonNode>> JsonNode::list() const {
  if (!value_->is_array()) return wrong("a list");
  std::vector<JsonNode> nodes;
  nodes.reserve(value_->size());
  for (size_t i = 0; i < value_->size(); ++i) nodes.emplace_back((*value_)[i], fmt::format("{}[{}]", path_, i));
  return nodes;
}

Result<std::string> JsonNode::string() const {
  if (!value_->is_string()) return wrong("a string");
  return value_->get<std::string>();
}

Result<bool> JsonNode::boolean() const {
  if (!value_->is_boolean()) return wrong("true or false");
  return value_->get<bool>();
}

Result<double> JsonNode::number() const {
  if (!value_->is_number()) return wrong("a number");
  return value_->get<double>();
}

Result<int64_t> JsonNode::integer(int64_t low, int64_t high) const {
  const bool fits = value_->is_number_unsigned() ? value_->get<uint64_t>() <= uint64_t{INT64_MAX} : true;
  if (!value_->is_number_integer() || !fits || value_->get<int64_t>() < low || value_->get<int64_t>() > high)
    return wrong(fmt::format("an integer from {} to {}", low, high));
  return value_->get<int64_t>();
}

Result<char32_t> JsonNode::character() const {
  MR_ASSIGN_OR_RETURN(const std::string text, string());
  if (utf8_length(text) != 1) return wrong("one character");
  return utf8_at(text, 0).code;
}

Result<std::string> JsonNode::string_or(std::string_view key, std::string_view otherwise) const {
  const std::optional<JsonNode> member = find(key);
  return member ? member->string() : Result<std::string>(std::string(otherwise));
}
Result<bool> JsonNode::boolean_or(std::string_view key, bool otherwise) const {
  const std::optional<JsonNode> member = find(key);
  return member ? member->boolean() : Result<bool>(otherwise);
}
Result<char32_t> JsonNode::character_or(std::string_view key, char32_t otherwise) const {
  const std::optional<JsonNode> member = find(key);
  return member ? member->character() : Result<char32_t>(otherwise);
}
Result<int64_t> JsonNode::integer_or(std::string_view key, int64_t otherwise, int64_t low, int64_t high) const {
  const std::optional<JsonNode> member = find(key);
  return member ? member->integer(low, high) : Result<int64_t>(otherwise);
}

}  // namespace millrace
