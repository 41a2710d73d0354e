#include "report/html_report.h"

#include <cmath>
#include <cstdlib>

#include "base/file.h"
#include "report/svg.h"

namespace millrace::report {
namespace {

// The policy allows what the page itself holds and nothing else.
constexpr const char* kHead =
    "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
    "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; base-uri 'none'; form-action 'none'\">\n"
    "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n"
    "<meta name=\"color-scheme\" content=\"light dark\">\n";

const char* css_class(Mark mark) {
  switch (mark) {
    case Mark::kGood:
      return "good";
    case Mark::kBad:
      return "bad";
    case Mark::kUnknown:
      return "unknown";
  }
  return "";
}

std::string element(std::string_view name, std::string_view text, std::string_view css = "") {
  const std::string of_class = css.empty() ? "" : fmt::format(" class=\"{}\"", css);
  return fmt::format("<{}{}>{}</{}>", name, of_class, escape_markup(text), name);
}

std::string validity_box(const Validity& validity) {
  std::string out = fmt::format("<section id=\"validity\" class=\"box {}\">{}<ul>", validity.valid() ? "good" : "bad",
                                element("h2", validity.valid() ? "Valid" : "INVALID: these figures do not count"));
  for (const ValidityItem& item : validity.items()) {
    const std::string wanted = item.wanted.empty() ? "" : " (wanted: " + item.wanted + ")";
    out += fmt::format("<li class=\"{}\">{} {}: {}</li>", css_class(item.mark), element("b", mark_name(item.mark)),
                       escape_markup(item.name), escape_markup(item.found + wanted));
  }
  return out + "</ul></section>\n";
}

std::string table_head(const Table& table) {
  std::string out = "<thead><tr>";
  for (const Column& column : table.columns()) {
    const std::string hint =
        column.explanation.empty() ? "" : fmt::format(" title=\"{}\"", escape_markup(column.explanation));
    out += fmt::format("<th class=\"{}\"{}>{}</th>", column.align == Align::kLeft ? "l" : "r", hint,
                       escape_markup(column.title));
  }
  return out + "</tr></thead>";
}

std::string table_body(const Table& table) {
  std::string out = "<tbody>";
  for (const auto& row : table.rows()) {
    out += "<tr>";
    for (size_t c = 0; c < row.size(); ++c)
      out += element("td", row[c], table.columns()[c].align == Align::kLeft ? "l" : "r");
    out += "</tr>\n";
  }
  return out + "</tbody>";
}

// JSON inside a script element: no character of it can end the element.
std::string script_json(const Json& json) {
  std::string out;
  for (char c : dump_json(json)) {
    if (c == '<')
      out += "\\u003c";
    else
      out += c;
  }
  return out;
}

}  // namespace

HtmlReport::HtmlReport(std::string title, Validity validity)
    : title_(std::move(title)), reason_(validity.reason()), validity_(std::move(validity)) {}

void HtmlReport::add_fact(std::string name, std::string value) {
  facts_.emplace_back(std::move(name), std::move(value));
}

HtmlReport::Panel& HtmlReport::panel() {
  if (panels_.empty()) panels_.emplace_back();
  return panels_.back();
}

std::string HtmlReport::mark() const { return reason_.empty() ? "" : element("p", "INVALID: " + reason_, "mark"); }

void HtmlReport::begin_panel(std::string title, std::string text) {
  panels_.push_back({std::move(title), ""});
  if (!text.empty()) add_text(std::move(text));
}

void HtmlReport::add_text(std::string paragraph) { panel().body += element("p", paragraph) + "\n"; }

void HtmlReport::add_table(const Table& table) {
  const bool valid = reason_.empty() && table.invalid_reason().empty();
  std::string caption = table.title();
  if (!valid) caption = "INVALID: " + (reason_.empty() ? table.invalid_reason() : reason_) + ". " + caption;
  panel().body += fmt::format("<div class=\"scroll\"><table data-valid=\"{}\">{}{}{}</table></div>\n", valid,
                              caption.empty() ? "" : element("caption", caption), table_head(table), table_body(table));
}

void HtmlReport::add_chart(std::string_view svg) {
  panel().body += fmt::format("<figure data-valid=\"{}\">{}{}</figure>\n", reason_.empty(), mark(), svg);
}

std::string HtmlReport::to_html() const {
  std::string out = kHead;
  out += element("title", (reason_.empty() ? "" : "INVALID: ") + title_) + "\n<style>" + kPageStyle + chart_style() +
         "</style>\n</head>\n";
  out += fmt::format("<body data-valid=\"{}\">\n{}\n<dl>", reason_.empty(), element("h1", title_));
  for (const auto& [name, value] : facts_) out += element("dt", name) + element("dd", value);
  out += "</dl>\n";
  if (!validity_.items().empty()) out += validity_box(validity_);
  for (const Panel& each : panels_)
    out += "<section class=\"panel\">" + (each.title.empty() ? "" : element("h2", each.title)) + mark() + "\n" +
           each.body + "</section>\n";
  Json facts = Json::array();
  for (const auto& [name, value] : facts_) facts.push_back({name, value});
  const Json all = {{"title", title_},
                    {"valid", reason_.empty()},
                    {"validity", to_json(validity_)},
                    {"facts", std::move(facts)},
                    {"data", data_}};
  out += "<script type=\"application/json\" id=\"data\">" + script_json(all) + "</script>\n";
  return out + "<div id=\"tip\" role=\"status\" hidden></div>\n<script>" + kPageScript +
         "</script>\n</body>\n</html>\n";
}

Status HtmlReport::write(const std::string& path) const { return write_file(path, to_html()); }

Json number_column(std::span<const double> values, int significant) {
  Json column = Json::array();
  for (double value : values) {
    if (!std::isfinite(value))
      column.push_back(nullptr);
    else if (value == std::round(value) && std::abs(value) < 1e15)
      column.push_back(static_cast<int64_t>(value));
    else
      column.push_back(std::strtod(fmt::format("{:.{}g}", value, significant).c_str(), nullptr));
  }
  return column;
}

}  // namespace millrace::report
