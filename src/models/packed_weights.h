// Packed matrices kept on disk (--packed-weights-cache): found there, they are mapped and nothing is packed. A file is
// good for one checkpoint, dtype, quantisation and instruction set; any other, and any broken one, is not used.
// Byte layout, little-endian:
//   8 bytes   "MRPACKED"
//   8 bytes   N: bytes of the header
//   8 bytes   FNV-1a (64 bits) of the header
//   N bytes   JSON: {"key": {...}, "data_bytes": n, "matrices": {"<name>": {"format", "dtype", "rows", "columns",
//             "group", "input_scale", "weights": [begin, end], "scales", "order", "bias"}, ...}}
//   zeros     up to a multiple of 4096
//   the rest  data_bytes of data; offsets count from here and are multiples of 64
// Packed data hold no places, so nothing in them can lead outside: they are not summed up.
#pragma once
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "base/file_pages.h"
#include "base/json.h"
#include "base/result.h"
#include "ops/linear.h"

namespace millrace {

// What a file of packed matrices must have been made of: the weight files (names, sizes, times, their ends), what
// `config` says, how they are packed here.
Json packed_weights_key(const MappedFiles& files, const Json& config, DType dtype, LinearFormat format);

// One thread.
class PackedWeights {
 public:
  // Maps the file for `key` in `folder`, if there is a good one. A bad one is reported once, as a warning.
  PackedWeights(const std::string& folder, Json key);

  const std::string& path() const { return path_; }
  // Whether a good file was there.
  bool found() const { return !matrices_.empty(); }
  // A matrix of the file. The error of a bad one is reported, and nothing returned.
  std::optional<Linear> find(const std::string& name) const;
  // A matrix that was not found. It shares `linear`'s memory until write().
  void add(const std::string& name, const Linear& linear);
  // Writes a whole new file where any were added. It appears complete or not at all.
  Status write();

 private:
  Status open();
  Result<Linear> read(const Json& matrix) const;

  std::string path_;
  Json key_;
  FilePages pages_;
  std::span<const std::byte> data_;
  std::map<std::string, Json> matrices_;  // of the file
  std::map<std::string, Linear> added_;
};

}  // namespace millrace
