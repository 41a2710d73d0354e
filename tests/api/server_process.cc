#include "tests/api/server_process.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/check.h"
#include "base/file.h"

namespace millrace {
namespace {

std::string fresh_log_path() {
  static std::atomic<int> count{0};
  return (std::filesystem::temp_directory_path() / fmt::format("millrace-test-{}-{}.log", ::getpid(), count++))
      .string();
}

// Starts the binary with stdout and stderr in `log_path` and stdin from `input_path`.
pid_t spawn(const std::vector<std::string>& arguments, const std::vector<std::string>& environment,
            const std::string& log_path, const std::string& input_path) {
  std::vector<char*> argv = {const_cast<char*>(MILLRACE_BINARY)};
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  const pid_t pid = ::fork();
  MR_CHECK(pid >= 0, "fork failed");
  if (pid > 0) return pid;
  const int log = ::open(log_path.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
  const int input = ::open(input_path.c_str(), O_RDONLY);
  ::dup2(input, 0), ::dup2(log, 1), ::dup2(log, 2);
  for (const std::string& variable : environment) ::putenv(const_cast<char*>(variable.c_str()));
  ::execv(argv[0], argv.data());
  ::_exit(127);
}

// The exit code, or 128 + signal; -1 while it runs.
int reap(pid_t pid, int flags) {
  int status = 0;
  if (::waitpid(pid, &status, flags) != pid) return -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int port_in(const std::string& log) {
  const std::string mark = "Listening on http://127.0.0.1:";
  const size_t at = log.find(mark);
  if (at == std::string::npos || log.find('\n', at) == std::string::npos) return 0;
  return std::atoi(log.c_str() + at + mark.size());
}

int entries_of(const std::string& folder) {
  int count = 0;
  std::error_code ignored;
  for (std::filesystem::directory_iterator it(folder, ignored), end; it != end; it.increment(ignored)) ++count;
  return count;
}

}  // namespace

Result<std::unique_ptr<ServerProcess>> ServerProcess::start(const std::vector<std::string>& arguments,
                                                            const std::vector<std::string>& environment) {
  std::vector<std::string> all = {"serve", "--host", "127.0.0.1", "--port", "0"};
  all.insert(all.end(), arguments.begin(), arguments.end());
  const std::string log_path = fresh_log_path();
  std::unique_ptr<ServerProcess> server(new ServerProcess(spawn(all, environment, log_path, "/dev/null"), log_path));
  for (int waited_ms = 0; waited_ms < 120'000; waited_ms += 10) {
    server->port_ = port_in(server->log());
    if (server->port_ > 0) return server;
    if (const int code = reap(server->pid_, WNOHANG); code >= 0) {
      server->pid_ = -1;
      return internal_error("millrace serve ended with code {}: {}", code, server->log());
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return internal_error("millrace serve did not listen within 120 s: {}", server->log());
}

ServerProcess::~ServerProcess() {
  if (pid_ > 0) stop(SIGKILL);
  std::filesystem::remove(log_path_);
}

int ServerProcess::stop(int signal, std::chrono::milliseconds patience) {
  ::kill(pid_, signal);
  int code = -1;
  for (auto waited = std::chrono::milliseconds(0); waited < patience && code < 0;
       waited += std::chrono::milliseconds(5)) {
    code = reap(pid_, WNOHANG);
    if (code < 0) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  if (code < 0) {
    ::kill(pid_, SIGKILL);
    code = reap(pid_, 0);
  }
  pid_ = -1;
  return code;
}

std::string ServerProcess::log() const {
  Result<std::string> text = read_file(log_path_);
  return text.ok() ? *text : "";
}

Result<Json> ServerProcess::checked(Result<HttpResponse> response, const std::string& target, int want) {
  if (!response.ok()) return response.status().at(target);
  if (response->status != want) return internal_error("{}: status {}: {}", target, response->status, response->body);
  return parse_json(response->body);
}
Result<Json> ServerProcess::post(const std::string& target, const Json& body, int want) {
  return checked(client_.post_json("127.0.0.1", port_, target, dump_json(body)), target, want);
}
Result<Json> ServerProcess::get(const std::string& target, int want) {
  return checked(client_.get("127.0.0.1", port_, target), target, want);
}

int64_t ServerProcess::resident_bytes() const {
  std::ifstream file(fmt::format("/proc/{}/status", pid_));
  for (std::string line; std::getline(file, line);)
    if (line.starts_with("VmRSS:")) return std::atoll(line.c_str() + 6) * 1024;
  return 0;
}
int ServerProcess::open_descriptors() const { return entries_of(fmt::format("/proc/{}/fd", pid_)); }
int ServerProcess::threads() const { return entries_of(fmt::format("/proc/{}/task", pid_)); }

CommandResult run_millrace(const std::vector<std::string>& arguments, const std::vector<std::string>& environment,
                           const std::string& standard_input) {
  const TemporaryDirectory folder;
  MR_CHECK(write_file(folder.file("in"), standard_input).ok());
  CommandResult result;
  result.exit_code = reap(spawn(arguments, environment, folder.file("out"), folder.file("in")), 0);
  result.output = *read_file(folder.file("out"));
  return result;
}

}  // namespace millrace
