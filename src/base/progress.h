// Progress on stderr for work longer than a second: a redrawn line on a terminal, a plain line every five seconds
// elsewhere. Nothing is printed for work that ends within a second. One thread at a time.
#pragma once
#include <chrono>
#include <cstdint>
#include <string>

namespace millrace {

class Progress {
 public:
  // `total` in `unit`s ("tensors", "bytes", "requests").
  Progress(std::string title, int64_t total, std::string unit);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  void advance(int64_t by = 1);

 private:
  using Clock = std::chrono::steady_clock;
  void print();
  std::string title_, unit_;
  int64_t total_, done_ = 0;
  Clock::time_point start_ = Clock::now(), next_print_;
  bool terminal_, printed_ = false;
};

}  // namespace millrace
