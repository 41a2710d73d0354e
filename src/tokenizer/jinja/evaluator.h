// Walks a Program with the variables of one rendering and collects the text it prints. One thread; used once.
#pragma once
#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/json.h"
#include "tokenizer/jinja/ast.h"
#include "tokenizer/jinja/runtime.h"

namespace millrace::jinja {

// The variables that a block of the template has assigned. Names not found here are looked for in `parent`.
struct Scope {
  Scope* parent = nullptr;
  bool captured = false;  // a macro made here may look names up later: keep the object until the rendering ends
  std::vector<std::pair<Symbol, Value>> variables;
};

class Evaluator {
 public:
  // `program` outlives the evaluator. `fixed_time`: seconds since 1970, shown in UTC, for strftime_now.
  Evaluator(const Program& program, std::optional<int64_t> fixed_time);
  ~Evaluator();

  // `variables` is an object; what the template does not name is not looked at.
  std::string run(const OrderedJson& variables);
  // The line being evaluated, for error messages.
  int line() const { return line_; }

 private:
  friend class Macro;
  friend class Loop;
  friend class ScopeGuard;
  enum class Flow : uint8_t { kNext, kBreak, kContinue };

  // Statements.
  Flow execute(const Body& body);
  Flow execute(const Statement& statement);
  Flow execute_if(const IfStatement& node);
  Flow execute_for(const ForStatement& node);
  Flow execute_in_scope(const Body& body, Scope* parent);
  Flow execute_with(const WithStatement& node);
  Flow execute_set_block(const SetBlockStatement& node);
  Flow execute_filter_block(const FilterBlockStatement& node);
  void execute_macro(const MacroStatement& node);
  void execute_call_block(const CallBlockStatement& node);
  // kBreak and kContinue come from the loop's `else` and concern the loop around it.
  Flow run_loop(const ForStatement& node, const Value& iterable, Scope* defined_in, int depth);
  // The same for a recursive loop: what it prints, as a value.
  Value run_recursive_loop(const ForStatement& node, const Value& iterable, Scope* defined_in, int depth);
  Value make_macro(const MacroCode& code);
  Value run_macro(const MacroCode& code, Scope* defined_in, const Arguments& arguments);
  void bind_parameters(const MacroCode& code, const Arguments& arguments);
  void bind_extras(const MacroCode& code, const Arguments& arguments, const std::vector<bool>& used);

  // Expressions.
  Value evaluate(const Expr& expr);
  Value evaluate_deeper(const Expr& expr);
  Value evaluate_list(const ListExpr& expr);
  Value evaluate_dict(const DictExpr& expr);
  Value evaluate_slice(const SliceExpr& expr);
  Value evaluate_call(const CallExpr& expr, const Value* caller);
  Value evaluate_filter(const FilterExpr& expr, const Value* block_input);
  Value evaluate_test(const TestExpr& expr);
  Value evaluate_compare(const CompareExpr& expr);
  Value evaluate_concat(const ConcatExpr& expr);
  Value evaluate_conditional(const ConditionalExpr& expr);
  Value call(const Value& callee, const Arguments& arguments);

  // Evaluated arguments of a call, to be borrowed by an Arguments.
  struct Evaluated {
    Values positional;
    std::vector<std::pair<std::string_view, Value>> named;
    std::vector<Value> names;  // keep the texts alive that `named` views
  };
  void evaluate_arguments(const CallArguments& arguments, Evaluated& out);

  // Variables.
  Value look_up(Symbol symbol);
  // The variable in this very scope; null if it has none of this name.
  Value* find_in(Scope& scope, Symbol symbol);
  void assign(Symbol symbol, Value value);
  void assign(const Target& target, const Value& value);
  void assign_attribute(const Target& target, const Value& value);

  // Output.
  void print(const Value& value);
  void print_text(std::string_view text);
  // What `work` prints, as a value instead.
  template <class Work>
  Value capture(const Work& work);

  Value from_json(const OrderedJson& json, int depth);

  const Program& program_;
  std::deque<Scope> scopes_;  // all that were ever made; their addresses stay
  std::vector<Scope*> free_scopes_;
  Runtime runtime_;
  Values top_;              // by symbol: what the top level assigned or was given; undefined without a reason: nothing
  Scope* scope_ = nullptr;  // null at the top level
  std::string* out_ = nullptr;
  size_t printed_bytes_ = 0;  // in all unfinished outputs together
  int depth_ = 0;
  int line_ = 1;
};

// Makes a new scope the current one while it lives. What was assigned in it is gone afterwards.
class ScopeGuard {
 public:
  ScopeGuard(Evaluator& evaluator, Scope* parent);
  ~ScopeGuard();
  ScopeGuard(const ScopeGuard&) = delete;
  ScopeGuard& operator=(const ScopeGuard&) = delete;
  Scope& scope() { return *scope_; }

 private:
  Evaluator& evaluator_;
  Scope* before_;
  Scope* scope_;
};

}  // namespace millrace::jinja
