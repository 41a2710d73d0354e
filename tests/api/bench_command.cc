#include "tests/api/bench_command.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <thread>

#include "report/table.h"

namespace millrace {

CommandResult bench(std::vector<std::string> arguments, const std::vector<std::string>& more) {
  arguments.insert(arguments.begin(), "bench");
  arguments.insert(arguments.end(), more.begin(), more.end());
  return run_millrace(arguments);
}

BenchProcess::BenchProcess(std::vector<std::string> arguments, int stderr_fd, const std::string& terminal) {
  arguments.insert(arguments.begin(), {MILLRACE_BINARY, "bench"});
  std::vector<char*> argv;
  for (std::string& word : arguments) argv.push_back(word.data());
  argv.push_back(nullptr);
  const int out = ::open(folder_.file("out").c_str(), O_WRONLY | O_CREAT, 0600);
  pid_ = ::fork();
  if (pid_ == 0) {
    ::dup2(out, STDOUT_FILENO);
    ::dup2(stderr_fd < 0 ? out : stderr_fd, STDERR_FILENO);
    ::setenv("TERM", terminal.c_str(), 1);
    ::unsetenv("NO_COLOR");
    ::execv(argv[0], argv.data());
    ::_exit(127);
  }
  ::close(out);
}

BenchProcess::~BenchProcess() {
  if (pid_ > 0) signal(SIGKILL), wait();
}

void BenchProcess::signal(int number) const { ::kill(pid_, number); }

int BenchProcess::wait() {
  int status = 0;
  ::waitpid(std::exchange(pid_, -1), &status, 0);
  return status;
}

bool BenchProcess::ended(int& status) {
  if (::waitpid(pid_, &status, WNOHANG) != pid_) return false;
  pid_ = -1;
  return true;
}

std::string BenchProcess::output() const { return *read_file(folder_.file("out")); }

bool comes_true(const std::function<bool()>& condition) {
  for (int i = 0; i < 3000; ++i, std::this_thread::sleep_for(std::chrono::milliseconds(10)))
    if (condition()) return true;
  return false;
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
