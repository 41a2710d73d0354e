// A page in the terminal that is redrawn in place while something runs; where the output is no terminal, a plain line
// every few seconds instead. One thread.
#pragma once
#include <chrono>
#include <cstdio>
#include <functional>
#include <string>
#include <vector>

namespace millrace::report {

struct LiveView {
  std::vector<std::string> lines;  // the page, top to bottom; cut to the terminal's width and height
  std::string plain;               // the same in one line, for logs
};

class LivePage {
 public:
  using Clock = std::chrono::steady_clock;
  struct Options {
    std::FILE* out = stderr;  // borrowed for the page's life
    enum class Kind { kDetect, kTerminal, kPlain } kind = Kind::kDetect;
    int columns = 0, rows = 0;  // of the terminal; 0 asks it
    std::chrono::milliseconds redraw_every{200}, plain_every{5000};
    std::function<Clock::time_point()> now = Clock::now;
  };
  LivePage() : LivePage(Options{}) {}
  explicit LivePage(Options options);

  // Asks for the view and shows it when it is time; otherwise returns at once without asking.
  void update(const std::function<LiveView()>& view);
  // Shows the last view, whatever the time; what is printed next follows below it.
  void finish(const std::function<LiveView()>& view);
  // Prints lines that stay, above the page.
  void print_above(const std::string& text);

 private:
  void draw(const LiveView& view);
  void clear();
  std::vector<std::string> fitting(const LiveView& view) const;
  Options options_;
  bool terminal_;
  Clock::time_point next_;
  std::vector<std::string> drawn_;
};

}  // namespace millrace::report
