// A parsed template: a tree of statements and expressions that never changes after parsing and may be walked by any
// number of threads. Names are numbers (symbols) here; Program::symbols says what they are called.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "tokenizer/jinja/operators.h"
#include "tokenizer/jinja/runtime.h"
#include "tokenizer/jinja/value.h"

namespace millrace::jinja {

using Symbol = uint32_t;

// ---- expressions

enum class ExprKind : uint8_t {
  kLiteral,
  kName,
  kList,
  kDict,
  kAttribute,
  kElement,
  kSlice,
  kCall,
  kFilter,
  kTest,
  kNot,
  kNegate,
  kPlus,
  kBinary,
  kCompare,
  kAnd,
  kOr,
  kConcat,
  kConditional,
};

struct Expr {
  Expr(ExprKind what, int at_line) : kind(what), line(at_line) {}
  virtual ~Expr() = default;
  const ExprKind kind;
  const int line;
  int height = 1;  // of the tree below, itself included; bounded by the parser
};
using ExprPtr = std::unique_ptr<Expr>;

template <ExprKind K>
struct ExprOf : Expr {
  explicit ExprOf(int line) : Expr(K, line) {}
};

struct LiteralExpr : ExprOf<ExprKind::kLiteral> {
  using ExprOf::ExprOf;
  Value value;
};
struct NameExpr : ExprOf<ExprKind::kName> {
  using ExprOf::ExprOf;
  Symbol symbol = 0;
};
struct ListExpr : ExprOf<ExprKind::kList> {
  using ExprOf::ExprOf;
  std::vector<ExprPtr> items;
  bool is_tuple = false;
};
struct DictExpr : ExprOf<ExprKind::kDict> {
  using ExprOf::ExprOf;
  std::vector<std::pair<ExprPtr, ExprPtr>> entries;
};
struct AttributeExpr : ExprOf<ExprKind::kAttribute> {
  using ExprOf::ExprOf;
  ExprPtr object;
  Value name;
};
struct ElementExpr : ExprOf<ExprKind::kElement> {
  using ExprOf::ExprOf;
  ExprPtr object, key;
};
struct SliceExpr : ExprOf<ExprKind::kSlice> {
  using ExprOf::ExprOf;
  ExprPtr object;
  ExprPtr start, stop, step;  // null where absent
};
// f(positional..., name=named..., *more, **more_named)
struct CallArguments {
  std::vector<ExprPtr> positional;
  std::vector<std::pair<std::string, ExprPtr>> named;
  ExprPtr more, more_named;  // null where absent
};
struct CallExpr : ExprOf<ExprKind::kCall> {
  using ExprOf::ExprOf;
  ExprPtr callee;
  CallArguments arguments;
};
// A filter or a test, on an input. The input of a filter is null where a block supplies it.
template <ExprKind K>
struct ApplyExpr : ExprOf<K> {
  using ExprOf<K>::ExprOf;
  ExprPtr input;
  const NativeEntry* entry = nullptr;  // null: none of this name, which is an error only when reached
  std::string name;
  CallArguments arguments;
};
using FilterExpr = ApplyExpr<ExprKind::kFilter>;
using TestExpr = ApplyExpr<ExprKind::kTest>;

template <ExprKind K>
struct UnaryExpr : ExprOf<K> {
  using ExprOf<K>::ExprOf;
  ExprPtr operand;
};
using NotExpr = UnaryExpr<ExprKind::kNot>;
using NegateExpr = UnaryExpr<ExprKind::kNegate>;
using PlusExpr = UnaryExpr<ExprKind::kPlus>;

struct BinaryExpr : ExprOf<ExprKind::kBinary> {
  using ExprOf::ExprOf;
  BinaryOp op = BinaryOp::kAdd;
  ExprPtr left, right;
};
// first op1 a op2 b ...: true if every neighbouring pair compares so.
struct CompareExpr : ExprOf<ExprKind::kCompare> {
  using ExprOf::ExprOf;
  ExprPtr first;
  std::vector<std::pair<CompareOp, ExprPtr>> rest;
};
template <ExprKind K>
struct LogicExpr : ExprOf<K> {
  using ExprOf<K>::ExprOf;
  ExprPtr left, right;
};
using AndExpr = LogicExpr<ExprKind::kAnd>;
using OrExpr = LogicExpr<ExprKind::kOr>;
struct ConcatExpr : ExprOf<ExprKind::kConcat> {
  using ExprOf::ExprOf;
  std::vector<ExprPtr> items;
};
struct ConditionalExpr : ExprOf<ExprKind::kConditional> {
  using ExprOf::ExprOf;
  ExprPtr condition, then;
  ExprPtr otherwise;  // null where absent
};

// ---- statements

enum class StatementKind : uint8_t {
  kText,
  kPrint,
  kIf,
  kFor,
  kSet,
  kSetBlock,
  kMacro,
  kCallBlock,
  kFilterBlock,
  kWith,
  kScope,
  kBlock,
  kBreak,
  kContinue,
  kRefused,
};

struct Statement {
  Statement(StatementKind what, int at_line) : kind(what), line(at_line) {}
  virtual ~Statement() = default;
  const StatementKind kind;
  const int line;
};
using StatementPtr = std::unique_ptr<Statement>;
using Body = std::vector<StatementPtr>;

template <StatementKind K>
struct StatementOf : Statement {
  explicit StatementOf(int line) : Statement(K, line) {}
};

// What an assignment stores into: a variable, an attribute of a namespace, or several of them.
struct Target {
  enum class Kind : uint8_t { kVariable, kAttribute, kTuple };
  Kind kind = Kind::kVariable;
  int line = 1;
  Symbol symbol = 0;  // of the variable or of the namespace
  Value attribute;
  std::vector<Target> parts;
};

struct TextStatement : StatementOf<StatementKind::kText> {
  using StatementOf::StatementOf;
  std::string text;
};
struct PrintStatement : StatementOf<StatementKind::kPrint> {
  using StatementOf::StatementOf;
  ExprPtr value;
};
struct IfStatement : StatementOf<StatementKind::kIf> {
  using StatementOf::StatementOf;
  std::vector<std::pair<ExprPtr, Body>> branches;
  Body otherwise;
};
struct ForStatement : StatementOf<StatementKind::kFor> {
  using StatementOf::StatementOf;
  Target target;
  ExprPtr iterable;
  ExprPtr filter;  // null where absent
  bool recursive = false;
  bool uses_loop = false;  // the body names `loop`
  Body body, otherwise;
};
struct SetStatement : StatementOf<StatementKind::kSet> {
  using StatementOf::StatementOf;
  Target target;
  ExprPtr value;
};
struct SetBlockStatement : StatementOf<StatementKind::kSetBlock> {
  using StatementOf::StatementOf;
  Target target;
  ExprPtr filter;  // a chain of filters that ends without input; null where absent
  Body body;
};
// The parameters and body of a macro or of the caller that a call block makes.
struct MacroCode {
  std::string name;  // empty for a caller
  std::vector<Symbol> parameters;
  std::vector<ExprPtr> defaults;  // of the last parameters
  bool uses_caller = false, uses_kwargs = false, uses_varargs = false;
  Body body;
};
struct MacroStatement : StatementOf<StatementKind::kMacro> {
  using StatementOf::StatementOf;
  Symbol symbol = 0;
  MacroCode code;
};
struct CallBlockStatement : StatementOf<StatementKind::kCallBlock> {
  using StatementOf::StatementOf;
  ExprPtr call;  // a CallExpr
  MacroCode caller;
};
struct FilterBlockStatement : StatementOf<StatementKind::kFilterBlock> {
  using StatementOf::StatementOf;
  ExprPtr filter;  // a chain of filters that ends without input
  Body body;
};
struct WithStatement : StatementOf<StatementKind::kWith> {
  using StatementOf::StatementOf;
  std::vector<std::pair<Target, ExprPtr>> assignments;
  Body body;
};
// A body whose variables stay inside: {% generation %} and {% autoescape false %}.
struct ScopeStatement : StatementOf<StatementKind::kScope> {
  using StatementOf::StatementOf;
  Body body;
};
// {% block %}: sees the variables of the top level, and those around it only if `scoped`.
struct BlockStatement : StatementOf<StatementKind::kBlock> {
  using StatementOf::StatementOf;
  bool scoped = false;
  Body body;
};
// Valid Jinja that a chat template, having no other templates beside it, cannot carry out; an error when reached.
struct RefusedStatement : StatementOf<StatementKind::kRefused> {
  using StatementOf::StatementOf;
  std::string why;
};
using BreakStatement = StatementOf<StatementKind::kBreak>;
using ContinueStatement = StatementOf<StatementKind::kContinue>;

// ---- the whole

struct Program {
  explicit Program(const TemplateLimits& template_limits)
      : limits(template_limits), constants(template_limits, Runtime::Lifetime::kPermanent) {}
  Symbol symbol(std::string_view name);

  TemplateLimits limits;
  Runtime constants;
  Values symbol_names;  // a str for each symbol
  std::unordered_map<std::string, Symbol> symbols;
  Values globals;  // by symbol: the built-in function of this name, or undefined
  Body body;
};

}  // namespace millrace::jinja
