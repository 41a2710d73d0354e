#include "tokenizer/jinja/value.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "tokenizer/jinja/runtime.h"

namespace millrace::jinja {
namespace {

constexpr size_t kEntriesWithoutIndex = 8;

size_t count_chars(std::string_view text) {
  size_t continuation = 0;
  for (const char c : text) continuation += (static_cast<uint8_t>(c) & 0xc0) == 0x80;
  return text.size() - continuation;
}

int depth_of_all(const Values& items) {
  int deepest = 0;
  for (const Value& item : items) deepest = std::max(deepest, depth_of(item));
  return deepest;
}

int checked_depth(int inner) {
  if (inner >= kMaxValueDepth) fail("values are nested more than {} deep", kMaxValueDepth);
  return inner + 1;
}

// Differs between processes, so that nobody can prepare keys that collide.
uint64_t hash_seed() {
  static const uint64_t seed = (uint64_t{std::random_device{}()} << 32) | std::random_device{}();
  return seed;
}
uint64_t hash_bytes(std::string_view bytes) { return XXH3_64bits_withSeed(bytes.data(), bytes.size(), hash_seed()); }
uint64_t hash_number(double x) {
  if (x == 0) x = 0;  // minus zero equals zero
  return hash_bytes({reinterpret_cast<const char*>(&x), sizeof x}) ^ 1;
}

bool equal_texts(Runtime& runtime, std::string_view a, std::string_view b) {
  if (a.size() != b.size()) return false;
  runtime.step_text(a.size());
  return a == b;
}

bool equal_lists(Runtime& runtime, const Values& a, const Values& b) {
  if (a.size() != b.size()) return false;
  runtime.step(a.size());
  return std::equal(a.begin(), a.end(), b.begin(),
                    [&](const Value& x, const Value& y) { return equal(runtime, x, y); });
}

bool equal_dicts(Runtime& runtime, const Dict& a, const Dict& b) {
  if (&a == &b) return true;
  runtime.step(a.size());
  if (a.size() != b.size()) return false;
  return std::all_of(a.entries.begin(), a.entries.end(), [&](const auto& entry) {
    const Value* other = b.find(entry.first);
    return other && equal(runtime, entry.second, *other);
  });
}

// Views of keys compare as sets, views of items as dictionaries, views of values only with themselves.
bool equal_views(Runtime& runtime, const View& a, const View& b) {
  const Dict &left = a.dict.dict(), &right = b.dict.dict();
  if (a.part != b.part || left.size() != right.size()) return false;
  if (a.part == View::Part::kItems) return equal_dicts(runtime, left, right);
  runtime.step(left.size());
  return a.part == View::Part::kKeys && std::all_of(left.entries.begin(), left.entries.end(),
                                                    [&](const auto& entry) { return right.find(entry.first); });
}

bool equal_ranges(const Range& a, const Range& b) {
  if (a.count != b.count) return false;
  return a.count == 0 || (a.start == b.start && (a.count == 1 || a.step == b.step));
}

bool equal_numbers(const Value& a, const Value& b) {
  if (a.is_integral() && b.is_integral()) return a.as_int() == b.as_int();
  return a.as_double() == b.as_double();
}

}  // namespace

Object::Object(Runtime& owner, size_t object_bytes) : runtime(owner), bytes(object_bytes) { runtime.take(bytes); }
Object::~Object() { runtime.give(bytes); }

Text::Text(Runtime& owner, std::string text, bool is_markup)
    : Object(owner, sizeof(Text) + text.size()),
      content(std::move(text)),
      chars(count_chars(content)),
      markup(is_markup) {}

List::List(Runtime& owner, Values content, bool is_group)
    : Object(owner, sizeof(List) + content.size() * sizeof(Value)),
      items(std::move(content)),
      depth(checked_depth(depth_of_all(items))),
      group(is_group) {}

Range::Range(Runtime& owner, int64_t first, int64_t end, int64_t stride)
    : Object(owner, sizeof(Range)), start(first), stop(end), step(stride), count(0) {
  using Wide = __int128;
  const Wide span = step > 0 ? Wide{stop} - start : Wide{start} - stop,
             stride_size = step > 0 ? Wide{step} : -Wide{step};
  if (span > 0) count = static_cast<int64_t>(std::min<Wide>((span + stride_size - 1) / stride_size, INT64_MAX));
}

Iterator::Iterator(Runtime& owner, Values content, std::optional<Failure> end)
    : Object(owner, sizeof(Iterator) + content.size() * sizeof(Value)),
      items(std::move(content)),
      failure(std::move(end)),
      depth(checked_depth(depth_of_all(items))) {}

Function::Function(Runtime& owner, const NativeEntry& what, Value bound)
    : Object(owner, sizeof(Function)), entry(what), self(std::move(bound)), depth(checked_depth(depth_of(self))) {}

Value Instance::call(const Arguments&) { fail("'{}' object is not callable", type_name()); }

void Dict::set(const Value& key, Value value) {
  const uint64_t hash = hash_of(runtime, key);
  depth = std::max(depth, checked_depth(std::max(depth_of(key), depth_of(value))));
  if (const Value* found = lookup(hash, [&](const Value& other) { return equal(runtime, key, other); })) {
    *const_cast<Value*>(found) = std::move(value);
    return;
  }
  constexpr size_t kEntryBytes = 2 * sizeof(Value) + 2 * sizeof(uint32_t);
  runtime.take(kEntryBytes);
  bytes += kEntryBytes;
  entries.emplace_back(key, std::move(value));
  if (entries.size() > slots_.size() / 2) {
    index_all();
  } else {
    index_one(hash, static_cast<uint32_t>(entries.size() - 1));
  }
}

template <class Equal>
const Value* Dict::lookup(uint64_t hash, const Equal& equal) const {
  if (slots_.empty()) {
    for (const auto& [key, value] : entries)
      if (equal(key)) return &value;
    return nullptr;
  }
  const size_t mask = slots_.size() - 1;
  for (size_t slot = hash & mask; slots_[slot] != kEmpty; slot = (slot + 1) & mask) {
    const auto& [key, value] = entries[slots_[slot]];
    if (equal(key)) return &value;
  }
  return nullptr;
}

void Dict::index_all() {
  if (entries.size() <= kEntriesWithoutIndex) return;
  slots_.assign(std::max<size_t>(slots_.size() * 2, 4 * kEntriesWithoutIndex), kEmpty);
  for (uint32_t i = 0; i < entries.size(); ++i) index_one(hash_of(runtime, entries[i].first), i);
}

void Dict::index_one(uint64_t hash, uint32_t entry) {
  if (slots_.empty()) return;
  const size_t mask = slots_.size() - 1;
  size_t slot = hash & mask;
  while (slots_[slot] != kEmpty) slot = (slot + 1) & mask;
  slots_[slot] = entry;
}

const Value* Dict::find(const Value& key) const {
  if (key.is_string()) return find(key.view());
  return lookup(hash_of(runtime, key), [&](const Value& other) { return equal(runtime, key, other); });
}

const Value* Dict::find(std::string_view key) const {
  runtime.step_text(key.size());
  const uint64_t hash = slots_.empty() ? 0 : hash_bytes(key);
  return lookup(hash, [&](const Value& other) { return other.is_string() && other.view() == key; });
}

int depth_of(const Value& value) {
  switch (value.kind()) {
    case Kind::kList:
    case Kind::kTuple:
      return value.list().depth;
    case Kind::kDict:
      return value.dict().depth;
    case Kind::kView:
      return depth_of(value.dict_view().dict);
    case Kind::kIterator:
      return value.iterator().depth;
    case Kind::kFunction:
      return value.function().depth;
    default:
      return 0;
  }
}

std::string_view type_name(Kind kind) {
  constexpr std::string_view kNames[] = {"Undefined", "NoneType",  "bool",     "int",   "float",
                                         "str",       "list",      "tuple",    "dict",  "range",
                                         "dict_view", "generator", "function", "object"};
  return kNames[static_cast<size_t>(kind)];
}

std::string_view type_name(const Value& value) {
  if (value.is(Kind::kInstance)) return value.instance().type_name();
  if (value.is_string() && value.text().markup) return "Markup";
  return type_name(value.kind());
}

std::string undefined_message(const Value& value) {
  if (!value.reason()) return "the value is undefined";
  const std::string& text = value.reason()->content;
  const std::string owner = value.owner() == Kind::kNone ? "None" : fmt::format("{} object", type_name(value.owner()));
  switch (value.absence()) {
    case Absence::kVariable:
      return fmt::format("'{}' is undefined", text);
    case Absence::kAttribute:
      return fmt::format("'{}' has no attribute '{}'", owner, text);
    case Absence::kElement:
      return fmt::format("{} has no element {}", owner, text);
    case Absence::kHint:
    case Absence::kUnsafe:
      return text;
  }
  return text;
}

void fail_undefined(const Value& value) { fail("{}", undefined_message(value)); }

bool equal(Runtime& runtime, const Value& a, const Value& b) {
  if (a.is_number() && b.is_number()) return equal_numbers(a, b);
  if (a.kind() != b.kind()) return false;
  switch (a.kind()) {
    case Kind::kUndefined:
    case Kind::kNone:
      return true;
    case Kind::kString:
      return equal_texts(runtime, a.view(), b.view());
    case Kind::kList:
    case Kind::kTuple:
      return a.object() == b.object() || equal_lists(runtime, a.list().items, b.list().items);
    case Kind::kDict:
      return equal_dicts(runtime, a.dict(), b.dict());
    case Kind::kRange:
      return equal_ranges(a.range(), b.range());
    case Kind::kView:
      return equal_views(runtime, a.dict_view(), b.dict_view());
    case Kind::kFunction:
      return &a.function().entry == &b.function().entry && a.function().self.object() == b.function().self.object();
    default:
      return a.object() == b.object();
  }
}

uint64_t hash_of(Runtime& runtime, const Value& value) {
  switch (value.kind()) {
    case Kind::kBool:
    case Kind::kInt:
    case Kind::kFloat:
      return hash_number(value.as_double());
    case Kind::kString:
      runtime.step_text(value.view().size());
      return hash_bytes(value.view());
    case Kind::kTuple: {
      runtime.step(value.list().items.size());
      uint64_t hash = 0x9e3779b97f4a7c15;
      for (const Value& item : value.list().items) hash = (hash ^ hash_of(runtime, item)) * 0x100000001b3;
      return hash;
    }
    case Kind::kList:
    case Kind::kDict:
    case Kind::kView:
      fail("unhashable type: '{}'", type_name(value));
    case Kind::kUndefined:
    case Kind::kNone:
      return static_cast<uint64_t>(value.kind());
    default:
      return reinterpret_cast<uintptr_t>(value.object());
  }
}

}  // namespace millrace::jinja
