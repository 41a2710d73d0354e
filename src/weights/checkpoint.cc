#include "weights/checkpoint.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <set>
#include <span>

#include "base/file.h"
#include "base/json.h"
#include "base/text.h"
#include "weights/safetensors.h"
#include "weights/torch_file.h"

namespace millrace {
namespace {

struct FormatNames {
  const char* single;
  const char* stem;  // of shards: <stem>-00001-of-00002<extension>
  const char* extension;
  std::vector<const char*> extensions;   // of files taken where neither single file nor index is there
  std::vector<const char*> not_weights;  // patterns by prefix: optimiser states and the like
};
const FormatNames& names_of(bool torch) {
  static const FormatNames kSafetensors = {
      "model.safetensors", "model", ".safetensors", {".safetensors"}, {"adapter_", "consolidated", "optimizer"}};
  static const FormatNames kTorch = {
      "pytorch_model.bin",
      "pytorch_model",
      ".bin",
      {".bin", ".pt", ".pth"},
      {"adapter_", "consolidated", "optimizer", "scheduler", "scaler", "rng_state", "training_args", "tokenizer"}};
  return torch ? kTorch : kSafetensors;
}

bool is_loose_weight_file(const std::string& name, const FormatNames& format) {
  const bool fits = std::ranges::any_of(format.extensions, [&](const char* end) { return name.ends_with(end); });
  return fits && std::ranges::none_of(format.not_weights, [&](const char* begin) { return name.starts_with(begin); });
}

// What a folder holds in one format. At most one member is filled.
struct Found {
  std::string single, index;
  std::vector<std::string> loose;
  bool any() const { return !single.empty() || !index.empty() || !loose.empty(); }
};
Found look_for(const std::vector<std::string>& listing, const FormatNames& format) {
  const auto has = [&](const std::string& name) { return std::ranges::binary_search(listing, name); };
  const std::string index = std::string(format.single) + ".index.json";
  if (has(format.single)) return {.single = format.single};
  if (has(index)) return {.index = index};
  Found found;
  for (const std::string& name : listing)
    if (is_loose_weight_file(name, format)) found.loose.push_back(name);
  return found;
}

// A shard's name out of an index: a file of the folder itself.
Status check_shard_name(const Json& name, const std::string& tensor) {
  if (!name.is_string())
    return invalid_argument("weight_map: '{}' is {}; it must be a file name", tensor, json_excerpt(name));
  const std::string text = name.get<std::string>();
  if (text.empty() || text.find('/') != std::string::npos || text.find('\0') != std::string::npos || text == "." ||
      text == "..")
    return invalid_argument("weight_map: '{}' is in '{}'; it must be a file of the same folder", tensor, text);
  return {};
}

Result<std::map<std::string, std::string>> read_weight_map(const std::string& path) {
  MR_ASSIGN_OR_RETURN(const Json index, read_json_file(path));
  const auto it = index.is_object() ? index.find("weight_map") : index.end();
  if (!index.is_object() || it == index.end() || !it->is_object())
    return invalid_argument("{}: there is no weight_map object", path);
  std::map<std::string, std::string> map;
  for (const auto& [tensor, file] : it->items()) {
    MR_RETURN_IF_ERROR(check_shard_name(file, tensor).at(path));
    map[tensor] = file.get<std::string>();
  }
  return map;
}

// Splits tensors into runs of at most `max_bytes`; a larger tensor is alone.
std::vector<std::span<const NamedTensor>> shards_of(std::span<const NamedTensor> tensors, int64_t max_bytes) {
  std::vector<std::span<const NamedTensor>> shards;
  size_t first = 0;
  int64_t bytes = 0;
  for (size_t i = 0; i < tensors.size(); ++i) {
    const int64_t next = tensors[i].bytes();
    if (i > first && bytes + next > max_bytes) {
      shards.push_back(tensors.subspan(first, i - first));
      first = i, bytes = 0;
    }
    bytes += next;
  }
  shards.push_back(tensors.subspan(first));
  return shards;
}

Status write_one(const std::string& path, std::span<const NamedTensor> tensors, bool torch) {
  return torch ? write_torch_file(path, tensors) : write_safetensors(path, tensors, {{"format", "pt"}});
}

Status refuse_existing_weights(const std::string& folder) {
  if (!is_directory(folder)) return make_directories(folder);
  MR_ASSIGN_OR_RETURN(const auto listing, list_directory(folder));
  for (const bool torch : {false, true}) {
    const Found found = look_for(listing, names_of(torch));
    if (!found.any()) continue;
    return already_exists("{}: the folder already holds weights ({}); remove them or choose another folder", folder,
                          !found.single.empty()  ? found.single
                          : !found.index.empty() ? found.index
                                                 : found.loose.front());
  }
  return {};
}

Status write_shards(const std::string& folder, const std::vector<std::span<const NamedTensor>>& shards, bool torch) {
  const FormatNames& format = names_of(torch);
  Json weight_map = Json::object();
  int64_t total = 0;
  for (size_t i = 0; i < shards.size(); ++i) {
    const std::string name = fmt::format("{}-{:05}-of-{:05}{}", format.stem, i + 1, shards.size(), format.extension);
    MR_RETURN_IF_ERROR(write_one(join_path(folder, name), shards[i], torch));
    for (const NamedTensor& tensor : shards[i]) {
      weight_map[tensor.name] = name;
      total += tensor.bytes();
    }
  }
  const Json index = {{"metadata", {{"total_size", total}}}, {"weight_map", weight_map}};
  return write_file(join_path(folder, std::string(format.single) + ".index.json"), dump_json(index, 2) + "\n");
}

}  // namespace

Result<LoadFormat> load_format_from_name(std::string_view name) {
  static const std::vector<std::string> kNames = {"auto", "safetensors", "pt", "dummy"};
  const auto it = std::ranges::find(kNames, name);
  if (it != kNames.end()) return static_cast<LoadFormat>(it - kNames.begin());
  return invalid_argument("load format '{}' is not one of {}{}", name, fmt::join(kNames, ", "),
                          did_you_mean(name, kNames));
}

Result<Checkpoint> Checkpoint::open(const std::string& folder, LoadFormat format) {
  MR_CHECK(format != LoadFormat::kDummy, "dummy weights have no files");
  MR_ASSIGN_OR_RETURN(const auto listing, list_directory(folder));
  for (const bool torch : {false, true}) {
    if (format == (torch ? LoadFormat::kSafetensors : LoadFormat::kPt)) continue;
    const Found found = look_for(listing, names_of(torch));
    if (!found.any()) continue;
    Checkpoint checkpoint;
    if (!found.index.empty()) MR_RETURN_IF_ERROR(checkpoint.add_index(folder, found.index, torch));
    if (!found.single.empty()) MR_RETURN_IF_ERROR(checkpoint.add_file(join_path(folder, found.single), torch));
    for (const std::string& name : found.loose) MR_RETURN_IF_ERROR(checkpoint.add_file(join_path(folder, name), torch));
    for (const auto& [name, file] : checkpoint.file_of_) checkpoint.names_.push_back(name);
    return checkpoint;
  }
  return not_found("{}: no weights; looked for {}", folder,
                   format == LoadFormat::kSafetensors ? "model.safetensors, model.safetensors.index.json, *.safetensors"
                   : format == LoadFormat::kPt ? "pytorch_model.bin, pytorch_model.bin.index.json, *.bin, *.pt, *.pth"
                                               : "*.safetensors, *.bin, *.pt, *.pth and their index files");
}

Status Checkpoint::add_file(const std::string& path, bool torch) {
  MR_ASSIGN_OR_RETURN(auto file, torch ? open_torch_file(path) : open_safetensors(path));
  MR_ASSIGN_OR_RETURN(const uint64_t bytes, file_size(path));
  file_bytes_ += static_cast<int64_t>(bytes);
  for (const std::string& name : file->names()) {
    const auto [it, is_new] = file_of_.emplace(name, file.get());
    if (!is_new) return data_loss("tensor '{}' is both in {} and in {}", name, it->second->path(), path);
  }
  files_.push_back(std::move(file));
  return {};
}

Status Checkpoint::add_index(const std::string& folder, const std::string& index, bool torch) {
  const std::string path = join_path(folder, index);
  MR_ASSIGN_OR_RETURN(const auto weight_map, read_weight_map(path));
  std::set<std::string> shards;
  for (const auto& [tensor, shard] : weight_map) shards.insert(shard);
  for (const std::string& shard : shards) MR_RETURN_IF_ERROR(add_file(join_path(folder, shard), torch).at(index));
  for (const auto& [tensor, shard] : weight_map) {
    const auto it = file_of_.find(tensor);
    if (it == file_of_.end() || it->second->path() != join_path(folder, shard))
      return data_loss("{}: tensor '{}' is not in {}, where the index places it", path, tensor, shard);
  }
  for (const auto& [tensor, file] : file_of_)
    if (!weight_map.contains(tensor))
      return data_loss("{}: tensor '{}' is not in the index {}", file->path(), tensor, index);
  return {};
}

Result<const TensorFile*> Checkpoint::file_with(const std::string& name) const {
  const auto it = file_of_.find(name);
  if (it == file_of_.end()) return not_found("no tensor '{}' in the checkpoint", name);
  return &*it->second;
}

Result<Tensor> Checkpoint::tensor(const std::string& name) const {
  MR_ASSIGN_OR_RETURN(const TensorFile* const file, file_with(name));
  return file->tensor(name);
}

Result<Tensor> Checkpoint::stored(const std::string& name) const {
  MR_ASSIGN_OR_RETURN(const TensorFile* const file, file_with(name));
  return file->stored(name);
}

MappedFiles Checkpoint::mappings() const {
  MappedFiles mappings;
  for (const auto& file : files_) mappings.push_back(file->mapping());
  return mappings;
}

std::vector<std::string> Checkpoint::files() const {
  std::vector<std::string> paths;
  for (const auto& file : files_) paths.push_back(file->path());
  return paths;
}

Status write_checkpoint(const std::string& folder, std::span<const NamedTensor> tensors, const ShardOptions& options) {
  MR_CHECK(options.format == LoadFormat::kSafetensors || options.format == LoadFormat::kPt, "a format of files");
  const bool torch = options.format == LoadFormat::kPt;
  MR_RETURN_IF_ERROR(refuse_existing_weights(folder));
  const auto shards = shards_of(tensors, options.max_shard_bytes);
  if (shards.size() == 1) return write_one(join_path(folder, names_of(torch).single), tensors, torch);
  return write_shards(folder, shards, torch);
}

}  // namespace millrace
