// The `attribute` argument of filters: "address.city", "0.name", 2; several of them separated by commas for sort.
#pragma once
#include <optional>
#include <vector>

#include "tokenizer/jinja/runtime.h"
#include "tokenizer/jinja/value.h"

namespace millrace::jinja {

class AttributePath {
 public:
  // A null or None `attribute` gives the item itself. `otherwise`, unless null or None, stands for what is undefined.
  AttributePath(Runtime& runtime, const Value* attribute, const Value* otherwise = nullptr);
  Value get(const Value& item) const;

 private:
  Runtime& runtime_;
  Values parts_;
  std::optional<Value> otherwise_;
};

// Paths separated by commas.
std::vector<AttributePath> attribute_paths(Runtime& runtime, const Value* attribute);

// Text in lower case; other values as they are.
Value ignore_case(Runtime& runtime, const Value& value);

}  // namespace millrace::jinja
