// `millrace bench` for tests: running it, and reading the tables that it writes.
#pragma once
#include <string>
#include <vector>

#include "tests/api/server_process.h"
#include "tests/bench/mock_llm.h"

namespace millrace {

// Runs `millrace bench <arguments> <more>` to its end.
CommandResult bench(std::vector<std::string> arguments, const std::vector<std::string>& more = {});
std::string port_of(const MockLlm& server);

// The cells of a CSV file, titles first. A busy machine makes figures invalid, and their table has a last column
// INVALID (docs: bench), which is left out here. A row that is shorter or longer than the titles is a failure.
std::vector<std::vector<std::string>> read_csv(const std::string& path);

}  // namespace millrace
