// A page in the terminal that is redrawn in place while something runs; where the output is no terminal, or one that
// cannot move its cursor (TERM=dumb), a plain line every few seconds instead. One thread.
// A page is written at once and line over line, so that it does not flicker, and fits the window's size at that moment.
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
  size_t warnings = 0;             // so many lines at the end stand out, where NO_COLOR is not set
};

class LivePage {
 public:
  using Clock = std::chrono::steady_clock;
  struct Options {
    std::FILE* out = stderr;  // borrowed for the page's life
    enum class Kind { kDetect, kTerminal, kPlain } kind = Kind::kDetect;
    int columns = 0, rows = 0;  // of the terminal; 0 asks it each time
    std::chrono::milliseconds redraw_every{200}, plain_every{5000};
    std::function<Clock::time_point()> now = Clock::now;
  };
  LivePage() : LivePage(Options{}) {}
  explicit LivePage(Options options);

  // Asks for the view and shows it when it is time; otherwise returns at once without asking.
  void update(const std::function<LiveView()>& view);
  // Shows the last view, whatever the time; what is printed next follows below it.
  void finish(const std::function<LiveView()>& view);
  // Takes the page away, or leaves the plain lines as they are.
  void remove();
  // Prints lines that stay, above the page.
  void print_above(const std::string& text);
  bool on_terminal() const { return terminal_; }

 private:
  struct Line {
    std::string text;
    bool warning = false;
  };
  struct Size {
    int columns = 80, rows = 24;
  };
  void draw(const LiveView& view);
  void write(const std::string& bytes);
  std::string to_top() const;
  std::string page() const;
  std::vector<Line> fitting(const LiveView& view) const;
  Size size() const;
  Options options_;
  bool terminal_, coloured_;
  Clock::time_point next_;
  std::vector<Line> drawn_;
};

}  // namespace millrace::report
