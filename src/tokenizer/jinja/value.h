// The values a template computes with: Python's None, bool, int (64 bits), float, str, list, tuple and dict, what
// iterating over them needs (range, dictionary views, one-shot iterators), callables, and Jinja's undefined.
// Everything a template can reach is immutable, except namespaces and loop helpers (Instance).
// A Value is 16 bytes. Long values are objects counted by reference, without atomics: they belong to the one rendering
// whose Runtime made them. Constants of a parsed template are permanent: never counted, so that any number of threads
// may read them.
#pragma once
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"

namespace millrace::jinja {

class Runtime;

// A template went wrong. Thrown inside this folder only: parsing and rendering turn it into a Status.
struct Failure {
  Status status;
  bool has_place = false;  // the message already says where, or must stay as the template wrote it
};
template <class... A>
[[noreturn]] void fail(fmt::format_string<A...> format, A&&... args) {
  throw Failure{Status(Code::kInvalidArgument, fmt::format(format, std::forward<A>(args)...))};
}

enum class Kind : uint8_t {
  kUndefined,
  kNone,
  kBool,
  kInt,
  kFloat,
  kString,
  kList,
  kTuple,
  kDict,
  kRange,
  kView,      // keys(), values() or items() of a dictionary
  kIterator,  // what map, select, batch, ... return: can be walked once
  kFunction,  // a built-in function or method, perhaps bound to a value
  kInstance,  // namespace, macro, loop, cycler, joiner
};

struct Object {
  Object(Runtime& runtime, size_t object_bytes);
  virtual ~Object();
  Object(const Object&) = delete;
  Object& operator=(const Object&) = delete;

  static constexpr int32_t kPermanent = -1;
  Runtime& runtime;
  size_t bytes;      // charged to the runtime while this lives
  int32_t uses = 0;  // or kPermanent
};

// Why a value is undefined; decides the message when it is used.
enum class Absence : uint8_t {
  kVariable,   // no such variable; the text is its name
  kAttribute,  // the owner, whose Kind is noted, has no such attribute; the text is its name
  kElement,    // likewise no such element; the text is the key's representation
  kHint,       // the text says it all
  kUnsafe,     // an attribute that would change its owner; the text is the sentence
};

struct Text;
struct List;
struct Dict;
struct Range;
struct View;
struct Iterator;
struct Function;
class Instance;

class Value {
 public:
  Value() : object_(nullptr) {}  // undefined without a name
  Value(const Value& other)
      : kind_(other.kind_), absence_(other.absence_), owner_(other.owner_), object_(other.object_) {
    if (counted()) keep();
  }
  Value(Value&& other) noexcept
      : kind_(other.kind_), absence_(other.absence_), owner_(other.owner_), object_(other.object_) {
    other.kind_ = Kind::kNone;
  }
  Value& operator=(const Value& other) {
    Value copy(other);
    swap(copy);
    return *this;
  }
  Value& operator=(Value&& other) noexcept {
    swap(other);
    return *this;
  }
  ~Value() {
    if (counted()) drop();
  }
  void swap(Value& other) noexcept {
    std::swap(kind_, other.kind_);
    std::swap(absence_, other.absence_);
    std::swap(owner_, other.owner_);
    std::swap(object_, other.object_);
  }

  static Value none() { return Value(Kind::kNone); }
  static Value boolean(bool x) {
    Value v(Kind::kBool);
    v.integer_ = x;
    return v;
  }
  static Value integer(int64_t x) {
    Value v(Kind::kInt);
    v.integer_ = x;
    return v;
  }
  static Value real(double x) {
    Value v(Kind::kFloat);
    v.real_ = x;
    return v;
  }
  // `text` may be null for Absence::kVariable without a name.
  static Value undefined(Absence why, const Text* text, Kind owner = Kind::kNone);
  static Value object(Kind kind, const Object* object);

  Kind kind() const { return kind_; }
  bool is(Kind kind) const { return kind_ == kind; }
  bool is_undefined() const { return kind_ == Kind::kUndefined; }
  bool is_none() const { return kind_ == Kind::kNone; }
  bool is_string() const { return kind_ == Kind::kString; }
  bool is_sequence() const { return kind_ == Kind::kList || kind_ == Kind::kTuple; }
  // An int in Python's sense, where bool is one.
  bool is_integral() const { return kind_ == Kind::kInt || kind_ == Kind::kBool; }
  bool is_number() const { return is_integral() || kind_ == Kind::kFloat; }

  // Each requires the matching kind.
  bool as_bool() const { return integer_ != 0; }
  int64_t as_int() const { return integer_; }                                                         // kInt or kBool
  double as_double() const { return kind_ == Kind::kFloat ? real_ : static_cast<double>(integer_); }  // a number
  const Text& text() const;                                                                           // kString
  std::string_view view() const;                                                                      // kString
  const List& list() const;                                                                           // kList or kTuple
  const Dict& dict() const;
  const Range& range() const;
  const View& dict_view() const;
  Iterator& iterator() const;
  const Function& function() const;
  Instance& instance() const;
  const Object* object() const { return object_; }

  // For undefined values.
  Absence absence() const { return absence_; }
  Kind owner() const { return owner_; }
  const Text* reason() const;

 private:
  explicit Value(Kind kind) : kind_(kind), object_(nullptr) {}
  bool counted() const {
    return (kind_ >= Kind::kString || kind_ == Kind::kUndefined) && object_ && object_->uses != Object::kPermanent;
  }
  void keep() const { ++object_->uses; }
  void drop() const {
    if (--object_->uses == 0) delete object_;
  }

  Kind kind_ = Kind::kUndefined;
  Absence absence_ = Absence::kVariable;
  Kind owner_ = Kind::kNone;
  union {
    int64_t integer_;
    double real_;
    Object* object_;
  };
};
static_assert(sizeof(Value) == 16);

using Values = std::vector<Value>;

// UTF-8, always valid.
struct Text : Object {
  Text(Runtime& runtime, std::string content, bool is_markup);
  bool ascii() const { return chars == content.size(); }
  std::string content;
  size_t chars;  // number of characters
  bool markup;   // came from safe or escape: joining it with plain text escapes that text
};

struct List : Object {
  List(Runtime& runtime, Values content, bool is_group);
  Values items;
  int depth;   // 1 + that of the deepest item
  bool group;  // a tuple made by groupby, with the names `grouper` and `list` for its two items
};

// Keys keep the order of insertion. Once shared, never changed.
struct Dict : Object {
  explicit Dict(Runtime& runtime) : Object(runtime, sizeof(Dict)) {}
  // Replaces the value of an equal key. Fails if `key` is not hashable.
  void set(const Value& key, Value value);
  const Value* find(const Value& key) const;  // null if absent; fails if `key` is not hashable
  const Value* find(std::string_view key) const;
  size_t size() const { return entries.size(); }

  std::vector<std::pair<Value, Value>> entries;
  int depth = 1;

 private:
  static constexpr uint32_t kEmpty = UINT32_MAX;
  template <class Equal>
  const Value* lookup(uint64_t hash, const Equal& equal) const;
  void index_all();
  void index_one(uint64_t hash, uint32_t entry);
  std::vector<uint32_t> slots_;  // hash table of positions in entries; empty while there are few
};

struct Range : Object {
  Range(Runtime& runtime, int64_t first, int64_t end, int64_t stride);
  int64_t size() const { return count; }
  int64_t at(int64_t i) const { return start + i * step; }
  int64_t start, stop, step, count;
};

struct View : Object {
  enum class Part : uint8_t { kKeys, kValues, kItems };
  View(Runtime& runtime, Value of, Part what) : Object(runtime, sizeof(View)), dict(std::move(of)), part(what) {}
  Value dict;
  Part part;
};

// Items are computed when the iterator is made; an error among them shows when the walk gets there.
struct Iterator : Object {
  Iterator(Runtime& runtime, Values content, std::optional<Failure> end);
  Values items;
  size_t next = 0;
  std::optional<Failure> failure;
  int depth;
};

// The arguments of a call, borrowed for its duration.
struct Arguments {
  const Values& positional;
  const std::vector<std::pair<std::string_view, Value>>& named;
};
// `self` is the value a filter, test or method is applied to; undefined for functions.
using Native = Value (*)(Runtime& runtime, const Value& self, const Arguments& arguments);

struct NativeEntry {
  std::string_view name;
  Native call;
};

struct Function : Object {
  Function(Runtime& runtime, const NativeEntry& what, Value bound);
  const NativeEntry& entry;  // lives as long as the program
  Value self;
  int depth;
};

// Objects with behaviour of their own.
class Instance : public Object {
 public:
  using Object::Object;
  virtual std::string_view type_name() const = 0;
  virtual std::optional<Value> attribute(std::string_view name) = 0;
  virtual std::string repr(int depth) = 0;
  virtual bool callable() const { return false; }
  virtual Value call(const Arguments& arguments);
  virtual std::optional<int64_t> length() { return std::nullopt; }
  // Lets go of every value that may lead back to this object.
  virtual void clear() {}
};

// 0 for what holds no other values. At most kMaxValueDepth anywhere, which bounds every recursion over values.
constexpr int kMaxValueDepth = 200;
int depth_of(const Value& value);

// Python's name of the type: "str", "list", "NoneType", ...
std::string_view type_name(const Value& value);
std::string_view type_name(Kind kind);
// What is wrong with using this undefined value.
std::string undefined_message(const Value& value);
[[noreturn]] void fail_undefined(const Value& value);

// Python's equality: 1 == 1.0 == true, lists and tuples differ, all undefined values are equal.
bool equal(Runtime& runtime, const Value& a, const Value& b);
// Equal values have equal hashes. Fails for lists, dictionaries and their views.
uint64_t hash_of(Runtime& runtime, const Value& value);

inline const Text& Value::text() const { return *static_cast<const Text*>(object_); }
inline std::string_view Value::view() const { return static_cast<const Text*>(object_)->content; }
inline const List& Value::list() const { return *static_cast<const List*>(object_); }
inline const Dict& Value::dict() const { return *static_cast<const Dict*>(object_); }
inline const Range& Value::range() const { return *static_cast<const Range*>(object_); }
inline const View& Value::dict_view() const { return *static_cast<const View*>(object_); }
inline Iterator& Value::iterator() const { return *static_cast<Iterator*>(object_); }
inline const Function& Value::function() const { return *static_cast<const Function*>(object_); }
inline Instance& Value::instance() const { return *static_cast<Instance*>(object_); }
inline const Text* Value::reason() const { return static_cast<const Text*>(object_); }
inline Value Value::object(Kind kind, const Object* object) {
  Value v(kind);
  v.object_ = const_cast<Object*>(object);
  if (v.counted()) v.keep();
  return v;
}
inline Value Value::undefined(Absence why, const Text* text, Kind owner) {
  Value v = object(Kind::kUndefined, text);
  v.absence_ = why;
  v.owner_ = owner;
  return v;
}

}  // namespace millrace::jinja
