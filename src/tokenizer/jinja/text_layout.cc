#include "tokenizer/jinja/text_layout.h"

#include <algorithm>

#include "base/utf8.h"
#include "tokenizer/jinja/format.h"
#include "tokenizer/jinja/operators.h"
#include "tokenizer/jinja/text_ops.h"

namespace millrace::jinja {
namespace {

bool wraps_at(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }
bool is_ascii_space(std::string_view chunk) { return !chunk.empty() && wraps_at(chunk[0]); }

// After letter-letter-hyphen before letter-letter a word may be cut.
void cut_at_hyphens(std::string_view word, std::vector<std::string_view>& chunks) {
  const auto letters = [&](const std::vector<std::string_view>& chars, size_t at) {
    return at < chars.size() && is_word_char(utf8_at(chars[at], 0).code) &&
           !(chars[at][0] >= '0' && chars[at][0] <= '9');
  };
  const auto chars = split_chars(word);
  size_t start = 0;
  for (size_t i = 1, bytes = chars.empty() ? 0 : chars[0].size(); i < chars.size(); bytes += chars[i++].size()) {
    const bool cut = chars[i] == "-" && letters(chars, i - 1) &&
                     (i < 2 || letters(chars, i - 2) || chars[i - 2] == "-") && letters(chars, i + 1) &&
                     (letters(chars, i + 2) || (i + 2 < chars.size() && chars[i + 2] == "-"));
    if (!cut || i < 2) continue;
    chunks.push_back(word.substr(start, bytes + 1 - start));
    start = bytes + 1;
  }
  chunks.push_back(word.substr(start));
}

std::vector<std::string_view> wrap_chunks(std::string_view text, bool hyphens) {
  std::vector<std::string_view> chunks;
  while (!text.empty()) {
    const bool space = wraps_at(text[0]);
    size_t end = 1;
    while (end < text.size() && wraps_at(text[end]) == space) ++end;
    if (space || !hyphens) {
      chunks.push_back(text.substr(0, end));
    } else {
      cut_at_hyphens(text.substr(0, end), chunks);
    }
    text.remove_prefix(end);
  }
  return chunks;
}

std::string_view strip_between(std::string& text, std::string_view open, std::string_view close) {
  std::string kept;
  std::string_view rest = text;
  for (;;) {
    const size_t from = find_text(rest, open);
    const size_t to = from == std::string_view::npos ? from : find_text(rest.substr(from + open.size()), close);
    if (to == std::string_view::npos) break;
    kept += rest.substr(0, from);
    rest.remove_prefix(from + open.size() + to + close.size());
  }
  kept += rest;
  return text = std::move(kept);
}

// The named entities that markup in prompts uses, and numeric ones.
void append_entity(std::string& out, std::string_view name) {
  struct Entity {
    std::string_view name, text;
  };
  constexpr Entity kEntities[] = {{"amp", "&"},        {"lt", "<"},         {"gt", ">"},         {"quot", "\""},
                                  {"apos", "'"},       {"nbsp", "\u00a0"},  {"copy", "\u00a9"},  {"raquo", "\u00bb"},
                                  {"laquo", "\u00ab"}, {"mdash", "\u2014"}, {"ndash", "\u2013"}, {"hellip", "\u2026"}};
  for (const Entity& entity : kEntities)
    if (entity.name == name) return void(out += entity.text);
  bool overflow = false;
  const bool hexadecimal = name.starts_with("#x") || name.starts_with("#X");
  const auto code = name.starts_with('#')
                        ? parse_int(name.substr(hexadecimal ? 2 : 1), hexadecimal ? 16 : 10, &overflow)
                        : std::nullopt;
  if (code && !overflow && *code > 0 && *code <= 0x10ffff && (*code < 0xd800 || *code > 0xdfff))
    return append_utf8(out, static_cast<char32_t>(*code));
  out += fmt::format("&{};", name);
}

std::string decode_entities(std::string_view text) {
  constexpr size_t kLongestEntity = 12;
  std::string out;
  for (size_t at; (at = text.find('&')) != std::string_view::npos;) {
    out += text.substr(0, at);
    const size_t end = text.substr(at, kLongestEntity).find(';');
    if (end == std::string_view::npos) {
      out += '&';
      text.remove_prefix(at + 1);
    } else {
      append_entity(out, text.substr(at + 1, end - 1));
      text.remove_prefix(at + end + 1);
    }
  }
  return out += text;
}

// Values written over several lines where they do not fit one.
class PrettyWriter {
 public:
  explicit PrettyWriter(Runtime& runtime) : runtime_(runtime), out_(runtime) {}

  // `allowance`: columns that the closing brackets around the value still need.
  void write(const Value& value, int64_t indent, int64_t allowance, int level = 1) {
    runtime_.step();
    const std::string flat = flat_repr(value);
    if (static_cast<int64_t>(utf8_length(flat)) <= kColumns - indent - allowance) return out_.append(flat);
    if (value.is_string()) return write_text(value.view(), indent, allowance, level == 1);
    if (value.is(Kind::kDict)) return write_dict(value.dict(), indent, allowance + 1, level + 1);
    if (!value.is_sequence()) return out_.append(flat);
    const bool single = value.is(Kind::kTuple) && value.list().items.size() == 1;
    out_.push_back(value.is(Kind::kList) ? '[' : '(');
    write_items(value.list().items, indent + 1, allowance + (single ? 2 : 1), level + 1);
    out_.append(value.is(Kind::kList) ? "]" : single ? ",)" : ")");
  }
  std::string take() { return out_.take(); }

 private:
  static constexpr int64_t kColumns = 80;

  std::vector<const std::pair<Value, Value>*> sorted_entries(const Dict& dict) {
    std::vector<const std::pair<Value, Value>*> entries;
    for (const auto& entry : dict.entries) entries.push_back(&entry);
    const auto comparable = [](const Value& a, const Value& b) {
      return (a.is_string() && b.is_string()) || (a.is_number() && b.is_number());
    };
    std::stable_sort(entries.begin(), entries.end(), [&](const auto* a, const auto* b) {
      if (comparable(a->first, b->first)) return less(runtime_, a->first, b->first);
      return type_name(a->first) < type_name(b->first);
    });
    return entries;
  }

  std::string flat_repr(const Value& value) {
    if (value.is(Kind::kDict)) {
      std::string text = "{";
      for (const auto* entry : sorted_entries(value.dict()))
        text += (text.size() > 1 ? ", " : "") + flat_repr(entry->first) + ": " + flat_repr(entry->second);
      runtime_.check_room(text.size());
      return text + "}";
    }
    if (!value.is_sequence()) return repr(runtime_, value);
    std::string text;
    for (const Value& item : value.list().items) text += (text.empty() ? "" : ", ") + flat_repr(item);
    runtime_.step_text(text.size());
    runtime_.check_room(text.size());
    if (value.is(Kind::kList)) return "[" + text + "]";
    return "(" + text + (value.list().items.size() == 1 ? ",)" : ")");
  }

  void new_line(int64_t indent) {
    out_.push_back('\n');
    out_.append(static_cast<size_t>(indent), " ");
  }

  // A text in pieces, one to a line: cut at its line ends, and behind spaces where a line is too long.
  void write_text(std::string_view text, int64_t indent, int64_t allowance, bool alone) {
    if (alone) ++indent, ++allowance;
    runtime_.step_chars(text.size() * 4);
    std::vector<std::string> pieces;
    const auto lines = split_lines(text, true);
    for (size_t i = 0; i < lines.size(); ++i)
      cut_line(lines[i], kColumns - indent, i + 1 == lines.size() ? allowance : 0, pieces);
    if (alone && pieces.size() > 1) out_.push_back('(');
    for (size_t i = 0; i < pieces.size(); ++i) {
      if (i) new_line(indent);
      out_.append(pieces[i]);
    }
    if (alone && pieces.size() > 1) out_.push_back(')');
  }

  static void cut_line(std::string_view line, int64_t width, int64_t allowance, std::vector<std::string>& pieces) {
    const auto fits = [](const std::string& shown, int64_t room) {
      return static_cast<int64_t>(utf8_length(shown)) <= room;
    };
    if (std::string whole = text_repr(line); fits(whole, width - allowance)) return pieces.push_back(std::move(whole));
    size_t begin = 0;
    for (size_t end = 0; end < line.size();) {
      const size_t part_begin = end;
      end = next_part(line, end);
      const int64_t room = end == line.size() ? width - allowance : width;
      if (part_begin == begin || fits(text_repr(line.substr(begin, end - begin)), room)) continue;
      pieces.push_back(text_repr(line.substr(begin, part_begin - begin)));
      begin = part_begin;
    }
    pieces.push_back(text_repr(line.substr(begin)));
  }

  // The end of the word at `at` and of the space behind it.
  static size_t next_part(std::string_view line, size_t at) {
    const auto skip = [&](bool space) {
      while (at < line.size() && is_space(utf8_at(line, at).code) == space)
        at += static_cast<size_t>(utf8_at(line, at).bytes);
    };
    skip(false);
    skip(true);
    return at;
  }

  void next_item(int64_t indent) {
    out_.push_back(',');
    new_line(indent);
  }

  void write_items(const Values& items, int64_t indent, int64_t allowance, int level) {
    for (size_t i = 0; i < items.size(); ++i) {
      if (i) next_item(indent);
      write(items[i], indent, i + 1 == items.size() ? allowance : 1, level);
    }
  }

  void write_dict(const Dict& dict, int64_t indent, int64_t allowance, int level) {
    out_.push_back('{');
    const auto entries = sorted_entries(dict);
    for (size_t i = 0; i < entries.size(); ++i) {
      if (i) next_item(indent + 1);
      const std::string key = flat_repr(entries[i]->first) + ": ";
      out_.append(key);
      write(entries[i]->second, indent + 1 + static_cast<int64_t>(utf8_length(key)),
            i + 1 == entries.size() ? allowance : 1, level);
    }
    out_.push_back('}');
  }

  Runtime& runtime_;
  TextBuilder out_;
};

}  // namespace

std::vector<std::string> wrap_line(std::string_view paragraph, const WrapStyle& style) {
  auto chunks = wrap_chunks(paragraph, style.break_on_hyphens);
  std::reverse(chunks.begin(), chunks.end());  // the next chunk is the last one
  std::vector<std::string> lines;
  const auto size_of = [](std::string_view chunk) { return static_cast<int64_t>(utf8_length(chunk)); };
  while (!chunks.empty()) {
    if (is_ascii_space(chunks.back()) && !lines.empty()) chunks.pop_back();
    std::vector<std::string_view> line;
    int64_t used = 0;
    while (!chunks.empty() && used + size_of(chunks.back()) <= style.width) {
      used += size_of(chunks.back());
      line.push_back(chunks.back());
      chunks.pop_back();
    }
    if (!chunks.empty() && size_of(chunks.back()) > style.width) {
      const int64_t room = style.width - used;
      if (style.break_long_words) {
        const size_t cut = byte_offset(chunks.back(), static_cast<size_t>(std::max<int64_t>(room, 0)));
        line.push_back(chunks.back().substr(0, cut));
        chunks.back().remove_prefix(cut);
      } else if (line.empty()) {
        line.push_back(chunks.back());
        chunks.pop_back();
      }
    }
    if (!line.empty() && is_ascii_space(line.back())) line.pop_back();
    if (line.empty()) continue;
    std::string text;
    for (const std::string_view chunk : line) text += chunk;
    lines.push_back(std::move(text));
  }
  return lines;
}

std::string strip_tags(std::string_view text) {
  std::string plain(text);
  strip_between(plain, "<!--", "-->");
  strip_between(plain, "<", ">");
  std::string joined;
  for (const std::string_view word : split_space(plain)) {
    if (!joined.empty()) joined += ' ';
    joined += word;
  }
  return decode_entities(joined);
}

std::string pretty_repr(Runtime& runtime, const Value& value) {
  PrettyWriter writer(runtime);
  writer.write(value, 0, 0);
  return writer.take();
}

}  // namespace millrace::jinja
