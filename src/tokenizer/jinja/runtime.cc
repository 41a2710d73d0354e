#include "tokenizer/jinja/runtime.h"

#include "base/text.h"

namespace millrace::jinja {

Runtime::Runtime(const TemplateLimits& limits, Lifetime lifetime) : limits_(limits), lifetime_(lifetime) {}

Runtime::~Runtime() {
  for (const Value& value : remembered_) value.instance().clear();
}

void Runtime::check_room(size_t count, size_t each) const {
  size_t bytes = 0;
  if (__builtin_mul_overflow(count, each, &bytes)) fail_memory(SIZE_MAX);
  check_room(bytes);
}

void Runtime::fail_steps() const {
  throw Failure{resource_exhausted("the template does more than {} steps", format_count(limits_.max_steps))};
}

void Runtime::fail_memory(size_t bytes) const {
  throw Failure{resource_exhausted("the template's values need {} more, beyond the limit of {}",
                                   format_bytes(static_cast<int64_t>(std::min<size_t>(bytes, INT64_MAX))),
                                   format_bytes(static_cast<int64_t>(limits_.max_memory_bytes)))};
}

template <class T>
Value Runtime::adopt(Kind kind, std::unique_ptr<T> object) {
  if (lifetime_ == Lifetime::kPermanent) {
    object->uses = Object::kPermanent;
    permanent_.push_back(std::move(object));
    return Value::object(kind, permanent_.back().get());
  }
  return Value::object(kind, object.release());
}

Value Runtime::text(std::string content, bool markup) {
  step(1 + content.size() / 16);
  return adopt(Kind::kString, std::make_unique<Text>(*this, std::move(content), markup));
}

Value Runtime::list(Values items) {
  step(items.size());
  return adopt(Kind::kList, std::make_unique<List>(*this, std::move(items), false));
}

Value Runtime::tuple(Values items) {
  step(items.size());
  return adopt(Kind::kTuple, std::make_unique<List>(*this, std::move(items), false));
}

Value Runtime::group(Value key, Value items) {
  return adopt(Kind::kTuple, std::make_unique<List>(*this, Values{std::move(key), std::move(items)}, true));
}

Value Runtime::dict(std::unique_ptr<Dict> dict) { return adopt(Kind::kDict, std::move(dict)); }

Value Runtime::range(int64_t start, int64_t stop, int64_t step) {
  return adopt(Kind::kRange, std::make_unique<Range>(*this, start, stop, step));
}

Value Runtime::view(Value dict, View::Part part) {
  return adopt(Kind::kView, std::make_unique<View>(*this, std::move(dict), part));
}

Value Runtime::iterator(Values items, std::optional<Failure> failure) {
  step(items.size());
  return adopt(Kind::kIterator, std::make_unique<Iterator>(*this, std::move(items), std::move(failure)));
}

Value Runtime::function(const NativeEntry& entry, Value self) {
  return adopt(Kind::kFunction, std::make_unique<Function>(*this, entry, std::move(self)));
}

Value Runtime::instance(std::unique_ptr<Instance> instance) { return adopt(Kind::kInstance, std::move(instance)); }

Value Runtime::undefined_variable(std::string_view name) {
  return Value::undefined(Absence::kVariable, &text(name).text());
}

Value Runtime::undefined_hint(std::string_view sentence) {
  return Value::undefined(Absence::kHint, &text(sentence).text());
}

void Runtime::remember(Instance& instance) { remembered_.push_back(Value::object(Kind::kInstance, &instance)); }

}  // namespace millrace::jinja
