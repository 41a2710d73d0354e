// The expression half of the grammar, and the token stream both halves read.
#pragma once
#include <algorithm>
#include <memory>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "tokenizer/jinja/ast.h"
#include "tokenizer/jinja/lexer.h"

namespace millrace::jinja {

class TokenStream {
 public:
  // `tokens` ends with a kEnd token.
  TokenStream(std::vector<Token> tokens, int max_nesting) : tokens_(std::move(tokens)), max_nesting_(max_nesting) {}

  const Token& current() const { return tokens_[at_]; }
  const Token& look_ahead() const { return tokens_[std::min(at_ + 1, tokens_.size() - 1)]; }
  // The current token, which is passed over.
  const Token& next() {
    const Token& token = current();
    if (at_ + 1 < tokens_.size()) ++at_;
    return token;
  }
  bool skip_operator(std::string_view symbol);
  bool skip_name(std::string_view name);
  const Token& expect(TokenKind kind, std::string_view wanted);
  void expect_operator(std::string_view symbol);
  void expect_name(std::string_view name);

  // Counts how deep brackets and blocks are nested while it lives; fails beyond the limit.
  class Nesting {
   public:
    explicit Nesting(TokenStream& stream);
    ~Nesting() { --stream_.nesting_; }
    Nesting(const Nesting&) = delete;
    Nesting& operator=(const Nesting&) = delete;

   private:
    TokenStream& stream_;
  };

 private:
  std::vector<Token> tokens_;
  size_t at_ = 0;
  int nesting_ = 0;
  const int max_nesting_;
};

class ExpressionParser {
 public:
  ExpressionParser(Program& program, TokenStream& stream) : program_(program), stream_(stream) {}

  ExprPtr parse_expression() { return parse_conditional(); }
  // One expression, or several separated by commas, which make a tuple.
  ExprPtr parse_tuple() { return parse_tuple_of(&ExpressionParser::parse_conditional, false); }
  ExprPtr parse_tuple_without_conditional() { return parse_tuple_of(&ExpressionParser::parse_or, false); }
  // After `in` of a for statement: like the above, and `recursive` ends it too.
  ExprPtr parse_iterable() { return parse_tuple_of(&ExpressionParser::parse_or, false, "recursive"); }

  struct TargetRules {
    bool namespaces;  // name.attribute is allowed
    bool until_in;    // the name `in` ends the target
  };
  Target parse_target(const TargetRules& rules);
  // The symbol of a name that is about to be assigned to; fails for true, false and none.
  Symbol assignable(const Token& name);

  // "|a|b(...)" applied to `input`; without a leading '|', `input` itself. `input` may be null: a block supplies it.
  ExprPtr parse_filters(ExprPtr input);
  // "a|b(...)" after {% filter.
  ExprPtr parse_first_filter();

  // Fails if an unknown filter or test was met that is not inside a condition.
  void fail_if_unknown() const;

  // How often the name has been read as a variable so far.
  size_t uses_of(std::string_view name) const;
  // Unknown filters and tests are errors of the template, or only when reached if `conditional`. Returns what held
  // before.
  bool set_conditional(bool conditional) { return std::exchange(conditional_, conditional); }

 private:
  using Parse = ExprPtr (ExpressionParser::*)();
  ExprPtr parse_tuple_of(Parse item, bool may_be_empty, std::string_view end_name = {});
  ExprPtr parse_conditional();
  ExprPtr parse_or();
  ExprPtr parse_and();
  ExprPtr parse_not();
  ExprPtr parse_comparison();
  ExprPtr parse_sum();
  ExprPtr parse_concat();
  ExprPtr parse_product();
  ExprPtr parse_power();
  ExprPtr parse_signed(bool with_filters);
  ExprPtr parse_unary() { return parse_signed(true); }
  ExprPtr parse_primary();
  ExprPtr parse_name();
  ExprPtr parse_string();
  ExprPtr parse_list();
  ExprPtr parse_dict();
  ExprPtr parse_postfix(ExprPtr node);
  ExprPtr parse_filters_and_tests(ExprPtr node);
  ExprPtr parse_attribute(ExprPtr object);
  ExprPtr parse_element(ExprPtr object);
  ExprPtr parse_slice(ExprPtr object, ExprPtr start, int line);
  ExprPtr parse_call(ExprPtr callee);
  ExprPtr parse_filter(ExprPtr input, int line);
  ExprPtr parse_test(ExprPtr input);
  bool test_argument_follows() const;
  void parse_arguments(CallArguments& arguments);
  void parse_argument(CallArguments& arguments);
  ExprPtr parse_binaries(Parse operand, std::initializer_list<std::pair<std::string_view, BinaryOp>> operators);
  std::string parse_dotted_name(std::string_view what);
  ExprPtr literal(int line, Value value);
  Target parse_target_part(const TargetRules& rules);
  void check_height(Expr& node, std::initializer_list<const Expr*> children);
  int height_of(const CallArguments& arguments) const;
  void check_height(Expr& node, int below);

  Program& program_;
  TokenStream& stream_;
  std::unordered_map<std::string, size_t> uses_;
  bool conditional_ = false;
  std::vector<std::pair<int, std::string>> unknown_;  // line and message
};

}  // namespace millrace::jinja
