#include "engine/local/apart.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <new>
#include <thread>

namespace millrace {
namespace {

using testing::HasSubstr;

TEST(Apart, AnswersAndErrorsComeBackWhole) {
  const std::string large(1 << 20, 'x');
  EXPECT_EQ(*run_apart([&] { return large; }), large);
  EXPECT_EQ(*run_apart([] { return std::string(); }), "");
  const Result<std::string> error = run_apart([]() -> Result<std::string> { return not_found("no such thing"); });
  EXPECT_EQ(error.status().code(), Code::kNotFound);
  EXPECT_EQ(error.status().message(), "no such thing");
}

TEST(Apart, TheChildsMemoryIsNotOurs) {
  int value = 1;
  EXPECT_EQ(*run_apart([&] { return std::to_string(value = 2); }), "2");
  EXPECT_EQ(value, 1);
}

TEST(Apart, ADeathIsToldApartFromAnEnd) {
  const auto of = [](const std::function<Result<std::string>()>& work) { return run_apart(work).status(); };
  const Status killed = of([]() -> Result<std::string> { return raise(SIGKILL), std::string(); });
  EXPECT_EQ(killed.code(), Code::kResourceExhausted);
  EXPECT_THAT(killed.message(), HasSubstr("memory ran out"));
  EXPECT_EQ(of([]() -> Result<std::string> { throw std::bad_alloc(); }).code(), Code::kResourceExhausted);
  EXPECT_EQ(of([]() -> Result<std::string> { return raise(SIGTERM), std::string(); }).code(), Code::kInternal);
  EXPECT_EQ(of([]() -> Result<std::string> { return raise(SIGINT), std::string(); }).code(), Code::kCancelled);
  EXPECT_EQ(of([]() -> Result<std::string> { _exit(0); }).code(), Code::kInternal);
}

TEST(Apart, TheDeadlineAndACancellationEndTheChild) {
  const auto forever = []() -> Result<std::string> {
    for (;;) pause();
  };
  const auto now = std::chrono::steady_clock::now();
  EXPECT_EQ(run_apart(forever, {.deadline = now + std::chrono::milliseconds(50)}).status().code(), Code::kUnavailable);
  const std::atomic<bool> cancelled = true;
  EXPECT_EQ(run_apart(forever, {.cancelled = &cancelled}).status().code(), Code::kCancelled);
}

TEST(Apart, AProcessWithThreadsDoesNotFork) {
  std::atomic<bool> done = false;
  std::thread other([&] {
    while (!done) std::this_thread::yield();
  });
  EXPECT_EQ(run_apart([] { return std::string(); }).status().code(), Code::kFailedPrecondition);
  done = true;
  other.join();
}

}  // namespace
}  // namespace millrace
