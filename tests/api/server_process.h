// A `millrace serve` of its own for a test: started on a free port, killed with the object.
#pragma once
#include <sys/types.h>

#include <chrono>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "net/http_client.h"

namespace millrace {

class ServerProcess {
 public:
  // Runs `millrace serve --host 127.0.0.1 --port 0 <arguments>` with `environment` ("NAME=value") added, and waits
  // until it listens. The error holds what the process said before it ended.
  static Result<std::unique_ptr<ServerProcess>> start(const std::vector<std::string>& arguments,
                                                      const std::vector<std::string>& environment = {});
  ~ServerProcess();
  ServerProcess(const ServerProcess&) = delete;
  ServerProcess& operator=(const ServerProcess&) = delete;

  int port() const { return port_; }
  pid_t pid() const { return pid_; }
  HttpClient& client() { return client_; }
  // The answer's JSON; an error when the status is not `want`.
  Result<Json> post(const std::string& target, const Json& body, int want = 200);
  Result<Json> get(const std::string& target, int want = 200);
  // Sends the signal and waits for the end; returns the exit code, or 128 + the signal that killed it.
  int stop(int signal, std::chrono::milliseconds patience = std::chrono::seconds(30));
  std::string log() const;  // what it wrote so far
  int64_t resident_bytes() const;
  int open_descriptors() const;
  int threads() const;

 private:
  ServerProcess(pid_t pid, std::string log_path) : pid_(pid), log_path_(std::move(log_path)) {}
  Result<Json> checked(Result<HttpResponse> response, const std::string& target, int want);
  pid_t pid_;
  std::string log_path_;
  int port_ = 0;
  HttpClient client_;
};

// Runs the `millrace` binary to its end; stdout and stderr together.
struct CommandResult {
  int exit_code = 0;
  std::string output;
};
CommandResult run_millrace(const std::vector<std::string>& arguments, const std::vector<std::string>& environment = {},
                           const std::string& standard_input = "");

}  // namespace millrace
