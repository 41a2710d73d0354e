#include "tokenizer/jinja/lexer.h"

#include <algorithm>
#include <array>
#include <charconv>

#include "base/utf8.h"
#include "tokenizer/jinja/text_ops.h"

namespace millrace::jinja {
namespace {

// Line ends become \n, and one at the very end is dropped.
std::string normalize(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      out += '\n';
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    } else {
      out += source[i];
    }
  }
  if (out.ends_with('\n')) out.pop_back();
  return out;
}

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_digit_of(char c, int base) {
  const int value = is_digit(c)            ? c - '0'
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                           : 99;
  return value < base;
}

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(source) {}

  std::vector<Token> run() {
    while (at_ < source_.size()) template_text();
    emit(TokenKind::kEnd);
    return std::move(tokens_);
  }

 private:
  enum class Tag { kNone, kBlock, kVariable, kComment, kRaw };

  std::string_view rest() const { return source_.substr(at_); }
  bool next_is(std::string_view what) const { return rest().starts_with(what); }

  Token& emit(TokenKind kind, std::string text = {}) {
    Token& token = tokens_.emplace_back();
    token.kind = kind;
    token.line = line_;
    token.text = std::move(text);
    return token;
  }

  // Moves on and counts lines; remembers whether what was passed ends a line.
  void advance(size_t bytes) {
    const std::string_view passed = rest().substr(0, bytes);
    line_ += static_cast<int>(std::count(passed.begin(), passed.end(), '\n'));
    if (!passed.empty()) line_starting_ = passed.back() == '\n';
    at_ += bytes;
  }
  void skip_space() { advance(rest().size() - strip_space(rest(), Side::kLeft).size()); }

  // Text up to the next tag, then that tag.
  void template_text() {
    size_t begin = at_;
    Tag tag = Tag::kNone;
    for (; (begin = source_.find('{', begin)) != std::string_view::npos; ++begin)
      if ((tag = tag_at(begin)) != Tag::kNone) break;
    if (tag == Tag::kNone) {
      data(source_.size(), Tag::kNone, '\0');
      return;
    }
    const char sign = begin + 2 < source_.size() ? source_[begin + 2] : '\0';
    data(begin, tag, sign);
    const size_t open = sign == '-' || sign == '+' ? 3 : 2;
    switch (tag) {
      case Tag::kComment:
        return comment(open);
      case Tag::kRaw:
        return raw();
      case Tag::kBlock:
        emit(TokenKind::kBlockBegin);
        advance(open);
        return expression(Tag::kBlock);
      default:
        emit(TokenKind::kVariableBegin);
        advance(open);
        return expression(Tag::kVariable);
    }
  }

  Tag tag_at(size_t begin) const {
    const char second = begin + 1 < source_.size() ? source_[begin + 1] : '\0';
    if (second == '{') return Tag::kVariable;
    if (second == '#') return Tag::kComment;
    if (second != '%') return Tag::kNone;
    return raw_tag_size(begin) > 0 ? Tag::kRaw : Tag::kBlock;
  }

  // Bytes of "{% word %}" at `begin`, up to and without what follows the closing tag; 0 if it is something else.
  size_t word_tag_size(size_t begin, std::string_view word, bool plus_end) const {
    std::string_view tag = source_.substr(begin + 2);
    if (tag.starts_with('-') || tag.starts_with('+')) tag.remove_prefix(1);
    tag = strip_space(tag, Side::kLeft);
    if (!tag.starts_with(word)) return 0;
    tag = strip_space(tag.substr(word.size()), Side::kLeft);
    if (tag.starts_with('-') || (plus_end && tag.starts_with('+'))) tag.remove_prefix(1);
    if (!tag.starts_with("%}")) return 0;
    return source_.size() - begin - tag.size() + 2;
  }
  size_t raw_tag_size(size_t begin) const { return word_tag_size(begin, "raw", false); }

  // Emits the text before the tag at `end`, stripped as the tag's sign and lstrip_blocks ask for.
  void data(size_t end, Tag tag, char sign) {
    const std::string_view text = source_.substr(at_, end - at_);
    std::string_view kept = text;
    if (tag != Tag::kNone && sign == '-') {
      kept = strip_space(text, Side::kRight);
    } else if (tag != Tag::kNone && tag != Tag::kVariable && sign != '+') {
      const size_t line_begin = text.rfind('\n') + 1;  // 0 if there is no line end
      const bool at_line_start = line_begin > 0 || line_starting_;
      if (at_line_start && strip_space(text.substr(line_begin)).empty()) kept = text.substr(0, line_begin);
    }
    if (!kept.empty()) emit(TokenKind::kData, std::string(kept));
    advance(text.size());
  }

  // Moves past a closing "%}" or "#}" and the white space that belongs to it: all after '-', else one line end.
  void close_tag(char sign) {
    advance(sign == '-' || sign == '+' ? 3 : 2);
    if (sign == '-') {
      skip_space();
    } else if (sign != '+' && next_is("\n")) {
      advance(1);
    }
  }

  void comment(size_t open) {
    const int begun = line_;
    advance(open);
    if (rest().empty()) return;  // an opened comment at the very end passes in Jinja
    const size_t end = rest().find("#}");
    if (end == std::string_view::npos) fail_at(begun, "the comment has no closing '#}'");
    const char last = end > 0 ? rest()[end - 1] : '\0';
    const char sign = last == '-' || last == '+' ? last : '\0';
    advance(sign ? end - 1 : end);
    close_tag(sign);
  }

  void raw() {
    const int begun = line_;
    const size_t size = raw_tag_size(at_);
    const bool strips = source_[at_ + size - 3] == '-';
    advance(size);
    if (strips) skip_space();
    if (rest().empty()) return;  // as with comments
    for (size_t end = at_; (end = source_.find("{%", end)) != std::string_view::npos; ++end) {
      const size_t tag = word_tag_size(end, "endraw", true);
      if (tag == 0) continue;
      data(end, Tag::kRaw, source_[end + 2]);
      const char last = source_[at_ + tag - 3];
      const char sign = last == '-' || last == '+' ? last : '\0';
      advance(tag - (sign ? 3 : 2));
      return close_tag(sign);
    }
    fail_at(begun, "the raw block has no {% endraw %}");
  }

  // The tokens of a tag, up to and with its end.
  void expression(Tag tag) {
    const int begun = line_;
    brackets_.clear();
    while (at_ < source_.size()) {
      if (brackets_.empty() && tag_end(tag)) return;
      token();
    }
    fail_at(begun, tag == Tag::kBlock ? "the statement has no closing '%}'" : "the expression has no closing '}}'");
  }

  bool tag_end(Tag tag) {
    if (tag == Tag::kVariable) {
      if (!next_is("}}") && !next_is("-}}")) return false;
      emit(TokenKind::kVariableEnd);
      const bool strips = next_is("-");
      advance(strips ? 3 : 2);
      if (strips) skip_space();
      return true;
    }
    if (!next_is("%}") && !next_is("-%}") && !next_is("+%}")) return false;
    emit(TokenKind::kBlockEnd);
    close_tag(next_is("%}") ? '\0' : rest()[0]);
    return true;
  }

  void token() {
    const char c = rest()[0];
    const Utf8Char whole = utf8_at(source_, at_);
    if (is_space(whole.code)) return skip_space();
    if (is_digit(c)) return number();
    if (is_identifier_start(whole.code)) return name();
    if (c == '"' || c == '\'') return string(c);
    operator_sign();
  }

  void name() {
    size_t size = 0;
    while (at_ + size < source_.size()) {
      const Utf8Char c = utf8_at(source_, at_ + size);
      if (!is_identifier_part(c.code)) break;
      size += static_cast<size_t>(c.bytes);
    }
    emit(TokenKind::kName, std::string(rest().substr(0, size)));
    advance(size);
  }

  // Bytes of digits with single underscores between them.
  static size_t digits_size(std::string_view text, int base) {
    size_t size = 0;
    while (size < text.size()) {
      const bool underscore = text[size] == '_' && size > 0 && size + 1 < text.size();
      if (!is_digit_of(text[size + underscore], base)) break;
      size += 1u + underscore;
    }
    return size;
  }

  // Bytes of a float: digits with a fraction, an exponent, or both; 0 if it is none.
  size_t float_size() const {
    if (at_ > 0 && source_[at_ - 1] == '.') return 0;
    const size_t whole = digits_size(rest(), 10);
    size_t size = whole;
    if (rest().substr(size).starts_with('.')) {
      const size_t fraction = digits_size(rest().substr(size + 1), 10);
      if (fraction > 0) size += 1 + fraction;
    }
    if (size < rest().size() && (rest()[size] == 'e' || rest()[size] == 'E')) {
      size_t sign = size + 1;
      if (sign < rest().size() && (rest()[sign] == '+' || rest()[sign] == '-')) ++sign;
      const size_t exponent = sign < rest().size() ? digits_size(rest().substr(sign), 10) : 0;
      if (exponent > 0) size = sign + exponent;
    }
    return size > whole ? size : 0;
  }

  void number() {
    if (const size_t size = float_size(); size > 0) {
      emit(TokenKind::kFloat).real = parse_float(rest().substr(0, size)).value_or(0);
      return advance(size);
    }
    int base = 10;
    size_t prefix = 0;
    if (rest()[0] == '0' && rest().size() > 1) {
      const char letter = static_cast<char>(rest()[1] | 0x20);
      base = letter == 'x' ? 16 : letter == 'o' ? 8 : letter == 'b' ? 2 : 10;
      prefix = base == 10 ? 0 : 2;
      if (prefix && rest().size() > 3 && rest()[2] == '_') ++prefix;
      if (prefix && digits_size(rest().substr(prefix), base) == 0) base = 10, prefix = 0;
    }
    size_t size = digits_size(rest().substr(prefix), base);
    if (base == 10 && rest()[0] == '0')  // decimal numbers have no leading zeros: only zeros follow one
      size = std::min(size, std::min(rest().find_first_not_of("0_"), rest().size()));
    const std::string_view text = rest().substr(0, prefix + size);
    bool overflow = false;
    const auto value = parse_int(text, 0, &overflow);
    if (!value || overflow) fail_at(line_, fmt::format("the number {} does not fit 64 bits", text));
    emit(TokenKind::kInteger).integer = *value;
    advance(text.size());
  }

  void string(char quote) {
    size_t end = 1;
    while (end < rest().size() && rest()[end] != quote) end += rest()[end] == '\\' ? 2 : 1;
    if (end >= rest().size()) fail_at(line_, "the string has no closing quote");
    emit(TokenKind::kString, unescape(rest().substr(1, end - 1)));
    advance(end + 1);
  }

  std::string unescape(std::string_view text) const {
    std::string out;
    for (size_t at; (at = text.find('\\')) != std::string_view::npos;) {
      out += text.substr(0, at);
      text.remove_prefix(at + 1);
      escape(text, out);
    }
    return out += text;
  }

  // One escape; `text` begins behind the backslash.
  void escape(std::string_view& text, std::string& out) const {
    constexpr std::string_view kLetters = "abfnrtv\\'\"", kMeanings = "\a\b\f\n\r\t\v\\'\"";
    const char c = text[0];
    if (const size_t known = kLetters.find(c); known != std::string_view::npos) {
      out += kMeanings[known];
      text.remove_prefix(1);
    } else if (c == '\n') {
      text.remove_prefix(1);
    } else if (c >= '0' && c <= '7') {
      size_t size = 1;
      while (size < 3 && size < text.size() && text[size] >= '0' && text[size] <= '7') ++size;
      coded(text, 0, size, 8, out);
    } else if (c == 'x' || c == 'u' || c == 'U') {
      coded(text, 1, c == 'x' ? 2 : c == 'u' ? 4 : 8, 16, out);
    } else if (c == 'N') {
      fail_at(line_, "a string names a character with \\N{...}, which is not supported; write \\u instead");
    } else {
      out += '\\';
    }
  }

  void coded(std::string_view& text, size_t skip, size_t digits, int base, std::string& out) const {
    uint32_t code = 0;
    const std::string_view number = text.substr(skip, digits);
    const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), code, base);
    if (number.size() < digits || end != number.data() + number.size() || error != std::errc())
      fail_at(line_, fmt::format("the escape \\{} in a string is cut short", text.substr(0, skip + digits)));
    if (code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff))
      fail_at(line_, fmt::format("the escape \\{} in a string is no character", text.substr(0, skip + digits)));
    append_utf8(out, code);
    text.remove_prefix(skip + digits);
  }

  void operator_sign() {
    constexpr std::array<std::string_view, 26> kOperators = {"//", "**", "==", "!=", ">=", "<=", "+", "-", "/",
                                                             "*",  "%",  "~",  "[",  "]",  "(",  ")", "{", "}",
                                                             ">",  "<",  "=",  ".",  ":",  "|",  ",", ";"};
    const auto* found = std::find_if(kOperators.begin(), kOperators.end(), [&](auto sign) { return next_is(sign); });
    if (found == kOperators.end()) {
      const auto size = static_cast<size_t>(utf8_at(source_, at_).bytes);
      fail_at(line_, fmt::format("unexpected character '{}'", rest().substr(0, size)));
    }
    balance((*found)[0]);
    emit(TokenKind::kOperator, std::string(*found));
    advance(found->size());
  }

  void balance(char c) {
    constexpr std::string_view kOpening = "([{", kClosing = ")]}";
    if (const size_t open = kOpening.find(c); open != std::string_view::npos) brackets_ += kClosing[open];
    if (kClosing.find(c) == std::string_view::npos) return;
    if (brackets_.empty()) fail_at(line_, fmt::format("unexpected '{}'", c));
    if (brackets_.back() != c) fail_at(line_, fmt::format("unexpected '{}'; wanted '{}'", c, brackets_.back()));
    brackets_.pop_back();
  }

  const std::string_view source_;
  size_t at_ = 0;
  int line_ = 1;
  bool line_starting_ = true;
  std::string brackets_;  // the closing brackets that are due
  std::vector<Token> tokens_;
};

}  // namespace

void fail_at(int line, const std::string& message) {
  throw Failure{Status(Code::kInvalidArgument, fmt::format("chat template, line {}: {}", line, message)), true};
}

std::vector<Token> tokenize(std::string_view source) {
  const std::string text = normalize(source);
  return Lexer(text).run();
}

std::string describe(const Token& token) {
  switch (token.kind) {
    case TokenKind::kData:
      return "text";
    case TokenKind::kBlockBegin:
      return "'{%'";
    case TokenKind::kBlockEnd:
      return "'%}'";
    case TokenKind::kVariableBegin:
      return "'{{'";
    case TokenKind::kVariableEnd:
      return "'}}'";
    case TokenKind::kString:
      return "a string";
    case TokenKind::kInteger:
    case TokenKind::kFloat:
      return "a number";
    case TokenKind::kEnd:
      return "the end of the template";
    default:
      return fmt::format("'{}'", token.text);
  }
}

}  // namespace millrace::jinja
