#include "bench/images.h"

#include <algorithm>
#include <array>
#include <csetjmp>
#include <cstdio>
#include <vector>

// libjpeg's header wants <cstdio> before it.
#include <jpeglib.h>
#include <png.h>

#include "base/random.h"

namespace millrace::bench {
namespace {

constexpr int kMaxSide = 8192, kBlock = 32, kNoise = 16, kJpegQuality = 85;

// [height, width, 3]
std::vector<uint8_t> pixels(int height, int width, uint64_t seed) {
  Random random(seed);
  const int across = (width + kBlock - 1) / kBlock;
  std::vector<std::array<uint8_t, 3>> colours(static_cast<size_t>(across) *
                                              static_cast<size_t>((height + kBlock - 1) / kBlock));
  for (auto& colour : colours)
    for (uint8_t& channel : colour) channel = static_cast<uint8_t>(random.below(256 - kNoise));
  std::vector<uint8_t> rgb;
  rgb.reserve(static_cast<size_t>(height) * static_cast<size_t>(width) * 3);
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x) {
      const uint32_t noise = random();
      for (int c = 0; c < 3; ++c)
        rgb.push_back(static_cast<uint8_t>(
            colours[static_cast<size_t>(y / kBlock * across + x / kBlock)][static_cast<size_t>(c)] +
            (noise >> (8 * c)) % kNoise));
    }
  return rgb;
}

Result<std::string> png_file(const std::vector<uint8_t>& rgb, int height, int width) {
  png_image image{};
  image.version = PNG_IMAGE_VERSION;
  image.width = static_cast<png_uint_32>(width), image.height = static_cast<png_uint_32>(height);
  image.format = PNG_FORMAT_RGB;
  std::string file(PNG_IMAGE_PNG_SIZE_MAX(image), '\0');
  png_alloc_size_t size = file.size();
  if (!png_image_write_to_memory(&image, file.data(), &size, 0, rgb.data(), 0, nullptr))
    return internal_error("a PNG of {} x {} could not be made: {}", height, width, image.message);
  file.resize(size);
  return file;
}

struct JpegErrors {
  jpeg_error_mgr manager;  // first: libjpeg hands back a pointer to it
  std::jmp_buf back;
};

// No object with a destructor may live here: an error jumps over it. The caller frees `bytes`.
bool write_jpeg(const uint8_t* rgb, int height, int width, unsigned char** bytes, unsigned long* size) {
  jpeg_compress_struct jpeg{};
  JpegErrors errors{};
  jpeg.err = jpeg_std_error(&errors.manager);
  errors.manager.error_exit = [](j_common_ptr common) {
    std::longjmp(reinterpret_cast<JpegErrors*>(common->err)->back, 1);
  };
  if (setjmp(errors.back) != 0) return jpeg_destroy_compress(&jpeg), false;
  jpeg_create_compress(&jpeg);
  jpeg_mem_dest(&jpeg, bytes, size);
  jpeg.image_width = static_cast<JDIMENSION>(width), jpeg.image_height = static_cast<JDIMENSION>(height);
  jpeg.input_components = 3, jpeg.in_color_space = JCS_RGB;
  jpeg_set_defaults(&jpeg);
  jpeg_set_quality(&jpeg, kJpegQuality, TRUE);
  jpeg_start_compress(&jpeg, TRUE);
  while (jpeg.next_scanline < jpeg.image_height) {
    auto* row = const_cast<JSAMPROW>(rgb + static_cast<size_t>(jpeg.next_scanline) * static_cast<size_t>(width) * 3);
    jpeg_write_scanlines(&jpeg, &row, 1);
  }
  jpeg_finish_compress(&jpeg);
  jpeg_destroy_compress(&jpeg);
  return true;
}

Result<std::string> jpeg_file(const std::vector<uint8_t>& rgb, int height, int width) {
  unsigned char* bytes = nullptr;
  unsigned long size = 0;
  const bool made = write_jpeg(rgb.data(), height, width, &bytes, &size);
  std::string file(reinterpret_cast<const char*>(bytes), made ? size : 0);
  std::free(bytes);
  if (!made) return internal_error("a JPEG of {} x {} could not be made", height, width);
  return file;
}

std::string base64(std::string_view bytes) {
  constexpr char kDigits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  text.reserve((bytes.size() + 2) / 3 * 4);
  for (size_t i = 0; i < bytes.size(); i += 3) {
    uint32_t group = 0;
    for (size_t k = 0; k < 3; ++k) group = group << 8 | (i + k < bytes.size() ? static_cast<uint8_t>(bytes[i + k]) : 0);
    for (size_t k = 0; k < 4; ++k) text += i + k > bytes.size() ? '=' : kDigits[group >> (18 - 6 * k) & 63];
  }
  return text;
}

constexpr const char* kFormats[] = {"png", "jpeg"};

}  // namespace

Result<ImageFormat> find_image_format(std::string_view name) {
  for (size_t i = 0; i < std::size(kFormats); ++i)
    if (name == kFormats[i]) return static_cast<ImageFormat>(i);
  return invalid_argument("'{}' is no image format here; there are png and jpeg", name);
}

Result<std::string> random_image(ImageFormat format, int height, int width, uint64_t seed) {
  if (height < 1 || width < 1 || height > kMaxSide || width > kMaxSide)
    return invalid_argument("a picture of {} x {} pixels; sides of 1 to {} are wanted", height, width, kMaxSide);
  const std::vector<uint8_t> rgb = pixels(height, width, seed);
  return format == ImageFormat::kPng ? png_file(rgb, height, width) : jpeg_file(rgb, height, width);
}

std::string data_url(ImageFormat format, std::string_view file) {
  return fmt::format("data:image/{};base64,{}", kFormats[static_cast<size_t>(format)], base64(file));
}

}  // namespace millrace::bench
