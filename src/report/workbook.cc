#include "report/workbook.h"

#include <fmt/format.h>
#include <unistd.h>
#include <xlsxwriter.h>

#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <optional>

#include "base/utf8.h"

namespace millrace::report {
namespace {

constexpr size_t kMaxRows = LXW_ROW_MAX - 1, kMaxColumns = LXW_COL_MAX - 1, kMaxCellBytes = 32'767;

struct Close {
  void operator()(lxw_workbook* book) const { workbook_close(book); }
};
using Workbook = std::unique_ptr<lxw_workbook, Close>;

// Only what is a number from the first letter to the last, so that names such as "inf" or " 1" stay text.
std::optional<double> number_of(const std::string& text) {
  if (text.empty() || text.find_first_not_of("0123456789+-.eE") != std::string::npos) return std::nullopt;
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  if (*end != '\0' || !std::isfinite(value)) return std::nullopt;
  return value;
}

Status check(const Sheet& sheet) {
  if (sheet.rows.size() > kMaxRows || sheet.titles.size() > kMaxColumns)
    return invalid_argument("sheet {}: {} rows and {} columns; {} and {} at most", sheet.name, sheet.rows.size(),
                            sheet.titles.size(), kMaxRows, kMaxColumns);
  for (const auto& row : sheet.rows) {
    if (row.size() != sheet.titles.size())
      return invalid_argument("sheet {}: a row of {} cells below {} titles", sheet.name, row.size(),
                              sheet.titles.size());
    for (const std::string& cell : row)
      if (cell.size() > kMaxCellBytes)
        return invalid_argument("sheet {}: a cell of {} bytes; {} at most", sheet.name, cell.size(), kMaxCellBytes);
  }
  return {};
}

void write_row(lxw_worksheet* page, lxw_row_t row, const std::vector<std::string>& cells, lxw_format* format) {
  for (size_t i = 0; i < cells.size(); ++i) {
    const auto column = static_cast<lxw_col_t>(i + 1);
    if (const auto value = number_of(cells[i]); value && format == nullptr)
      worksheet_write_number(page, row, column, *value, nullptr);
    else
      worksheet_write_string(page, row, column, utf8_replace_invalid(cells[i]).c_str(), format);
  }
}

void write_sheet(lxw_worksheet* page, const Sheet& sheet, lxw_format* bold) {
  write_row(page, 0, sheet.titles, bold);
  for (size_t i = 0; i < sheet.rows.size(); ++i) {
    const auto row = static_cast<lxw_row_t>(i + 1);
    worksheet_write_number(page, row, 0, static_cast<double>(i), bold);
    write_row(page, row, sheet.rows[i], nullptr);
  }
  worksheet_freeze_panes(page, 1, 0);
}

// What the destructor of `book` would do, with its result.
lxw_error close(Workbook& book) { return workbook_close(book.release()); }

Status write_book(const std::string& path, const std::vector<Sheet>& sheets) {
  Workbook book(workbook_new(path.c_str()));
  if (!book) return unavailable("{}: no memory for a workbook", path);
  lxw_format* bold = workbook_add_format(book.get());
  format_set_bold(bold);
  for (const Sheet& sheet : sheets) {
    const lxw_error name = workbook_validate_sheet_name(book.get(), sheet.name.c_str());
    if (name != LXW_NO_ERROR) return invalid_argument("sheet name '{}': {}", sheet.name, lxw_strerror(name));
    write_sheet(workbook_add_worksheet(book.get(), sheet.name.c_str()), sheet, bold);
  }
  const lxw_error error = close(book);
  if (error != LXW_NO_ERROR) return unavailable("{}: {}", path, lxw_strerror(error));
  return {};
}

}  // namespace

Status write_workbook(const std::string& path, const std::vector<Sheet>& sheets) {
  if (sheets.empty()) return invalid_argument("{}: a workbook without sheets", path);
  for (const Sheet& sheet : sheets) MR_RETURN_IF_ERROR(check(sheet));
  const std::string temporary = fmt::format("{}.tmp.{}", path, ::getpid());
  std::FILE* file = std::fopen(temporary.c_str(), "wb");  // the library would print why it cannot
  if (!file) return unavailable("{}: {}", path, std::strerror(errno));
  std::fclose(file);
  const Status written = write_book(temporary, sheets);
  if (written.ok() && std::rename(temporary.c_str(), path.c_str()) == 0) return {};
  std::remove(temporary.c_str());
  return written.ok() ? unavailable("{}: cannot be written", path) : written;
}

}  // namespace millrace::report
