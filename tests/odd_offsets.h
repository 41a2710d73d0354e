// A checkpoint whose tensors lie at odd offsets of their file.
#pragma once
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <string>

#include "base/file.h"

namespace millrace {

// Copies the files of `from` to the folder `to`, which exists; spaces make the header of model.safetensors odd.
inline void copy_to_odd_offsets(const std::string& from, const std::string& to) {
  std::filesystem::copy(from, to, std::filesystem::copy_options::recursive);
  const std::string path = to + "/model.safetensors", text = *read_file(path);
  uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, text.data(), 8);
  const uint64_t longer = header_bytes + 1 + header_bytes % 2;
  std::string shifted(reinterpret_cast<const char*>(&longer), 8);
  shifted += text.substr(8, header_bytes) + std::string(longer - header_bytes, ' ') + text.substr(8 + header_bytes);
  std::filesystem::remove(path);
  ASSERT_TRUE(write_file(path, shifted).ok());
}

}  // namespace millrace
