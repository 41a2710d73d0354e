// Filters over lists, dictionaries and everything else that can be walked.
#include <algorithm>

#include "tokenizer/jinja/arguments.h"
#include "tokenizer/jinja/attribute_path.h"
#include "tokenizer/jinja/filters.h"
#include "tokenizer/jinja/format.h"
#include "tokenizer/jinja/operators.h"
#include "tokenizer/jinja/text_ops.h"

namespace millrace::jinja {
namespace {

// Positions of `keys` in rising order, or falling; equal ones stay in their order either way.
std::vector<size_t> sorted_order(Runtime& runtime, const Values& keys, bool falling) {
  std::vector<size_t> order(keys.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return falling ? less(runtime, keys[b], keys[a]) : less(runtime, keys[a], keys[b]);
  });
  return order;
}

Value filter_length(Runtime&, const Value& self, const Arguments& arguments) {
  expect_no_arguments("length", arguments);
  return Value::integer(length(self));
}

Value filter_list(Runtime& runtime, const Value& self, const Arguments& arguments) {
  expect_no_arguments("list", arguments);
  const Value items = items_of(runtime, self);
  return items.is(Kind::kList) ? items : runtime.list(items.list().items);
}

Value filter_first(Runtime& runtime, const Value& self, const Arguments& arguments) {
  expect_no_arguments("first", arguments);
  if (self.is(Kind::kIterator)) {
    Iterator& iterator = self.iterator();
    if (iterator.next < iterator.items.size()) return iterator.items[iterator.next++];
  }
  const Value items = items_of(runtime, self);
  if (!items.list().items.empty()) return items.list().items.front();
  return runtime.undefined_hint("first: the sequence is empty");
}

Value filter_last(Runtime& runtime, const Value& self, const Arguments& arguments) {
  expect_no_arguments("last", arguments);
  if (self.is(Kind::kIterator)) fail("last: an iterator has no last item; turn it into a list first");
  const Value items = items_of(runtime, self);
  if (!items.list().items.empty()) return items.list().items.back();
  return runtime.undefined_hint("last: the sequence is empty");
}

Value filter_random(Runtime&, const Value&, const Arguments&) {
  fail("random: a chat template must give the same text every time");
}

Value filter_join(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const auto [separator, attribute] = bind<2>("join", arguments, {"d", "attribute"});
  const AttributePath path(runtime, attribute);
  const std::string between = separator ? str(runtime, *separator) : "";
  const Value items = items_of(runtime, self);
  TextBuilder out(runtime);
  bool first = true;
  for (const Value& item : items.list().items) {
    runtime.step();
    if (!first) out.append(between);
    first = false;
    append_str(out, path.get(item));
  }
  return out.value();
}

Value filter_reverse(Runtime& runtime, const Value& self, const Arguments& arguments) {
  expect_no_arguments("reverse", arguments);
  if (self.is_string()) {
    runtime.step_chars(self.view().size() * 2);
    std::string out;
    const auto chars = split_chars(self.view());
    for (auto c = chars.rbegin(); c != chars.rend(); ++c) out += *c;
    return runtime.text(std::move(out), self.text().markup);
  }
  Values items = items_of(runtime, self).list().items;
  std::reverse(items.begin(), items.end());
  return self.is(Kind::kIterator) ? runtime.list(std::move(items)) : runtime.iterator(std::move(items));
}

Value filter_sort(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const auto [reverse, case_sensitive, attribute] =
      bind<3>("sort", arguments, {"reverse", "case_sensitive", "attribute"});
  const auto paths = attribute_paths(runtime, attribute);
  const bool exact = bool_argument(case_sensitive, false);
  const Value items = items_of(runtime, self);
  Values keys;
  for (const Value& item : items.list().items) {
    Values key;
    for (const AttributePath& path : paths)
      key.push_back(exact ? path.get(item) : ignore_case(runtime, path.get(item)));
    keys.push_back(key.size() == 1 ? key.front() : runtime.list(std::move(key)));
  }
  Values sorted;
  for (const size_t i : sorted_order(runtime, keys, int_argument("reverse", reverse, 0) != 0))
    sorted.push_back(items.list().items[i]);
  return runtime.list(std::move(sorted));
}

Value filter_dictsort(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const auto [case_sensitive, by, reverse] = bind<3>("dictsort", arguments, {"case_sensitive", "by", "reverse"});
  const std::string_view what = text_argument("by", by, "key");
  if (what != "key" && what != "value") fail("dictsort: by is {}; it must be 'key' or 'value'", text_repr(what));
  if (self.is_undefined()) fail_undefined(self);
  if (!self.is(Kind::kDict)) fail("dictsort: a dict is needed, not '{}'", type_name(self));
  const bool exact = bool_argument(case_sensitive, false);
  Values keys;
  for (const auto& [key, value] : self.dict().entries) {
    const Value& chosen = what == "key" ? key : value;
    keys.push_back(exact ? chosen : ignore_case(runtime, chosen));
  }
  Values sorted;
  for (const size_t i : sorted_order(runtime, keys, int_argument("reverse", reverse, 0) != 0))
    sorted.push_back(runtime.tuple({self.dict().entries[i].first, self.dict().entries[i].second}));
  return runtime.list(std::move(sorted));
}

Value filter_groupby(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const auto [attribute, otherwise, case_sensitive] =
      bind<3>("groupby", arguments, {"attribute", "default", "case_sensitive"}, 1);
  const AttributePath path(runtime, attribute, otherwise);
  const bool exact = bool_argument(case_sensitive, false);
  const Value items = items_of(runtime, self);
  Values keys;
  for (const Value& item : items.list().items)
    keys.push_back(exact ? path.get(item) : ignore_case(runtime, path.get(item)));
  Values groups, members;
  const auto order = sorted_order(runtime, keys, false);
  for (size_t i = 0; i < order.size(); ++i) {
    members.push_back(items.list().items[order[i]]);
    if (i + 1 < order.size() && equal(runtime, keys[order[i]], keys[order[i + 1]])) continue;
    const Value shown = path.get(members.front());
    groups.push_back(runtime.group(shown, runtime.list(std::exchange(members, {}))));
  }
  return runtime.list(std::move(groups));
}

Value unique_items(Runtime& runtime, const Value& self, const AttributePath& path, bool exact) {
  const Value items = items_of(runtime, self);
  Dict seen(runtime);
  Values kept;
  for (const Value& item : items.list().items) {
    runtime.step();
    const Value key = exact ? path.get(item) : ignore_case(runtime, path.get(item));
    if (seen.find(key)) continue;
    seen.set(key, Value::none());
    kept.push_back(item);
  }
  return runtime.iterator(std::move(kept));
}

Value filter_unique(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const auto bound = bind<2>("unique", arguments, {"case_sensitive", "attribute"});
  return deferred(runtime, [&] {
    return unique_items(runtime, self, AttributePath(runtime, bound[1]), bool_argument(bound[0], false));
  });
}

template <bool Largest>
Value extreme(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const auto [case_sensitive, attribute] = bind<2>(Largest ? "max" : "min", arguments, {"case_sensitive", "attribute"});
  const AttributePath path(runtime, attribute);
  const bool exact = bool_argument(case_sensitive, false);
  const Value items = items_of(runtime, self);
  if (items.list().items.empty())
    return runtime.undefined_hint(Largest ? "max: the sequence is empty" : "min: the sequence is empty");
  const Value* best = nullptr;
  Value best_key;
  for (const Value& item : items.list().items) {
    Value key = exact ? path.get(item) : ignore_case(runtime, path.get(item));
    if (best && !(Largest ? less(runtime, best_key, key) : less(runtime, key, best_key))) continue;
    best = &item;
    best_key = std::move(key);
  }
  return *best;
}

Value filter_sum(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const auto [attribute, start] = bind<2>("sum", arguments, {"attribute", "start"});
  if (start && start->is_string()) fail("sum: text is joined with join, not sum");
  const AttributePath path(runtime, attribute);
  Value total = start ? *start : Value::integer(0);
  const Value items = items_of(runtime, self);
  for (const Value& item : items.list().items) total = binary(runtime, BinaryOp::kAdd, total, path.get(item));
  return total;
}

Value filter_items(Runtime& runtime, const Value& self, const Arguments& arguments) {
  expect_no_arguments("items", arguments);
  if (self.is_undefined()) return runtime.iterator({});
  return deferred(runtime, [&] {
    if (!self.is(Kind::kDict)) fail("items: a dict is needed, not '{}'", type_name(self));
    return runtime.iterator(items_of(runtime, runtime.view(self, View::Part::kItems)).list().items);
  });
}

Value batches_of(Runtime& runtime, const Value& self, int64_t size, const Value* fill) {
  const Value items = items_of(runtime, self);
  Values batches, batch;
  for (const Value& item : items.list().items) {
    if (static_cast<int64_t>(batch.size()) == size) batches.push_back(runtime.list(std::exchange(batch, {})));
    batch.push_back(item);
  }
  if (!batch.empty()) {
    const int64_t missing = std::max<int64_t>(size, 0) - static_cast<int64_t>(batch.size());
    if (!absent(fill) && missing > 0) {
      runtime.check_room(static_cast<size_t>(missing), sizeof(Value));
      batch.insert(batch.end(), static_cast<size_t>(missing), *fill);
    }
    batches.push_back(runtime.list(std::move(batch)));
  }
  return runtime.iterator(std::move(batches));
}

Value filter_batch(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const auto bound = bind<2>("batch", arguments, {"linecount", "fill_with"}, 1);
  return deferred(runtime, [&] { return batches_of(runtime, self, to_index(*bound[0], "linecount"), bound[1]); });
}

Value slices_of(Runtime& runtime, const Value& self, int64_t count, const Value* fill) {
  if (count == 0) fail("slice: slices must not be 0");
  runtime.check_room(static_cast<size_t>(std::max<int64_t>(count, 0)), sizeof(List) + sizeof(Value));
  const Value source = items_of(runtime, self);
  const Values& items = source.list().items;
  const int64_t each = count < 0 ? 0 : static_cast<int64_t>(items.size()) / count;
  const int64_t longer = count < 0 ? 0 : static_cast<int64_t>(items.size()) % count;
  Values lists;
  auto next = items.begin();
  for (int64_t i = 0; i < count; ++i) {
    const auto end = next + (each + (i < longer ? 1 : 0));
    Values part(next, end);
    if (!absent(fill) && i >= longer) part.push_back(*fill);
    lists.push_back(runtime.list(std::move(part)));
    next = end;
  }
  return runtime.iterator(std::move(lists));
}

Value filter_slice(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const auto bound = bind<2>("slice", arguments, {"slices", "fill_with"}, 1);
  return deferred(runtime, [&] { return slices_of(runtime, self, to_index(*bound[0], "slices"), bound[1]); });
}

constexpr NativeEntry kSequenceFilters[] = {
    {"length", filter_length},   {"count", filter_length},      {"list", filter_list},     {"join", filter_join},
    {"items", filter_items},     {"first", filter_first},       {"last", filter_last},     {"reverse", filter_reverse},
    {"sort", filter_sort},       {"dictsort", filter_dictsort}, {"unique", filter_unique}, {"min", extreme<false>},
    {"max", extreme<true>},      {"sum", filter_sum},           {"batch", filter_batch},   {"slice", filter_slice},
    {"groupby", filter_groupby}, {"random", filter_random},
};

}  // namespace

std::span<const NativeEntry> sequence_filters() { return kSequenceFilters; }

}  // namespace millrace::jinja
