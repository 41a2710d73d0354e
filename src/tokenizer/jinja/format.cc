#include "tokenizer/jinja/format.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "base/utf8.h"
#include "tokenizer/jinja/text_ops.h"

namespace millrace::jinja {
namespace {

void append_escape(std::string& out, char32_t c) {
  switch (c) {
    case '\n':
      out += "\\n";
      return;
    case '\r':
      out += "\\r";
      return;
    case '\t':
      out += "\\t";
      return;
    case '\\':
      out += "\\\\";
      return;
    default:
      break;
  }
  out += c <= 0xff     ? fmt::format("\\x{:02x}", static_cast<uint32_t>(c))
         : c <= 0xffff ? fmt::format("\\u{:04x}", static_cast<uint32_t>(c))
                       : fmt::format("\\U{:08x}", static_cast<uint32_t>(c));
}

void append_items(TextBuilder& out, const Values& items, int depth) {
  for (size_t i = 0; i < items.size(); ++i) {
    if (i) out.append(", ");
    append_repr(out, items[i], depth + 1);
  }
}

void append_dict(TextBuilder& out, const Dict& dict, int depth) {
  out.append("{");
  for (size_t i = 0; i < dict.entries.size(); ++i) {
    if (i) out.append(", ");
    append_repr(out, dict.entries[i].first, depth + 1);
    out.append(": ");
    append_repr(out, dict.entries[i].second, depth + 1);
  }
  out.append("}");
}

void append_range(TextBuilder& out, const Range& range) {
  out.append(range.step == 1 ? fmt::format("range({}, {})", range.start, range.stop)
                             : fmt::format("range({}, {}, {})", range.start, range.stop, range.step));
}

void append_view(TextBuilder& out, const View& view, int depth) {
  constexpr std::string_view kNames[] = {"dict_keys([", "dict_values([", "dict_items(["};
  out.append(kNames[static_cast<size_t>(view.part)]);
  bool first = true;
  for (const auto& [key, value] : view.dict.dict().entries) {
    if (!first) out.append(", ");
    first = false;
    if (view.part == View::Part::kItems) out.append("(");
    if (view.part != View::Part::kValues) append_repr(out, key, depth + 1);
    if (view.part == View::Part::kItems) out.append(", ");
    if (view.part != View::Part::kKeys) append_repr(out, value, depth + 1);
    if (view.part == View::Part::kItems) out.append(")");
  }
  out.append("])");
}

}  // namespace

std::string float_repr(double x) {
  if (std::isnan(x)) return "nan";
  if (std::isinf(x)) return x < 0 ? "-inf" : "inf";
  char buffer[64];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, x, std::chars_format::scientific).ptr;
  const std::string shortest(buffer, end);
  const int exponent = std::atoi(shortest.c_str() + shortest.find('e') + 1);
  if (exponent < -4 || exponent >= 16) return shortest;
  const auto fixed_end = std::to_chars(buffer, buffer + sizeof buffer, x, std::chars_format::fixed).ptr;
  std::string fixed(buffer, fixed_end);
  if (fixed.find('.') == std::string::npos) fixed += ".0";
  return fixed;
}

std::string text_repr(std::string_view text) {
  const bool has_single = text.find('\'') != std::string_view::npos,
             has_double = text.find('"') != std::string_view::npos;
  const char quote = has_single && !has_double ? '"' : '\'';
  std::string out(1, quote);
  for (size_t at = 0; at < text.size();) {
    const Utf8Char c = utf8_at(text, at);
    if (c.code == static_cast<char32_t>(quote)) {
      out += '\\';
      out += quote;
    } else if (c.code == '\\' || !is_printable(c.code)) {
      append_escape(out, c.code);
    } else {
      out += text.substr(at, static_cast<size_t>(c.bytes));
    }
    at += static_cast<size_t>(c.bytes);
  }
  return out + quote;
}

void append_str(TextBuilder& out, const Value& value) {
  if (value.is_string()) {
    out.append(value.view());
  } else if (!value.is_undefined()) {
    append_repr(out, value);
  }
}

void append_repr(TextBuilder& out, const Value& value, int depth) {
  out.runtime().step();
  if (depth > kMaxValueDepth) fail("a value contains itself; its text would have no end");
  switch (value.kind()) {
    case Kind::kUndefined:
      return out.append("Undefined");
    case Kind::kNone:
      return out.append("None");
    case Kind::kBool:
      return out.append(value.as_bool() ? "True" : "False");
    case Kind::kInt:
      return out.append(fmt::format_int(value.as_int()).str());
    case Kind::kFloat:
      return out.append(float_repr(value.as_double()));
    case Kind::kString:
      out.runtime().step_chars(value.view().size());
      return out.append(value.text().markup ? fmt::format("Markup({})", text_repr(value.view()))
                                            : text_repr(value.view()));
    case Kind::kList:
      out.append("[");
      append_items(out, value.list().items, depth);
      return out.append("]");
    case Kind::kTuple:
      out.append("(");
      append_items(out, value.list().items, depth);
      return out.append(value.list().items.size() == 1 ? ",)" : ")");
    case Kind::kDict:
      return append_dict(out, value.dict(), depth);
    case Kind::kRange:
      return append_range(out, value.range());
    case Kind::kView:
      return append_view(out, value.dict_view(), depth);
    case Kind::kIterator:
      return out.append("<generator object>");
    case Kind::kFunction:
      return out.append(fmt::format("<function {}>", value.function().entry.name));
    case Kind::kInstance:
      return out.append(value.instance().repr(depth + 1));
  }
}

std::string str(Runtime& runtime, const Value& value) {
  if (value.is_string()) return std::string(value.view());
  TextBuilder out(runtime);
  append_str(out, value);
  return out.take();
}

std::string repr(Runtime& runtime, const Value& value) {
  TextBuilder out(runtime);
  append_repr(out, value);
  return out.take();
}

Value soft_str(Runtime& runtime, const Value& value) {
  return value.is_string() ? value : runtime.text(str(runtime, value));
}

std::string format_magnitude(int64_t x, int base, bool upper_case) {
  char buffer[72];
  const uint64_t magnitude = x < 0 ? 0 - static_cast<uint64_t>(x) : static_cast<uint64_t>(x);
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, magnitude, base).ptr;
  std::string digits(buffer, end);
  return upper_case ? upper(digits) : digits;
}

std::string format_float(double x, char letter, int precision, bool alternate) {
  if (std::isnan(x) || std::isinf(x)) {
    std::string word = std::isnan(x) ? "nan" : x < 0 ? "-inf" : "inf";
    if (letter >= 'A' && letter <= 'Z') word = upper(word);
    return letter == '%' ? word + "%" : word;
  }
  char form[8];
  std::snprintf(form, sizeof form, alternate ? "%%#.*%c" : "%%.*%c", letter == '%' ? 'f' : letter);
  const double shown = letter == '%' ? x * 100 : x;
  std::string out(static_cast<size_t>(std::snprintf(nullptr, 0, form, precision, shown)), '\0');
  std::snprintf(out.data(), out.size() + 1, form, precision, shown);
  return letter == '%' ? out + "%" : out;
}

}  // namespace millrace::jinja
