#include "models/families/config_fields.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "models/families/families.h"

namespace millrace {

Result<ConfigFields> ConfigFields::read(const Json& config, const Family& family) {
  ConfigFields fields;
  for (const ConfigRow* row : config_rows(family)) MR_RETURN_IF_ERROR(fields.add(config, *row));
  for (const FixedRow* row : fixed_rows(family))
    fields.entries_[row->field] = {row->value, fmt::format("family {}", family.name), false};
  for (const auto& [field, entry] : fields.entries_)
    if (entry.value.is_discarded())
      return invalid_argument("{} is missing; the model cannot be built without it", entry.name);
  return fields;
}

const ConfigFields::Entry* ConfigFields::find(Field field) const {
  const auto it = entries_.find(field);
  return it == entries_.end() || it->second.value.is_null() ? nullptr : &it->second;
}

bool ConfigFields::stated(Field field) const {
  const Entry* entry = find(field);
  return entry && entry->stated;
}

std::string ConfigFields::name(Field field) const {
  return entries_.contains(field) ? entries_.at(field).name : "config.json";
}

Result<int64_t> ConfigFields::size(Field field, int64_t most, int64_t null_value, int64_t least) const {
  const Entry* entry = find(field);
  if (!entry && null_value >= least) return null_value;
  if (!entry) return invalid_argument("{} is null; it must be a whole number from {} to {}", name(field), least, most);
  const Json& value = entry->value;
  const bool whole = value.is_number() && std::floor(value.get<double>()) == value.get<double>();
  if (!whole || value.get<double>() < static_cast<double>(least) || value.get<double>() > static_cast<double>(most))
    return invalid_argument("{} is {}; it must be a whole number from {} to {}", entry->name, json_excerpt(value),
                            least, most);
  return static_cast<int64_t>(value.get<double>());
}

Result<double> ConfigFields::number_above(Field field, double least) const {
  const Entry* entry = find(field);
  if (!entry || !entry->value.is_number() || !(entry->value.get<double>() > least) ||
      !std::isfinite(entry->value.get<double>()))
    return invalid_argument("{} is {}; it must be a number above {}", name(field),
                            entry ? json_excerpt(entry->value) : "null", least);
  return entry->value.get<double>();
}

Result<double> ConfigFields::number_above(Field field, double least, double null_value) const {
  if (!find(field)) return null_value;
  return number_above(field, least);
}

Result<bool> ConfigFields::flag(Field field, bool null_value) const {
  const Entry* entry = find(field);
  if (!entry) return null_value;
  if (!entry->value.is_boolean())
    return invalid_argument("{} is {}; it must be true or false", entry->name, json_excerpt(entry->value));
  return entry->value.get<bool>();
}

Result<size_t> ConfigFields::choice(Field field, std::initializer_list<const char*> known, size_t null_value) const {
  const Entry* entry = find(field);
  if (!entry) return null_value;
  const auto it = std::ranges::find_if(known, [&](const char* name) { return entry->value == name; });
  if (it != known.end()) return static_cast<size_t>(it - known.begin());
  return unimplemented("{} is {}; it must be one of {}", entry->name, json_excerpt(entry->value),
                       fmt::join(known, ", "));
}

// A discarded value stands for "required, not seen yet".
Status ConfigFields::add(const Json& config, const ConfigRow& row) {
  const std::string name = "config.json: " + row.key;
  const auto it = config.find(row.key);
  const bool present = it != config.end() && !(row.null_is_absent && it->is_null());
  const auto known = entries_.find(row.field);
  if (known == entries_.end()) {
    Json value = present ? *it : row.fallback.value_or(Json(Json::value_t::discarded));
    entries_[row.field] = {std::move(value), name, present};
    return {};
  }
  if (!present || it->is_null()) return {};
  Entry& entry = known->second;
  if (entry.stated && !entry.value.is_null() && entry.value != *it)
    return invalid_argument("{} is {} but {} is {}; they must agree", entry.name, json_excerpt(entry.value), row.key,
                            json_excerpt(*it));
  entry = {*it, name, true};
  return {};
}

}  // namespace millrace
