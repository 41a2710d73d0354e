// Holds every #include "..." under src/ to the table in src/layers.txt.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/text.h"

namespace millrace {
namespace {

namespace fs = std::filesystem;
using Layers = std::map<std::string, std::set<std::string>>;
const fs::path kSource = fs::path(MILLRACE_SOURCE_DIR) / "src";

// `core` stands for everything up to models.
const std::set<std::string> kCore = {"kernels", "tensor", "models/families", "weights", "ops", "models"};

Layers read_layers(const std::string& text) {
  Layers layers;
  for (const std::string& line : split(text, '\n')) {
    const size_t colon = line.find(':');
    if (line.starts_with('#') || colon == std::string::npos) continue;
    std::set<std::string>& may = layers[line.substr(0, colon)];
    std::istringstream words(line.substr(colon + 1));
    for (std::string word; words >> word;) {
      if (word == "core")
        may.insert(kCore.begin(), kCore.end());
      else
        may.insert(word);
    }
  }
  for (auto& [folder, may] : layers) {
    may.insert({folder, "base"});
    if (!may.erase("all")) continue;
    for (const auto& [other, unused] : layers) may.insert(other);
  }
  return layers;
}

// The table's folder that holds `path` (relative to src/): the longest that fits, "" if none does.
std::string folder_of(const Layers& layers, const std::string& path) {
  std::string best;
  for (const auto& [folder, unused] : layers)
    if (path.starts_with(folder + "/") && folder.size() > best.size()) best = folder;
  return best;
}

// Includes of `text` that the table forbids to a file of `folder`.
std::vector<std::string> forbidden_includes(const Layers& layers, const std::string& folder, const std::string& text) {
  std::vector<std::string> bad;
  for (const std::string& line : split(text, '\n')) {
    constexpr std::string_view kStart = "#include \"";
    if (!line.starts_with(kStart)) continue;
    const std::string header = line.substr(kStart.size(), line.rfind('"') - kStart.size());
    if (!layers.at(folder).contains(folder_of(layers, header))) bad.push_back(header);
  }
  return bad;
}

TEST(Layers, EveryIncludeFollowsTheTable) {
  const Layers layers = read_layers(*read_file(kSource / "layers.txt"));
  int files = 0;
  for (const auto& entry : fs::recursive_directory_iterator(kSource)) {
    const std::string extension = entry.path().extension();
    if (extension != ".h" && extension != ".cc") continue;
    const std::string path = fs::relative(entry.path(), kSource);
    const std::string folder = folder_of(layers, path);
    ASSERT_FALSE(folder.empty()) << path << " lies in no folder of src/layers.txt";
    for (const std::string& header : forbidden_includes(layers, folder, *read_file(entry.path())))
      ADD_FAILURE() << path << " includes " << header << ", which src/layers.txt does not allow to " << folder << "/";
    ++files;
  }
  EXPECT_GT(files, 10);
}

TEST(Layers, AWingIncludingAnotherIsFound) {
  const Layers layers = read_layers(*read_file(kSource / "layers.txt"));
  EXPECT_EQ(forbidden_includes(layers, "server", "#include \"bench/x.h\"\n#include \"net/y.h\"\n#include <vector>\n"),
            std::vector<std::string>{"bench/x.h"});
  EXPECT_TRUE(forbidden_includes(layers, "cli", "#include \"bench/x.h\"\n").empty());
}

TEST(Layers, OnlyTrainIncludesTorch) {
  for (const auto& entry : fs::recursive_directory_iterator(kSource)) {
    if (!entry.is_regular_file() || fs::relative(entry.path(), kSource).string().starts_with("train/")) continue;
    EXPECT_EQ(read_file(entry.path())->find("#include <torch/"), std::string::npos) << entry.path();
  }
}

TEST(House, EveryFolderHasAReadme) {
  const Layers layers = read_layers(*read_file(kSource / "layers.txt"));
  for (const auto& [folder, unused] : layers) {
    if (!fs::is_directory(kSource / folder) || fs::is_empty(kSource / folder)) continue;
    EXPECT_TRUE(fs::exists(kSource / folder / "README.md")) << "src/" << folder << " has no README.md";
  }
}

TEST(House, NoSourceFileExceeds900Lines) {
  for (const auto& entry : fs::recursive_directory_iterator(kSource)) {
    const std::string extension = entry.path().extension();
    if (extension != ".h" && extension != ".cc") continue;
    const std::string text = *read_file(entry.path());
    EXPECT_LE(std::count(text.begin(), text.end(), '\n'), 900) << entry.path();
  }
}

}  // namespace
}  // namespace millrace
