#include "engine/local/apart.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <new>

namespace millrace {
namespace {

constexpr int kPollMs = 100;
constexpr const char* kInterrupted = "interrupted";

int64_t thread_count() {
  std::error_code error;
  int64_t count = 0;
  for (std::filesystem::directory_iterator it("/proc/self/task", error), end; !error && it != end; it.increment(error))
    ++count;
  return count;
}

// In the child -------------------------------------------------------------------------------------------------------

void be_first_to_go() {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  signal(SIGINT, SIG_DFL);
  if (std::FILE* file = std::fopen("/proc/self/oom_score_adj", "w")) {
    std::fputs("1000", file);
    std::fclose(file);
  }
}

Result<std::string> guarded(const std::function<Result<std::string>()>& work) {
  try {
    return work();
  } catch (const std::bad_alloc&) {
    return resource_exhausted("memory ran out");
  } catch (const std::exception& e) {
    return internal_error("{}", e.what());
  }
}

void write_all(int pipe, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t written = write(pipe, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return;
    bytes.remove_prefix(static_cast<size_t>(written));
  }
}

// The first byte is the code; the rest is the value or the message.
[[noreturn]] void answer_and_end(int pipe, const std::function<Result<std::string>()>& work) {
  be_first_to_go();
  const Result<std::string> result = guarded(work);
  std::string answer(1, static_cast<char>(result.status().code()));
  answer += result.ok() ? *result : result.status().message();
  write_all(pipe, answer);
  std::fflush(nullptr);
  _exit(0);
}

// In the parent ------------------------------------------------------------------------------------------------------

Status reason_to_stop(const ApartOptions& options) {
  if (options.cancelled && *options.cancelled) return Status(Code::kCancelled, kInterrupted);
  if (std::chrono::steady_clock::now() >= options.deadline) return unavailable("the time limit is reached");
  return {};
}

// Reads until the child closes its end; not ok when it must be stopped before.
Status read_answer(int pipe, const ApartOptions& options, std::string& answer) {
  for (char buffer[4096];;) {
    MR_RETURN_IF_ERROR(reason_to_stop(options));
    pollfd waiting{.fd = pipe, .events = POLLIN, .revents = 0};
    if (poll(&waiting, 1, kPollMs) <= 0) continue;
    const ssize_t got = read(pipe, buffer, sizeof buffer);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return {};
    answer.append(buffer, static_cast<size_t>(got));
  }
}

int wait_for(pid_t child) {
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return status;
}

Result<std::string> meaning(const std::string& answer, int status) {
  if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
    return resource_exhausted("the kernel ended the process: memory ran out");
  if (WIFSIGNALED(status) && WTERMSIG(status) == SIGINT) return Status(Code::kCancelled, kInterrupted);
  if (WIFSIGNALED(status)) return internal_error("the process died of {}", strsignal(WTERMSIG(status)));
  if (answer.empty()) return internal_error("the process ended without an answer");
  const auto code = static_cast<Code>(answer[0]);
  if (code == Code::kOk) return answer.substr(1);
  return Status(code, answer.substr(1));
}

}  // namespace

Result<std::string> run_apart(const std::function<Result<std::string>()>& work, const ApartOptions& options) {
  if (const int64_t threads = thread_count(); threads != 1)
    return failed_precondition("this process has {} threads; only one with a single thread may fork", threads);
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return internal_error("no pipe: {}", std::strerror(errno));
  std::fflush(nullptr);
  const pid_t child = fork();
  if (child < 0) {
    close(ends[0]), close(ends[1]);
    return resource_exhausted("no process: {}", std::strerror(errno));
  }
  if (child == 0) answer_and_end(ends[1], work);
  close(ends[1]);
  std::string answer;
  const Status stopped = read_answer(ends[0], options, answer);
  close(ends[0]);
  if (!stopped.ok()) kill(child, SIGKILL);
  const int status = wait_for(child);
  if (!stopped.ok()) return stopped;
  return meaning(answer, status);
}

}  // namespace millrace
