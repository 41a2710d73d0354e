#include "report/chart.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "base/json.h"
#include "base/random.h"
#include "report/axis.h"
#include "report/svg.h"

namespace millrace::report {
namespace {

std::string labels(const std::vector<Tick>& ticks) {
  std::string text;
  for (const Tick& tick : ticks) text += (text.empty() ? "" : " ") + tick.label;
  return text;
}

// The values a chart carries for the pointer.
Json hover_of(const std::string& svg) {
  const std::string key = "data-hover=\"";
  const size_t from = svg.find(key) + key.size();
  std::string text = svg.substr(from, svg.find('"', from) - from);
  for (const auto& [entity, plain] :
       {std::pair{"&quot;", "\""}, {"&lt;", "<"}, {"&gt;", ">"}, {"&#39;", "'"}, {"&amp;", "&"}})
    for (size_t at; (at = text.find(entity)) != std::string::npos;) text.replace(at, strlen(entity), plain);
  return Json::parse(text);
}

size_t count_of(const std::string& text, std::string_view part) {
  size_t count = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++count;
  return count;
}

// Every element that is opened is closed, in order: what an XML reader would demand.
bool well_formed(std::string_view svg) {
  std::vector<std::string> open;
  for (size_t at = 0; (at = svg.find('<', at)) != svg.npos;) {
    const size_t end = svg.find('>', at);
    if (end == svg.npos) return false;
    const std::string_view tag = svg.substr(at + 1, end - at - 1);
    at = end;
    if (tag.starts_with('?') || tag.ends_with('/')) continue;
    if (tag.starts_with('/')) {
      if (open.empty() || open.back() != tag.substr(1)) return false;
      open.pop_back();
    } else {
      open.emplace_back(tag.substr(0, tag.find(' ')));
    }
  }
  return open.empty();
}

double luminance(const char* colour) {
  const auto channel = [&](int at) {
    const double c = std::stoi(std::string(colour + at, 2), nullptr, 16) / 255.0;
    return c <= 0.04045 ? c / 12.92 : std::pow((c + 0.055) / 1.055, 2.4);
  };
  return 0.2126 * channel(1) + 0.7152 * channel(3) + 0.0722 * channel(5);
}
double contrast(const char* a, const char* b) {
  const double x = luminance(a), y = luminance(b);
  return (std::max(x, y) + 0.05) / (std::min(x, y) + 0.05);
}

TEST(Ticks, AreRoundNumbers) {
  EXPECT_EQ(labels(linear_ticks(0, 10, 5)), "0 2 4 6 8 10");
  EXPECT_EQ(labels(linear_ticks(0, 1, 5)), "0.0 0.2 0.4 0.6 0.8 1.0");
  EXPECT_EQ(labels(linear_ticks(-3, 7.5, 5)), "0 5");
  EXPECT_EQ(labels(linear_ticks(0, 2347, 5)), "0 500 1000 1500 2000");
  EXPECT_EQ(labels(linear_ticks(0, 3e7, 3)), "0 1e+07 2e+07 3e+07");
  EXPECT_EQ(labels(linear_ticks(0.1, 0.3, 4)), "0.10 0.15 0.20 0.25 0.30");
  EXPECT_EQ(labels(log_ticks(1, 100, 6)), "1 2 5 10 20 50 100");
  EXPECT_EQ(labels(log_ticks(0.5, 2000, 4)), "1 10 100 1000");
  EXPECT_EQ(labels(linear_ticks(5, 5, 4)), "");
}

TEST(Ticks, LieWithinAnyRange) {
  Random random(1);
  for (int i = 0; i < 2000; ++i) {
    const double low = std::pow(10.0, 12 * random.uniform() - 6),
                 high = low * (1 + std::pow(10.0, 8 * random.uniform() - 4));
    for (const auto& ticks : {linear_ticks(low, high, 6), log_ticks(low, high, 6)})
      for (const Tick& tick : ticks) {
        EXPECT_GE(tick.value, low - 1e-5 * (high - low) - 1e-8 * low);
        EXPECT_LE(tick.value, high + 1e-5 * (high - low) + 1e-8 * high);
      }
    const size_t count = linear_ticks(low, high, 6).size();
    EXPECT_TRUE(count >= 2 && count <= 8) << low << ' ' << high << ' ' << count;
  }
}

TEST(Axes, MapValuesToPixels) {
  Axis linear({}, {3, 97}, true, 5);
  linear.place(0, 100);
  EXPECT_DOUBLE_EQ(linear.pixel(50), 50);
  Axis log({.scale = Scale::kLog}, {10, 1000}, false, 5);
  log.place(200, 0);
  EXPECT_DOUBLE_EQ(log.pixel(100), 100);
  EXPECT_FALSE(log.can_show(0) || log.can_show(std::nan("")));
  Axis same({}, {7, 7}, false, 5);  // one value only
  same.place(0, 100);
  EXPECT_TRUE(std::isfinite(same.pixel(7)));
}

TEST(Colours, KeepTheirContrastInBothThemes) {
  for (const Theme* theme : {&kLightTheme, &kDarkTheme}) {
    for (const char* colour : theme->series) EXPECT_GE(contrast(colour, theme->background), 3) << colour;
    EXPECT_GE(contrast(theme->text, theme->background), 7);
    EXPECT_GE(contrast(theme->bad, theme->background), 4.5);
    EXPECT_GE(contrast(theme->good, theme->background), 4.5);
  }
}

TEST(Markup, HostileTextIsEscaped) {
  EXPECT_EQ(escape_markup("<script>\"&'"), "&lt;script&gt;&quot;&amp;&#39;");
  EXPECT_EQ(escape_markup(std::string_view("\0\x1b\xff", 3)), "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD");
  const std::string evil = "\"/><script>alert(1)</script>";
  const std::string svg = to_svg(LineChart{evil, {evil}, {evil}, {{evil, {1, 2}, {1, 2}}}, {{evil, 1.5}}, evil, evil});
  EXPECT_EQ(svg.find("<script"), std::string::npos);
  EXPECT_TRUE(well_formed(svg)) << svg;
  const std::string bars = to_svg(BarChart{evil, evil, {evil}, {evil}, {{evil, {1}}}});
  EXPECT_TRUE(well_formed(bars) && bars.find("<script") == std::string::npos);
}

TEST(LineCharts, PointsLieWhereTheirValuesAre) {
  const std::string svg = to_svg(
      LineChart{"t", {"x", Scale::kLinear, 0, 10}, {"y", Scale::kLinear, 0, 100}, {{"s", {0, 5, 10}, {0, 50, 100}}}});
  const Json hover = hover_of(svg);
  const double left = std::stod(hover["box"][0].get<std::string>()),
               right = std::stod(hover["box"][2].get<std::string>());
  EXPECT_NEAR(hover["series"][0]["p"][0].get<double>(), left, 0.1);
  EXPECT_NEAR(hover["series"][0]["p"][1].get<double>(), (left + right) / 2, 0.1);
  EXPECT_EQ(hover["series"][0]["y"], Json({0, 50, 100}));
  EXPECT_TRUE(well_formed(svg));
}

TEST(LineCharts, ManyPointsStaySmallAndKeepTheirExtremes) {
  Series series{.name = "s"};
  Random random(3);
  for (int i = 0; i < 300000; ++i) series.x.push_back(i), series.y.push_back(random.uniform());
  series.y[123456] = 9.5;
  const std::string svg = to_svg(LineChart{"t", {"x"}, {"y"}, {series}});
  EXPECT_LT(svg.size(), 150000u);
  const Json drawn = hover_of(svg)["series"][0]["y"];
  EXPECT_NE(std::find(drawn.begin(), drawn.end(), Json(9.5)), drawn.end());
}

TEST(LineCharts, PointsAreDrawnInRisingX) {
  const std::string svg = to_svg(LineChart{"t", {"x"}, {"y"}, {{"s", {3, 1, 2}, {30, 10, 20}}}});
  EXPECT_EQ(hover_of(svg)["series"][0]["y"], Json({10, 20, 30}));
}

TEST(LineCharts, GapsBreakTheLineAndLostValuesAreCounted) {
  const double nan = std::nan(""), inf = std::numeric_limits<double>::infinity();
  const std::string gap = to_svg(LineChart{"t", {"x"}, {"y"}, {{"s", {1, 2, 3, 4, 5}, {1, 2, nan, 2, 1}}}});
  EXPECT_EQ(count_of(gap, "<path class=\"line c0\" d=\"M"), 3u);  // two pieces and the legend's
  EXPECT_EQ(gap.find("not drawn"), std::string::npos);
  const std::string log = to_svg(LineChart{"t", {"x"}, {"y", Scale::kLog}, {{"s", {1, 2, 3, 4}, {1, 0, -2, inf}}}});
  EXPECT_NE(log.find("3 values have no place on these axes and are not drawn"), std::string::npos);
}

TEST(LineCharts, LimitsBandsAndInvalidityAreDrawn) {
  LineChart chart{"t", {"x"}, {"y"}, {{.name = "s", .x = {1, 2}, .y = {1, 2}, .low = {0.5, 1}, .high = {2, 3}}}};
  chart.limits = {{"limit 40", 40}};
  std::string svg = to_svg(chart);
  EXPECT_EQ(count_of(svg, "class=\"limit\""), 1u);  // the axis reaches up to it
  EXPECT_EQ(count_of(svg, "class=\"band f0\""), 1u);
  EXPECT_NE(svg.find("data-valid=\"true\""), std::string::npos);
  chart.invalid_reason = "late sends";
  svg = to_svg(chart);
  EXPECT_NE(svg.find(">INVALID</text>"), std::string::npos);
  EXPECT_NE(svg.find("data-valid=\"false\""), std::string::npos);
}

TEST(Charts, NothingToDrawIsSaid) {
  for (const std::string& svg :
       {to_svg(LineChart{"t", {"x"}, {"y"}, {}}), to_svg(BarChart{"t", "x", {"y"}, {}, {}}),
        to_svg(HistogramChart{"t", {"x"}, {"y"}, {{"none", {}}}}), to_svg(WaterfallChart{"t", {"x"}, {"a"}, {}})}) {
    EXPECT_NE(svg.find("no data"), std::string::npos);
    EXPECT_TRUE(well_formed(svg));
    EXPECT_EQ(svg.find("nan"), std::string::npos);
  }
}

TEST(Charts, BarsAndHistogramsCarryTheirValues) {
  const std::string bars = to_svg(BarChart{"t", "x", {"y"}, {"a", "b"}, {{"one", {3, 4}}, {"two", {5, std::nan("")}}}});
  EXPECT_EQ(hover_of(bars)["series"][1]["y"], Json({5}));
  EXPECT_NE(bars.find("1 values have no place"), std::string::npos);
  const std::string bins = to_svg(HistogramChart{"t", {"ms"}, {"count"}, {{"s", histogram(Sample({1, 2, 2, 9}), 4)}}});
  EXPECT_EQ(hover_of(bins)["series"][0]["y"], Json({3, 1}));
  EXPECT_EQ(hover_of(bins)["series"][0]["x"][1], "7.000 to 9.000");
}

TEST(Charts, DistributionsEndAtAHundredPercent) {
  const Sample sample({1, 2, 3, 4});
  const LineChart chart = distribution_chart("t", {"ms"}, {{"s", &sample}});
  EXPECT_EQ(chart.series[0].y, (std::vector<double>{25, 50, 75, 100}));
  EXPECT_TRUE(chart.series[0].steps);
}

WaterfallChart waterfall(int rows, double spread) {
  WaterfallChart chart{"t", {"s"}, {"first", "rest"}, {}};
  Random random(5);
  for (int i = 0; i < rows; ++i) {
    const double start = 100 * random.uniform(), first = start + spread * random.uniform();
    chart.rows.push_back({start, {first, first + spread * random.uniform()}});
  }
  return chart;
}

TEST(Waterfalls, TenThousandRowsStaySmall) {
  for (double spread : {0.01, 1.0, 30.0}) {
    const std::string svg = to_svg(waterfall(10000, spread));
    EXPECT_LT(svg.size(), 300000u) << spread;
    EXPECT_TRUE(well_formed(svg));
  }
}

TEST(Waterfalls, NoFailureIsHidden) {
  WaterfallChart chart = waterfall(10000, 5);
  EXPECT_EQ(to_svg(chart).find("cbad"), std::string::npos);
  chart.rows[4321].failed = true;
  EXPECT_NE(to_svg(chart).find("class=\"cbad\""), std::string::npos);
  EXPECT_NE(to_svg(chart).find("1 failed"), std::string::npos);
}

TEST(Waterfalls, FewRowsAreDrawnOneByOne) {
  WaterfallChart chart{"t", {"s", Scale::kLinear, 0, 10}, {"first", "rest"}, {{2, {4, 8}}, {1, {2}}}};
  const std::string svg = to_svg(chart);
  const Json hover = hover_of(svg);
  EXPECT_EQ(hover["by"], "y");
  EXPECT_EQ(hover["series"][0]["y"], Json({"start 1.000", "start 2.000"}));
  const double left = std::stod(hover["box"][0].get<std::string>()),
               right = std::stod(hover["box"][2].get<std::string>());
  const size_t rest = svg.find("<path class=\"c1\" fill");
  const double from = std::stod(svg.substr(svg.find("d=\"M", rest) + 4)),
               length = std::stod(svg.substr(svg.find('h', svg.find("d=\"M", rest)) + 1));
  EXPECT_NEAR(from, left + 0.4 * (right - left), 0.1);
  EXPECT_NEAR(length, 0.4 * (right - left), 0.1);
}

TEST(Charts, AFileOfItsOwnCarriesItsStyle) {
  const std::string one = to_svg(LineChart{"t", {"x"}, {"y"}, {{"s", {1, 2}, {1, 2}}}});
  const std::string file = standalone_svg(svg_grid("four", {one, one, one, one}, 2));
  EXPECT_NE(file.find("prefers-color-scheme:dark"), std::string::npos);
  EXPECT_EQ(count_of(file, "data-hover"), 4u);
  EXPECT_NE(file.find("<svg x=\"680\" y=\"354\""), std::string::npos);
  EXPECT_TRUE(well_formed(file));
}

TEST(Charts, CrossingsAreInterpolated) {
  const std::vector<double> x = {1, 2, 4}, y = {10, 20, 60};
  EXPECT_DOUBLE_EQ(*first_crossing(x, y, 40), 3);
  EXPECT_DOUBLE_EQ(*first_crossing(x, y, 5), 1);
  EXPECT_FALSE(first_crossing(x, y, 61));
  EXPECT_DOUBLE_EQ(*first_crossing(x, std::vector<double>{10, std::nan(""), 60}, 40), 4);
}

}  // namespace
}  // namespace millrace::report
