#include "tests/bench/terminal.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdlib>

namespace millrace {

std::vector<std::string>& Screen::grown() {
  if (lines_.size() <= row_) lines_.resize(row_ + 1);
  if (lines_[row_].size() < column_) lines_[row_].resize(column_, ' ');
  return lines_;
}

void Screen::escape(char end, int number) {
  if (end == 'A') {
    row_ -= std::min(row_, static_cast<size_t>(number));
  } else if (end == 'K') {
    grown()[row_].resize(column_);
  } else if (end == 'J') {
    grown()[row_].resize(column_);
    lines_.resize(row_ + 1);
  } else if (end != 'm') {
    unknown_ = true;
  }
}

void Screen::feed(const std::string& bytes) {
  for (char c : bytes) {
    if ((c & 0xC0) == 0x80) continue;  // the rest of a character
    if ((c & 0x80) != 0) c = '#';
    if (!pending_.empty()) {
      pending_ += c;
      if (pending_.size() > 2 && std::isalpha(static_cast<unsigned char>(c))) {
        escape(c, std::max(1, std::atoi(pending_.c_str() + 2)));
        pending_.clear();
      }
    } else if (c == '\x1b') {
      pending_ = c;
    } else if (c == '\n') {
      ++row_;
      grown();
    } else if (c == '\r') {
      column_ = 0;
    } else {
      if (column_ == columns_) ++row_, column_ = 0;
      grown();
      if (column_ < lines_[row_].size())
        lines_[row_][column_] = c;
      else
        lines_[row_] += c;
      ++column_;
    }
  }
}

PseudoTerminal::PseudoTerminal(int columns, int rows) : master_(::posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK)) {
  ::grantpt(master_);
  ::unlockpt(master_);
  path_ = ::ptsname(master_);
  slave_ = ::open(path_.c_str(), O_RDWR | O_NOCTTY);
  resize(columns, rows);
}
PseudoTerminal::~PseudoTerminal() { ::close(slave_), ::close(master_); }

void PseudoTerminal::resize(int columns, int rows) {
  winsize size{.ws_row = static_cast<unsigned short>(rows), .ws_col = static_cast<unsigned short>(columns)};
  ::ioctl(slave_, TIOCSWINSZ, &size);
}

std::string PseudoTerminal::read_all() {
  std::string all;
  char bytes[4096];
  for (ssize_t n; (n = ::read(master_, bytes, sizeof bytes)) > 0;) all.append(bytes, static_cast<size_t>(n));
  return all;
}

}  // namespace millrace
