#include "report/live_page.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>

#include "report/text.h"

namespace millrace::report {
namespace {

struct Size {
  int columns = 80, rows = 24;
};
Size terminal_size(std::FILE* out) {
  winsize found{};
  if (::ioctl(::fileno(out), TIOCGWINSZ, &found) != 0 || found.ws_col == 0 || found.ws_row == 0) return {};
  return {found.ws_col, found.ws_row};
}

}  // namespace

LivePage::LivePage(Options options) : options_(std::move(options)), next_(options_.now()) {
  terminal_ = options_.kind == Options::Kind::kTerminal ||
              (options_.kind == Options::Kind::kDetect && ::isatty(::fileno(options_.out)) == 1);
  if (!terminal_) next_ += options_.plain_every;
}

void LivePage::update(const std::function<LiveView()>& view) {
  const Clock::time_point now = options_.now();
  if (now < next_) return;
  next_ = now + (terminal_ ? options_.redraw_every : options_.plain_every);
  draw(view());
}

void LivePage::finish(const std::function<LiveView()>& view) {
  draw(view());
  drawn_.clear();
}

void LivePage::print_above(const std::string& text) {
  const std::vector<std::string> page = drawn_;
  clear();
  fmt::print(options_.out, "{}\n", text);
  for (const std::string& line : page) fmt::print(options_.out, "{}\n", line);
  drawn_ = page;
  std::fflush(options_.out);
}

void LivePage::draw(const LiveView& view) {
  if (!terminal_) {
    fmt::print(options_.out, "{}\n", printable(view.plain));
  } else {
    std::vector<std::string> page = fitting(view);
    clear();
    for (const std::string& line : page) fmt::print(options_.out, "{}\n", line);
    drawn_ = std::move(page);
  }
  std::fflush(options_.out);
}

// Up to the page's first line, and everything below it erased.
void LivePage::clear() {
  if (!drawn_.empty()) fmt::print(options_.out, "\x1b[{}A\r\x1b[J", drawn_.size());
  drawn_.clear();
}

std::vector<std::string> LivePage::fitting(const LiveView& view) const {
  const Size found = terminal_size(options_.out);
  const int columns = options_.columns > 0 ? options_.columns : found.columns;
  const int rows = options_.rows > 0 ? options_.rows : found.rows;
  const size_t lines = std::min(view.lines.size(), static_cast<size_t>(std::max(1, rows - 1)));
  std::vector<std::string> page;
  for (size_t i = 0; i < lines; ++i) page.push_back(cut_to_width(printable(view.lines[i]), columns - 1));
  return page;
}

}  // namespace millrace::report
