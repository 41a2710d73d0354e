#include "tests/bench/picture_size.h"

#include <csetjmp>
#include <cstdio>
#include <vector>

// libjpeg's header wants <cstdio> before it.
#include <jpeglib.h>
#include <png.h>

namespace millrace {

std::pair<int, int> png_size(const std::string& file) {
  png_image image{};
  image.version = PNG_IMAGE_VERSION;
  if (!png_image_begin_read_from_memory(&image, file.data(), file.size())) return {};
  image.format = PNG_FORMAT_RGB;
  std::vector<uint8_t> rgb(PNG_IMAGE_SIZE(image));
  const std::pair<int, int> size(image.height, image.width);
  return png_image_finish_read(&image, nullptr, rgb.data(), 0, nullptr) ? size : std::pair(0, 0);
}

namespace {

std::jmp_buf g_back;

bool read_all(const std::string& file, std::vector<uint8_t>& row, int& height, int& width) {
  jpeg_decompress_struct jpeg{};
  jpeg_error_mgr errors{};
  jpeg.err = jpeg_std_error(&errors);
  errors.error_exit = [](j_common_ptr) { std::longjmp(g_back, 1); };
  if (setjmp(g_back) != 0) return jpeg_destroy_decompress(&jpeg), false;
  jpeg_create_decompress(&jpeg);
  jpeg_mem_src(&jpeg, reinterpret_cast<const unsigned char*>(file.data()), file.size());
  jpeg_read_header(&jpeg, TRUE);
  jpeg_start_decompress(&jpeg);
  height = static_cast<int>(jpeg.output_height), width = static_cast<int>(jpeg.output_width);
  row.resize(static_cast<size_t>(width) * static_cast<size_t>(jpeg.output_components));
  while (jpeg.output_scanline < jpeg.output_height) {
    JSAMPROW rows[] = {row.data()};
    jpeg_read_scanlines(&jpeg, rows, 1);
  }
  const bool whole = errors.num_warnings == 0;
  jpeg_finish_decompress(&jpeg);
  jpeg_destroy_decompress(&jpeg);
  return whole;
}

}  // namespace

std::pair<int, int> jpeg_size(const std::string& file) {
  std::vector<uint8_t> row;
  int height = 0, width = 0;
  return read_all(file, row, height, width) ? std::pair(height, width) : std::pair(0, 0);
}

}  // namespace millrace
