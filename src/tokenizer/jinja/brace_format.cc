// Formatting as Python's str.format does it.
#include <cmath>

#include "base/utf8.h"
#include "tokenizer/jinja/format.h"
#include "tokenizer/jinja/operators.h"
#include "tokenizer/jinja/text_ops.h"

namespace millrace::jinja {
namespace {

constexpr int64_t kMaxPrecision = 1000;
constexpr int kMaxFieldNesting = 2;  // a field may hold fields in its specification, those may not

// [[fill]align][sign][#][0][width][grouping][.precision][type]
struct FormatSpec {
  std::string fill = " ";
  char align = '\0';  // < > ^ or =
  char sign = '-';
  bool alternate = false;
  int64_t width = 0;
  char grouping = '\0';
  int64_t precision = -1;
  char type = '\0';
};

int64_t take_digits(std::string_view& rest) {
  int64_t number = 0;
  for (; !rest.empty() && rest[0] >= '0' && rest[0] <= '9'; rest.remove_prefix(1)) {
    number = number * 10 + (rest[0] - '0');
    if (number > INT32_MAX) fail("format: a number in the specification is too large");
  }
  return number;
}

bool is_align(char c) { return c == '<' || c == '>' || c == '^' || c == '='; }
bool take_char(std::string_view& rest, char c) {
  if (!rest.starts_with(c)) return false;
  rest.remove_prefix(1);
  return true;
}

FormatSpec parse_spec(std::string_view text) {
  FormatSpec spec;
  std::string_view rest = text;
  const size_t first = rest.empty() ? 0 : static_cast<size_t>(utf8_at(rest, 0).bytes);
  if (rest.size() > first && is_align(rest[first])) {
    spec.fill = rest.substr(0, first);
    spec.align = rest[first];
    rest.remove_prefix(first + 1);
  } else if (!rest.empty() && is_align(rest[0])) {
    spec.align = rest[0];
    rest.remove_prefix(1);
  }
  if (!rest.empty() && (rest[0] == '+' || rest[0] == '-' || rest[0] == ' ')) {
    spec.sign = rest[0];
    rest.remove_prefix(1);
  }
  spec.alternate = take_char(rest, '#');
  if (take_char(rest, '0') && spec.align == '\0') {
    spec.fill = "0";
    spec.align = '=';
  }
  spec.width = take_digits(rest);
  if (take_char(rest, ','))
    spec.grouping = ',';
  else if (take_char(rest, '_'))
    spec.grouping = '_';
  if (take_char(rest, '.')) {
    if (rest.empty() || rest[0] < '0' || rest[0] > '9')
      fail("format: the specification '{}' lacks its precision", text);
    spec.precision = take_digits(rest);
  }
  if (!rest.empty()) {
    spec.type = rest[0];
    rest.remove_prefix(1);
  }
  if (!rest.empty()) fail("format: invalid specification '{}'", text);
  return spec;
}

void append_padded(TextBuilder& out, const FormatSpec& spec, std::string_view front, std::string_view body,
                   char default_align) {
  const char align = spec.align ? spec.align : default_align;
  const auto missing = std::max<int64_t>(spec.width - static_cast<int64_t>(front.size() + utf8_length(body)), 0);
  const auto fill = [&](int64_t count) { out.append(static_cast<size_t>(count), spec.fill); };
  if (align == '>') fill(missing);
  if (align == '^') fill(missing / 2);
  out.append(front);
  if (align == '=') fill(missing);
  out.append(body);
  if (align == '<') fill(missing);
  if (align == '^') fill(missing - missing / 2);
}

void group_digits(std::string& digits, char separator, int size) {
  if (!separator) return;
  size_t end = digits.find_first_not_of("0123456789abcdefABCDEF");
  if (end == std::string::npos) end = digits.size();
  for (auto at = static_cast<std::ptrdiff_t>(end) - size; at > 0; at -= size)
    digits.insert(static_cast<size_t>(at), 1, separator);
}

std::string_view sign_text(const FormatSpec& spec, bool negative) {
  return negative ? "-" : spec.sign == '+' ? "+" : spec.sign == ' ' ? " " : "";
}

void format_text(TextBuilder& out, const FormatSpec& spec, std::string_view text) {
  if ((spec.type && spec.type != 's') || spec.align == '=' || spec.grouping || spec.sign != '-' || spec.alternate)
    fail("format: a str cannot be written in this way");
  out.runtime().step_chars(text.size());
  if (spec.precision >= 0 && static_cast<size_t>(spec.precision) < utf8_length(text))
    text = text.substr(0, byte_offset(text, static_cast<size_t>(spec.precision)));
  append_padded(out, spec, "", text, '<');
}

void format_integer(TextBuilder& out, const FormatSpec& spec, int64_t value) {
  if (spec.precision >= 0) fail("format: an int has no precision");
  if (spec.type == 'c') {
    if (value < 0 || value > 0x10ffff || (value >= 0xd800 && value <= 0xdfff))
      fail("format: {} is no character", value);
    std::string c;
    append_utf8(c, static_cast<char32_t>(value));
    return append_padded(out, spec, "", c, '<');
  }
  const int base = spec.type == 'b' ? 2 : spec.type == 'o' ? 8 : spec.type == 'x' || spec.type == 'X' ? 16 : 10;
  std::string digits = format_magnitude(value, base, spec.type == 'X');
  if (base != 10 && spec.grouping == ',') fail("format: ',' cannot be used with '{}'", spec.type);
  group_digits(digits, spec.grouping, base == 10 ? 3 : 4);
  std::string front(sign_text(spec, value < 0));
  if (spec.alternate && base != 10) front += std::string("0") + spec.type;
  append_padded(out, spec, front, digits, '>');
}

// Without a type: the shortest digits, or `precision` significant ones, always with a point or an exponent.
std::string general_float(double magnitude, int64_t precision) {
  if (precision < 0) return float_repr(magnitude);
  std::string digits = format_float(magnitude, 'g', static_cast<int>(std::max<int64_t>(precision, 1)), false);
  if (digits.find_first_of(".en") == std::string::npos) digits += ".0";
  return digits;
}

void format_real(TextBuilder& out, const FormatSpec& spec, double value) {
  if (spec.precision > kMaxPrecision) fail("format: a precision of {} is too large", spec.precision);
  const double magnitude = std::abs(value);
  const char type = spec.type == 'n' ? 'g' : spec.type;
  std::string digits =
      type == '\0'
          ? general_float(magnitude, spec.precision)
          : format_float(magnitude, type, spec.precision < 0 ? 6 : static_cast<int>(spec.precision), spec.alternate);
  group_digits(digits, spec.grouping, 3);
  append_padded(out, spec, sign_text(spec, std::signbit(value) && !std::isnan(value)), digits, '>');
}

void format_value(TextBuilder& out, const Value& value, std::string_view spec_text) {
  if (spec_text.empty()) return append_str(out, value);
  const FormatSpec spec = parse_spec(spec_text);
  constexpr std::string_view kIntegerTypes = "bcdoxXn", kFloatTypes = "eEfFgG%";
  const bool as_float = kFloatTypes.find(spec.type) != std::string_view::npos;
  const bool as_integer = spec.type == '\0' || kIntegerTypes.find(spec.type) != std::string_view::npos;
  if (value.is_string()) return format_text(out, spec, value.view());
  if (value.is_integral() && as_integer) return format_integer(out, spec, value.as_int());
  if (value.is_number() && (as_float || spec.type == '\0' || spec.type == 'n'))
    return format_real(out, spec, value.as_double());
  fail("format: a value of type '{}' cannot be written as '{}'", type_name(value), spec_text);
}

class BraceFormat {
 public:
  BraceFormat(Runtime& runtime, bool markup, const Arguments& arguments)
      : runtime_(runtime), markup_(markup), arguments_(arguments) {}

  void expand(TextBuilder& out, std::string_view text, int nesting) {
    while (!text.empty()) {
      const size_t at = text.find_first_of("{}");
      out.append(text.substr(0, at));
      if (at == std::string_view::npos) return;
      text.remove_prefix(at);
      if (text.size() > 1 && text[1] == text[0]) {
        out.push_back(text[0]);
        text.remove_prefix(2);
        continue;
      }
      if (text[0] == '}') fail("format: a single '}}' in the text");
      const size_t end = field_end(text);
      write_field(out, text.substr(1, end - 1), nesting);
      text.remove_prefix(end + 1);
    }
  }

 private:
  static size_t field_end(std::string_view text) {
    int open = 0;
    for (size_t i = 0; i < text.size(); ++i) {
      open += text[i] == '{' ? 1 : text[i] == '}' ? -1 : 0;
      if (open == 0) return i;
    }
    fail("format: a '{{' has no matching '}}'");
  }

  void write_field(TextBuilder& out, std::string_view field, int nesting) {
    if (nesting >= kMaxFieldNesting) fail("format: fields are nested too deep");
    runtime_.step();
    const size_t name_end = name_size(field);
    std::string_view tail = field.substr(name_end);
    const Value value = lookup(field.substr(0, name_end));
    char conversion = '\0';
    if (tail.starts_with('!')) {
      if (tail.size() < 2 || (tail.size() > 2 && tail[2] != ':')) fail("format: bad conversion in '{}'", field);
      conversion = tail[1];
      tail.remove_prefix(2);
    }
    if (!tail.empty()) tail.remove_prefix(1);
    TextBuilder spec(runtime_);
    expand(spec, tail, nesting + 1);
    write_value(out, converted(value, conversion), spec.take());
  }

  static size_t name_size(std::string_view field) {
    bool in_brackets = false;
    for (size_t i = 0; i < field.size(); ++i) {
      if (field[i] == '[') in_brackets = true;
      if (field[i] == ']') in_brackets = false;
      if (!in_brackets && (field[i] == '!' || field[i] == ':')) return i;
    }
    return field.size();
  }

  Value converted(const Value& value, char conversion) {
    switch (conversion) {
      case '\0':
        return value;
      case 's':
        return runtime_.text(str(runtime_, value));
      case 'r':
      case 'a':
        return runtime_.text(repr(runtime_, value));
      default:
        fail("format: unknown conversion '!{}'", conversion);
    }
  }

  void write_value(TextBuilder& out, const Value& value, std::string_view spec) {
    if (!markup_ || (value.is_string() && value.text().markup)) return format_value(out, value, spec);
    TextBuilder plain(runtime_);
    format_value(plain, value, spec);
    out.append(escape_html(plain.take()));
  }

  Value lookup(std::string_view name) {
    const size_t first_end = std::min(name.find_first_of(".["), name.size());
    Value value = first_value(name.substr(0, first_end));
    name.remove_prefix(first_end);
    while (!name.empty()) {
      if (name[0] == '.') {
        const size_t end = std::min(name.find_first_of(".[", 1), name.size());
        value = get_attribute(runtime_, value, runtime_.text(name.substr(1, end - 1)));
        name.remove_prefix(end);
      } else {
        const size_t end = name.find(']');
        if (name[0] != '[' || end == std::string_view::npos) fail("format: malformed field name");
        value = get_element(runtime_, value, element_key(name.substr(1, end - 1)));
        name.remove_prefix(end + 1);
      }
    }
    return value;
  }

  static bool all_digits(std::string_view text) {
    return !text.empty() && text.find_first_not_of("0123456789") == std::string_view::npos;
  }

  Value element_key(std::string_view key) {
    if (key.empty()) fail("format: empty brackets in a field name");
    if (!all_digits(key)) return runtime_.text(key);
    return Value::integer(take_digits(key));
  }

  const Value& first_value(std::string_view name) {
    if (name.empty() || all_digits(name)) {
      const Numbering mode = name.empty() ? Numbering::kAutomatic : Numbering::kManual;
      if (numbering_ != Numbering::kOpen && numbering_ != mode)
        fail("format: numbered and unnumbered fields cannot be mixed");
      numbering_ = mode;
      const auto index = name.empty() ? next_++ : static_cast<size_t>(take_digits(name));
      if (index >= arguments_.positional.size()) fail("format: there is no value number {}", index);
      return arguments_.positional[index];
    }
    for (const auto& [key, value] : arguments_.named)
      if (key == name) return value;
    fail("format: there is no value called '{}'", name);
  }

  enum class Numbering { kOpen, kAutomatic, kManual };
  Runtime& runtime_;
  const bool markup_;
  const Arguments& arguments_;
  Numbering numbering_ = Numbering::kOpen;
  size_t next_ = 0;
};

}  // namespace

Value brace_format(Runtime& runtime, const Text& format, const Arguments& arguments) {
  runtime.step_chars(format.content.size());
  TextBuilder out(runtime);
  BraceFormat(runtime, format.markup, arguments).expand(out, format.content, 0);
  return out.value(format.markup);
}

}  // namespace millrace::jinja
