// One HTML file that holds a whole report and opens without a network: panels of text, tables and charts, values under
// the pointer, a validity box, and the raw numbers for machines. Nothing in it is loaded from elsewhere (a content
// security policy in the page forbids it), every text is escaped, and light or dark follows the reader's settings.
// Figures of an invalid run are marked in the page's title, its box, every panel, table and chart.
// Plain data, one thread.
#pragma once
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "report/table.h"
#include "report/validity.h"

namespace millrace::report {

class HtmlReport {
 public:
  HtmlReport(std::string title, Validity validity);
  // A line of the head of the page: what was measured, where, when.
  void add_fact(std::string name, std::string value);

  // Everything added afterwards belongs to this panel, until the next. Text: a paragraph, or "".
  void begin_panel(std::string title, std::string text = "");
  void add_text(std::string paragraph);
  void add_table(const Table& table);
  // An <svg> element from chart.h: markup, taken as it is.
  void add_chart(std::string_view svg);

  // The raw numbers, in the page as <script type="application/json" id="data">:
  // {"title", "valid", "validity", "facts", "data": these}. Columns (lists of numbers) take a fraction of the space of
  // rows (objects): 10,000 rows of 12 columns are about 0.9 MB.
  void set_data(Json data) { data_ = std::move(data); }

  std::string to_html() const;
  // Appears whole or not at all.
  Status write(const std::string& path) const;

 private:
  struct Panel {
    std::string title, body;
  };
  Panel& panel();
  std::string mark() const;  // the red mark of an invalid run, or ""
  std::string title_, reason_;
  Validity validity_;
  std::vector<std::pair<std::string, std::string>> facts_;
  std::vector<Panel> panels_;
  Json data_;
};

// Values with `significant` digits each; those that are not finite become null.
Json number_column(std::span<const double> values, int significant = 6);

// The page's own style and script, apart from those of charts.
extern const char* const kPageStyle;
extern const char* const kPageScript;

}  // namespace millrace::report
