// Workbooks read back by Python's own zip and XML readers.
#include "report/workbook.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/json.h"

namespace millrace::report {
namespace {

// {"sheet": {"A1": value, ...}}; strings are looked up in the shared table.
constexpr const char* kReader = R"py(
import json, sys, zipfile, xml.etree.ElementTree as et
m = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
z = zipfile.ZipFile(sys.argv[1])
texts = [t.findtext(m + "t") or "" for t in et.fromstring(z.read("xl/sharedStrings.xml"))]
out = {}
for i, sheet in enumerate(et.fromstring(z.read("xl/workbook.xml")).find(m + "sheets")):
    cells = {}
    for c in et.fromstring(z.read("xl/worksheets/sheet%d.xml" % (i + 1))).iter(m + "c"):
        v = c.findtext(m + "v")
        if v is not None: cells[c.get("r")] = texts[int(v)] if c.get("t") == "s" else float(v)
    out[sheet.get("name")] = cells
print(json.dumps(out))
)py";

Json read_back(const TemporaryDirectory& folder, const std::string& path) {
  EXPECT_TRUE(write_file(folder.file("reader.py"), kReader).ok());
  std::FILE* pipe = ::popen(("python3 '" + folder.file("reader.py") + "' '" + path + "'").c_str(), "r");
  std::string out;
  char buffer[4096];
  for (size_t got; (got = std::fread(buffer, 1, sizeof buffer, pipe)) > 0;) out.append(buffer, got);
  EXPECT_EQ(::pclose(pipe), 0);
  const Result<Json> json = parse_json(out);
  EXPECT_TRUE(json.ok()) << out;
  return json.ok() ? *json : Json();
}

TEST(Workbook, SheetsAreThoseOfPandas) {
  const TemporaryDirectory folder;
  const std::string path = folder.file("o.xlsx");
  ASSERT_TRUE(write_workbook(path, {{"benchmark_serving", {"DATASET", "QPS"}, {{"alpaca", "1.25"}, {"x", "-2e3"}}},
                                    {"benchmark_parallel", {"输入长度"}, {{"512.0"}}}})
                  .ok());
  EXPECT_EQ(read_back(folder, path),
            Json::parse(R"({"benchmark_serving": {"B1": "DATASET", "C1": "QPS", "A2": 0.0, "B2": "alpaca", "C2": 1.25,
                            "A3": 1.0, "B3": "x", "C3": -2000.0},
                            "benchmark_parallel": {"B1": "输入长度", "A2": 0.0, "B2": 512.0}})"));
  EXPECT_EQ(list_directory(folder.path())->size(), 2u);  // the workbook and the reader: nothing temporary
}

TEST(Workbook, OnlyWholeFiniteNumbersAreNumbers) {
  const TemporaryDirectory folder;
  const std::string path = folder.file("o.xlsx");
  ASSERT_TRUE(
      write_workbook(path, {{"s", {"a"}, {{"inf"}, {"nan"}, {"1e999"}, {"1 "}, {"0x10"}, {"=1+1"}, {"\xFF"}}}}).ok());
  const Json cells = read_back(folder, path)["s"];
  const char* wanted[] = {"inf", "nan", "1e999", "1 ", "0x10", "=1+1", "\xEF\xBF\xBD"};
  for (size_t i = 0; i < std::size(wanted); ++i) EXPECT_EQ(cells["B" + std::to_string(i + 2)], wanted[i]);
}

TEST(Workbook, WhatHasNoPlaceIsRefusedAndLeavesNoFile) {
  const TemporaryDirectory folder;
  const std::string path = folder.file("o.xlsx");
  const std::vector<std::vector<Sheet>> cases = {{},
                                                 {{"a/b", {"x"}, {}}},
                                                 {{std::string(32, 'a'), {"x"}, {}}},
                                                 {{"a", {"x"}, {}}, {"a", {"x"}, {}}},
                                                 {{"a", {"x"}, {{"1", "2"}}}},
                                                 {{"a", {"x"}, {{std::string(40'000, 'z')}}}},
                                                 {{"a", std::vector<std::string>(20'000, "x"), {}}}};
  for (const auto& sheets : cases) EXPECT_FALSE(write_workbook(path, sheets).ok());
  EXPECT_FALSE(write_workbook(folder.file("none/o.xlsx"), {{"a", {"x"}, {}}}).ok());
  EXPECT_TRUE(list_directory(folder.path())->empty());
}

}  // namespace
}  // namespace millrace::report
