// The two objects that lead from a value back into the template: macros and the `loop` of a for statement.
#pragma once
#include <optional>
#include <string>
#include <string_view>

#include "tokenizer/jinja/evaluator.h"

namespace millrace::jinja {

// A macro, or the `caller` that a call block hands to one. Lives no longer than its evaluator.
class Macro final : public Instance {
 public:
  Macro(Evaluator& evaluator, const MacroCode& code, Scope* defined_in);
  std::string_view type_name() const override { return "Macro"; }
  std::optional<Value> attribute(std::string_view name) override;
  std::string repr(int depth) override;
  bool callable() const override { return true; }
  Value call(const Arguments& arguments) override;

 private:
  Evaluator& evaluator_;
  const MacroCode& code_;
  Scope* const defined_in_;  // null: the top level
};

// The walk of one for statement, which is also what the template sees as `loop`.
class Loop final : public Instance {
 public:
  // `items` is a list or tuple.
  Loop(Evaluator& evaluator, const ForStatement& node, Value items, Scope* defined_in, int depth);
  // The next item that the loop's `if` lets through; nothing at the end.
  std::optional<Value> advance();

  std::string_view type_name() const override { return "LoopContext"; }
  std::optional<Value> attribute(std::string_view name) override;
  std::string repr(int depth) override;
  std::optional<int64_t> length() override;
  bool callable() const override { return true; }
  // Renders the loop's body for other items; only a recursive loop can.
  Value call(const Arguments& arguments) override;
  void clear() override;

 private:
  std::optional<Value> pull();
  bool passes(const Value& item);
  const std::optional<Value>& peek();
  Value neighbour(const std::optional<Value>& item, std::string_view missing);
  static Value cycle(Runtime& runtime, const Value& self, const Arguments& arguments);
  static Value changed(Runtime& runtime, const Value& self, const Arguments& arguments);

  Evaluator& evaluator_;
  const ForStatement& node_;
  Value items_;
  Scope* const defined_in_;
  const int depth_;  // 0 unless the loop called itself
  size_t next_ = 0;  // in items_
  bool filtered_;    // the items behind next_ have yet to pass the loop's `if`
  int64_t index0_ = -1;
  std::optional<Value> current_, before_, after_;
  std::optional<int64_t> length_;
  std::optional<Value> last_changed_;
};

}  // namespace millrace::jinja
