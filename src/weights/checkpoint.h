// The weight files of a model folder as one table of tensors, by the names the files use. Files are mapped: opening a
// checkpoint reads tables of contents only. Immutable after opening: any thread.
#pragma once
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "weights/tensor_file.h"

namespace millrace {

// --load-format. kAuto takes safetensors where there are any, else torch files.
enum class LoadFormat : uint8_t { kAuto, kSafetensors, kPt, kDummy };
// By vLLM's spelling; the error names the known ones.
Result<LoadFormat> load_format_from_name(std::string_view name);

class Checkpoint {
 public:
  // What is looked for, in this order: the single file (model.safetensors, pytorch_model.bin), the index of shards
  // (<single file>.index.json), any *.safetensors, or *.bin, *.pt and *.pth, except those known to hold other things.
  // kNotFound lists what was looked for. Requires: format is not kDummy.
  static Result<Checkpoint> open(const std::string& folder, LoadFormat format = LoadFormat::kAuto);

  // Every tensor of every file, sorted.
  const std::vector<std::string>& names() const { return names_; }
  bool has(const std::string& name) const { return file_of_.contains(name); }
  // As the file holds it; see TensorFile::tensor and TensorFile::stored.
  Result<Tensor> tensor(const std::string& name) const;
  Result<Tensor> stored(const std::string& name) const;
  // Paths of the files.
  std::vector<std::string> files() const;
  MappedFiles mappings() const;
  // Bytes of all files.
  int64_t file_bytes() const { return file_bytes_; }

 private:
  Result<const TensorFile*> file_with(const std::string& name) const;
  Status add_file(const std::string& path, bool torch);
  Status add_index(const std::string& folder, const std::string& index, bool torch);

  std::vector<std::unique_ptr<TensorFile>> files_;
  std::map<std::string, const TensorFile*> file_of_;
  std::vector<std::string> names_;
  int64_t file_bytes_ = 0;
};

// Writes tensors as one file, or as shards and an index, under the standard names.
struct ShardOptions {
  LoadFormat format = LoadFormat::kSafetensors;  // or kPt
  int64_t max_shard_bytes = int64_t{5'000'000'000};
};
// Every file appears whole; the index is the last. kAlreadyExists if the folder holds weights already.
Status write_checkpoint(const std::string& folder, std::span<const NamedTensor> tensors,
                        const ShardOptions& options = {});

}  // namespace millrace
