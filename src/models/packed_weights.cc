#include "models/packed_weights.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <utility>
#include <vector>

#include "base/cpu.h"
#include "base/log.h"
#include "base/version.h"

namespace millrace {
namespace {

constexpr std::string_view kMagic = "MRPACKED";
constexpr size_t kStart = 24;  // of the header
constexpr size_t kMostHeaderBytes = size_t{256} << 20;
constexpr int64_t kAlignment = 64;
constexpr size_t kDataAlignment = 4096;

constexpr size_t round_up(size_t n, size_t step) { return (n + step - 1) / step * step; }

// FNV-1a.
uint64_t sum_of(std::span<const std::byte> bytes, uint64_t sum = 0xcbf29ce484222325u) {
  for (const std::byte b : bytes) sum = (sum ^ static_cast<uint64_t>(b)) * 0x100000001b3u;
  return sum;
}
uint64_t sum_of(std::string_view text) { return sum_of(std::as_bytes(std::span(text))); }
uint64_t sum_of(const Tensor& tensor, uint64_t sum) {
  if (!tensor.raw()) return sum;
  return sum_of({static_cast<const std::byte*>(tensor.raw()), static_cast<size_t>(tensor.bytes())}, sum);
}

// What tells a weight file from its successor: the ends hold the tables of contents of every format.
Json file_key(const MappedFile& file) {
  constexpr size_t kEnd = size_t{64} << 10;
  const auto bytes = file.bytes();
  const size_t end = std::min(kEnd, bytes.size());
  std::error_code error;
  const auto time = std::filesystem::last_write_time(file.path(), error).time_since_epoch().count();
  return {{"name", std::filesystem::path(file.path()).filename().string()},
          {"bytes", bytes.size()},
          {"modified", error ? 0 : static_cast<int64_t>(time)},
          {"ends", sum_of(bytes.last(end), sum_of(bytes.first(end)))}};
}

constexpr int64_t kSampleRows = 40, kSampleColumns = 256;

uint32_t sample_bits(int64_t i) { return static_cast<uint32_t>(i + 1) * 2654435761u >> 16; }

Tensor sample_matrix() {
  Tensor w = Tensor::empty(DType::kF32, {kSampleRows, kSampleColumns});
  for (int64_t i = 0; i < w.numel(); ++i) w.data<float>()[i] = static_cast<float>(sample_bits(i)) / 32768 - 1;
  return w;
}

QuantizedMatrix sample_int4() {
  QuantizedMatrix m{.rows = kSampleRows, .columns = kSampleColumns, .group = 128};
  m.unpack = [](int64_t begin, int64_t end, uint8_t* values) {
    for (int64_t i = begin * kSampleColumns; i < end * kSampleColumns; ++i) *values++ = sample_bits(i) % 16;
  };
  m.scales = Tensor::empty(DType::kF32, {kSampleRows, 2});
  m.zeros = Tensor::empty(DType::kU8, {kSampleRows, 2});
  for (int64_t i = 0; i < m.scales.numel(); ++i) {
    m.scales.data<float>()[i] = static_cast<float>(1 + sample_bits(i));
    m.zeros.data<uint8_t>()[i] = sample_bits(i) % 16;
  }
  return m;
}

// Of small matrices packed in every form that a decoder of this dtype may have: another packing gives another number.
uint64_t packing_fingerprint(DType dtype) {
  const Tensor dense[] = {sample_matrix()};
  const QuantizedMatrix int4[] = {sample_int4()};
  const Linear made[] = {Linear::pack(dense, {}, dtype), *Linear::quantize(dense, {}, LinearFormat::kW8A8),
                         *Linear::quantize(dense, {}, LinearFormat::kW8A16), Linear::pack(int4, {})};
  uint64_t sum = sum_of(std::string_view());
  for (const Linear& linear : made) sum = sum_of(linear.packed().scales, sum_of(linear.packed().weights, sum));
  return sum;
}

// The header ----------------------------------------------------------------------------------------------------------

Result<int64_t> whole(const Json& object, const char* field) {
  const auto it = object.find(field);
  if (it != object.end() && it->is_number_unsigned() && it->get<uint64_t>() <= INT64_MAX) return it->get<int64_t>();
  return data_loss("{} is not a whole number", field);
}

// The bytes that [begin, end) of `field` names; none where it is missing.
Result<std::span<const std::byte>> part_of(std::span<const std::byte> data, const Json& matrix, const char* field) {
  const auto it = matrix.find(field);
  if (it == matrix.end()) return std::span<const std::byte>();
  const bool pair =
      it->is_array() && it->size() == 2 && it->front().is_number_unsigned() && it->back().is_number_unsigned();
  if (!pair) return data_loss("{} is not [begin, end]", field);
  const auto begin = it->front().get<uint64_t>(), end = it->back().get<uint64_t>();
  if (begin >= end || end > data.size() || begin % kAlignment != 0)
    return data_loss("{} is [{}, {}) of {} bytes", field, begin, end, data.size());
  return data.subspan(begin, end - begin);
}

Result<Tensor> vector_of(const FilePages& pages, std::span<const std::byte> data, const Json& matrix, const char* field,
                         DType dtype) {
  MR_ASSIGN_OR_RETURN(const auto part, part_of(data, matrix, field));
  if (part.empty()) return Tensor();
  const auto bytes = static_cast<int64_t>(part.size());
  if (bytes % dtype_bytes(dtype) != 0) return data_loss("{} has {} bytes", field, bytes);
  return Tensor(const_cast<std::byte*>(part.data()), dtype, {bytes / dtype_bytes(dtype)}, pages.owner);
}

struct Header {
  Json json;
  size_t data_begin;
};

Result<Header> read_header(std::span<const std::byte> file) {
  const std::string_view text(reinterpret_cast<const char*>(file.data()), file.size());
  if (file.size() < kStart || !text.starts_with(kMagic)) return data_loss("it is no file of packed weights");
  uint64_t bytes = 0, sum = 0;
  std::memcpy(&bytes, file.data() + 8, 8);
  std::memcpy(&sum, file.data() + 16, 8);
  if (bytes > std::min(kMostHeaderBytes, file.size() - kStart))
    return data_loss("its header of {} bytes is cut", bytes);
  if (sum_of(text.substr(kStart, bytes)) != sum) return data_loss("its header has the wrong checksum");
  MR_ASSIGN_OR_RETURN(Json json, parse_json(text.substr(kStart, bytes)));
  const size_t data_begin = round_up(kStart + bytes, kDataAlignment);
  if (!json.is_object() || !json.contains("key") || !json.contains("matrices") || !json["matrices"].is_object())
    return data_loss("its header lacks fields");
  MR_ASSIGN_OR_RETURN(const int64_t data_bytes, whole(json, "data_bytes"));
  if (file.size() < data_begin || file.size() - data_begin != static_cast<uint64_t>(data_bytes))
    return data_loss("it has {} bytes where its header promises {}", file.size(), data_begin + data_bytes);
  return Header{std::move(json), data_begin};
}

// Writing -------------------------------------------------------------------------------------------------------------

// Matrices one after another, and what the header says of them.
struct Layout {
  Json matrices = Json::object();
  std::vector<Tensor> tensors;
  int64_t bytes = 0;

  void place(Json& matrix, const char* field, const Tensor& tensor) {
    if (!tensor.raw()) return;
    matrix[field] = {bytes, bytes + tensor.bytes()};
    bytes = static_cast<int64_t>(round_up(static_cast<size_t>(bytes + tensor.bytes()), kAlignment));
    tensors.push_back(tensor);
  }
  void place(const std::string& name, const Linear& linear) {
    const Linear::Packed p = linear.packed();
    Json matrix = {{"format", static_cast<int>(p.format)},
                   {"dtype", dtype_name(p.dtype)},
                   {"rows", p.rows},
                   {"columns", p.columns},
                   {"group", p.group},
                   {"input_scale", p.input_scale}};
    place(matrix, "weights", p.weights);
    place(matrix, "scales", p.scales);
    place(matrix, "order", p.order);
    place(matrix, "bias", p.bias);
    matrices[name] = std::move(matrix);
  }
};

Status pad(AtomicFileWriter& writer, size_t bytes) {
  static constexpr std::byte kZeros[kDataAlignment] = {};
  return writer.write(std::span(kZeros).first(bytes));
}

Status write_start(AtomicFileWriter& writer, const std::string& header) {
  const uint64_t bytes = header.size(), sum = sum_of(std::string_view(header));
  MR_RETURN_IF_ERROR(writer.write(kMagic));
  MR_RETURN_IF_ERROR(writer.write(std::as_bytes(std::span(&bytes, 1))));
  MR_RETURN_IF_ERROR(writer.write(std::as_bytes(std::span(&sum, 1))));
  MR_RETURN_IF_ERROR(writer.write(header));
  return pad(writer, round_up(kStart + bytes, kDataAlignment) - kStart - bytes);
}

}  // namespace

Json packed_weights_key(const MappedFiles& files, const Json& config, DType dtype, LinearFormat format) {
  Json key = {{"format", 1},
              {"version", kVersion},
              {"isa", isa_name(best_isa())},
              {"packing", packing_fingerprint(dtype)},
              {"dtype", dtype_name(dtype)},
              {"quantization", static_cast<int>(format)},
              {"config", sum_of(dump_json(config))},
              {"files", Json::array()}};
  for (const auto& file : files) key["files"].push_back(file_key(*file));
  return key;
}

PackedWeights::PackedWeights(const std::string& folder, Json key)
    : path_(join_path(folder, fmt::format("{:016x}.packed", sum_of(dump_json(key))))), key_(std::move(key)) {
  if (!file_exists(path_)) return;
  if (const Status status = open(); !status.ok()) {
    matrices_.clear();
    log_warning("{}: {}; it is not used, and made anew", path_, status.message());
  }
}

Status PackedWeights::open() {
  MR_ASSIGN_OR_RETURN(pages_, map_pages(path_));
  MR_ASSIGN_OR_RETURN(Header header, read_header(pages_.bytes));
  if (header.json["key"] != key_) return data_loss("it belongs to another checkpoint or way of packing");
  data_ = pages_.bytes.subspan(header.data_begin);
  for (auto& [name, matrix] : header.json["matrices"].items()) matrices_[name] = std::move(matrix);
  for (const auto& [name, matrix] : matrices_)
    if (const Result<Linear> linear = read(matrix); !linear.ok()) return linear.status().at(name);
  return {};
}

Result<Linear> PackedWeights::read(const Json& matrix) const {
  if (!matrix.is_object() || !matrix.contains("dtype") || !matrix["dtype"].is_string() ||
      !matrix.contains("input_scale") || !matrix["input_scale"].is_number())
    return data_loss("a matrix without dtype or input_scale");
  Linear::Packed packed;
  MR_ASSIGN_OR_RETURN(const int64_t format, whole(matrix, "format"));
  if (format > static_cast<int64_t>(LinearFormat::kW4A16)) return data_loss("format {}", format);
  packed.format = static_cast<LinearFormat>(format);
  const auto dtype = dtype_from_name(matrix["dtype"].get<std::string>());
  if (!dtype) return data_loss("dtype {}", json_excerpt(matrix["dtype"]));
  packed.dtype = *dtype;
  MR_ASSIGN_OR_RETURN(packed.rows, whole(matrix, "rows"));
  MR_ASSIGN_OR_RETURN(packed.columns, whole(matrix, "columns"));
  MR_ASSIGN_OR_RETURN(packed.group, whole(matrix, "group"));
  packed.input_scale = matrix["input_scale"].get<float>();
  MR_ASSIGN_OR_RETURN(packed.weights, vector_of(pages_, data_, matrix, "weights", DType::kU8));
  MR_ASSIGN_OR_RETURN(packed.scales, vector_of(pages_, data_, matrix, "scales", DType::kF32));
  MR_ASSIGN_OR_RETURN(packed.order, vector_of(pages_, data_, matrix, "order", DType::kI32));
  MR_ASSIGN_OR_RETURN(packed.bias, vector_of(pages_, data_, matrix, "bias", DType::kF32));
  return Linear::from_packed(packed);
}

std::optional<Linear> PackedWeights::find(const std::string& name) const {
  const auto it = matrices_.find(name);
  if (it == matrices_.end()) return std::nullopt;
  return *read(it->second);  // checked when the file was opened
}

void PackedWeights::add(const std::string& name, const Linear& linear) { added_.insert_or_assign(name, linear); }

Status PackedWeights::write() {
  if (added_.empty()) return {};
  for (const auto& [name, matrix] : matrices_)
    if (!added_.contains(name)) added_.emplace(name, *read(matrix));
  Layout layout;
  for (const auto& [name, linear] : added_) layout.place(name, linear);
  const Json header = {{"key", key_}, {"data_bytes", layout.bytes}, {"matrices", std::move(layout.matrices)}};
  MR_RETURN_IF_ERROR(make_directories(std::filesystem::path(path_).parent_path().string()));
  MR_ASSIGN_OR_RETURN(AtomicFileWriter writer, AtomicFileWriter::create(path_));
  MR_RETURN_IF_ERROR(write_start(writer, dump_json(header)));
  for (const Tensor& tensor : layout.tensors) {
    const auto bytes = static_cast<size_t>(tensor.bytes());
    MR_RETURN_IF_ERROR(writer.write({static_cast<const std::byte*>(tensor.raw()), bytes}));
    MR_RETURN_IF_ERROR(pad(writer, round_up(bytes, kAlignment) - bytes));
  }
  added_.clear();
  return writer.commit();
}

}  // namespace millrace
