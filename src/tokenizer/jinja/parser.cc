#include "tokenizer/jinja/parser.h"

#include <algorithm>
#include <array>

#include "base/text.h"
#include "base/utf8.h"
#include "tokenizer/jinja/expression_parser.h"
#include "tokenizer/jinja/functions.h"
#include "tokenizer/jinja/lexer.h"

namespace millrace::jinja {
namespace {

class StatementParser {
 public:
  StatementParser(Program& program, TokenStream& stream)
      : program_(program), stream_(stream), expressions_(program, stream) {}

  Body parse_all() {
    Body body = parse_body({});
    if (stream_.current().kind != TokenKind::kEnd) fail_here("this tag has no beginning");
    expressions_.fail_if_unknown();
    return body;
  }

 private:
  using Ends = std::vector<std::string_view>;

  [[noreturn]] void fail_here(std::string_view wanted) {
    fail_at(stream_.current().line, fmt::format("{}: {}", describe(stream_.current()), wanted));
  }

  // Statements up to a tag whose name is in `ends`, which is left as the current token; with no ends, up to the end.
  Body parse_body(const Ends& ends) {
    const TokenStream::Nesting nesting(stream_);
    Body body;
    for (;;) {
      const Token& token = stream_.current();
      if (token.kind == TokenKind::kEnd) {
        if (!ends.empty()) fail_here(fmt::format("'{}' is missing", fmt::join(ends, "' or '")));
        return body;
      }
      if (token.kind == TokenKind::kData) {
        auto text = std::make_unique<TextStatement>(token.line);
        text->text = stream_.next().text;
        body.push_back(std::move(text));
      } else if (token.kind == TokenKind::kVariableBegin) {
        auto print = std::make_unique<PrintStatement>(stream_.next().line);
        print->value = expressions_.parse_tuple();
        stream_.expect(TokenKind::kVariableEnd, "'}}'");
        body.push_back(std::move(print));
      } else {
        stream_.expect(TokenKind::kBlockBegin, "'{%'");
        if (at_any(ends)) return body;
        parse_statement(ends, body);
        stream_.expect(TokenKind::kBlockEnd, "'%}'");
      }
    }
  }

  bool at_any(const Ends& ends) const {
    const Token& token = stream_.current();
    return token.kind == TokenKind::kName && std::find(ends.begin(), ends.end(), token.text) != ends.end();
  }

  // After the head of a tag: its end, then the body.
  Body parse_inner(const Ends& ends) {
    stream_.skip_operator(":");
    stream_.expect(TokenKind::kBlockEnd, "'%}'");
    return parse_body(ends);
  }
  // The same, with the end tag's name passed over.
  Body parse_inner_to(std::string_view end) {
    Body body = parse_inner({end});
    stream_.next();
    return body;
  }

  void parse_statement(const Ends& ends, Body& body) {
    const Token token = stream_.expect(TokenKind::kName, "the name of a statement");
    struct Entry {
      std::string_view name;
      StatementPtr (StatementParser::*parse)(int line);
    };
    static constexpr std::array<Entry, 17> kStatements = {{
        {"if", &StatementParser::parse_if},
        {"for", &StatementParser::parse_for},
        {"set", &StatementParser::parse_set},
        {"macro", &StatementParser::parse_macro},
        {"call", &StatementParser::parse_call_block},
        {"filter", &StatementParser::parse_filter_block},
        {"with", &StatementParser::parse_with},
        {"generation", &StatementParser::parse_generation},
        {"break", &StatementParser::parse_break},
        {"continue", &StatementParser::parse_continue},
        {"print", &StatementParser::parse_print},
        {"block", &StatementParser::parse_block},
        {"autoescape", &StatementParser::parse_autoescape},
        {"extends", &StatementParser::parse_reference},
        {"include", &StatementParser::parse_reference},
        {"import", &StatementParser::parse_reference},
        {"from", &StatementParser::parse_reference},
    }};
    for (const Entry& entry : kStatements)
      if (entry.name == token.text) return body.push_back((this->*entry.parse)(token.line));
    fail_unknown(token, ends, kStatements);
  }

  [[noreturn]] void fail_unknown(const Token& token, const Ends& ends, const auto& statements) {
    std::vector<std::string> names(ends.begin(), ends.end());
    for (const auto& entry : statements) names.emplace_back(entry.name);
    const std::string open = ends.empty() ? "" : fmt::format("; '{}' is still due", fmt::join(ends, "' or '"));
    fail_at(token.line,
            fmt::format("there is no statement '{}'{}{}", token.text, did_you_mean(token.text, names), open));
  }

  // While one of these lives, `break` has a loop to leave or not, and unknown filters are errors at once or not.
  struct Context {
    Context(StatementParser& owner, bool in_loop, bool conditional) : parser(owner), loop(owner.in_loop_) {
      parser.in_loop_ = in_loop;
      soft = parser.expressions_.set_conditional(conditional);
    }
    ~Context() {
      parser.in_loop_ = loop;
      parser.expressions_.set_conditional(soft);
    }
    StatementParser& parser;
    bool loop, soft;
  };

  StatementPtr parse_if(int line) {
    auto node = std::make_unique<IfStatement>(line);
    const Context context(*this, in_loop_, true);
    for (;;) {
      ExprPtr condition = expressions_.parse_tuple_without_conditional();
      Body body = parse_inner({"elif", "else", "endif"});
      node->branches.emplace_back(std::move(condition), std::move(body));
      const std::string end = stream_.next().text;
      if (end == "elif") continue;
      if (end == "else") node->otherwise = parse_inner_to("endif");
      return node;
    }
  }

  StatementPtr parse_for(int line) {
    auto node = std::make_unique<ForStatement>(line);
    node->target = expressions_.parse_target({.namespaces = false, .until_in = true});
    refuse_loop_target(node->target);
    const LoopDepth loops(loop_depth_);
    stream_.expect_name("in");
    node->iterable = expressions_.parse_iterable();
    const Context context(*this, true, false);
    if (stream_.skip_name("if")) node->filter = expressions_.parse_expression();
    node->recursive = stream_.skip_name("recursive");
    const size_t uses = expressions_.uses_of("loop");
    node->body = parse_inner({"endfor", "else"});
    node->uses_loop = node->recursive || expressions_.uses_of("loop") > uses;
    if (stream_.next().text == "else") {
      const Context outside(*this, context.loop && !node->recursive, false);
      node->otherwise = parse_inner_to("endfor");
    }
    return node;
  }

  struct LoopDepth {
    explicit LoopDepth(int& loops) : depth(loops) { ++depth; }
    ~LoopDepth() { --depth; }
    int& depth;
  };

  void refuse_loop_target(const Target& target) {
    if (target.kind == Target::Kind::kVariable && program_.symbol_names[target.symbol].view() == "loop")
      fail_at(target.line, "'loop' is what a loop calls itself; it cannot be assigned to");
    for (const Target& part : target.parts) refuse_loop_target(part);
  }

  StatementPtr parse_set(int line) {
    Target target = expressions_.parse_target({.namespaces = true, .until_in = false});
    if (loop_depth_ > 0) refuse_loop_target(target);
    if (stream_.skip_operator("=")) {
      auto node = std::make_unique<SetStatement>(line);
      node->target = std::move(target);
      node->value = expressions_.parse_tuple();
      return node;
    }
    auto node = std::make_unique<SetBlockStatement>(line);
    node->target = std::move(target);
    const Context context(*this, in_loop_, false);
    node->filter = expressions_.parse_filters(nullptr);
    node->body = parse_inner_to("endset");
    return node;
  }

  void parse_signature(MacroCode& code) {
    stream_.expect_operator("(");
    while (!stream_.current().is_operator(")")) {
      if (!code.parameters.empty()) stream_.expect_operator(",");
      const Token name = stream_.expect(TokenKind::kName, "the name of a parameter");
      const Symbol symbol = expressions_.assignable(name);
      if (std::find(code.parameters.begin(), code.parameters.end(), symbol) != code.parameters.end())
        fail_at(name.line, fmt::format("the parameter '{}' stands twice", name.text));
      code.parameters.push_back(symbol);
      if (stream_.skip_operator("=")) {
        code.defaults.push_back(expressions_.parse_expression());
      } else if (!code.defaults.empty()) {
        fail_at(name.line, fmt::format("the parameter '{}' needs a default, as those before it have one", name.text));
      }
    }
    stream_.next();
  }

  void parse_macro_body(MacroCode& code, std::string_view end) {
    const Context context(*this, false, false);
    const size_t caller = expressions_.uses_of("caller"), kwargs = expressions_.uses_of("kwargs"),
                 varargs = expressions_.uses_of("varargs");
    code.body = parse_inner_to(end);
    code.uses_caller = expressions_.uses_of("caller") > caller;
    code.uses_kwargs = expressions_.uses_of("kwargs") > kwargs;
    code.uses_varargs = expressions_.uses_of("varargs") > varargs;
  }

  StatementPtr parse_macro(int line) {
    auto node = std::make_unique<MacroStatement>(line);
    const Token name = stream_.expect(TokenKind::kName, "the name of the macro");
    node->symbol = expressions_.assignable(name);
    node->code.name = name.text;
    parse_signature(node->code);
    parse_macro_body(node->code, "endmacro");
    return node;
  }

  StatementPtr parse_call_block(int line) {
    auto node = std::make_unique<CallBlockStatement>(line);
    if (stream_.current().is_operator("(")) parse_signature(node->caller);
    node->call = expressions_.parse_expression();
    if (node->call->kind != ExprKind::kCall) fail_at(line, "a call block needs a call, as in {% call name() %}");
    parse_macro_body(node->caller, "endcall");
    return node;
  }

  StatementPtr parse_filter_block(int line) {
    auto node = std::make_unique<FilterBlockStatement>(line);
    const Context context(*this, in_loop_, false);
    node->filter = expressions_.parse_first_filter();
    node->body = parse_inner_to("endfilter");
    return node;
  }

  StatementPtr parse_with(int line) {
    auto node = std::make_unique<WithStatement>(line);
    while (stream_.current().kind != TokenKind::kBlockEnd && !stream_.current().is_operator(":")) {
      if (!node->assignments.empty()) stream_.expect_operator(",");
      Target target = expressions_.parse_target({.namespaces = false, .until_in = false});
      stream_.expect_operator("=");
      node->assignments.emplace_back(std::move(target), expressions_.parse_expression());
    }
    const Context context(*this, in_loop_, false);
    node->body = parse_inner_to("endwith");
    return node;
  }

  StatementPtr parse_generation(int line) {
    auto node = std::make_unique<ScopeStatement>(line);
    const Context context(*this, false, false);
    node->body = parse_inner_to("endgeneration");
    return node;
  }

  StatementPtr parse_break(int line) {
    if (!in_loop_) fail_at(line, "'break' stands outside of a loop");
    return std::make_unique<BreakStatement>(line);
  }
  StatementPtr parse_continue(int line) {
    if (!in_loop_) fail_at(line, "'continue' stands outside of a loop");
    return std::make_unique<ContinueStatement>(line);
  }

  StatementPtr parse_print(int line) {
    auto node = std::make_unique<PrintStatement>(line);
    auto parts = std::make_unique<ConcatExpr>(line);
    while (stream_.current().kind != TokenKind::kBlockEnd) {
      if (!parts->items.empty()) stream_.expect_operator(",");
      parts->items.push_back(expressions_.parse_expression());
    }
    node->value = std::move(parts);
    return node;
  }

  StatementPtr parse_block(int line) {
    auto node = std::make_unique<BlockStatement>(line);
    const std::string name = stream_.expect(TokenKind::kName, "the name of the block").text;
    node->scoped = stream_.skip_name("scoped");
    stream_.skip_name("required");
    const Context context(*this, false, false);
    node->body = parse_inner_to("endblock");
    stream_.skip_name(name);
    return node;
  }

  StatementPtr parse_autoescape(int line) {
    const ExprPtr enabled = expressions_.parse_expression();
    const bool literal = enabled->kind == ExprKind::kLiteral;
    if (!literal || truthy(static_cast<const LiteralExpr&>(*enabled).value))
      fail_at(line, "chat templates are plain text: only {% autoescape false %} is supported");
    auto node = std::make_unique<ScopeStatement>(line);
    const Context context(*this, in_loop_, false);
    node->body = parse_inner_to("endautoescape");
    return node;
  }

  // extends, include, import and from: their heads are passed over.
  StatementPtr parse_reference(int line) {
    auto node = std::make_unique<RefusedStatement>(line);
    node->why = "a chat template stands alone: there are no other templates to include, import or extend";
    while (stream_.current().kind != TokenKind::kBlockEnd && stream_.current().kind != TokenKind::kEnd) stream_.next();
    return node;
  }

  Program& program_;
  TokenStream& stream_;
  ExpressionParser expressions_;
  bool in_loop_ = false;
  int loop_depth_ = 0;  // for statements around this place, macros between them or not
};

void parse_into(Program& program, std::string_view source) {
  if (source.size() > program.limits.max_source_bytes)
    throw Failure{resource_exhausted("chat template: the source has {}; at most {} are allowed",
                                     format_bytes(static_cast<int64_t>(source.size())),
                                     format_bytes(static_cast<int64_t>(program.limits.max_source_bytes)))};
  if (!is_valid_utf8(source)) fail("chat template: the source is not valid UTF-8");
  TokenStream stream(tokenize(source), program.limits.max_nesting);
  program.body = StatementParser(program, stream).parse_all();
  for (const Value& name : program.symbol_names) {
    const NativeEntry* function = find_function(name.view());
    program.globals.push_back(function ? program.constants.function(*function) : Value());
  }
}

}  // namespace

Symbol Program::symbol(std::string_view name) {
  const auto [entry, added] = symbols.try_emplace(std::string(name), static_cast<Symbol>(symbol_names.size()));
  if (added) symbol_names.push_back(constants.text(name));
  return entry->second;
}

Result<std::unique_ptr<const Program>> parse_template(std::string_view source, const TemplateLimits& limits) {
  auto program = std::make_unique<Program>(limits);
  try {
    parse_into(*program, source);
  } catch (const Failure& failure) {
    return failure.status;
  }
  return std::unique_ptr<const Program>(std::move(program));
}

}  // namespace millrace::jinja
