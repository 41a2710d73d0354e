#include "tokenizer/jinja/evaluator_objects.h"

#include "tokenizer/jinja/arguments.h"
#include "tokenizer/jinja/format.h"
#include "tokenizer/jinja/operators.h"

namespace millrace::jinja {

Macro::Macro(Evaluator& evaluator, const MacroCode& code, Scope* defined_in)
    : Instance(evaluator.runtime_, sizeof(Macro)), evaluator_(evaluator), code_(code), defined_in_(defined_in) {}

std::optional<Value> Macro::attribute(std::string_view name) {
  if (name == "name") return code_.name.empty() ? Value::none() : runtime.text(code_.name);
  if (name == "catch_kwargs") return Value::boolean(code_.uses_kwargs);
  if (name == "catch_varargs") return Value::boolean(code_.uses_varargs);
  if (name == "caller") return Value::boolean(code_.uses_caller);
  if (name != "arguments") return std::nullopt;
  Values names;
  for (const Symbol symbol : code_.parameters) names.push_back(evaluator_.program_.symbol_names[symbol]);
  return runtime.tuple(std::move(names));
}

std::string Macro::repr(int) {
  return fmt::format("<Macro {}>", code_.name.empty() ? "anonymous" : text_repr(code_.name));
}

Value Macro::call(const Arguments& arguments) { return evaluator_.run_macro(code_, defined_in_, arguments); }

Loop::Loop(Evaluator& evaluator, const ForStatement& node, Value items, Scope* defined_in, int depth)
    : Instance(evaluator.runtime_, sizeof(Loop)),
      evaluator_(evaluator),
      node_(node),
      items_(std::move(items)),
      defined_in_(defined_in),
      depth_(depth),
      filtered_(node.filter != nullptr) {}

bool Loop::passes(const Value& item) {
  const ScopeGuard guard(evaluator_, defined_in_);
  evaluator_.assign(node_.target, item);
  return truthy(evaluator_.evaluate(*node_.filter));
}

std::optional<Value> Loop::pull() {
  while (next_ < items_.list().items.size()) {
    const Value item = items_.list().items[next_++];  // a copy: the filter may ask for this loop's length
    if (!filtered_ || passes(item)) return item;
  }
  return std::nullopt;
}

std::optional<Value> Loop::advance() {
  before_ = std::move(current_);
  current_ = after_ ? std::exchange(after_, std::nullopt) : pull();
  if (current_) ++index0_;
  return current_;
}

const std::optional<Value>& Loop::peek() {
  if (!after_) after_ = pull();
  return after_;
}

std::optional<int64_t> Loop::length() {
  if (length_) return length_;
  if (!filtered_) return length_ = static_cast<int64_t>(items_.list().items.size());
  Values rest;
  while (auto item = pull()) rest.push_back(*std::move(item));
  length_ = static_cast<int64_t>(rest.size()) + index0_ + 1 + (after_ ? 1 : 0);
  items_ = runtime.list(std::move(rest));
  next_ = 0;
  filtered_ = false;
  return length_;
}

Value Loop::neighbour(const std::optional<Value>& item, std::string_view missing) {
  return item ? *item : runtime.undefined_hint(missing);
}

std::optional<Value> Loop::attribute(std::string_view name) {
  static constexpr NativeEntry kCycle = {"cycle", cycle}, kChanged = {"changed", changed};
  if (name == "index") return Value::integer(index0_ + 1);
  if (name == "index0") return Value::integer(index0_);
  if (name == "first") return Value::boolean(index0_ == 0);
  if (name == "last") return Value::boolean(!peek());
  if (name == "length") return Value::integer(*length());
  if (name == "revindex") return Value::integer(*length() - index0_);
  if (name == "revindex0") return Value::integer(*length() - index0_ - 1);
  if (name == "previtem") return neighbour(index0_ == 0 ? std::nullopt : before_, "there is no previous item");
  if (name == "nextitem") return neighbour(peek(), "there is no next item");
  if (name == "depth") return Value::integer(depth_ + 1);
  if (name == "depth0") return Value::integer(depth_);
  if (name == "cycle") return runtime.function(kCycle, Value::object(Kind::kInstance, this));
  if (name == "changed") return runtime.function(kChanged, Value::object(Kind::kInstance, this));
  return std::nullopt;
}

std::string Loop::repr(int) { return fmt::format("<LoopContext {}/{}>", index0_ + 1, *length()); }

Value Loop::call(const Arguments& arguments) {
  const auto [iterable] = bind<1>("loop", arguments, {"iterable"}, 1);
  if (!node_.recursive) fail("only a loop marked 'recursive' can be called");
  const Value items = *iterable;
  return evaluator_.run_recursive_loop(node_, items, defined_in_, depth_ + 1);
}

void Loop::clear() {
  items_ = {};
  current_ = before_ = after_ = last_changed_ = std::nullopt;
}

Value Loop::cycle(Runtime&, const Value& self, const Arguments& arguments) {
  if (!arguments.named.empty() || arguments.positional.empty()) fail("loop.cycle() needs values without names");
  const int64_t index0 = static_cast<Loop&>(self.instance()).index0_;
  return arguments.positional[static_cast<size_t>(index0) % arguments.positional.size()];
}

Value Loop::changed(Runtime& runtime, const Value& self, const Arguments& arguments) {
  if (!arguments.named.empty()) fail("loop.changed() takes values without names");
  Loop& loop = static_cast<Loop&>(self.instance());
  Value values = runtime.tuple(arguments.positional);
  if (loop.last_changed_ && equal(runtime, *loop.last_changed_, values)) return Value::boolean(false);
  if (!loop.last_changed_) runtime.remember(loop);  // the values may hold this very loop
  loop.last_changed_ = std::move(values);
  return Value::boolean(true);
}

}  // namespace millrace::jinja
