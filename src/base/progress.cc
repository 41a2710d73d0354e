#include "base/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "base/text.h"

namespace millrace {

Progress::Progress(std::string title, int64_t total, std::string unit)
    : title_(std::move(title)),
      unit_(std::move(unit)),
      total_(total),
      next_print_(start_ + std::chrono::seconds(1)),
      terminal_(::isatty(STDERR_FILENO) == 1) {}

Progress::~Progress() {
  if (!printed_) return;
  if (terminal_) std::fputc('\n', stderr);
}

void Progress::advance(int64_t by) {
  done_ += by;
  const Clock::time_point now = Clock::now();
  if (now < next_print_ && !(printed_ && done_ >= total_)) return;
  next_print_ = now + (terminal_ ? std::chrono::milliseconds(200) : std::chrono::milliseconds(5000));
  print();
}

void Progress::print() {
  printed_ = true;
  const double seconds = std::chrono::duration<double>(Clock::now() - start_).count();
  const double share = total_ > 0 ? std::min(1.0, static_cast<double>(done_) / static_cast<double>(total_)) : 0;
  const bool bytes = unit_ == "bytes";
  const std::string done = bytes ? format_bytes(done_) : format_count(done_);
  const std::string total = bytes ? format_bytes(total_) : format_count(total_) + " " + unit_;
  fmt::print(stderr, "{}{}: {:3.0f}% ({} of {}), {:.0f} s{}", terminal_ ? "\r\033[K" : "", title_, 100 * share, done,
             total, seconds, terminal_ ? "" : "\n");
  std::fflush(stderr);
}

}  // namespace millrace
