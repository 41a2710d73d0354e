// printf-style formatting as Python's str % values does it.
#include <cmath>

#include "base/utf8.h"
#include "tokenizer/jinja/format.h"
#include "tokenizer/jinja/operators.h"
#include "tokenizer/jinja/text_ops.h"

namespace millrace::jinja {
namespace {

constexpr int64_t kMaxPrecision = 1000;

struct Conversion {
  bool left = false, plus = false, space = false, alternate = false, zero = false;
  int64_t width = 0;
  int64_t precision = -1;
  char type = 's';
};

class PercentFormat {
 public:
  PercentFormat(Runtime& runtime, const Text& format, const Value& values)
      : runtime_(runtime), markup_(format.markup), rest_(format.content), values_(values), out_(runtime) {}

  Value run() {
    for (size_t at; (at = rest_.find('%')) != std::string_view::npos;) {
      out_.append(rest_.substr(0, at));
      rest_.remove_prefix(at + 1);
      convert();
    }
    out_.append(rest_);
    const bool by_name = values_.is(Kind::kDict) || values_.is(Kind::kList) || values_.is_undefined();
    const size_t given = values_.is(Kind::kTuple) ? values_.list().items.size() : 1;
    if (!by_name && used_ < given) fail("%: not all values were used by the format");
    return out_.value(markup_);
  }

 private:
  char next_char() {
    if (rest_.empty()) fail("%: the format ends in the middle of a conversion");
    const char c = rest_.front();
    rest_.remove_prefix(1);
    return c;
  }

  void convert() {
    std::optional<Value> named;
    if (rest_.starts_with('(')) named = take_named();
    Conversion spec;
    take_flags(spec);
    spec.width = take_number();
    if (spec.width < 0) {
      spec.left = true;
      spec.width = -spec.width;
    }
    if (rest_.starts_with('.')) {
      rest_.remove_prefix(1);
      spec.precision = std::max<int64_t>(take_number(), 0);
    }
    if (!rest_.empty() && (rest_[0] == 'h' || rest_[0] == 'l' || rest_[0] == 'L')) rest_.remove_prefix(1);
    spec.type = next_char();
    if (spec.type == '%') return out_.push_back('%');
    write(spec, named ? *named : next_value());
  }

  Value take_named() {
    if (!values_.is(Kind::kDict))
      fail("%: the format names its values, so a dict is needed, not '{}'", type_name(values_));
    rest_.remove_prefix(1);
    size_t end = 0;
    for (int open = 1; end < rest_.size(); ++end) {
      open += rest_[end] == '(' ? 1 : rest_[end] == ')' ? -1 : 0;
      if (open == 0) break;
    }
    if (end == rest_.size()) fail("%: a name in the format has no closing parenthesis");
    const std::string_view name = rest_.substr(0, end);
    const Value* found = values_.dict().find(name);
    if (!found) fail("%: the dict has no key {}", text_repr(name));
    rest_.remove_prefix(end + 1);
    return *found;
  }

  void take_flags(Conversion& spec) {
    for (;; rest_.remove_prefix(1)) {
      const char c = rest_.empty() ? '\0' : rest_.front();
      if (c == '-')
        spec.left = true;
      else if (c == '+')
        spec.plus = true;
      else if (c == ' ')
        spec.space = true;
      else if (c == '#')
        spec.alternate = true;
      else if (c == '0')
        spec.zero = true;
      else
        return;
    }
  }

  int64_t take_number() {
    if (rest_.starts_with('*')) {
      rest_.remove_prefix(1);
      const int64_t number = to_index(next_value(), "%: the value for '*'");
      if (number < -INT32_MAX || number > INT32_MAX) fail("%: a width of {} is too large", number);
      return number;
    }
    int64_t number = 0;
    for (; !rest_.empty() && rest_[0] >= '0' && rest_[0] <= '9'; rest_.remove_prefix(1)) {
      number = number * 10 + (rest_[0] - '0');
      if (number > INT32_MAX) fail("%: a width in the format is too large");
    }
    return number;
  }

  const Value& next_value() {
    if (values_.is(Kind::kTuple)) {
      if (used_ >= values_.list().items.size()) fail("%: the format needs more values than the {} given", used_);
      return values_.list().items[used_++];
    }
    if (used_++ > 0) fail("%: the format needs more values than the one given");
    return values_;
  }

  void write(const Conversion& spec, const Value& value) {
    switch (spec.type) {
      case 's':
        return write_text(spec, markup_ && !(value.is_string() && value.text().markup)
                                    ? escape_html(str(runtime_, value))
                                    : str(runtime_, value));
      case 'r':
      case 'a':
        return write_text(spec, markup_ ? escape_html(repr(runtime_, value)) : repr(runtime_, value));
      case 'c':
        return write_text({.left = spec.left, .width = spec.width}, character(value));
      case 'd':
      case 'i':
      case 'u':
        return write_integer(spec, whole(value), 10, "");
      case 'x':
        return write_integer(spec, to_index(value, "%x: the value"), 16, "0x");
      case 'X':
        return write_integer(spec, to_index(value, "%X: the value"), 16, "0X");
      case 'o':
        return write_integer(spec, to_index(value, "%o: the value"), 8, "0o");
      case 'e':
      case 'E':
      case 'f':
      case 'F':
      case 'g':
      case 'G':
        return write_float(spec, value);
      default:
        fail("%: unsupported format character '{}'", spec.type);
    }
  }

  static std::string character(const Value& value) {
    if (value.is_string() && value.text().chars == 1) return std::string(value.view());
    const int64_t code = value.is_string() ? -1 : to_index(value, "%c: the value");
    if (code < 0 || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff)) fail("%c needs one character or its code");
    std::string out;
    append_utf8(out, static_cast<char32_t>(code));
    return out;
  }

  static int64_t whole(const Value& value) {
    if (value.is_undefined()) fail_undefined(value);
    if (!value.is_number()) fail("%d needs a number, not '{}'", type_name(value));
    if (!value.is(Kind::kFloat)) return value.as_int();
    const double x = std::trunc(value.as_double());
    if (!(std::abs(x) < 0x1p63)) fail("%d: {} does not fit 64 bits", float_repr(value.as_double()));
    return static_cast<int64_t>(x);
  }

  void write_text(const Conversion& spec, std::string_view text) {
    if (spec.precision >= 0 || spec.width > 0) runtime_.step_chars(text.size());
    if (spec.precision >= 0 && static_cast<size_t>(spec.precision) < utf8_length(text))
      text = text.substr(0, byte_offset(text, static_cast<size_t>(spec.precision)));
    pad(spec, "", text, false);
  }

  std::string_view sign(const Conversion& spec, bool negative) const {
    return negative ? "-" : spec.plus ? "+" : spec.space ? " " : "";
  }

  void write_integer(const Conversion& spec, int64_t value, int base, std::string_view prefix) {
    std::string digits = format_magnitude(value, base, spec.type == 'X');
    if (spec.precision > static_cast<int64_t>(digits.size())) {
      runtime_.check_room(static_cast<size_t>(spec.precision));
      digits.insert(0, static_cast<size_t>(spec.precision) - digits.size(), '0');
    }
    const std::string front = std::string(sign(spec, value < 0)) + std::string(spec.alternate ? prefix : "");
    pad(spec, front, digits, spec.zero);
  }

  void write_float(const Conversion& spec, const Value& value) {
    if (value.is_undefined()) fail_undefined(value);
    if (!value.is_number()) fail("%{} needs a number, not '{}'", spec.type, type_name(value));
    if (spec.precision > kMaxPrecision) fail("%{}: a precision of {} is too large", spec.type, spec.precision);
    const int precision = spec.precision < 0 ? 6 : static_cast<int>(spec.precision);
    const double x = value.as_double();
    const std::string digits = format_float(std::abs(x), spec.type, precision, spec.alternate);
    pad(spec, std::string(sign(spec, std::signbit(x) && !std::isnan(x))), digits, spec.zero);
  }

  void pad(const Conversion& spec, std::string_view front, std::string_view body, bool with_zeros) {
    const auto size = spec.width > 0 ? static_cast<int64_t>(front.size() + utf8_length(body)) : 0;
    const auto missing = static_cast<size_t>(std::max<int64_t>(spec.width - size, 0));
    if (!spec.left && !with_zeros) out_.append(missing, " ");
    out_.append(front);
    if (!spec.left && with_zeros) out_.append(missing, "0");
    out_.append(body);
    if (spec.left) out_.append(missing, " ");
  }

  Runtime& runtime_;
  const bool markup_;
  std::string_view rest_;
  const Value& values_;
  size_t used_ = 0;
  TextBuilder out_;
};

}  // namespace

Value percent_format(Runtime& runtime, const Text& format, const Value& values) {
  runtime.step_chars(format.content.size());
  return PercentFormat(runtime, format, values).run();
}

}  // namespace millrace::jinja
