// `millrace bench` for tests: running it, and reading the tables that it writes.
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "base/file.h"
#include "tests/api/server_process.h"
#include "tests/bench/mock_llm.h"

namespace millrace {

// Runs `millrace bench <arguments> <more>` to its end.
CommandResult bench(std::vector<std::string> arguments, const std::vector<std::string>& more = {});

// A `millrace bench <arguments>` beside the test, killed with the object. Its stdout goes into a file, its stderr too
// unless `stderr_fd` is given.
class BenchProcess {
 public:
  explicit BenchProcess(std::vector<std::string> arguments, int stderr_fd = -1, const std::string& terminal = "xterm");
  ~BenchProcess();
  BenchProcess(const BenchProcess&) = delete;
  BenchProcess& operator=(const BenchProcess&) = delete;

  void signal(int number) const;
  int wait();               // for its end; the status as waitpid() has it
  bool ended(int& status);  // does not wait
  std::string output() const;

 private:
  TemporaryDirectory folder_;
  pid_t pid_ = -1;
};

// Asks again and again, for 30 s at most.
bool comes_true(const std::function<bool()>& condition);

std::string port_of(const MockLlm& server);

// The cells of a CSV file, titles first. A busy machine makes figures invalid, and their table has a last column
// INVALID (docs: bench), which is left out here. A row that is shorter or longer than the titles is a failure.
std::vector<std::vector<std::string>> read_csv(const std::string& path);

}  // namespace millrace
