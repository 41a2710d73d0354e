#include "bench/images.h"

#include <gtest/gtest.h>

#include "tests/bench/picture_size.h"
#include "tokenizer/format/base64.h"

namespace millrace::bench {
namespace {

TEST(Images, EverySizeAskedForIsTheSizeThatDecodes) {
  for (const auto& [height, width] : {std::pair(1, 1), {3, 200}, {256, 256}, {45, 33}, {720, 1280}}) {
    EXPECT_EQ(png_size(*random_image(ImageFormat::kPng, height, width, 7)), std::pair(height, width));
    EXPECT_EQ(jpeg_size(*random_image(ImageFormat::kJpeg, height, width, 7)), std::pair(height, width));
  }
}

TEST(Images, ASeedIsAPicture) {
  for (const ImageFormat format : {ImageFormat::kPng, ImageFormat::kJpeg}) {
    EXPECT_EQ(*random_image(format, 40, 50, 1), *random_image(format, 40, 50, 1));
    EXPECT_NE(*random_image(format, 40, 50, 1), *random_image(format, 40, 50, 2));
  }
}

TEST(Images, DataUrlsHoldTheFile) {
  for (const size_t cut : {0u, 1u, 2u, 3u}) {
    const std::string file = std::string("\x89PNG\0\xff", 6).substr(0, 3 + cut);
    const std::string url = data_url(ImageFormat::kJpeg, file);
    ASSERT_TRUE(url.starts_with("data:image/jpeg;base64,"));
    EXPECT_EQ(decode_base64(url.substr(23)), file);
  }
}

TEST(Images, SidesOutOfRangeAndOtherFormatsAreRefused) {
  EXPECT_FALSE(random_image(ImageFormat::kPng, 0, 10, 1).ok());
  EXPECT_FALSE(random_image(ImageFormat::kPng, 10, 8193, 1).ok());
  EXPECT_EQ(find_image_format("gif").status().message(), "'gif' is no image format here; there are png and jpeg");
}

}  // namespace
}  // namespace millrace::bench
