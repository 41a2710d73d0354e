#include "weights/safetensors.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <unordered_map>
#include <unordered_set>

#include "base/file.h"
#include "base/json.h"

namespace millrace {
namespace {

constexpr uint64_t kMaxHeaderBytes = 100'000'000;

struct ElementType {
  const char* name;
  int64_t bytes;
  std::optional<DType> dtype;
};
constexpr ElementType kElementTypes[] = {
    {"F64", 8, DType::kF64},  {"F32", 4, DType::kF32},      {"F16", 2, DType::kF16},      {"BF16", 2, DType::kBf16},
    {"I64", 8, DType::kI64},  {"I32", 4, DType::kI32},      {"I16", 2, DType::kI16},      {"I8", 1, DType::kI8},
    {"U8", 1, DType::kU8},    {"BOOL", 1, DType::kBool},    {"U64", 8, std::nullopt},     {"U32", 4, std::nullopt},
    {"U16", 2, std::nullopt}, {"F8_E4M3", 1, std::nullopt}, {"F8_E5M2", 1, std::nullopt},
};
const ElementType* element_type(std::string_view name) {
  const auto it = std::ranges::find(kElementTypes, name, &ElementType::name);
  return it == std::end(kElementTypes) ? nullptr : &*it;
}
const ElementType& element_type(DType dtype) {
  return *std::ranges::find(kElementTypes, std::optional(dtype), &ElementType::dtype);
}

// Receives the header's JSON piece by piece: nothing but the three levels of the format is accepted, and a key that
// appears twice is seen.
class HeaderReader {
 public:
  explicit HeaderReader(SafetensorsHeader& out) : out_(out) {}
  const Status& status() const { return status_; }

  bool null() { return unexpected("null"); }
  bool boolean(bool) { return unexpected("a boolean"); }
  bool number_float(double, const std::string& text) { return unexpected(text); }
  bool number_integer(int64_t value) { return unexpected(fmt::format("{}", value)); }
  bool binary(std::vector<uint8_t>&) { return unexpected("binary data"); }

  bool number_unsigned(uint64_t value) {
    if (level_ != Level::kShape && level_ != Level::kOffsets) return unexpected(fmt::format("{}", value));
    if (value > static_cast<uint64_t>(INT64_MAX))
      return fail("tensor '{}': {} holds {}, which is too large", entry_.name, field_, value);
    if (level_ == Level::kShape && entry_.shape.size() == 64)
      return fail("tensor '{}': shape has more than 64 axes", entry_.name);
    if (level_ == Level::kOffsets && offsets_.size() == 2)
      return fail("tensor '{}': data_offsets has more than two numbers", entry_.name);
    if (level_ == Level::kShape)
      entry_.shape.push_back(static_cast<int64_t>(value));
    else
      offsets_.push_back(value);
    return true;
  }
  bool string(std::string& text) {
    if (level_ == Level::kMetadata) {
      out_.metadata[field_] = std::move(text);
      return true;
    }
    if (level_ != Level::kTensor || field_ != "dtype") return unexpected("a string");
    entry_.dtype_name = std::move(text);
    return true;
  }
  bool key(std::string& name) {
    if (level_ == Level::kRoot) {
      if (!names_.insert(name).second) return fail("tensor '{}' is listed twice", name);
      entry_ = {}, offsets_.clear(), fields_.clear(), entry_.name = name;
      return true;
    }
    if (level_ == Level::kTensor && name != "dtype" && name != "shape" && name != "data_offsets")
      return fail("tensor '{}': unknown key '{}'; a tensor has dtype, shape and data_offsets", entry_.name, name);
    if (!fields_.insert(name).second) return fail("'{}': key '{}' is given twice", entry_.name, name);
    field_ = std::move(name);
    return true;
  }
  bool start_object(size_t) {
    if (level_ == Level::kOutside) return enter(Level::kRoot);
    if (level_ == Level::kRoot) return enter(entry_.name == "__metadata__" ? Level::kMetadata : Level::kTensor);
    return unexpected("an object");
  }
  bool end_object() {
    const Level ended = level_;
    level_ = ended == Level::kRoot ? Level::kOutside : Level::kRoot;
    return ended != Level::kTensor || finish_tensor();
  }
  bool start_array(size_t) {
    if (level_ == Level::kTensor && field_ == "shape") return enter(Level::kShape);
    if (level_ == Level::kTensor && field_ == "data_offsets") return enter(Level::kOffsets);
    return unexpected("a list");
  }
  bool end_array() { return enter(Level::kTensor); }
  bool parse_error(size_t position, const std::string&, const nlohmann::json::exception&) {
    return fail("the header is not valid JSON at byte {}", position);
  }

 private:
  enum class Level { kOutside, kRoot, kMetadata, kTensor, kShape, kOffsets };

  bool enter(Level level) {
    level_ = level;
    return true;
  }
  template <class... A>
  bool fail(fmt::format_string<A...> format, A&&... args) {
    if (status_.ok()) status_ = data_loss(format, std::forward<A>(args)...);
    return false;
  }
  bool unexpected(std::string_view found) {
    switch (level_) {
      case Level::kOutside:
        return fail("the header is {}; it must be a JSON object", found);
      case Level::kRoot:
        return fail("'{}' is {}; it must be an object", entry_.name, found);
      case Level::kMetadata:
        return fail("__metadata__: '{}' is {}; it must be a string", field_, found);
      case Level::kTensor:
        return fail("tensor '{}': {} is {}; {}", entry_.name, field_, found,
                    field_ == "dtype" ? "it must be a string" : "it must be a list of whole numbers");
      case Level::kShape:
      case Level::kOffsets:
        return fail("tensor '{}': {} holds {}; it must hold whole numbers, 0 or more", entry_.name, field_, found);
    }
    return false;
  }
  bool finish_tensor() {
    for (const char* field : {"dtype", "shape", "data_offsets"})
      if (!fields_.contains(field)) return fail("tensor '{}' has no {}", entry_.name, field);
    if (offsets_.size() != 2)
      return fail("tensor '{}': data_offsets has {} numbers; it must have two", entry_.name, offsets_.size());
    const ElementType* type = element_type(entry_.dtype_name);
    if (!type) return fail("tensor '{}': dtype '{}' is not known", entry_.name, entry_.dtype_name);
    entry_.dtype = type->dtype, entry_.begin = offsets_[0], entry_.end = offsets_[1];
    if (entry_.end < entry_.begin)
      return fail("tensor '{}': data_offsets [{}, {}] end before they begin", entry_.name, entry_.begin, entry_.end);
    const auto bytes = checked_bytes(entry_.shape, type->bytes);
    if (!bytes) return fail("tensor '{}': the shape has more elements than 62 bits can count", entry_.name);
    if (static_cast<uint64_t>(*bytes) != entry_.end - entry_.begin)
      return fail("tensor '{}': data_offsets span {} bytes, but dtype and shape need {}", entry_.name,
                  entry_.end - entry_.begin, *bytes);
    out_.tensors.push_back(std::move(entry_));
    return true;
  }

  SafetensorsHeader& out_;
  Status status_;
  Level level_ = Level::kOutside;
  SafetensorsEntry entry_;
  std::string field_;
  std::vector<uint64_t> offsets_;
  std::unordered_set<std::string> names_, fields_;
};

// The tensors cover the data exactly: no overlap, no gap, nothing left.
Status check_cover(std::vector<SafetensorsEntry>& tensors, uint64_t data_bytes) {
  std::ranges::stable_sort(
      tensors, [](const auto& a, const auto& b) { return std::pair(a.begin, a.end) < std::pair(b.begin, b.end); });
  uint64_t at = 0;
  for (const SafetensorsEntry& tensor : tensors) {
    if (tensor.end > data_bytes)
      return data_loss("tensor '{}' ends at byte {} of the data, but the file has only {}", tensor.name, tensor.end,
                       data_bytes);
    if (tensor.begin < at)
      return data_loss("tensor '{}' begins at byte {}, inside the tensor before it, which ends at {}", tensor.name,
                       tensor.begin, at);
    if (tensor.begin > at)
      return data_loss("tensor '{}' begins at byte {}, but the data before it end at {}: there is a gap", tensor.name,
                       tensor.begin, at);
    at = tensor.end;
  }
  if (at != data_bytes) return data_loss("the data have {} bytes, but the tensors cover {}", data_bytes, at);
  return {};
}

class SafetensorsFile : public TensorFile {
 public:
  SafetensorsFile(std::shared_ptr<const MappedFile> file, SafetensorsHeader header)
      : file_(std::move(file)), header_(std::move(header)) {
    for (size_t i = 0; i < header_.tensors.size(); ++i) {
      names_.push_back(header_.tensors[i].name);
      index_[names_.back()] = i;
    }
  }
  const std::string& path() const override { return file_->path(); }
  const std::shared_ptr<const MappedFile>& mapping() const override { return file_; }
  const std::vector<std::string>& names() const override { return names_; }
  Result<Tensor> tensor(const std::string& name) const override {
    MR_ASSIGN_OR_RETURN(Tensor view, stored(name));
    Tensor aligned = view.to_contiguous();
    if (aligned.raw() != view.raw()) release_pages(*file_);
    return aligned;
  }
  Result<Tensor> stored(const std::string& name) const override {
    const auto it = index_.find(name);
    if (it == index_.end()) return not_found("{}: no tensor '{}'", path(), name);
    const SafetensorsEntry& entry = header_.tensors[it->second];
    if (!entry.dtype)
      return unimplemented("{}: tensor '{}' has elements of type {}, which are not supported", path(), name,
                           entry.dtype_name);
    if (entry.shape.size() > kMaxRank)
      return unimplemented("{}: tensor '{}' has {} axes; at most {} are supported", path(), name, entry.shape.size(),
                           kMaxRank);
    const std::byte* data = file_->bytes().data() + header_.data_begin + entry.begin;
    return Tensor(const_cast<std::byte*>(data), *entry.dtype, Shape(entry.shape), file_);
  }

 private:
  std::shared_ptr<const MappedFile> file_;
  SafetensorsHeader header_;
  std::vector<std::string> names_;
  std::unordered_map<std::string, size_t> index_;
};

// The tensors in the order they are written, largest elements first.
std::vector<const NamedTensor*> write_order(std::span<const NamedTensor> tensors) {
  std::vector<const NamedTensor*> order;
  for (const NamedTensor& tensor : tensors) order.push_back(&tensor);
  std::ranges::stable_sort(order, [](const NamedTensor* a, const NamedTensor* b) {
    return dtype_bytes(a->dtype()) > dtype_bytes(b->dtype());
  });
  return order;
}

std::string header_text(const std::vector<const NamedTensor*>& order,
                        const std::map<std::string, std::string>& metadata) {
  OrderedJson header = OrderedJson::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  int64_t at = 0;
  for (const NamedTensor* tensor : order) {
    const int64_t end = at + tensor->bytes();
    header[tensor->name] = {
        {"dtype", element_type(tensor->dtype()).name}, {"shape", tensor->shape()}, {"data_offsets", {at, end}}};
    at = end;
  }
  std::string text = dump_json(header);
  text.resize((text.size() + 7) / 8 * 8, ' ');
  return text;
}

}  // namespace

Result<SafetensorsHeader> parse_safetensors_header(std::span<const std::byte> file) {
  if (file.size() < 8) return data_loss("the file has {} bytes; a safetensors file has at least 8", file.size());
  uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, file.data(), 8);
  if (header_bytes > kMaxHeaderBytes)
    return data_loss("the header claims {} bytes; at most {} are allowed", header_bytes, kMaxHeaderBytes);
  if (header_bytes > file.size() - 8)
    return data_loss("the header claims {} bytes, but the file has only {} after its length", header_bytes,
                     file.size() - 8);
  SafetensorsHeader header;
  header.data_begin = 8 + header_bytes;
  const std::string_view text(reinterpret_cast<const char*>(file.data()) + 8, header_bytes);
  if (!text.starts_with('{')) return data_loss("the header does not begin with '{{'");
  HeaderReader reader(header);
  if (!nlohmann::json::sax_parse(text.begin(), text.end(), &reader)) return reader.status();
  MR_RETURN_IF_ERROR(check_cover(header.tensors, file.size() - header.data_begin));
  return header;
}

Result<std::unique_ptr<TensorFile>> open_safetensors(const std::string& path) {
  MR_ASSIGN_OR_RETURN(auto file, MappedFile::open(path));
  if (file->text().starts_with("version https://git-lfs"))
    return invalid_argument("{}: a Git LFS pointer, not the file itself; fetch it with 'git lfs pull'", path);
  Result<SafetensorsHeader> header = parse_safetensors_header(file->bytes());
  if (!header.ok()) return header.status().at(path);
  return std::unique_ptr<TensorFile>(new SafetensorsFile(std::move(file), std::move(*header)));
}

Status write_safetensors(const std::string& path, std::span<const NamedTensor> tensors,
                         const std::map<std::string, std::string>& metadata) {
  const auto order = write_order(tensors);
  const std::string header = header_text(order, metadata);
  const uint64_t header_bytes = header.size();
  MR_ASSIGN_OR_RETURN(AtomicFileWriter writer, AtomicFileWriter::create(path));
  MR_RETURN_IF_ERROR(writer.write(std::as_bytes(std::span(&header_bytes, 1))));
  MR_RETURN_IF_ERROR(writer.write(header));
  for (const NamedTensor* tensor : order)
    for (const Tensor& piece : tensor->pieces) {
      const Tensor dense = piece.to_contiguous();
      MR_RETURN_IF_ERROR(
          writer.write({static_cast<const std::byte*>(dense.raw()), static_cast<size_t>(dense.bytes())}));
    }
  return writer.commit();
}

}  // namespace millrace
