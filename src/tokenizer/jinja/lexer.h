// Template source to tokens, with Jinja's whitespace rules for trim_blocks=True, lstrip_blocks=True and
// keep_trailing_newline=False, as chat templates are written for.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/jinja/limits.h"
#include "tokenizer/jinja/value.h"

namespace millrace::jinja {

enum class TokenKind : uint8_t {
  kData,           // text between tags; `text` is what is left of it
  kBlockBegin,     // {%
  kBlockEnd,       // %}
  kVariableBegin,  // {{
  kVariableEnd,    // }}
  kName,
  kString,    // `text` has its escapes resolved
  kInteger,   // `integer`
  kFloat,     // `real`
  kOperator,  // `text` is the operator
  kEnd,
};

struct Token {
  TokenKind kind = TokenKind::kEnd;
  int line = 1;
  std::string text;
  int64_t integer = 0;
  double real = 0;
  bool is_operator(std::string_view symbol) const { return kind == TokenKind::kOperator && text == symbol; }
  bool is_name(std::string_view name) const { return kind == TokenKind::kName && text == name; }
};

// A failure with the line of the source in its message.
[[noreturn]] void fail_at(int line, const std::string& message);

// Ends with a kEnd token. Fails with the line for anything that is not a token. `source` must be valid UTF-8.
std::vector<Token> tokenize(std::string_view source);

// How an error message names the token.
std::string describe(const Token& token);

}  // namespace millrace::jinja
