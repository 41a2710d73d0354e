// Pictures of random content for requests to models that see. Pure functions, any thread.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"

namespace millrace::bench {

enum class ImageFormat { kPng, kJpeg };
Result<ImageFormat> find_image_format(std::string_view name);  // "png", "jpeg"

// A file of exactly `height` x `width` RGB pixels, each 1 to 8192: blocks of random colours with noise, so that no two
// seeds look alike and the file is neither empty of detail nor larger than a photograph would be.
Result<std::string> random_image(ImageFormat format, int height, int width, uint64_t seed);

// "data:image/png;base64,..."
std::string data_url(ImageFormat format, std::string_view file);

}  // namespace millrace::bench
