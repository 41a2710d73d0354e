#include "tests/models/families/models_page.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>

#include "base/file.h"
#include "models/families/families.h"
#include "tests/golden_folders.h"

namespace millrace {
namespace {

constexpr const char* kPath = MILLRACE_SOURCE_DIR "/docs/models.md";

// `cmake --build build --target models_page` runs this with MILLRACE_WRITE_DOCS=1.
TEST(ModelsPage, IsWhatTheFamiliesSay) {
  if (const char* write = std::getenv("MILLRACE_WRITE_DOCS"); write && std::string(write) == "1")
    ASSERT_TRUE(write_file(kPath, models_page()).ok());
  const Result<std::string> page = read_file(kPath);
  ASSERT_TRUE(page.ok()) << page.status().message();
  EXPECT_EQ(*page, models_page()) << "docs/models.md is stale: cmake --build build --target models_page";
}

TEST(ModelsPage, EveryGoldenFolderBelongsToAFamily) {
  for (const GoldenFolder& folder : kGoldenFolders) EXPECT_NE(find_family(folder.family), nullptr) << folder.name;
}

}  // namespace
}  // namespace millrace
