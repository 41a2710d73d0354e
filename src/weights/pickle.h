// Reads the pickles that torch.save writes (protocol 2), as data. Nothing is ever imported, called or executed: the
// only things that come into being are None, booleans, 64-bit integers, floats, strings, lists, tuples, dicts, sets,
// storages and tensors; every other class or function is an error or, if asked for, an opaque node.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/dtype.h"
#include "base/result.h"

namespace millrace {

// A value is a number of a node; nodes refer to others by number, so sharing and cycles are harmless.
struct PickleNode {
  enum class Kind : uint8_t {
    kNone,
    kBool,     // integer
    kInt,      // integer
    kFloat,    // number
    kString,   // text
    kList,     // items
    kTuple,    // items
    kSet,      // items
    kDict,     // items: key, value, key, value, ...
    kGlobal,   // text: "module\nname"
    kStorage,  // integer: index into Pickle::storages
    kTensor,   // integer: index into Pickle::tensors
    kObject,   // items: callable or class, arguments, states ...; never built
  };
  Kind kind = Kind::kNone;
  int64_t integer = 0;
  double number = 0;
  std::string_view text;  // into the pickle's bytes
  std::vector<int32_t> items;
};

struct PickledStorage {
  std::string_view key;  // names the entry "data/<key>" of the archive
  int64_t elements = 0;  // bytes if untyped
  DType dtype = DType::kU8;
  bool untyped = false;
};
struct PickledTensor {
  int32_t storage = 0;  // several tensors may share one
  DType dtype = DType::kF32;
  int64_t offset = 0;  // in elements
  std::vector<int64_t> shape, strides;
};

struct Pickle {
  std::vector<PickleNode> nodes;
  std::vector<PickledStorage> storages;  // one per key
  std::vector<PickledTensor> tensors;    // shapes and strides are not negative and do not overflow; see torch_file.h
  int32_t root = 0;
};

struct PickleOptions {
  bool keep_unknown = false;  // unknown classes become kObject nodes; otherwise they are refused by name
  size_t max_bytes = size_t{64} << 20;
  size_t max_nodes = 2'000'000;
};
// `bytes` must outlive the result.
Result<Pickle> read_pickle(std::string_view bytes, const PickleOptions& options = {});

}  // namespace millrace
