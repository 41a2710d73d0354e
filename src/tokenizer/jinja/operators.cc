#include "tokenizer/jinja/operators.h"

#include <algorithm>
#include <cmath>

#include "base/utf8.h"
#include "tokenizer/jinja/format.h"
#include "tokenizer/jinja/methods.h"
#include "tokenizer/jinja/text_ops.h"

namespace millrace::jinja {
namespace {

std::string_view symbol(BinaryOp op) {
  constexpr std::string_view kSymbols[] = {"+", "-", "*", "/", "//", "%", "**"};
  return kSymbols[static_cast<size_t>(op)];
}

[[noreturn]] void fail_operands(std::string_view symbol, const Value& a, const Value& b) {
  if (a.is_undefined()) fail_undefined(a);
  if (b.is_undefined()) fail_undefined(b);
  fail("'{}' cannot be used between '{}' and '{}'", symbol, type_name(a), type_name(b));
}

// By reference: the caller computes `result` in the expression that gives `overflow`.
int64_t checked(bool overflow, const int64_t& result) {
  if (overflow) fail("the result of an integer operation does not fit 64 bits");
  return result;
}

int64_t power(int64_t base, int64_t exponent) {
  int64_t result = 1;
  while (exponent > 0) {
    if (exponent & 1) checked(__builtin_mul_overflow(result, base, &result), result);
    exponent >>= 1;
    if (exponent > 0) checked(__builtin_mul_overflow(base, base, &base), base);
  }
  return result;
}

int64_t floor_divide(int64_t a, int64_t b) {
  if (b == -1) return checked(a == INT64_MIN, -static_cast<int64_t>(static_cast<uint64_t>(a)));
  const int64_t quotient = a / b;
  return a % b != 0 && (a < 0) != (b < 0) ? quotient - 1 : quotient;
}

int64_t floor_modulo(int64_t a, int64_t b) {
  if (b == -1) return 0;
  const int64_t rest = a % b;
  return rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest;
}

double floor_modulo(double a, double b) {
  const double rest = std::fmod(a, b);
  if (rest != 0 && (rest < 0) != (b < 0)) return rest + b;
  return rest == 0 ? std::copysign(0.0, b) : rest;
}

Value int_power(int64_t a, int64_t b) {
  if (b >= 0) {
    if (a == 0 || a == 1) return Value::integer(b == 0 ? 1 : a);
    if (a == -1) return Value::integer(b % 2 ? -1 : 1);
    return Value::integer(power(a, b));
  }
  if (a == 0) fail("0 cannot be raised to a negative power");
  return Value::real(std::pow(static_cast<double>(a), static_cast<double>(b)));
}

Value int_binary(BinaryOp op, int64_t a, int64_t b) {
  const bool divides = op == BinaryOp::kDivide || op == BinaryOp::kFloorDivide || op == BinaryOp::kModulo;
  if (divides && b == 0) fail("division by zero");
  int64_t result = 0;
  switch (op) {
    case BinaryOp::kAdd:
      return Value::integer(checked(__builtin_add_overflow(a, b, &result), result));
    case BinaryOp::kSubtract:
      return Value::integer(checked(__builtin_sub_overflow(a, b, &result), result));
    case BinaryOp::kMultiply:
      return Value::integer(checked(__builtin_mul_overflow(a, b, &result), result));
    case BinaryOp::kDivide:
      return Value::real(static_cast<double>(a) / static_cast<double>(b));
    case BinaryOp::kFloorDivide:
      return Value::integer(floor_divide(a, b));
    case BinaryOp::kModulo:
      return Value::integer(floor_modulo(a, b));
    case BinaryOp::kPower:
      return int_power(a, b);
  }
  return {};
}

Value float_power(double a, double b) {
  if (a == 0 && b < 0) fail("0.0 cannot be raised to a negative power");
  const double result = std::pow(a, b);
  if (std::isnan(result) && !std::isnan(a) && !std::isnan(b)) fail("a negative number has no real power {}", b);
  if (std::isinf(result) && !std::isinf(a) && !std::isinf(b)) fail("the result of '**' is too large");
  return Value::real(result);
}

Value float_binary(BinaryOp op, double a, double b) {
  const bool divides = op == BinaryOp::kDivide || op == BinaryOp::kFloorDivide || op == BinaryOp::kModulo;
  if (divides && b == 0) fail("float division by zero");
  switch (op) {
    case BinaryOp::kAdd:
      return Value::real(a + b);
    case BinaryOp::kSubtract:
      return Value::real(a - b);
    case BinaryOp::kMultiply:
      return Value::real(a * b);
    case BinaryOp::kDivide:
      return Value::real(a / b);
    case BinaryOp::kFloorDivide:
      return Value::real(std::floor((a - floor_modulo(a, b)) / b + 0.5));
    case BinaryOp::kModulo:
      return Value::real(floor_modulo(a, b));
    case BinaryOp::kPower:
      return float_power(a, b);
  }
  return {};
}

Value join_texts(Runtime& runtime, const Text& a, const Text& b) {
  runtime.check_room(a.content.size() + b.content.size());
  if (!a.markup && !b.markup) return runtime.text(a.content + b.content);
  return runtime.text((a.markup ? a.content : escape_html(a.content)) + (b.markup ? b.content : escape_html(b.content)),
                      true);
}

Value join_lists(Runtime& runtime, const Value& a, const Value& b) {
  const Values &left = a.list().items, &right = b.list().items;
  runtime.check_room(left.size() + right.size(), sizeof(Value));
  Values items;
  items.reserve(left.size() + right.size());
  items.insert(items.end(), left.begin(), left.end());
  items.insert(items.end(), right.begin(), right.end());
  return a.is(Kind::kList) ? runtime.list(std::move(items)) : runtime.tuple(std::move(items));
}

Value repeat(Runtime& runtime, const Value& what, int64_t times) {
  const auto count = static_cast<size_t>(std::max<int64_t>(times, 0));
  if (what.is_string()) {
    const Text& text = what.text();
    runtime.check_room(count, text.content.size());
    if (text.content.size() == 1) return runtime.text(std::string(count, text.content[0]), text.markup);
    std::string out;
    out.reserve(count * text.content.size());
    for (size_t i = 0; i < count && !text.content.empty(); ++i) out += text.content;
    return runtime.text(std::move(out), text.markup);
  }
  const Values& items = what.list().items;
  runtime.check_room(count, items.size() * sizeof(Value));
  runtime.step(count * items.size());
  Values out;
  out.reserve(count * items.size());
  for (size_t i = 0; i < count && !items.empty(); ++i) out.insert(out.end(), items.begin(), items.end());
  return what.is(Kind::kList) ? runtime.list(std::move(out)) : runtime.tuple(std::move(out));
}

bool ordered(CompareOp op, auto a, auto b) {
  switch (op) {
    case CompareOp::kLess:
      return a < b;
    case CompareOp::kLessEqual:
      return a <= b;
    case CompareOp::kGreater:
      return a > b;
    default:
      return a >= b;
  }
}

bool compare_order(Runtime& runtime, CompareOp op, const Value& a, const Value& b);

bool compare_lists(Runtime& runtime, CompareOp op, const Values& a, const Values& b) {
  runtime.step(std::min(a.size(), b.size()));
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i)
    if (!equal(runtime, a[i], b[i])) return compare_order(runtime, op, a[i], b[i]);
  return ordered(op, a.size(), b.size());
}

bool compare_order(Runtime& runtime, CompareOp op, const Value& a, const Value& b) {
  if (a.is_integral() && b.is_integral()) return ordered(op, a.as_int(), b.as_int());
  if (a.is_number() && b.is_number()) return ordered(op, a.as_double(), b.as_double());
  if (a.is_string() && b.is_string()) {
    runtime.step_text(std::min(a.view().size(), b.view().size()));
    return ordered(op, a.view(), b.view());
  }
  if (a.is_sequence() && a.kind() == b.kind()) return compare_lists(runtime, op, a.list().items, b.list().items);
  constexpr std::string_view kSymbols[] = {"==", "!=", "<", "<=", ">", ">="};
  fail_operands(kSymbols[static_cast<size_t>(op)], a, b);
}

bool range_contains(const Range& range, const Value& item) {
  if (!item.is_number()) return false;
  const double x = item.as_double();
  if (x != std::floor(x) || std::abs(x) > 0x1p63 || range.count == 0) return false;
  const auto offset = static_cast<__int128>(x) - range.start;
  return offset % range.step == 0 && offset / range.step >= 0 && offset / range.step < range.count;
}

bool walk_contains(Runtime& runtime, Iterator& iterator, const Value& item) {
  while (iterator.next < iterator.items.size())
    if (equal(runtime, iterator.items[iterator.next++], item)) return true;
  if (iterator.failure) throw *iterator.failure;
  return false;
}

bool view_contains(Runtime& runtime, const View& view, const Value& item) {
  if (view.part == View::Part::kKeys) return view.dict.dict().find(item) != nullptr;
  const Value all = items_of(runtime, Value::object(Kind::kView, &view));
  return std::any_of(all.list().items.begin(), all.list().items.end(),
                     [&](const Value& x) { return equal(runtime, x, item); });
}

Value range_items(Runtime& runtime, const Range& range) {
  runtime.check_room(static_cast<size_t>(range.count), sizeof(Value));
  Values items;
  items.reserve(static_cast<size_t>(range.count));
  for (int64_t i = 0; i < range.count; ++i) items.push_back(Value::integer(range.at(i)));
  return runtime.list(std::move(items));
}

Value view_items(Runtime& runtime, const View& view) {
  const auto& entries = view.dict.dict().entries;
  Values items;
  items.reserve(entries.size());
  for (const auto& [key, value] : entries) {
    if (view.part == View::Part::kItems) {
      items.push_back(runtime.tuple({key, value}));
    } else {
      items.push_back(view.part == View::Part::kKeys ? key : value);
    }
  }
  return runtime.list(std::move(items));
}

Value text_items(Runtime& runtime, const Text& text) {
  runtime.check_room(text.chars, sizeof(Value) + sizeof(Text));
  runtime.step(text.chars);
  Values items;
  items.reserve(text.chars);
  for (const std::string_view c : split_chars(text.content)) items.push_back(runtime.text(std::string(c), text.markup));
  return runtime.list(std::move(items));
}

Value iterator_items(Runtime& runtime, Iterator& iterator) {
  Values rest(iterator.items.begin() + static_cast<std::ptrdiff_t>(iterator.next), iterator.items.end());
  iterator.next = iterator.items.size();
  if (iterator.failure) throw *iterator.failure;
  return runtime.list(std::move(rest));
}

// The position that Python's `key` means in a sequence of `size`; nothing if it lies outside.
std::optional<size_t> position(const Value& key, int64_t size) {
  if (!key.is_integral()) return std::nullopt;
  const int64_t at = key.as_int() < 0 ? key.as_int() + size : key.as_int();
  if (at < 0 || at >= size) return std::nullopt;
  return static_cast<size_t>(at);
}

Value char_at(Runtime& runtime, const Text& text, size_t index) {
  const size_t at = text.ascii() ? index : byte_offset(text.content, index);
  if (!text.ascii()) runtime.step_chars(at);
  return runtime.text(text.content.substr(at, static_cast<size_t>(utf8_at(text.content, at).bytes)), text.markup);
}

std::optional<Value> find_element(Runtime& runtime, const Value& value, const Value& key) {
  switch (value.kind()) {
    case Kind::kDict: {
      if (key.is(Kind::kList) || key.is(Kind::kDict)) return std::nullopt;
      const Value* found = value.dict().find(key);
      return found ? std::optional(*found) : std::nullopt;
    }
    case Kind::kList:
    case Kind::kTuple: {
      const auto at = position(key, static_cast<int64_t>(value.list().items.size()));
      return at ? std::optional(value.list().items[*at]) : std::nullopt;
    }
    case Kind::kString: {
      const auto at = position(key, static_cast<int64_t>(value.text().chars));
      return at ? std::optional(char_at(runtime, value.text(), *at)) : std::nullopt;
    }
    case Kind::kRange: {
      const auto at = position(key, value.range().count);
      return at ? std::optional(Value::integer(value.range().at(static_cast<int64_t>(*at)))) : std::nullopt;
    }
    default:
      return std::nullopt;
  }
}

Value missing(Runtime& runtime, const Value& owner, const Value& key) {
  if (key.is_string()) return Value::undefined(Absence::kAttribute, &key.text(), owner.kind());
  const Value shown = runtime.text(repr(runtime, key));
  return Value::undefined(Absence::kElement, &shown.text(), owner.kind());
}

struct Span {
  int64_t start, step, count;
};

// Python's slice.indices() for a sequence of `size`.
Span slice_span(const Value& start, const Value& stop, const Value& step, int64_t size) {
  const int64_t stride = step.is_none() ? 1 : to_index(step, "the step of a slice");
  if (stride == 0) fail("the step of a slice cannot be zero");
  const int64_t low = stride > 0 ? 0 : -1, high = stride > 0 ? size : size - 1;
  const auto clamp = [&](const Value& bound, int64_t absent) {
    if (bound.is_none()) return absent;
    const int64_t at = to_index(bound, "a bound of a slice");
    return std::clamp(at < 0 ? at + size : at, low, high);
  };
  const int64_t first = clamp(start, stride > 0 ? low : high), end = clamp(stop, stride > 0 ? high : low);
  const int64_t distance = stride > 0 ? end - first : first - end;
  if (distance <= 0) return {first, stride, 0};
  const uint64_t stride_size = stride > 0 ? static_cast<uint64_t>(stride) : 0 - static_cast<uint64_t>(stride);
  return {first, stride, static_cast<int64_t>((static_cast<uint64_t>(distance) - 1) / stride_size + 1)};
}

Value slice_text(Runtime& runtime, const Text& text, const Span& span) {
  if (!text.ascii() || span.step != 1) runtime.step_chars(text.content.size());
  if (span.step == 1) {
    const size_t from =
        text.ascii() ? static_cast<size_t>(span.start) : byte_offset(text.content, static_cast<size_t>(span.start));
    const std::string_view rest = std::string_view(text.content).substr(from);
    const auto count = static_cast<size_t>(span.count);
    return runtime.text(std::string(rest.substr(0, text.ascii() ? count : byte_offset(rest, count))), text.markup);
  }
  runtime.check_room(text.chars, sizeof(std::string_view));
  const auto chars = split_chars(text.content);
  std::string out;
  for (int64_t i = 0; i < span.count; ++i) out += chars[static_cast<size_t>(span.start + i * span.step)];
  return runtime.text(std::move(out), text.markup);
}

Value slice_range(Runtime& runtime, const Range& range, const Span& span) {
  int64_t offset = 0, distance = 0, stop = 0, step = 0;
  const bool overflow =
      __builtin_mul_overflow(span.count, span.step, &distance) ||
      __builtin_add_overflow(span.start, distance, &offset) || __builtin_mul_overflow(offset, range.step, &offset) ||
      __builtin_add_overflow(range.start, offset, &stop) || __builtin_mul_overflow(range.step, span.step, &step);
  checked(overflow, 0);
  return runtime.range(range.at(span.start), stop, step);
}

Value slice_list(Runtime& runtime, const Value& value, const Span& span) {
  runtime.check_room(static_cast<size_t>(span.count), sizeof(Value));
  Values items;
  items.reserve(static_cast<size_t>(span.count));
  for (int64_t i = 0; i < span.count; ++i)
    items.push_back(value.list().items[static_cast<size_t>(span.start + i * span.step)]);
  return value.is(Kind::kList) ? runtime.list(std::move(items)) : runtime.tuple(std::move(items));
}

}  // namespace

bool truthy(const Value& value) {
  switch (value.kind()) {
    case Kind::kUndefined:
    case Kind::kNone:
      return false;
    case Kind::kBool:
    case Kind::kInt:
      return value.as_int() != 0;
    case Kind::kFloat:
      return value.as_double() != 0;
    case Kind::kString:
      return !value.view().empty();
    case Kind::kList:
    case Kind::kTuple:
      return !value.list().items.empty();
    case Kind::kDict:
      return value.dict().size() > 0;
    case Kind::kRange:
      return value.range().count > 0;
    case Kind::kView:
      return value.dict_view().dict.dict().size() > 0;
    default:
      return true;
  }
}

Value binary(Runtime& runtime, BinaryOp op, const Value& a, const Value& b) {
  if (a.is_integral() && b.is_integral()) return int_binary(op, a.as_int(), b.as_int());
  if (a.is_number() && b.is_number()) return float_binary(op, a.as_double(), b.as_double());
  const bool repeats = op == BinaryOp::kMultiply;
  if (op == BinaryOp::kAdd && a.is_string() && b.is_string()) return join_texts(runtime, a.text(), b.text());
  if (op == BinaryOp::kAdd && a.is_sequence() && a.kind() == b.kind()) return join_lists(runtime, a, b);
  if (repeats && (a.is_string() || a.is_sequence()) && b.is_integral()) return repeat(runtime, a, b.as_int());
  if (repeats && (b.is_string() || b.is_sequence()) && a.is_integral()) return repeat(runtime, b, a.as_int());
  if (op == BinaryOp::kModulo && a.is_string()) return percent_format(runtime, a.text(), b);
  fail_operands(symbol(op), a, b);
}

Value negate(const Value& value) {
  if (value.is(Kind::kFloat)) return Value::real(-value.as_double());
  if (value.is_integral()) return int_binary(BinaryOp::kSubtract, 0, value.as_int());
  if (value.is_undefined()) fail_undefined(value);
  fail("'-' cannot be used on '{}'", type_name(value));
}

Value plus(const Value& value) {
  if (value.is(Kind::kFloat)) return value;
  if (value.is_integral()) return Value::integer(value.as_int());
  if (value.is_undefined()) fail_undefined(value);
  fail("'+' cannot be used on '{}'", type_name(value));
}

bool compare(Runtime& runtime, CompareOp op, const Value& a, const Value& b) {
  switch (op) {
    case CompareOp::kEqual:
      return equal(runtime, a, b);
    case CompareOp::kNotEqual:
      return !equal(runtime, a, b);
    case CompareOp::kIn:
      return contains(runtime, b, a);
    case CompareOp::kNotIn:
      return !contains(runtime, b, a);
    default:
      return compare_order(runtime, op, a, b);
  }
}

bool less(Runtime& runtime, const Value& a, const Value& b) {
  runtime.step();
  return compare_order(runtime, CompareOp::kLess, a, b);
}

bool contains(Runtime& runtime, const Value& container, const Value& item) {
  switch (container.kind()) {
    case Kind::kUndefined:
      return false;
    case Kind::kString:
      if (!item.is_string()) fail("'in' on a str needs a str to look for, not '{}'", type_name(item));
      runtime.step_text(container.view().size());
      return find_text(container.view(), item.view()) != std::string_view::npos;
    case Kind::kList:
    case Kind::kTuple: {
      const Values& items = container.list().items;
      runtime.step(items.size() / 4);
      return std::any_of(items.begin(), items.end(), [&](const Value& x) { return equal(runtime, x, item); });
    }
    case Kind::kDict:
      return container.dict().find(item) != nullptr;
    case Kind::kRange:
      return range_contains(container.range(), item);
    case Kind::kView:
      return view_contains(runtime, container.dict_view(), item);
    case Kind::kIterator:
      return walk_contains(runtime, container.iterator(), item);
    default:
      fail("a value of type '{}' cannot be searched with 'in'", type_name(container));
  }
}

int64_t length(const Value& value) {
  switch (value.kind()) {
    case Kind::kUndefined:
      return 0;
    case Kind::kString:
      return static_cast<int64_t>(value.text().chars);
    case Kind::kList:
    case Kind::kTuple:
      return static_cast<int64_t>(value.list().items.size());
    case Kind::kDict:
      return static_cast<int64_t>(value.dict().size());
    case Kind::kRange:
      return value.range().count;
    case Kind::kView:
      return length(value.dict_view().dict);
    case Kind::kInstance:
      if (const auto size = value.instance().length()) return *size;
      [[fallthrough]];
    default:
      fail("a value of type '{}' has no length", type_name(value));
  }
}

bool iterable(const Value& value) {
  switch (value.kind()) {
    case Kind::kNone:
    case Kind::kBool:
    case Kind::kInt:
    case Kind::kFloat:
    case Kind::kFunction:
      return false;
    case Kind::kInstance:
      return value.instance().length().has_value();
    default:
      return true;
  }
}

Value items_of(Runtime& runtime, const Value& value) {
  switch (value.kind()) {
    case Kind::kUndefined:
      return runtime.list({});
    case Kind::kString:
      return text_items(runtime, value.text());
    case Kind::kList:
    case Kind::kTuple:
      return value;
    case Kind::kDict:
      return view_items(runtime, View(runtime, value, View::Part::kKeys));
    case Kind::kRange:
      return range_items(runtime, value.range());
    case Kind::kView:
      return view_items(runtime, value.dict_view());
    case Kind::kIterator:
      return iterator_items(runtime, value.iterator());
    default:
      fail("a value of type '{}' cannot be walked", type_name(value));
  }
}

std::optional<Value> find_attribute(Runtime& runtime, const Value& value, std::string_view name) {
  if (value.is(Kind::kInstance)) return value.instance().attribute(name);
  if (value.is(Kind::kTuple) && value.list().group && (name == "grouper" || name == "list"))
    return value.list().items[name == "list"];
  if (value.is(Kind::kRange) && (name == "start" || name == "stop" || name == "step"))
    return Value::integer(name == "start"  ? value.range().start
                          : name == "stop" ? value.range().stop
                                           : value.range().step);
  if (value.is_number() && (name == "real" || name == "imag"))
    return name == "real" ? plus(value) : value.is_integral() ? Value::integer(0) : Value::real(0);
  if (const NativeEntry* method = find_method(value.kind(), name)) return runtime.function(*method, value);
  if (!changes_its_object(value.kind(), name)) return std::nullopt;
  const Value sentence =
      runtime.text(fmt::format("access to attribute '{}' of '{}' object is unsafe: a template cannot change its values",
                               name, type_name(value)));
  return Value::undefined(Absence::kUnsafe, &sentence.text());
}

Value get_attribute(Runtime& runtime, const Value& value, const Value& name) {
  if (value.is_undefined()) fail_undefined(value);
  if (auto attribute = find_attribute(runtime, value, name.view())) return *std::move(attribute);
  if (auto element = find_element(runtime, value, name)) return *std::move(element);
  return missing(runtime, value, name);
}

Value get_element(Runtime& runtime, const Value& value, const Value& key) {
  if (value.is_undefined()) fail_undefined(value);
  if (auto element = find_element(runtime, value, key)) return *std::move(element);
  if (key.is_string())
    if (auto attribute = find_attribute(runtime, value, key.view())) return *std::move(attribute);
  return missing(runtime, value, key);
}

Value slice(Runtime& runtime, const Value& value, const Value& start, const Value& stop, const Value& step) {
  switch (value.kind()) {
    case Kind::kString:
      return slice_text(runtime, value.text(), slice_span(start, stop, step, static_cast<int64_t>(value.text().chars)));
    case Kind::kList:
    case Kind::kTuple:
      return slice_list(runtime, value, slice_span(start, stop, step, static_cast<int64_t>(value.list().items.size())));
    case Kind::kRange:
      return slice_range(runtime, value.range(), slice_span(start, stop, step, value.range().count));
    case Kind::kUndefined:
      fail_undefined(value);
    default:
      fail("a value of type '{}' cannot be sliced", type_name(value));
  }
}

int64_t to_index(const Value& value, std::string_view what) {
  if (value.is_undefined()) fail("{} must be an integer; {}", what, undefined_message(value));
  if (!value.is_integral()) fail("{} must be an integer, not '{}'", what, type_name(value));
  return value.as_int();
}

}  // namespace millrace::jinja
