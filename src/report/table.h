// Tables: built once, printed for a terminal, as CSV, as Markdown, or in an HTML report. Plain data, one thread.
#pragma once
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace millrace::report {

enum class Align { kLeft, kRight };
struct Column {
  std::string title;
  Align align = Align::kRight;
  std::string explanation = {};  // the formula or unit; a tooltip in HTML
};

class Table {
 public:
  explicit Table(std::vector<Column> columns, std::string title = "");
  // As many cells as columns. Cells may hold anything; every output makes them harmless in its own way.
  void add_row(std::vector<std::string> cells);
  // Says in every text and HTML form of the table that its figures do not count, and why.
  void mark_invalid(std::string reason) { invalid_reason_ = std::move(reason); }

  const std::string& title() const { return title_; }
  const std::vector<Column>& columns() const { return columns_; }
  const std::vector<std::vector<std::string>>& rows() const { return rows_; }
  const std::string& invalid_reason() const { return invalid_reason_; }  // "" when the figures count

 private:
  std::string title_, invalid_reason_;
  std::vector<Column> columns_;
  std::vector<std::vector<std::string>> rows_;
};

struct TextStyle {
  bool lines = false;   // rules of box-drawing characters instead of dashes
  bool colour = false;  // ANSI colours
};
// Lines and colours when `fd` is a terminal (colours not if NO_COLOR is set); plain otherwise.
TextStyle style_for(int fd);

// Aligned columns; every line ends in '\n'.
std::string to_text(const Table& table, const TextStyle& style = {});
// GitHub's tables; `|` and line breaks in cells are escaped.
std::string to_markdown(const Table& table);

struct CsvOptions {
  char separator = ',';
  bool byte_order_mark = false;
  std::string_view line_end = "\n";
};
// RFC 4180: a cell with the separator, a quote, a line break or a space at an end is quoted, quotes inside doubled.
std::string csv_row(std::span<const std::string> cells, const CsvOptions& options = {});
// Titles, then rows.
std::string to_csv(const Table& table, const CsvOptions& options = {});
// The reverse, for files of earlier runs: rows of cells; a byte order mark is skipped. kDataLoss names the line of a
// quote that never closes or is followed by other text.
Result<std::vector<std::vector<std::string>>> parse_csv(std::string_view text, char separator = ',');

}  // namespace millrace::report
