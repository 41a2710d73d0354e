#include "report/live_page.h"

#include <gtest/gtest.h>

#include "base/file.h"

namespace millrace::report {
namespace {

using std::chrono::milliseconds;

// A page that writes into a file, under a clock that stands still unless told.
class Fixture : public ::testing::Test {
 protected:
  LivePage::Options options(LivePage::Options::Kind kind) {
    return {.out = out_, .kind = kind, .columns = 21, .rows = 4, .now = [this] { return now_; }};
  }
  std::string written() {
    std::fflush(out_);
    return *read_file(folder_.file("out"));
  }
  void TearDown() override { std::fclose(out_); }
  TemporaryDirectory folder_;
  std::FILE* out_ = std::fopen(folder_.file("out").c_str(), "w");
  LivePage::Clock::time_point now_{};
};

using LivePageOnATerminal = Fixture;
using LivePageInALog = Fixture;

TEST_F(LivePageOnATerminal, EachPageReplacesTheLast) {
  LivePage page(options(LivePage::Options::Kind::kTerminal));
  page.update([] { return LiveView{{"one", "two"}, ""}; });
  now_ += milliseconds(200);
  page.update([] { return LiveView{{"three"}, ""}; });
  page.finish([] { return LiveView{{"four"}, ""}; });
  EXPECT_EQ(written(), "one\x1b[K\ntwo\x1b[K\n\x1b[J\x1b[2A\rthree\x1b[K\n\x1b[J\x1b[1A\rfour\x1b[K\n\x1b[J");
}

TEST_F(LivePageOnATerminal, ViewsAreNotMadeMoreOftenThanShown) {
  LivePage page(options(LivePage::Options::Kind::kTerminal));
  int made = 0;
  for (int i = 0; i < 100; ++i, now_ += milliseconds(10)) page.update([&] { return ++made, LiveView{{"x"}, ""}; });
  EXPECT_EQ(made, 5);
}

TEST_F(LivePageOnATerminal, LinesAreCutToTheTerminal) {
  LivePage page(options(LivePage::Options::Kind::kTerminal));
  page.update([] { return LiveView{{std::string(50, 'a'), "b\x1b[2J", "c", "d", "e"}, ""}; });
  EXPECT_EQ(written(), std::string(19, 'a') + "…\x1b[K\nb\\x1b[2J\x1b[K\nc\x1b[K\n\x1b[J");
}

TEST_F(LivePageOnATerminal, LinesThatStayGoAboveThePage) {
  LivePage page(options(LivePage::Options::Kind::kTerminal));
  page.update([] { return LiveView{{"page"}, ""}; });
  page.print_above("note");
  EXPECT_EQ(written(), "page\x1b[K\n\x1b[J\x1b[1A\rnote\x1b[K\npage\x1b[K\n\x1b[J");
}

TEST_F(LivePageInALog, PlainLinesComeSeldom) {
  LivePage page(options(LivePage::Options::Kind::kPlain));
  int made = 0;
  const auto view = [&] { return LiveView{{"never shown"}, "line " + std::to_string(++made)}; };
  page.update(view);
  for (int i = 0; i < 11; ++i, now_ += milliseconds(1000)) page.update(view);
  page.finish(view);
  EXPECT_EQ(written(), "line 1\nline 2\nline 3\n");
}

}  // namespace
}  // namespace millrace::report
