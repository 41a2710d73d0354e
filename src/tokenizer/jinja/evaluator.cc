#include "tokenizer/jinja/evaluator.h"

#include <nlohmann/json.hpp>

#include "base/text.h"
#include "base/utf8.h"
#include "tokenizer/jinja/evaluator_objects.h"
#include "tokenizer/jinja/filters.h"
#include "tokenizer/jinja/format.h"
#include "tokenizer/jinja/functions.h"
#include "tokenizer/jinja/tests.h"

namespace millrace::jinja {
namespace {

template <class T>
const T& as(const Expr& expr) {
  return static_cast<const T&>(expr);
}
template <class T>
const T& as(const Statement& statement) {
  return static_cast<const T&>(statement);
}

// Counts evaluations inside each other while it lives.
class DepthGuard {
 public:
  DepthGuard(int& depth, int limit) : depth_(depth) {
    if (depth >= limit)
      throw Failure{resource_exhausted("the template calls itself or nests more than {} deep", limit)};
    ++depth_;
  }
  ~DepthGuard() { --depth_; }
  DepthGuard(const DepthGuard&) = delete;
  DepthGuard& operator=(const DepthGuard&) = delete;

 private:
  int& depth_;
};

std::string macro_name(const MacroCode& code) {
  return code.name.empty() ? "the caller of a call block" : fmt::format("the macro '{}'", code.name);
}

bool is_nothing(const Value& value) { return value.is_undefined() && !value.reason(); }

}  // namespace

Evaluator::Evaluator(const Program& program, std::optional<int64_t> fixed_time)
    : program_(program), runtime_(program.limits, Runtime::Lifetime::kRendering), top_(program.globals) {
  runtime_.fixed_time = fixed_time;
}

Evaluator::~Evaluator() {
  for (Scope& scope : scopes_) scope.variables.clear();
  top_.clear();
}

std::string Evaluator::run(const OrderedJson& variables) {
  for (const auto& [name, value] : variables.items()) {
    const auto found = program_.symbols.find(name);
    if (found != program_.symbols.end()) top_[found->second] = from_json(value, 0);
  }
  std::string out;
  out_ = &out;
  execute(program_.body);
  return out;
}

Value Evaluator::from_json(const OrderedJson& json, int depth) {
  if (depth >= kMaxValueDepth) fail("the variables are nested more than {} deep", kMaxValueDepth);
  switch (json.type()) {
    case OrderedJson::value_t::boolean:
      return Value::boolean(json.get<bool>());
    case OrderedJson::value_t::number_integer:
      return Value::integer(json.get<int64_t>());
    case OrderedJson::value_t::number_unsigned:
      if (json.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX))
        fail("the variables hold the number {}, which does not fit 64 bits with a sign", json.get<uint64_t>());
      return Value::integer(json.get<int64_t>());
    case OrderedJson::value_t::number_float:
      return Value::real(json.get<double>());
    case OrderedJson::value_t::string: {
      const auto& text = json.get_ref<const std::string&>();
      runtime_.check_room(text.size());
      return runtime_.text(is_valid_utf8(text) ? text : utf8_replace_invalid(text));
    }
    case OrderedJson::value_t::array: {
      runtime_.check_room(json.size(), sizeof(Value));
      Values items;
      items.reserve(json.size());
      for (const OrderedJson& item : json) items.push_back(from_json(item, depth + 1));
      return runtime_.list(std::move(items));
    }
    case OrderedJson::value_t::object: {
      auto dict = std::make_unique<Dict>(runtime_);
      for (const auto& [key, value] : json.items())
        dict->set(runtime_.text(is_valid_utf8(key) ? key : utf8_replace_invalid(key)), from_json(value, depth + 1));
      return runtime_.dict(std::move(dict));
    }
    default:
      return Value::none();
  }
}

// ---- variables

Value* Evaluator::find_in(Scope& scope, Symbol symbol) {
  constexpr size_t kFewVariables = 16;
  if (scope.variables.size() > kFewVariables) runtime_.step(scope.variables.size() / kFewVariables);
  for (auto& [name, value] : scope.variables)
    if (name == symbol) return &value;
  return nullptr;
}

Value Evaluator::look_up(Symbol symbol) {
  constexpr unsigned kFewScopes = 16;
  unsigned scopes = 0;
  for (Scope* scope = scope_; scope; scope = scope->parent) {
    if (const Value* found = find_in(*scope, symbol)) return *found;
    if (++scopes % kFewScopes == 0) runtime_.step();
  }
  if (!is_nothing(top_[symbol])) return top_[symbol];
  return Value::undefined(Absence::kVariable, &program_.symbol_names[symbol].text());
}

void Evaluator::assign(Symbol symbol, Value value) {
  if (is_nothing(value)) value = Value::undefined(Absence::kVariable, &program_.symbol_names[symbol].text());
  if (!scope_) {
    top_[symbol] = std::move(value);
  } else if (Value* old = find_in(*scope_, symbol)) {
    *old = std::move(value);
  } else {
    scope_->variables.emplace_back(symbol, std::move(value));
  }
}

void Evaluator::assign(const Target& target, const Value& value) {
  if (target.kind == Target::Kind::kVariable) return assign(target.symbol, value);
  if (target.kind == Target::Kind::kAttribute) return assign_attribute(target, value);
  line_ = target.line;
  if (value.is_undefined()) fail_undefined(value);
  const Value items = items_of(runtime_, value);
  if (items.list().items.size() != target.parts.size())
    fail("{} values cannot be spread over {} names", items.list().items.size(), target.parts.size());
  for (size_t i = 0; i < target.parts.size(); ++i) assign(target.parts[i], items.list().items[i]);
}

void Evaluator::assign_attribute(const Target& target, const Value& value) {
  line_ = target.line;
  const Value owner = look_up(target.symbol);
  auto* space = owner.is(Kind::kInstance) ? dynamic_cast<Namespace*>(&owner.instance()) : nullptr;
  if (!space)
    fail("'{}' is no namespace, so its attribute '{}' cannot be set", program_.symbol_names[target.symbol].view(),
         target.attribute.view());
  space->set(target.attribute.view(), value);
}

// ---- output

void Evaluator::print_text(std::string_view text) {
  if (text.size() > program_.limits.max_output_bytes - printed_bytes_)
    throw Failure{resource_exhausted("the template prints more than {}",
                                     format_bytes(static_cast<int64_t>(program_.limits.max_output_bytes)))};
  printed_bytes_ += text.size();
  runtime_.step_text(text.size());
  out_->append(text);
}

void Evaluator::print(const Value& value) {
  if (value.is_string()) return print_text(value.view());
  if (value.is_undefined()) return;
  print_text(str(runtime_, value));
}

template <class Work>
Value Evaluator::capture(const Work& work) {
  std::string text;
  std::string* const before = std::exchange(out_, &text);
  struct Restore {
    Evaluator& evaluator;
    std::string* out;
    const std::string& captured;
    ~Restore() {
      evaluator.out_ = out;
      evaluator.printed_bytes_ -= captured.size();
    }
  };
  {
    const Restore restore{*this, before, text};
    work();
  }
  return runtime_.text(std::move(text));
}

// ---- statements

ScopeGuard::ScopeGuard(Evaluator& evaluator, Scope* parent) : evaluator_(evaluator), before_(evaluator.scope_) {
  if (evaluator.free_scopes_.empty()) {
    scope_ = &evaluator.scopes_.emplace_back();
  } else {
    scope_ = evaluator.free_scopes_.back();
    evaluator.free_scopes_.pop_back();
  }
  scope_->parent = parent;
  evaluator.scope_ = scope_;
}

ScopeGuard::~ScopeGuard() {
  scope_->variables.clear();
  evaluator_.scope_ = before_;
  if (!scope_->captured) evaluator_.free_scopes_.push_back(scope_);
}

Evaluator::Flow Evaluator::execute(const Body& body) {
  for (const StatementPtr& statement : body) {
    const Flow flow = execute(*statement);
    if (flow != Flow::kNext) return flow;
  }
  return Flow::kNext;
}

Evaluator::Flow Evaluator::execute(const Statement& statement) {
  runtime_.step();
  line_ = statement.line;
  switch (statement.kind) {
    case StatementKind::kText:
      print_text(as<TextStatement>(statement).text);
      return Flow::kNext;
    case StatementKind::kPrint:
      print(evaluate(*as<PrintStatement>(statement).value));
      return Flow::kNext;
    case StatementKind::kSet:
      assign(as<SetStatement>(statement).target, evaluate(*as<SetStatement>(statement).value));
      return Flow::kNext;
    case StatementKind::kBreak:
      return Flow::kBreak;
    case StatementKind::kContinue:
      return Flow::kContinue;
    case StatementKind::kMacro:
      execute_macro(as<MacroStatement>(statement));
      return Flow::kNext;
    case StatementKind::kRefused:
      fail("{}", as<RefusedStatement>(statement).why);
    default:
      break;
  }
  const DepthGuard guard(depth_, program_.limits.max_depth);
  switch (statement.kind) {
    case StatementKind::kIf:
      return execute_if(as<IfStatement>(statement));
    case StatementKind::kFor:
      return execute_for(as<ForStatement>(statement));
    case StatementKind::kSetBlock:
      return execute_set_block(as<SetBlockStatement>(statement));
    case StatementKind::kCallBlock:
      execute_call_block(as<CallBlockStatement>(statement));
      return Flow::kNext;
    case StatementKind::kFilterBlock:
      return execute_filter_block(as<FilterBlockStatement>(statement));
    case StatementKind::kWith:
      return execute_with(as<WithStatement>(statement));
    case StatementKind::kBlock:
      return execute_in_scope(as<BlockStatement>(statement).body,
                              as<BlockStatement>(statement).scoped ? scope_ : nullptr);
    default:
      return execute_in_scope(as<ScopeStatement>(statement).body, scope_);
  }
}

Evaluator::Flow Evaluator::execute_if(const IfStatement& node) {
  for (const auto& [condition, body] : node.branches)
    if (truthy(evaluate(*condition))) return execute(body);
  return execute(node.otherwise);
}

Evaluator::Flow Evaluator::execute_in_scope(const Body& body, Scope* parent) {
  const ScopeGuard guard(*this, parent);
  return execute(body);
}

Evaluator::Flow Evaluator::execute_with(const WithStatement& node) {
  Values values;
  for (const auto& [target, value] : node.assignments) values.push_back(evaluate(*value));
  const ScopeGuard guard(*this, scope_);
  for (size_t i = 0; i < values.size(); ++i) assign(node.assignments[i].first, values[i]);
  return execute(node.body);
}

Evaluator::Flow Evaluator::execute_set_block(const SetBlockStatement& node) {
  Flow flow = Flow::kNext;
  Value value;
  {
    const ScopeGuard guard(*this, scope_);
    value = capture([&] { flow = execute(node.body); });
    if (flow == Flow::kNext && node.filter) value = evaluate_filter(as<FilterExpr>(*node.filter), &value);
  }
  if (flow == Flow::kNext) assign(node.target, value);
  return flow;
}

Evaluator::Flow Evaluator::execute_filter_block(const FilterBlockStatement& node) {
  Flow flow = Flow::kNext;
  const ScopeGuard guard(*this, scope_);
  const Value text = capture([&] { flow = execute(node.body); });
  if (flow == Flow::kNext) print(evaluate_filter(as<FilterExpr>(*node.filter), &text));
  return flow;
}

Evaluator::Flow Evaluator::execute_for(const ForStatement& node) {
  const Value iterable = evaluate(*node.iterable);
  if (!node.recursive) return run_loop(node, iterable, scope_, 0);
  print(run_recursive_loop(node, iterable, scope_, 0));
  return Flow::kNext;
}

Value Evaluator::run_recursive_loop(const ForStatement& node, const Value& iterable, Scope* defined_in, int depth) {
  const DepthGuard guard(depth_, program_.limits.max_depth);
  return capture([&] { run_loop(node, iterable, defined_in, depth); });
}

Evaluator::Flow Evaluator::run_loop(const ForStatement& node, const Value& iterable, Scope* defined_in, int depth) {
  auto made = std::make_unique<Loop>(*this, node, items_of(runtime_, iterable), defined_in, depth);
  Loop& loop = *made;
  const Value self = runtime_.instance(std::move(made));
  static constexpr std::string_view kLoop = "loop";
  const Symbol loop_symbol = node.uses_loop ? program_.symbols.find(std::string(kLoop))->second : 0;
  bool completed = false;  // some run of the body came to its end; `break` and `continue` do not count
  {
    ScopeGuard guard(*this, defined_in);
    while (const auto item = loop.advance()) {
      runtime_.step();
      guard.scope().variables.clear();
      assign(node.target, *item);
      if (node.uses_loop) assign(loop_symbol, self);
      const Flow flow = execute(node.body);
      completed = completed || flow == Flow::kNext;
      if (flow == Flow::kBreak) break;
    }
  }
  return completed || node.otherwise.empty() ? Flow::kNext : execute_in_scope(node.otherwise, defined_in);
}

void Evaluator::execute_macro(const MacroStatement& node) { assign(node.symbol, make_macro(node.code)); }

Value Evaluator::make_macro(const MacroCode& code) {
  for (Scope* scope = scope_; scope && !scope->captured; scope = scope->parent) {
    scope->captured = true;
    runtime_.take(sizeof(Scope) + 4 * sizeof(scope->variables[0]));  // kept until the end
  }
  return runtime_.instance(std::make_unique<Macro>(*this, code, scope_));
}

void Evaluator::execute_call_block(const CallBlockStatement& node) {
  const Value caller = make_macro(node.caller);
  print(evaluate_call(as<CallExpr>(*node.call), &caller));
}

Value Evaluator::run_macro(const MacroCode& code, Scope* defined_in, const Arguments& arguments) {
  const DepthGuard depth(depth_, program_.limits.max_depth);
  const int line = line_;
  const ScopeGuard guard(*this, defined_in);
  bind_parameters(code, arguments);
  Value text = capture([&] { execute(code.body); });
  line_ = line;
  return text;
}

void Evaluator::bind_parameters(const MacroCode& code, const Arguments& arguments) {
  const size_t count = code.parameters.size(), given = std::min(count, arguments.positional.size());
  const size_t first_default = count - code.defaults.size();
  runtime_.step(count * arguments.named.size() / 8);
  std::vector<bool> used(arguments.named.size());
  std::vector<size_t> missing;
  for (size_t i = 0; i < count; ++i) {
    const std::string_view name = program_.symbol_names[code.parameters[i]].view();
    const Value* value = i < given ? &arguments.positional[i] : nullptr;
    for (size_t k = 0; k < arguments.named.size() && i >= given; ++k) {
      if (arguments.named[k].first != name) continue;
      value = &arguments.named[k].second;
      used[k] = true;
    }
    if (value) assign(code.parameters[i], *value);
    if (!value) missing.push_back(i);
  }
  for (const size_t i : missing) {  // in order: a default may name the parameters before it
    assign(code.parameters[i],
           i >= first_default ? evaluate(*code.defaults[i - first_default])
                              : runtime_.undefined_hint(fmt::format("the parameter '{}' was not given",
                                                                    program_.symbol_names[code.parameters[i]].view())));
  }
  bind_extras(code, arguments, used);
}

// caller, kwargs and varargs, as far as the macro names them; what it does not name must not be given.
void Evaluator::bind_extras(const MacroCode& code, const Arguments& arguments, const std::vector<bool>& used) {
  const auto set = [&](std::string_view name, Value value) {
    assign(program_.symbols.find(std::string(name))->second, std::move(value));
  };
  const size_t count = code.parameters.size();
  auto rest = std::make_unique<Dict>(runtime_);
  Value caller;
  for (size_t k = 0; k < used.size(); ++k) {
    const auto& [name, value] = arguments.named[k];
    if (used[k]) continue;
    if (code.uses_caller && name == "caller") {
      caller = value;
    } else if (code.uses_kwargs) {
      rest->set(runtime_.text(name), value);
    } else {
      fail("{} has no parameter '{}'", macro_name(code), name);
    }
  }
  if (code.uses_caller)
    set("caller", is_nothing(caller) ? runtime_.undefined_hint("the macro was not called by a call block") : caller);
  if (code.uses_kwargs) set("kwargs", runtime_.dict(std::move(rest)));
  const auto extra =
      arguments.positional.begin() + static_cast<std::ptrdiff_t>(std::min(count, arguments.positional.size()));
  if (code.uses_varargs) {
    set("varargs", runtime_.tuple(Values(extra, arguments.positional.end())));
  } else if (extra != arguments.positional.end()) {
    fail("{} takes at most {} values, not {}", macro_name(code), count, arguments.positional.size());
  }
}

// ---- expressions

Value Evaluator::evaluate(const Expr& expr) {
  runtime_.step();
  switch (expr.kind) {
    case ExprKind::kLiteral:
      return as<LiteralExpr>(expr).value;
    case ExprKind::kName:
      return look_up(as<NameExpr>(expr).symbol);
    default:
      return evaluate_deeper(expr);
  }
}

Value Evaluator::evaluate_deeper(const Expr& expr) {
  const DepthGuard guard(depth_, program_.limits.max_depth);
  switch (expr.kind) {
    case ExprKind::kAttribute: {
      const Value object = evaluate(*as<AttributeExpr>(expr).object);
      line_ = expr.line;
      return get_attribute(runtime_, object, as<AttributeExpr>(expr).name);
    }
    case ExprKind::kElement: {
      const Value object = evaluate(*as<ElementExpr>(expr).object), key = evaluate(*as<ElementExpr>(expr).key);
      line_ = expr.line;
      return get_element(runtime_, object, key);
    }
    case ExprKind::kSlice:
      return evaluate_slice(as<SliceExpr>(expr));
    case ExprKind::kList:
      return evaluate_list(as<ListExpr>(expr));
    case ExprKind::kDict:
      return evaluate_dict(as<DictExpr>(expr));
    case ExprKind::kCall:
      return evaluate_call(as<CallExpr>(expr), nullptr);
    case ExprKind::kFilter:
      return evaluate_filter(as<FilterExpr>(expr), nullptr);
    case ExprKind::kTest:
      return evaluate_test(as<TestExpr>(expr));
    case ExprKind::kNot:
      return Value::boolean(!truthy(evaluate(*as<NotExpr>(expr).operand)));
    case ExprKind::kNegate:
      return negate(evaluate(*as<NegateExpr>(expr).operand));
    case ExprKind::kPlus:
      return plus(evaluate(*as<PlusExpr>(expr).operand));
    case ExprKind::kBinary: {
      const Value left = evaluate(*as<BinaryExpr>(expr).left), right = evaluate(*as<BinaryExpr>(expr).right);
      line_ = expr.line;
      return binary(runtime_, as<BinaryExpr>(expr).op, left, right);
    }
    case ExprKind::kCompare:
      return evaluate_compare(as<CompareExpr>(expr));
    case ExprKind::kAnd: {
      Value left = evaluate(*as<AndExpr>(expr).left);
      return truthy(left) ? evaluate(*as<AndExpr>(expr).right) : left;
    }
    case ExprKind::kOr: {
      Value left = evaluate(*as<OrExpr>(expr).left);
      return truthy(left) ? left : evaluate(*as<OrExpr>(expr).right);
    }
    case ExprKind::kConcat:
      return evaluate_concat(as<ConcatExpr>(expr));
    default:
      return evaluate_conditional(as<ConditionalExpr>(expr));
  }
}

Value Evaluator::evaluate_list(const ListExpr& expr) {
  Values items;
  items.reserve(expr.items.size());
  for (const ExprPtr& item : expr.items) items.push_back(evaluate(*item));
  return expr.is_tuple ? runtime_.tuple(std::move(items)) : runtime_.list(std::move(items));
}

Value Evaluator::evaluate_dict(const DictExpr& expr) {
  auto dict = std::make_unique<Dict>(runtime_);
  for (const auto& [key_expr, value_expr] : expr.entries) {
    const Value key = evaluate(*key_expr);
    dict->set(key, evaluate(*value_expr));
  }
  return runtime_.dict(std::move(dict));
}

Value Evaluator::evaluate_slice(const SliceExpr& expr) {
  const auto bound = [&](const ExprPtr& part) { return part ? evaluate(*part) : Value::none(); };
  const Value object = evaluate(*expr.object), start = bound(expr.start), stop = bound(expr.stop),
              step = bound(expr.step);
  line_ = expr.line;
  return slice(runtime_, object, start, stop, step);
}

void Evaluator::evaluate_arguments(const CallArguments& arguments, Evaluated& out) {
  out.positional.reserve(arguments.positional.size());
  for (const ExprPtr& item : arguments.positional) out.positional.push_back(evaluate(*item));
  if (arguments.more) {
    const Value more = items_of(runtime_, evaluate(*arguments.more));
    out.positional.insert(out.positional.end(), more.list().items.begin(), more.list().items.end());
  }
  for (const auto& [name, item] : arguments.named) out.named.emplace_back(name, evaluate(*item));
  if (!arguments.more_named) return;
  const Value more = evaluate(*arguments.more_named);
  if (!more.is(Kind::kDict)) fail("what follows '**' must be a dict, not '{}'", type_name(more));
  for (const auto& [key, value] : more.dict().entries) {
    if (!key.is_string()) fail("what follows '**' must have texts as keys, not '{}'", type_name(key));
    for (const auto& [name, item] : arguments.named)
      if (name == key.view()) fail("the argument '{}' is given twice", name);
    out.names.push_back(key);
    out.named.emplace_back(key.view(), value);
  }
}

Value Evaluator::evaluate_call(const CallExpr& expr, const Value* caller) {
  const Value callee = evaluate(*expr.callee);
  Evaluated arguments;
  evaluate_arguments(expr.arguments, arguments);
  if (caller) arguments.named.emplace_back("caller", *caller);
  line_ = expr.line;
  return call(callee, {arguments.positional, arguments.named});
}

Value Evaluator::call(const Value& callee, const Arguments& arguments) {
  if (callee.is_undefined()) fail_undefined(callee);
  if (callee.is(Kind::kFunction)) return callee.function().entry.call(runtime_, callee.function().self, arguments);
  if (callee.is(Kind::kInstance)) return callee.instance().call(arguments);
  fail("a value of type '{}' cannot be called", type_name(callee));
}

Value Evaluator::evaluate_filter(const FilterExpr& expr, const Value* block_input) {
  Value input;
  if (!expr.input) {
    input = *block_input;
  } else if (block_input) {
    input = evaluate_filter(as<FilterExpr>(*expr.input), block_input);
  } else {
    input = evaluate(*expr.input);
  }
  if (!expr.entry) fail("there is no filter '{}'{}", expr.name, did_you_mean(expr.name, filter_names()));
  Evaluated arguments;
  evaluate_arguments(expr.arguments, arguments);
  line_ = expr.line;
  return expr.entry->call(runtime_, input, {arguments.positional, arguments.named});
}

Value Evaluator::evaluate_test(const TestExpr& expr) {
  const Value input = evaluate(*expr.input);
  if (!expr.entry) fail("there is no test '{}'{}", expr.name, did_you_mean(expr.name, test_names()));
  Evaluated arguments;
  evaluate_arguments(expr.arguments, arguments);
  line_ = expr.line;
  return expr.entry->call(runtime_, input, {arguments.positional, arguments.named});
}

Value Evaluator::evaluate_compare(const CompareExpr& expr) {
  Value left = evaluate(*expr.first);
  for (const auto& [op, operand] : expr.rest) {
    Value right = evaluate(*operand);
    line_ = expr.line;
    if (!compare(runtime_, op, left, right)) return Value::boolean(false);
    left = std::move(right);
  }
  return Value::boolean(true);
}

Value Evaluator::evaluate_concat(const ConcatExpr& expr) {
  TextBuilder out(runtime_);
  for (const ExprPtr& item : expr.items) append_str(out, evaluate(*item));
  return out.value();
}

Value Evaluator::evaluate_conditional(const ConditionalExpr& expr) {
  if (truthy(evaluate(*expr.condition))) return evaluate(*expr.then);
  if (expr.otherwise) return evaluate(*expr.otherwise);
  return runtime_.undefined_hint("an inline if was false and has no else");
}

}  // namespace millrace::jinja
