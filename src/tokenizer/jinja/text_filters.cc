// Filters whose result is text.
#include <algorithm>
#include <cmath>

#include "base/utf8.h"
#include "tokenizer/jinja/arguments.h"
#include "tokenizer/jinja/filters.h"
#include "tokenizer/jinja/format.h"
#include "tokenizer/jinja/methods.h"
#include "tokenizer/jinja/operators.h"
#include "tokenizer/jinja/text_layout.h"
#include "tokenizer/jinja/text_ops.h"

namespace millrace::jinja {
namespace {

// The filters that are str methods of the same name applied to soft_str(value).
Value apply_method(Runtime& runtime, const Value& self, std::string_view name, const Arguments& arguments) {
  return find_method(Kind::kString, name)->call(runtime, soft_str(runtime, self), arguments);
}
Value filter_upper(Runtime& runtime, const Value& self, const Arguments& arguments) {
  return apply_method(runtime, self, "upper", arguments);
}
Value filter_lower(Runtime& runtime, const Value& self, const Arguments& arguments) {
  return apply_method(runtime, self, "lower", arguments);
}
Value filter_capitalize(Runtime& runtime, const Value& self, const Arguments& arguments) {
  return apply_method(runtime, self, "capitalize", arguments);
}

Value filter_trim(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const auto [chars] = bind<1>("trim", arguments, {"chars"});
  const Values given = absent(chars) ? Values{} : Values{*chars};
  return apply_method(runtime, self, "strip", {given, {}});
}

Value filter_center(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const auto [width] = bind<1>("center", arguments, {"width"});
  const Values given = {width ? *width : Value::integer(80)};
  return apply_method(runtime, self, "center", {given, {}});
}

Value filter_format(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const Value format = soft_str(runtime, self);
  if (arguments.named.empty()) return percent_format(runtime, format.text(), runtime.tuple(arguments.positional));
  if (!arguments.positional.empty()) fail("format: values are given either in order or by name, not both");
  auto named = std::make_unique<Dict>(runtime);
  for (const auto& [name, value] : arguments.named) named->set(runtime.text(name), value);
  return percent_format(runtime, format.text(), runtime.dict(std::move(named)));
}

Value filter_string(Runtime& runtime, const Value& self, const Arguments& arguments) {
  expect_no_arguments("string", arguments);
  return soft_str(runtime, self);
}

Value filter_safe(Runtime& runtime, const Value& self, const Arguments& arguments) {
  expect_no_arguments("safe", arguments);
  return runtime.text(str(runtime, self), true);
}

Value filter_escape(Runtime& runtime, const Value& self, const Arguments& arguments) {
  expect_no_arguments("escape", arguments);
  if (self.is_string() && self.text().markup) return self;
  return runtime.text(escape_html(str(runtime, self)), true);
}

Value filter_forceescape(Runtime& runtime, const Value& self, const Arguments& arguments) {
  expect_no_arguments("forceescape", arguments);
  return runtime.text(escape_html(str(runtime, self)), true);
}

Value filter_replace(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const auto [from, to, count] = bind<3>("replace", arguments, {"old", "new", "count"}, 2);
  const int64_t limit = absent(count) ? -1 : to_index(*count, "count");
  const Value text = runtime.text(str(runtime, self));
  return replace_text(runtime, text.text(), str(runtime, *from), str(runtime, *to), limit);
}

// A new word begins at the start and after any of - ( { [ < and space.
Value filter_title(Runtime& runtime, const Value& self, const Arguments& arguments) {
  expect_no_arguments("title", arguments);
  const Value text = soft_str(runtime, self);
  runtime.step_chars(text.view().size() * 4);
  TextBuilder out(runtime);
  std::string_view rest = text.view();
  const auto separates = [](std::string_view c) {
    return is_space(utf8_at(c, 0).code) || c == "-" || c == "(" || c == "{" || c == "[" || c == "<";
  };
  while (!rest.empty()) {
    const std::string_view first = rest.substr(0, static_cast<size_t>(utf8_at(rest, 0).bytes));
    size_t end = first.size();
    while (end < rest.size()) {
      const std::string_view c = rest.substr(end, static_cast<size_t>(utf8_at(rest, end).bytes));
      if (separates(c) != separates(first)) break;
      end += c.size();
    }
    out.append(upper(first));
    out.append(lower(rest.substr(first.size(), end - first.size())));
    rest.remove_prefix(end);
  }
  return out.value();
}

Value filter_indent(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const auto [width, first, blank] = bind<3>("indent", arguments, {"width", "first", "blank"});
  if (!self.is_string()) text_argument("indent: the value", &self, "");
  std::string indention(width && width->is_string() ? width->view() : "");
  if (!width || !width->is_string()) {
    const auto spaces = static_cast<size_t>(std::max<int64_t>(int_argument("width", width, 4), 0));
    runtime.check_room(spaces);
    indention.assign(spaces, ' ');
  }
  runtime.step_chars(self.view().size());
  TextBuilder out(runtime);
  if (bool_argument(first, false)) out.append(indention);
  const std::string with_end = std::string(self.view()) + "\n";
  bool at_start = true;
  for (const std::string_view line : split_lines(with_end)) {
    if (!at_start) out.push_back('\n');
    if (!at_start && (!line.empty() || bool_argument(blank, false))) out.append(indention);
    out.append(line);
    at_start = false;
  }
  return out.value(self.text().markup);
}

Value filter_truncate(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const auto [length_value, killwords, end_value, leeway_value] =
      bind<4>("truncate", arguments, {"length", "killwords", "end", "leeway"});
  const std::string_view end = text_argument("end", end_value, "...");
  const int64_t limit = int_argument("length", length_value, 255);
  const int64_t leeway = absent(leeway_value) ? 5 : to_index(*leeway_value, "leeway");
  const auto end_chars = static_cast<int64_t>(utf8_length(end));
  if (limit < end_chars) fail("truncate: length is {}; the end alone takes {}", limit, end_chars);
  if (leeway < 0) fail("truncate: leeway is {}; it must be 0 or more", leeway);
  if (length(self) <= limit || length(self) - limit <= leeway) return self;
  const std::string_view text = text_argument("truncate: the value", &self, "");
  runtime.step_chars(text.size());
  std::string_view kept = text.substr(0, byte_offset(text, static_cast<size_t>(limit - end_chars)));
  if (!bool_argument(killwords, false)) kept = kept.substr(0, kept.rfind(' '));
  return runtime.text(std::string(kept) + std::string(end), self.text().markup);
}

Value filter_wordcount(Runtime& runtime, const Value& self, const Arguments& arguments) {
  expect_no_arguments("wordcount", arguments);
  const Value text = soft_str(runtime, self);
  runtime.step_chars(text.view().size());
  int64_t words = 0;
  bool inside = false;
  for (size_t at = 0; at < text.view().size();) {
    const Utf8Char c = utf8_at(text.view(), at);
    const bool word = is_word_char(c.code);
    words += word && !inside;
    inside = word;
    at += static_cast<size_t>(c.bytes);
  }
  return Value::integer(words);
}

Value filter_wordwrap(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const auto [width, long_words, wrapstring, hyphens] =
      bind<4>("wordwrap", arguments, {"width", "break_long_words", "wrapstring", "break_on_hyphens"});
  WrapStyle style;
  style.width = int_argument("width", width, 79);
  style.break_long_words = bool_argument(long_words, true);
  style.break_on_hyphens = bool_argument(hyphens, true);
  const std::string_view between = absent(wrapstring) ? "\n" : text_argument("wrapstring", wrapstring, "");
  if (style.width <= 0) fail("wordwrap: width is {}; it must be above 0", style.width);
  TextBuilder out(runtime);
  bool first = true;
  for (const std::string_view paragraph : split_lines(text_argument("wordwrap: the value", &self, ""))) {
    runtime.step_chars(paragraph.size() * 2);
    const auto lines = wrap_line(paragraph, style);
    if (!first) out.append(between);
    first = false;
    for (size_t i = 0; i < lines.size(); ++i) {
      if (i) out.append(between);
      out.append(lines[i]);
    }
  }
  return out.value();
}

Value filter_striptags(Runtime& runtime, const Value& self, const Arguments& arguments) {
  expect_no_arguments("striptags", arguments);
  const Value text = soft_str(runtime, self);
  runtime.step_chars(text.view().size());
  return runtime.text(strip_tags(text.view()));
}

void append_quoted(TextBuilder& out, std::string_view text, bool in_query) {
  constexpr std::string_view kDigits = "0123456789ABCDEF";
  out.runtime().step_chars(text.size());
  for (const char c : text) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
                       c == '.' || c == '-' || c == '~' || (c == '/' && !in_query);
    if (plain) {
      out.push_back(c);
    } else if (c == ' ' && in_query) {
      out.push_back('+');
    } else {
      const auto byte = static_cast<uint8_t>(c);
      const char escape[] = {'%', kDigits[byte >> 4], kDigits[byte & 15]};
      out.append({escape, sizeof escape});
    }
  }
}

Value filter_urlencode(Runtime& runtime, const Value& self, const Arguments& arguments) {
  expect_no_arguments("urlencode", arguments);
  TextBuilder out(runtime);
  if (self.is_string() || !iterable(self)) {
    append_quoted(out, str(runtime, self), false);
    return out.value();
  }
  const Value pairs = items_of(runtime, self.is(Kind::kDict) ? runtime.view(self, View::Part::kItems) : self);
  bool first = true;
  for (const Value& pair : pairs.list().items) {
    const Value both = items_of(runtime, pair);
    if (length(both) != 2) fail("urlencode: every item must be a pair, not {} values", length(both));
    if (!first) out.push_back('&');
    first = false;
    append_quoted(out, str(runtime, both.list().items[0]), true);
    out.push_back('=');
    append_quoted(out, str(runtime, both.list().items[1]), true);
  }
  return out.value();
}

Value filter_xmlattr(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const auto [autospace] = bind<1>("xmlattr", arguments, {"autospace"});
  if (self.is_undefined()) fail_undefined(self);
  if (!self.is(Kind::kDict)) fail("xmlattr: a dict is needed, not '{}'", type_name(self));
  TextBuilder out(runtime);
  const std::string_view before = bool_argument(autospace, true) ? " " : "";
  for (const auto& [key, value] : self.dict().entries) {
    if (value.is_none() || value.is_undefined()) continue;
    const std::string_view name = text_argument("xmlattr: a key", &key, "");
    if (name.find_first_of(" \t\n\r\f\v/>=") != std::string_view::npos)
      fail("xmlattr: {} is no attribute name", text_repr(name));
    out.append(out.size() == 0 ? before : " ");
    out.append(escape_html(name));
    out.append("=\"");
    out.append(value.is_string() && value.text().markup ? std::string(value.view()) : escape_html(str(runtime, value)));
    out.push_back('"');
  }
  return out.value();
}

Value filter_filesizeformat(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const auto [binary_value] = bind<1>("filesizeformat", arguments, {"binary"});
  const bool in_binary = bool_argument(binary_value, false);
  const auto parsed = self.is_string()   ? parse_float(self.view())
                      : self.is_number() ? std::optional(self.as_double())
                                         : std::nullopt;
  if (!parsed) fail("filesizeformat: a number is needed, not '{}'", type_name(self));
  const double base = in_binary ? 1024 : 1000;
  if (*parsed == 1) return runtime.text("1 Byte");
  if (*parsed < base) return runtime.text(fmt::format("{} Bytes", static_cast<int64_t>(std::max(*parsed, -0x1p62))));
  constexpr std::string_view kUnits = "kMGTPEZY";
  size_t unit = 0;
  double scaled = *parsed / base;
  for (; scaled >= base && unit + 1 < kUnits.size(); ++unit) scaled /= base;
  const std::string_view letter = in_binary && unit == 0 ? "K" : kUnits.substr(unit, 1);
  return runtime.text(fmt::format("{:.1f} {}{}", scaled, letter, in_binary ? "iB" : "B"));
}

Value filter_pprint(Runtime& runtime, const Value& self, const Arguments& arguments) {
  expect_no_arguments("pprint", arguments);
  return runtime.text(pretty_repr(runtime, self));
}

constexpr NativeEntry kTextFilters[] = {
    {"trim", filter_trim},
    {"string", filter_string},
    {"upper", filter_upper},
    {"lower", filter_lower},
    {"replace", filter_replace},
    {"indent", filter_indent},
    {"safe", filter_safe},
    {"capitalize", filter_capitalize},
    {"title", filter_title},
    {"format", filter_format},
    {"escape", filter_escape},
    {"e", filter_escape},
    {"forceescape", filter_forceescape},
    {"center", filter_center},
    {"truncate", filter_truncate},
    {"wordcount", filter_wordcount},
    {"wordwrap", filter_wordwrap},
    {"striptags", filter_striptags},
    {"urlencode", filter_urlencode},
    {"xmlattr", filter_xmlattr},
    {"filesizeformat", filter_filesizeformat},
    {"pprint", filter_pprint},
};

}  // namespace

std::span<const NativeEntry> text_filters() { return kTextFilters; }

}  // namespace millrace::jinja
