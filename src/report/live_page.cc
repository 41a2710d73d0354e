#include "report/live_page.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <string_view>

#include "report/text.h"

namespace millrace::report {
namespace {

std::string_view environment(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr ? value : "";
}

}  // namespace

LivePage::LivePage(Options options)
    : options_(std::move(options)), coloured_(environment("NO_COLOR").empty()), next_(options_.now()) {
  terminal_ = options_.kind == Options::Kind::kTerminal ||
              (options_.kind == Options::Kind::kDetect && ::isatty(::fileno(options_.out)) == 1 &&
               environment("TERM") != "dumb");
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

void LivePage::remove() {
  if (!drawn_.empty()) write(to_top() + "\x1b[J");
  drawn_.clear();
}

void LivePage::print_above(const std::string& text) {
  if (drawn_.empty()) return write(text + "\n");
  const std::string up = to_top();
  write(up + text + "\x1b[K\n" + page());
}

void LivePage::draw(const LiveView& view) {
  if (!terminal_) return write(printable(view.plain) + "\n");
  const std::string up = to_top();
  drawn_ = fitting(view);
  write(up + page());
}

// One call, so that the terminal never shows half a page.
void LivePage::write(const std::string& bytes) {
  std::fwrite(bytes.data(), 1, bytes.size(), options_.out);
  std::fflush(options_.out);
}

// To the page's first line. A window made narrower since has broken lines in two.
std::string LivePage::to_top() const {
  if (drawn_.empty()) return "";
  const int columns = std::max(1, size().columns);
  int rows = 0;
  for (const Line& line : drawn_) rows += std::max(1, (display_width(line.text) + columns - 1) / columns);
  return fmt::format("\x1b[{}A\r", rows);
}

// Each line erases what is behind it, the last what is below.
std::string LivePage::page() const {
  std::string out;
  for (const Line& line : drawn_)
    out += line.warning && coloured_ ? fmt::format("\x1b[1;33m{}\x1b[0m\x1b[K\n", line.text) : line.text + "\x1b[K\n";
  return out + "\x1b[J";
}

LivePage::Size LivePage::size() const {
  winsize found{};
  Size size;
  if (::ioctl(::fileno(options_.out), TIOCGWINSZ, &found) == 0 && found.ws_col > 0 && found.ws_row > 0)
    size = {found.ws_col, found.ws_row};
  return {options_.columns > 0 ? options_.columns : size.columns, options_.rows > 0 ? options_.rows : size.rows};
}

std::vector<LivePage::Line> LivePage::fitting(const LiveView& view) const {
  const auto [columns, rows] = size();
  const size_t count = std::min(view.lines.size(), static_cast<size_t>(std::max(1, rows - 1)));
  std::vector<Line> lines;
  for (size_t i = 0; i < count; ++i)
    lines.push_back(
        {cut_to_width(printable(view.lines[i]), std::max(1, columns - 1)), i + view.warnings >= view.lines.size()});
  return lines;
}

}  // namespace millrace::report
