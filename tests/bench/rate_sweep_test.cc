// Panels against the request rate, from points whose figures are known.
#include "bench/rate_sweep.h"

#include <gtest/gtest.h>

#include <cmath>

#include "bench/html.h"

namespace millrace::bench {
namespace {

// Ten answers, the i-th with a TTFT of (i + 1) `ttft_ms` and a TPOT of `tpot_ms`, and a refusal.
Point point(double rate, double ttft_ms, double tpot_ms) {
  Point p;
  for (int i = 0; i < 10; ++i) {
    RequestRecord r{.index = i, .scheduled_s = 0, .sent_s = 0, .first_token_s = (i + 1) * ttft_ms * 1e-3};
    r.last_token_s = r.done_s = r.first_token_s + tpot_ms * 1e-3 * 10;
    r.chunks = {{r.first_token_s, 1}, {r.last_token_s, 10}};
    r.output_tokens = r.requested_output_tokens = 11;
    p.run.requests.push_back(r);
  }
  p.run.requests.push_back({.sent_s = 0, .done_s = 0.1, .outcome = Outcome::kRefused});
  p.run.model = "m", p.run.dataset = "random";
  p.run.request_rate = rate;
  p.run.planned_requests = 11;
  p.measures = measure(p.run);
  return p;
}

SweepSystem system_of(const std::string& name, const std::vector<Point>& points) {
  SweepSystem system{name, {}};
  for (const Point& p : points) system.points.push_back(sweep_point(p));
  EXPECT_TRUE(merge_equal_rates(system).ok());
  return system;
}

TEST(RateSweep, AMeasuredPointBecomesItsPercentiles) {
  const SweepPoint p = sweep_point(point(2, 100, 20));
  EXPECT_EQ(p.issued, 11);
  EXPECT_EQ(p.completed, 10);
  EXPECT_NEAR(p.ttft_p90_ms, 910, 1e-9);  // between the ninth and the tenth of 100, 200, ... 1000
  EXPECT_NEAR(p.tpot_p90_ms, 20, 1e-9);
  EXPECT_NEAR(p.e2el_median_ms, 750, 1e-9);
  EXPECT_NEAR(p.output_throughput, 110 / 1.2, 1e-9);
}

TEST(RateSweep, TheFourPanelsHoldTheFigures) {
  const SweepSystem a = system_of("A", {point(4, 400, 40), point(1, 100, 20)});
  const report::Sweep sweep = rate_sweep("t", {a}, {.ttft_ms = 500, .tpot_ms = 30});
  ASSERT_EQ(sweep.panels.size(), 4u);
  EXPECT_EQ(sweep.panels[0].lines[0].x, (std::vector<double>{1, 4}));
  EXPECT_NEAR(sweep.panels[0].lines[0].y[1], 3640, 1e-9);
  EXPECT_LT(sweep.panels[0].lines[0].low[1], 3640);  // the bootstrap band
  EXPECT_GT(sweep.panels[0].lines[0].high[1], 3640);
  EXPECT_NEAR(sweep.panels[1].lines[0].y[0], 20, 1e-9);
  const auto& shares = sweep.panels[2].lines;
  ASSERT_EQ(shares.size(), 3u);
  EXPECT_NEAR(shares[0].y[0], 100 * 5 / 11.0, 1e-9);  // both limits; the refused request is a miss
  EXPECT_NEAR(shares[0].y[1], 0, 1e-9);
  EXPECT_EQ(shares[1].measure, "TPOT alone");
  EXPECT_NEAR(shares[1].y[0], 100 * 10 / 11.0, 1e-9);
  EXPECT_EQ(shares[2].measure, "TTFT alone");
  EXPECT_NEAR(shares[2].y[1], 100 * 1 / 11.0, 1e-9);
  const auto& throughput = sweep.panels[3].lines;
  EXPECT_NEAR(throughput[1].y[0], 55 / 1.2, 1e-9);  // tokens of the five good requests
  EXPECT_EQ(report::sweep_charts(sweep)[2].series[1].stroke, report::Stroke::kDashed);
  EXPECT_EQ(report::sweep_charts(sweep)[2].series[2].stroke, report::Stroke::kDotted);
}

TEST(RateSweep, WithoutLimitsThereIsNoShareOfGoodRequests) {
  const report::Sweep sweep = rate_sweep("t", {system_of("A", {point(1, 100, 20)})}, {});
  ASSERT_EQ(sweep.panels.size(), 3u);
  EXPECT_EQ(sweep.panels[2].lines.size(), 1u);
  EXPECT_EQ(sustained_text(sweep), "");
}

TEST(RateSweep, TheEdgeOfASystemIsItsFirstBrokenLimit) {
  // P90 TTFT is 9.1 times the base: A crosses 910 ms at rate 2, B at 3; TPOT is kept.
  const SweepSystem a = system_of("A", {point(1, 50, 10), point(3, 150, 10)});
  const SweepSystem b = system_of("B", {point(2, 50, 10), point(4, 150, 10)});
  const report::Sweep sweep = rate_sweep("t", {a, b}, {.ttft_ms = 910, .tpot_ms = 50});
  EXPECT_EQ(sustained_text(sweep),
            "A keeps the limits up to 2.000 requests/s (P90 Time to First Token); B keeps the limits up to 3.000 "
            "requests/s (P90 Time to First Token), 1.500 times that of A.");
}

TEST(RateSweep, RepeatsOfARateAreOnePoint) {
  const SweepSystem a = system_of("A", {point(1, 100, 20), point(1, 200, 20)});
  ASSERT_EQ(a.points.size(), 1u);
  EXPECT_EQ(a.points[0].issued, 22);
  EXPECT_EQ(a.points[0].answers->size(), 20u);
  EXPECT_NEAR(a.points[0].output_throughput, 220 / (1.2 + 2.2), 1e-9);
  SweepSystem figures{"B", {{.rate = 1}, {.rate = 1}}};
  EXPECT_FALSE(merge_equal_rates(figures).ok());
}

TEST(RateSweep, AnInvalidPointMarksEveryPanel) {
  Point bad = point(1, 100, 20);
  bad.checks = {{"event-loop lag", Level::kInvalid, "p99 30 ms"}};
  const report::Sweep sweep = rate_sweep("t", {system_of("A", {bad, point(2, 100, 20)})}, {});
  EXPECT_EQ(sweep.invalid_reason, "A at 1 requests/s: event-loop lag p99 30 ms");
}

TEST(RateSweep, AReportOfSeveralRatesShowsThePanelsAndTheCrossings) {
  std::vector<Point> points = {point(1, 50, 10), point(3, 150, 10)};
  for (Point& p : points) p.measures = measure(p.run, {{Metric::kTtft, 910}});
  const std::string html = html_report("t", points).to_html();
  EXPECT_NE(html.find("P90 Time to First Token"), std::string::npos);
  EXPECT_NE(html.find("Where limits are crossed"), std::string::npos);
  EXPECT_NE(html.find("m keeps the limits up to 2.000 requests/s"), std::string::npos);
  points[1].run.request_rate = INFINITY;  // has no place on the axis
  EXPECT_EQ(html_report("t", points).to_html().find("P90 Time to First Token"), std::string::npos);
}

}  // namespace
}  // namespace millrace::bench
