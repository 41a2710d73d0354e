#include "report/sweep.h"

#include <gtest/gtest.h>

namespace millrace::report {
namespace {

const std::vector<double> kRates = {1, 2, 4, 8};

// Two systems, the four panels of a load sweep.
Sweep two_systems() {
  Sweep sweep{"A and B", {"request rate (1/s)"}, {}};
  sweep.panels.push_back({"P90 first",
                          {"ms"},
                          {{"A", "", kRates, {100, 200, 1000, 3000}}, {"B", "", kRates, {100, 150, 400, 800}}},
                          {{"2000 ms", 2000}}});
  sweep.panels.push_back({"P90 rest",
                          {"ms"},
                          {{"A", "", kRates, {20, 30, 40, 60}}, {"B", "", kRates, {20, 25, 30, 55}}},
                          {{"50 ms", 50}}});
  sweep.panels.push_back({"attainment",
                          {"%", Scale::kLinear, 0, 110},
                          {{"A", "both", kRates, {100, 98, 80, 10}},
                           {"A", "first", kRates, {100, 99, 85, 12}},
                           {"B", "both", kRates, {85, 80, 70, 60}}},
                          {{"90 %", 90}},
                          /*at_least=*/true});
  sweep.panels.push_back(
      {"throughput", {"tokens/s"}, {{"A", "output", kRates, {1, 2, 3, 4}}, {"A", "good", kRates, {1, 2, 2, 1}}}});
  return sweep;
}

TEST(Sweep, CrossingsAreThoseOfStraightLines) {
  const std::vector<Crossing> found = crossings(two_systems());
  ASSERT_EQ(found.size(), 6u);
  EXPECT_DOUBLE_EQ(*found[0].x, 6);  // A: half way from 1000 at 4 to 3000 at 8
  EXPECT_FALSE(found[1].x);          // B keeps 2000 ms
  EXPECT_DOUBLE_EQ(*found[2].x, 6);
  EXPECT_DOUBLE_EQ(*found[3].x, 7.2);
  EXPECT_NEAR(*found[4].x, 2 + 2 * 8.0 / 18, 1e-12);  // a share falls through its limit
  EXPECT_TRUE(found[5].before_first);
  EXPECT_DOUBLE_EQ(*found[5].x, 1);
}

TEST(Sweep, TheTableComparesWithTheFirstSystem) {
  const Table table = crossing_table(two_systems());
  EXPECT_EQ(table.columns()[4].title, "/ A");
  EXPECT_EQ(table.rows()[1], (std::vector<std::string>{"P90 first", "2000 ms", "B", "not reached", "n/a"}));
  EXPECT_EQ(table.rows()[3], (std::vector<std::string>{"P90 rest", "50 ms", "B", "7.200", "1.200"}));
  EXPECT_EQ(table.rows()[5][3], "at or below 1.000");
  Sweep alone = two_systems();
  for (SweepPanel& panel : alone.panels)
    std::erase_if(panel.lines, [](const SweepLine& line) { return line.system == "B"; });
  EXPECT_EQ(crossing_table(alone).columns().size(), 4u);
}

TEST(Sweep, ASystemKeepsItsColourAndAMeasureItsStroke) {
  const std::vector<LineChart> charts = sweep_charts(two_systems());
  ASSERT_EQ(charts.size(), 4u);
  EXPECT_EQ(charts[2].series[0].colour, 0);
  EXPECT_EQ(charts[2].series[1].colour, 0);
  EXPECT_EQ(charts[2].series[2].colour, 1);
  EXPECT_EQ(charts[2].series[1].stroke, Stroke::kDashed);
  EXPECT_EQ(charts[2].series[2].stroke, Stroke::kSolid);
  EXPECT_EQ(charts[2].series[1].name, "A, first");
  EXPECT_NE(charts[0].note.find("A: 2000 ms 6.000; B: 2000 ms not reached"), std::string::npos);
}

TEST(Sweep, AnInvalidSweepIsMarkedInEveryPanel) {
  Sweep sweep = two_systems();
  sweep.invalid_reason = "late sends";
  const std::string file = sweep_file(sweep);
  size_t marks = 0;
  for (size_t at = file.find(">INVALID</text>"); at != std::string::npos; at = file.find(">INVALID</text>", at + 1))
    ++marks;
  EXPECT_EQ(marks, 4u);
  EXPECT_EQ(crossing_table(sweep).invalid_reason(), "late sends");
}

TEST(Sweep, AReportHoldsTheFourPanels) {
  HtmlReport report("sweep", {});
  add_sweep(report, two_systems());
  const std::string html = report.to_html();
  size_t figures = 0;
  for (size_t at = html.find("<figure"); at != std::string::npos; at = html.find("<figure", at + 1)) ++figures;
  EXPECT_EQ(figures, 4u);
  EXPECT_NE(html.find("Where limits are crossed"), std::string::npos);
}

}  // namespace
}  // namespace millrace::report
