// A load while it runs: the page on a terminal, and what an interrupt leaves behind.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <csignal>
#include <future>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/json.h"
#include "tests/api/bench_command.h"
#include "tests/bench/terminal.h"

namespace millrace {
namespace {

using testing::HasSubstr;
using testing::Not;

// `millrace bench serving` with short prompts.
std::vector<std::string> serving(const MockLlm& server, const std::vector<std::string>& more) {
  std::vector<std::string> arguments = {
      "serving", "--host", "127.0.0.1", "--port", port_of(server), "--random-input-len", "8"};
  arguments.insert(arguments.end(), more.begin(), more.end());
  return arguments;
}

TEST(BenchRun, AnInterruptWritesWhatWasMeasured) {
  for (const int number : {SIGINT, SIGTERM}) {
    const MockLlm server({.ttft_ms = 30, .gap_ms = 5});
    const TemporaryDirectory folder;
    BenchProcess run(serving(
        server, {"--random-output-len", "4", "--num-prompts", "5000", "--request-rate", "50", "--benchmark-csv",
                 folder.file("r.csv"), "--output-json", folder.file("r.json"), "--output-html", folder.file("r.html"),
                 "--save-result", "--result-dir", folder.path(), "--result-filename", "vllm.json"}));
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
  BenchProcess run(
      serving(server, {"--random-output-len", "8", "--num-prompts", "5", "--output-json", folder.file("r.json")}));
  ASSERT_TRUE(comes_true([&] { return server.requests() >= 5; })) << run.output();
  const auto before = std::chrono::steady_clock::now();
  run.signal(SIGINT);
  EXPECT_EQ(WEXITSTATUS(run.wait()), 128 + SIGINT) << run.output();
  EXPECT_LT(std::chrono::steady_clock::now() - before, std::chrono::seconds(30));
  EXPECT_EQ((*read_json_file(folder.file("r.json")))["points"][0]["figures"]["completed"], 0);
}

// The server does not answer the question for its counters that follows the load.
TEST(BenchRun, OnlyASecondInterruptASecondLaterEndsTheProgram) {
  std::promise<void> released;
  const MockLlm server({.metrics = [&, wait = released.get_future().share()](int begun, int) {
    if (begun > 10) wait.wait();
    return std::string();
  }});
  BenchProcess run(serving(server, {"--random-output-len", "4", "--num-prompts", "5000", "--request-rate", "50"}));
  EXPECT_TRUE(comes_true([&] { return server.requests() > 20; })) << run.output();
  const auto before = std::chrono::steady_clock::now();
  int status = 0;
  EXPECT_TRUE(comes_true([&] {
    run.signal(SIGINT);
    return run.ended(status);
  }));
  EXPECT_TRUE(WIFSIGNALED(status)) << run.output();
  EXPECT_GE(std::chrono::steady_clock::now() - before, std::chrono::seconds(1));
  released.set_value();
}

TEST(BenchRun, ATerminalShowsAPageThatIsGoneInTheEnd) {
  const MockLlm server({.ttft_ms = 100, .gap_ms = 20});
  PseudoTerminal terminal(150, 30);
  BenchProcess run(serving(server, {"--random-output-len", "10", "--num-prompts", "60", "--request-rate", "30"}),
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
  BenchProcess run(serving(server, {"--random-output-len", "4", "--num-prompts", "60", "--request-rate", "10"}),
                   terminal.program_fd(), "dumb");
  const int status = run.wait();
  EXPECT_EQ(WEXITSTATUS(status), 0);
  const std::string bytes = terminal.read_all();
  EXPECT_THAT(bytes, Not(HasSubstr("\x1b")));
  EXPECT_THAT(bytes, HasSubstr("of 60 requests"));
}

}  // namespace
}  // namespace millrace
