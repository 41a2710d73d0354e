#include "tokenizer/jinja/filters.h"

#include <algorithm>
#include <cmath>

#include "tokenizer/jinja/arguments.h"
#include "tokenizer/jinja/format.h"
#include "tokenizer/jinja/operators.h"
#include "tokenizer/jinja/text_ops.h"

namespace millrace::jinja {
namespace {

Value filter_abs(Runtime&, const Value& self, const Arguments& arguments) {
  expect_no_arguments("abs", arguments);
  if (self.is_undefined()) fail_undefined(self);
  if (!self.is_number()) fail("abs: a number is needed, not '{}'", type_name(self));
  if (self.is(Kind::kFloat)) return Value::real(std::abs(self.as_double()));
  return self.as_int() < 0 ? negate(self) : Value::integer(self.as_int());
}

Value filter_attr(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const auto [name] = bind<1>("attr", arguments, {"name"}, 1);
  const std::string_view wanted = text_argument("name", name, "");
  if (self.is_undefined()) fail_undefined(self);
  if (auto attribute = find_attribute(runtime, self, wanted)) return *std::move(attribute);
  return Value::undefined(Absence::kAttribute, &name->text(), self.kind());
}

Value filter_default(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const auto [otherwise, boolean] = bind<2>("default", arguments, {"default_value", "boolean"});
  const bool missing = self.is_undefined() || (bool_argument(boolean, false) && !truthy(self));
  if (!missing) return self;
  return otherwise ? *otherwise : runtime.text("");
}

int64_t truncated(double x) {
  if (!(std::abs(x) < 0x1p63)) fail("int: {} does not fit 64 bits", float_repr(x));
  return static_cast<int64_t>(x);
}

Value filter_int(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const auto [otherwise, base] = bind<2>("int", arguments, {"default", "base"});
  if (self.is_undefined()) fail_undefined(self);
  if (self.is_integral()) return Value::integer(self.as_int());
  std::optional<double> real;
  if (self.is(Kind::kFloat)) real = self.as_double();
  if (self.is_string()) {
    runtime.step_chars(self.view().size());
    const int64_t radix = !base ? 10 : base->is_integral() ? base->as_int() : -1;
    const bool usable = radix == 0 || (radix >= 2 && radix <= 36);
    bool overflow = false;
    if (const auto whole = usable ? parse_int(self.view(), static_cast<int>(radix), &overflow) : std::nullopt) {
      if (overflow) fail("int: {} does not fit 64 bits", text_repr(self.view()));
      return Value::integer(*whole);
    }
    real = parse_float(self.view());
  }
  if (real && !std::isnan(*real)) return Value::integer(truncated(*real));
  return otherwise ? *otherwise : Value::integer(0);
}

Value filter_float(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const auto [otherwise] = bind<1>("float", arguments, {"default"});
  if (self.is_undefined()) fail_undefined(self);
  if (self.is_number()) return Value::real(self.as_double());
  runtime.step_chars(self.is_string() ? self.view().size() : 0);
  if (self.is_string())
    if (const auto real = parse_float(self.view())) return Value::real(*real);
  return otherwise ? *otherwise : Value::real(0);
}

// Python's round(): to the nearest, exact ties to even, judged on the exact value of the double.
double round_decimal(double x, int64_t digits) {
  if (!std::isfinite(x) || digits > 330) return x;
  if (digits < -310) return 0 * x;
  if (digits >= 0) return std::strtod(format_float(x, 'f', static_cast<int>(digits), false).c_str(), nullptr);
  const double unit = std::pow(10.0, static_cast<double>(-digits));
  return std::nearbyint(x / unit) * unit;
}

int64_t round_integer(int64_t x, int64_t digits) {
  if (digits >= 0) return x;
  if (digits < -18) return 0;
  int64_t unit = 1;
  for (int64_t i = 0; i < -digits; ++i) unit *= 10;
  const int64_t low = x - ((x % unit) + unit) % unit, rest = x - low;
  const bool up = rest * 2 > unit || (rest * 2 == unit && (low / unit) % 2 != 0);
  return up ? low + unit : low;
}

Value filter_round(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const auto [precision, method] = bind<2>("round", arguments, {"precision", "method"});
  const std::string_view how = text_argument("method", method, "common");
  if (how != "common" && how != "ceil" && how != "floor")
    fail("round: method is {}; it must be 'common', 'ceil' or 'floor'", text_repr(how));
  const int64_t digits = absent(precision) ? 0 : to_index(*precision, "precision");
  if (self.is_undefined()) fail_undefined(self);
  if (!self.is_number()) fail("round: a number is needed, not '{}'", type_name(self));
  if (how == "common") {
    if (self.is_integral()) return Value::integer(round_integer(self.as_int(), digits));
    return Value::real(round_decimal(self.as_double(), digits));
  }
  const Value unit = binary(runtime, BinaryOp::kPower, Value::integer(10), Value::integer(digits));
  const double scaled = binary(runtime, BinaryOp::kMultiply, self, unit).as_double();
  const int64_t whole = truncated(how == "ceil" ? std::ceil(scaled) : std::floor(scaled));
  return binary(runtime, BinaryOp::kDivide, Value::integer(whole), unit);
}

Value filter_tojson(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const auto [ascii, indent, separators, sort_keys] =
      bind<4>("tojson", arguments, {"ensure_ascii", "indent", "separators", "sort_keys"});
  JsonStyle style;
  style.ensure_ascii = bool_argument(ascii, false);
  style.sort_keys = bool_argument(sort_keys, false);
  if (!absent(indent)) {
    style.pretty = true;
    style.item_separator = ",";
    if (indent->is_string()) {
      style.indent = indent->view();
    } else {
      const auto width = static_cast<size_t>(std::max<int64_t>(to_index(*indent, "indent"), 0));
      runtime.check_room(width);
      style.indent.assign(width, ' ');
    }
  }
  if (!absent(separators)) {
    const Value pair = items_of(runtime, *separators);
    if (length(pair) != 2) fail("tojson: separators must be two strings, not {}", length(pair));
    style.item_separator = text_argument("the item separator", &pair.list().items[0], "");
    style.key_separator = text_argument("the key separator", &pair.list().items[1], "");
  }
  return runtime.text(to_json(runtime, self, style));
}

constexpr NativeEntry kValueFilters[] = {
    {"tojson", filter_tojson}, {"default", filter_default}, {"d", filter_default},   {"int", filter_int},
    {"float", filter_float},   {"abs", filter_abs},         {"round", filter_round}, {"attr", filter_attr},
};

}  // namespace

std::span<const NativeEntry> value_filters() { return kValueFilters; }

Value failed_iterator(Runtime& runtime, const Failure& failure, Values before) {
  if (failure.status.code() == Code::kResourceExhausted) throw failure;
  return runtime.iterator(std::move(before), failure);
}

const NativeEntry* find_filter(std::string_view name) {
  for (const auto table : {value_filters(), text_filters(), sequence_filters(), selection_filters()})
    for (const NativeEntry& entry : table)
      if (entry.name == name) return &entry;
  return nullptr;
}

std::vector<std::string> filter_names() {
  std::vector<std::string> names;
  for (const auto table : {value_filters(), text_filters(), sequence_filters(), selection_filters()})
    for (const NativeEntry& entry : table) names.emplace_back(entry.name);
  return names;
}

}  // namespace millrace::jinja
