#include "tokenizer/jinja/expression_parser.h"

#include <algorithm>
#include <optional>

#include "base/text.h"
#include "tokenizer/jinja/filters.h"
#include "tokenizer/jinja/tests.h"

namespace millrace::jinja {
namespace {

// Long chains such as a + b + c + ... make trees as high as they are long; beyond this they could exhaust the stack.
constexpr int kMaxHeight = 300;

std::optional<CompareOp> comparison_of(const Token& token) {
  if (token.kind != TokenKind::kOperator) return std::nullopt;
  constexpr std::pair<std::string_view, CompareOp> kOperators[] = {
      {"==", CompareOp::kEqual},     {"!=", CompareOp::kNotEqual}, {"<", CompareOp::kLess},
      {"<=", CompareOp::kLessEqual}, {">", CompareOp::kGreater},   {">=", CompareOp::kGreaterEqual}};
  for (const auto& [symbol, op] : kOperators)
    if (token.text == symbol) return op;
  return std::nullopt;
}

}  // namespace

bool TokenStream::skip_operator(std::string_view symbol) {
  const bool found = current().is_operator(symbol);
  if (found) next();
  return found;
}

bool TokenStream::skip_name(std::string_view name) {
  const bool found = current().is_name(name);
  if (found) next();
  return found;
}

const Token& TokenStream::expect(TokenKind kind, std::string_view wanted) {
  if (current().kind != kind) fail_at(current().line, fmt::format("{} found; wanted {}", describe(current()), wanted));
  return next();
}

void TokenStream::expect_operator(std::string_view symbol) {
  if (!skip_operator(symbol))
    fail_at(current().line, fmt::format("{} found; wanted '{}'", describe(current()), symbol));
}

void TokenStream::expect_name(std::string_view name) {
  if (!skip_name(name)) fail_at(current().line, fmt::format("{} found; wanted '{}'", describe(current()), name));
}

TokenStream::Nesting::Nesting(TokenStream& stream) : stream_(stream) {
  if (stream.nesting_ >= stream.max_nesting_)
    throw Failure{resource_exhausted("chat template, line {}: the source nests more than {} deep",
                                     stream.current().line, stream.max_nesting_),
                  true};
  ++stream.nesting_;
}

void ExpressionParser::check_height(Expr& node, int below) {
  node.height = below + 1;
  if (node.height > kMaxHeight)
    throw Failure{resource_exhausted("chat template, line {}: an expression chains more than {} operations", node.line,
                                     kMaxHeight),
                  true};
}

void ExpressionParser::check_height(Expr& node, std::initializer_list<const Expr*> children) {
  int below = 0;
  for (const Expr* child : children) below = std::max(below, child ? child->height : 0);
  check_height(node, below);
}

int ExpressionParser::height_of(const CallArguments& arguments) const {
  int height =
      std::max(arguments.more ? arguments.more->height : 0, arguments.more_named ? arguments.more_named->height : 0);
  for (const ExprPtr& item : arguments.positional) height = std::max(height, item->height);
  for (const auto& [name, item] : arguments.named) height = std::max(height, item->height);
  return height;
}

void ExpressionParser::fail_if_unknown() const {
  if (!unknown_.empty()) fail_at(unknown_.front().first, unknown_.front().second);
}

size_t ExpressionParser::uses_of(std::string_view name) const {
  const auto found = uses_.find(std::string(name));
  return found == uses_.end() ? 0 : found->second;
}

ExprPtr ExpressionParser::literal(int line, Value value) {
  auto node = std::make_unique<LiteralExpr>(line);
  node->value = std::move(value);
  return node;
}

ExprPtr ExpressionParser::parse_tuple_of(Parse item, bool may_be_empty, std::string_view end_name) {
  const auto at_end = [&] {
    const Token& token = stream_.current();
    return token.kind == TokenKind::kVariableEnd || token.kind == TokenKind::kBlockEnd || token.is_operator(")") ||
           (!end_name.empty() && token.is_name(end_name));
  };
  const int line = stream_.current().line;
  auto tuple = std::make_unique<ListExpr>(line);
  tuple->is_tuple = true;
  int below = 0;
  bool comma = false;
  while (!at_end()) {
    tuple->items.push_back((this->*item)());
    below = std::max(below, tuple->items.back()->height);
    if (!stream_.skip_operator(",")) break;
    comma = true;
  }
  if (!comma && tuple->items.size() == 1) return std::move(tuple->items.front());
  if (tuple->items.empty() && !may_be_empty)
    fail_at(line, fmt::format("{} found; wanted an expression", describe(stream_.current())));
  check_height(*tuple, below);
  return tuple;
}

ExprPtr ExpressionParser::parse_conditional() {
  const TokenStream::Nesting nesting(stream_);
  const size_t unknown = unknown_.size();
  ExprPtr value = parse_or();
  while (stream_.current().is_name("if")) {
    unknown_.resize(unknown);  // what was just parsed turns out to be conditional
    auto node = std::make_unique<ConditionalExpr>(stream_.next().line);
    const bool before = set_conditional(true);
    node->then = std::move(value);
    node->condition = parse_or();
    if (stream_.skip_name("else")) node->otherwise = parse_conditional();
    set_conditional(before);
    check_height(*node, {node->then.get(), node->condition.get(), node->otherwise.get()});
    value = std::move(node);
  }
  return value;
}

ExprPtr ExpressionParser::parse_or() {
  ExprPtr left = parse_and();
  while (stream_.current().is_name("or")) {
    auto node = std::make_unique<OrExpr>(stream_.next().line);
    node->left = std::move(left);
    node->right = parse_and();
    check_height(*node, {node->left.get(), node->right.get()});
    left = std::move(node);
  }
  return left;
}

ExprPtr ExpressionParser::parse_and() {
  ExprPtr left = parse_not();
  while (stream_.current().is_name("and")) {
    auto node = std::make_unique<AndExpr>(stream_.next().line);
    node->left = std::move(left);
    node->right = parse_not();
    check_height(*node, {node->left.get(), node->right.get()});
    left = std::move(node);
  }
  return left;
}

ExprPtr ExpressionParser::parse_not() {
  if (!stream_.current().is_name("not")) return parse_comparison();
  const TokenStream::Nesting nesting(stream_);
  auto node = std::make_unique<NotExpr>(stream_.next().line);
  node->operand = parse_not();
  check_height(*node, {node->operand.get()});
  return node;
}

ExprPtr ExpressionParser::parse_comparison() {
  ExprPtr first = parse_sum();
  std::unique_ptr<CompareExpr> node;
  for (;;) {
    const int line = stream_.current().line;
    std::optional<CompareOp> op = comparison_of(stream_.current());
    if (op) {
      stream_.next();
    } else if (stream_.skip_name("in")) {
      op = CompareOp::kIn;
    } else if (stream_.current().is_name("not") && stream_.look_ahead().is_name("in")) {
      stream_.next();
      stream_.next();
      op = CompareOp::kNotIn;
    } else {
      break;
    }
    if (!node) {
      node = std::make_unique<CompareExpr>(line);
      node->first = std::move(first);
    }
    node->rest.emplace_back(*op, parse_sum());
    check_height(*node, std::max(node->height - 1, std::max(node->first->height, node->rest.back().second->height)));
  }
  return node ? ExprPtr(std::move(node)) : std::move(first);
}

ExprPtr ExpressionParser::parse_binaries(Parse operand,
                                         std::initializer_list<std::pair<std::string_view, BinaryOp>> operators) {
  ExprPtr left = (this->*operand)();
  for (;;) {
    const auto found = std::find_if(operators.begin(), operators.end(),
                                    [&](const auto& entry) { return stream_.current().is_operator(entry.first); });
    if (found == operators.end()) return left;
    auto node = std::make_unique<BinaryExpr>(stream_.next().line);
    node->op = found->second;
    node->left = std::move(left);
    node->right = (this->*operand)();
    check_height(*node, {node->left.get(), node->right.get()});
    left = std::move(node);
  }
}

ExprPtr ExpressionParser::parse_sum() {
  return parse_binaries(&ExpressionParser::parse_concat, {{"+", BinaryOp::kAdd}, {"-", BinaryOp::kSubtract}});
}

ExprPtr ExpressionParser::parse_concat() {
  ExprPtr first = parse_product();
  if (!stream_.current().is_operator("~")) return first;
  auto node = std::make_unique<ConcatExpr>(stream_.current().line);
  int below = first->height;
  node->items.push_back(std::move(first));
  while (stream_.skip_operator("~")) {
    node->items.push_back(parse_product());
    below = std::max(below, node->items.back()->height);
  }
  check_height(*node, below);
  return node;
}

ExprPtr ExpressionParser::parse_product() {
  return parse_binaries(
      &ExpressionParser::parse_power,
      {{"*", BinaryOp::kMultiply}, {"/", BinaryOp::kDivide}, {"//", BinaryOp::kFloorDivide}, {"%", BinaryOp::kModulo}});
}

ExprPtr ExpressionParser::parse_power() {
  return parse_binaries(&ExpressionParser::parse_unary, {{"**", BinaryOp::kPower}});
}

ExprPtr ExpressionParser::parse_signed(bool with_filters) {
  ExprPtr node;
  const Token& token = stream_.current();
  if (token.is_operator("-") || token.is_operator("+")) {
    const TokenStream::Nesting nesting(stream_);
    const bool minus = stream_.next().text == "-";
    ExprPtr operand = parse_signed(false);
    const auto wrap = [&](auto made) {
      made->operand = std::move(operand);
      check_height(*made, {made->operand.get()});
      node = std::move(made);
    };
    minus ? wrap(std::make_unique<NegateExpr>(token.line)) : wrap(std::make_unique<PlusExpr>(token.line));
  } else {
    node = parse_primary();
  }
  node = parse_postfix(std::move(node));
  return with_filters ? parse_filters_and_tests(std::move(node)) : std::move(node);
}

ExprPtr ExpressionParser::parse_primary() {
  const Token& token = stream_.current();
  if (token.kind == TokenKind::kName) return parse_name();
  if (token.kind == TokenKind::kString) return parse_string();
  if (token.kind == TokenKind::kInteger) return literal(token.line, Value::integer(stream_.next().integer));
  if (token.kind == TokenKind::kFloat) return literal(token.line, Value::real(stream_.next().real));
  if (token.is_operator("[")) return parse_list();
  if (token.is_operator("{")) return parse_dict();
  if (!token.is_operator("(")) fail_at(token.line, fmt::format("{} found; wanted an expression", describe(token)));
  stream_.next();
  const TokenStream::Nesting nesting(stream_);
  ExprPtr inner = parse_tuple_of(&ExpressionParser::parse_conditional, true);
  stream_.expect_operator(")");
  return inner;
}

ExprPtr ExpressionParser::parse_name() {
  const Token& token = stream_.next();
  const std::string& name = token.text;
  if (name == "true" || name == "True") return literal(token.line, Value::boolean(true));
  if (name == "false" || name == "False") return literal(token.line, Value::boolean(false));
  if (name == "none" || name == "None") return literal(token.line, Value::none());
  auto node = std::make_unique<NameExpr>(token.line);
  node->symbol = program_.symbol(name);
  ++uses_[name];
  return node;
}

ExprPtr ExpressionParser::parse_string() {
  const int line = stream_.current().line;
  std::string text;
  while (stream_.current().kind == TokenKind::kString) text += stream_.next().text;
  return literal(line, program_.constants.text(std::move(text)));
}

ExprPtr ExpressionParser::parse_list() {
  const TokenStream::Nesting nesting(stream_);
  auto node = std::make_unique<ListExpr>(stream_.next().line);
  int below = 0;
  while (!stream_.current().is_operator("]")) {
    if (!node->items.empty()) stream_.expect_operator(",");
    if (stream_.current().is_operator("]")) break;
    node->items.push_back(parse_expression());
    below = std::max(below, node->items.back()->height);
  }
  stream_.next();
  check_height(*node, below);
  return node;
}

ExprPtr ExpressionParser::parse_dict() {
  const TokenStream::Nesting nesting(stream_);
  auto node = std::make_unique<DictExpr>(stream_.next().line);
  int below = 0;
  while (!stream_.current().is_operator("}")) {
    if (!node->entries.empty()) stream_.expect_operator(",");
    if (stream_.current().is_operator("}")) break;
    ExprPtr key = parse_expression();
    stream_.expect_operator(":");
    ExprPtr value = parse_expression();
    below = std::max({below, key->height, value->height});
    node->entries.emplace_back(std::move(key), std::move(value));
  }
  stream_.next();
  check_height(*node, below);
  return node;
}

ExprPtr ExpressionParser::parse_postfix(ExprPtr node) {
  for (;;) {
    if (stream_.current().is_operator(".")) {
      node = parse_attribute(std::move(node));
    } else if (stream_.current().is_operator("[")) {
      node = parse_element(std::move(node));
    } else if (stream_.current().is_operator("(")) {
      node = parse_call(std::move(node));
    } else {
      return node;
    }
  }
}

ExprPtr ExpressionParser::parse_filters_and_tests(ExprPtr node) {
  for (;;) {
    if (stream_.current().is_operator("|")) {
      node = parse_filters(std::move(node));
    } else if (stream_.current().is_name("is")) {
      node = parse_test(std::move(node));
    } else if (stream_.current().is_operator("(")) {
      node = parse_call(std::move(node));
    } else {
      return node;
    }
  }
}

ExprPtr ExpressionParser::parse_attribute(ExprPtr object) {
  const int line = stream_.next().line;
  const Token& token = stream_.next();
  if (token.kind == TokenKind::kInteger) {
    auto node = std::make_unique<ElementExpr>(line);
    node->object = std::move(object);
    node->key = literal(line, Value::integer(token.integer));
    check_height(*node, {node->object.get()});
    return node;
  }
  if (token.kind != TokenKind::kName)
    fail_at(token.line, fmt::format("{} found; wanted the name of an attribute", describe(token)));
  auto node = std::make_unique<AttributeExpr>(line);
  node->object = std::move(object);
  node->name = program_.constants.text(token.text);
  check_height(*node, {node->object.get()});
  return node;
}

ExprPtr ExpressionParser::parse_element(ExprPtr object) {
  const TokenStream::Nesting nesting(stream_);
  const int line = stream_.next().line;
  ExprPtr key;
  if (!stream_.current().is_operator(":")) key = parse_expression();
  if (stream_.current().is_operator(":")) return parse_slice(std::move(object), std::move(key), line);
  if (stream_.skip_operator(",")) {
    auto tuple = std::make_unique<ListExpr>(line);
    tuple->is_tuple = true;
    int below = key->height;
    tuple->items.push_back(std::move(key));
    do {
      tuple->items.push_back(parse_expression());
      below = std::max(below, tuple->items.back()->height);
    } while (stream_.skip_operator(","));
    check_height(*tuple, below);
    key = std::move(tuple);
  }
  stream_.expect_operator("]");
  auto node = std::make_unique<ElementExpr>(line);
  node->object = std::move(object);
  node->key = std::move(key);
  check_height(*node, {node->object.get(), node->key.get()});
  return node;
}

ExprPtr ExpressionParser::parse_slice(ExprPtr object, ExprPtr start, int line) {
  auto node = std::make_unique<SliceExpr>(line);
  node->object = std::move(object);
  node->start = std::move(start);
  stream_.expect_operator(":");
  const auto bound_follows = [&] { return !stream_.current().is_operator("]") && !stream_.current().is_operator(":"); };
  if (bound_follows()) node->stop = parse_expression();
  if (stream_.skip_operator(":") && bound_follows()) node->step = parse_expression();
  stream_.expect_operator("]");
  check_height(*node, {node->object.get(), node->start.get(), node->stop.get(), node->step.get()});
  return node;
}

ExprPtr ExpressionParser::parse_call(ExprPtr callee) {
  auto node = std::make_unique<CallExpr>(stream_.current().line);
  node->callee = std::move(callee);
  parse_arguments(node->arguments);
  check_height(*node, std::max(node->callee->height, height_of(node->arguments)));
  return node;
}

void ExpressionParser::parse_arguments(CallArguments& arguments) {
  const TokenStream::Nesting nesting(stream_);
  stream_.expect_operator("(");
  for (bool first = true; !stream_.current().is_operator(")"); first = false) {
    if (!first) stream_.expect_operator(",");
    if (stream_.current().is_operator(")")) break;
    parse_argument(arguments);
  }
  stream_.next();
}

void ExpressionParser::parse_argument(CallArguments& arguments) {
  const Token& token = stream_.current();
  const auto require = [&](bool in_order) {
    if (!in_order) fail_at(token.line, "arguments must be: values, then name=value, then *values, then **values");
  };
  if (stream_.skip_operator("*")) {
    require(!arguments.more && !arguments.more_named);
    arguments.more = parse_expression();
  } else if (stream_.skip_operator("**")) {
    require(!arguments.more_named);
    arguments.more_named = parse_expression();
  } else if (token.kind == TokenKind::kName && stream_.look_ahead().is_operator("=")) {
    require(!arguments.more_named);
    for (const auto& [name, value] : arguments.named)
      if (name == token.text) fail_at(token.line, fmt::format("the argument '{}' stands twice", name));
    stream_.next();
    stream_.next();
    arguments.named.emplace_back(token.text, parse_expression());
  } else {
    require(!arguments.more && !arguments.more_named && arguments.named.empty());
    arguments.positional.push_back(parse_expression());
  }
}

std::string ExpressionParser::parse_dotted_name(std::string_view what) {
  std::string name = stream_.expect(TokenKind::kName, what).text;
  while (stream_.skip_operator(".")) name += "." + stream_.expect(TokenKind::kName, what).text;
  return name;
}

ExprPtr ExpressionParser::parse_filters(ExprPtr input) {
  while (stream_.current().is_operator("|")) {
    const int line = stream_.next().line;
    input = parse_filter(std::move(input), line);
  }
  return input;
}

ExprPtr ExpressionParser::parse_first_filter() { return parse_filters(parse_filter(nullptr, stream_.current().line)); }

ExprPtr ExpressionParser::parse_filter(ExprPtr input, int line) {
  auto node = std::make_unique<FilterExpr>(line);
  node->input = std::move(input);
  node->name = parse_dotted_name("the name of a filter");
  node->entry = find_filter(node->name);
  if (!node->entry && !conditional_)
    unknown_.emplace_back(
        line, fmt::format("there is no filter '{}'{}", node->name, did_you_mean(node->name, filter_names())));
  if (stream_.current().is_operator("(")) parse_arguments(node->arguments);
  check_height(*node, std::max(node->input ? node->input->height : 0, height_of(node->arguments)));
  return node;
}

bool ExpressionParser::test_argument_follows() const {
  const Token& token = stream_.current();
  switch (token.kind) {
    case TokenKind::kName:
      return !token.is_name("else") && !token.is_name("or") && !token.is_name("and");
    case TokenKind::kString:
    case TokenKind::kInteger:
    case TokenKind::kFloat:
      return true;
    default:
      return token.is_operator("[") || token.is_operator("{");
  }
}

ExprPtr ExpressionParser::parse_test(ExprPtr input) {
  const int line = stream_.next().line;
  const bool negated = stream_.skip_name("not");
  auto node = std::make_unique<TestExpr>(line);
  node->input = std::move(input);
  node->name = parse_dotted_name("the name of a test");
  node->entry = find_test(node->name);
  if (!node->entry && !conditional_)
    unknown_.emplace_back(line,
                          fmt::format("there is no test '{}'{}", node->name, did_you_mean(node->name, test_names())));
  if (stream_.current().is_operator("(")) {
    parse_arguments(node->arguments);
  } else if (test_argument_follows()) {
    if (stream_.current().is_name("is")) fail_at(line, "tests cannot be chained with 'is'");
    node->arguments.positional.push_back(parse_postfix(parse_primary()));
  }
  check_height(*node, std::max(node->input->height, height_of(node->arguments)));
  if (!negated) return node;
  auto opposite = std::make_unique<NotExpr>(line);
  opposite->operand = std::move(node);
  check_height(*opposite, {opposite->operand.get()});
  return opposite;
}

Symbol ExpressionParser::assignable(const Token& name) {
  constexpr std::string_view kConstants[] = {"true", "false", "none", "True", "False", "None"};
  if (std::find(std::begin(kConstants), std::end(kConstants), name.text) != std::end(kConstants))
    fail_at(name.line, fmt::format("'{}' cannot be assigned to", name.text));
  return program_.symbol(name.text);
}

Target ExpressionParser::parse_target(const TargetRules& rules) {
  Target target;
  target.kind = Target::Kind::kTuple;
  target.line = stream_.current().line;
  const auto at_end = [&] {
    const Token& token = stream_.current();
    return token.kind != TokenKind::kName ? !token.is_operator("(") : rules.until_in && token.is_name("in");
  };
  bool comma = false;
  while (!at_end()) {
    target.parts.push_back(parse_target_part(rules));
    if (!stream_.skip_operator(",")) break;
    comma = true;
  }
  if (target.parts.empty())
    fail_at(target.line, fmt::format("{} found; wanted a name to assign to", describe(stream_.current())));
  if (comma) return target;
  Target only = std::move(target.parts.front());
  return only;
}

Target ExpressionParser::parse_target_part(const TargetRules& rules) {
  const TokenStream::Nesting nesting(stream_);
  if (stream_.skip_operator("(")) {
    Target inner = parse_target({rules.namespaces, false});
    stream_.expect_operator(")");
    return inner;
  }
  Target target;
  const Token& name = stream_.expect(TokenKind::kName, "a name to assign to");
  target.line = name.line;
  if (rules.namespaces && stream_.skip_operator(".")) {
    target.kind = Target::Kind::kAttribute;
    target.symbol = program_.symbol(name.text);
    target.attribute = program_.constants.text(stream_.expect(TokenKind::kName, "the name of an attribute").text);
  } else {
    target.symbol = assignable(name);
  }
  return target;
}

}  // namespace millrace::jinja
