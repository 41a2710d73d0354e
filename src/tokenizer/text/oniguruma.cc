// oniguruma_to_pcre2: one pass over the pattern; character classes become an expression for one character.
#include <unicode/uchar.h>

#include <array>
#include <optional>
#include <utility>
#include <vector>

#include "base/utf8.h"
#include "tokenizer/text/regex.h"

namespace millrace {
namespace {

// \w inside brackets; outside it holds the numbers of Latin-1 besides.
constexpr std::string_view kWordItems = "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}";
constexpr std::string_view kBareWordItems = "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\xb2\\xb3\\xb9\\xbc-\\xbe";
constexpr int kMaxClassDepth = 32;

struct NamedItems {
  std::string_view name, items;
};
// Properties whose names PCRE2 lacks or takes for something else, as items of a bracket expression.
constexpr std::array<NamedItems, 19> kProperties = {{
    {"letter", "\\p{L}"},
    {"mark", "\\p{M}"},
    {"number", "\\p{N}"},
    {"punctuation", "\\p{P}"},
    {"punct", "\\p{P}"},
    {"symbol", "\\p{S}"},
    {"separator", "\\p{Z}"},
    {"other", "\\p{C}"},
    {"digit", "\\p{Nd}"},
    {"decimalnumber", "\\p{Nd}"},
    {"uppercaseletter", "\\p{Lu}"},
    {"lowercaseletter", "\\p{Ll}"},
    {"titlecaseletter", "\\p{Lt}"},
    {"modifierletter", "\\p{Lm}"},
    {"otherletter", "\\p{Lo}"},
    {"cntrl", "\\p{Cc}"},
    {"alpha", "\\p{Alphabetic}"},
    {"alnum", "\\p{Alphabetic}\\p{Nd}"},
    {"word", kBareWordItems},
}};
// Names between "[:" and ":]".
constexpr std::array<NamedItems, 9> kPosixClasses = {{
    {"alpha", "\\p{Alphabetic}"},
    {"alnum", "\\p{Alphabetic}\\p{Nd}"},
    {"punct", "\\p{P}\\p{S}"},
    {"space", "\\p{White_Space}"},
    {"upper", "\\p{Uppercase}"},
    {"lower", "\\p{Lowercase}"},
    {"digit", "\\p{Nd}"},
    {"word", kWordItems},
    {"cntrl", "\\p{Cc}"},
}};

template <size_t kSize>
std::string_view items_of(const std::array<NamedItems, kSize>& rows, std::string_view name) {
  for (const NamedItems& row : rows)
    if (row.name == name) return row.items;
  return {};
}

std::string plain_name(std::string_view name) {
  std::string plain;
  for (const char c : name)
    if (c != '_' && c != ' ' && c != '-') plain += static_cast<char>(std::tolower(static_cast<uint8_t>(c)));
  return plain;
}

bool is_script_name(const std::string& name) {
  return u_getPropertyValueEnum(UCHAR_SCRIPT, name.c_str()) != UCHAR_INVALID_CODE;
}

// A bracket expression, or its items where it will stand inside one.
std::string bracket(std::string_view items, bool negated, bool in_class) {
  if (in_class && !negated) return std::string(items);
  return (negated ? "[^" : "[") + std::string(items) + "]";
}

class Translator {
 public:
  explicit Translator(std::string_view pattern) : in_(pattern) {}

  Result<std::string> run() {
    while (at_ < in_.size()) MR_RETURN_IF_ERROR(element());
    if (!groups_.empty()) return fail("a group is not closed");
    return std::move(out_);
  }

 private:
  Status fail(std::string_view what) const {
    return invalid_argument("pattern '{}' is not a regular expression: {} (byte {})", in_, what, at_);
  }
  bool next_is(std::string_view text) const { return in_.substr(at_).starts_with(text); }

  Status element() {
    const char c = in_[at_];
    if (c == '(') return open_group();
    if (c == ')') return close_group();
    if (c == '{' && interval()) return {};
    if (c == '*' || c == '+' || c == '?' || c == '|') {
      out_ += in_[at_++];
      return {};
    }
    atom_ = out_.size();
    if (c == '[') {
      MR_ASSIGN_OR_RETURN(const std::string expression, char_class(0));
      out_ += expression;
    } else if (c == '\\') {
      MR_ASSIGN_OR_RETURN(const std::string expression, escape(/*in_class=*/false));
      out_ += expression;
    } else {
      out_ += in_[at_++];
    }
    return {};
  }

  Status open_group() {
    groups_.push_back(out_.size());
    out_ += in_[at_++];
    if (!next_is("?")) return {};
    out_ += in_[at_++];
    bool options = false;  // letters up to ':' or ')' are options
    for (size_t i = at_; i < in_.size() && !options; ++i) {
      options = i > at_ && (in_[i] == ':' || in_[i] == ')');
      if (!options && std::string_view("imsx-").find(in_[i]) == std::string_view::npos) return {};
    }
    for (; at_ < in_.size() && in_[at_] != ':' && in_[at_] != ')'; ++at_) out_ += in_[at_] == 'm' ? 's' : in_[at_];
    if (next_is(":")) out_ += in_[at_++];
    return {};
  }

  Status close_group() {
    if (groups_.empty()) return fail("')' without '('");
    atom_ = groups_.back();
    groups_.pop_back();
    out_ += in_[at_++];
    return {};
  }

  // {n}, {n,}, {n,m}, {,m}; false where the brace is an ordinary character. A '+' after it repeats the repetition, and
  // so does a '?' after {n}.
  bool interval() {
    size_t i = at_ + 1;
    std::string low, high;
    while (i < in_.size() && std::isdigit(static_cast<uint8_t>(in_[i]))) low += in_[i++];
    const bool comma = i < in_.size() && in_[i] == ',';
    if (comma) ++i;
    while (comma && i < in_.size() && std::isdigit(static_cast<uint8_t>(in_[i]))) high += in_[i++];
    if (i >= in_.size() || in_[i] != '}' || (low.empty() && high.empty())) return false;
    at_ = i + 1;
    out_ += "{" + (low.empty() ? "0" : low) + (comma ? "," + high : "") + "}";
    if (next_is("+") || (next_is("?") && !comma)) {
      out_.insert(atom_, "(?:");
      out_ += ")";
    }
    return true;
  }

  // The escape at at_, which is passed over.
  Result<std::string> escape(bool in_class) {
    if (at_ + 1 >= in_.size()) return fail("it ends in a backslash");
    const char c = in_[at_ + 1];
    at_ += 2;
    switch (c) {
      case 's':
        return std::string("\\p{White_Space}");
      case 'S':
        return std::string("\\P{White_Space}");
      case 'w':
      case 'W':
        return bracket(in_class ? kWordItems : kBareWordItems, c == 'W', in_class);
      case 'h':
      case 'H':
        return bracket("0-9a-fA-F", c == 'H', in_class);
      case 'b':
      case 'B':
        return in_class ? std::string{'\\', c} : word_boundary(c == 'B');
      case 'u':
        return unicode_escape();
      case 'p':
      case 'P':
        return property(c, in_class);
      default:
        return std::string{'\\', c};
    }
  }

  static std::string word_boundary(bool negated) {
    const std::string word = bracket(kBareWordItems, false, false);
    const std::string left = "(?<=" + word + ")", not_left = "(?<!" + word + ")";
    const std::string right = "(?=" + word + ")", not_right = "(?!" + word + ")";
    if (negated) return "(?:" + left + right + "|" + not_left + not_right + ")";
    return "(?:" + left + not_right + "|" + not_left + right + ")";
  }

  Result<std::string> unicode_escape() {
    const std::string_view digits = in_.substr(at_, 4);
    if (digits.size() < 4) return fail("\\u wants four hexadecimal digits");
    for (const char d : digits)
      if (!std::isxdigit(static_cast<uint8_t>(d))) return fail("\\u wants four hexadecimal digits");
    at_ += 4;
    return "\\x{" + std::string(digits) + "}";
  }

  Result<std::string> property(char kind, bool in_class) {
    if (!next_is("{")) return std::string{'\\', kind};
    const size_t end = in_.find('}', at_);
    if (end == std::string_view::npos) return fail("a property name is not closed");
    std::string_view name = in_.substr(at_ + 1, end - at_ - 1);
    at_ = end + 1;
    const bool caret = name.starts_with('^');
    if (caret) name.remove_prefix(1);
    const bool negated = caret != (kind == 'P');
    const std::string_view items = items_of(kProperties, plain_name(name));
    if (!items.empty()) return bracket(items, negated, in_class);
    const std::string full = is_script_name(std::string(name)) ? "sc:" + std::string(name) : std::string(name);
    return std::string(negated ? "\\P{" : "\\p{") + full + "}";
  }

  // One side of an intersection: items of a bracket expression, and classes that do not fit into one.
  struct Operand {
    std::string items;
    std::vector<std::string> nested;
    std::string expression() const {
      if (nested.empty()) return "[" + items + "]";
      std::string out = "(?:" + (items.empty() ? "" : "[" + items + "]|");
      for (const std::string& n : nested) out += n + "|";
      out.back() = ')';
      return out;
    }
  };

  // The class at at_, which is passed over, as an expression for one character.
  Result<std::string> char_class(int depth) {
    if (depth > kMaxClassDepth) return fail("character classes nest too deep");
    ++at_;
    const bool negated = next_is("^");
    if (negated) ++at_;
    std::vector<Operand> operands(1);
    for (bool first = true; first || !next_is("]"); first = false) {
      if (at_ >= in_.size()) return fail("a character class is not closed");
      if (next_is("&&")) {
        at_ += 2;
        operands.emplace_back();
      } else {
        MR_RETURN_IF_ERROR(class_item(operands.back(), depth));
      }
    }
    ++at_;
    for (const Operand& operand : operands)
      if (operand.items.empty() && operand.nested.empty()) return fail("a character class is empty");
    return join(operands, negated);
  }

  static std::string join(const std::vector<Operand>& operands, bool negated) {
    if (operands.size() == 1 && operands[0].nested.empty()) return (negated ? "[^" : "[") + operands[0].items + "]";
    std::string all;
    for (size_t i = 0; i + 1 < operands.size(); ++i) all += "(?=" + operands[i].expression() + ")";
    all += operands.back().expression();
    return negated ? "(?:(?!" + all + ")(?s:.))" : "(?:" + all + ")";
  }

  // "[:name:]" or "[:^name:]" at at_; false if it is something else.
  bool posix_class(Operand& operand) {
    const size_t end = in_.find(":]", at_ + 2);
    if (end == std::string_view::npos) return false;
    std::string_view name = in_.substr(at_ + 2, end - at_ - 2);
    const bool negated = name.starts_with('^');
    if (negated) name.remove_prefix(1);
    if (name.empty() || name.find_first_not_of("abcdefghijklmnopqrstuvwxyz") != std::string_view::npos) return false;
    const std::string_view items = items_of(kPosixClasses, name);
    const std::string known = items.empty() ? "[:" + std::string(name) + ":]" : std::string(items);
    if (negated)
      operand.nested.push_back("[^" + known + "]");
    else
      operand.items += known;
    at_ = end + 2;
    return true;
  }

  // Passes over "b-a", a range that holds nothing; PCRE2 refuses it.
  bool skip_empty_range() {
    const Utf8Char low = utf8_at(in_, at_);
    const size_t dash = at_ + low.bytes;
    if (dash + 1 >= in_.size() || in_[dash] != '-') return false;
    const Utf8Char high = utf8_at(in_, dash + 1);
    if (high.code == '[' || high.code == ']' || high.code == '\\' || low.code <= high.code) return false;
    at_ = dash + 1 + high.bytes;
    return true;
  }

  Status class_item(Operand& operand, int depth) {
    if (next_is("[:") && posix_class(operand)) return {};
    if (next_is("[")) {
      MR_ASSIGN_OR_RETURN(std::string nested, char_class(depth + 1));
      operand.nested.push_back(std::move(nested));
      return {};
    }
    if (!next_is("\\")) {
      if (skip_empty_range()) return {};
      if (next_is("]")) operand.items += '\\';  // the first character of a class: itself
      const size_t bytes = static_cast<size_t>(utf8_at(in_, at_).bytes);
      operand.items += in_.substr(at_, bytes);
      at_ += bytes;
      return {};
    }
    MR_ASSIGN_OR_RETURN(std::string item, escape(/*in_class=*/true));
    if (item.front() == '[')
      operand.nested.push_back(std::move(item));
    else
      operand.items += item;
    return {};
  }

  std::string_view in_;
  size_t at_ = 0;
  std::string out_;
  size_t atom_ = 0;             // where the last atom starts in out_
  std::vector<size_t> groups_;  // where the open groups start in out_
};

}  // namespace

Result<std::string> oniguruma_to_pcre2(std::string_view pattern) { return Translator(pattern).run(); }

}  // namespace millrace
