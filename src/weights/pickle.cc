#include "weights/pickle.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <optional>
#include <unordered_map>

#include "weights/tensor_file.h"

namespace millrace {
namespace {

using Kind = PickleNode::Kind;

// Opcodes: CPython's Lib/pickletools.py.
enum Op : uint8_t {
  kProto = 0x80,
  kGlobal = 'c',
  kBinPut = 'q',
  kLongBinPut = 'r',
  kBinGet = 'h',
  kLongBinGet = 'j',
  kMark = '(',
  kEmptyDict = '}',
  kEmptyList = ']',
  kEmptyTuple = ')',
  kEmptySet = 0x8f,
  kTuple = 't',
  kTuple1 = 0x85,
  kTuple2 = 0x86,
  kTuple3 = 0x87,
  kBinUnicode = 'X',
  kShortBinString = 'U',
  kBinInt = 'J',
  kBinInt1 = 'K',
  kBinInt2 = 'M',
  kLong1 = 0x8a,
  kBinFloat = 'G',
  kNoneOp = 'N',
  kNewTrue = 0x88,
  kNewFalse = 0x89,
  kSetItem = 's',
  kSetItems = 'u',
  kAppend = 'a',
  kAppends = 'e',
  kBinPersid = 'Q',
  kReduce = 'R',
  kNewObj = 0x81,
  kBuild = 'b',
  kStop = '.',
};

// torch's storage classes and dtypes by name.
std::optional<DType> storage_dtype(std::string_view name) {
  struct Row {
    std::string_view name;
    DType dtype;
  };
  static constexpr Row kRows[] = {{"FloatStorage", DType::kF32}, {"DoubleStorage", DType::kF64},
                                  {"HalfStorage", DType::kF16},  {"BFloat16Storage", DType::kBf16},
                                  {"LongStorage", DType::kI64},  {"IntStorage", DType::kI32},
                                  {"ShortStorage", DType::kI16}, {"CharStorage", DType::kI8},
                                  {"ByteStorage", DType::kU8},   {"BoolStorage", DType::kBool}};
  for (const Row& row : kRows)
    if (row.name == name) return row.dtype;
  return std::nullopt;
}

std::optional<std::string_view> torch_name(std::string_view global) {
  if (!global.starts_with("torch\n")) return std::nullopt;
  return global.substr(6);
}
bool is_untyped_storage(std::string_view global) { return global == "torch.storage\nUntypedStorage"; }
bool is_tensor_builder(std::string_view global) {
  return global == "torch._utils\n_rebuild_tensor" || global == "torch._utils\n_rebuild_tensor_v2" ||
         global == "torch._utils\n_rebuild_tensor_v3";
}
bool is_known(std::string_view global) {
  if (global == "collections\nOrderedDict" || global == "torch._utils\n_rebuild_parameter") return true;
  if (is_tensor_builder(global) || is_untyped_storage(global)) return true;
  const auto name = torch_name(global);
  return name && (storage_dtype(*name) || dtype_from_name(*name));
}

// "posix\nsystem" -> "posix.system", short and printable.
std::string shown(std::string_view global) {
  std::string text(global.substr(0, 80));
  for (char& c : text)
    if (c == '\n')
      c = '.';
    else if (c < 0x20 || c > 0x7e)
      c = '?';
  return text;
}

// The pickle machine: a stack of node numbers, marks on it, and a memo.
class Reader {
 public:
  Reader(std::string_view bytes, const PickleOptions& options) : bytes_(bytes), options_(options) {}

  Result<Pickle> read() {
    while (!stopped_) {
      if (at_ >= bytes_.size()) return data_loss("the pickle ends without STOP");
      opcode_at_ = at_;
      const auto opcode = static_cast<uint8_t>(bytes_[at_++]);
      Status status = step(opcode);
      if (!status.ok()) return status.at(fmt::format("pickle byte {}", opcode_at_));
    }
    return std::move(out_);
  }

 private:
  Status step(uint8_t opcode) {
    switch (opcode) {
      case kProto:
        return check_protocol();
      case kGlobal:
        return push_global();
      case kBinPut:
        return put<uint8_t>();
      case kLongBinPut:
        return put<uint32_t>();
      case kBinGet:
        return get<uint8_t>();
      case kLongBinGet:
        return get<uint32_t>();
      case kMark:
        marks_.push_back(stack_.size());
        return marks_.size() > options_.max_nodes ? data_loss("too many marks") : Status();
      case kEmptyDict:
        return push({.kind = Kind::kDict});
      case kEmptyList:
        return push({.kind = Kind::kList});
      case kEmptySet:
        return push({.kind = Kind::kSet});
      case kEmptyTuple:
        return push_tuple(0);
      case kTuple1:
        return push_tuple(1);
      case kTuple2:
        return push_tuple(2);
      case kTuple3:
        return push_tuple(3);
      case kTuple:
        return marked(&Reader::push_tuple_from);
      case kBinUnicode:
        return push_string<uint32_t>();
      case kShortBinString:
        return push_string<uint8_t>();
      case kBinInt:
        return push_int<int32_t>();
      case kBinInt1:
        return push_int<uint8_t>();
      case kBinInt2:
        return push_int<uint16_t>();
      case kLong1:
        return push_long();
      case kBinFloat:
        return push_float();
      case kNoneOp:
        return push({.kind = Kind::kNone});
      case kNewTrue:
        return push({.kind = Kind::kBool, .integer = 1});
      case kNewFalse:
        return push({.kind = Kind::kBool});
      case kSetItem:
        return set_items(stack_.size() >= 2 ? stack_.size() - 2 : stack_.size());
      case kSetItems:
        return marked(&Reader::set_items);
      case kAppend:
        return append_items(stack_.empty() ? 0 : stack_.size() - 1);
      case kAppends:
        return marked(&Reader::append_items);
      case kBinPersid:
        return push_storage();
      case kReduce:
        return reduce();
      case kNewObj:
        return new_object();
      case kBuild:
        return build();
      case kStop:
        return stop();
      default:
        return unimplemented("opcode 0x{:02x} is not one that torch.save writes", opcode);
    }
  }

  // Bytes -----------------------------------------------------------------------------------------------------------
  bool take(size_t count, std::string_view& out) {
    if (count > bytes_.size() - at_) return false;
    out = bytes_.substr(at_, count);
    at_ += count;
    return true;
  }
  template <class T>
  bool take_number(T& out) {
    std::string_view raw;
    if (!take(sizeof(T), raw)) return false;
    std::memcpy(&out, raw.data(), sizeof(T));
    return true;
  }
  static Status cut_off() { return data_loss("the pickle ends inside an opcode"); }

  // Stack -----------------------------------------------------------------------------------------------------------
  Status push(PickleNode node) {
    if (out_.nodes.size() >= options_.max_nodes) return resource_exhausted("more than {} values", options_.max_nodes);
    out_.nodes.push_back(std::move(node));
    return push_number(static_cast<int32_t>(out_.nodes.size() - 1));
  }
  Status push_number(int32_t node) {
    if (stack_.size() >= options_.max_nodes)
      return resource_exhausted("more than {} values on the stack", options_.max_nodes);
    stack_.push_back(node);
    return {};
  }
  // The stack may be popped only down to the last mark.
  size_t available() const { return stack_.size() - (marks_.empty() ? 0 : marks_.back()); }
  static Status underflow() { return data_loss("the opcode needs more values than are on the stack"); }
  int32_t pop() {
    const int32_t top = stack_.back();
    stack_.pop_back();
    return top;
  }
  std::vector<int32_t> pop_from(size_t first) {
    std::vector<int32_t> items(stack_.begin() + static_cast<ptrdiff_t>(first), stack_.end());
    stack_.resize(first);
    return items;
  }
  const PickleNode& node(int32_t number) const { return out_.nodes[number]; }
  // Runs `action` on the values above the last mark, which it removes.
  Status marked(Status (Reader::*action)(size_t)) {
    if (marks_.empty()) return data_loss("no mark on the stack");
    const size_t first = marks_.back();
    marks_.pop_back();
    return (this->*action)(first);
  }

  // Opcodes ---------------------------------------------------------------------------------------------------------
  Status check_protocol() {
    uint8_t protocol = 0;
    if (!take_number(protocol)) return cut_off();
    return protocol <= 2 ? Status() : unimplemented("pickle protocol {}; torch.save writes 2", protocol);
  }
  template <class Index>
  Status put() {
    Index index = 0;
    if (!take_number(index)) return cut_off();
    if (stack_.empty()) return underflow();
    if (memo_.size() >= options_.max_nodes) return resource_exhausted("more than {} memo entries", options_.max_nodes);
    memo_[index] = stack_.back();
    return {};
  }
  template <class Index>
  Status get() {
    Index index = 0;
    if (!take_number(index)) return cut_off();
    const auto it = memo_.find(index);
    if (it == memo_.end()) return data_loss("memo entry {} was never stored", index);
    return push_number(it->second);
  }
  template <class Length>
  Status push_string() {
    Length length = 0;
    PickleNode string{.kind = Kind::kString};
    if (!take_number(length) || !take(length, string.text)) return cut_off();
    return push(std::move(string));
  }
  template <class T>
  Status push_int() {
    T value = 0;
    if (!take_number(value)) return cut_off();
    return push({.kind = Kind::kInt, .integer = static_cast<int64_t>(value)});
  }
  Status push_long() {
    uint8_t length = 0;
    std::string_view raw;
    if (!take_number(length) || !take(length, raw)) return cut_off();
    if (length > 8) return unimplemented("an integer of {} bytes; at most 8 are read", length);
    const bool negative = length > 0 && (raw.back() & 0x80) != 0;
    uint64_t value = negative ? ~uint64_t{0} : 0;
    std::memcpy(&value, raw.data(), length);
    return push({.kind = Kind::kInt, .integer = static_cast<int64_t>(value)});
  }
  Status push_float() {
    uint64_t bits = 0;
    if (!take_number(bits)) return cut_off();
    return push({.kind = Kind::kFloat, .number = std::bit_cast<double>(__builtin_bswap64(bits))});
  }
  Status push_tuple(size_t count) {
    if (available() < count) return underflow();
    return push_tuple_from(stack_.size() - count);
  }
  Status push_tuple_from(size_t first) {
    MR_RETURN_IF_ERROR(count_items(stack_.size() - first));
    PickleNode tuple{.kind = Kind::kTuple};
    tuple.items = pop_from(first);
    return push(std::move(tuple));
  }
  // Collections hold no more items in all than this.
  Status count_items(size_t count) {
    total_items_ += count;
    return total_items_ <= options_.max_nodes * 4 ? Status()
                                                  : resource_exhausted("more than {} items", options_.max_nodes * 4);
  }
  // Moves the values from `first` on into the collection below them.
  Status move_into(size_t first, std::initializer_list<Kind> kinds, const char* what) {
    const size_t base = marks_.empty() ? 0 : marks_.back();
    if (first <= base || first > stack_.size()) return underflow();
    PickleNode& target = out_.nodes[stack_[first - 1]];
    if (std::ranges::find(kinds, target.kind) == kinds.end()) return data_loss("{} to something else", what);
    MR_RETURN_IF_ERROR(count_items(stack_.size() - first));
    const std::vector<int32_t> items = pop_from(first);
    target.items.insert(target.items.end(), items.begin(), items.end());
    return {};
  }
  Status set_items(size_t first) {
    if (first > stack_.size() || (stack_.size() - first) % 2 != 0) return data_loss("a key without a value");
    return move_into(first, {Kind::kDict}, "dict items are added");
  }
  Status append_items(size_t first) { return move_into(first, {Kind::kList}, "list items are added"); }

  Status push_global() {
    const size_t first_end = bytes_.find('\n', at_);
    const size_t end = first_end == std::string_view::npos ? first_end : bytes_.find('\n', first_end + 1);
    if (end == std::string_view::npos) return cut_off();
    const std::string_view name = bytes_.substr(at_, end - at_);
    at_ = end + 1;
    if (!options_.keep_unknown && !is_known(name)) return refuse(name);
    return push({.kind = Kind::kGlobal, .text = name});
  }
  static Status refuse(std::string_view global) {
    return invalid_argument("the file asks for {}; only tensors, numbers, strings and their containers are read",
                            shown(global));
  }

  Status stop() {
    if (stack_.size() != 1 || !marks_.empty()) return data_loss("STOP with {} values on the stack", stack_.size());
    out_.root = stack_.back();
    stopped_ = true;
    return {};
  }

  // Objects ---------------------------------------------------------------------------------------------------------
  Status reduce() {
    if (available() < 2) return underflow();
    const int32_t arguments = pop(), callable = pop();
    if (node(callable).kind != Kind::kGlobal || node(arguments).kind != Kind::kTuple)
      return opaque(callable, arguments);
    const std::string_view global = node(callable).text;
    if (global == "collections\nOrderedDict") return push_ordered_dict(node(arguments).items);
    if (global == "torch._utils\n_rebuild_parameter") return push_parameter(node(arguments).items);
    if (is_tensor_builder(global)) return push_tensor(global, node(arguments).items);
    return opaque(callable, arguments);
  }
  Status opaque(int32_t callable, int32_t arguments) {
    if (!options_.keep_unknown)
      return node(callable).kind == Kind::kGlobal ? refuse(node(callable).text)
                                                  : data_loss("a call of something that is not a function");
    PickleNode object{.kind = Kind::kObject};
    object.items = {callable, arguments};
    return push(std::move(object));
  }
  // OrderedDict() or OrderedDict([[key, value], ...]).
  Status push_ordered_dict(const std::vector<int32_t>& arguments) {
    PickleNode dict{.kind = Kind::kDict};
    if (arguments.size() > 1) return data_loss("OrderedDict with {} arguments", arguments.size());
    const std::vector<int32_t>& pairs = arguments.empty() ? arguments : node(arguments[0]).items;
    MR_RETURN_IF_ERROR(count_items(2 * pairs.size()));
    for (const int32_t pair : pairs) {
      if (node(pair).items.size() != 2) return data_loss("OrderedDict of something that is not a pair");
      dict.items.insert(dict.items.end(), node(pair).items.begin(), node(pair).items.end());
    }
    return push(std::move(dict));
  }
  Status push_parameter(const std::vector<int32_t>& arguments) {
    if (arguments.empty() || node(arguments[0]).kind != Kind::kTensor) return data_loss("a parameter without a tensor");
    return push_number(arguments[0]);
  }
  Status new_object() {
    if (available() < 2) return underflow();
    const int32_t arguments = pop(), type = pop();
    if (node(type).kind == Kind::kGlobal && node(type).text == "collections\nOrderedDict")
      return push({.kind = Kind::kDict});
    return opaque(type, arguments);
  }
  // Attributes of a dict (state_dict()._metadata) say nothing about tensors; those of an opaque object stay with it.
  Status build() {
    if (available() < 2) return underflow();
    const int32_t state = pop();
    PickleNode& object = out_.nodes[stack_.back()];
    if (object.kind == Kind::kObject) object.items.push_back(state);
    if (object.kind == Kind::kObject || object.kind == Kind::kDict) return {};
    return data_loss("attributes are set on a value that has none");
  }

  // Tensors ---------------------------------------------------------------------------------------------------------
  // The persistent id ('storage', class, key, device, elements).
  Status push_storage() {
    if (available() < 1) return underflow();
    const PickleNode& id = node(pop());
    if (id.kind != Kind::kTuple || id.items.size() < 5 || node(id.items[0]).text != "storage" ||
        node(id.items[1]).kind != Kind::kGlobal || node(id.items[2]).kind != Kind::kString ||
        node(id.items[4]).kind != Kind::kInt)
      return data_loss("a persistent id that is not ('storage', class, key, device, elements)");
    const std::string_view type = node(id.items[1]).text;
    PickledStorage storage{node(id.items[2]).text, node(id.items[4]).integer, DType::kU8, is_untyped_storage(type)};
    const auto name = torch_name(type);
    const auto dtype = name ? storage_dtype(*name) : std::nullopt;
    if (!dtype && !storage.untyped) return unimplemented("storage class {} is not supported", shown(type));
    if (dtype) storage.dtype = *dtype;
    if (storage.elements < 0 || !checked_bytes({storage.elements}, dtype_bytes(storage.dtype)))
      return data_loss("storage '{}' has {} elements", shown(storage.key), storage.elements);
    return intern_storage(storage);
  }
  Status intern_storage(const PickledStorage& storage) {
    const auto [it, is_new] = storage_of_key_.try_emplace(storage.key, static_cast<int32_t>(out_.storages.size()));
    if (is_new) out_.storages.push_back(storage);
    const PickledStorage& known = out_.storages[it->second];
    if (known.dtype != storage.dtype || known.elements != storage.elements || known.untyped != storage.untyped)
      return data_loss("storage '{}' is described in two ways", shown(storage.key));
    return push({.kind = Kind::kStorage, .integer = it->second});
  }
  bool read_sizes(const PickleNode& tuple, std::vector<int64_t>& out) const {
    if (tuple.kind != Kind::kTuple || tuple.items.size() > 64) return false;
    for (const int32_t item : tuple.items) {
      if (node(item).kind != Kind::kInt || node(item).integer < 0) return false;
      out.push_back(node(item).integer);
    }
    return true;
  }
  // _rebuild_tensor(storage, offset, shape, strides), _v2 with (..., requires_grad, hooks), _v3 with a dtype behind.
  Status push_tensor(std::string_view function, const std::vector<int32_t>& arguments) {
    PickledTensor tensor;
    if (arguments.size() < 4 || node(arguments[0]).kind != Kind::kStorage || node(arguments[1]).kind != Kind::kInt ||
        node(arguments[1]).integer < 0 || !read_sizes(node(arguments[2]), tensor.shape) ||
        !read_sizes(node(arguments[3]), tensor.strides) || tensor.shape.size() != tensor.strides.size())
      return data_loss("a tensor that is not (storage, offset, shape, strides, ...) with whole numbers, 0 or more");
    tensor.storage = static_cast<int32_t>(node(arguments[0]).integer);
    tensor.offset = node(arguments[1]).integer;
    tensor.dtype = out_.storages[tensor.storage].dtype;
    if (function.ends_with("_v3")) MR_RETURN_IF_ERROR(read_explicit_dtype(arguments, tensor));
    if (!checked_bytes(tensor.shape, dtype_bytes(tensor.dtype)))
      return data_loss("a tensor with more elements than 62 bits can count");
    out_.tensors.push_back(std::move(tensor));
    return push({.kind = Kind::kTensor, .integer = static_cast<int64_t>(out_.tensors.size() - 1)});
  }
  Status read_explicit_dtype(const std::vector<int32_t>& arguments, PickledTensor& tensor) {
    std::optional<DType> dtype;
    if (arguments.size() >= 7 && node(arguments[6]).kind == Kind::kGlobal)
      if (const auto name = torch_name(node(arguments[6]).text)) dtype = dtype_from_name(*name);
    if (!dtype) return unimplemented("a tensor of a dtype that is not supported");
    tensor.dtype = *dtype;
    return {};
  }

  std::string_view bytes_;
  const PickleOptions& options_;
  size_t at_ = 0, opcode_at_ = 0, total_items_ = 0;
  bool stopped_ = false;
  Pickle out_;
  std::vector<int32_t> stack_;
  std::vector<size_t> marks_;
  std::unordered_map<uint32_t, int32_t> memo_;
  std::unordered_map<std::string_view, int32_t> storage_of_key_;
};

}  // namespace

Result<Pickle> read_pickle(std::string_view bytes, const PickleOptions& options) {
  if (bytes.size() > options.max_bytes)
    return resource_exhausted("the pickle has {} bytes; at most {} are read", bytes.size(), options.max_bytes);
  return Reader(bytes, options).read();
}

}  // namespace millrace
