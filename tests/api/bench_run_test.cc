// A load while it runs: the page on a terminal, and what an interrupt leaves behind.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/file.h"
#include "base/json.h"
#include "tests/bench/mock_llm.h"
#include "tests/bench/terminal.h"

namespace millrace {
namespace {

using testing::HasSubstr;
using testing::Not;

// `millrace bench serving` of its own; stdout goes into a file, stderr too unless `stderr_fd` is given.
class Session {
 public:
  Session(const MockLlm& server, const std::vector<std::string>& arguments, int stderr_fd = -1,
          const std::string& terminal = "xterm") {
    std::vector<std::string> words = {
        MILLRACE_BINARY,      "bench", "serving", "--host", "127.0.0.1", "--port", std::to_string(server.port()),
        "--random-input-len", "8"};
    words.insert(words.end(), arguments.begin(), arguments.end());
    std::vector<char*> argv;
    for (std::string& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    const int out = ::open(folder_.file("out").c_str(), O_WRONLY | O_CREAT, 0600);
    pid_ = ::fork();
    if (pid_ == 0) {
      ::dup2(out, STDOUT_FILENO);
      ::dup2(stderr_fd < 0 ? out : stderr_fd, STDERR_FILENO);
      ::setenv("TERM", terminal.c_str(), 1);
      ::unsetenv("NO_COLOR");
      ::execv(MILLRACE_BINARY, argv.data());
      ::_exit(127);
    }
    ::close(out);
  }
  ~Session() {
    if (pid_ > 0) ::kill(pid_, SIGKILL), wait();
  }
  void signal(int number) const { ::kill(pid_, number); }
  int wait() {  // the status as waitpid() has it
    int status = 0;
    ::waitpid(pid_, &status, 0);
    pid_ = -1;
    return status;
  }
  std::string output() const { return *read_file(folder_.file("out")); }

 private:
  TemporaryDirectory folder_;
  pid_t pid_ = -1;
};

bool comes_true(const std::function<bool()>& condition) {
  for (int i = 0; i < 3000 && !condition(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  return condition();
}

TEST(BenchRun, AnInterruptWritesWhatWasMeasured) {
  for (const int number : {SIGINT, SIGTERM}) {
    const MockLlm server({.ttft_ms = 30, .gap_ms = 5});
    const TemporaryDirectory folder;
    Session run(server,
                {"--random-output-len", "4", "--num-prompts", "5000", "--request-rate", "50", "--benchmark-csv",
                 folder.file("r.csv"), "--output-json", folder.file("r.json"), "--output-html", folder.file("r.html"),
                 "--save-result", "--result-dir", folder.path(), "--result-filename", "vllm.json"});
    ASSERT_TRUE(comes_true([&] { return server.requests() > 30; })) << run.output();
    run.signal(number);
    const int status = run.wait();
    EXPECT_TRUE(WIFEXITED(status));
    EXPECT_EQ(WEXITSTATUS(status), 128 + number) << run.output();
    EXPECT_THAT(run.output(), HasSubstr("interrupted after"));
    const Json point = (*read_json_file(folder.file("r.json")))["points"][0];
    EXPECT_TRUE(point["config"]["interrupted"].get<bool>());
    EXPECT_GE(point["figures"]["completed"], 10);
    EXPECT_LT(point["figures"]["issued"], 5000);
    EXPECT_THAT(*read_file(folder.file("r.html")), HasSubstr("interrupted after"));
    EXPECT_TRUE((*read_json_file(folder.file("vllm.json")))["interrupted"].get<bool>());
    EXPECT_TRUE(file_exists(folder.file("r.csv")));
  }
}

TEST(BenchRun, AnInterruptDoesNotWaitForAnswers) {
  const MockLlm server({.stall_at_event = 6, .stall_ms = 600'000});
  const TemporaryDirectory folder;
  Session run(server, {"--random-output-len", "8", "--num-prompts", "5", "--output-json", folder.file("r.json")});
  ASSERT_TRUE(comes_true([&] { return server.requests() >= 5; })) << run.output();
  const auto before = std::chrono::steady_clock::now();
  run.signal(SIGINT);
  EXPECT_EQ(WEXITSTATUS(run.wait()), 128 + SIGINT) << run.output();
  EXPECT_LT(std::chrono::steady_clock::now() - before, std::chrono::seconds(30));
  EXPECT_EQ((*read_json_file(folder.file("r.json")))["points"][0]["figures"]["completed"], 0);
}

TEST(BenchRun, ATerminalShowsAPageThatIsGoneInTheEnd) {
  const MockLlm server({.ttft_ms = 100, .gap_ms = 20});
  PseudoTerminal terminal(150, 30);
  Session run(server, {"--random-output-len", "10", "--num-prompts", "60", "--request-rate", "30"},
              terminal.program_fd());
  Screen screen(150);
  std::string bytes;
  const auto shows = [&](const char* text) {
    const std::string more = terminal.read_all();
    screen.feed(more);
    bytes += more;
    std::string all;
    for (const std::string& line : screen.lines()) all += line + "\n";
    return all.find(text) != std::string::npos;
  };
  EXPECT_TRUE(comes_true([&] { return shows("in flight"); })) << bytes;
  EXPECT_TRUE(comes_true([&] { return shows("TPOT   p50"); })) << bytes;
  const int status = run.wait();
  EXPECT_EQ(WEXITSTATUS(status), 0);
  EXPECT_FALSE(shows("in flight"));
  EXPECT_FALSE(screen.unknown_sequence());
  EXPECT_THAT(run.output(), HasSubstr("Serving Benchmark Result"));
  EXPECT_THAT(run.output(), Not(HasSubstr("\x1b[")));
}

TEST(BenchRun, ADumbTerminalSeesNoControlSequences) {
  const MockLlm server({.ttft_ms = 100, .gap_ms = 20});
  PseudoTerminal terminal(80, 24);
  Session run(server, {"--random-output-len", "4", "--num-prompts", "60", "--request-rate", "10"},
              terminal.program_fd(), "dumb");
  const int status = run.wait();
  EXPECT_EQ(WEXITSTATUS(status), 0);
  const std::string bytes = terminal.read_all();
  EXPECT_THAT(bytes, Not(HasSubstr("\x1b")));
  EXPECT_THAT(bytes, HasSubstr("of 60 requests"));
}

}  // namespace
}  // namespace millrace
