#include "report/html_report.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <cstdlib>

#include "base/file.h"
#include "base/random.h"
#include "base/text.h"
#include "report/chart.h"
#include "tests/report/browser.h"

namespace millrace::report {
namespace {

const std::string kEvil =
    "</script><script>document.body.dataset.hacked=1</script><img src=http://192.0.2.1/x>\"'&\x1b[2J";

Validity red() {
  Validity validity;
  validity.add({"client CPU", "12 %", "below 80 %", Mark::kGood});
  validity.add({"late sends", "31 %", "below 1 %", Mark::kBad});
  return validity;
}

HtmlReport small(Validity validity) {
  HtmlReport report("Small report", std::move(validity));
  report.add_fact("server", "127.0.0.1:8080");
  report.begin_panel("Latency", "How long it took.");
  Table table({{"measure", Align::kLeft}, {"P50 (ms)", Align::kRight, "numpy's percentile"}, {"P99 (ms)"}},
              "Percentiles");
  table.add_row({"first", "123.4", "567.8"});
  table.add_row({"rest", "11.5", "29.75"});
  report.add_table(table);
  report.add_chart(to_svg(LineChart{"Line",
                                    {"t (s)", Scale::kLinear, 0, 10},
                                    {"ms", Scale::kLinear, 0, 100},
                                    {{"first", {0, 5, 10}, {10, 42.5, 90}}}}));
  report.set_data({{"p50", 123.4}, {"values", {1, 2, 3}}});
  return report;
}

size_t count_of(const std::string& text, std::string_view part) {
  size_t count = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++count;
  return count;
}

TEST(HtmlReport, CarriesItsNumbersForMachines) {
  const std::string html = small({}).to_html();
  const Json data = Json::parse(between(html, "id=\"data\">", "</script>"));
  EXPECT_EQ(data["data"]["p50"], 123.4);
  EXPECT_EQ(data["valid"], true);
  EXPECT_EQ(data["facts"][0], Json({"server", "127.0.0.1:8080"}));
  EXPECT_EQ(count_of(html, "INVALID"), 0u);
}

TEST(HtmlReport, AnInvalidRunIsMarkedEverywhere) {
  const std::string html = small(red()).to_html();
  EXPECT_NE(html.find("<title>INVALID: Small report</title>"), std::string::npos);
  EXPECT_NE(html.find("<section id=\"validity\" class=\"box bad\">"), std::string::npos);
  EXPECT_NE(html.find("<caption>INVALID: late sends is 31 % (wanted: below 1 %). Percentiles"), std::string::npos);
  EXPECT_NE(html.find("<figure data-valid=\"false\"><p class=\"mark\">INVALID: late sends"), std::string::npos);
  EXPECT_NE(html.find("<h2>Latency</h2><p class=\"mark\">INVALID: late sends"), std::string::npos);
  EXPECT_EQ(Json::parse(between(html, "id=\"data\">", "</script>"))["valid"], false);
}

HtmlReport hostile() {
  Validity validity;
  validity.add({kEvil, kEvil, kEvil, Mark::kUnknown});
  HtmlReport report(kEvil, std::move(validity));
  report.add_fact(kEvil, kEvil);
  report.begin_panel(kEvil, kEvil);
  Table table({{kEvil, Align::kLeft, kEvil}}, kEvil);
  table.add_row({kEvil});
  report.add_table(table);
  report.add_chart(to_svg(LineChart{kEvil, {kEvil}, {kEvil}, {{kEvil, {0, 1}, {0, 1}}}, {{kEvil, 0.5}}, kEvil}));
  report.set_data({{kEvil, kEvil}});
  return report;
}

TEST(HtmlReport, TextOfServersCannotBecomeMarkup) {
  const std::string html = hostile().to_html();
  EXPECT_EQ(count_of(html, "<script"), 2u);  // the data and the page's own
  EXPECT_EQ(count_of(html, "</script"), 2u);
  EXPECT_EQ(count_of(html, "<img"), 0u);
  EXPECT_EQ(html.find('\x1b'), std::string::npos);
  EXPECT_EQ(Json::parse(between(html, "id=\"data\">", "</script>"))["data"][kEvil], kEvil);
}

TEST(HtmlReport, NothingIsLoadedFromElsewhere) {
  const std::string html = small(red()).to_html();
  for (std::string_view part : {" src=", " href=", "@import", "url(", "<link", "<iframe"})
    EXPECT_EQ(count_of(html, part), 0u) << part;
  EXPECT_NE(html.find("default-src 'none'"), std::string::npos);
}

TEST(HtmlReport, FilesAppearWhole) {
  const TemporaryDirectory folder;
  ASSERT_TRUE(small({}).write(folder.file("report.html")).ok());
  EXPECT_EQ(*read_file(folder.file("report.html")), small({}).to_html());
  EXPECT_FALSE(small({}).write(folder.file("missing/report.html")).ok());
}

TEST(HtmlReport, NumbersTakeLittleSpace) {
  EXPECT_EQ(dump_json(number_column(std::vector<double>{1, 0.123456789, std::nan(""), 1e-9 / 3})),
            "[1,0.123457,null,3.33333e-10]");
}

// Ten thousand requests with what a report of a run shows of them.
HtmlReport large() {
  constexpr int kRequests = 10000;
  Random random(2);
  HtmlReport report("Ten thousand", {});
  WaterfallChart waterfall{"Requests", {"s"}, {"first", "rest"}, {}};
  std::vector<std::vector<double>> columns(12, std::vector<double>(kRequests));
  std::vector<std::string> errors(kRequests);
  for (int i = 0; i < kRequests; ++i) {
    for (auto& column : columns) column[static_cast<size_t>(i)] = 1000.0 * static_cast<double>(random.uniform());
    const double start = i / 40.0, first = start + static_cast<double>(random.uniform());
    waterfall.rows.push_back({start, {first, first + 8 * static_cast<double>(random.uniform())}, i % 97 == 0});
    if (i % 97 == 0) errors[static_cast<size_t>(i)] = "HTTP 503: " + kEvil;
  }
  report.begin_panel("Requests");
  report.add_chart(to_svg(waterfall));
  for (size_t c = 0; c < 6; ++c) {
    const Sample sample(columns[c]);
    report.add_chart(to_svg(distribution_chart("Distribution", {"ms"}, {{"a", &sample}, {"b", &sample}})));
    report.add_chart(to_svg(HistogramChart{"Histogram", {"ms"}, {"requests"}, {{"a", histogram(sample)}}}));
    report.add_chart(to_svg(LineChart{"Timeline", {"s"}, {"ms"}, {{"a", columns[c], columns[c + 1]}}}));
  }
  Json data = {{"error", errors}};
  for (size_t c = 0; c < columns.size(); ++c) data[fmt::format("column_{}_ms", c)] = number_column(columns[c]);
  report.set_data(std::move(data));
  return report;
}

TEST(HtmlReport, TenThousandRequestsStayBelowThreeMegabytes) {
  const size_t bytes = large().to_html().size();
  EXPECT_LT(bytes, 3'000'000u);
  RecordProperty("bytes", static_cast<int>(bytes));
}

TEST(HtmlReportInChromium, NumbersAreReadBackFromTheDom) {
  MR_NEED_CHROMIUM(browser);
  const Json seen = seen_by_browser(small({}).to_html(), browser);
  const Json table = {{"measure", "P50 (ms)", "P99 (ms)"}, {"first", "123.4", "567.8"}, {"rest", "11.5", "29.75"}};
  EXPECT_EQ(seen["tables"], Json::array({table}));
  EXPECT_EQ(seen["data"]["p50"], 123.4);
  EXPECT_EQ(seen["charts"], 1);
  EXPECT_EQ(seen["tips"][0], "first: ms 42.5 @ t (s) 5");
  EXPECT_EQ(seen["resources"], 0);
  EXPECT_EQ(seen["marks"], 0);
  EXPECT_EQ(seen["valid"], "true");
}

TEST(HtmlReportInChromium, RedMarksAreVisible) {
  MR_NEED_CHROMIUM(browser);
  const Json seen = seen_by_browser(small(red()).to_html(), browser);
  EXPECT_EQ(seen["marks"], 2);  // of the panel and of the chart
  EXPECT_EQ(seen["valid"], "false");
}

TEST(HtmlReportInChromium, HostileTextStaysText) {
  MR_NEED_CHROMIUM(browser);
  const Json seen = seen_by_browser(hostile().to_html(), browser);
  EXPECT_EQ(seen["hacked"], "no");
  EXPECT_EQ(seen["images"], 0);
  EXPECT_EQ(seen["resources"], 0);
  EXPECT_EQ(seen["tables"].size(), 1u);
  EXPECT_NE(seen["tables"][0][1][0].get<std::string>().find("</script><script>document"), std::string::npos);
}

TEST(HtmlReportInChromium, TenThousandRequestsOpen) {
  MR_NEED_CHROMIUM(browser);
  const Json seen = seen_by_browser(large().to_html(), browser);
  EXPECT_EQ(seen["charts"], 19);
  EXPECT_EQ(seen["data"]["column_3_ms"].size(), 10000u);
  EXPECT_EQ(seen["tips"][0].get<std::string>().substr(0, 5), "rows ");
}

}  // namespace
}  // namespace millrace::report
