// What a family's rows made of a config.json: per field, a value and the words that name it in messages. Any thread.
#pragma once
#include <map>
#include <string>

#include "base/json.h"
#include "base/result.h"
#include "models/families/family.h"

namespace millrace {

class ConfigFields {
 public:
  struct Entry {
    Json value;
    std::string name;     // "config.json: hidden_size"
    bool stated = false;  // the key is in the file
  };

  static Result<ConfigFields> read(const Json& config, const Family& family);

  // Null where no row knows the field or its value is null.
  const Entry* find(Field field) const;
  bool stated(Field field) const;
  std::string name(Field field) const;

  // A whole number from `least` to `most`; `null_value` where the field is null or no row knows it, unless that is
  // below `least`: then null is refused.
  Result<int64_t> size(Field field, int64_t most, int64_t null_value = 0, int64_t least = 1) const;
  // A finite number above `least`; `null_value` likewise.
  Result<double> number_above(Field field, double least) const;
  Result<double> number_above(Field field, double least, double null_value) const;
  Result<bool> flag(Field field, bool null_value) const;
  // One of `known`, as its position; `null_value` where the field is null or no row knows it.
  Result<size_t> choice(Field field, std::initializer_list<const char*> known, size_t null_value) const;

 private:
  Status add(const Json& config, const ConfigRow& row);
  std::map<Field, Entry> entries_;
};

}  // namespace millrace
