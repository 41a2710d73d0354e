#include "tokenizer/jinja/functions.h"

#include <algorithm>
#include <chrono>
#include <ctime>

#include "tokenizer/jinja/arguments.h"
#include "tokenizer/jinja/format.h"
#include "tokenizer/jinja/operators.h"
#include "tokenizer/jinja/runtime.h"

namespace millrace::jinja {
namespace {

constexpr int64_t kMaxRange = 100'000;  // as Jinja's sandbox

class Cycler final : public Instance {
 public:
  Cycler(Runtime& runtime, Value items) : Instance(runtime, sizeof(Cycler)), items_(std::move(items)) {}
  std::string_view type_name() const override { return "Cycler"; }
  std::string repr(int) override { return "<Cycler>"; }
  void clear() override { items_ = {}; }
  std::optional<Value> attribute(std::string_view name) override {
    if (name == "current") return current();
    for (const NativeEntry& method : kMethods)
      if (method.name == name) return runtime.function(method, Value::object(Kind::kInstance, this));
    return std::nullopt;
  }

 private:
  const Value& current() const { return items_.list().items[position_]; }
  static Value next(Runtime&, const Value& self, const Arguments& arguments) {
    expect_no_arguments("next", arguments);
    auto& cycler = static_cast<Cycler&>(self.instance());
    const Value value = cycler.current();
    cycler.position_ = (cycler.position_ + 1) % cycler.items_.list().items.size();
    return value;
  }
  static Value reset(Runtime&, const Value& self, const Arguments& arguments) {
    expect_no_arguments("reset", arguments);
    static_cast<Cycler&>(self.instance()).position_ = 0;
    return Value::none();
  }
  static constexpr NativeEntry kMethods[] = {{"next", next}, {"reset", reset}};
  Value items_;
  size_t position_ = 0;
};

class Joiner final : public Instance {
 public:
  Joiner(Runtime& runtime, Value separator) : Instance(runtime, sizeof(Joiner)), separator_(std::move(separator)) {}
  std::string_view type_name() const override { return "Joiner"; }
  std::string repr(int) override { return "<Joiner>"; }
  void clear() override { separator_ = {}; }
  bool callable() const override { return true; }
  std::optional<Value> attribute(std::string_view name) override {
    if (name == "sep") return separator_;
    if (name == "used") return Value::boolean(used_);
    return std::nullopt;
  }
  Value call(const Arguments& arguments) override {
    expect_no_arguments("joiner", arguments);
    if (std::exchange(used_, true)) return separator_;
    return runtime.text("");
  }

 private:
  Value separator_;
  bool used_ = false;
};

Value make_range(Runtime& runtime, const Value&, const Arguments& arguments) {
  const auto [first, second, third] = bind<3>("range", arguments, {"*start", "*stop", "*step"}, 1);
  const int64_t a = to_index(*first, "range: a bound");
  const int64_t start = second ? a : 0, stop = second ? to_index(*second, "range: a bound") : a;
  const int64_t step = third ? to_index(*third, "range: the step") : 1;
  if (step == 0) fail("range: the step must not be 0");
  Value range = runtime.range(start, stop, step);
  if (range.range().count > kMaxRange)
    fail("range: {} numbers are too many; at most {} are allowed", range.range().count, kMaxRange);
  return range;
}

// Calls set(key, value) for everything dict(...) would hold.
template <class Set>
void each_entry(Runtime& runtime, std::string_view callee, const Arguments& arguments, const Set& set) {
  if (arguments.positional.size() > 1) fail("{}() takes at most one value without a name", callee);
  if (!arguments.positional.empty()) {
    const Value& source = arguments.positional[0];
    const Value pairs = items_of(runtime, source.is(Kind::kDict) ? runtime.view(source, View::Part::kItems) : source);
    for (const Value& pair : pairs.list().items) {
      const Value both = items_of(runtime, pair);
      if (length(both) != 2) fail("{}(): every item must be a pair, not {} values", callee, length(both));
      set(both.list().items[0], both.list().items[1]);
    }
  }
  for (const auto& [name, value] : arguments.named) set(runtime.text(name), value);
}

Value make_dict(Runtime& runtime, const Value&, const Arguments& arguments) {
  auto dict = std::make_unique<Dict>(runtime);
  each_entry(runtime, "dict", arguments, [&](const Value& key, const Value& value) { dict->set(key, value); });
  return runtime.dict(std::move(dict));
}

Value make_namespace(Runtime& runtime, const Value&, const Arguments& arguments) {
  auto made = std::make_unique<Namespace>(runtime);
  Namespace& space = *made;
  Value value = runtime.instance(std::move(made));
  runtime.remember(space);
  each_entry(runtime, "namespace", arguments, [&](const Value& key, const Value& item) {
    space.set(text_argument("namespace: a name", &key, ""), item);
  });
  return value;
}

Value make_cycler(Runtime& runtime, const Value&, const Arguments& arguments) {
  if (!arguments.named.empty() || arguments.positional.empty()) fail("cycler() needs values without names");
  Value value = runtime.instance(std::make_unique<Cycler>(runtime, runtime.tuple(arguments.positional)));
  runtime.remember(value.instance());
  return value;
}

Value make_joiner(Runtime& runtime, const Value&, const Arguments& arguments) {
  const auto [separator] = bind<1>("joiner", arguments, {"sep"});
  Value value = runtime.instance(std::make_unique<Joiner>(runtime, separator ? *separator : runtime.text(", ")));
  runtime.remember(value.instance());
  return value;
}

Value raise_exception(Runtime& runtime, const Value&, const Arguments& arguments) {
  const auto [message] = bind<1>("raise_exception", arguments, {"message"}, 1);
  throw Failure{Status(Code::kInvalidArgument, str(runtime, *message)), true};
}

struct LocalTime {
  std::tm parts{};
  int microseconds = 0;
};
LocalTime time_of(const Runtime& runtime) {
  LocalTime time;
  if (runtime.fixed_time) {
    const auto seconds = static_cast<std::time_t>(*runtime.fixed_time);
    gmtime_r(&seconds, &time.parts);
    return time;
  }
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  const auto micros = std::chrono::duration_cast<std::chrono::microseconds>(now).count();
  const auto seconds = static_cast<std::time_t>(micros / 1'000'000);
  localtime_r(&seconds, &time.parts);
  time.microseconds = static_cast<int>(micros % 1'000'000);
  return time;
}

// Bytes of the directive at the front of `format`, "%" included: a flag, an E or O, and a letter. No widths: they could
// ask for any amount of output.
size_t directive_size(std::string_view format) {
  size_t size = 1;
  if (size < format.size() && std::string_view("-_0^#").find(format[size]) != std::string_view::npos) ++size;
  if (size + 1 < format.size() && (format[size] == 'E' || format[size] == 'O')) ++size;
  return std::min(size + 1, format.size());
}

Value strftime_now(Runtime& runtime, const Value&, const Arguments& arguments) {
  const auto [format] = bind<1>("strftime_now", arguments, {"format"}, 1);
  const LocalTime time = time_of(runtime);
  std::string_view rest = text_argument("format", format, "");
  TextBuilder out(runtime);
  for (size_t at; (at = rest.find('%')) != std::string_view::npos;) {
    out.append(rest.substr(0, at));
    rest.remove_prefix(at);
    const std::string directive(rest.substr(0, directive_size(rest)));
    rest.remove_prefix(directive.size());
    char text[128];
    if (directive == "%f") {
      out.append(fmt::format("{:06}", time.microseconds));
    } else if (directive.back() == 'z' || directive.back() == 'Z') {
      continue;  // the time carries no zone
    } else {
      out.append({text, std::strftime(text, sizeof text, directive.c_str(), &time.parts)});
    }
  }
  out.append(rest);
  return out.value();
}

constexpr NativeEntry kFunctions[] = {
    {"range", make_range},          {"dict", make_dict},     {"namespace", make_namespace},
    {"cycler", make_cycler},        {"joiner", make_joiner}, {"raise_exception", raise_exception},
    {"strftime_now", strftime_now},
};

}  // namespace

const NativeEntry* find_function(std::string_view name) {
  for (const NativeEntry& entry : kFunctions)
    if (entry.name == name) return &entry;
  return nullptr;
}

std::optional<Value> Namespace::attribute(std::string_view name) {
  runtime.step(attributes_.size() / 8);
  for (const auto& [key, value] : attributes_)
    if (key == name) return value;
  return std::nullopt;
}

void Namespace::set(std::string_view name, Value value) {
  for (auto& [key, old] : attributes_)
    if (key == name) return void(old = std::move(value));
  const size_t entry_bytes = sizeof(attributes_[0]) + name.size();
  runtime.take(entry_bytes);
  bytes += entry_bytes;
  runtime.step(attributes_.size());
  attributes_.emplace_back(name, std::move(value));
}

std::string Namespace::repr(int depth) {
  if (showing_) return "<Namespace {...}>";
  struct Showing {
    bool& flag;
    explicit Showing(bool& f) : flag(f) { flag = true; }
    ~Showing() { flag = false; }
  };
  const Showing showing(showing_);
  auto dict = std::make_unique<Dict>(runtime);
  for (const auto& [name, value] : attributes_) dict->set(runtime.text(name), value);
  TextBuilder out(runtime);
  out.append("<Namespace ");
  append_repr(out, runtime.dict(std::move(dict)), depth);
  out.append(">");
  return out.take();
}

}  // namespace millrace::jinja
