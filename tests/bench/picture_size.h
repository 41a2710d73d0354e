// Decodes pictures for tests: [height, width] of a file whose every pixel can be read, zeros otherwise.
#pragma once
#include <string>
#include <utility>

namespace millrace {

std::pair<int, int> png_size(const std::string& file);
std::pair<int, int> jpeg_size(const std::string& file);

}  // namespace millrace
