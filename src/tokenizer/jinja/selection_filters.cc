// map, select, reject, selectattr, rejectattr: filters that apply another filter or test to every item.
#include "base/text.h"
#include "tokenizer/jinja/arguments.h"
#include "tokenizer/jinja/attribute_path.h"
#include "tokenizer/jinja/filters.h"
#include "tokenizer/jinja/operators.h"
#include "tokenizer/jinja/tests.h"

namespace millrace::jinja {
namespace {

// An iterator over what visit(item) adds to the result. A failure shows when the iterator is walked that far, as with
// Python's generators; running out of resources shows at once.
template <class Visit>
Value generate(Runtime& runtime, const Value& source, const Visit& visit) {
  Values results;
  if (!truthy(source)) return runtime.iterator({});
  try {
    const Value items = items_of(runtime, source);
    for (const Value& item : items.list().items) {
      runtime.step();
      visit(item, results);
    }
  } catch (const Failure& failure) {
    return failed_iterator(runtime, failure, std::move(results));
  }
  return runtime.iterator(std::move(results));
}

// What is left of the arguments after the first `count` positional ones.
Values without_first(const Arguments& arguments, size_t count) {
  return {arguments.positional.begin() + static_cast<std::ptrdiff_t>(count), arguments.positional.end()};
}

Value map_attribute(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const auto [attribute, otherwise] = bind<2>("map", arguments, {"attribute", "default"});
  const AttributePath path(runtime, attribute, otherwise);
  return generate(runtime, self, [&](const Value& item, Values& results) { results.push_back(path.get(item)); });
}

Value map_items(Runtime& runtime, const Value& self, const Arguments& arguments) {
  if (arguments.positional.empty()) {
    for (const auto& [name, value] : arguments.named)
      if (name == "attribute") return map_attribute(runtime, self, arguments);
    fail("map: the name of a filter, or attribute=, is needed");
  }
  const std::string_view name = text_argument("map: the filter", &arguments.positional[0], "");
  const NativeEntry* filter = find_filter(name);
  if (!filter) fail("there is no filter '{}'{}", name, did_you_mean(name, filter_names()));
  const Values rest = without_first(arguments, 1);
  return generate(runtime, self, [&](const Value& item, Values& results) {
    results.push_back(filter->call(runtime, item, {rest, arguments.named}));
  });
}

template <bool ByAttribute, bool Keep>
Value choose_items(Runtime& runtime, const Value& self, const Arguments& arguments) {
  constexpr size_t kFirst = ByAttribute ? 1 : 0;
  if (arguments.positional.size() < kFirst) fail("selectattr and rejectattr need the name of an attribute");
  const AttributePath path(runtime, ByAttribute ? &arguments.positional[0] : nullptr);
  const NativeEntry* test = nullptr;
  if (arguments.positional.size() > kFirst) {
    const std::string_view name = text_argument("the name of the test", &arguments.positional[kFirst], "");
    test = find_test(name);
    if (!test) fail("there is no test '{}'{}", name, did_you_mean(name, test_names()));
  }
  const Values rest = test ? without_first(arguments, kFirst + 1) : Values{};
  return generate(runtime, self, [&](const Value& item, Values& results) {
    const Value subject = path.get(item);
    const bool passes = truthy(test ? test->call(runtime, subject, {rest, arguments.named}) : subject);
    if (passes == Keep) results.push_back(item);
  });
}

template <Native Filter>
Value lazily(Runtime& runtime, const Value& self, const Arguments& arguments) {
  return deferred(runtime, [&] { return Filter(runtime, self, arguments); });
}

constexpr NativeEntry kSelectionFilters[] = {
    {"map", lazily<map_items>},
    {"select", lazily<choose_items<false, true>>},
    {"reject", lazily<choose_items<false, false>>},
    {"selectattr", lazily<choose_items<true, true>>},
    {"rejectattr", lazily<choose_items<true, false>>},
};

}  // namespace

std::span<const NativeEntry> selection_filters() { return kSelectionFilters; }

}  // namespace millrace::jinja
