#include "report/table.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>

#include "base/check.h"
#include "report/text.h"

namespace millrace::report {
namespace {

constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";

std::string padded(const std::string& text, int width, Align align) {
  const std::string space(static_cast<size_t>(std::max(0, width - display_width(text))), ' ');
  return align == Align::kLeft ? text + space : space + text;
}

std::string coloured(const std::string& text, const char* code, const TextStyle& style) {
  return style.colour ? fmt::format("\x1b[{}m{}\x1b[0m", code, text) : text;
}

std::string repeated(std::string_view part, int times) {
  std::string out;
  for (int i = 0; i < times; ++i) out += part;
  return out;
}

// Titles (row 0) and rows with control characters made visible.
std::vector<std::vector<std::string>> printable_cells(const Table& table) {
  std::vector<std::vector<std::string>> cells(1);
  for (const Column& column : table.columns()) cells[0].push_back(printable(column.title));
  for (const auto& row : table.rows()) {
    cells.emplace_back();
    for (const std::string& cell : row) cells.back().push_back(printable(cell));
  }
  return cells;
}

std::vector<int> column_widths(const std::vector<std::vector<std::string>>& cells) {
  std::vector<int> widths(cells[0].size(), 0);
  for (const auto& row : cells)
    for (size_t c = 0; c < row.size(); ++c) widths[c] = std::max(widths[c], display_width(row[c]));
  return widths;
}

std::string text_row(const Table& table, const std::vector<std::string>& cells, const std::vector<int>& widths) {
  std::string line;
  for (size_t c = 0; c < cells.size(); ++c)
    line += (c == 0 ? "" : "  ") + padded(cells[c], widths[c], table.columns()[c].align);
  line.erase(line.find_last_not_of(' ') + 1);
  return line + "\n";
}

std::string markdown_cell(std::string_view text) {
  std::string out;
  for (char c : printable(text)) {
    if (c == '|' || c == '\\' || c == '<' || c == '`' || c == '*' || c == '_' || c == '[') out += '\\';
    out += c;
  }
  return out;
}

std::string markdown_row(std::span<const std::string> cells) {
  std::string line = "|";
  for (const std::string& cell : cells) line += " " + cell + " |";
  return line + "\n";
}

bool needs_quotes(std::string_view cell, char separator) {
  if (cell.empty()) return false;
  return cell.find_first_of("\"\r\n") != cell.npos || cell.find(separator) != cell.npos || cell.front() == ' ' ||
         cell.back() == ' ';
}

std::string csv_cell(std::string_view cell, char separator) {
  if (!needs_quotes(cell, separator)) return std::string(cell);
  std::string out = "\"";
  for (char c : cell) out.append(c == '"' ? 2 : 1, c);
  return out + '"';
}

// Reads one CSV cell at a time from the front of what is left.
class CsvReader {
 public:
  CsvReader(std::string_view text, char separator) : text_(text), separator_(separator) {
    if (text_.starts_with(kByteOrderMark)) text_.remove_prefix(kByteOrderMark.size());
  }
  Result<std::vector<std::vector<std::string>>> rows() {
    std::vector<std::vector<std::string>> rows;
    while (!text_.empty()) {
      rows.emplace_back();
      for (bool more = true; more;) {
        MR_ASSIGN_OR_RETURN(std::string cell, next_cell());
        rows.back().push_back(std::move(cell));
        more = text_.starts_with(separator_);
        if (more) text_.remove_prefix(1);
      }
      end_line();
    }
    return rows;
  }

 private:
  Result<std::string> next_cell() {
    if (text_.starts_with('"')) return quoted_cell();
    const char ends[] = {separator_, '\r', '\n', '\0'};
    const size_t end = std::min(text_.find_first_of(ends, 0, 3), text_.size());
    std::string cell(text_.substr(0, end));
    text_.remove_prefix(end);
    return cell;
  }
  Result<std::string> quoted_cell() {
    const int first_line = line_;
    std::string cell;
    for (size_t at = 1; at < text_.size(); ++at) {
      if (text_[at] == '\n') ++line_;
      if (text_[at] != '"') {
        cell += text_[at];
      } else if (text_.substr(at + 1).starts_with('"')) {
        cell += text_[at++];
      } else {
        text_.remove_prefix(at + 1);
        if (text_.empty() || text_[0] == separator_ || text_[0] == '\r' || text_[0] == '\n') return cell;
        return data_loss("CSV line {}: text follows a closing quote; a comma or the line's end was wanted", line_);
      }
    }
    return data_loss("CSV line {}: a quote opens here and never closes", first_line);
  }
  void end_line() {
    if (text_.starts_with('\r')) text_.remove_prefix(1);
    if (text_.starts_with('\n')) text_.remove_prefix(1);
    ++line_;
  }
  std::string_view text_;
  char separator_;
  int line_ = 1;
};

}  // namespace

Table::Table(std::vector<Column> columns, std::string title) : title_(std::move(title)), columns_(std::move(columns)) {
  MR_CHECK(!columns_.empty(), "table '{}' has no columns", title_);
}

void Table::add_row(std::vector<std::string> cells) {
  MR_CHECK(cells.size() == columns_.size(), "{} cells for {} columns", cells.size(), columns_.size());
  rows_.push_back(std::move(cells));
}

TextStyle style_for(int fd) {
  const bool terminal = ::isatty(fd) == 1;
  return {.lines = terminal, .colour = terminal && std::getenv("NO_COLOR") == nullptr};
}

std::string to_text(const Table& table, const TextStyle& style) {
  const auto cells = printable_cells(table);
  const std::vector<int> widths = column_widths(cells);
  std::string out;
  if (!table.title().empty()) out += coloured(printable(table.title()), "1", style) + "\n";
  if (!table.invalid_reason().empty())
    out += coloured("INVALID: " + printable(table.invalid_reason()), "31;1", style) + "\n";
  out += text_row(table, cells[0], widths);
  int total = 2 * static_cast<int>(widths.size() - 1);
  for (int width : widths) total += width;
  out += repeated(style.lines ? "─" : "-", total) + "\n";
  for (size_t r = 1; r < cells.size(); ++r) out += text_row(table, cells[r], widths);
  return out;
}

std::string to_markdown(const Table& table) {
  std::string out;
  if (!table.title().empty()) out += "**" + markdown_cell(table.title()) + "**\n\n";
  if (!table.invalid_reason().empty()) out += "**INVALID: " + markdown_cell(table.invalid_reason()) + "**\n\n";
  std::vector<std::string> titles, rules;
  for (const Column& column : table.columns()) {
    titles.push_back(markdown_cell(column.title));
    rules.push_back(column.align == Align::kRight ? "--:" : ":--");
  }
  out += markdown_row(titles) + markdown_row(rules);
  for (const auto& row : table.rows()) {
    std::vector<std::string> cells;
    for (const std::string& cell : row) cells.push_back(markdown_cell(cell));
    out += markdown_row(cells);
  }
  return out;
}

std::string csv_row(std::span<const std::string> cells, const CsvOptions& options) {
  std::string line;
  for (size_t c = 0; c < cells.size(); ++c) {
    if (c > 0) line += options.separator;
    line += csv_cell(cells[c], options.separator);
  }
  return line.append(options.line_end);
}

std::string to_csv(const Table& table, const CsvOptions& options) {
  std::string out(options.byte_order_mark ? kByteOrderMark : "");
  std::vector<std::string> titles;
  for (const Column& column : table.columns()) titles.push_back(column.title);
  out += csv_row(titles, options);
  for (const auto& row : table.rows()) out += csv_row(row, options);
  return out;
}

Result<std::vector<std::vector<std::string>>> parse_csv(std::string_view text, char separator) {
  return CsvReader(text, separator).rows();
}

}  // namespace millrace::report
