// Python's operators on values, and Jinja's way of finding attributes and elements.
#pragma once
#include <cstdint>
#include <optional>
#include <string_view>

#include "tokenizer/jinja/runtime.h"
#include "tokenizer/jinja/value.h"

namespace millrace::jinja {

bool truthy(const Value& value);

enum class BinaryOp : uint8_t { kAdd, kSubtract, kMultiply, kDivide, kFloorDivide, kModulo, kPower };
// Fails for unsuitable types, division by zero and results beyond 64 bits.
Value binary(Runtime& runtime, BinaryOp op, const Value& a, const Value& b);
Value negate(const Value& value);
Value plus(const Value& value);

enum class CompareOp : uint8_t { kEqual, kNotEqual, kLess, kLessEqual, kGreater, kGreaterEqual, kIn, kNotIn };
bool compare(Runtime& runtime, CompareOp op, const Value& a, const Value& b);
// a < b; fails for types that have no order.
bool less(Runtime& runtime, const Value& a, const Value& b);
bool contains(Runtime& runtime, const Value& container, const Value& item);

// len(value); fails for what has no length.
int64_t length(const Value& value);
// Whether the value can be walked at all.
bool iterable(const Value& value);
// All items, as a list: the list or tuple itself, else a new list of keys, characters, numbers, ... Uses up iterators.
Value items_of(Runtime& runtime, const Value& value);

// value.name: an attribute or method, else the element called so, else undefined. Fails if `value` is undefined.
Value get_attribute(Runtime& runtime, const Value& value, const Value& name);
// value[key]: the element, else the attribute called so, else undefined. Fails if `value` is undefined.
Value get_element(Runtime& runtime, const Value& value, const Value& key);
// An attribute or method only: nothing if there is none. One that would change the value gives an undefined that says
// so.
std::optional<Value> find_attribute(Runtime& runtime, const Value& value, std::string_view name);
// value[start:stop:step]; None stands for an absent bound.
Value slice(Runtime& runtime, const Value& value, const Value& start, const Value& stop, const Value& step);

// The value as an integer, where Python accepts one; `what` names it in the error.
int64_t to_index(const Value& value, std::string_view what);

}  // namespace millrace::jinja
