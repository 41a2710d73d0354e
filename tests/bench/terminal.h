// A terminal for tests: a pseudo-terminal whose other end keeps a screen, as far as the live page needs one.
#pragma once
#include <string>
#include <vector>

namespace millrace {

// What a terminal shows after bytes: text, line feeds, carriage returns, cursor up, erasing, colours (ignored). A
// character beyond ASCII is one '#'.
class Screen {
 public:
  explicit Screen(int columns) : columns_(static_cast<size_t>(columns)) {}
  void feed(const std::string& bytes);
  const std::vector<std::string>& lines() const { return lines_; }
  bool unknown_sequence() const { return unknown_; }

 private:
  void escape(char end, int number);
  std::vector<std::string>& grown();
  size_t columns_, row_ = 0, column_ = 0;
  std::vector<std::string> lines_ = {""};
  std::string pending_;
  bool unknown_ = false;
};

class PseudoTerminal {
 public:
  PseudoTerminal(int columns, int rows);
  ~PseudoTerminal();
  PseudoTerminal(const PseudoTerminal&) = delete;
  PseudoTerminal& operator=(const PseudoTerminal&) = delete;
  void resize(int columns, int rows);
  const std::string& path() const { return path_; }  // of the program's end
  int program_fd() const { return slave_; }
  std::string read_all();  // what was written since the last call; does not wait

 private:
  int master_ = -1, slave_ = -1;
  std::string path_;
};

}  // namespace millrace
