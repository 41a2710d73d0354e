#include <algorithm>

#include "base/utf8.h"
#include "tokenizer/jinja/format.h"
#include "tokenizer/jinja/operators.h"

namespace millrace::jinja {
namespace {

class JsonWriter {
 public:
  JsonWriter(Runtime& runtime, const JsonStyle& style) : runtime_(runtime), style_(style), out_(runtime) {}

  void write(const Value& value, int depth) {
    switch (value.kind()) {
      case Kind::kNone:
        return out_.append("null");
      case Kind::kBool:
        return out_.append(value.as_bool() ? "true" : "false");
      case Kind::kInt:
        return out_.append(fmt::format_int(value.as_int()).str());
      case Kind::kFloat:
        return write_float(value.as_double());
      case Kind::kString:
        return write_text(value.view());
      case Kind::kList:
      case Kind::kTuple:
        return write_list(value.list().items, depth);
      case Kind::kDict:
        return write_dict(value.dict(), depth);
      default:
        fail("tojson: a value of type {} has no JSON form", type_name(value));
    }
  }
  std::string take() { return out_.take(); }

 private:
  void write_float(double x) {
    if (std::isnan(x)) return out_.append("NaN");
    if (std::isinf(x)) return out_.append(x < 0 ? "-Infinity" : "Infinity");
    out_.append(float_repr(x));
  }

  void write_text(std::string_view text) {
    runtime_.step_text(text.size());
    out_.push_back('"');
    size_t plain = 0;  // start of the bytes not yet written that need no escape
    for (size_t at = 0; at < text.size(); ++at) {
      const auto c = static_cast<uint8_t>(text[at]);
      const bool wide = c >= 0x80 && style_.ensure_ascii;
      if (c >= 0x20 && c != '"' && c != '\\' && !wide) continue;
      out_.append(text.substr(plain, at - plain));
      const Utf8Char whole = utf8_at(text, at);
      write_escape(whole.code);
      at += static_cast<size_t>(whole.bytes) - 1;
      plain = at + 1;
    }
    out_.append(text.substr(plain));
    out_.push_back('"');
  }

  void write_escape(char32_t c) {
    switch (c) {
      case '"':
        return out_.append("\\\"");
      case '\\':
        return out_.append("\\\\");
      case '\n':
        return out_.append("\\n");
      case '\r':
        return out_.append("\\r");
      case '\t':
        return out_.append("\\t");
      case '\b':
        return out_.append("\\b");
      case '\f':
        return out_.append("\\f");
      default:
        break;
    }
    if (c < 0x10000) return out_.append(fmt::format("\\u{:04x}", static_cast<uint32_t>(c)));
    const uint32_t rest = static_cast<uint32_t>(c) - 0x10000;
    out_.append(fmt::format("\\u{:04x}\\u{:04x}", 0xd800 + (rest >> 10), 0xdc00 + (rest & 0x3ff)));
  }

  void new_line(int depth) {
    if (!style_.pretty) return;
    out_.push_back('\n');
    for (int i = 0; i < depth; ++i) out_.append(style_.indent);
  }

  void write_list(const Values& items, int depth) {
    runtime_.step(items.size());
    if (items.empty()) return out_.append("[]");
    out_.push_back('[');
    for (size_t i = 0; i < items.size(); ++i) {
      if (i) out_.append(style_.item_separator);
      new_line(depth + 1);
      write(items[i], depth + 1);
    }
    new_line(depth);
    out_.push_back(']');
  }

  void write_dict(const Dict& dict, int depth) {
    runtime_.step(dict.size());
    if (dict.size() == 0) return out_.append("{}");
    out_.push_back('{');
    bool first = true;
    for (const uint32_t i : entry_order(dict)) {
      const auto& [key, value] = dict.entries[i];
      if (!first) out_.append(style_.item_separator);
      first = false;
      new_line(depth + 1);
      write_key(key);
      out_.append(style_.key_separator);
      write(value, depth + 1);
    }
    new_line(depth);
    out_.push_back('}');
  }

  std::vector<uint32_t> entry_order(const Dict& dict) const {
    std::vector<uint32_t> order(dict.size());
    for (uint32_t i = 0; i < order.size(); ++i) order[i] = i;
    if (style_.sort_keys) {
      std::stable_sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) {
        return less(runtime_, dict.entries[a].first, dict.entries[b].first);
      });
    }
    return order;
  }

  void write_key(const Value& key) {
    if (key.is_string()) return write_text(key.view());
    if (!key.is_number() && !key.is_none()) fail("tojson: a key of type {} has no JSON form", type_name(key));
    out_.push_back('"');
    write(key, 0);
    out_.push_back('"');
  }

  Runtime& runtime_;
  const JsonStyle& style_;
  TextBuilder out_;
};

}  // namespace

std::string to_json(Runtime& runtime, const Value& value, const JsonStyle& style) {
  JsonWriter writer(runtime, style);
  writer.write(value, 0);
  return writer.take();
}

}  // namespace millrace::jinja
