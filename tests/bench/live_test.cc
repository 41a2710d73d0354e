#include "bench/live.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/bench/terminal.h"

namespace millrace::bench {
namespace {

using testing::Contains;
using testing::HasSubstr;
using testing::Not;

TEST(LiveHistogram, PercentilesAreWithinTheWidthOfACell) {
  LiveHistogram a, b;
  for (int i = 1; i <= 500; ++i) a.add(i), b.add(500 + i);
  std::vector<int64_t> cells;
  EXPECT_EQ(LiveHistogram::percentile(cells, 50), 0);
  a.sum_into(cells), b.sum_into(cells);
  for (const double percent : {1.0, 50.0, 90.0, 99.0})
    EXPECT_NEAR(LiveHistogram::percentile(cells, percent), 10 * percent, 0.3 * percent);
  LiveHistogram edges;
  for (const double value : {-1.0, 0.0, 1e-300, 1e300}) edges.add(value);
  std::vector<int64_t> four;
  edges.sum_into(four);
  EXPECT_EQ(four.front(), 3);
  EXPECT_EQ(four.back(), 1);
}

LiveFigures half_done() {
  LiveFigures f{.planned = 200, .issued = 112, .ended = 100, .elapsed_s = 50};
  f.ttft_ms = {.count = 100, .p50 = 120, .p90 = 240, .p99 = 400};
  f.tokens = 5000;
  return f;
}

TEST(LiveView, SaysHowFarTheRunIsAndHowLongItTakes) {
  const report::LiveView view = live_view("serving: 2 requests/s", half_done(), 123);
  EXPECT_THAT(view.plain, HasSubstr("50 % of 200 requests, 12 in flight, 100 done, 0 failed, 00:50, about 00:50 left"));
  EXPECT_THAT(view.plain, HasSubstr("TTFT p50 120.0 p90 240.0 ms"));
  EXPECT_THAT(view.lines, Contains(HasSubstr("output 123.0 tokens/s now, 100.0 over the run; 2.000 requests/s")));
  EXPECT_EQ(view.warnings, 0u);
}

TEST(LiveView, AScheduleLastsAtLeastAsLongAsItIs) {
  LiveFigures f = half_done();
  f.last_due_s = 170;
  EXPECT_THAT(live_view("x", f, 0).plain, HasSubstr("about 02:00 left"));
  f.ended = 0, f.elapsed_s = 10;
  EXPECT_THAT(live_view("x", f, 0).plain, HasSubstr("about 02:40 left"));
  f.last_due_s = 5;  // all were sent, none has ended
  EXPECT_THAT(live_view("x", f, 0).plain, Not(HasSubstr("left")));
}

TEST(LiveView, WarnsOfWhatSpoilsTheFigures) {
  LiveFigures f = half_done();
  f.failed = 20, f.short_outputs = 1, f.open_loop = true, f.cpu_share = 0.6;
  f.lag_ms = {.count = 1000, .p99 = 1.5};
  f.late_ms = {.count = 100, .p99 = 30};
  const report::LiveView view = live_view("x", f, 0);
  EXPECT_EQ(view.warnings, 5u);
  EXPECT_THAT(view.lines, Contains(HasSubstr("event-loop lag p99 1.50 ms, above 1.00 ms: figures INVALID")));
  EXPECT_THAT(view.lines, Contains(HasSubstr("20 of 100 requests failed: figures INVALID")));
  EXPECT_THAT(view.lines, Contains(HasSubstr("busy 60 % of the time: figures doubtful")));
  EXPECT_THAT(view.lines, Contains(HasSubstr("late, p99 30.0 ms: figures doubtful")));
  f.ttft_ms.p50 = 20;
  f.lag_ms.p99 = 0.5;
  EXPECT_THAT(live_view("x", f, 0).lines, Contains(HasSubstr("above 0.40 ms: figures INVALID")));
}

TEST(LiveRun, CountsOfAllLoopsAreOneSum) {
  LiveRun run;
  EXPECT_EQ(run.read().planned, 0);
  run.begin(2, 10, 0);
  std::vector<std::thread> loops;
  for (size_t i = 0; i < 2; ++i)
    loops.emplace_back([&run, i] {
      for (int n = 0; n < 1000; ++n) run.loop(i).tokens.add(2), run.loop(i).itl_ms.add(10);
      run.loop(i).ended.add(3);
    });
  LiveFigures f;
  while (f.ended < 6) f = run.read();
  for (std::thread& loop : loops) loop.join();
  EXPECT_EQ(f.tokens, 4000);
  EXPECT_EQ(f.itl_ms.count, 2000);
  EXPECT_NEAR(f.itl_ms.p50, 10, 0.3);
}

// A page on a pseudo-terminal, drawn at will.
class Terminal : public ::testing::Test {
 protected:
  report::LivePage::Options options() { return {.out = out_, .redraw_every = std::chrono::milliseconds(0)}; }
  void SetUp() override {
    ::setenv("TERM", "xterm", 1);
    ::unsetenv("NO_COLOR");
    std::setvbuf(out_, nullptr, _IONBF, 0);
  }
  void TearDown() override { std::fclose(out_); }
  void show(report::LivePage& page, std::vector<std::string> lines, size_t warnings = 0) {
    page.update([&] { return report::LiveView{std::move(lines), "plain", warnings}; });
  }
  PseudoTerminal terminal_{40, 10};
  std::FILE* out_ = std::fopen(terminal_.path().c_str(), "w");
};

TEST_F(Terminal, APageIsDrawnOverTheLastOne) {
  report::LivePage page(options());
  Screen screen(40);
  show(page, {"a long first line", "second", "third"});
  screen.feed(terminal_.read_all());
  EXPECT_EQ(screen.lines(), (std::vector<std::string>{"a long first line", "second", "third", ""}));
  show(page, {"short", "2nd"});
  screen.feed(terminal_.read_all());
  EXPECT_EQ(screen.lines(), (std::vector<std::string>{"short", "2nd", ""}));
  page.print_above("note");
  screen.feed(terminal_.read_all());
  EXPECT_EQ(screen.lines(), (std::vector<std::string>{"note", "short", "2nd", ""}));
  page.remove();
  screen.feed(terminal_.read_all());
  EXPECT_EQ(screen.lines(), (std::vector<std::string>{"note", ""}));
  EXPECT_FALSE(screen.unknown_sequence());
}

TEST_F(Terminal, NothingIsErasedBeforeItsReplacementIsThere) {
  report::LivePage page(options());
  show(page, {"one", "two"});
  terminal_.read_all();
  show(page, {"one", "two"});
  EXPECT_EQ(terminal_.read_all(), "\x1b[2A\rone\x1b[K\r\ntwo\x1b[K\r\n\x1b[J");
}

TEST_F(Terminal, ThePageFollowsTheWindowsSize) {
  report::LivePage page(options());
  show(page, {std::string(60, 'a'), "b"});
  EXPECT_THAT(terminal_.read_all(), HasSubstr(std::string(38, 'a') + "…"));
  terminal_.resize(20, 3);  // the first line now takes two rows
  show(page, {std::string(60, 'c'), "d", "e"});
  EXPECT_EQ(terminal_.read_all(), "\x1b[3A\r" + std::string(18, 'c') + "…\x1b[K\r\nd\x1b[K\r\n\x1b[J");
}

TEST_F(Terminal, WarningsStandOutUnlessColoursAreUnwanted) {
  report::LivePage coloured(options());
  show(coloured, {"fine", "bad"}, 1);
  EXPECT_EQ(terminal_.read_all(), "fine\x1b[K\r\n\x1b[1;33mbad\x1b[0m\x1b[K\r\n\x1b[J");
  ::setenv("NO_COLOR", "1", 1);
  report::LivePage plain(options());
  show(plain, {"fine", "bad"}, 1);
  EXPECT_EQ(terminal_.read_all(), "fine\x1b[K\r\nbad\x1b[K\r\n\x1b[J");
}

TEST_F(Terminal, ADumbTerminalGetsPlainLines) {
  ::setenv("TERM", "dumb", 1);
  report::LivePage::Options dumb = options();
  dumb.plain_every = std::chrono::milliseconds(0);
  report::LivePage page(std::move(dumb));
  show(page, {"never"});
  page.remove();
  EXPECT_EQ(terminal_.read_all(), "plain\r\n");
}

TEST_F(Terminal, ARunIsShownWhileItLasts) {
  LiveRun run;
  run.begin(1, 10, 0);
  terminal_.resize(120, 10);
  Screen screen(120);
  {
    const LiveDisplay display("title", run, options());
    run.loop(0).ended.add(4);
    for (int i = 0; i < 200 && screen.lines()[0].find("title") != 0; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
      screen.feed(terminal_.read_all());
    }
    EXPECT_THAT(screen.lines()[0], HasSubstr("title   00:00"));
  }
  screen.feed(terminal_.read_all());
  EXPECT_EQ(screen.lines(), std::vector<std::string>{""});
}

}  // namespace
}  // namespace millrace::bench
