// Safetensors files. Byte layout:
//   8 bytes   N, little-endian: bytes of the header
//   N bytes   JSON object: {"<name>": {"dtype": "F32", "shape": [2, 3], "data_offsets": [begin, end]}, ...,
//             "__metadata__": {"<key>": "<text>"}}, padded with spaces
//   the rest  the data; offsets count from here, cover it exactly, without overlap or gap
#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "weights/tensor_file.h"

namespace millrace {

struct SafetensorsEntry {
  std::string name;
  std::string dtype_name;      // as the file spells it: "BF16"
  std::optional<DType> dtype;  // nothing for a type of the format that Tensor does not know (F8_E4M3, U16, ...)
  std::vector<int64_t> shape;
  uint64_t begin = 0, end = 0;  // bytes, counted from the start of the data
};
struct SafetensorsHeader {
  std::vector<SafetensorsEntry> tensors;  // in the order of their data
  std::map<std::string, std::string> metadata;
  uint64_t data_begin = 0;  // offset in the file
};
// Checks every rule of the layout against the size of the file before anything is allocated for a tensor.
Result<SafetensorsHeader> parse_safetensors_header(std::span<const std::byte> file);

Result<std::unique_ptr<TensorFile>> open_safetensors(const std::string& path);

// Writes the file whole or not at all. Order: element size falling (so that everything stays aligned), then as given.
Status write_safetensors(const std::string& path, std::span<const NamedTensor> tensors,
                         const std::map<std::string, std::string>& metadata = {});

}  // namespace millrace
