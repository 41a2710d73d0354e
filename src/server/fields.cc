#include "server/fields.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/text.h"

namespace millrace {

Status wrong_value(std::string_view name, const Json& found, std::string_view wanted) {
  const bool scalar = found.is_primitive() && !found.is_null();
  if (scalar)
    return invalid_argument("{} is {} ({}); it must be {}", name, json_excerpt(found), json_kind(found), wanted);
  return invalid_argument("{} is {}; it must be {}", name, json_kind(found), wanted);
}

std::optional<int64_t> json_integer(const Json& value) {
  if (value.is_number_unsigned()) {
    const auto number = value.get<uint64_t>();
    if (number > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) return std::nullopt;
    return static_cast<int64_t>(number);
  }
  if (value.is_number_integer()) return value.get<int64_t>();
  if (!value.is_number_float()) return std::nullopt;
  const double number = value.get<double>();
  if (std::trunc(number) != number || std::abs(number) > 0x1p53) return std::nullopt;
  return static_cast<int64_t>(number);
}

Fields::Fields(const Json& object, std::string where) : object_(object), where_(std::move(where)) {
  if (!object_.is_object())
    fail(invalid_argument("{} is {}; it must be an object", where_.empty() ? "the request body" : where_,
                          json_kind(object_)));
}

std::string Fields::full_name(std::string_view name) const {
  return where_.empty() ? std::string(name) : where_ + "." + std::string(name);
}

const Json* Fields::find(const char* name) {
  if (std::find(known_.begin(), known_.end(), name) == known_.end()) known_.emplace_back(name);
  if (!object_.is_object()) return nullptr;
  const auto found = object_.find(name);
  return found == object_.end() || found->is_null() ? nullptr : &*found;
}

bool Fields::is_null(const char* name) {
  find(name);
  if (!object_.is_object()) return false;
  const auto found = object_.find(name);
  return found != object_.end() && found->is_null();
}

void Fields::fail(Status status) {
  if (status_.ok()) status_ = std::move(status);
}

void Fields::wrong_kind(const char* name, const Json& found, std::string_view wanted) {
  fail(wrong_value(full_name(name), found, wanted));
}

void Fields::read(const char* name, bool& out) {
  const Json* found = find(name);
  if (!found) return;
  if (!found->is_boolean()) return wrong_kind(name, *found, "true or false");
  out = found->get<bool>();
}

void Fields::read(const char* name, int64_t& out) {
  const Json* found = find(name);
  if (!found) return;
  const auto number = json_integer(*found);
  if (!number) return wrong_kind(name, *found, "an integer of 64 bits");
  out = *number;
}

void Fields::read(const char* name, int& out) {
  const Json* found = find(name);
  if (!found) return;
  const auto number = json_integer(*found);
  if (!number || *number != static_cast<int>(*number)) return wrong_kind(name, *found, "an integer of 32 bits");
  out = static_cast<int>(*number);
}

void Fields::read(const char* name, double& out) {
  const Json* found = find(name);
  if (!found) return;
  if (!found->is_number()) return wrong_kind(name, *found, "a number");
  out = found->get<double>();
}

void Fields::read(const char* name, std::string& out) {
  const Json* found = find(name);
  if (!found) return;
  if (!found->is_string()) return wrong_kind(name, *found, "a string");
  out = found->get<std::string>();
}

void Fields::read_strings(const char* name, std::vector<std::string>& out, size_t max_count) {
  const Json* found = find(name);
  if (!found) return;
  if (found->is_string()) {
    out = {found->get<std::string>()};
    return;
  }
  if (!found->is_array()) return wrong_kind(name, *found, "a string or a list of strings");
  if (found->size() > max_count)
    return fail(
        invalid_argument("{} has {} entries; at most {} are allowed", full_name(name), found->size(), max_count));
  std::vector<std::string> all;
  for (size_t i = 0; i < found->size(); ++i) {
    const Json& entry = (*found)[i];
    if (!entry.is_string()) return fail(wrong_value(fmt::format("{}[{}]", full_name(name), i), entry, "a string"));
    all.push_back(entry.get<std::string>());
  }
  out = std::move(all);
}

void Fields::read_ids(const char* name, std::vector<int32_t>& out, size_t max_count) {
  const Json* found = find(name);
  if (!found) return;
  if (!found->is_array()) return wrong_kind(name, *found, "a list of token ids");
  if (found->size() > max_count)
    return fail(
        invalid_argument("{} has {} entries; at most {} are allowed", full_name(name), found->size(), max_count));
  std::vector<int32_t> all;
  all.reserve(found->size());
  for (size_t i = 0; i < found->size(); ++i) {
    const auto id = json_integer((*found)[i]);
    if (!id || *id < 0 || *id > std::numeric_limits<int32_t>::max())
      return fail(wrong_value(fmt::format("{}[{}]", full_name(name), i), (*found)[i], "a token id"));
    all.push_back(static_cast<int32_t>(*id));
  }
  out = std::move(all);
}

void Fields::unsupported(const char* name, std::string_view instead, std::initializer_list<const char*> neutral) {
  const Json* found = find(name);
  if (!found) return;
  for (const char* text : neutral)
    if (*found == Json::parse(text)) return;
  fail(invalid_argument("{} is not supported here{}{}", full_name(name), instead.empty() ? "" : "; ", instead));
}

Status Fields::finish() {
  if (!status_.ok()) return status_;
  constexpr size_t kMaxShown = 64;
  for (const auto& [name, value] : object_.items()) {
    if (std::find(known_.begin(), known_.end(), name) != known_.end()) continue;
    if (name.size() > kMaxShown)
      return invalid_argument("unknown field '{}...' of {} bytes", full_name(name.substr(0, kMaxShown)), name.size());
    return invalid_argument("unknown field '{}'{}", full_name(name), did_you_mean(name, known_));
  }
  return {};
}

}  // namespace millrace
