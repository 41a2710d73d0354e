#include "tokenizer/jinja/methods.h"

#include <algorithm>
#include <cmath>
#include <span>

#include "base/utf8.h"
#include "tokenizer/jinja/arguments.h"
#include "tokenizer/jinja/format.h"
#include "tokenizer/jinja/operators.h"
#include "tokenizer/jinja/text_ops.h"

namespace millrace::jinja {
namespace {

// The text a method works with when `self` is marked safe: plain text is escaped first.
std::string like_self(const Value& self, const Value& argument, std::string_view name) {
  const std::string_view text = text_argument(name, &argument, "");
  return self.text().markup && !argument.text().markup ? escape_html(text) : std::string(text);
}

Value same_markup(Runtime& runtime, const Value& self, std::string text) {
  return runtime.text(std::move(text), self.text().markup);
}

Value text_list(Runtime& runtime, const Value& self, const std::vector<std::string_view>& pieces) {
  runtime.check_room(pieces.size(), sizeof(Value) + sizeof(Text));
  Values items;
  items.reserve(pieces.size());
  for (const std::string_view piece : pieces) items.push_back(same_markup(runtime, self, std::string(piece)));
  return runtime.list(std::move(items));
}

// Methods that take nothing and give a text of the same markup.
template <std::string (*Change)(std::string_view)>
Value changed(Runtime& runtime, const Value& self, const Arguments& arguments) {
  expect_no_arguments("str method", arguments);
  runtime.step_chars(self.view().size());
  return same_markup(runtime, self, Change(self.view()));
}

Value str_casefold(Runtime& runtime, const Value& self, const Arguments& arguments) {
  expect_no_arguments("casefold", arguments);
  runtime.step_chars(self.view().size());
  return runtime.text(casefold(self.view()));
}

template <CharTest Test>
Value every(Runtime& runtime, const Value& self, const Arguments& arguments) {
  expect_no_arguments("str method", arguments);
  runtime.step_chars(self.view().size());
  return Value::boolean(all_chars(self.view(), Test));
}

template <bool (*Test)(std::string_view)>
Value holds(Runtime& runtime, const Value& self, const Arguments& arguments) {
  expect_no_arguments("str method", arguments);
  runtime.step_chars(self.view().size());
  return Value::boolean(Test(self.view()));
}

Value str_isascii(Runtime&, const Value& self, const Arguments& arguments) {
  expect_no_arguments("isascii", arguments);
  return Value::boolean(self.text().ascii());
}

template <Side Which>
Value stripped(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const auto [chars] = bind<1>("strip", arguments, {"*chars"});
  runtime.step_text(self.view().size());
  const std::string_view text = absent(chars) ? strip_space(self.view(), Which)
                                              : strip_chars(self.view(), like_self(self, *chars, "chars"), Which);
  runtime.step_chars(self.view().size() - text.size());
  return same_markup(runtime, self, std::string(text));
}

template <bool FromRight>
Value split_pieces(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const auto [separator, maxsplit] = bind<2>("split", arguments, {"sep", "maxsplit"});
  const int64_t limit = int_argument("maxsplit", maxsplit, -1);
  runtime.step_chars(self.view().size());
  if (absent(separator)) return text_list(runtime, self, split_space(self.view(), limit, FromRight));
  const std::string_view between = text_argument("sep", separator, "");
  if (between.empty()) fail("split() needs a separator that is not empty");
  return text_list(runtime, self, split_at(self.view(), between, limit, FromRight));
}

Value str_splitlines(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const auto [keepends] = bind<1>("splitlines", arguments, {"keepends"});
  runtime.step_chars(self.view().size());
  return text_list(runtime, self, split_lines(self.view(), int_argument("keepends", keepends, 0) != 0));
}

template <bool FromRight>
Value partitioned(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const auto [separator] = bind<1>("partition", arguments, {"*sep"}, 1);
  const std::string between = like_self(self, *separator, "sep");
  if (between.empty()) fail("partition() needs a separator that is not empty");
  const std::string_view text = self.view();
  const auto piece = [&](std::string_view part) { return same_markup(runtime, self, std::string(part)); };
  const size_t at = FromRight ? find_last_text(text, between) : find_text(text, between);
  if (at == std::string_view::npos)
    return FromRight ? runtime.tuple({piece(""), piece(""), self}) : runtime.tuple({self, piece(""), piece("")});
  return runtime.tuple({piece(text.substr(0, at)), piece(between), piece(text.substr(at + between.size()))});
}

Value str_replace(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const auto [old_text, new_text, count] = bind<3>("replace", arguments, {"*old", "*new", "*count"}, 2);
  const std::string from = like_self(self, *old_text, "old"), to = like_self(self, *new_text, "new");
  return replace_text(runtime, self.text(), from, to, int_argument("count", count, -1));
}

Value str_join(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const auto [parts] = bind<1>("join", arguments, {"*iterable"}, 1);
  const Value items = items_of(runtime, *parts);
  TextBuilder out(runtime);
  for (size_t i = 0; i < items.list().items.size(); ++i) {
    const Value& item = items.list().items[i];
    if (!item.is_string()) fail("join() needs strings; item {} is of type '{}'", i, type_name(item));
    if (i) out.append(self.view());
    out.append(like_self(self, item, "item"));
  }
  return out.value(self.text().markup);
}

// The part of the text between the optional character positions `start` and `end`, and where it begins.
struct Part {
  std::string_view text;
  size_t first_char = 0;
  bool valid = true;  // false: start lies behind the end
};
Part part_of(Runtime& runtime, const Value& self, const Value* start, const Value* end) {
  runtime.step_text(self.view().size());
  if (!start && !end) return {self.view()};
  runtime.step_chars(self.view().size());
  const auto size = static_cast<int64_t>(self.text().chars);
  const auto bound = [&](const Value* value, int64_t otherwise) {
    const int64_t at = absent(value) ? otherwise : to_index(*value, "a position");
    return std::max<int64_t>(at < 0 ? at + size : at, 0);
  };
  const int64_t from = bound(start, 0), to = std::min(bound(end, size), size);
  if (from > to) return {{}, 0, false};
  const size_t begin = byte_offset(self.view(), static_cast<size_t>(from));
  const std::string_view rest = self.view().substr(begin);
  return {rest.substr(0, byte_offset(rest, static_cast<size_t>(to - from))), static_cast<size_t>(from)};
}

template <bool FromRight>
std::optional<int64_t> found_at(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const auto [needle, start, end] = bind<3>("find", arguments, {"*sub", "*start", "*end"}, 1);
  const Part part = part_of(runtime, self, start, end);
  const std::string_view what = text_argument("sub", needle, "");
  const size_t at = FromRight ? find_last_text(part.text, what) : find_text(part.text, what);
  if (!part.valid || at == std::string_view::npos) return std::nullopt;
  return static_cast<int64_t>(part.first_char + utf8_length(part.text.substr(0, at)));
}

template <bool FromRight>
Value str_find(Runtime& runtime, const Value& self, const Arguments& arguments) {
  return Value::integer(found_at<FromRight>(runtime, self, arguments).value_or(-1));
}

template <bool FromRight>
Value str_index(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const auto at = found_at<FromRight>(runtime, self, arguments);
  if (!at) fail("index(): the text does not contain {}", text_repr(arguments.positional[0].view()));
  return Value::integer(*at);
}

Value str_count(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const auto [needle, start, end] = bind<3>("count", arguments, {"*sub", "*start", "*end"}, 1);
  const Part part = part_of(runtime, self, start, end);
  const std::string_view what = text_argument("sub", needle, "");
  if (!part.valid) return Value::integer(0);
  return Value::integer(static_cast<int64_t>(what.empty() ? utf8_length(part.text) + 1 : count_text(part.text, what)));
}

template <bool AtEnd>
Value has_affix(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const auto [affix, start, end] =
      bind<3>(AtEnd ? "endswith" : "startswith", arguments, {"*affix", "*start", "*end"}, 1);
  const Part part = part_of(runtime, self, start, end);
  const auto matches = [&](const Value& wanted) {
    const std::string_view text = text_argument(AtEnd ? "the suffix" : "the prefix", &wanted, "");
    return part.valid && (AtEnd ? part.text.ends_with(text) : part.text.starts_with(text));
  };
  if (!affix->is(Kind::kTuple)) return Value::boolean(matches(*affix));
  const Values& any = affix->list().items;
  return Value::boolean(std::any_of(any.begin(), any.end(), matches));
}

Value str_removeprefix(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const auto [prefix] = bind<1>("removeprefix", arguments, {"*prefix"}, 1);
  std::string_view text = self.view();
  if (const auto gone = text_argument("prefix", prefix, ""); text.starts_with(gone)) text.remove_prefix(gone.size());
  return runtime.text(text);
}

Value str_removesuffix(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const auto [suffix] = bind<1>("removesuffix", arguments, {"*suffix"}, 1);
  std::string_view text = self.view();
  if (const auto gone = text_argument("suffix", suffix, ""); text.ends_with(gone)) text.remove_suffix(gone.size());
  return runtime.text(text);
}

enum class Align { kLeft, kRight, kCenter };
template <Align How>
Value aligned(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const auto [width, fill] = bind<2>("alignment", arguments, {"*width", "*fillchar"}, 1);
  const std::string with = fill ? like_self(self, *fill, "fillchar") : " ";
  if (utf8_length(with) != 1) fail("the fill character must be one character, not {}", text_repr(with));
  const int64_t missing = std::max<int64_t>(to_index(*width, "width"), 0) - static_cast<int64_t>(self.text().chars);
  if (missing <= 0) return self;
  runtime.check_room(static_cast<size_t>(missing), with.size());
  const int64_t left = How == Align::kLeft    ? 0
                       : How == Align::kRight ? missing
                                              : missing / 2 + (missing & to_index(*width, "width") & 1);
  std::string out;
  for (int64_t i = 0; i < left; ++i) out += with;
  out += self.view();
  for (int64_t i = left; i < missing; ++i) out += with;
  return same_markup(runtime, self, std::move(out));
}

Value str_zfill(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const auto [width] = bind<1>("zfill", arguments, {"*width"}, 1);
  const int64_t missing = std::max<int64_t>(to_index(*width, "width"), 0) - static_cast<int64_t>(self.text().chars);
  if (missing <= 0) return self;
  runtime.check_room(static_cast<size_t>(missing));
  std::string_view text = self.view();
  std::string out;
  if (!text.empty() && (text[0] == '+' || text[0] == '-')) {
    out += text[0];
    text.remove_prefix(1);
  }
  out.append(static_cast<size_t>(missing), '0');
  return same_markup(runtime, self, out.append(text));
}

Value str_expandtabs(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const auto [tabsize] = bind<1>("expandtabs", arguments, {"tabsize"});
  const int64_t size = int_argument("tabsize", tabsize, 8);
  runtime.step_chars(self.view().size());
  TextBuilder out(runtime);
  int64_t column = 0;
  for (const std::string_view c : split_chars(self.view())) {
    if (c == "\t") {
      const int64_t spaces = size > 0 ? size - column % size : 0;
      out.append(static_cast<size_t>(spaces), " ");
      column += spaces;
    } else {
      out.append(c);
      column = c == "\n" || c == "\r" ? 0 : column + 1;
    }
  }
  return out.value(self.text().markup);
}

Value str_format(Runtime& runtime, const Value& self, const Arguments& arguments) {
  return brace_format(runtime, self.text(), arguments);
}

Value str_format_map(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const auto [mapping] = bind<1>("format_map", arguments, {"*mapping"}, 1);
  if (!mapping->is(Kind::kDict)) fail("format_map() needs a dict, not '{}'", type_name(*mapping));
  std::vector<std::pair<std::string_view, Value>> named;
  for (const auto& [key, value] : mapping->dict().entries)
    if (key.is_string()) named.emplace_back(key.view(), value);
  return brace_format(runtime, self.text(), {{}, named});
}

Value list_count(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const auto [wanted] = bind<1>("count", arguments, {"*value"}, 1);
  const Values& items = self.list().items;
  runtime.step(items.size());
  return Value::integer(
      std::count_if(items.begin(), items.end(), [&](const Value& x) { return equal(runtime, x, *wanted); }));
}

Value list_index(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const auto [wanted, start, stop] = bind<3>("index", arguments, {"*value", "*start", "*stop"}, 1);
  const Values& items = self.list().items;
  const auto size = static_cast<int64_t>(items.size());
  const auto bound = [&](const Value* value, int64_t otherwise) {
    const int64_t at = int_argument("a position", value, otherwise);
    return std::clamp<int64_t>(at < 0 ? at + size : at, 0, size);
  };
  runtime.step(items.size());
  for (int64_t i = bound(start, 0); i < bound(stop, size); ++i)
    if (equal(runtime, items[static_cast<size_t>(i)], *wanted)) return Value::integer(i);
  fail("index(): {} is not in the {}", repr(runtime, *wanted), type_name(self));
}

Value same_value(Runtime&, const Value& self, const Arguments& arguments) {
  expect_no_arguments("copy", arguments);
  return self;
}

Value dict_get(Runtime&, const Value& self, const Arguments& arguments) {
  const auto [key, otherwise] = bind<2>("get", arguments, {"*key", "*default"}, 1);
  if (const Value* found = self.dict().find(*key)) return *found;
  return otherwise ? *otherwise : Value::none();
}

template <View::Part What>
Value dict_part(Runtime& runtime, const Value& self, const Arguments& arguments) {
  expect_no_arguments("dict method", arguments);
  return runtime.view(self, What);
}

Value float_is_integer(Runtime&, const Value& self, const Arguments& arguments) {
  expect_no_arguments("is_integer", arguments);
  return Value::boolean(self.as_double() == std::floor(self.as_double()) && std::isfinite(self.as_double()));
}

constexpr NativeEntry kTextMethods[] = {
    {"strip", stripped<Side::kBoth>},
    {"split", split_pieces<false>},
    {"startswith", has_affix<false>},
    {"endswith", has_affix<true>},
    {"replace", str_replace},
    {"join", str_join},
    {"format", str_format},
    {"upper", changed<upper>},
    {"lower", changed<lower>},
    {"title", changed<title>},
    {"capitalize", changed<capitalize>},
    {"swapcase", changed<swap_case>},
    {"casefold", str_casefold},
    {"lstrip", stripped<Side::kLeft>},
    {"rstrip", stripped<Side::kRight>},
    {"rsplit", split_pieces<true>},
    {"splitlines", str_splitlines},
    {"partition", partitioned<false>},
    {"rpartition", partitioned<true>},
    {"find", str_find<false>},
    {"rfind", str_find<true>},
    {"index", str_index<false>},
    {"rindex", str_index<true>},
    {"count", str_count},
    {"removeprefix", str_removeprefix},
    {"removesuffix", str_removesuffix},
    {"center", aligned<Align::kCenter>},
    {"ljust", aligned<Align::kLeft>},
    {"rjust", aligned<Align::kRight>},
    {"zfill", str_zfill},
    {"expandtabs", str_expandtabs},
    {"format_map", str_format_map},
    {"isalpha", every<CharTest::kAlpha>},
    {"isalnum", every<CharTest::kAlnum>},
    {"isdecimal", every<CharTest::kDecimal>},
    {"isdigit", every<CharTest::kDigit>},
    {"isnumeric", every<CharTest::kNumeric>},
    {"isspace", every<CharTest::kSpace>},
    {"isprintable", every<CharTest::kPrintable>},
    {"isascii", str_isascii},
    {"islower", holds<is_lower>},
    {"isupper", holds<is_upper>},
    {"istitle", holds<is_title>},
    {"isidentifier", holds<is_identifier>},
};
constexpr NativeEntry kListMethods[] = {{"count", list_count}, {"index", list_index}, {"copy", same_value}};
constexpr NativeEntry kTupleMethods[] = {{"count", list_count}, {"index", list_index}};
constexpr NativeEntry kDictMethods[] = {
    {"get", dict_get},
    {"items", dict_part<View::Part::kItems>},
    {"keys", dict_part<View::Part::kKeys>},
    {"values", dict_part<View::Part::kValues>},
    {"copy", same_value},
};
constexpr NativeEntry kFloatMethods[] = {{"is_integer", float_is_integer}};
constexpr std::string_view kListChanges[] = {"append", "extend", "insert", "pop", "remove", "clear", "reverse", "sort"};
constexpr std::string_view kDictChanges[] = {"pop", "update", "setdefault", "popitem", "clear"};

std::span<const NativeEntry> methods_of(Kind kind) {
  switch (kind) {
    case Kind::kString:
      return kTextMethods;
    case Kind::kList:
      return kListMethods;
    case Kind::kTuple:
      return kTupleMethods;
    case Kind::kDict:
      return kDictMethods;
    case Kind::kFloat:
      return kFloatMethods;
    default:
      return {};
  }
}

}  // namespace

const NativeEntry* find_method(Kind kind, std::string_view name) {
  for (const NativeEntry& entry : methods_of(kind))
    if (entry.name == name) return &entry;
  return nullptr;
}

bool changes_its_object(Kind kind, std::string_view name) {
  if (kind == Kind::kList)
    return std::find(std::begin(kListChanges), std::end(kListChanges), name) != std::end(kListChanges);
  if (kind == Kind::kDict)
    return std::find(std::begin(kDictChanges), std::end(kDictChanges), name) != std::end(kDictChanges);
  return false;
}

Value replace_text(Runtime& runtime, const Text& text, std::string_view from, std::string_view to, int64_t count) {
  runtime.step_text(text.content.size());
  TextBuilder out(runtime);
  std::string_view rest = text.content;
  if (from.empty()) {  // between all characters, and at both ends
    runtime.step(text.chars);
    while (count-- != 0) {
      out.append(to);
      if (rest.empty()) break;
      const auto size = static_cast<size_t>(utf8_at(rest, 0).bytes);
      out.append(rest.substr(0, size));
      rest.remove_prefix(size);
    }
  }
  while (!from.empty() && count-- != 0) {
    const size_t at = find_text(rest, from);
    if (at == std::string_view::npos) break;
    runtime.step();
    out.append(rest.substr(0, at));
    out.append(to);
    rest.remove_prefix(at + from.size());
  }
  out.append(rest);
  return out.value(text.markup);
}

}  // namespace millrace::jinja
