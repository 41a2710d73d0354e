#include "weights/torch_file.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <unordered_map>

#include "base/file.h"
#include "weights/zip.h"

namespace millrace {
namespace {

constexpr int kMaxDepth = 8;
constexpr size_t kMaxNames = 1'000'000, kMaxNameBytes = size_t{64} << 20;

// Collects the tensors of nested dicts under joined names. Shared and cyclic dicts are visited anew each time, so
// depth, count and bytes are bounded.
class Flattener {
 public:
  struct Named {
    std::string name;
    int32_t tensor;  // index into Pickle::tensors
  };
  explicit Flattener(const Pickle& pickle) : pickle_(pickle) {}

  Result<std::vector<Named>> flatten() {
    if (pickle_.nodes[pickle_.root].kind != PickleNode::Kind::kDict)
      return invalid_argument("the file does not hold a dict of tensors");
    MR_RETURN_IF_ERROR(visit(pickle_.root, "", 0));
    return std::move(out_);
  }

 private:
  Status visit(int32_t number, const std::string& name, int depth) {
    const PickleNode& node = pickle_.nodes[number];
    if (node.kind == PickleNode::Kind::kTensor) return add(name, static_cast<int32_t>(node.integer));
    if (node.kind != PickleNode::Kind::kDict) return {};
    if (depth == kMaxDepth) return data_loss("dicts nest more than {} levels deep", kMaxDepth);
    for (size_t i = 0; i + 1 < node.items.size(); i += 2) {
      if (++visited_ > kMaxNames) return resource_exhausted("more than {} entries", kMaxNames);
      const PickleNode& key = pickle_.nodes[node.items[i]];
      if (key.kind != PickleNode::Kind::kString && key.kind != PickleNode::Kind::kInt) continue;
      const std::string part =
          key.kind == PickleNode::Kind::kInt ? std::to_string(key.integer) : std::string(key.text.substr(0, 4096));
      MR_RETURN_IF_ERROR(visit(node.items[i + 1], name.empty() ? part : name + "." + part, depth + 1));
    }
    return {};
  }
  Status add(const std::string& name, int32_t tensor) {
    name_bytes_ += name.size();
    if (name_bytes_ > kMaxNameBytes)
      return resource_exhausted("names of tensors take more than {} bytes", kMaxNameBytes);
    out_.push_back({name, tensor});
    return {};
  }

  const Pickle& pickle_;
  std::vector<Named> out_;
  size_t visited_ = 0, name_bytes_ = 0;
};

// Elements of the storage that a view reaches: one past the last, or 0 for an empty view. Nothing if that overflows.
std::optional<int64_t> elements_reached(const PickledTensor& tensor) {
  int64_t last = tensor.offset;
  for (size_t axis = 0; axis < tensor.shape.size(); ++axis) {
    if (tensor.shape[axis] == 0) return 0;
    int64_t step = 0;
    if (__builtin_mul_overflow(tensor.shape[axis] - 1, tensor.strides[axis], &step) ||
        __builtin_add_overflow(last, step, &last))
      return std::nullopt;
  }
  if (last == INT64_MAX) return std::nullopt;
  return last + 1;
}

// Memory of one storage: in the mapping, or a copy where the file does not align it.
struct StorageMemory {
  std::byte* data = nullptr;
  int64_t bytes = 0;
  std::shared_ptr<const void> owner;
};

StorageMemory place_storage(const std::shared_ptr<const MappedFile>& file, const ZipEntry& entry,
                            int64_t element_bytes) {
  const std::byte* data = file->bytes().data() + entry.offset;
  const auto bytes = static_cast<int64_t>(entry.size);
  if (reinterpret_cast<uintptr_t>(data) % static_cast<uintptr_t>(element_bytes) == 0)
    return {const_cast<std::byte*>(data), bytes, file};
  Tensor copy = Tensor::empty(DType::kU8, {bytes});
  std::memcpy(copy.raw(), data, entry.size);
  return {copy.data<std::byte>(), bytes, copy.owner()};
}

// A view stays inside its storage and has no more elements: otherwise a contiguous copy could outgrow the file.
Status check_view(const PickledTensor& tensor, const StorageMemory& storage) {
  const auto reached = elements_reached(tensor);
  const int64_t available = storage.bytes / dtype_bytes(tensor.dtype);
  if (!reached || *reached > available)
    return data_loss("it reaches element {} of a storage that has {}", reached ? std::to_string(*reached) : "2^63",
                     available);
  const int64_t elements = *checked_bytes(tensor.shape, 1);
  if (elements > available)
    return unimplemented("it repeats elements: {} are made of a storage of {}", elements, available);
  return {};
}

class TorchFile : public TensorFile {
 public:
  static Result<std::unique_ptr<TensorFile>> open(std::shared_ptr<const MappedFile> file,
                                                  const PickleOptions& options) {
    std::unique_ptr<TorchFile> out(new TorchFile(std::move(file)));
    MR_RETURN_IF_ERROR(out->read_archive());
    MR_ASSIGN_OR_RETURN(out->pickle_, read_pickle(out->pickle_text_, options));
    MR_RETURN_IF_ERROR(out->place_storages());
    MR_RETURN_IF_ERROR(out->name_tensors());
    return std::unique_ptr<TensorFile>(std::move(out));
  }

  const std::string& path() const override { return file_->path(); }
  const std::shared_ptr<const MappedFile>& mapping() const override { return file_; }
  const std::vector<std::string>& names() const override { return names_; }
  Result<Tensor> tensor(const std::string& name) const override {
    const auto it = tensor_of_name_.find(name);
    if (it == tensor_of_name_.end()) return not_found("{}: no tensor '{}'", path(), name);
    const PickledTensor& tensor = pickle_.tensors[it->second];
    if (tensor.shape.size() > kMaxRank)
      return unimplemented("{}: tensor '{}' has {} axes; at most {} are supported", path(), name, tensor.shape.size(),
                           kMaxRank);
    const StorageMemory& storage = storages_[tensor.storage];
    // An empty view may have any offset, even one outside the storage.
    const bool empty = std::ranges::find(tensor.shape, 0) != tensor.shape.end();
    std::byte* data = storage.data + (empty ? 0 : tensor.offset * dtype_bytes(tensor.dtype));
    return Tensor(data, tensor.dtype, Shape(tensor.shape), Shape(tensor.strides), storage.owner);
  }

 private:
  explicit TorchFile(std::shared_ptr<const MappedFile> file) : file_(std::move(file)) {}

  Status read_archive() {
    MR_RETURN_IF_ERROR(check_kind());
    MR_ASSIGN_OR_RETURN(auto entries, read_zip_directory(file_->bytes()));
    const ZipEntry* object = nullptr;
    for (const ZipEntry& entry : entries) {
      if (!entry.name.ends_with("/data.pkl") || std::ranges::count(entry.name, '/') != 1) continue;
      if (object) return data_loss("both {} and {} are objects; there must be one", object->name, entry.name);
      object = &entry;
    }
    if (!object) return invalid_argument("no <folder>/data.pkl in the archive; torch.save writes one");
    if (!zip_checksum_matches(file_->bytes(), *object)) return data_loss("{} has the wrong checksum", object->name);
    pickle_text_ = file_->text().substr(object->offset, object->size);
    const std::string top = object->name.substr(0, object->name.size() - std::strlen("data.pkl"));
    return keep_entries(top, entries);
  }
  // Remembers the storages under `top` and checks the facts beside them.
  Status keep_entries(const std::string& top, const std::vector<ZipEntry>& entries) {
    for (const ZipEntry& entry : entries) {
      const std::string_view text = file_->text().substr(entry.offset, std::min<uint64_t>(entry.size, 32));
      if (entry.name == top + "byteorder" && text != "little")
        return unimplemented("the file is for {}-endian machines; only little-endian files are read", text);
      if (entry.name == top + "constants.pkl")
        return unimplemented("a TorchScript archive; only files of torch.save are read");
      if (entry.name.starts_with(top + "data/")) storage_entries_[entry.name.substr(top.size() + 5)] = entry;
    }
    return {};
  }
  // Files that are not zip archives, recognised by their first bytes.
  Status check_kind() const {
    const std::string_view text = file_->text();
    if (text.starts_with("PK")) return {};
    // Protocol 2, LONG1 of 10 bytes: torch's magic number 0x1950a86a20f9469cfc6c.
    if (text.starts_with("\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"))
      return unimplemented(
          "a file of torch.save before version 1.6; load it with a newer torch and save it again, or "
          "convert it to safetensors");
    if (text.starts_with("version https://git-lfs"))
      return invalid_argument("a Git LFS pointer, not the file itself; fetch it with 'git lfs pull'");
    return data_loss("not a file of torch.save: it does not begin as a zip archive");
  }

  Status place_storages() {
    for (const PickledStorage& storage : pickle_.storages) {
      const auto it = storage_entries_.find(std::string(storage.key));
      if (it == storage_entries_.end()) return data_loss("storage '{}' is not in the archive", storage.key);
      const int64_t needed = storage.elements * dtype_bytes(storage.dtype);
      if (static_cast<uint64_t>(needed) > it->second.size)
        return data_loss("storage '{}' has {} bytes; its {} elements need {}", storage.key, it->second.size,
                         storage.elements, needed);
      storages_.push_back(place_storage(file_, it->second, storage.untyped ? 8 : dtype_bytes(storage.dtype)));
      storages_.back().bytes = needed;
    }
    return {};
  }

  Status name_tensors() {
    MR_ASSIGN_OR_RETURN(const auto list, Flattener(pickle_).flatten());
    for (const Flattener::Named& named : list) {
      const PickledTensor& tensor = pickle_.tensors[named.tensor];
      MR_RETURN_IF_ERROR(check_view(tensor, storages_[tensor.storage]).at(fmt::format("tensor '{}'", named.name)));
      if (!tensor_of_name_.emplace(named.name, named.tensor).second)
        return data_loss("tensor '{}' is listed twice", named.name);
      names_.push_back(named.name);
    }
    return {};
  }

  std::shared_ptr<const MappedFile> file_;
  std::string_view pickle_text_;
  std::map<std::string, ZipEntry> storage_entries_;  // by key
  Pickle pickle_;
  std::vector<StorageMemory> storages_;  // as Pickle::storages
  std::vector<std::string> names_;
  std::unordered_map<std::string, int32_t> tensor_of_name_;
};

// Writing -----------------------------------------------------------------------------------------------------------

const char* storage_class(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return "FloatStorage";
    case DType::kBf16:
      return "BFloat16Storage";
    case DType::kF16:
      return "HalfStorage";
    case DType::kF64:
      return "DoubleStorage";
    case DType::kI64:
      return "LongStorage";
    case DType::kI32:
      return "IntStorage";
    case DType::kI16:
      return "ShortStorage";
    case DType::kI8:
      return "CharStorage";
    case DType::kU8:
      return "ByteStorage";
    case DType::kBool:
      return "BoolStorage";
  }
  return "";
}

// Appends opcodes of pickle protocol 2.
class PickleWriter {
 public:
  void raw(std::string_view bytes) { text_ += bytes; }
  void string(std::string_view value) {
    text_ += 'X';
    number(static_cast<uint32_t>(value.size()));
    text_ += value;
  }
  void integer(int64_t value) {
    text_ += "\x8a\x08";  // LONG1 of eight bytes: any int64
    number(value);
  }
  void tuple(const std::vector<int64_t>& values) {
    text_ += '(';
    for (const int64_t value : values) integer(value);
    text_ += 't';
  }
  const std::string& done() const { return text_; }

 private:
  template <class T>
  void number(T value) {
    text_.append(reinterpret_cast<const char*>(&value), sizeof(T));
  }
  std::string text_;
};

std::vector<int64_t> row_major(const std::vector<int64_t>& shape) {
  std::vector<int64_t> strides(shape.size(), 1);
  for (size_t axis = shape.size(); axis-- > 1;) strides[axis - 1] = strides[axis] * std::max<int64_t>(shape[axis], 1);
  return strides;
}

std::string pickle_tensors(std::span<const NamedTensor> tensors) {
  PickleWriter out;
  out.raw("\x80\x02}(");  // PROTO 2, EMPTY_DICT, MARK
  for (size_t i = 0; i < tensors.size(); ++i) {
    const std::vector<int64_t> shape = tensors[i].shape();
    out.string(tensors[i].name);
    out.raw("ctorch._utils\n_rebuild_tensor_v2\n((");
    out.string("storage");
    out.raw(fmt::format("ctorch\n{}\n", storage_class(tensors[i].dtype())));
    out.string(std::to_string(i));
    out.string("cpu");
    out.integer(tensors[i].bytes() / dtype_bytes(tensors[i].dtype()));
    out.raw("tQK");  // TUPLE, BINPERSID; offset 0
    out.raw(std::string_view("\0", 1));
    out.tuple(shape);
    out.tuple(row_major(shape));
    out.raw(
        "\x89"
        "ccollections\nOrderedDict\n)RtR");  // requires_grad False, no hooks, REDUCE
  }
  out.raw("u.");  // SETITEMS, STOP
  return out.done();
}

Status add_storage(ZipWriter& writer, const std::string& name, const NamedTensor& tensor) {
  std::vector<Tensor> dense;
  std::vector<std::span<const std::byte>> pieces;
  for (const Tensor& piece : tensor.pieces) {
    dense.push_back(piece.to_contiguous());
    pieces.emplace_back(static_cast<const std::byte*>(dense.back().raw()), static_cast<size_t>(dense.back().bytes()));
  }
  return writer.add(name, pieces);
}

}  // namespace

Result<std::unique_ptr<TensorFile>> open_torch_file(const std::string& path, const PickleOptions& options) {
  MR_ASSIGN_OR_RETURN(auto file, MappedFile::open(path));
  auto opened = TorchFile::open(std::move(file), options);
  if (!opened.ok()) return opened.status().at(path);
  return opened;
}

Status write_torch_file(const std::string& path, std::span<const NamedTensor> tensors,
                        const TorchWriteOptions& options) {
  MR_ASSIGN_OR_RETURN(ZipWriter writer, ZipWriter::create(path, options.always_zip64));
  MR_RETURN_IF_ERROR(writer.add("archive/data.pkl", pickle_tensors(tensors)));
  MR_RETURN_IF_ERROR(writer.add("archive/byteorder", "little"));
  for (size_t i = 0; i < tensors.size(); ++i)
    MR_RETURN_IF_ERROR(add_storage(writer, fmt::format("archive/data/{}", i), tensors[i]));
  MR_RETURN_IF_ERROR(writer.add("archive/version", "3\n"));
  return writer.finish();
}

}  // namespace millrace
