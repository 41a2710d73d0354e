#include "tokenizer/jinja/tests.h"

#include <algorithm>

#include "tokenizer/jinja/arguments.h"
#include "tokenizer/jinja/filters.h"
#include "tokenizer/jinja/format.h"
#include "tokenizer/jinja/operators.h"
#include "tokenizer/jinja/text_ops.h"

namespace millrace::jinja {
namespace {

template <bool (*Test)(const Value&)>
Value simple(Runtime&, const Value& self, const Arguments& arguments) {
  expect_no_arguments("test", arguments);
  return Value::boolean(Test(self));
}

template <CompareOp Op>
Value compared(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const auto [other] = bind<1>("comparison", arguments, {"*other"}, 1);
  return Value::boolean(compare(runtime, Op, self, *other));
}

bool is_defined(const Value& x) { return !x.is_undefined(); }
bool is_undefined(const Value& x) { return x.is_undefined(); }
bool is_none(const Value& x) { return x.is_none(); }
bool is_boolean(const Value& x) { return x.is(Kind::kBool); }
bool is_true(const Value& x) { return x.is(Kind::kBool) && x.as_bool(); }
bool is_false(const Value& x) { return x.is(Kind::kBool) && !x.as_bool(); }
bool is_integer(const Value& x) { return x.is(Kind::kInt); }
bool is_float(const Value& x) { return x.is(Kind::kFloat); }
bool is_number(const Value& x) { return x.is_number(); }
bool is_string(const Value& x) { return x.is_string(); }
bool is_mapping(const Value& x) { return x.is(Kind::kDict); }
bool is_escaped(const Value& x) { return x.is_string() && x.text().markup; }
bool is_callable(const Value& x) {
  return x.is(Kind::kFunction) || x.is_undefined() || (x.is(Kind::kInstance) && x.instance().callable());
}
bool is_sequence(const Value& x) {
  return x.is_string() || x.is_sequence() || x.is(Kind::kDict) || x.is(Kind::kRange) || x.is_undefined();
}

Value remainder(Runtime& runtime, const Value& self, int64_t divisor) {
  return binary(runtime, BinaryOp::kModulo, self, Value::integer(divisor));
}
Value is_odd(Runtime& runtime, const Value& self, const Arguments& arguments) {
  expect_no_arguments("odd", arguments);
  return Value::boolean(equal(runtime, remainder(runtime, self, 2), Value::integer(1)));
}
Value is_even(Runtime& runtime, const Value& self, const Arguments& arguments) {
  expect_no_arguments("even", arguments);
  return Value::boolean(equal(runtime, remainder(runtime, self, 2), Value::integer(0)));
}
Value is_divisible(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const auto [num] = bind<1>("divisibleby", arguments, {"num"}, 1);
  return Value::boolean(equal(runtime, binary(runtime, BinaryOp::kModulo, self, *num), Value::integer(0)));
}

template <bool (*Test)(std::string_view)>
Value text_is(Runtime& runtime, const Value& self, const Arguments& arguments) {
  expect_no_arguments("test", arguments);
  return Value::boolean(Test(str(runtime, self)));
}

// Texts are one object where Python's are: the very same value, equal literals, and texts of at most one character.
bool same_text(const Value& a, const Value& b) {
  if (a.object() == b.object()) return true;
  const bool literals = a.object()->uses == Object::kPermanent && b.object()->uses == Object::kPermanent;
  return a.view() == b.view() && (literals || a.text().chars <= 1);
}

// Identity, where equal numbers count as one object.
Value is_same(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const auto [other] = bind<1>("sameas", arguments, {"other"}, 1);
  if (self.kind() != other->kind()) return Value::boolean(false);
  if (self.is_string()) return Value::boolean(same_text(self, *other));
  const bool by_value = self.is_number() || self.is_none();
  return Value::boolean(by_value ? equal(runtime, self, *other) : self.object() == other->object());
}

Value is_filter(Runtime&, const Value& self, const Arguments& arguments) {
  expect_no_arguments("filter", arguments);
  return Value::boolean(self.is_string() && find_filter(self.view()));
}
Value is_test(Runtime&, const Value& self, const Arguments& arguments) {
  expect_no_arguments("test", arguments);
  return Value::boolean(self.is_string() && find_test(self.view()));
}

constexpr NativeEntry kTests[] = {
    {"defined", simple<is_defined>},
    {"none", simple<is_none>},
    {"string", simple<is_string>},
    {"mapping", simple<is_mapping>},
    {"iterable", simple<iterable>},
    {"sequence", simple<is_sequence>},
    {"undefined", simple<is_undefined>},
    {"number", simple<is_number>},
    {"integer", simple<is_integer>},
    {"float", simple<is_float>},
    {"boolean", simple<is_boolean>},
    {"true", simple<is_true>},
    {"false", simple<is_false>},
    {"callable", simple<is_callable>},
    {"escaped", simple<is_escaped>},
    {"in", compared<CompareOp::kIn>},
    {"==", compared<CompareOp::kEqual>},
    {"eq", compared<CompareOp::kEqual>},
    {"equalto", compared<CompareOp::kEqual>},
    {"!=", compared<CompareOp::kNotEqual>},
    {"ne", compared<CompareOp::kNotEqual>},
    {">", compared<CompareOp::kGreater>},
    {"gt", compared<CompareOp::kGreater>},
    {"greaterthan", compared<CompareOp::kGreater>},
    {">=", compared<CompareOp::kGreaterEqual>},
    {"ge", compared<CompareOp::kGreaterEqual>},
    {"<", compared<CompareOp::kLess>},
    {"lt", compared<CompareOp::kLess>},
    {"lessthan", compared<CompareOp::kLess>},
    {"<=", compared<CompareOp::kLessEqual>},
    {"le", compared<CompareOp::kLessEqual>},
    {"odd", is_odd},
    {"even", is_even},
    {"divisibleby", is_divisible},
    {"lower", text_is<is_lower>},
    {"upper", text_is<is_upper>},
    {"sameas", is_same},
    {"filter", is_filter},
    {"test", is_test},
};

}  // namespace

const NativeEntry* find_test(std::string_view name) {
  const auto found =
      std::find_if(std::begin(kTests), std::end(kTests), [&](const NativeEntry& entry) { return entry.name == name; });
  return found == std::end(kTests) ? nullptr : found;
}

std::vector<std::string> test_names() {
  std::vector<std::string> names;
  for (const NativeEntry& entry : kTests) names.emplace_back(entry.name);
  return names;
}

}  // namespace millrace::jinja
