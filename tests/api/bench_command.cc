#include "tests/api/bench_command.h"

#include <gtest/gtest.h>

#include "base/file.h"
#include "report/table.h"

namespace millrace {

CommandResult bench(std::vector<std::string> arguments, const std::vector<std::string>& more) {
  arguments.insert(arguments.begin(), "bench");
  arguments.insert(arguments.end(), more.begin(), more.end());
  return run_millrace(arguments);
}

std::string port_of(const MockLlm& server) { return std::to_string(server.port()); }

std::vector<std::vector<std::string>> read_csv(const std::string& path) {
  auto rows = *report::parse_csv(*read_file(path));
  const size_t columns = rows.at(0).size();
  for (const auto& row : rows) EXPECT_EQ(row.size(), columns) << path;
  if (rows[0].back() == "INVALID")
    for (auto& row : rows) row.resize(columns - 1);
  return rows;
}

}  // namespace millrace
