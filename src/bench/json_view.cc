#include "bench/json_view.h"

#include <algorithm>
#include <bitset>
#include <charconv>
#include <nlohmann/json.hpp>

#include "base/utf8.h"

namespace millrace::bench {
namespace {

constexpr size_t kMaxDepth = 128;
constexpr size_t kBad = std::string_view::npos;

bool is_space(char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r'; }
bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_hex(char c) { return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'); }

size_t skip_spaces(std::string_view s, size_t at) {
  while (at < s.size() && is_space(s[at])) ++at;
  return at;
}

// These check a value that begins at `at` and return where it ends, or kBad.
size_t check_escape(std::string_view s, size_t at) {
  if (at + 1 >= s.size()) return kBad;
  if (s[at + 1] != 'u') return std::string_view("\"\\/bfnrt").find(s[at + 1]) == kBad ? kBad : at + 2;
  if (at + 6 > s.size()) return kBad;
  for (size_t i = at + 2; i < at + 6; ++i)
    if (!is_hex(s[i])) return kBad;
  return at + 6;
}
size_t check_string(std::string_view s, size_t at) {
  if (at >= s.size() || s[at] != '"') return kBad;
  for (++at; at < s.size();) {
    const char c = s[at];
    if (c == '"') return at + 1;
    if (static_cast<unsigned char>(c) < 0x20) return kBad;
    if (c != '\\') {
      ++at;
    } else if ((at = check_escape(s, at)) == kBad) {
      return kBad;
    }
  }
  return kBad;
}
size_t check_digits(std::string_view s, size_t at) {
  const size_t begin = at;
  while (at < s.size() && is_digit(s[at])) ++at;
  return at == begin ? kBad : at;
}
size_t check_number(std::string_view s, size_t at) {
  if (s[at] == '-') ++at;
  if (at < s.size() && s[at] == '0')
    ++at;
  else if ((at = check_digits(s, at)) == kBad)
    return kBad;
  if (at < s.size() && s[at] == '.' && (at = check_digits(s, at + 1)) == kBad) return kBad;
  if (at >= s.size() || (s[at] != 'e' && s[at] != 'E')) return at;
  ++at;
  if (at < s.size() && (s[at] == '+' || s[at] == '-')) ++at;
  return check_digits(s, at);
}
size_t check_scalar(std::string_view s, size_t at) {
  if (s[at] == '"') return check_string(s, at);
  if (s[at] == '-' || is_digit(s[at])) return check_number(s, at);
  for (const std::string_view word : {"null", "true", "false"})
    if (s.substr(at, word.size()) == word) return at + word.size();
  return kBad;
}

// Goes through nested lists and objects without recursion.
class Checker {
 public:
  explicit Checker(std::string_view text) : s_(text) {}
  // One value and what is around it.
  bool all() {
    do {
      if (!value()) return false;
    } while (depth_ > 0);
    return skip_spaces(s_, at_) == s_.size();
  }

 private:
  // A scalar, an empty list or object and whatever they close, or the beginning of a list or object.
  bool value() {
    at_ = skip_spaces(s_, at_);
    if (at_ >= s_.size()) return false;
    const bool object = s_[at_] == '{';
    if (!object && s_[at_] != '[') return (at_ = check_scalar(s_, at_)) != kBad && after_value();
    if (depth_ == kMaxDepth) return false;
    in_object_[depth_++] = object;
    at_ = skip_spaces(s_, at_ + 1);
    if (at_ < s_.size() && s_[at_] == (object ? '}' : ']')) return close();
    return !object || key();
  }
  bool key() {
    at_ = check_string(s_, skip_spaces(s_, at_));
    if (at_ == kBad) return false;
    at_ = skip_spaces(s_, at_);
    return at_ < s_.size() && s_[at_++] == ':';
  }
  bool close() {
    ++at_, --depth_;
    return after_value();
  }
  bool after_value() {
    while (depth_ > 0) {
      at_ = skip_spaces(s_, at_);
      if (at_ >= s_.size()) return false;
      const bool object = in_object_[depth_ - 1];
      if (s_[at_] == ',') return ++at_, !object || key();
      if (s_[at_] != (object ? '}' : ']')) return false;
      ++at_, --depth_;
    }
    return true;
  }

  std::string_view s_;
  size_t at_ = 0, depth_ = 0;
  std::bitset<kMaxDepth> in_object_;
};

// The following walk checked text.
size_t skip_string(std::string_view s, size_t at) {
  for (++at; s[at] != '"'; ++at)
    if (s[at] == '\\') ++at;
  return at + 1;
}
size_t skip_value(std::string_view s, size_t at) {
  if (s[at] == '"') return skip_string(s, at);
  int depth = 0;
  while (at < s.size()) {
    const char c = s[at];
    if (c == '"') {
      at = skip_string(s, at);
      continue;
    }
    if (depth == 0 && (c == ',' || c == '}' || c == ']' || is_space(c))) return at;
    depth += (c == '{' || c == '[') - (c == '}' || c == ']');
    ++at;
    if (depth == 0 && (c == '}' || c == ']')) return at;
  }
  return at;
}

uint32_t hex4(std::string_view s, size_t at) {
  uint32_t value = 0;
  std::from_chars(s.data() + at, s.data() + at + 4, value, 16);
  return value;
}
bool is_high(uint32_t unit) { return unit >= 0xD800 && unit < 0xDC00; }
bool is_low(uint32_t unit) { return unit >= 0xDC00 && unit < 0xE000; }

// `at` is at the 'u'; left behind the escape.
char32_t decode_unit(std::string_view s, size_t& at) {
  const uint32_t unit = hex4(s, at + 1);
  at += 5;
  if (is_low(unit)) return 0xFFFD;
  if (!is_high(unit)) return unit;
  if (s.substr(at, 2) != "\\u" || !is_low(hex4(s, at + 2))) return 0xFFFD;
  const uint32_t low = hex4(s, at + 2);
  at += 6;
  return 0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00);
}

// `inside` is what stands between the quotes.
void append_decoded(std::string_view inside, std::string& out) {
  for (size_t at = 0; at < inside.size();) {
    const size_t escape = std::min(inside.find('\\', at), inside.size());
    out += inside.substr(at, escape - at);
    at = escape;
    if (at == inside.size()) return;
    const char c = inside[++at];
    if (c == 'u') {
      append_utf8(out, decode_unit(inside, at));
      continue;
    }
    const size_t named = std::string_view("bfnrt").find(c);
    out += named == kBad ? c : "\b\f\n\r\t"[named];
    ++at;
  }
}

// What stands between the quotes of a key, decoded into `room` if it has to be.
std::string_view key_of(std::string_view quoted, std::string& room) {
  const std::string_view inside = quoted.substr(1, quoted.size() - 2);
  if (inside.find('\\') == kBad) return inside;
  room.clear();
  append_decoded(inside, room);
  return room;
}

// Of an object: visit(key, text of the value).
template <class Visit>
void for_each_member(std::string_view object, const Visit& visit) {
  std::string room;
  for (size_t at = skip_spaces(object, 1); object[at] != '}';) {
    const size_t key_end = skip_string(object, at);
    const std::string_view key = key_of(object.substr(at, key_end - at), room);
    const size_t begin = skip_spaces(object, skip_spaces(object, key_end) + 1);
    const size_t end = skip_value(object, begin);
    visit(key, object.substr(begin, end - begin));
    at = skip_spaces(object, end);
    if (object[at] == ',') at = skip_spaces(object, at + 1);
  }
}

}  // namespace

std::optional<JsonView> JsonView::parse(std::string_view text) {
  if (!is_valid_utf8(text) || !Checker(text).all()) return std::nullopt;
  size_t end = text.size();
  while (is_space(text[end - 1])) --end;
  const size_t begin = skip_spaces(text, 0);
  return JsonView(text.substr(begin, end - begin));
}

JsonView JsonView::at(std::string_view key) const {
  JsonView found;
  if (!is_object()) return found;
  for_each_member(text_, [&](std::string_view name, std::string_view value) {
    if (name == key) found = JsonView(value);
  });
  return found;
}

Json JsonView::to_json(std::span<const std::string_view> keys) const {
  if (is_string()) {
    std::string text;
    append_string(text);
    return text;
  }
  if (is_array()) {
    Json list = Json::array();
    for_each([&](JsonView element) { list.push_back(element.to_json(keys)); });
    return list;
  }
  if (is_object()) {
    Json object = Json::object();
    for_each_member(text_, [&](std::string_view name, std::string_view value) {
      if (std::binary_search(keys.begin(), keys.end(), name)) object[std::string(name)] = JsonView(value).to_json(keys);
    });
    return object;
  }
  if (const auto number = integer()) return *number;
  return Json::parse(text_, nullptr, /*allow_exceptions=*/false);  // a double beyond all bounds is discarded
}

std::optional<JsonView> JsonView::next_element(size_t& at) const {
  at = skip_spaces(text_, at);
  if (text_[at] == ',') at = skip_spaces(text_, at + 1);
  if (text_[at] == ']') return std::nullopt;
  const size_t begin = at;
  at = skip_value(text_, begin);
  return JsonView(text_.substr(begin, at - begin));
}

JsonView JsonView::front() const {
  size_t at = 1;
  return is_array() ? next_element(at).value_or(JsonView()) : JsonView();
}

std::optional<int64_t> JsonView::integer() const {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text_.data(), text_.data() + text_.size(), value);
  if (error != std::errc() || end != text_.data() + text_.size()) return std::nullopt;
  return value;
}

void JsonView::append_string(std::string& out) const {
  if (is_string()) append_decoded(text_.substr(1, text_.size() - 2), out);
}

}  // namespace millrace::bench
